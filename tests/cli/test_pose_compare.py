"""``kinema pose compare``: numbers that are known beforehand, layouts that differ, and one sentence for what does not fit."""

from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.pose.files import write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import BODY_25, COCO_18, Skeleton


def poses(place: Path, change: tuple[float, float] = (0, 0), *, skeleton: Skeleton = COCO_18, frames: int = 4) -> Path:
    """Write joints on a grid of 30 x 80 pixels, all moved by `change`; of moved ones the left ankle is missing in the end."""
    points = np.ones((frames, 1, len(skeleton), 3), np.float32)
    for number, joint in enumerate(COCO_18.joints):
        points[:, 0, skeleton.index(joint), :2] = (10 * (number % 4), 20 * (number // 4))
    if "MidHip" in skeleton.joints:
        hips = [skeleton.index("LHip"), skeleton.index("RHip")]
        points[:, 0, skeleton.index("MidHip"), :2] = points[:, 0, hips, :2].mean(axis=1)
    points[..., :2] += change
    if change != (0, 0):
        points[-1, 0, skeleton.index("LAnkle"), 2] = 0
    write_poses(place, Poses(points, skeleton, 128, 128, 10.0))
    return place


def compare(*words: object) -> int:
    return main(["pose", "compare", *map(str, words)])


def test_every_measure_of_joints_that_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All are 5 pixels off, 3 and 4 along the axes; one of 4 x 18 is missing; a tenth of the height of 80 is more than 5."""
    made, truth = poses(tmp_path / "made.npz", (3, 4)), poses(tmp_path / "truth.npz")
    assert compare(made, truth, "--reach", "0.1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Nose", "5.00", "0.0%", "100.0%"] in lines
    assert ["LAnkle", "5.00", "25.0%", "75.0%"] in lines
    assert ["all", "5.00", "1.4%", "98.6%"] in lines
    text = "\n".join(" ".join(line) for line in lines)
    assert "AKD 3.50 pixels" in text
    assert "MKR 1.4%" in text
    assert "steps: a joint moves 0.00 pixels per frame, in truth 0.00; the moves are 0.00 apart" in text
    # By hand, with the box of COCO's joints of 30 x 80 and k of twice the spread, over the joints that are there.
    spread = {"Nose": 0.026, "Eye": 0.025, "Ear": 0.035, "Shoulder": 0.079, "Elbow": 0.072, "Wrist": 0.062}
    spread |= {"Hip": 0.107, "Knee": 0.087, "Ankle": 0.089}
    like = [np.exp(-25 / (2 * 30 * 80 * (2 * value) ** 2)) for value in spread.values()]
    total = like[0] + 2 * sum(like[1:])
    assert f"OKS {(4 * total - like[-1]) / (4 * 17):.3f}" in text


def test_joints_that_a_layout_lacks_are_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, truth = poses(tmp_path / "made.npz"), poses(tmp_path / "truth.npz", skeleton=BODY_25)
    assert compare(made, truth) == 0
    printed = capsys.readouterr().out
    assert "left out, for coco-18 has none: LBigToe, LSmallToe" in printed
    assert "LBigToe " not in printed.split("against")[1]
    assert ["all", "0.00", "0.0%", "100.0%"] in [line.split() for line in printed.splitlines()]


def test_what_does_not_fit_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, short = poses(tmp_path / "made.npz"), poses(tmp_path / "short.npz", frames=3)
    nobody = tmp_path / "nobody.npz"
    write_poses(nobody, Poses(np.zeros((4, 1, 18, 3), np.float32), COCO_18, 128, 128, 10.0))
    for words, said in (
        ((made, short), "has 4 frames of 128x128 and"),
        ((made, tmp_path / "none.npz"), "none.npz"),
        ((made, nobody), "no person is in"),
        ((made, made, "--reach", "0"), "reach"),
        ((made, made, "--person", "all"), "one person"),
    ):
        assert compare(*words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
