"""Clean plates: what footage shows of a place at other times than when it is hidden.

A camera that stands still shows the same picture again and again behind whatever moves; film makers call it a clean plate.
Where a completion agrees with it, as nearly as the system remembers what it is shown, the plate is the better answer: it is the
footage itself, sharp and in full size. Where they differ, the completion knows of something that the plate does not, such as
somebody who stands there just now.

No statement about the camera is needed: a place counts only where most of what is known of it over time is one colour. The
thresholds are a choice; what they change is in docs/results.md.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from kinema.data.masks import Known, KnownPixels

SIGHTINGS = 3  # of a place, at least
STAYS, STAYING = 12, 0.5  # levels around the median, and the share of the sightings that lie within them at least
MOST, TIMES, LEAST = 90, 3, 10  # agreement: so many times the levels that so many per cent of known pixels are off, at least
CHUNK = 2**16  # pixels at a time

Clip = UInt8[np.ndarray, "T H W 3"]
Picture = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class CleanPlate:
    """What stays behind whatever moves.

    Attributes:
        picture: its colours.
        sure: where they are known.
    """

    picture: Picture
    sure: KnownPixels


def clean_plate(frames: Clip, known: Known, where: KnownPixels | None = None) -> CleanPlate:
    """Find the median over time of what is known, and where most of it agrees.

    Args:
        frames: of a clip, or some of them; unknown pixels may hold anything.
        known: what of these is known.
        where: pixels that are asked for; all unless told.
    """
    picture, sure = np.zeros(frames.shape[1:], np.uint8), np.zeros(frames.shape[1:3], np.bool_)
    rows, columns = np.nonzero(np.ones_like(sure) if where is None else where)
    for start in range(0, len(rows), CHUNK):
        at = rows[start : start + CHUNK], columns[start : start + CHUNK]
        colours, seen = frames[:, *at].astype(np.int16), known[:, *at]
        count = seen.sum(axis=0)
        ordered = np.sort(np.where(seen[..., None], colours, np.int16(256)), axis=0)
        middle = ordered[np.maximum(count - 1, 0) // 2, np.arange(len(count))]
        near = (np.abs(colours - middle).max(axis=2) <= STAYS) & seen
        picture[at] = middle.clip(0, 255)
        sure[at] = (count >= SIGHTINGS) & (near.sum(axis=0) >= STAYING * count)
    return CleanPlate(picture, sure)


def may_help(known: Known) -> bool:
    """Tell whether anything that is hidden is shown at other times."""
    often = known.sum(axis=0) >= SIGHTINGS
    return bool((often & ~known.all(axis=0)).any())


def agreeing(made: Clip, clip: Clip, known: Known, plate: CleanPlate) -> Bool[np.ndarray, "T H W"]:
    """Return where a completed clip looks like the plate: hidden pixels there are better taken from it.

    Only frames of which something is known and something hidden count: in what is predicted or interpolated, anything may have
    moved.

    Args:
        made: the clip with everything filled in, and, in frames that hide something, what is known as the system remembers it:
            how well it does so says how far it may be from the plate.
        clip: of which unknown pixels may hold anything.
        known: what of it is known.
        plate: of the same size.
    """
    count = known.sum(axis=(1, 2), keepdims=True)
    partly = (count > 0) & (count < known[0].size)
    if not partly.any():
        return np.zeros_like(known)
    off = np.abs(made.astype(np.int16) - clip).max(axis=3)[known & partly]
    levels = max(LEAST, TIMES * float(np.percentile(off, MOST)))
    whole = np.where(known[..., None], clip, made).astype(np.int16)
    return partly & plate.sure & (np.abs(whole - plate.picture).max(axis=3) <= levels)


def settled(made: Clip, clip: Clip, known: Known) -> Clip:
    """Return a completion with the clip's own plate where they agree; see `agreeing` for the arguments."""
    plate = clean_plate(clip, known)
    return np.where((agreeing(made, clip, known, plate) & ~known)[..., None], plate.picture, made)


def grown(where: KnownPixels, pixels: int) -> KnownPixels:
    """Return a region and whatever is within so many pixels of it."""
    side = 2 * pixels + 1
    return cv2.dilate(where.astype(np.uint8), np.ones((side, side), np.uint8)).astype(np.bool_)
