from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.core.errors import ConfigError, DataError
from kinema.data.dataset import Dataset
from kinema.data.mocap import MocapSettings, action, facing, plan_mocap, shoot, turned
from kinema.pose.kinematics import Body, perform
from kinema.pose.mocap import CMU_WIDTH
from kinema.pose.skeleton import COCO_18

SMALL = MocapSettings(frames=8, size=48, step=8)


def sequences(folder: Path, count: int = 3, frames: int = 200) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        table = np.zeros((frames, CMU_WIDTH), np.float32)
        table[:, 3:] = np.cumsum(rng.normal(0, 0.01, (frames, CMU_WIDTH - 3)), axis=0)
        table[:, 0], table[:, 1] = np.linspace(0, 20, frames), 17
        np.savez(folder / f"walking_extra_walking_{number}.npz", expmap=table)
    return folder


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("walking_walking_1", "walking"),
        ("walking_extra_walking_13", "walking"),
        ("basketball_signal_basketball_signal_4", "basketball_signal"),
        ("humanoid3d_dance_a", "dance"),
        ("humanoid3d_getup_faceup", "getup_faceup"),
        ("somebody", "somebody"),
    ],
)
def test_names_say_the_action(name: str, wanted: str) -> None:
    assert action(name) == wanted


def test_prepare_mocap_makes_clips_with_poses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = sequences(tmp_path / "cmu")
    (folder / "readme.md").write_text("words")
    (folder / "broken_1.npz").write_bytes(b"zip?")
    command = ["prepare", "mocap", str(folder), "--out", str(tmp_path / "data"), "--workers", "1"]
    assert main([*command, "--frames", "8", "--size", "48", "--step", "8", "--views", "2", "--split", "0.3"]) == 0
    assert "1 unreadable" in capsys.readouterr().out
    data = Dataset(tmp_path / "data")
    assert len(data) == 3 * 3 * 2  # 199 frames at 120 Hz are 26 at 16
    assert data.info.labels == ("walking",)
    assert data.info.skeleton == "coco-18"
    groups = {
        split: {data.record(i).group for i in range(len(data)) if data.record(i).split == split} for split in ("train", "test")
    }
    assert len(groups["test"]) == 1
    assert not groups["test"] & groups["train"]
    pose, video = data.array(0, "pose"), data.video(0)
    assert pose is not None
    assert pose.shape == (8, 18, 3)
    assert (pose[..., 2] == 1).all()
    assert pose[..., :2].min() >= 0
    assert pose[..., :2].max() <= 47
    for time in range(8):
        x, y = pose[time, COCO_18.index("Neck"), :2].round().astype(int)
        assert video[time, y - 1 : y + 2, x - 1 : x + 2].any()  # the figure is where its joints are
    assert not video[:, :3, :3].any()


def test_the_front_is_the_front_and_left_is_not_right() -> None:
    angles = np.zeros((4, 20))
    angles[:, 0] = 0.7  # yaw, to their left
    joints = perform(angles, np.zeros(4), Body()).joints
    assert facing(joints[0]) == pytest.approx(0.7)
    front = turned(joints, -facing(joints[0]))
    assert facing(front[0]) == pytest.approx(0, abs=1e-6)
    points = shoot(front, SMALL)
    assert (points[:, COCO_18.index("RWrist"), 0] < points[:, COCO_18.index("LWrist"), 0]).all()
    assert (points[:, COCO_18.index("Nose"), 1] < points[:, COCO_18.index("LAnkle"), 1]).all()
    np.testing.assert_allclose(np.linalg.norm(joints[0, 0] - joints[0, 7]), np.linalg.norm(front[0, 0] - front[0, 7]))


@pytest.mark.parametrize("camera", ["orthographic", "pinhole"])
def test_the_whole_motion_is_in_the_picture(camera: str) -> None:
    joints = perform(np.zeros((4, 20)), np.zeros(4), Body()).joints
    joints = joints + np.linspace(-4, 4, 4)[:, None, None] * np.array([1.0, 0.0, 0.5])
    points = shoot(joints, replace(SMALL, camera=camera))
    assert points.min() >= 0
    assert points.max() <= 47
    legs = points[:, COCO_18.index("LHip"), 1] - points[:, COCO_18.index("LAnkle"), 1]
    same = np.ptp(legs) < 1e-9
    assert same == (camera == "orthographic")
    still = shoot(joints[:1] - joints[:1].mean(axis=(0, 1)) * np.array([1, 0, 1]), replace(SMALL, camera=camera))
    tall = still[0, :, 1].max() - still[0, :, 1].min()
    assert 0.55 * 48 < tall < 0.75 * 48


def test_sequences_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = sequences(tmp_path / "cmu", 2, frames=30)
    with pytest.raises(DataError, match="too short"):
        plan_mocap([folder], SMALL)
    with pytest.raises(DataError, match="does not exist"):
        plan_mocap([tmp_path / "nowhere"], SMALL)
    with pytest.raises(DataError, match="none is named"):
        plan_mocap([], SMALL)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no motion capture"):
        plan_mocap([tmp_path / "empty"], SMALL)
    with pytest.raises(DataError, match="two sequences are called"):
        plan_mocap([sequences(tmp_path / "a"), sequences(tmp_path / "b")], SMALL)
    (tmp_path / "a.bvh").write_text("HIERARCHY")
    with pytest.raises(DataError, match=r"give \.npz or \.txt"):
        plan_mocap([tmp_path / "a.bvh"], SMALL)
    with pytest.raises(DataError, match="at least 2 groups"):
        plan_mocap([sequences(tmp_path / "one", 1)], SMALL)


@pytest.mark.parametrize(("field", "value"), [("frames", 1), ("turn", 200.0), ("style", "oil"), ("fill", 1.0), ("views", 0)])
def test_settings_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        MocapSettings(**{field: value})  # pyright: ignore[reportArgumentType]
