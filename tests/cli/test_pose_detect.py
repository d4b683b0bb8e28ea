"""``kinema pose detect`` as a person types it."""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinema.cli import main
from kinema.data import detection
from kinema.data.encode import write_image, write_video
from kinema.data.media import read_video
from kinema.data.performers import PerformersSettings, render_clip
from kinema.pose.files import read_poses
from kinema.pose.skeleton import COCO_18, whole
from moving_dots import HEIGHT, RADIUS, WIDTH, points, write_film
from small_onnx import picture, write_network

pytestmark = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the [pose] extra")


@pytest.fixture(autouse=True)
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "dots.onnx")


def detect(*arguments: str, status: int = 0) -> None:
    detector = () if "--detector" in arguments else ("--detector", "dots.onnx", "--skeleton", "coco-17")
    workers = () if "--workers" in arguments else ("--workers", "1")
    assert main(["pose", "detect", *arguments, *detector, *workers]) == status


def error(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_film_in_poses_a_report_and_a_film_to_look_at_out(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 30, empty=[4, 10, 11, 12])
    detect("film.mp4", "--out", "poses.npz", "--overlay", "look.mp4")
    shown = capsys.readouterr().out
    assert "film.mp4: a person in 26 of 30 frames (86.7%)" in shown
    assert "nobody in 4 frames: 4, 10-12\n" in shown
    poses = read_poses("poses.npz")
    assert (len(poses), poses.width, poses.height, poses.fps, poses.skeleton.name) == (30, WIDTH, HEIGHT, 25, "coco-17")
    distance = np.linalg.norm(poses.points[:, 0, :, :2] - points(30), axis=-1)
    assert np.nanmedian(distance) < 1
    assert np.flatnonzero(~poses.present.any(axis=(1, 2))).tolist() == [4, 10, 11, 12]
    assert poses.extra is not None
    assert poses.extra["settings"]["detector"] == "dots.onnx"
    report = json.loads(Path("poses.json").read_text())
    assert report["missed"] == {"count": 4, "ranges": [[4, 4], [10, 12]]}
    assert report["joints"]["Nose"]["found"] == 1
    assert 0.3 < report["joints"]["Nose"]["confidence"] <= 1
    drawn, fps = read_video("look.mp4")
    assert (drawn.shape, fps) == ((30, HEIGHT, WIDTH, 3), 25)
    assert np.ptp(drawn[0, 0, :].astype(int), axis=0).max() < 30
    assert (drawn[4, 0, :, 0].astype(int) - drawn[4, 0, :, 1] > 100).mean() > 0.9  # the red edge
    plain, _ = read_video("film.mp4")
    assert np.abs(drawn[0].astype(int) - plain[0]).max() > 100  # limbs
    assert not list(Path().glob("*parts*"))


def test_somebody_upside_down_by_mistake_counts_as_nobody_and_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    frames, _ = read_video(write_film(Path("film.mp4"), 30))
    frames = frames[:, ::-1].copy()  # the dots' hips are above their shoulders
    frames[8:11] = frames[8:11, ::-1]
    write_video("film.mp4", frames, 25)
    detect("film.mp4", "--out", "poses.npz")
    said = capsys.readouterr().out
    assert "a person in 27 of 30 frames" in said
    assert "upside down by mistake, and so counted as nobody, in 3 frames: 8-10\n" in said
    assert np.flatnonzero(~read_poses("poses.npz").present.any(axis=(1, 2))).tolist() == [8, 9, 10]
    assert json.loads(Path("poses.json").read_text())["upside_down"] == {"count": 3, "ranges": [[8, 10]]}
    detect("film.mp4", "--out", "still.npz", "--still")  # nothing follows anything there
    assert "upside down" not in capsys.readouterr().out


def test_what_is_there_is_not_done_again(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_film(Path("film.mp4"), 6)
    detect("film.mp4", "--out", "poses.npz")
    before = Path("poses.npz").stat().st_mtime_ns
    detect("film.mp4", "--out", "poses.npz")
    assert "poses.npz is there already; --overwrite does it again" in capsys.readouterr().out
    assert Path("poses.npz").stat().st_mtime_ns == before
    detect("film.mp4", "--out", "poses.npz", "--confidence", "0.5", status=2)
    assert "poses.npz were found with confidence = 0.3; give another --out, or --overwrite" in error(capsys)
    detect("film.mp4", "--out", "poses.npz", "--confidence", "0.5", "--overwrite")
    assert json.loads(Path("poses.json").read_text())["settings"]["confidence"] == 0.5
    write_film(Path("film.mp4"), 7)
    detect("film.mp4", "--out", "poses.npz", "--confidence", "0.5", status=2)
    assert "poses.npz were found in other footage" in capsys.readouterr().err


def test_a_drawing_replaces_neither_its_source_nor_anything_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 4)
    Path("kept.mp4").write_bytes(Path("film.mp4").read_bytes())
    original = Path("film.mp4").read_bytes()
    for overlay, extra in (("film.mp4", ["--overwrite"]), (".", ["--overwrite"]), (".", [])):
        detect("film.mp4", "--out", "poses.npz", "--overlay", overlay, *extra, status=2)
        assert "film.mp4, in which people are looked for; give another place" in error(capsys)
    detect("film.mp4", "--out", "poses.npz", "--overlay", "kept.mp4", status=2)
    assert "kept.mp4 exists; give another --overlay, or --overwrite" in error(capsys)
    assert Path("film.mp4").read_bytes() == original == Path("kept.mp4").read_bytes()
    assert not Path("poses.npz").exists()


def test_what_is_done_again_stays_until_the_new_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 4)
    detect("film.mp4", "--out", "poses.npz")
    before = (Path("poses.npz").read_bytes(), Path("poses.json").read_bytes())
    detect("film.mp4", "--out", "poses.npz", "--overwrite", "--overlay", "look.avi", status=2)
    assert before == (Path("poses.npz").read_bytes(), Path("poses.json").read_bytes())
    write_film(Path("film.mp4"), 4, empty=range(4))
    capsys.readouterr()
    for _ in range(2):  # a film without anybody is no success the second time either
        detect("film.mp4", "--out", "poses.npz", *(() if Path("poses.npz").exists() is False else ("--overwrite",)), status=2)
        assert "nobody was found in" in capsys.readouterr().err
        assert not Path("poses.npz").exists()


def test_an_interrupted_run_goes_on_and_repeats_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(detection, "PART_FRAMES", 20)
    monkeypatch.setattr(detection, "LEAD", 0.2)
    write_film(Path("film.mp4"), 60)
    detect("film.mp4", "--out", "whole.npz")
    done: list[str] = []
    detect_part = detection.detect_part

    def stopped(part: detection.Part) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        detect_part(part)
        done.append(part.file.name)

    with monkeypatch.context() as patch:
        patch.setattr(detection, "detect_part", stopped)
        detect("film.mp4", "--out", "poses.npz", status=130)
    assert "finished parts are kept beside poses.npz; the same command goes on" in capsys.readouterr().err
    assert not Path("poses.npz").exists()
    assert done == ["000.npz", "001.npz"]

    def counted(part: detection.Part) -> None:
        done.append(part.file.name)
        detect_part(part)

    monkeypatch.setattr(detection, "detect_part", counted)
    detect("film.mp4", "--out", "poses.npz")
    assert done == ["000.npz", "001.npz", "002.npz"]
    poses = read_poses("poses.npz")
    np.testing.assert_array_equal(poses.points, read_poses("whole.npz").points)
    assert len(poses) == 60
    assert np.nanmedian(np.linalg.norm(poses.points[:, 0, :, :2] - points(60), axis=-1)) < 1
    assert not list(Path().glob("*parts*"))


def test_several_films_by_several_workers_are_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("films/a/one.mp4"), 12)
    write_film(Path("films/two.mp4"), 8, empty=range(8))
    Path("films/notes.txt").touch()
    detect("films", "--out", "two", "--workers", "2", "--overlay", "look")
    said = capsys.readouterr().out
    assert "two.mp4: nobody was found in 8 frames; no poses are written" in said
    assert "passed over, as no footage: notes.txt\n" in said
    detect("films", "--out", "one")
    assert sorted(path.relative_to("two").as_posix() for path in Path("two").rglob("*.*")) == [
        "a/one.json", "a/one.npz", "two.json",
    ]  # fmt: skip
    assert [path.relative_to("look").as_posix() for path in Path("look").rglob("*.mp4")] == ["a/one.mp4"]
    np.testing.assert_array_equal(read_poses("one/a/one.npz").points, read_poses("two/a/one.npz").points)
    detect("films", "--out", "two", "--workers", "2")
    said = capsys.readouterr().out
    assert "one.npz is there already; --overwrite" in said
    assert "two.npz is done already: nobody was found in two.mp4, as " in said


def test_of_several_films_those_that_cannot_be_read_are_named_and_the_rest_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("films/one.mp4"), 4)
    Path("films/bad.mp4").write_bytes(b"no film")
    detect("films", "--out", "found", status=1)
    said = capsys.readouterr()
    assert "bad.mp4" in said.err
    assert "one.mp4: a person in 4 of 4 frames" in said.out
    assert Path("found/one.npz").exists()


def test_images_and_folders_of_frames(capsys: pytest.CaptureFixture[str]) -> None:
    place = points(3)
    write_image(Path("picture.png"), picture(place[0], 180, 144, radius=RADIUS))
    detect("picture.png", "--out", "picture.npz")
    assert read_poses("picture.npz").present.all()
    Path("frames").mkdir()
    for number in range(3):
        Image.fromarray(picture(place[number], 180, 144, radius=RADIUS)).save(f"frames/{number}.png")
    detect("frames", "--out", "frames.npz", "--fps", "10", "--still")
    assert (len(read_poses("frames.npz")), read_poses("frames.npz").fps) == (3, 10)


def test_damaged_films_end_where_the_damage_is(capsys: pytest.CaptureFixture[str]) -> None:
    data = write_film(Path("film.mp4"), 40).read_bytes()
    start = data.index(b"mdat") + len(data) // 2
    Path("film.mp4").write_bytes(data[:start] + bytes(2000) + data[start + 2000 :])
    detect("film.mp4", "--out", "poses.npz")
    assert "is damaged after frame" in capsys.readouterr().out
    assert 2 < len(read_poses("poses.npz")) < 40


# --- Face and hands -----------------------------------------------------------------------------------------------------------


class Signer:
    """Sees one body in every frame, a face in none, and a right hand in every second, where hands are asked for."""

    name, version = "signer", "1"

    def __init__(self, parts: tuple[str, ...]) -> None:
        self.skeleton = whole(COCO_18, parts)

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for number, _ in enumerate(frames):
            points = np.tile(np.array([20, 10, 0.9], np.float32), (1, len(self.skeleton), 1))
            points[:, len(COCO_18) :, 2] = 0
            if self.skeleton.parts and number % 2:
                points[:, self.skeleton.index("RHandWrist") :, 2] = 1
            yield points


def test_hands_and_a_face_are_written_drawn_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks for somebody else looks for a body alone."""
    asked: list[tuple[str, ...]] = []

    def opening(name: str, *, parts: tuple[str, ...], **settings: object) -> Signer:
        asked.append(parts)
        return Signer(parts)

    monkeypatch.setattr(detection, "open_detector", opening)
    detection._kept.cache_clear()
    write_film(Path("film.mp4"), 6)
    words = ("film.mp4", "--out", "poses.npz", "--overlay", "look.mp4", "--workers", "1")
    assert main(["pose", "detect", *words, "--skeleton", "coco-18+face+hands"]) == 0
    detection._kept.cache_clear()
    assert asked == [("face", "hands"), ("face", "hands"), ()]
    assert "  in view: face in 0%, left hand in 0%, right hand in 50%\n" in capsys.readouterr().out
    poses = read_poses("poses.npz")
    assert poses.layout.name == "coco-18+face+hands"
    assert poses.hands is not None
    assert (poses.hands[:, 0, 1, :, 2] == 1).all(axis=1).tolist() == [False, True] * 3
    assert json.loads(Path("poses.json").read_text())["parts"] == {"face": 0.0, "left hand": 0.0, "right hand": 0.5}
    assert main(["pose", "convert", "poses.npz", "--skeleton", "coco-17+hands", "--out", "hands.npz"]) == 0
    assert read_poses("hands.npz").layout.name == "coco-17+hands"
    assert main(["pose", "convert", "hands.npz", "--skeleton", "coco-17+face", "--out", "face.npz"]) == 2
    assert "hands.npz holds no face; give --skeleton coco-17\n" in capsys.readouterr().err
    assert main(["pose", "convert", "poses.npz", "--out", "openpose"]) == 0
    back = read_poses("openpose")
    assert back.layout.name == "coco-18+face+hands"
    np.testing.assert_array_equal(back.filled(), poses.filled())


# --- Bad input ----------------------------------------------------------------------------------------------------------------


def test_nobody_at_all_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    write_film(Path("film.mp4"), 5, empty=range(5))
    detect("film.mp4", "--out", "poses.npz", status=2)
    said = error(capsys)
    assert "nobody was found in" in said
    assert "film.mp4; people must be seen with their shoulders or hips" in said
    assert not Path("poses.npz").exists()
    assert json.loads(Path("poses.json").read_text())["missed"] == {"count": 5, "ranges": [[0, 4]]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.mp4", "--out", "x.npz"], "gone.mp4 does not exist"),
        (["a.mp4", "b.mp4", "--out", "x.npz"], "--out x.npz is one file, and there are 2 sources; give a folder"),
        (["a.mp4", "--out", "x.json"], "--out x.json ends in '.json'; give FILE.npz or a folder"),
        (["a.mp4", "--out", "x.npz", "--overlay", "x.gif"], "--overlay x.gif ends in '.gif'"),
        (["a.mp4", "b.mp4", "--out", "x", "--overlay", "x.mp4"], "--overlay x.mp4 is one file, and there are 2 sources"),
        (["a.mp4", "a.mkv", "--out", "x"], "a.mkv and a.mp4 would both be written to x/a.npz; rename one"),
        (["a.mp4", "--out", "x.npz", "--person", "12"], "person is '12'; it must be LEFT,TOP,WIDTH,HEIGHT in pixels"),
        (["a.mp4", "--out", "x.npz", "--fps", "10"], "--fps is the rate of folders of frames, and there are none"),
        (
            ["a.mp4", "--out", "x.npz", "--person", "900,9,4,4"],
            "--person 900,9,4,4 lies outside of the frames, which are 180x144",
        ),
        (["a.mp4", "--out", "x.npz", "--person", "1,2,0,4"], "the width and height must be 1 pixel or more"),
        (["a.mp4", "--out", "x.npz", "--skeleton", "coco18"], "there is no skeleton 'coco18'; did you mean 'coco-18'"),
        (["a.mp4", "--out", "x.npz", "--skeleton", "coco-17+feet"], "accepted: face, hands, face+hands"),
        (["a.mp4", "--out", "x.npz", "--skeleton", "coco-17+hands"], "dots.onnx finds the body alone, and hands are asked for"),
        (["a.mp4", "--out", "x.npz", "--detector", "openpose"], "there is no pose detector 'openpose'"),
        (["a.mp4", "--out", "x.npz", "--detector", "gone.onnx"], "the pose model gone.onnx cannot be read"),
        (["a.mp4", "--out", "x.npz", "--complexity", "3"], "complexity is 3; it must be 0, 1 or 2"),
        (["a.mp4", "--out", "x.npz", "--confidence", "3"], "confidence is 3.0; it must be from 0 to 1"),
        (["broken.mp4", "--out", "x.npz"], "broken.mp4 is not a video that FFmpeg reads"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.mp4", "b.mp4", "a.mkv"):
        write_film(Path("a.mp4"), 2)
        Path(name).write_bytes(Path("a.mp4").read_bytes())
    Path("broken.mp4").write_text("no film")
    if "--skeleton" in arguments:
        arguments = [*arguments, "--detector", "dots.onnx"]
    detect(*arguments, status=2)
    assert says in error(capsys)
    assert not Path("x.npz").exists()


@pytest.mark.skipif(find_spec("mediapipe") is None, reason="needs the [pose] extra")
def test_of_several_people_it_says_who_was_taken_and_how_to_choose(capsys: pytest.CaptureFixture[str]) -> None:
    """Two drawn people side by side, found by MediaPipe."""
    video = render_clip(1, PerformersSettings(frames=3, size=256)).video
    write_video("pair.mp4", np.concatenate([video, video[:, :, ::-1]], axis=2), 16)
    detect("pair.mp4", "--out", "pair.npz", "--detector", "mediapipe")
    said = capsys.readouterr().out
    assert "somebody else is in 1 of 1 frames looked at (first: frame 0)" in said
    assert "--person LEFT,TOP,WIDTH,HEIGHT chooses another" in said
    sides = []
    for left in (0, 256):
        detect("pair.mp4", "--out", f"{left}.npz", "--detector", "mediapipe", "--person", f"{left},0,256,256")
        sides.append(float(np.nanmean(read_poses(f"{left}.npz").points[..., 0])))
    assert sides[0] < 256 < sides[1]
    assert "somebody else" not in capsys.readouterr().out
    write_video("alone.mp4", video, 16)
    detect("alone.mp4", "--out", "alone.npz", "--detector", "mediapipe")
    assert "somebody else" not in capsys.readouterr().out


def test_help_needs_neither_torch_nor_a_detector() -> None:
    script = (
        "import sys, contextlib; from kinema.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['pose', 'detect', '--help'])\n"
        "print([name for name in ('torch', 'mediapipe', 'onnxruntime') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "--detector" in done.stdout
