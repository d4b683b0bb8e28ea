"""From the poses of a source to the poses that a target is to be shown in: one person, in the target's frame, in every frame.

Everybody Dance Now's order: convert to the target's layout, bridge short gaps, normalise, smooth. Frames in which the detector
had turned the person upside down count as without anybody. There the last pose is held, before the first person the first one.

References:
    Chan, Ginosar, Zhou and Efros, "Everybody Dance Now", ICCV 2019 (arXiv 1808.07371), global pose normalisation; median of 7
    frames after it (release).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float64

from kinema.core.errors import DataError
from kinema.pose.detect import visible
from kinema.pose.filters import SMOOTHERS, drop_flips, fill_gaps
from kinema.pose.sequence import Parts, Poses
from kinema.pose.skeleton import Skeleton, converter
from kinema.pose.stature import middles, torso

MARGIN = 0.03
"""Of a frame's width, left free at either side of a body that is kept in view."""
RANGE = (2.0, 98.0)
"""Percentiles that count as the ends of a way to the sides: a frame or two of a wrong pose shall not narrow all of it."""
GAP_SECONDS = 0.2
"""A gap of a joint up to this long is bridged by a straight line; what is longer stays missing."""

Map = Callable[[Poses], Poses]


@dataclass(frozen=True)
class Driving:
    """What a target is to be shown in.

    Attributes:
        poses: of one person, in pixels of the target's frames; nobody is missing in any frame.
        absent: frames in which the source shows nobody; a held pose stands there.
        flipped: those of them in which it showed somebody upside down, by mistake.
    """

    poses: Poses
    absent: tuple[int, ...]
    flipped: tuple[int, ...] = ()

    @property
    def cut_off(self) -> tuple[int, ...]:
        """Frames of which head, trunk or legs lie beyond the left or right edge."""
        x, seen = _sideways(self.poses)
        return tuple(np.nonzero((seen & ((x < 0) | (x > self.poses.width - 1))).any(axis=1))[0].tolist())

    def moved(self, way: "Sideways") -> "Driving":
        """Return the same with another way to the sides."""
        return replace(self, poses=way.place(self.poses))

    def window(self, first: int, stop: int) -> "Driving":
        """Return the frames from `first` up to `stop`."""
        absent, flipped = (tuple(at - first for at in kind if first <= at < stop) for kind in (self.absent, self.flipped))
        return Driving(self.poses.window(first, stop), absent, flipped)


@dataclass(frozen=True)
class Sideways:
    """A narrower way to the sides: of a body's middle m in every frame, m' = share m + right; all its points move with it.

    With a share below 1 feet slide by the rest of every step.

    Attributes:
        share: of the way, 0 (stays at one place) to 1 (as it was).
        right: pixels.
    """

    share: float
    right: float

    def place(self, poses: Poses) -> Poses:
        """Return the poses moved."""
        shift = ((self.share - 1) * _middle(poses) + self.right)[:, None]

        def move(points: Float[np.ndarray, "T P *points 2"]) -> Float[np.ndarray, "T P *points 2"]:
            each = (..., *(None,) * (points.ndim - 3))
            return np.stack([points[..., 0] + shift[each], points[..., 1]], axis=-1)

        return poses.mapped(move)


def within(poses: Poses) -> Sideways:
    """Find the widest way to the sides on which head, trunk and legs stay in view.

    The way is shifted first, which moves nobody's feet over the floor, and narrowed by what is still too wide. Arms may leave.

    Args:
        poses: of one person, in pixels of the target's frames; in every frame somebody.
    """
    middle, (x, seen) = _middle(poses), _sideways(poses)
    margin = MARGIN * poses.width
    left = np.percentile(np.where(seen, middle[:, None] - x, 0).max(axis=1), RANGE[1]) + margin
    right = poses.width - 1 - margin - np.percentile(np.where(seen, x - middle[:, None], 0).max(axis=1), RANGE[1])
    if left > right:  # wider than the frame
        left = right = (left + right) / 2
    first, last = np.percentile(middle, RANGE)
    share = float(min(1.0, (right - left) / max(last - first, 1e-6)))
    first, last = share * first, share * last
    return Sideways(round(share, 4), round(float(np.clip(0.0, left - first, right - last)), 4))


def _sideways(poses: Poses) -> tuple[Float64[np.ndarray, "T J"], Bool[np.ndarray, "T J"]]:
    """Return x of the joints of head, trunk and legs, and which are there; of points without names all count."""
    body = torso(poses)[:, 0]
    if not (body[..., 2] > 0).any():
        body = poses.points[:, 0].astype(np.float64)
    seen = body[..., 2] > 0
    return np.where(seen, body[..., 0], 0.0), seen


def _middle(poses: Poses) -> Float64[np.ndarray, "T"]:
    """Return x of the middle of hips, else of ankles, else of all joints that are there, else as between other frames."""
    (x, seen), found = _sideways(poses), middles(torso(poses)[:, 0])
    found = np.where(np.isnan(found), (x * seen).sum(axis=1) / np.maximum(seen.sum(axis=1), 1), found)
    known = np.nonzero(seen.any(axis=1))[0]
    return np.interp(np.arange(len(found)), known, found[known])


def drive(poses: Poses, skeleton: Skeleton, normalise: Map, *, smooth: str = "median", window: int = 7) -> Driving:
    """Turn the poses of one person into those of a target.

    Args:
        poses: of one person, as they were found.
        skeleton: layout of the target's poses.
        normalise: takes the poses into the target's frame.
        smooth: name of a filter of `kinema.pose.filters.SMOOTHERS`, or none.
        window: frames of the filter.

    Raises:
        DataError: when there is nobody in any frame, or the layout lacks joints that the target was trained with.
    """
    if not poses.present.any():
        raise DataError(f"no person is in any of the {len(poses)} frames")
    upright = drop_flips(poses)
    flipped = (poses.present & ~upright.present).any(axis=(1, 2))
    found = _converted(upright, skeleton)
    absent = ~found.present.any(axis=(1, 2))
    found = normalise(fill_gaps(found, bridged(poses.fps)))
    if not found.present.any():
        raise DataError(f"no person is inside of the target's picture in any of the {len(poses)} frames")
    absent |= ~found.present.any(axis=(1, 2))  # somebody who is beyond the part of the frame that the target has
    if smooth != "none":
        found = SMOOTHERS[smooth](found, window)
    return Driving(hold(found), *(tuple(np.nonzero(kind)[0].tolist()) for kind in (absent, flipped)))


def bridged(fps: float) -> int:
    """Return the longest gap in frames that is bridged by a straight line."""
    return max(1, round(GAP_SECONDS * fps))


def hold(poses: Poses) -> Poses:
    """Repeat the last pose in frames without anybody, and the first one before it.

    Raises:
        DataError: when there is nobody in any frame.
    """
    present: Bool[np.ndarray, "T"] = poses.present.any(axis=(1, 2))
    if not present.any():
        raise DataError(f"no person is left in any of the {len(poses)} frames after smoothing; take a smaller window")
    shown = np.maximum.accumulate(np.where(present, np.arange(len(poses)), -1))
    shown[shown < 0] = int(present.argmax())
    parts = {name: part[shown] for name in Parts if (part := getattr(poses, name)) is not None}
    return replace(poses, **parts)


def as_prepared(poses: Poses, width: int, height: int, fit: Literal["crop", "letterbox"] = "crop") -> Poses:
    """Scale poses with their frame until it covers another one, or fits into it; what is beyond is missing.

    `kinema prepare` does the same to the poses of a dataset's clips.

    Args:
        poses: in pixels of their own frame.
        width: of the new frame, in pixels.
        height: of the new frame, in pixels.
        fit: crop covers the new frame and cuts off the rest; letterbox keeps all between borders.
    """
    choose = max if fit == "crop" else min
    scale = choose(width / poses.width, height / poses.height)
    wide, tall = max(1, round(poses.width * scale)), max(1, round(poses.height * scale))
    moved = poses.resized(wide, tall).cropped((wide - width) // 2, (tall - height) // 2, width, height)
    return replace(
        moved, **{name: visible(part, width, height) for name in Parts if (part := getattr(moved, name)) is not None}
    )


def _converted(poses: Poses, skeleton: Skeleton) -> Poses:
    """Return the poses in the target's layout: without the face or hands that it lacks, with those missing that they lack.

    Raises:
        DataError: when joints of the body would be missing that the target was trained with.
    """
    if lacking := converter(poses.skeleton, skeleton.body).missing:
        raise DataError(
            f"poses of skeleton {poses.skeleton.name} have no {', '.join(lacking)}, with which the target was trained "
            f"({skeleton.name}); find them with the detector of the target's dataset"
        )
    return poses.converted(skeleton)
