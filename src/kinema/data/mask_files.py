"""Masks as a person gives them: a picture, a film, a box or a track of boxes, read frame by frame beside a clip."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import DataError
from kinema.data.masks import KnownPixels, beside_box
from kinema.data.media import probe, read_frames, resample

WHITE = 128  # of 255: from here on a pixel of a mask is white


@dataclass(frozen=True)
class MaskSource:
    """Where the mask of a clip comes from.

    Attributes:
        name: as the user gave it.
        still: one mask is for all frames.
        read: yields what is known, frame by frame; may be called again. A still mask never ends.
    """

    name: str
    still: bool
    read: Callable[[], Iterator[KnownPixels]]


def open_mask(source: str, width: int, height: int, *, invert: bool = False) -> MaskSource:
    """Return the mask that a name stands for.

    Args:
        source: ``x,y,width,height``; a track, ``.npy`` of one such row per frame; or a picture or a film, in which white is
            hidden.
        width: of the clip.
        height: of the clip.
        invert: what would be hidden is known, and the other way round.

    Raises:
        DataError: for anything else, or a mask of another size.
    """
    flip = np.logical_not if invert else np.asarray
    if box := re.fullmatch(r"\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*,\s*(-?[\d.]+)\s*", source):
        try:
            sides = [float(number) for number in box.groups()]
        except ValueError:
            raise DataError(f"{source!r} is no box; write x,y,width,height, such as 10,20,32,32") from None
        known = flip(beside_box(height, width, sides))
        return MaskSource(source, True, lambda: repeat(known))
    path = Path(source)
    if not path.exists():
        raise DataError(f"the mask {source} is no file and no box; a box is x,y,width,height, such as 10,20,32,32")
    if path.suffix.lower() == ".npy":
        track = _track(path)
        return MaskSource(source, False, lambda: (flip(beside_box(height, width, row)) for row in track.tolist()))
    info = probe(path)
    if (info.width, info.height) != (width, height):
        raise DataError(f"{path} is {info.width}x{info.height} and the clip {width}x{height}; give a mask of the clip's size")
    if info.fps is None:
        only = flip(_dark(next(iter(read_frames(info))).image))
        return MaskSource(source, True, lambda: repeat(only))
    return MaskSource(source, False, lambda: (flip(_dark(image)) for image in resample(read_frames(info), None)))


def find_mask(folder: Path, clip: Path) -> Path:
    """Return the mask in a folder that is called as a clip is, whatever its suffix.

    Raises:
        DataError: when there is none, or more than one.
    """
    found = sorted(file for file in folder.iterdir() if file.is_file() and file.stem == clip.stem)
    if len(found) != 1:
        there = " and ".join(file.name for file in found)
        holds = f"holds {there} for {clip.name}; keep one" if found else f"holds no mask for {clip.name}"
        raise DataError(f"{folder} {holds}: a picture, a film or a track that is called {clip.stem} too")
    return found[0]


def beside_mask(
    images: Iterator[UInt8[np.ndarray, "_ _ 3"]], clip: Path, mask: MaskSource
) -> Iterator[tuple[UInt8[np.ndarray, "_ _ 3"], KnownPixels]]:
    """Yield the pictures of a clip with what is known of them.

    Raises:
        DataError: when the clip has another number of frames than the mask; after the last frame of both.
    """
    known = mask.read()
    frames = 0
    for image in images:
        frames += 1
        if (there := next(known, None)) is None:
            raise _unlike(clip, frames + sum(1 for _ in images), mask, frames - 1)
        yield image, there
    if not mask.still and (more := sum(1 for _ in known)):
        raise _unlike(clip, frames, mask, frames + more)


def feathered(
    image: UInt8[np.ndarray, "H W 3"], made: UInt8[np.ndarray, "H W 3"], known: KnownPixels, width: float
) -> UInt8[np.ndarray, "H W 3"]:
    """Put what was made where nothing is known; within `width` pixels of the edge it comes out of the nearest known pixel.

    What is hidden never shines through, and known pixels stay as they are.

    Args:
        image: of which pixels are known.
        made: the same picture with everything filled in.
        known: where `image` counts.
        width: pixels inside the hidden part over which colours change; 0 for a hard edge.
    """
    if width > 0 and known.any() and not known.all():
        distance, nearest = cv2.distanceTransformWithLabels(
            (~known).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE, labelType=cv2.DIST_LABEL_PIXEL
        )
        colours = np.zeros((int(nearest.max()) + 1, 3), np.float32)
        colours[nearest[known]] = image[known]
        share = np.minimum(np.asarray(distance, np.float32) / (width + 1), 1)[..., None]
        made = (share * made + (1 - share) * colours[nearest]).round().astype(np.uint8)
    return np.where(known[..., None], image, made)


def _track(path: Path) -> np.ndarray:
    try:
        track = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as an array of numpy: {str(error).splitlines()[0]}") from None
    if track.ndim != 2 or track.shape[1] != 4 or not (np.issubdtype(track.dtype, np.number) and len(track)):
        raise DataError(f"{path} holds {track.dtype} of shape {track.shape}; a track has one row x, y, width, height per frame")
    return track


def _dark(image: UInt8[np.ndarray, "H W 3"]) -> KnownPixels:
    return image.mean(axis=2) < WHITE


def _unlike(clip: Path, frames: int, mask: MaskSource, masks: int) -> DataError:
    return DataError(f"{mask.name} has {masks} frames and {clip} has {frames}; give one mask per frame, or one for all")
