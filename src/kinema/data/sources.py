"""Footage on disk: which files are videos, folders of frames or image strips, what they are called, how long they are."""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import DataError, MediaError
from kinema.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Frame, MediaInfo, Resize, probe, read_frames, read_image

SourceKind = Literal["video", "frames", "strip"]
SEEKABLE = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm"})  # every frame has its time, and key frames are indexed
STILL_FPS = 25.0  # the rate of VGAN's footage, for frames and strips that say none


@dataclass(frozen=True)
class Source:
    """One piece of footage from which clips are cut."""

    name: str
    """Unique; the path relative to what all sources have in common."""
    path: str
    """Where it is, absolute."""
    kind: SourceKind
    """A video file, a folder of frames or an image strip."""
    bytes: int
    """Size on disk, by which a change is noticed."""
    frames: int | None = None
    """Number of frames as declared, where known before reading."""
    width: int = 0
    """Pixels; 0 where it is not known before reading."""
    height: int = 0
    """Pixels."""
    fps: float | None = None
    """Frames per second, where known before reading."""
    start: float = 0.0
    """Seconds; where this part of a long video begins."""
    stop: float | None = None
    """Seconds; where it ends, None for the end of the video."""
    label: str | None = None
    """Class."""
    caption: str | None = None
    """One sentence."""
    group: str | None = None
    """Person, scene or tape."""
    split: Literal["train", "test"] = "train"
    """Where its clips go."""
    border: float | None = None
    """Seconds; clips from here on go into the test split instead, and those across it nowhere."""


@dataclass(frozen=True)
class Found:
    """What lies in the folders that were given."""

    sources: tuple[Source, ...]
    """Footage, ordered by name."""
    ignored: tuple[str, ...]
    """Files that are neither footage nor companions of it, by name."""


def find_sources(roots: Sequence[Path], *, strips: bool = False, companions: Sequence[Path] = ()) -> Found:
    """Find footage in files and, recursively, in folders.

    A folder whose media are all images is one source, a folder of frames; with `strips`, every image is a source of its own.
    A file that is named itself is taken whatever its suffix. Hidden files and folders are passed over.

    Args:
        roots: files and folders.
        strips: images are strips of frames.
        companions: files and folders that are known to lie beside the footage, such as tables; none of the ignored files.

    Raises:
        DataError: a root is missing or unreadable, or nothing was found.
    """
    found: dict[Path, SourceKind] = {}
    ignored: list[Path] = []
    for root in (Path(root).absolute() for root in roots):
        if root.is_dir():
            for folder, files in _folders(root):
                kinds, others = _sort(folder, files, strips)
                found |= kinds
                ignored += others
        elif root.exists():
            found[root] = "strip" if strips and root.suffix.lower() in IMAGE_SUFFIXES else "video"
        else:
            raise DataError(f"{root} does not exist; give a file or a folder with footage")
    if not found:
        raise DataError(_nothing(roots, ignored, strips))
    for path in found:
        if not _is_text(str(path)):
            raise DataError(f"the name {os.fsencode(path)!r} is no UTF-8 text; rename the file")
    base = _common_base([Path(root).absolute() for root in roots], found)
    sources = [_source(path, path.relative_to(base).as_posix(), kind) for path, kind in found.items()]
    known = {companion.resolve() for companion in companions}
    strange = [path for path in ignored if known.isdisjoint([path.resolve(), *path.resolve().parents])]
    names = sorted((path.relative_to(base).as_posix() for path in strange), key=natural)
    return Found(tuple(sorted(sources, key=lambda source: natural(source.name))), tuple(names))


def measure(source: Source, strip: tuple[int, int] | None) -> Source:
    """Return the source with its number of frames and pixels per frame, as far as known without reading it.

    Args:
        source: as found.
        strip: width and height of a frame of a strip.

    Raises:
        MediaError: it cannot be read.
    """
    if source.kind == "strip" and strip:
        sheet = probe(source.path)
        frames = max(1, sheet.width * sheet.height // (strip[0] * strip[1]))
        return replace(source, frames=frames, width=strip[0], height=strip[1])
    if source.kind == "frames":
        images = frame_files(Path(source.path))
        first = probe(images[0])
        return replace(source, frames=len(images), width=first.width, height=first.height)
    info = probe(source.path)
    fps = float(info.fps) if info.fps else None
    return replace(source, frames=info.frames, width=info.width, height=info.height, fps=fps)


def parts(source: Source, length: float, overlap: float) -> list[Source]:
    """Divide a long video into parts that can be read by themselves; other sources stay whole.

    Args:
        source: measured.
        length: of a part, in seconds; the last one is longer.
        overlap: seconds for which a part goes on beyond the beginning of the next.
    """
    if source.kind != "video" or not source.fps or not source.frames or Path(source.path).suffix.lower() not in SEEKABLE:
        return [source]
    starts = [number * length for number in range(max(1, int(source.frames / source.fps / length)))]
    stops = [start + length + overlap for start in starts[:-1]]
    half = 0.5 / source.fps  # between two frames, so that rounding moves none across
    return [
        replace(source, start=max(0.0, start - half), stop=stop and stop - half, frames=round(source.frames / len(starts)))
        for start, stop in zip(starts, [*stops, None], strict=True)
    ]


def open_source(source: Source, *, strip: tuple[int, int] | None, fps: float | None, resize: Resize | None) -> Iterator[Frame]:
    """Read the frames of a source.

    Args:
        source: what to read.
        strip: width and height of a frame of a strip.
        fps: rate of frames and strips, which know none.
        resize: as in `read_frames`; strips come as they are.

    Raises:
        MediaError: nothing can be read.
        TruncatedError: after the frames before the damage.
    """
    interval = 1 / (fps or STILL_FPS)
    if source.kind == "strip" and strip:
        frames = read_strip(source.path, *strip)
        return (Frame(number * interval, frame, interval) for number, frame in enumerate(frames))
    if source.kind == "frames":
        return _read_images(Path(source.path), interval, resize)
    known: MediaInfo | str = source.path
    if source.fps:  # measured when the work was planned: looking again would cost as much as decoding ten frames or more
        known = MediaInfo(
            Path(source.path),
            source.width,
            source.height,
            Fraction(source.fps),
            source.frames,
            rotation=0,
            duration=None,
            codec="",
        )
    return read_frames(known, resize=resize, start=source.start, stop=source.stop)


def _read_images(folder: Path, interval: float, resize: Resize | None) -> Iterator[Frame]:
    first = None
    for number, path in enumerate(frame_files(folder)):
        image = next(iter(read_frames(path, resize=resize))).image
        first = image.shape if first is None else first
        if image.shape != first:
            raise MediaError(f"{path} has another size than the images before it; a folder of frames holds one size")
        yield Frame(number * interval, image, interval)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder of frames, in natural order."""
    return sorted((path for path in folder.iterdir() if _is_image(path)), key=lambda path: natural(path.name))


def natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key under which ``frame9`` comes before ``frame10``."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"([0-9]+)", name) if part]


def _folders(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Walk folders, links to folders included, each real folder once."""
    seen: set[Path] = set()

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}")

    for name, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        folder = Path(name)
        if folder.resolve() in seen:
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders[:] = sorted(entry for entry in folders if not entry.startswith("."))
        yield folder, [folder / file for file in sorted(files) if not file.startswith(".")]


def _sort(folder: Path, files: Iterable[Path], strips: bool) -> tuple[dict[Path, SourceKind], list[Path]]:
    """Tell the sources of one folder from its other files."""
    files = list(files)
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES or (not strips and _is_animated(path))]
    images = [path for path in files if _is_image(path) and path not in videos]
    others = [path for path in files if path not in videos and path not in images]
    found: dict[Path, SourceKind] = {}
    found.update((path, "video") for path in videos)
    if strips:
        found.update((path, "strip") for path in images)
        return found, others
    if videos or not images:
        return found, others + images  # pictures beside videos are posters and the like
    return {folder: "frames"}, others


def _is_text(name: str) -> bool:
    return name.encode(errors="replace").decode() == name


def _is_animated(path: Path) -> bool:
    """Tell an animated WebP from a still one, which only its content does."""
    if path.suffix.lower() != ".webp":
        return False
    try:
        return (probe(path).frames or 1) > 1
    except MediaError:
        return True  # so that it is listed as unreadable rather than taken for a frame


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def _common_base(roots: Sequence[Path], found: Collection[Path]) -> Path:
    """Return the folder that names are relative to: the one folder given, else what holds all roots."""
    if len(roots) == 1 and roots[0] not in found:
        return roots[0]
    return Path(os.path.commonpath([root.parent for root in roots]))


def _source(path: Path, name: str, kind: SourceKind) -> Source:
    size = sum(file.stat().st_size for file in frame_files(path)) if kind == "frames" else path.stat().st_size
    return Source(name, str(path), kind, size)


def _nothing(roots: Sequence[Path], ignored: Sequence[Path], strips: bool) -> str:
    where = ", ".join(str(root) for root in roots)
    if not ignored:
        return f"{where} is empty; give videos ({', '.join(sorted(VIDEO_SUFFIXES))[:60]} ...), folders of frames or strips"
    seen = ", ".join(sorted({path.suffix or path.name for path in ignored})[:5])
    hint = "" if strips else "; image strips need --strip WIDTHxHEIGHT"
    return f"{where} holds no footage, only {len(ignored)} other files ({seen}){hint}"


def read_strip(path: str | Path, width: int, height: int) -> UInt8[np.ndarray, "T H W 3"]:
    """Read one image that holds a clip, frames side by side (as MoCoGAN's data) or stacked (as VGAN's).

    Args:
        path: the image.
        width: of one frame, in pixels.
        height: of one frame, in pixels.

    Raises:
        MediaError: the image is no whole number of frames.
    """
    sheet = read_image(path)
    rows, columns = sheet.shape[0] / height, sheet.shape[1] / width
    if rows == 1 and columns.is_integer():
        return np.ascontiguousarray(sheet.reshape(height, int(columns), width, 3).swapaxes(0, 1))
    if columns == 1 and rows.is_integer():
        return sheet.reshape(int(rows), height, width, 3)
    raise MediaError(
        f"{path} is {sheet.shape[1]}x{sheet.shape[0]} pixels; a strip of {width}x{height} frames must be {height} high and a "
        f"multiple of {width} wide, or {width} wide and a multiple of {height} high"
    )
