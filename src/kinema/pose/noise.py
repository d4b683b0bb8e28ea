"""What a pose detector does to the truth: jitter, drop-outs, left and right swapped; to test what must cope with it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32

from kinema.pose.skeleton import Skeleton


@dataclass(frozen=True)
class DetectorNoise:
    """How often and how far a detector errs.

    Attributes:
        jitter: standard deviation of positions, in heights of the person; twice that where confidence is low.
        dropout: share of joints that are missing.
        burst: mean length of a drop-out in frames.
        swap: share of frames in which right and left are swapped.
    """

    jitter: float = 0.008
    dropout: float = 0.03
    burst: float = 2.0
    swap: float = 0.01

    def scaled(self, amount: float) -> "DetectorNoise":
        """Return noise that is `amount` times as strong."""
        return DetectorNoise(self.jitter * amount, min(self.dropout * amount, 1.0), self.burst, min(self.swap * amount, 1.0))


def detect(
    pose: Float32[np.ndarray, "T J 3"], skeleton: Skeleton, noise: DetectorNoise, rng: np.random.Generator
) -> Float32[np.ndarray, "T J 3"]:
    """Return a pose as a detector with such faults would report it; a missing joint has confidence 0 and lies at (0, 0).

    Args:
        pose: the truth, in pixels.
        skeleton: names of the joints.
        noise: strength of the faults.
        rng: source of randomness.
    """
    frames, joints = pose.shape[:2]
    seen = pose.copy()
    swapped = rng.random(frames) < noise.swap
    seen[swapped] = seen[swapped][:, skeleton.flip]
    present = pose[..., 2] > 0
    heights = pose[..., 1][present]
    person = float(heights.max() - heights.min()) if heights.size else 0.0
    confidence = rng.beta(9, 1.5, (frames, joints))
    spread = noise.jitter * person * np.where(confidence < 0.7, 2, 1)
    seen[..., :2] += (spread[..., None] * rng.normal(size=(frames, joints, 2))).astype(np.float32)
    seen[..., 2] *= confidence.astype(np.float32)
    # A run of missing frames starts so often that, on average, the share `dropout` is missing.
    starts = rng.random((frames, joints)) < noise.dropout / max(noise.burst, 1.0)
    lengths = rng.geometric(1 / max(noise.burst, 1.0), (frames, joints))
    for frame, joint in zip(*np.nonzero(starts), strict=True):
        seen[frame : frame + lengths[frame, joint], joint] = 0
    seen[seen[..., 2] == 0] = 0
    return seen
