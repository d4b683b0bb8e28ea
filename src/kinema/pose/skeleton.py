"""Skeletons: joints with names, in the order in which a pose array stores them.

Names, not index tables: the permutation of a mirrored pose and the conversion from one layout to another follow from them, and
a new layout costs one list. A pose is an array (..., J, 3) of x, y and confidence in pixels; pixel centres are integers,
missing is confidence 0.

References:
    Orders of OpenPose (poseParameters.cpp), COCO keypoints, MediaPipe's pose landmarks, and the Everybody Dance Now release.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

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

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of face and hands follow the joints of the body."""
        return tuple(part for part in PARTS if part in self.name.split("+")[1:])

    @property
    def body(self) -> "Skeleton":
        """The joints of the body alone."""
        if not self.parts:
            return self
        count = self.pieces["body"].stop
        edges = tuple(edge for edge in self.edges if max(edge) < count)
        return Skeleton(self.name.partition("+")[0], self.joints[:count], edges)

    @property
    def pieces(self) -> Mapping[str, slice]:
        """Where in the storage order the body is, and face and hands where they are."""
        start = len(self.joints) - sum(len(PARTS[part]) for part in self.parts)
        found = {"body": slice(0, start)}
        for part in self.parts:
            found[part] = slice(start, start + len(PARTS[part]))
            start = found[part].stop
        return found

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

COCO_17 = Skeleton(
    "coco-17",
    (
        *("Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist"),
        *("LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle"),
    ),
    (
        *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12), (11, 12)),
        *((11, 13), (13, 15), (12, 14), (14, 16)),
    ),
)
"""The order of the COCO keypoint challenge, also of RTMPose and most other detectors."""

BODY_25 = Skeleton(
    "body-25",
    (
        *("Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip"),
        *("RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar"),
        *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
    ),
    (
        *((1, 8), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14)),
        *((1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
    ),
)
"""OpenPose's default order since 2018."""

EDN_23 = Skeleton(
    "edn-23",
    (
        *("Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip"),
        *("RHip", "RKnee", "RAnkle", "RBigToe", "RSmallToe", "LHip", "LKnee", "LAnkle", "LBigToe", "LSmallToe"),
        *("Nose", "REye", "REar", "LEye", "LEar"),
    ),
    (
        *((0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10), (10, 11), (10, 12)),
        *((7, 13), (13, 14), (14, 15), (15, 16), (15, 17), (0, 18), (18, 19), (19, 20), (18, 21), (21, 22)),
    ),
)
"""Everybody Dance Now's own order: BODY_25 without heels, rearranged; it is not OpenPose's BODY_23."""

BLAZEPOSE_33 = Skeleton(
    "blazepose-33",
    (
        *("Nose", "LEyeInner", "LEye", "LEyeOuter", "REyeInner", "REye", "REyeOuter", "LEar", "REar", "LMouth", "RMouth"),
        *("LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist", "LPinky", "RPinky", "LIndex", "RIndex"),
        *("LThumb", "RThumb", "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle", "LHeel", "RHeel"),
        *("LFootIndex", "RFootIndex"),
    ),
    (
        *((0, 1), (1, 2), (2, 3), (3, 7), (0, 4), (4, 5), (5, 6), (6, 8), (9, 10), (11, 12), (11, 13), (13, 15)),
        *((15, 17), (15, 19), (15, 21), (17, 19), (12, 14), (14, 16), (16, 18), (16, 20), (16, 22), (18, 20), (11, 23)),
        *(
            (12, 24),
            (23, 24),
            (23, 25),
            (25, 27),
            (27, 29),
            (27, 31),
            (29, 31),
            (24, 26),
            (26, 28),
            (28, 30),
            (28, 32),
            (30, 32),
        ),
    ),
)
"""MediaPipe's order; its MouthL and MouthR are called LMouth and RMouth here, so that sides can be read off."""

PENN_13 = Skeleton(
    "penn-13",
    (
        *("Head", "LShoulder", "RShoulder", "LElbow", "RElbow", "LWrist", "RWrist"),
        *("LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle"),
    ),
    (
        *((0, 1), (0, 2), (1, 2), (1, 3), (3, 5), (2, 4), (4, 6), (1, 7), (2, 8), (7, 8)),
        *((7, 9), (9, 11), (8, 10), (10, 12)),
    ),
)
"""The joints of Penn Action."""

FACE_70 = Skeleton(
    "face-70",
    (
        *(*(f"RJaw{number}" for number in range(8)), "Chin", *(f"LJaw{number}" for number in reversed(range(8)))),
        *(*(f"RBrow{number}" for number in range(5)), *(f"LBrow{number}" for number in reversed(range(5)))),
        *(*(f"NoseBridge{number}" for number in range(4)), "RNostrilOuter", "RNostrilInner", "NoseBase"),
        *("LNostrilInner", "LNostrilOuter"),
        *("REyeCornerOuter", "REyelidUpperOuter", "REyelidUpperInner", "REyeCornerInner", "REyelidLowerInner"),
        *("REyelidLowerOuter", "LEyeCornerInner", "LEyelidUpperInner", "LEyelidUpperOuter", "LEyeCornerOuter"),
        *("LEyelidLowerOuter", "LEyelidLowerInner"),
        *("RLipCorner", "RLipUpper0", "RLipUpper1", "LipUpper", "LLipUpper1", "LLipUpper0", "LLipCorner"),
        *("LLipLower0", "LLipLower1", "LipLower", "RLipLower1", "RLipLower0"),
        *("RMouthCorner", "RMouthUpper", "MouthUpper", "LMouthUpper", "LMouthCorner", "LMouthLower", "MouthLower"),
        *("RMouthLower", "RPupil", "LPupil"),
    ),
    (),
)
"""OpenPose's face: 68 landmarks (jaw from the right ear to the left, brows, nose, eyes, lips) and the pupils."""

HAND_21 = Skeleton(
    "hand-21",
    ("Wrist", *(f"{finger}{part}" for finger in ("Thumb", "Index", "Middle", "Ring", "Pinky") for part in range(1, 5))),
    tuple((0 if part == 0 else 4 * finger + part, 4 * finger + part + 1) for finger in range(5) for part in range(4)),
)
"""OpenPose's hand: the wrist, then four points along every finger."""

HANDS_42 = Skeleton(
    "hands-42",
    tuple(f"{side}Hand{joint}" for side in "LR" for joint in HAND_21.joints),
    tuple((first + offset, second + offset) for offset in (0, len(HAND_21)) for first, second in HAND_21.edges),
)
"""The left hand, then the right one."""

FACE_PLACES = (("Nose",), ("NoseBridge3",), ("REar", "LEar"), ("REar",), ("LEar",))
"""Where a face is: in the middle of the first of these that are all there; the second is the tip of the nose of `FACE_70`."""

HEAD = ("Nose", "REye", "LEye", "REar", "LEar")
"""What a body's layout knows of the head."""

PARTS: Mapping[str, Skeleton] = {"face": FACE_70, "hands": HANDS_42}
"""What may follow the joints of a body, in this order."""

SKELETONS: Mapping[str, Skeleton] = {
    skeleton.name: skeleton for skeleton in (COCO_17, COCO_18, BODY_25, EDN_23, BLAZEPOSE_33, PENN_13)
}
"""Name, as stored in a dataset -> body layout. `find_skeleton` also knows anonymous-K, and bodies with `PARTS`."""


def anonymous(points: int) -> Skeleton:
    """Return K points without names or limbs, such as learned keypoints; a mirrored pose keeps their order."""
    return Skeleton(f"anonymous-{points}", tuple(f"Point{number}" for number in range(points)), ())


def whole(body: Skeleton, parts: Sequence[str]) -> Skeleton:
    """Return a body with face or hands behind it, such as ``coco-18+face+hands``.

    Args:
        body: layout of the body.
        parts: of `PARTS`.
    """
    joints, edges, names = body.joints, body.edges, [body.name]
    for name, part in PARTS.items():
        if name in parts:
            edges += tuple((first + len(joints), second + len(joints)) for first, second in part.edges)
            joints += part.joints
            names.append(name)
    return Skeleton("+".join(names), joints, edges)


def shows_face(pose: Float[np.ndarray, "*frames J 3"], skeleton: Skeleton) -> Bool[np.ndarray, "*frames"]:
    """Tell where a face is visible: two joints of the head, or the only one that the layout knows.

    Args:
        pose: joints, missing ones with confidence 0.
        skeleton: of these.
    """
    head = [skeleton.index(joint) for joint in HEAD if joint in skeleton.joints]
    return (pose[..., head, 2] > 0).sum(axis=-1) >= max(1, min(2, len(head)))


def trunk(pose: Float[np.ndarray, "*frames J 3"], skeleton: Skeleton) -> Float64[np.ndarray, "*frames 2"]:
    """Return the way from the middle of the shoulders to that of the hips; NaN where one of the four is missing.

    Args:
        pose: joints, missing ones with confidence 0.
        skeleton: of these.
    """
    corners = ("RShoulder", "LShoulder", "RHip", "LHip")
    if not set(corners) <= set(skeleton.joints):
        return np.full((*pose.shape[:-2], 2), np.nan)
    found = pose[..., [skeleton.index(joint) for joint in corners], :].astype(np.float64)
    places = np.where(found[..., 2:] > 0, found[..., :2], np.nan)
    return places[..., 2:, :].mean(axis=-2) - places[..., :2, :].mean(axis=-2)


def find_skeleton(name: str) -> Skeleton:
    """Return a skeleton by the name that a dataset stores.

    Raises:
        DataError: for an unknown name, with the nearest one.
    """
    body, *parts = name.split("+")
    if parts:
        if parts != [part for part in PARTS if part in parts]:
            raise DataError(f"skeleton {name!r} names the parts {'+'.join(parts)}; accepted: face, hands, face+hands")
        return whole(find_skeleton(body), parts)
    kind, _, points = name.rpartition("-")
    if kind == "anonymous" and points.isdecimal() and int(points) > 0:
        return anonymous(int(points))
    if name not in SKELETONS:
        known = accepted(name, [*SKELETONS, "anonymous-K"])
        raise DataError(f"there is no skeleton {name!r}; {known}, each also with +face, +hands or +face+hands")
    return SKELETONS[name]


# --- Conversion by name -------------------------------------------------------------------------------------------------------

MEANS: Mapping[str, tuple[str, str]] = {"Neck": ("LShoulder", "RShoulder"), "MidHip": ("LHip", "RHip")}
"""Joint -> the two whose middle it is, where a layout lacks it."""

STAND_INS: Mapping[str, str] = {
    **{"LBigToe": "LFootIndex", "RBigToe": "RFootIndex"},
    **{"LFootIndex": "LBigToe", "RFootIndex": "RBigToe"},
}
"""Joint -> one of another name in nearly the same place."""

ROUGH: Mapping[str, str] = {"Head": "Nose", "Nose": "Head"}
"""Joint -> one that is merely near; used only when asked for."""


@dataclass(frozen=True)
class Conversion:
    """How poses of one skeleton become poses of another.

    Attributes:
        source: layout that goes in.
        target: layout that comes out.
        parents: per joint of the target, the joints of the source whose mean it is: one, two, or none where it stays missing.
    """

    source: Skeleton
    target: Skeleton
    parents: tuple[tuple[int, ...], ...]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the target's joints that the source cannot give."""
        return tuple(joint for joint, parents in zip(self.target.joints, self.parents, strict=True) if not parents)

    @property
    def dropped(self) -> tuple[str, ...]:
        """Names of the source's joints that are in no joint of the target."""
        used = {parent for parents in self.parents for parent in parents}
        return tuple(joint for number, joint in enumerate(self.source.joints) if number not in used)

    def __call__(self, pose: Float[np.ndarray, "*frames J 3"]) -> Float[np.ndarray, "*frames K 3"]:
        """Convert poses; a mean has the lower confidence of both parents, and is missing where one of them is.

        Args:
            pose: in the source's layout.
        """
        pairs = np.array([parents * (3 - len(parents)) if parents else (0, 0) for parents in self.parents])[:, :2]
        first, second = pose[..., pairs[:, 0], :], pose[..., pairs[:, 1], :]
        converted = np.empty_like(first)
        converted[..., :2] = (first[..., :2] + second[..., :2]) / 2
        converted[..., 2] = np.minimum(first[..., 2], second[..., 2])
        converted[..., [not parents for parents in self.parents], 2] = 0
        return converted


def converter(source: Skeleton, target: Skeleton, *, rough: bool = False) -> Conversion:
    """Find how to turn poses of one skeleton into another: by the same name, else by an alias, else missing.

    Args:
        source: layout of the poses.
        target: layout that is wanted.
        rough: also take joints that are merely near, such as the nose for the head.

    Raises:
        DataError: when the two have no joint in common.
    """
    if source == target:
        return Conversion(source, target, tuple((joint,) for joint in range(len(source))))
    parents = tuple(_parents(joint, source, rough) for joint in target.joints)
    if not any(parents):
        raise DataError(f"no joint of skeleton {target.name} can be had from {source.name}; detect the poses again")
    return Conversion(source, target, parents)


def _parents(joint: str, source: Skeleton, rough: bool) -> tuple[int, ...]:
    candidates: Sequence[tuple[str, ...]] = (
        (joint,),
        MEANS.get(joint, ()),
        (STAND_INS.get(joint, ""),),
        (ROUGH.get(joint, ""),) if rough else (),
    )
    for names in candidates:
        if names and all(name in source.joints for name in names):
            return tuple(source.joints.index(name) for name in names)
    return ()
