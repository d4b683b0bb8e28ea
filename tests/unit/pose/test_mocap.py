import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kinema.core.errors import DataError
from kinema.pose.mocap import CMU_METRES, CMU_WIDTH, DEEPMIMIC_WIDTH, read_capture
from kinema.pose.skeleton import COCO_18

RIGID = [
    *(("Neck", f"{side}Shoulder") for side in "LR"),
    *((f"{side}{one}", f"{side}{two}") for side in "LR" for one, two in (("Shoulder", "Elbow"), ("Elbow", "Wrist"))),
    *((f"{side}{one}", f"{side}{two}") for side in "LR" for one, two in (("Hip", "Knee"), ("Knee", "Ankle"))),
    *(("Nose", f"{side}Eye") for side in "LR"),
    *((f"{side}Eye", f"{side}Ear") for side in "LR"),
]


def cmu(path: Path, frames: int = 60, **changes: np.ndarray) -> Path:
    table = np.zeros((frames, CMU_WIDTH), np.float32)
    table[:, 1] = 17
    np.savez(path, **{"expmap": table, **changes})
    return path


def wild(seed: int, frames: int = 60) -> np.ndarray:
    rng = np.random.default_rng(seed)
    table = np.cumsum(rng.normal(0, 0.03, (frames, CMU_WIDTH)), axis=0).astype(np.float32)
    return table


def deepmimic(path: Path, frames: int = 30) -> Path:
    row = np.zeros(DEEPMIMIC_WIDTH)
    row[0], row[2] = 1 / 30, 0.9
    row[[4, 8, 12, 16, 21, 25, 30, 35, 39]] = 1
    path.write_text(json.dumps({"Loop": "none", "Frames": [row.tolist()] * frames}))
    return path


def at(joints: np.ndarray, name: str) -> np.ndarray:
    return joints[..., COCO_18.index(name), :]


@pytest.mark.parametrize("kind", ["cmu", "deepmimic"])
def test_somebody_unturned_faces_the_camera_upright(tmp_path: Path, kind: str) -> None:
    file = cmu(tmp_path / "a.npz") if kind == "cmu" else deepmimic(tmp_path / "a.txt")
    joints = read_capture(file).joints(np.array([0.0, 0.1]))[0]
    for name in ("Shoulder", "Hip", "Wrist", "Eye", "Ear"):
        assert at(joints, f"R{name}")[0] < at(joints, f"L{name}")[0]  # their right is the picture's left
    assert at(joints, "Nose")[2] < at(joints, "LEar")[2] - 0.05  # the nose is nearer to the camera
    heights = [at(joints, name)[1] for name in ("LAnkle", "LKnee", "LHip", "Neck", "Nose", "LEye")]
    assert heights == sorted(heights)
    assert 0 < heights[0] < 0.25
    assert 1.2 < heights[-1] < 1.8


def test_bones_of_the_cmu_subject_in_metres(tmp_path: Path) -> None:
    joints = read_capture(cmu(tmp_path / "a.npz")).joints(np.array([0.0]))[0]
    thigh = np.linalg.norm(at(joints, "LHip") - at(joints, "LKnee"))
    assert thigh == pytest.approx(CMU_METRES * np.hypot(2.5972, 7.13576))
    np.testing.assert_allclose(at(joints, "LHip") + at(joints, "RHip"), [0.0026, 1.7154, -0.0705], atol=2e-3)


@pytest.mark.parametrize("kind", ["cmu", "deepmimic"])
def test_limbs_keep_their_length_at_any_rate(tmp_path: Path, kind: str) -> None:
    if kind == "cmu":
        file = cmu(tmp_path / "a.npz", expmap=wild(0))
    else:
        file = deepmimic(tmp_path / "a.txt")
        frames = np.array(json.loads(file.read_text())["Frames"])
        frames[:, 4:] += np.cumsum(np.random.default_rng(0).normal(0, 0.03, frames[:, 4:].shape), axis=0)
        file.write_text(json.dumps({"Frames": frames.tolist()}))
    joints = read_capture(file).joints(np.arange(0, 0.45, 0.0131))
    for first, second in RIGID:
        lengths = np.linalg.norm(at(joints, first) - at(joints, second), axis=-1)
        assert np.ptp(lengths) < 1e-9
        assert lengths.min() > 0.01
    assert np.ptp(at(joints, "LWrist"), axis=0).min() > 0.005  # and it does move


def test_the_maps_of_cmu_are_of_transposed_rotations(tmp_path: Path) -> None:
    table = np.zeros((3, CMU_WIDTH), np.float32)
    table[1:, 3:6] = (0, np.pi / 2, 0)  # hips
    file = cmu(tmp_path / "a.npz", expmap=table)
    joints = read_capture(file).joints(np.array([0.0]))[0]
    left = Rotation.from_rotvec([0, -np.pi / 2, 0]).apply([1, 0, 0])  # where the left was, x y z of the file
    across = at(joints, "LHip") - at(joints, "RHip")
    np.testing.assert_allclose(across / np.linalg.norm(across), [left[0], left[1], -left[2]], atol=0.01)


def test_the_knee_of_deepmimic_bends_back(tmp_path: Path) -> None:
    file = deepmimic(tmp_path / "a.txt")
    frames = np.array(json.loads(file.read_text())["Frames"])
    frames[:, 20] = -np.pi / 2  # right knee
    file.write_text(json.dumps({"Frames": frames.tolist()}))
    joints = read_capture(file).joints(np.array([0.0]))[0]
    np.testing.assert_allclose(at(joints, "RAnkle") - at(joints, "RKnee"), [0, 0, 0.40987], atol=1e-6)  # away from the camera


def test_files_that_are_no_motion_capture_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", poses=np.zeros(3))
    with pytest.raises(DataError, match=r"no array expmap; CMU sequences have"):
        read_capture(tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"expmap of shape \(60, 99\)"):
        read_capture(cmu(tmp_path / "c.npz", expmap=np.zeros((60, 99))))
    with pytest.raises(DataError, match="not finite"):
        read_capture(cmu(tmp_path / "d.npz", expmap=np.full((60, CMU_WIDTH), np.nan)))
    with pytest.raises(DataError, match="2 frames or more"):
        read_capture(cmu(tmp_path / "e.npz", frames=2))
    (tmp_path / "f.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="is damaged or no"):
        read_capture(tmp_path / "f.npz")
    (tmp_path / "g.txt").write_text("hello")
    with pytest.raises(DataError, match="no motion of DeepMimic"):
        read_capture(tmp_path / "g.txt")
    (tmp_path / "h.txt").write_text(json.dumps({"Frames": [[0.0] * 7] * 3}))
    with pytest.raises(DataError, match=r"shape \(3, 7\)"):
        read_capture(tmp_path / "h.txt")
    (tmp_path / "i.txt").write_text(json.dumps({"Frames": [[0.1] + [0.0] * 43] * 3}))
    with pytest.raises(DataError, match="near 0"):
        read_capture(tmp_path / "i.txt")
    with pytest.raises(DataError, match=r"give \.npz or \.txt"):
        read_capture(tmp_path / "j.bvh")
