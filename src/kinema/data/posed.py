"""Poses of clips: joints are found in the frames of the footage and moved to where the pixels of the clip went."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from kinema.data.media import Resize
from kinema.pose.detect import PoseDetector, collect, has_trunk, paired, visible
from kinema.pose.skeleton import Skeleton, converter

Pose = Float32[np.ndarray, "J 3"]
Size = tuple[int, int]
"""Width and height."""


@dataclass(frozen=True)
class PoseFinder:
    """Finds the joints of one person per frame.

    Attributes:
        detector: finds people; the first of several is taken.
        skeleton: joints that are wanted.

    Raises:
        DataError: the detector gives none of the joints that are wanted.
    """

    detector: PoseDetector
    skeleton: Skeleton

    def __post_init__(self) -> None:
        converter(self.detector.skeleton, self.skeleton)

    def __call__(self, images: Iterator[UInt8[np.ndarray, "_ _ 3"]]) -> Iterator[tuple[UInt8[np.ndarray, "_ _ 3"], Pose]]:
        """Yield the images of a shot, each with the joints in it."""
        for image, people in paired(self.detector, images, lambda image: image):
            yield image, collect([people[:1]], self.detector.skeleton, self.skeleton)[0, 0]

    def in_clip(self, poses: Sequence[Pose | None], have: Size, shape: Size, resize: Resize) -> Float32[np.ndarray, "T J 3"]:
        """Move poses to where the pixels of a clip are; what is beyond its edges is missing, 0, 0, 0.

        Args:
            poses: in pixels of the footage.
            have: size of the footage.
            shape: size of the clip.
            resize: how the footage was scaled before its middle was taken, as in `kinema.data.cutting.fitted`.
        """
        points = np.stack([np.full((len(self.skeleton), 3), np.nan, np.float32) if pose is None else pose for pose in poses])
        want, corner = placed(have, shape, resize)
        scale = np.array(want) / np.array(have)
        points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5 - np.array(corner)
        return np.nan_to_num(visible(points, *shape), nan=0.0)

    def share(self, pose: Float32[np.ndarray, "T J 3"]) -> float:
        """Return the share of frames in which a person is."""
        return round(float(has_trunk(pose, self.skeleton).mean()), 4)


def placed(have: Size, shape: Size, resize: Resize) -> tuple[Size, tuple[int, int]]:
    """Say how pixels of the footage become those of a clip: the size they are scaled to, and which of them is its first.

    Args:
        have: size of the footage.
        shape: size of the clip, whose middle is that of the scaled footage.
        resize: size of the footage -> size to scale it to.
    """
    want = resize(*have)
    return want, ((want[0] - shape[0]) // 2, (want[1] - shape[1]) // 2)


def moved(pose: Pose, transform: Float64[np.ndarray, "2 3"]) -> Pose:
    """Return the pose of an image that was moved by a transform, in pixels."""
    turned = pose.copy()
    turned[:, :2] = pose[:, :2] @ transform[:, :2].T + transform[:, 2]
    return turned
