"""Small datasets whose clips have classes, videos and groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kinema.data.dataset import Clip, ClipRecord, DatasetInfo, shard_name, write_info, write_shard

SHAPE = (8, 16, 16)


def moving_bar(label: int, number: int) -> np.ndarray:
    """A bright column that moves to the left (class 0), to the right (1) or not at all (2), from a place of its own."""
    generator = np.random.default_rng([label, number])
    video = generator.integers(0, 40, (*SHAPE, 3), dtype=np.uint8)
    start = int(generator.integers(16))
    for frame in range(SHAPE[0]):
        video[frame, :, (start + (-1, 1, 0)[label % 3] * frame) % 16] = 220
    return video


def write_labelled(
    folder: Path,
    *,
    labels: Sequence[str] = ("left", "right"),
    groups: Sequence[str] = ("anna", "bert", "cleo"),
    per_video: int | Mapping[str, int] = 4,
    stride: int = 8,
    splits: Mapping[str, str] | None = None,
    unlabelled: bool = False,
) -> Path:
    """Write one video per class and group.

    Args:
        folder: of the dataset.
        labels: classes.
        groups: people.
        per_video: clips of a video, or of the videos of each class.
        stride: frames from clip to clip; fewer than 8 make clips that share frames.
        splits: group -> split; all "train" by default.
        unlabelled: leave the label out of the first clip.
    """
    clips = []
    for label, name in enumerate(labels):
        for group in groups:
            for place in range(per_video if isinstance(per_video, int) else per_video[name]):
                number = len(clips)
                record = ClipRecord(
                    key=f"{number:05d}",
                    source=f"{name}/{group}.mp4",
                    first_frame=stride * place,
                    fps=25.0,
                    label=None if unlabelled and not clips else name,
                    group=group,
                    split=(splits or {}).get(group, "train"),  # type: ignore[arg-type]
                )
                clips.append(Clip(record, moving_bar(label, number)))
    write_shard(folder / shard_name(0), clips)
    write_info(folder, DatasetInfo(*SHAPE, fps=25.0, shards=(shard_name(0),), kept=len(clips), labels=tuple(labels)))
    return folder
