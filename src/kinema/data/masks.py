"""What of a clip is known: True where a pixel is given, False where it is to be filled in. Arrays are T H W."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Real

from kinema.core.errors import DataError
from kinema.core.shape import ClipShape

Known = Bool[np.ndarray, "T H W"]
KnownPixels = Bool[np.ndarray, "H W"]
Box = tuple[float, float, float, float]
"""x, y, width, height in pixels; whatever pixel it touches belongs to it."""


def first_frames(shape: ClipShape, k: int) -> Known:
    """Know the first `k` frames: predicting.

    Raises:
        DataError: when there are fewer frames.
    """
    return ends(shape, k, 0)


def last_frames(shape: ClipShape, k: int) -> Known:
    """Know the last `k` frames: what came before?

    Raises:
        DataError: when there are fewer frames.
    """
    return ends(shape, 0, k)


def ends(shape: ClipShape, first: int = 1, last: int = 1) -> Known:
    """Know frames at both ends: what lies between?

    Raises:
        DataError: when there are fewer frames.
    """
    if not (first >= 0 and last >= 0 and first + last <= shape.frames):
        raise DataError(f"{first} first and {last} last frames of a clip of {shape.frames}; take 0 to {shape.frames} in all")
    known = np.zeros((shape.frames, shape.height, shape.width), np.bool_)
    known[:first] = True
    known[shape.frames - last :] = True
    return known


def outside_box(shape: ClipShape, box: Box | Sequence[Box] | Real[np.ndarray, "..."]) -> Known:
    """Know everything but a box.

    Args:
        shape: of the clip.
        box: for all frames, or one per frame; it may reach over the edge, and in single frames lie outside.

    Raises:
        DataError: for a box that is none or hides nothing at all, or another number of boxes than frames.
    """
    given = np.asarray(box, np.float64)
    if given.shape not in ((4,), (shape.frames, 4)):
        raise DataError(
            f"boxes of shape {given.shape}; give x, y, width, height, or one such row for each of the {shape.frames} frames"
        )
    boxes = np.broadcast_to(given, (shape.frames, 4))
    known = np.stack([beside_box(shape.height, shape.width, row) for row in boxes.tolist()])
    if known.all():
        raise DataError(f"the box {_written(boxes[0])} hides nothing of frames of {shape.width}x{shape.height}")
    return known


def beside_box(height: int, width: int, box: Sequence[float]) -> KnownPixels:
    """Know everything of one frame but a box, which may reach over the edge or lie outside.

    Raises:
        DataError: for a box that is none.
    """
    if len(box) != 4 or not np.isfinite(box).all() or min(box[2:]) < 0:
        raise DataError(f"{_written(box)} is no box; x, y, width and height are numbers, the last two 0 or more")
    x, y, wide, tall = box
    known = np.ones((height, width), np.bool_)
    if wide > 0 and tall > 0:
        top, left = max(0, math.floor(y)), max(0, math.floor(x))
        known[top : max(0, math.ceil(y + tall)), left : max(0, math.ceil(x + wide))] = False
    return known


def _written(box: Iterable[float]) -> str:
    return ",".join(f"{number:g}" for number in box)
