"""Small prepared datasets for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinema.data.dataset import Clip, ClipRecord, DatasetInfo, shard_name, write_info, write_shard


def make_video(number: int, frames: int = 4, height: int = 6, width: int = 8) -> np.ndarray:
    """Noise that depends on the clip's number alone."""
    return np.random.default_rng(number).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def write_dataset(
    folder: Path,
    clips: int = 10,
    *,
    per_shard: int = 4,
    shape: tuple[int, int, int] = (4, 6, 8),
    labels: Sequence[str] = ("bow", "walk"),
    test_every: int = 5,
    captions: bool = True,
) -> Path:
    """Write clips 00000, 00001, ... with the labels in turn; every `test_every`-th is of the test split."""

    def clip(number: int) -> Clip:
        record = ClipRecord(
            key=f"{number:05d}",
            source="hall.mp4",
            first_frame=number * shape[0],
            fps=25.0,
            label=labels[number % len(labels)] if labels else None,
            caption=f"sentence {number}" if captions else None,
            split="test" if number % test_every == 0 else "train",
        )
        return Clip(record, make_video(number, *shape))

    starts = range(0, clips, per_shard)
    names = tuple(shard_name(number) for number in range(len(starts)))
    for name, start in zip(names, starts, strict=True):
        write_shard(folder / name, (clip(number) for number in range(start, min(clips, start + per_shard))))
    write_info(folder, DatasetInfo(*shape, fps=25.0, shards=names, kept=clips, labels=tuple(labels)))
    return folder
