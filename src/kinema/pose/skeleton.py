"""Skeletons: joints with names, in the order in which a pose array stores them.

Names, not index tables: the permutation of a mirrored pose follows from them, and a new layout costs one list.
A pose is an array (..., J, 3) of x, y and confidence in pixels; pixel centres are integers, missing is confidence 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from kinema.core.errors import DataError, accepted


@dataclass(frozen=True)
class Skeleton:
    """Named joints and the limbs between them.

    Attributes:
        name: as stored in a dataset.
        joints: names in storage order; a leading R or L before a capital letter is the person's right or left.
        edges: limbs as pairs of joint indices.
    """

    name: str
    joints: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Return the position of a joint.

        Raises:
            DataError: the skeleton has no joint of that name.
        """
        if joint not in self.joints:
            raise DataError(f"skeleton {self.name} has no joint {joint!r}; {accepted(joint, self.joints)}")
        return self.joints.index(joint)

    @property
    def flip(self) -> tuple[int, ...]:
        """Index, per joint, of the joint that takes its place in a mirrored pose."""
        return tuple(self.joints.index(_opposite(joint)) for joint in self.joints)

    def mirrored(self, pose: Float[np.ndarray, "*frames J 3"], width: int) -> Float[np.ndarray, "*frames J 3"]:
        """Return the pose of the mirrored picture: x becomes width - 1 - x **and** right and left change names."""
        turned = pose[..., self.flip, :].copy()
        turned[..., 0] = width - 1 - turned[..., 0]
        return turned


def _opposite(joint: str) -> str:
    if len(joint) > 1 and joint[0] in "RL" and joint[1].isupper():
        return "LR"["RL".index(joint[0])] + joint[1:]
    return joint


COCO_18 = Skeleton(
    "coco-18",
    (
        *("Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist"),
        *("RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar"),
    ),
    (
        *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
        *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
    ),
)
"""OpenPose's COCO order, also that of ControlNet's drawings and of The Pose Knows."""

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO_18,)}
