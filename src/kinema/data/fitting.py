"""Footage of any size before a system of another: scaled, cropped or letterboxed on the way in, enlarged on the way out."""

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from kinema.core.shape import ClipShape

Fit = Literal["crop", "letterbox"]
Size = tuple[int, int]
"""Width and height in pixels."""
Area = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class Fitting:
    """How pictures come to a system and back.

    Attributes:
        source: size of the footage.
        working: size at which the system works.
        part: of the footage that the system sees; its results are enlarged to the size of it.
        place: of the working frame where this part lies; around it the edges are repeated.
    """

    source: Size
    working: Size
    part: Area
    place: Area

    def inward(self, image: Picture) -> Picture:
        """Return a picture of the footage as the system sees it."""
        return np.asarray(self._placed(image, cv2.INTER_AREA if self._shrinks else cv2.INTER_LINEAR), np.uint8)

    def known_inward(self, known: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "H W"]:
        """Return what the system may take for known: pixels to which nothing unknown contributes."""
        hidden = self._placed((~known).astype(np.float32), cv2.INTER_AREA if self._shrinks else cv2.INTER_LINEAR)
        return np.asarray(hidden <= 0, np.bool_)

    def outward(self, image: Picture) -> Picture:
        """Return a picture that the system made, at the size of the part of the footage that it saw."""
        left, top, width, height = self.place
        method = cv2.INTER_AREA if self.part[2] < width and self.part[3] < height else cv2.INTER_LANCZOS4
        there = image[top : top + height, left : left + width]
        if (width, height) == self.part[2:]:
            return there
        return np.asarray(cv2.resize(np.ascontiguousarray(there), self.part[2:], interpolation=method), np.uint8)

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the part of a picture, or of a mask, that the system sees, untouched."""
        left, top, width, height = self.part
        return image[top : top + height, left : left + width]

    def describe(self) -> str:
        """Say what happens to the footage, in one line."""
        (width, height), (wide, tall) = self.source, self.working
        if self.part[2:] != self.source:
            return f"of {width}x{height} the middle {self.part[2]}x{self.part[3]}, scaled to {wide}x{tall}"
        if self.place[2:] != self.working:
            return f"{width}x{height} scaled to {self.place[2]}x{self.place[3]} and letterboxed in {wide}x{tall}"
        return f"{width}x{height} as it is" if self.source == self.working else f"{width}x{height} scaled to {wide}x{tall}"

    @property
    def _shrinks(self) -> bool:
        return self.place[2] <= self.part[2] and self.place[3] <= self.part[3]

    def _placed(self, image: np.ndarray, method: int) -> np.ndarray:
        left, top, width, height = self.place
        scaled = np.ascontiguousarray(self.cut(image))
        if scaled.shape[:2] != (height, width):
            scaled = cv2.resize(scaled, (width, height), interpolation=method)
        wide, tall = self.working
        if (width, height) == (wide, tall):
            return scaled
        return cv2.copyMakeBorder(scaled, top, tall - top - height, left, wide - left - width, borderType=cv2.BORDER_REPLICATE)


def working_size(source: Size, trained: ClipShape, footprint: tuple[int, int, int]) -> Size:
    """Return the size that is nearest to the footage's aspect and the area of the training clips.

    Args:
        source: of the footage.
        trained: shape of the clips that the system was trained on.
        footprint: frames, height and width of which a clip's must be multiples.
    """
    aspect, area = source[0] / source[1], trained.width * trained.height
    ideal = math.sqrt(area * aspect), math.sqrt(area / aspect)

    def near(side: float, multiple: int) -> set[int]:
        exact = side / multiple
        return {max(1, math.floor(exact + 1e-6)) * multiple, max(1, math.ceil(exact - 1e-6)) * multiple}

    def distance(size: Size) -> tuple[float, Size]:
        return 2 * abs(math.log(size[0] / size[1] / aspect)) + abs(math.log(size[0] * size[1] / area)), size

    return min(product(near(ideal[0], footprint[2]), near(ideal[1], footprint[1])), key=distance)


def fitting(source: Size, working: Size, fit: Fit) -> Fitting:
    """Return how footage fits into the frame of a system.

    Args:
        source: size of the footage.
        working: size at which the system works.
        fit: what happens where the aspects differ. crop: the system sees the middle. letterbox: it sees everything, and its
            frame is filled up with repeated edges.
    """
    (width, height), (wide, tall) = source, working
    if fit == "crop":
        scale = min(Fraction(width, wide), Fraction(height, tall))
        part = max(1, round(wide * scale)), max(1, round(tall * scale))
        return Fitting(source, working, _middle(part, source), (0, 0, wide, tall))
    scale = min(Fraction(wide, width), Fraction(tall, height))
    place = max(1, round(width * scale)), max(1, round(height * scale))
    return Fitting(source, working, (0, 0, width, height), _middle(place, working))


def _middle(inner: Size, outer: Size) -> Area:
    return (outer[0] - inner[0]) // 2, (outer[1] - inner[1]) // 2, *inner
