"""Poses over time: who is where in every frame, with what is missing marked and never made up.

A point is (x, y, confidence) in pixels of a frame of a stored size; pixel centres are integers, so that resizing by s takes x
to ``s (x + 1/2) - 1/2``. Missing is confidence 0; its coordinates are NaN in here, so that nothing can use them by mistake, and
0 in arrays that leave (`Poses.filled`), where the confidence is the mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from kinema.core.errors import DataError
from kinema.pose.skeleton import FACE_70, HAND_21, PARTS, Skeleton, converter, whole

Points = Float32[np.ndarray, "*frames J 3"]
Parts = ("points", "face", "hands")
SLOWEST = 0.001
"""Frames per second at least."""
UNORDERED = "unordered"
"""Key in `Poses.extra`: the people are listed in another order in every frame, `Poses.people` are places in these lists."""


@dataclass(frozen=True)
class Poses:
    """Poses of the people of one film, body and, where they were detected, faces and hands.

    Attributes:
        points: joints of the body per frame and person. What is given in a layout with face or hands is divided: these become
            the fields of their own.
        skeleton: names of the body's joints.
        width: of the frames, in pixels.
        height: of the frames, in pixels.
        fps: frames per second.
        face: OpenPose's 70 points per frame and person.
        hands: 21 points of the left and of the right hand.
        people: identity of every person, the same in every frame.
        begins: first frame of every clip, for sequences that were put together; nothing may reach across.
        extra: what a file said besides, kept when it is written again.

    Raises:
        DataError: for arrays of other shapes, or a size or rate out of range.
    """

    points: Float32[np.ndarray, "T P J 3"]
    skeleton: Skeleton
    width: int
    height: int
    fps: float
    face: Float32[np.ndarray, "_ _ 70 3"] | None = None
    hands: Float32[np.ndarray, "_ _ 2 21 3"] | None = None
    people: tuple[int, ...] = ()
    begins: tuple[int, ...] = (0,)
    extra: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.points.ndim != 4 or self.points.shape[2:] != (len(self.skeleton), 3):
            raise DataError(
                f"poses have the shape {self.points.shape}; "
                f"the skeleton {self.skeleton.name} wants (T, P, {len(self.skeleton)}, 3)"
            )
        if self.skeleton.parts:
            points, face, hands = divided(self.points, self.skeleton)
            for name, part in (("points", points), ("face", face), ("hands", hands), ("skeleton", self.skeleton.body)):
                object.__setattr__(self, name, part)
        if self.width < 1 or self.height < 1 or not SLOWEST <= self.fps <= 1000:
            raise DataError(
                f"poses of {self.width}x{self.height} at {self.fps:g} fps: sizes must be positive, a rate {SLOWEST:g} to 1000"
            )
        for name, shape in (("face", (len(FACE_70), 3)), ("hands", (2, len(HAND_21), 3))):
            part = getattr(self, name)
            if part is not None and part.shape != (*self.points.shape[:2], *shape):
                raise DataError(
                    f"{name} points have the shape {part.shape}; these poses want {(*self.points.shape[:2], *shape)}"
                )
        for name in Parts:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, mark_missing(getattr(self, name)))
        if not self.people:
            object.__setattr__(self, "people", tuple(range(self.points.shape[1])))
        if len(set(self.people)) != self.points.shape[1] or len(self.people) != self.points.shape[1]:
            raise DataError(f"poses of {self.points.shape[1]} people have the numbers {self.people}; each wants their own")
        grow = all(before < after for before, after in pairwise(self.begins))
        if not self.begins or self.begins[0] != 0 or not grow or self.begins[-1] >= max(1, len(self)):
            raise DataError(f"clips of {len(self)} frames begin at {self.begins}; they begin at 0 and one after another")
        if not isinstance(self.extra, dict | None):
            raise DataError(f"what a file says besides is of type {type(self.extra).__name__}; it wants names with values")

    def __len__(self) -> int:
        return len(self.points)

    @property
    def present(self) -> Bool[np.ndarray, "T P J"]:
        """Which joints were found."""
        return self.points[..., 2] > 0

    @property
    def layout(self) -> Skeleton:
        """Names of all points: the body's joints, then those of face and hands where there are any."""
        return whole(self.skeleton, [name for name in PARTS if getattr(self, name) is not None])

    def lacking(self, skeleton: Skeleton) -> list[str]:
        """Return which of face and hands a layout has and these poses have not."""
        return [part for part in skeleton.parts if getattr(self, part) is None]

    @property
    def joined(self) -> Points:
        """All points in one array, in the order of `layout`."""
        parts = [part for name in PARTS if (part := getattr(self, name)) is not None]
        flat = [part.reshape(*self.points.shape[:2], -1, 3) for part in (self.points, *parts)]
        return np.concatenate(flat, axis=2)

    @property
    def shown(self) -> dict[str, Bool[np.ndarray, "T P"]]:
        """Where the face, the left and the right hand are in view, of those that were looked for."""
        left, right = (None, None) if self.hands is None else np.moveaxis(self.hands, 2, 0)
        parts = {"face": self.face, "left hand": left, "right hand": right}
        return {name: (part[..., 2] > 0).any(axis=-1) for name, part in parts.items() if part is not None}

    def filled(self, person: int = 0) -> Float32[np.ndarray, "T J 3"]:
        """Return one person's points, in the order of `layout`, as datasets and batches hold them: missing is (0, 0, 0)."""
        return np.nan_to_num(self.joined[:, person], nan=0.0)

    # Parts of a sequence

    def person(self, index: int) -> "Poses":
        """Return the poses of one person alone."""
        return self._each(lambda part: part[:, index : index + 1], people=(self.people[index],))

    def window(self, first: int, stop: int) -> "Poses":
        """Return the frames from `first` up to `stop`."""
        inside = [begin - first for begin in self.begins if first < begin < stop]
        return self._each(lambda part: part[first:stop], begins=(0, *inside))

    # Geometry: body, face and hands move alike

    def mapped(
        self, move: Callable[[Float[np.ndarray, "*frames J 2"]], Float[np.ndarray, "*frames J 2"]], **size: int
    ) -> "Poses":
        """Return the poses with every coordinate moved.

        Args:
            move: coordinates (T, ..., 2) -> coordinates of the same shape; what is missing arrives as NaN.
            size: the new `width` and `height`, where they change.
        """

        def moved(part: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
            return np.concatenate([move(part[..., :2]), part[..., 2:]], axis=-1).astype(np.float32)

        return self._each(moved, **size)

    def resized(self, width: int, height: int) -> "Poses":
        """Return the poses for frames scaled to another size."""
        scale = np.array([width / self.width, height / self.height])
        return self.mapped(lambda points: (points + 0.5) * scale - 0.5, width=width, height=height)

    def cropped(self, left: float, top: float, width: int, height: int) -> "Poses":
        """Return the poses for a part of the frames; a negative corner adds a border, as a letterbox does."""
        return self.mapped(lambda points: points - np.array([left, top]), width=width, height=height)

    def warped(self, homographies: Float[np.ndarray, "T 3 3"]) -> "Poses":
        """Return the poses with every frame's points taken through that frame's own homography."""

        def warp(points: Float[np.ndarray, "T *rest 2"]) -> Float[np.ndarray, "T *rest 2"]:
            flat = points.reshape(len(points), -1, 2)
            lifted = np.concatenate([flat, np.ones((*flat.shape[:2], 1))], axis=-1) @ homographies.transpose(0, 2, 1)
            return (lifted[..., :2] / lifted[..., 2:]).reshape(points.shape)

        return self.mapped(warp)

    def mirrored(self) -> "Poses":
        """Return the poses of the mirrored frames: x becomes width - 1 - x, and right and left change names."""
        turned = self.layout.mirrored(self.joined, self.width)
        return replace(self, points=turned, skeleton=self.layout, face=None, hands=None)

    def converted(self, skeleton: Skeleton, *, rough: bool = False) -> "Poses":
        """Return the poses in another layout; see `kinema.pose.skeleton.converter`. Parts that it lacks are left out."""
        points = converter(self.layout, skeleton, rough=rough)(self.joined)
        return replace(self, points=points, skeleton=skeleton, face=None, hands=None)

    def _each(self, change: Callable[[Any], Any], **fields: Any) -> "Poses":
        parts = {name: change(part) for name in Parts if (part := getattr(self, name)) is not None}
        return replace(self, **parts, **fields)


def divided(
    points: Float[np.ndarray, "*frames J 3"], skeleton: Skeleton
) -> tuple[
    Float[np.ndarray, "*frames B 3"], Float[np.ndarray, "*frames 70 3"] | None, Float[np.ndarray, "*frames 2 21 3"] | None
]:
    """Take points of a layout with face or hands apart.

    Args:
        points: in that layout.
        skeleton: the layout.

    Returns:
        The body, the face and the left and right hand; None for what the layout lacks.
    """
    found = {name: points[..., piece, :] for name, piece in skeleton.pieces.items()}
    hands = found.get("hands")
    apart = None if hands is None else hands.reshape(*hands.shape[:-2], 2, len(HAND_21), 3)
    return found["body"], found.get("face"), apart


def mark_missing(points: Float[np.ndarray, "*frames J 3"]) -> Points:
    """Return points of which those without confidence, or without finite coordinates, are (NaN, NaN, 0)."""
    points = np.array(points, np.float32)
    missing = ~(np.isfinite(points).all(axis=-1) & (points[..., 2] > 0))
    points[missing] = (np.nan, np.nan, 0)
    return points


def velocity(points: Float[np.ndarray, "T *rest 3"]) -> Float[np.ndarray, "T-1 *rest 3"]:
    """Return the step of every point from frame to frame in pixels, with the lower confidence of both ends."""
    steps = np.diff(points, axis=0)
    steps[..., 2] = np.minimum(points[1:, ..., 2], points[:-1, ..., 2])
    return mark_missing(steps)


def integrate(first: Float[np.ndarray, "*rest 3"], steps: Float[np.ndarray, "S *rest 3"]) -> Float[np.ndarray, "T *rest 3"]:
    """Return the points that begin at `first` and move by `steps`; after a missing step a point is missing."""
    path = np.concatenate([first[None], steps]).astype(np.float64)
    path[..., :2] = np.cumsum(path[..., :2], axis=0)
    path[..., 2] = np.minimum.accumulate(path[..., 2], axis=0)
    return mark_missing(path)


def concatenate(sequences: Sequence[Poses]) -> Poses:
    """Put clips behind one another, their borders kept in `Poses.begins`.

    Raises:
        DataError: when there is none, or they differ in skeleton, size, rate, people or parts.
    """
    if not sequences:
        raise DataError("there are no poses to put together")
    first = sequences[0]
    for other in sequences[1:]:
        for name in ("skeleton", "width", "height", "fps", "people"):
            if getattr(first, name) != getattr(other, name):
                raise DataError(f"clips of poses differ in {name}; convert them to one first")
    present = {name for clip in sequences for name in Parts if getattr(clip, name) is not None}
    if any(getattr(clip, name) is None for clip in sequences for name in present):
        raise DataError("some clips of poses have faces or hands and others have none; leave them out first")
    sequences = [clip for clip in sequences if len(clip)] or sequences[:1]
    starts = np.cumsum([0, *map(len, sequences[:-1])])
    begins = tuple(int(start + begin) for start, clip in zip(starts, sequences, strict=True) for begin in clip.begins)
    parts = {name: np.concatenate([getattr(clip, name) for clip in sequences]) for name in present}
    return replace(first, **parts, begins=begins)
