"""What of a clip is known: True where a pixel is given, False where it is to be filled in. Arrays are T H W."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Real

from kinema.core.errors import DataError
from kinema.core.shape import ClipShape

Known = Bool[np.ndarray, "T H W"]
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
    wrong = next((row for row in boxes.tolist() if not (np.isfinite(row).all() and row[2] >= 0 and row[3] >= 0)), None)
    if wrong:
        raise DataError(f"{_written(wrong)} is no box; x, y, width and height are numbers, the last two 0 or more")
    known = np.ones((shape.frames, shape.height, shape.width), np.bool_)
    for frame, (x, y, width, height) in zip(known, boxes.tolist(), strict=True):
        if width > 0 and height > 0:
            top, left = max(0, int(np.floor(y))), max(0, int(np.floor(x)))
            bottom, right = max(0, int(np.ceil(y + height))), max(0, int(np.ceil(x + width)))
            frame[top:bottom, left:right] = False
    if known.all():
        raise DataError(f"the box {_written(boxes[0].tolist())} hides nothing of frames of {shape.width}x{shape.height}")
    return known


def _written(box: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in box)
