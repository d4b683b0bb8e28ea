"""Poses that are smoothed over time while footage is cut, in memory that does not grow with the length of a shot."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from jaxtyping import Float32

from kinema.data.looks import Look
from kinema.data.media import Frame
from kinema.data.posed import Pose, Poser
from kinema.data.sources import Source
from kinema.pose.filters import FLIP_SECONDS, drop_flips, drop_outliers, fill_gaps, savitzky_golay
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import Skeleton

AT_ONCE = 16  # frames that are smoothed together
OUTLIERS = 15  # frames over which an outlier is judged


@dataclass(frozen=True)
class SmoothedPoses:
    """Another poser's joints without points that jump away and come back or people turned over, gaps filled, smoothed.

    Attributes:
        poser: finds or knows the joints.
        seconds: of the local polynomial (Savitzky and Golay, order 2), and of the longest gap that is filled.
        fps: of the frames; None: as the footage.

    References:
        `kinema.pose.filters.drop_flips`, `drop_outliers`, `fill_gaps`, `savitzky_golay`.
    """

    poser: Poser
    seconds: float
    fps: float | None = None

    @property
    def skeleton(self) -> Skeleton:
        """Joints."""
        return self.poser.skeleton

    def version(self, sources: Sequence[Source]) -> str:
        """Return what decides the poses before they are smoothed."""
        return self.poser.version(sources)

    def knows(self, source: Source) -> bool:
        """Tell whether there is an answer for a source."""
        return self.poser.knows(source)

    def taken(self, source: Source) -> str:
        """Say who of several people is taken."""
        return self.poser.taken(source)

    def __call__(self, source: Source, frames: Iterator[Frame], looked: Callable[[Look], None]) -> Iterator[tuple[Frame, Pose]]:
        """Yield the frames of one shot, each with its smoothed joints."""
        rate = self._rate(source)
        window = max(5, round(self.seconds * rate) // 2 * 2 + 1)
        reach = OUTLIERS + 2 * window + round(FLIP_SECONDS * rate)  # frames on either side that a smoothed pose is made of
        waiting: list[Frame] = []
        poses: list[Pose] = []  # of up to `reach` frames that are done, then of those that wait
        for found in chain(self.poser(source, frames, looked), repeat(None, 1)):
            if found is not None:
                waiting.append(found[0])
                poses.append(found[1])
            ready = len(waiting) if found is None else (len(waiting) - reach) // AT_ONCE * AT_ONCE
            if ready <= 0:
                continue
            done = len(poses) - len(waiting)
            smooth = self._smoothed(np.stack(poses), waiting[0], window, rate)[done : done + ready]
            yield from zip(waiting[:ready], smooth, strict=True)
            del waiting[:ready], poses[: max(0, done + ready - reach)]

    def _rate(self, source: Source) -> float:
        return self.fps or source.fps or 25.0

    def _smoothed(
        self, points: Float32[np.ndarray, "T J 3"], frame: Frame, window: int, rate: float
    ) -> Float32[np.ndarray, "T J 3"]:
        height, width = frame.image.shape[:2]
        found = drop_flips(Poses(points[:, None], self.skeleton, width, height, fps=rate))
        kept = drop_outliers(found, window=OUTLIERS)
        return savitzky_golay(fill_gaps(kept, window), window).joined[:, 0]
