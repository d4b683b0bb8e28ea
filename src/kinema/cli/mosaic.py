"""Pictures of unequal sizes in one frame, rows of one height: source, skeleton and results side by side."""

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

GAP = 4
SEEN = 256  # pixels that a row is tall at least, where small pictures may be enlarged
GREY = 128
MARK = "synthetic"
MARK_SHARE, MARK_PIXELS = 20, 10  # letters are this part of a picture tall, and no smaller than so many pixels

Picture = UInt8[np.ndarray, "_ _ 3"]


class Mosaic:
    """Where pictures go in a frame; every cell keeps its picture's aspect.

    Args:
        cells: width and height of the pictures, row by row.
        tall: height of a row in pixels.
        enlarge: a whole number of times, so that small pictures can be seen.
        marked: which of the cells say in a corner that they are synthetic; none by default.

    Attributes:
        tall: height of a row in pixels.
        width: of the frame in pixels, even.
        height: of the frame in pixels, even.
    """

    def __init__(
        self, cells: Sequence[Sequence[tuple[int, int]]], *, tall: int, enlarge: bool, marked: Sequence[Sequence[bool]] = ()
    ) -> None:
        self._marked = marked or [[False] * len(row) for row in cells]
        self.tall = tall * (max(1, round(SEEN / tall)) if enlarge else 1)
        self._columns = [
            max(round(row[column][0] * self.tall / row[column][1]) for row in cells if column < len(row))
            for column in range(max(map(len, cells)))
        ]
        self.width = _even(sum(self._columns) + GAP * (len(self._columns) - 1))
        self.height = _even(len(cells) * (self.tall + GAP) - GAP)

    def lay(self, rows: Sequence[Sequence[Picture]]) -> UInt8[np.ndarray, "H W 3"]:
        """Return one frame."""
        canvas = np.full((self.height, self.width, 3), GREY, np.uint8)
        for number, row in enumerate(rows):
            top, left = number * (self.tall + GAP), 0
            for room, picture, marked in zip(self._columns, row, self._marked[number], strict=False):
                scaled = self._scaled(picture)[:, :room]  # which may be a pixel wider than the cell, as sizes are rounded
                inset = left + (room - scaled.shape[1]) // 2
                canvas[top : top + self.tall, inset : inset + scaled.shape[1]] = scaled
                if marked:
                    _mark(canvas[top : top + self.tall, inset : inset + scaled.shape[1]])
                left += room + GAP
        return canvas

    def _scaled(self, picture: Picture) -> Picture:
        height, width = picture.shape[:2]
        size = round(width * self.tall / height), self.tall
        if size == (width, height):
            return picture
        whole = self.tall % height == 0
        method = cv2.INTER_NEAREST if whole else cv2.INTER_AREA if self.tall < height else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(picture, size, interpolation=method), np.uint8)


def _mark(picture: Picture) -> None:
    """Write what a picture is into its lower right corner, in place."""
    label = _label(max(MARK_PIXELS, round(len(picture) / MARK_SHARE)), picture.shape[1])
    picture[-label.shape[0] :, -label.shape[1] :] = label[-len(picture) :]


@cache
def _label(size: int, room: int) -> Picture:
    """Return the word in white on black: in letters of a size, or smaller ones where it would be wider than the room."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(MARK)
    edge = max(1, size // 5)
    width, height = round(right - left) + 2 * edge, round(bottom - top) + 2 * edge
    if width > room and size > 1:
        return _label(size - 1, room)
    label = Image.new("RGB", (width, height))
    ImageDraw.Draw(label).text((edge - left, edge - top), MARK, "white", font)
    return np.asarray(label)[:, -room:]


def _even(side: int) -> int:
    return side + side % 2
