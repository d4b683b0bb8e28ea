import json
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.pose.files import read_poses, write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import BODY_25, COCO_17, COCO_18


def person(x: float, *, size: float = 4) -> dict[str, object]:
    numbers = [value for joint in range(25) for value in (x + joint, 50 + size * joint, 0.9)]
    return {"pose_keypoints_2d": numbers}


def openpose(place: Path, frames: int = 10) -> Path:
    """Write a big person who walks and a small one who stands, in an order that changes; frame 4 has no file, 7 nobody."""
    place.mkdir()
    for time in range(frames):
        people = [person(30 + time), person(200, size=2)][:: 1 if time % 2 else -1]
        text = json.dumps({"version": 1.3, "people": [] if time == 7 else people})
        if time != 4:
            (place / f"dance_{time:012d}_keypoints.json").write_text(text)
    return place


def film(place: Path, frames: int = 20) -> Path:
    rng = np.random.default_rng(0)
    points = rng.uniform(100, 103, (frames, 1, 25, 3)).astype(np.float32)
    points[..., 2] = 0.8
    points[5:8, 0, 4] = 0
    points[12, 0, 6, 0] = 250
    write_poses(place, Poses(points, BODY_25, 320, 240, 25.0))
    return place


def test_pose_alone_lists_its_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pose"]) == 0
    assert "convert" in capsys.readouterr().out
    assert main(["pose", "convrt"]) == 2
    assert "did you mean 'convert'?" in capsys.readouterr().err


def test_openpose_files_become_one_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = openpose(tmp_path / "json"), tmp_path / "a.npz"
    command = ["pose", "convert", str(source), "--out", str(out), "--from-size", "320x240", "--from-fps", "25"]
    assert main([*command, "--skeleton", "coco-18", "--fill", "3"]) == 0
    printed = capsys.readouterr().out
    assert "no file for 1 frame (4), as files are numbered" in printed
    assert "2 people: took" in printed
    assert "choose with --person NUMBER" in printed
    assert "no person in 2 frames (4, 7)" in printed
    assert "dropped: MidHip, LBigToe" in printed
    assert "gaps: filled 50 of 50 missing points" in printed
    poses = read_poses(out)
    assert (len(poses), poses.skeleton, poses.fps, poses.width) == (10, COCO_18, 25, 320)
    np.testing.assert_allclose(poses.points[:, 0, 0, 0], 30 + np.arange(10), rtol=1e-6)


def test_another_person_by_pixel_or_all(tmp_path: Path) -> None:
    source = openpose(tmp_path / "json")
    command = ["pose", "convert", str(source), "--from-size", "320x240", "--from-fps", "25", "--out"]
    assert main([*command, str(tmp_path / "small.npz"), "--person", "210,60"]) == 0
    assert read_poses(tmp_path / "small.npz").points[0, 0, 0, 0] == 200
    assert main([*command, str(tmp_path / "all"), "--person", "all"]) == 0
    both = read_poses(tmp_path / "all")
    assert both.points.shape[1] == 2
    assert (np.nanmax(both.points[:, :, 0, 0], axis=0) - np.nanmin(both.points[:, :, 0, 0], axis=0)).tolist() in (
        [9, 0],
        [0, 9],
    )


def test_filters_sizes_and_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = film(tmp_path / "a.npz"), tmp_path / "folder"
    command = ["pose", "convert", str(source), "--out", str(out), "--outliers", "--fill", "5", "--smooth", "median"]
    assert main([*command, "--size", "640x480", "--fps", "12.5"]) == 0
    printed = capsys.readouterr().out
    assert "outliers: dropped 1 of 497 points" in printed
    assert "gaps: filled 4 of 4 missing points" in printed
    poses = read_poses(out)
    assert (len(poses), poses.fps, poses.width, poses.height) == (10, 12.5, 640, 480)
    assert poses.present.all()
    assert np.abs(poses.points[..., :2] - 203).max() < 4


@pytest.mark.parametrize("smooth", ["median", "savgol", "one-euro", "ema"])
def test_every_filter_has_its_name(tmp_path: Path, smooth: str) -> None:
    source, out = film(tmp_path / "a.npz"), tmp_path / "b.npz"
    assert main(["pose", "convert", str(source), "--out", str(out), "--fill", "3", "--smooth", smooth]) == 0
    before, after = (np.abs(np.diff(read_poses(path).points[:, 0, 0, 0])).sum() for path in (source, out))
    assert after < 0.8 * before


def test_what_cannot_be_done_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, json_folder = str(film(tmp_path / "a.npz")), str(openpose(tmp_path / "json"))
    out = ["--out", str(tmp_path / "out.npz")]
    for arguments, sentence in [
        ([json_folder, *out], "--from-size and --from-fps"),
        ([source, *out, "--from-size", "99x99"], "says itself that its frames are of"),
        ([source, *out, "--from-fps", "99"], "leave out --from-size and --from-fps"),
        ([source, *out, "--skeleton", "coco-19"], "did you mean 'coco-1"),
        ([source, *out, "--person", "3"], "there is no person 3"),
        ([source, *out, "--person", "²"], "--person '²' is none of"),
        ([source, *out, "--person", "640,40"], "--person 640,40 lies outside of the frames, which are 320x240"),
        ([source, *out, "--skeleton", "anonymous-²"], "there is no skeleton 'anonymous-²'"),
        ([source, "--out", ".", "--person", "each"], "has no name that could be numbered"),
        ([source, *out, "--window", "4"], "odd"),
        ([source, *out, "--size", "big"], "such as 640x480"),
        ([source, *out, "--fps", "0"], "above 0"),
        ([source, *out, "--fill", "-1"], "0 or more"),
        ([source, "--out", source], "exists"),
        ([source, "--out", str(tmp_path / "folder"), "--skeleton", "coco-17"], "OpenPose's files know no skeleton coco-17"),
        ([str(tmp_path / "none"), *out], "does not exist"),
    ]:
        assert main(["pose", "convert", *arguments]) == 2
        error = capsys.readouterr().err
        assert sentence in error
        assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "json"]


def test_face_and_hands_are_counted_and_said_where_they_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    face, hands = np.ones((9, 1, 70, 3), np.float32), np.ones((9, 1, 2, 21, 3), np.float32)
    face[4] = 0
    write_poses(tmp_path / "a.npz", Poses(np.ones((9, 1, 25, 3), np.float32), BODY_25, 32, 24, 25.0, face=face, hands=hands))
    words = ["pose", "convert", str(tmp_path / "a.npz"), "--out", str(tmp_path / "b.npz"), "--skeleton", "body-25+face"]
    assert main([*words, "--fill", "2"]) == 0
    said = capsys.readouterr().out
    assert "gaps: filled 70 of 70 missing points" in said
    assert "dropped: hands" in said


def test_a_folder_is_not_replaced_by_a_file_and_a_link_is_followed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, folder = str(film(tmp_path / "a.npz")), tmp_path / "b.npz"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert main(["pose", "convert", source, "--out", str(folder), "--overwrite"]) == 2
    assert "b.npz is a folder, which is not replaced by a file" in capsys.readouterr().err
    assert (folder / "thesis.txt").read_text() == "years of work"
    words = ["pose", "convert", source, "--out", str(tmp_path / "link"), "--overwrite"]
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for _ in range(2):
        assert main(words) == 0
        assert (tmp_path / "link").is_symlink()
        assert len(read_poses(tmp_path / "real")) == 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz", "link", "real"]


def test_where_nobody_is_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_poses(tmp_path / "a.npz", Poses(np.zeros((3, 1, 25, 3), np.float32), BODY_25, 32, 24, 25.0))
    for person_ in ("all", "each", "largest"):
        assert main(["pose", "convert", str(tmp_path / "a.npz"), "--out", str(tmp_path / "b.npz"), "--person", person_]) == 2
        assert "no person is in any of the 3 frames" in capsys.readouterr().err
    assert not (tmp_path / "b.npz").exists()


def test_no_step_leads_over_a_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = np.full((8, 1, 25, 3), 5, np.float32) + np.arange(25, dtype=np.float32)[:, None]
    points[4:, ..., 0] += 200
    write_poses(tmp_path / "a.npz", Poses(points, BODY_25, 320, 240, 25.0, begins=(0, 4)))
    assert main(["pose", "compare", str(tmp_path / "a.npz"), str(tmp_path / "a.npz")]) == 0
    assert "a joint moves 0.00 pixels per frame" in capsys.readouterr().out
    assert main(["pose", "compare", str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), "--from-fps", "3"]) == 2
    assert "leave out --from-size and --from-fps" in capsys.readouterr().err


def test_a_result_is_replaced_only_when_asked(tmp_path: Path) -> None:
    source = str(film(tmp_path / "a.npz"))
    assert main(["pose", "convert", source, "--out", source, "--skeleton", "coco-17", "--overwrite"]) == 0
    assert read_poses(source).skeleton == COCO_17
