"""kinema pose draw, as a person drives it."""

import json
from pathlib import Path

import numpy as np
import pytest

from kinema.cli import main
from kinema.data.encode import write_video
from kinema.data.media import probe, read_image, read_video
from kinema.pose.draw import STYLES, draw
from kinema.pose.files import write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18
from sound import heard, write_sounding

FRAMES = 5


def poses(width: int = 48, height: int = 32, frames: int = FRAMES, people: int = 1) -> Poses:
    rng = np.random.default_rng(0)
    points = np.ones((frames, people, 18, 3), np.float32)
    points[..., 0], points[..., 1] = rng.uniform(0, width, points.shape[:3]), rng.uniform(0, height, points.shape[:3])
    return Poses(points, COCO_18, width, height, 10)


def film(frames: int = FRAMES, width: int = 48, height: int = 32) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 255, (frames, height, width, 3), np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_poses(tmp_path / "p.npz", poses())
    return tmp_path / "p.npz"


def run(*words: object) -> int:
    return main(["pose", "draw", *(str(word) for word in words)])


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".gif", ".webp", ".apng"])
def test_a_film_has_the_rate_and_the_size_of_the_poses(file: Path, tmp_path: Path, suffix: str) -> None:
    assert run(file, "--out", tmp_path / f"o{suffix}") == 0
    video, fps = read_video(tmp_path / f"o{suffix}")
    assert (video.shape, fps) == ((FRAMES, 32, 48, 3), 10)


def test_a_folder_holds_the_very_pictures(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(file, "--out", tmp_path / "o", "--style", "openpose") == 0
    wanted = draw(poses(), STYLES["openpose"])
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == [f"{number:06d}.png" for number in range(FRAMES)]
    for number in range(FRAMES):
        np.testing.assert_array_equal(read_image(tmp_path / "o" / f"{number:06d}.png"), wanted[number])
    assert "5 frames of 48x32 in style openpose" in capsys.readouterr().out


def test_a_sheet_shows_frames_beside_each_other_and_says_who_drew_it(file: Path, tmp_path: Path) -> None:
    assert run(file, "--out", tmp_path / "o.png") == 0
    found = probe(tmp_path / "o.png")
    assert (found.height, found.width) == (32, 5 * 48)
    assert found.metadata["comment"].startswith("drawn by kinema ")


def test_the_size_is_that_of_the_shorter_side_and_even_where_the_format_wants_it(file: Path, tmp_path: Path) -> None:
    assert run(file, "--out", tmp_path / "o.mp4", "--size", 65) == 0
    assert run(file, "--out", tmp_path / "o.apng", "--size", 65) == 0
    sizes = [(found.width, found.height) for found in (probe(tmp_path / "o.mp4"), probe(tmp_path / "o.apng"))]
    assert sizes == [(98, 64), (98, 65)]
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], draw(poses().resized(98, 65), STYLES["edn"]))


def test_over_a_film_the_film_stays_where_nobody_is(file: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "f.apng", film(), 10)
    assert run(file, "--out", tmp_path / "o.apng", "--over", tmp_path / "f.apng") == 0
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], draw(poses(), STYLES["edn"], over=film()))


def test_over_a_larger_film_the_poses_grow(file: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "f.apng", film(width=96, height=64), 10)
    assert run(file, "--out", tmp_path / "o.apng", "--over", tmp_path / "f.apng") == 0
    wanted = draw(poses().resized(96, 64), STYLES["edn"], over=film(width=96, height=64))
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], wanted)


def test_a_faster_film_is_shown_at_the_rate_of_the_poses(file: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "f.apng", np.repeat(film(), 2, axis=0), 20)
    assert run(file, "--out", tmp_path / "o.apng", "--over", tmp_path / "f.apng") == 0
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], draw(poses(), STYLES["edn"], over=film()))


def test_the_film_s_sound_is_kept(tmp_path: Path) -> None:
    write_poses(tmp_path / "p.npz", Poses(poses(32, 32, frames=50).points, COCO_18, 32, 32, 25))
    source = write_sounding(tmp_path / "f.mp4", 50)
    assert run(tmp_path / "p.npz", "--out", tmp_path / "o.mp4", "--over", source) == 0
    onset, length = heard(tmp_path / "o.mp4")
    assert (onset, length) == (pytest.approx(0.5, abs=0.05), pytest.approx(2, abs=0.1))


def test_parts_and_thresholds_can_be_chosen(file: Path, tmp_path: Path) -> None:
    assert run(file, "--out", tmp_path / "o.apng", "--no-body", "--no-face", "--no-hands") == 0
    assert (read_video(tmp_path / "o.apng")[0] == 255).all()
    assert run(file, "--out", tmp_path / "p.apng", "--threshold", 0.999) == 0
    assert (read_video(tmp_path / "p.apng")[0] < 255).any()


@pytest.mark.parametrize("style", ["gaussian", "sticks"])
def test_the_maps_that_networks_learn_through_are_shown(file: Path, tmp_path: Path, style: str) -> None:
    assert run(file, "--out", tmp_path / "o", "--style", style) == 0
    alone = np.stack([read_image(tmp_path / "o" / f"{number:06d}.png") for number in range(FRAMES)])
    joints = poses().points[:, 0, :, :2].round().astype(int).clip(0, (47, 31))
    lit = alone.max(axis=3)
    last = joints[:, -1] if style == "gaussian" else joints[:, COCO_18.edges[-1][0]]
    assert all(frame[y, x] > 100 for frame, (x, y) in zip(lit, last, strict=True))
    write_video(tmp_path / "film.apng", film(), 10)
    assert run(file, "--out", tmp_path / "over", "--style", style, "--over", tmp_path / "film.apng") == 0
    drawn = np.stack([read_image(tmp_path / "over" / f"{number:06d}.png") for number in range(FRAMES)])
    free = lit == 0
    assert free.any()
    assert np.abs(drawn[free].astype(int) - film()[free]).max() <= 1


def test_frames_without_anybody_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = poses()
    some.points[1:3, ..., 2] = 0
    write_poses(tmp_path / "p.npz", Poses(some.points, COCO_18, 48, 32, 10))
    assert run(tmp_path / "p.npz", "--out", tmp_path / "o") == 0
    assert "nobody in 2 of them" in capsys.readouterr().out


def test_a_folder_of_openpose_takes_size_and_rate_from_the_film(tmp_path: Path) -> None:
    folder = tmp_path / "json"
    folder.mkdir()
    for number, frame in enumerate(poses().filled()):
        people = [{"pose_keypoints_2d": frame.astype(float).ravel().tolist()}]
        (folder / f"f_{number:03d}_keypoints.json").write_text(json.dumps({"people": people}))
    write_video(tmp_path / "f.apng", film(), 10)
    assert run(folder, "--out", tmp_path / "o.apng", "--over", tmp_path / "f.apng") == 0
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], draw(poses(), STYLES["edn"], over=film()))


def test_a_folder_that_says_its_size_and_rate_is_scaled_to_the_film(tmp_path: Path) -> None:
    write_poses(tmp_path / "json", poses())
    write_video(tmp_path / "f.apng", np.repeat(film(width=96, height=64), 2, axis=0), 20)
    assert run(tmp_path / "json", "--out", tmp_path / "o.apng", "--over", tmp_path / "f.apng") == 0
    wanted = draw(poses().resized(96, 64), STYLES["edn"], over=film(width=96, height=64))
    np.testing.assert_array_equal(read_video(tmp_path / "o.apng")[0], wanted)


def test_what_exists_is_replaced_only_when_asked(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (tmp_path / "o.gif", tmp_path / "o"):
        assert run(file, "--out", out) == 0
        assert run(file, "--out", out) == 2
        assert "exists; give another --out, or --overwrite" in capsys.readouterr().err
        assert run(file, "--out", out, "--overwrite") == 0


def test_a_folder_that_is_replaced_keeps_no_picture_of_before(file: Path, tmp_path: Path) -> None:
    write_poses(tmp_path / "long.npz", poses(frames=FRAMES + 3))
    assert run(tmp_path / "long.npz", "--out", tmp_path / "o") == 0
    (tmp_path / "o" / "notes.png").write_text("somebody's")
    assert run(file, "--out", tmp_path / "o", "--overwrite") == 0
    assert len(list((tmp_path / "o").iterdir())) == FRAMES + 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--style", "endn"], "there is no style 'endn'; did you mean 'edn'? accepted: confidence, edn, gaussian, openpose"),
        (["--style", "sticks", "--threshold", "0.5"], "style sticks shows every joint of bodies; leave out --threshold"),
        (["--size", "3"], "size is 3; it must be from 8 to 8192 pixels"),
        (["--threshold", "1.5"], "threshold is 1.5; it must be at least 0 and less than 1"),
        (["--out", "o.avi"], "ends in '.avi'; accepted: .mp4, .webm, .gif, .webp, .apng, .png, or no ending for a folder"),
        (["--over", "wide.apng"], "are of 48x32 frames and"),
        (["--over", "short.apng"], "has 5 frames at 10 per second and"),
        (["--over", "long.apng"], "has more at that rate"),
        (["--over", "none.mp4"], "none.mp4"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_file(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    for name, video in {"wide": film(width=96), "short": film(4), "long": film(6)}.items():
        write_video(tmp_path / f"{name}.apng", video, 10)
    before = sorted(tmp_path.iterdir())
    words = [str(tmp_path / word) if "." in word and not word[0].isdigit() else word for word in words]
    out = [] if "--out" in words else ["--out", tmp_path / "o.webm"]
    assert run(file, *words, *out) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before
