"""Small prepared datasets for tests."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from kinema.data.dataset import Clip, ClipRecord, DatasetInfo, shard_name, write_info, write_shard
from kinema.pose.skeleton import HEAD, find_skeleton


def make_video(number: int, frames: int = 4, height: int = 6, width: int = 8) -> np.ndarray:
    """Noise that depends on the clip's number alone."""
    return np.random.default_rng(number).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)


def make_pose(number: int, frames: int = 4, height: int = 6, width: int = 8) -> np.ndarray:
    """Joints at random within the picture."""
    generator = np.random.default_rng([number, 1])
    return (generator.random((frames, 18, 3)) * (width - 1, height - 1, 1)).astype(np.float32)


def make_mask(number: int, frames: int = 4, height: int = 6, width: int = 8) -> np.ndarray:
    """The red of the clip, so that what happened to the video must have happened to the mask."""
    return make_video(number, frames, height, width)[..., 0].copy()


def write_dataset(
    folder: Path,
    clips: int = 10,
    *,
    per_shard: int = 4,
    shape: tuple[int, int, int] = (4, 6, 8),
    labels: Sequence[str] = ("bow", "walk"),
    test_every: int = 5,
    captions: bool | Collection[int] = True,
    people: bool = False,
    faceless: bool = False,
    encoded: bool = False,
) -> Path:
    """Write clips 00000, 00001, ... with the labels in turn; every `test_every`-th is of the test split.

    A collection of `captions` holds the numbers of the clips that have one.
    With `people` they have poses and masks, see `make_pose` and `make_mask`; `faceless` people turn their backs, and
    of the first one a nose is named nevertheless, as detectors do.
    """

    def clip(number: int) -> Clip:
        record = ClipRecord(
            key=f"{number:05d}",
            source="hall.mp4",
            first_frame=number * shape[0],
            fps=25.0,
            label=labels[number % len(labels)] if labels else None,
            caption=f"sentence {number}" if (number in captions if isinstance(captions, Collection) else captions) else None,
            split="test" if number % test_every == 0 else "train",
        )
        video = make_video(number, *shape)
        if not people:
            return Clip(record, video)
        pose = make_pose(number, *shape)
        if faceless:
            named = HEAD[1:] if number == 0 else HEAD
            pose[:, [find_skeleton("coco-18").index(name) for name in named]] = 0
        return Clip(record, video, pose, make_mask(number, *shape))

    starts = range(0, clips, per_shard)
    names = tuple(shard_name(number) for number in range(len(starts)))
    for name, start in zip(names, starts, strict=True):
        write_shard(folder / name, (clip(number) for number in range(start, min(clips, start + per_shard))), encoded=encoded)
    skeleton = "coco-18" if people else None
    write_info(folder, DatasetInfo(*shape, fps=25.0, shards=names, kept=clips, labels=tuple(labels), skeleton=skeleton))
    return folder
