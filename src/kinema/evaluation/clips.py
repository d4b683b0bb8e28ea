"""Where clips that are judged come from: files, a dataset, or whatever makes them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import INFO_NAME, Dataset
from kinema.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, probe, read_video
from kinema.data.tags import read_tags, signature

ARRAY_SUFFIX = ".npy"
CLIP_SUFFIXES = VIDEO_SUFFIXES | {".webp", ARRAY_SUFFIX}
PIXELS = "pixels"  # storage of clips that never went through a lossy encoder
ALIKE = "give clips of one {}, or prepare the folder with kinema prepare and judge that dataset"

MINIMUM_CLIPS, USUAL_CLIPS = 8, 64  # of those that have a truth of their own

Clip = UInt8[np.ndarray, "T H W 3"]


@dataclass(frozen=True)
class Source:
    """Clips to be judged.

    Attributes:
        name: as a person calls them.
        shape: of every clip.
        fps: frames per second; None where nothing says it.
        storage: how pixels came here: ``pixels``, or the names of the codecs of files.
        count: how many there are; None for a system that makes as many as are wanted.
        read: index -> clip; of a system, the index is the seed.
        about: what else is known, as JSON values.
        names: of the clips, in their order; None where they have none.
        by_label: (seeds, class indices) -> clips, of a system that makes them by label.
        labels: the classes of such a system.
    """

    name: str
    shape: ClipShape
    fps: float | None
    storage: str
    count: int | None
    read: Callable[[Sequence[int]], list[Clip]]
    about: Mapping[str, Any] = field(default_factory=dict)
    names: Callable[[], list[str]] | None = None
    by_label: Callable[[Sequence[int], Sequence[int]], list[Clip]] | None = None
    labels: tuple[str, ...] = ()


def strided(source: Source, stride: int) -> Source:
    """Return the same clips with every `stride`-th frame alone, from the first on."""
    shape = replace(source.shape, frames=-(-source.shape.frames // stride))
    return replace(source, shape=shape, read=lambda indices: [clip[::stride] for clip in source.read(indices)])


def open_clips(path: Path) -> Source:
    """Open a dataset, a folder of clip files, or a file of raw clips.

    Raises:
        EvaluationError: when there are no clips, or they differ in shape or rate.
        MediaError: when a file cannot be read.
    """
    if (path / INFO_NAME).exists():
        return _dataset(path)
    if path.is_file() and path.suffix == ARRAY_SUFFIX:
        return _array(path)
    if not path.is_dir():
        raise EvaluationError(f"{path} is no folder of clips; give a run, a dataset, a folder of clip files or zoo:NAME")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in CLIP_SUFFIXES)
    if not files:
        raise EvaluationError(
            f"{path} holds no checkpoint, no dataset and no clips; files of clips end in {', '.join(sorted(CLIP_SUFFIXES))}"
        )
    return _folder(path, files)


def _dataset(path: Path) -> Source:
    every = Dataset(path)
    held_out = any(every.record(index).split == "test" for index in range(len(every)))
    dataset = Dataset(path, "test") if held_out else every

    def read(indices: Sequence[int]) -> list[Clip]:
        return [dataset.video(index) for index in indices]

    def names() -> list[str]:
        return [dataset.record(index).key for index in range(len(dataset))]

    about = {"dataset": dataset.fingerprint, "split": "test" if held_out else "all"}
    return Source(path.name, dataset.shape, dataset.info.fps, PIXELS, len(dataset), read, about, names)


def _array(path: Path) -> Source:
    clips = _load(path)
    if clips.ndim != 5:
        raise EvaluationError(f"{path} holds one clip of shape {clips.shape}; many clips are an array of N T H W 3")
    shape = ClipShape(*clips.shape[1:4])
    about = {"synthetic": True} if signature(read_tags(path)) else {}
    return Source(path.stem, shape, None, PIXELS, len(clips), lambda indices: [clips[index] for index in indices], about)


def _folder(path: Path, files: Sequence[Path]) -> Source:
    """Look at every file once: one clip of another kind among hundreds would make the number meaningless."""
    shape, rates, codecs = ClipShape(*_read(files[0]).shape[:3]), set[float | None](), set[str]()
    made = False
    for file in files:
        if file.suffix == ARRAY_SUFFIX:
            found = _load(file).shape[1:3]
            rates.add(None)
            codecs.add(PIXELS)
            made = made or bool(signature(read_tags(file)))
        else:
            info = probe(file)
            found = (info.height, info.width)
            rates.add(float(info.fps) if info.fps else None)
            codecs.add(info.codec)
            made = made or bool(signature(info.metadata))
        if found != (shape.height, shape.width):
            raise EvaluationError(
                f"{file} is {found[1]}x{found[0]} and {files[0]} {shape.width}x{shape.height}; {ALIKE.format('size')}"
            )
    if len(rates) > 1:
        raise EvaluationError(f"{path} holds clips of {len(rates)} frame rates; judge clips of one rate")

    def read(indices: Sequence[int]) -> list[Clip]:
        clips = [_read(files[index]) for index in indices]
        for index, clip in zip(indices, clips, strict=True):
            if clip.shape[:3] != (shape.frames, shape.height, shape.width):
                raise EvaluationError(
                    f"{files[index]} has {len(clip)} frames and {files[0]} {shape.frames}; {ALIKE.format('length')}"
                )
        return clips

    pictures = sum(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir() if file not in files)
    about = {"files": len(files), "still pictures passed over": pictures, **({"synthetic": True} if made else {})}
    return Source(
        path.name, shape, rates.pop(), "+".join(sorted(codecs)), len(files), read, about, lambda: [f.stem for f in files]
    )


def _read(file: Path) -> Clip:
    if file.suffix != ARRAY_SUFFIX:
        return read_video(file)[0]
    clip = np.array(_load(file))
    if clip.ndim != 4:
        raise EvaluationError(f"{file} holds an array of shape {clip.shape}; a clip is T H W 3")
    return clip


def _load(file: Path) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EvaluationError(f"{file} cannot be read as an array: {error}") from None
    if array.dtype != np.uint8 or array.ndim not in (4, 5) or array.shape[-1] != 3 or not array.size:
        raise EvaluationError(f"{file} is {array.dtype} of shape {array.shape}; clips are uint8 of T H W 3 or N T H W 3")
    return array


def chosen_clips(data: Dataset, count: int | None, what: str) -> int:
    """Return how many clips are judged of which each has a truth of its own.

    Args:
        data: the clips.
        count: as many as were asked for; None takes `USUAL_CLIPS`, or all where there are fewer.
        what: is done with them, in an infinitive.

    Raises:
        EvaluationError: when there are fewer, or fewer than `MINIMUM_CLIPS`.
    """
    if len(data) < MINIMUM_CLIPS:
        raise EvaluationError(
            f"{data.path} has {len(data)} clips to {what}; a mean with an interval needs at least {MINIMUM_CLIPS}"
        )
    if count is not None and not MINIMUM_CLIPS <= count <= len(data):
        raise EvaluationError(f"--count is {count}; {data.path} has {len(data)} clips: give {MINIMUM_CLIPS} to {len(data)}")
    return min(USUAL_CLIPS, len(data)) if count is None else count
