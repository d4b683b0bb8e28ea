"""Several people, as a person types it: found, followed, chosen, and written apart."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.data import detection
from kinema.data.encode import write_video
from kinema.data.media import read_video
from kinema.data.performers import PerformersSettings, render_clip
from kinema.pose.files import read_poses, write_poses
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import COCO_18
from two_blobs import GREEN, RED, SHAPE, Blobs, middle, write_film


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> list[Blobs]:
    """Detectors that were opened; they find people by colour."""
    opened: list[Blobs] = []

    def opening(name: str, *, people: int = 1, **settings: object) -> Blobs:
        opened.append(Blobs(people))
        return opened[-1]

    monkeypatch.setattr(detection, "open_detector", opening)
    detection._kept.cache_clear()
    return opened


def detect(*arguments: str, status: int = 0) -> None:
    assert main(["pose", "detect", *arguments, "--workers", "1"]) == status


def convert(*arguments: str, status: int = 0) -> None:
    assert main(["pose", "convert", *arguments]) == status


def where(poses: Poses) -> np.ndarray:
    """The middle of everybody in every frame, x alone."""
    return poses.points[..., 0].mean(axis=-1)


# --- Finding ------------------------------------------------------------------------------------------------------------------


def test_all_people_are_found_and_keep_their_numbers_where_parts_meet(
    blobs: list[Blobs], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detection, "PART_FRAMES", 13)  # of odd length: the second part begins with another order
    write_film(Path("film.mp4"), 40)
    detect("film.mp4", "--people", "2", "--out", "poses.npz")
    said = capsys.readouterr().out
    assert "2 people: 0 in 40 frames (0-39); 1 in 40 frames (0-39)" in said
    assert "kinema pose convert --person takes one of them, or writes a file for each" in said
    assert "somebody else" not in said
    poses = read_poses("poses.npz")
    assert poses.people == (0, 1)
    np.testing.assert_allclose(where(poses)[:, 0], 30 + np.arange(40) - 0.5, atol=0.6)
    np.testing.assert_allclose(where(poses)[:, 1], 130 - 0.5, atol=0.6)
    assert json.loads(Path("poses.json").read_text())["people"] == 2


def test_the_film_to_look_at_says_who_has_which_number(blobs: list[Blobs]) -> None:
    """Above every head there is something black and white, which is neither there where one person alone is drawn."""
    write_film(Path("film.mp4"), 6)
    above: list[int] = []
    for person in ("all", "1"):
        detect("film.mp4", "--people", "2", "--person", person, "--out", f"{person}.npz", "--overlay", f"{person}.mp4")
        drawn = read_video(f"{person}.mp4")[0][0].astype(int)
        above += [int(np.ptp(drawn[:17, x - 12 : x + 13])) for x in (30, 130)]
    assert min(above[:2]) > 180
    assert max(above[2:]) < 100


@pytest.mark.parametrize(("person", "x"), [("0", 30), ("1", 130), ("120,40", 130)])
def test_one_of_several_is_chosen_and_the_choice_is_told(
    blobs: list[Blobs], capsys: pytest.CaptureFixture[str], person: str, x: int
) -> None:
    write_film(Path("film.mp4"), 12)
    detect("film.mp4", "--people", "2", "--person", person, "--out", "poses.npz")
    assert f"2 people: took {int(x > 100)} ({person}, in 12 of 12 frames); the others are" in capsys.readouterr().out
    poses = read_poses("poses.npz")
    assert poses.points.shape[1] == 1
    assert where(poses)[0, 0] == pytest.approx(x, abs=1)


def test_somebody_who_leaves_is_missing_from_then_on(blobs: list[Blobs], capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 20, without={GREEN: range(12, 20)})
    detect("film.mp4", "--people", "2", "--out", "poses.npz")
    assert "2 people: 0 in 20 frames (0-19); 1 in 12 frames (0-11)" in capsys.readouterr().out
    assert read_poses("poses.npz").present.any(axis=2).sum(axis=0).tolist() == [20, 12]


def test_a_number_that_nobody_has_costs_no_second_search(blobs: list[Blobs], capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 12)
    detect("film.mp4", "--people", "2", "--person", "7", "--out", "poses.npz", status=2)
    assert "there is no person 7; there are 0, 1" in capsys.readouterr().err
    looked_at = sum(each.frames for each in blobs)
    detect("film.mp4", "--people", "2", "--person", "1", "--out", "poses.npz")
    assert sum(each.frames for each in blobs) == looked_at
    assert where(read_poses("poses.npz"))[0, 0] == pytest.approx(130, abs=1)


def test_nobody_and_fewer_than_asked_for(blobs: list[Blobs], capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("one.mp4"), 8, without={RED: range(8)})
    detect("one.mp4", "--people", "3", "--out", "one.npz")
    assert "people" not in capsys.readouterr().out
    assert read_poses("one.npz").points.shape[1] == 1
    write_film(Path("none.mp4"), 8, without={RED: range(8), GREEN: range(8)})
    detect("none.mp4", "--people", "2", "--person", "0", "--out", "none.npz", status=2)
    assert "none.mp4; people must be seen with their shoulders or hips" in capsys.readouterr().err
    assert not Path("none.npz").exists()


def test_more_than_were_asked_for_are_noticed(blobs: list[Blobs], capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 8)
    detect("film.mp4", "--out", "poses.npz")
    said = capsys.readouterr().out
    assert "somebody else is in 1 of 1 frames looked at (first: frame 0); who is most prominent was taken" in said
    assert "--person LEFT,TOP,WIDTH,HEIGHT chooses another, --people 2 finds more" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--people", "0"], "people is 0; it must be 1 or more"),
        (["--people", "2", "--person", "1,2,3,4"], "of several people it must be all, largest, the number of a person"),
        (["--person", "largest"], "or, with --people 2 or more, one of all, largest"),
        (["--people", "2", "--detector", "rtmpose.onnx"], "a top-down network sees one crop"),
    ],
)
def test_what_cannot_be_chosen_is_said_before_any_work(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_film(Path("film.mp4"), 2)
    detect("film.mp4", "--out", "poses.npz", *arguments, status=2)
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def write_pair() -> None:
    """Write a film of two drawn people, of whom one leaves."""
    clip = render_clip(1, PerformersSettings(frames=10, size=256))
    assert clip.background is not None
    other = clip.video[:, :, ::-1].copy()
    other[6:] = clip.background
    write_video("pair.mp4", np.concatenate([clip.video, other], axis=2), 16)


@pytest.mark.skipif(find_spec("mediapipe") is None, reason="needs the [pose] extra")
def test_prepare_says_that_mediapipe_follows_one_of_two_people(capsys: pytest.CaptureFixture[str]) -> None:
    write_pair()
    options = ["--frames", "10", "--size", "32", "--stabilise", "off", "--pose", "mediapipe", "--workers", "1"]
    assert main(["prepare", "pair.mp4", "--out", "data", *options]) == 0
    said = capsys.readouterr().out
    assert "pair.mp4: somebody else is in 1 of 1 frames looked at (first: 0.0 s); who is most prominent was taken" in said
    assert main(["prepare", "pair.mp4", "--out", "one", *options, "--person", "0,0,256,256"]) == 0
    assert "somebody else" not in capsys.readouterr().out


@pytest.mark.skipif(find_spec("mediapipe") is None, reason="needs the [pose] extra")
def test_mediapipe_finds_two_drawn_people_of_whom_one_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    write_pair()
    detect("pair.mp4", "--people", "2", "--out", "pair.npz", "--overlay", "look.mp4")
    said = capsys.readouterr().out
    assert "somebody else" not in said
    poses = read_poses("pair.npz")
    left = int(np.nanmean(poses.points[0, :, :, 0], axis=-1).argmin())
    assert f"{left} in 10 frames (0-9)" in said
    assert f"{1 - left} in 6 frames (0-5)" in said
    assert Path("look.mp4").exists()


# --- Writing apart ------------------------------------------------------------------------------------------------------------


def recorded(frames: int = 20, *, leaves: int = 20) -> Path:
    """Write both people to a file, in an order that changes; the green one leaves."""
    points = np.zeros((frames, 2, 18, 3), np.float32)
    for time in range(frames):
        for who in (RED, GREEN)[: 2 if time < leaves else 1]:
            points[time, who if time % 2 else 1 - who] = np.column_stack([SHAPE + middle(who, time), np.full(18, 0.9)])
    write_poses("both.npz", Poses(points, COCO_18, 160, 96, 25.0, extra={UNORDERED: True}))
    return Path("both.npz")


def test_everybody_goes_into_a_file_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    convert(str(recorded(leaves=12)), "--person", "each", "--size", "320x192", "--out", "made/one.npz")
    said = capsys.readouterr().out
    assert sorted(path.name for path in Path("made").iterdir()) == ["one-0.npz", "one-1.npz"]
    parts = [read_poses(f"made/one-{number}.npz") for number in (0, 1)]
    assert [part.people for part in parts] == [(0,), (1,)]
    assert [(len(part), part.width) for part in parts] == [(20, 320)] * 2
    lengths = [int(part.present.any(axis=(1, 2)).sum()) for part in parts]
    assert sorted(lengths) == [12, 20]
    stays = parts[lengths.index(20)]
    np.testing.assert_allclose(where(stays)[:, 0], 2 * (30 + np.arange(20)) + 0.5, atol=0.01)
    assert f"{lengths.index(12)} in 12 frames (0-11)" in said
    for number in (0, 1):
        assert f"made/one-{number}.npz: 20 frames of 320x192 at 25 fps, 1 person" in said


def test_everybody_goes_into_a_folder_of_openpose_of_their_own() -> None:
    convert(str(recorded(4)), "--person", "each", "--out", "made.v1")
    assert sorted(path.name for path in Path().glob("made*")) == ["made.v1-0", "made.v1-1"]
    assert read_poses("made.v1-1").people == (1,)


def test_whoever_is_there_already_is_replaced_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    source = recorded(6)
    Path("one-1.npz").write_text("mine")
    convert(str(source), "--person", "each", "--out", "one.npz", status=2)
    assert "one-1.npz exists; name another place, or ask to overwrite it" in capsys.readouterr().err
    assert not Path("one-0.npz").exists()
    convert(str(source), "--person", "each", "--out", "one.npz", "--overwrite")
    assert read_poses("one-1.npz").people == (1,)


@pytest.mark.parametrize("person", ["each", "largest", "0", "10,10"])
def test_nobody_at_all_is_one_sentence(capsys: pytest.CaptureFixture[str], person: str) -> None:
    write_poses("empty.npz", Poses(np.zeros((5, 1, 18, 3), np.float32), COCO_18, 160, 96, 25.0))
    convert("empty.npz", "--person", person, "--out", "made.npz", status=2)
    error = capsys.readouterr().err
    assert "no person is in any of the 5 frames" in error
    assert error.count("\n") == 1
    assert not list(Path().glob("made*"))
