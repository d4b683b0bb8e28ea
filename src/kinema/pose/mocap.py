"""Motion capture: files of joint rotations become joints in space, of COCO-18.

Two kinds of files are read:

* ``.npz`` with an array ``expmap`` (T, 117): sequences of the CMU database as "Convolutional Sequence to Sequence Model for
  Human Dynamics" (Li et al., CVPR 2018) stores them: 3 numbers of the place of the hips, then an exponential map per joint of
  the database's 38 (of the BVH conversion, whose first frame is no motion but the T-pose in which it was rigged). The maps are
  those of the transposed rotations, which can be told from the feet: with the others no foot ever stands still. The rate is
  120 Hz, which the files do not say.
* ``.txt`` of DeepMimic (Peng et al., SIGGRAPH 2018): JSON with a row of 44 numbers per frame: its duration, the place of the
  hips, and rotations of 12 joints as quaternions (w, x, y, z), knees and elbows as one angle.

Bones are rigid in both; so are the points of the head, which neither has and which are placed on a sphere around its centre.
World axes are those of `kinema.pose.kinematics`: right in the picture, up, away from the camera, in metres.

References:
    Bones: the CMU database's subject in the BVH conversion that both releases use; DeepMimic's humanoid3d.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from kinema.core.arrays import read_arrays
from kinema.core.errors import DataError
from kinema.pose.kinematics import FACE
from kinema.pose.skeleton import COCO_18

SUFFIXES = (".npz", ".txt")

Offset = tuple[float, float, float]

CMU_FPS = 120.0
CMU_METRES = 0.0254 / 0.45  # of one unit of the database
CMU_WIDTH = 117
DEEPMIMIC_WIDTH = 44


@dataclass(frozen=True)
class Bone:
    """A joint of a file.

    Attributes:
        parent: its place in the list of bones, -1 for the hips.
        offset: from the parent, in the parent's axes.
    """

    parent: int
    offset: Offset


@dataclass(frozen=True)
class Rig:
    """How a file's joints hang together, and which of them are joints of COCO-18.

    Attributes:
        bones: parents come before children.
        joints: joint of COCO-18 -> bone.
        head: the bone that carries the head.
        centre: of the head, in the axes of that bone.
        radius: of the head.
        axes: rows are where right, up and away from the camera are in the file's axes, when somebody unturned faces the camera.
        face: columns are left, up and forward in the file's axes.
        unit: metres.
    """

    bones: tuple[Bone, ...]
    joints: Mapping[str, int]
    head: int
    centre: Offset
    radius: float
    axes: tuple[Offset, Offset, Offset]
    face: tuple[Offset, Offset, Offset]
    unit: float


def _cmu() -> Rig:
    parents = (-1, *range(6), 0, *range(7, 12), 0, *range(13, 19), 15, *range(20, 26), 23, 27, 15, *range(29, 35), 32, 36)
    offsets: dict[int, Offset] = {
        **{2: (1.65674, -1.80282, 0.62477), 3: (2.5972, -7.13576, 0), 4: (2.49236, -6.8477, 0)},
        **{8: (-1.6107, -1.80282, 0.62476), 9: (-2.59502, -7.12977, 0), 10: (-2.4678, -6.78024, 0)},
        **{14: (0.01961, 2.0545, -0.14112), 15: (0.01021, 2.06436, -0.05921)},
        **{17: (0.00713, 1.56711, 0.14968), 18: (0.03429, 1.56041, -0.10006)},
        **{21: (3.54205, 0.90436, -0.17364), 22: (4.86513, 0, 0), 23: (3.35554, 0, 0)},
        **{30: (-3.49802, 0.75994, -0.32616), 31: (-5.02649, 0, 0), 32: (-3.36431, 0, 0)},
    }
    sides = {"L": {"Hip": 2, "Knee": 3, "Ankle": 4, "Shoulder": 21, "Elbow": 22, "Wrist": 23}}
    sides["R"] = {"Hip": 8, "Knee": 9, "Ankle": 10, "Shoulder": 30, "Elbow": 31, "Wrist": 32}
    return Rig(
        bones=tuple(Bone(parent, offsets.get(place, (0, 0, 0))) for place, parent in enumerate(parents)),
        joints={"Neck": 15} | {side + name: bone for side, names in sides.items() for name, bone in names.items()},
        head=18,
        centre=(0, 0.1, 0.1),
        radius=1.75,
        axes=((1, 0, 0), (0, 1, 0), (0, 0, -1)),
        face=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        unit=CMU_METRES,
    )


def _deepmimic() -> Rig:
    right = ((0, 0, 0.084887), (0, -0.421546, 0), (0, -0.40987, 0))
    arm = ((-0.02405, 0.2435, 0.18311), (0, -0.274788, 0), (0, -0.258947, 0))

    def limb(first: int, parent: int, offsets: tuple[Offset, ...], way: int) -> list[Bone]:
        turned = [(x, y, way * z) for x, y, z in offsets]
        return [Bone(parent if place == 0 else first + place - 1, offset) for place, offset in enumerate(turned)]

    bones = [Bone(-1, (0, 0, 0)), Bone(0, (0, 0.236151, 0)), Bone(1, (0, 0.223894, 0))]
    bones += [*limb(3, 0, right, 1), *limb(6, 1, arm, 1), *limb(9, 0, right, -1), *limb(12, 1, arm, -1)]
    names = ("RHip", "RKnee", "RAnkle", "RShoulder", "RElbow", "RWrist", "LHip", "LKnee", "LAnkle")
    names += ("LShoulder", "LElbow", "LWrist")
    return Rig(
        bones=tuple(bones),
        joints={"Neck": 2} | {name: place for place, name in enumerate(names, 3)},
        head=2,
        centre=(0, 0.175, 0),
        radius=0.1025,
        axes=((0, 0, -1), (0, 1, 0), (-1, 0, 0)),
        face=((0, 0, -1), (0, 1, 0), (1, 0, 0)),
        unit=1.0,
    )


CMU, DEEPMIMIC = _cmu(), _deepmimic()


@dataclass(frozen=True)
class Capture:
    """Somebody's rotations over time.

    Attributes:
        rig: what they rotate.
        times: of the frames, in seconds.
        hips: place of the first bone, in the file's axes and units.
        rotations: of every bone against its parent.
    """

    rig: Rig
    times: Float[np.ndarray, "T"]
    hips: Float[np.ndarray, "T 3"]
    rotations: Float[np.ndarray, "T K 3 3"]

    @property
    def seconds(self) -> float:
        """From the first frame to the last."""
        return float(self.times[-1] - self.times[0])

    def joints(self, times: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N 18 3"]:
        """Return the joints of COCO-18 in metres at some times; rotations are interpolated, so that bones stay rigid."""
        times = np.clip(times, self.times[0], self.times[-1])
        first = max(int(np.searchsorted(self.times, times.min())) - 1, 0)
        part = slice(first, max(int(np.searchsorted(self.times, times.max())) + 1, first + 2))  # what lies around these times
        known = self.times[part]
        turns = [Slerp(known, Rotation.from_matrix(self.rotations[part, bone]))(times).as_matrix() for bone in self._moved()]
        local = dict(zip(self._moved(), turns, strict=True))
        still = np.broadcast_to(np.eye(3), (len(times), 3, 3))
        places, axes = [], []
        for number, bone in enumerate(self.rig.bones):
            turn = local.get(number, still)
            if bone.parent < 0:
                places.append(np.stack([np.interp(times, self.times, one) for one in self.hips.T], axis=1))
                axes.append(turn)
                continue
            places.append(places[bone.parent] + axes[bone.parent] @ np.array(bone.offset))
            axes.append(axes[bone.parent] @ turn)
        return self._named(places, axes)

    def _moved(self) -> list[int]:
        """Return the bones that something named hangs on; fingers and toes do not."""
        needed: set[int] = set()
        for bone in (*self.rig.joints.values(), self.rig.head):
            while bone >= 0:
                needed.add(bone)
                bone = self.rig.bones[bone].parent
        return sorted(needed)

    def _named(self, places: list[np.ndarray], axes: list[np.ndarray]) -> Float[np.ndarray, "N 18 3"]:
        rig = self.rig
        face = np.array(rig.centre) + rig.radius * FACE @ np.array(rig.face)
        points = places[rig.head][:, None] + face @ axes[rig.head].transpose(0, 2, 1)
        named = dict(zip(("Nose", "REye", "LEye", "REar", "LEar"), points.transpose(1, 0, 2), strict=True))
        named |= {name: places[bone] for name, bone in rig.joints.items()}
        return rig.unit * np.stack([named[name] for name in COCO_18.joints], axis=1) @ np.array(rig.axes, np.float64).T


def read_capture(path: Path | str) -> Capture:
    """Read a file of motion capture.

    Args:
        path: ``.npz`` with ``expmap`` (CMU), or ``.txt`` of DeepMimic.

    Raises:
        DataError: when it cannot be read, is of another kind or holds numbers that are none.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{path} is no motion capture that kinema reads; give {' or '.join(SUFFIXES)}")
    capture = _read_cmu(path) if path.suffix.lower() == ".npz" else _read_deepmimic(path)
    if not (np.isfinite(capture.hips).all() and np.isfinite(capture.rotations).all()):
        raise DataError(f"{path} holds numbers that are not finite; record it again or cut them out")
    if len(capture.times) < 2 or (np.diff(capture.times) <= 0).any():
        raise DataError(f"{path} has {len(capture.times)} frames whose times do not grow; motion needs 2 frames or more")
    return capture


def _read_cmu(path: Path) -> Capture:
    found = read_arrays(path).get("expmap")
    try:
        table = None if found is None else np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} has an expmap that is no table of numbers: {error}") from None
    if table is None or table.ndim != 2 or table.shape[1] != CMU_WIDTH:
        has = "no array expmap" if table is None else f"expmap of shape {table.shape}"
        raise DataError(f"{path} has {has}; CMU sequences have an array expmap of (T, {CMU_WIDTH})")
    if len(table) < 3:
        raise DataError(f"{path} has {len(table)} rows, the first of them a T-pose; motion needs 2 frames or more")
    table = table[1:]  # the T-pose
    turns = Rotation.from_rotvec(-table[:, 3:].reshape(-1, 3)).as_matrix().reshape(len(table), -1, 3, 3)
    return Capture(CMU, np.arange(len(table)) / CMU_FPS, table[:, :3], turns)


def _read_deepmimic(path: Path) -> Capture:
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["Frames"]
        table = np.array(rows, np.float64)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise DataError(f"{path} is no motion of DeepMimic, which is JSON with a list Frames") from None
    if table.ndim != 2 or table.shape[1] != DEEPMIMIC_WIDTH:
        raise DataError(f"{path} has Frames of shape {table.shape}; DeepMimic's humanoid has (T, {DEEPMIMIC_WIDTH})")
    turns = np.broadcast_to(np.eye(3), (len(table), len(DEEPMIMIC.bones), 3, 3)).copy()
    column = 4
    # Root, chest, neck, then hip, knee, ankle and shoulder, elbow of either side; wrists do not turn.
    for bone in (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13):
        if bone in (4, 7, 10, 13):
            turns[:, bone] = Rotation.from_euler("z", table[:, column, None]).as_matrix()
            column += 1
            continue
        quaternion = table[:, column : column + 4]  # some files have them longer or shorter than 1
        if not np.linalg.norm(quaternion, axis=1).min() >= 0.1:  # nor is one that is no number
            raise DataError(
                f"{path} has in columns {column} to {column + 3} a quaternion (w, x, y, z) near 0, which is no rotation"
            )
        turns[:, bone] = Rotation.from_quat(quaternion[:, (1, 2, 3, 0)]).as_matrix()
        column += 4
    times = np.concatenate([[0.0], np.cumsum(table[:-1, 0])])
    return Capture(DEEPMIMIC, times, table[:, 1:4], turns)
