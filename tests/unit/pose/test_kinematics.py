import numpy as np
import pytest

from kinema.data.motions import ACTIONS, Motion, sample_motion, standing
from kinema.pose.kinematics import ANGLES, Body, perform
from kinema.pose.skeleton import COCO_18

JOINT = {name: index for index, name in enumerate(COCO_18.joints)}


def pose_of(**degrees: float) -> np.ndarray:
    """Joints of somebody upright with some angles set."""
    angles = np.array([[np.radians(degrees.get(name, 0.0)) for name in ANGLES]])
    return perform(angles, np.zeros(1), Body()).joints[0]


def test_upright_body_by_hand() -> None:
    body, joints = Body(height=2.0), pose_of()
    joints = perform(np.zeros((1, 20)), np.zeros(1), body).joints[0]
    ankle = 0.045 * 2
    np.testing.assert_allclose(joints[JOINT["RAnkle"]], [-0.11, ankle, 0], atol=1e-9)  # its right is left in the picture
    np.testing.assert_allclose(joints[JOINT["LKnee"]], [0.11, ankle + 0.47, 0], atol=1e-9)
    np.testing.assert_allclose(joints[JOINT["Neck"]], [0, ankle + 0.94 + 0.59, 0], atol=1e-9)
    np.testing.assert_allclose(joints[JOINT["RWrist"]], [-0.21, ankle + 0.94 + 0.59 - 0.63, 0], atol=1e-9)
    assert joints[JOINT["Nose"], 2] < joints[JOINT["REar"], 2]  # the face looks at the camera


@pytest.mark.parametrize(
    ("angles", "joint", "parent", "direction"),
    [
        ({"left_shoulder_abduction": 90}, "LElbow", "LShoulder", (1, 0, 0)),
        ({"right_shoulder_flexion": 90}, "RElbow", "RShoulder", (0, 0, -1)),
        ({"right_shoulder_abduction": 90, "right_elbow_abduction": 90}, "RWrist", "RElbow", (0, 1, 0)),
        ({"left_hip_flexion": 90, "left_knee": 90}, "LAnkle", "LKnee", (0, -1, 0)),
        ({"yaw": 90, "left_hip_flexion": 90}, "LKnee", "LHip", (1, 0, 0)),
        ({"lean": 90, "yaw": 90}, "Neck", "MidHip", (1, 0, 0)),
        ({"roll": 90}, "Neck", "MidHip", (1, 0, 0)),
    ],
)
def test_each_angle_turns_the_right_way(
    angles: dict[str, float], joint: str, parent: str, direction: tuple[int, int, int]
) -> None:
    joints = pose_of(**angles)
    start = joints[[JOINT["RHip"], JOINT["LHip"]]].mean(axis=0) if parent == "MidHip" else joints[JOINT[parent]]
    bone = joints[JOINT[joint]] - start
    np.testing.assert_allclose(bone / np.linalg.norm(bone), direction, atol=1e-9)


@pytest.mark.parametrize("action", ACTIONS)
def test_bones_keep_their_length(action: str) -> None:
    motion = sample_motion(action, 64, 16.0, np.random.default_rng(3))
    joints = perform(motion.angles, motion.lift, Body()).joints
    for a, b in COCO_18.edges:
        if (a, b) not in ((1, 0), (1, 8), (1, 11)):  # neck and spine bend
            length = np.linalg.norm(joints[:, a] - joints[:, b], axis=1)
            np.testing.assert_allclose(length, length[0], rtol=1e-9)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_the_lower_foot_stands_on_the_floor_and_does_not_slide(action: str, seed: int) -> None:
    body = Body()
    motion = sample_motion(action, 96, 48.0, np.random.default_rng(seed))
    ankles = perform(motion.angles, motion.lift, body).joints[:, (JOINT["RAnkle"], JOINT["LAnkle"])]
    above = ankles[..., 1] - body.ankle
    np.testing.assert_allclose(above.min(axis=1), body.height * motion.lift, atol=2e-6)
    flying = motion.lift > 0
    touching = (above < 2e-6) & ~flying[:, None]
    planted = touching[1:] & touching[:-1]
    slide = np.linalg.norm(np.diff(ankles[..., (0, 2)], axis=0), axis=-1)
    assert planted.sum() > 20
    assert slide[planted].max() < 0.002  # metres: a twentieth of a pixel


def test_walking_goes_somewhere_and_nothing_else_does() -> None:
    travelled = {}
    for action in ACTIONS:
        motion = sample_motion(action, 32, 16.0, np.random.default_rng(1))
        neck = perform(motion.angles, motion.lift, Body()).joints[:, JOINT["Neck"], 0]
        hips = perform(motion.angles, motion.lift, Body()).joints[:, (8, 11), 0].mean(axis=1)
        travelled[action] = float(np.ptp(hips))
        assert np.isfinite(neck).all()
    walking = travelled.pop("walk")
    assert walking > 1.0
    assert max(travelled.values()) < 0.5


def test_jump_has_no_floor_contact() -> None:
    angles = standing(5)
    lift = np.array([0, 0.1, 0.2, 0.1, 0])
    motion = Motion("hop", 1.0, np.stack([angles[name] for name in ANGLES], axis=1), lift)
    heights = perform(motion.angles, motion.lift, Body(height=2.0)).joints[:, JOINT["LAnkle"], 1]
    np.testing.assert_allclose(heights, 0.09 + 2 * lift, atol=1e-9)
