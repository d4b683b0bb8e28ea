"""Shot boundaries, by the score of FFmpeg's scene change filter (scdet)."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from jaxtyping import UInt8

from kinema.data.media import Frame

LOOK_SIZE = 160
"""Frames are thinned to about this short side before they are compared; a cut shows in every part of the picture."""


def number_shots(frames: Iterable[Frame], threshold: float = 10.0) -> Iterator[tuple[int, Frame]]:
    """Yield every frame with the number of its shot, as the frames come.

    Args:
        frames: in order, of one size.
        threshold: a frame begins a shot when its score reaches this, 0 to 100: mean absolute difference to the frame before,
            in percent of the range, or by how much that differs from the difference before, whichever is less, so that fast
            but even motion is no cut. 0 looks for no cuts.
    """
    meter: _Meter | None = None
    shot = 0
    for frame in frames:
        if threshold > 0:
            meter = meter or _Meter(frame.image)
            shot += meter.score(frame.image) >= threshold
        yield shot, frame


class _Meter:
    """Measures how much every frame differs from the one before, by the formula of scdet.

    The filter itself, in a graph of its own, costs as much as decoding a small picture; this costs a tenth of that.
    """

    def __init__(self, first: UInt8[np.ndarray, "H W 3"]) -> None:
        self.step = max(1, min(first.shape[:2]) // LOOK_SIZE)
        self.before, self.difference = self._thinned(first), 0.0

    def score(self, image: UInt8[np.ndarray, "H W 3"]) -> float:
        """Return the filter's score of the next frame; 0 for the first."""
        thinned = self._thinned(image)
        difference = 100 / 256 * cv2.norm(thinned, self.before, cv2.NORM_L1) / thinned.size
        change = abs(difference - self.difference)
        self.before, self.difference = thinned, difference
        return min(difference, change)

    def _thinned(self, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
        return np.ascontiguousarray(image[:: self.step, :: self.step])
