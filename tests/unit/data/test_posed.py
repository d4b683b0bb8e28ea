"""Poses of clips must lie where the pixels of the clip show the joints, whatever was done to the frames."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from kinema.core.errors import ConfigError, DataError
from kinema.data import plan, posed
from kinema.data.cutting import PrepareSettings, kept_poser
from kinema.data.dataset import Dataset, DatasetInfo
from kinema.data.encode import write_image, write_video
from kinema.data.media import read_video
from kinema.data.performers import PerformersSettings, render_clip
from kinema.data.prepare import plan_footage, prepare
from kinema.pose.files import read_poses, write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18, anonymous, find_skeleton
from moving_dots import points, write_film
from small_onnx import write_network

RADIUS = 7


class Ball:
    """Finds a green ball by the mean place of what is green: exact on footage and, asked again, on the clip."""

    name, version, skeleton = "ball", "1", anonymous(1)

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in frames:
            place = green(frame)
            yield np.empty((0, 1, 3), np.float32) if place is None else np.array([[[*place, 0.8]]], np.float32)


class Others(Ball):
    """Finds whoever is left of the middle in a single frame, by what is red."""

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in frames:
            left = frame[:, : frame.shape[1] // 2].astype(np.int16)
            there = (left[..., 0] - left[..., 1]).max() > 150
            yield np.full((1, 1, 3), 0.8, np.float32) if there else np.empty((0, 1, 3), np.float32)


def opened(name: str, *, still: bool = False, **settings: object) -> Ball:
    return Others() if still else Ball()


def green(frame: np.ndarray) -> tuple[float, float] | None:
    pixels = frame.astype(np.float64)
    weight = (pixels[..., 1] - np.maximum(pixels[..., 0], pixels[..., 2]) - 60).clip(0)
    if weight.sum() < 500:
        return None
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    return float((columns * weight).sum() / weight.sum()), float((rows * weight).sum() / weight.sum())


def ball_film(frames: int, width: int, height: int, *, shake: bool = False, missing: Iterable[int] = ()) -> np.ndarray:
    """A green ball on a wandering path over a fixed texture, seen by a camera that may shake."""
    rng = np.random.default_rng(0)
    texture = cv2.resize(rng.integers(40, 200, (height // 5, width // 5), np.uint8), (width, height))
    video = np.repeat(np.stack([texture] * 3, axis=-1)[None], frames, axis=0)
    for t, frame in enumerate(video):
        x = width / 2 + width * 0.12 * np.sin(t / 3)
        y = height / 2 + height * 0.2 * np.cos(t / 4)
        if t not in missing:
            cv2.circle(frame, (round(x * 16), round(y * 16)), RADIUS * 16, (20, 240, 20), -1, cv2.LINE_AA, 4)
        if shake:
            move = np.array([[1, 0, 4 * np.sin(t)], [0, 1, 3 * np.cos(2 * t)]])
            frame[:] = cv2.warpAffine(frame, move, (width, height), borderMode=cv2.BORDER_REFLECT)
    return video


@pytest.fixture
def with_ball(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(posed, "open_detector", opened)
    kept_poser.cache_clear()
    yield
    kept_poser.cache_clear()


def cut(footage: Path, **settings: Any) -> tuple[Dataset, DatasetInfo]:
    out = footage.with_name("data")
    chosen = {"frames": 8, "size": "64", "stabilise": "off", "pose": "mediapipe", "pose_skeleton": "anonymous-1"} | settings
    info = prepare([footage], out, PrepareSettings(**chosen))
    return Dataset(out), info


def distances(data: Dataset) -> np.ndarray:
    """How far the stored joint is from the ball that the clip shows, in pixels."""
    found = []
    for index in range(len(data)):
        pose = data.array(index, "pose")
        assert pose is not None
        assert pose.dtype == np.float32
        for frame, (x, y, confidence) in zip(data.video(index), pose[:, 0], strict=True):
            place = green(frame)
            assert place is not None
            assert confidence == np.float32(0.8)
            found.append(np.hypot(x - place[0], y - place[1]))
    return np.array(found)


@pytest.mark.usefixtures("with_ball")
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fit": "letterbox"},
        {"size": "96x40"},
        {"size": "40x96", "fit": "letterbox"},
        {"size": "200"},
        {"size": "192x128"},
        {"fps": 10},
        {"fps": 40},
        {"stride": 3},
    ],
    ids=str,
)
def test_the_joint_is_where_the_clip_shows_it(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_video(tmp_path / "film.mp4", ball_film(24, 192, 128), 25)
    data, info = cut(tmp_path / "film.mp4", **settings)
    assert info.skeleton == "anonymous-1"
    assert len(data) >= 1
    assert distances(data).max() < 0.35


@pytest.mark.usefixtures("with_ball")
def test_footage_that_is_displayed_turned(tmp_path: Path) -> None:
    with av.open(tmp_path / "film.mp4", "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 192, 128, "yuv420p"
        stream.set_display_rotation(90, False)
        for image in ball_film(8, 192, 128):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    data, _ = cut(tmp_path / "film.mp4", size="64x96")
    assert distances(data).max() < 0.35


@pytest.mark.usefixtures("with_ball")
def test_every_frame_of_stabilised_footage_moves_by_its_own_transform(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", ball_film(16, 320, 240, shake=True), 25)
    data, _ = cut(tmp_path / "film.mp4", stabilise="on", size="80x60", cut=0.0)
    assert len(data) == 2
    assert distances(data).max() < 0.35
    loose, _ = cut_again(tmp_path, stabilise="off", size="80x60", cut=0.0)
    difference = np.abs(loose.array(0, "pose")[:, 0, :2] - data.array(0, "pose")[:, 0, :2])  # type: ignore[index]
    assert difference.max() > 0.8  # the shaking, which the stabilised poses must not have


def cut_again(folder: Path, **settings: Any) -> tuple[Dataset, DatasetInfo]:
    again = folder / "again"
    again.mkdir()
    (again / "film.mp4").write_bytes((folder / "film.mp4").read_bytes())
    return cut(again / "film.mp4", **settings)


@pytest.mark.usefixtures("with_ball")
def test_what_the_crop_cuts_off_is_missing_there(tmp_path: Path) -> None:
    film = ball_film(8, 192, 96)
    film[:, :, :96] = film[:, :, 96:]  # the left half is the right one: no ball in the middle
    film = np.roll(film, 60, axis=2)
    write_video(tmp_path / "film.mp4", film, 25)
    footage = [green(frame) for frame in film]
    assert all(place is not None for place in footage)
    data, _ = cut(tmp_path / "film.mp4", size="48", min_pose=0.0)
    pose = data.array(0, "pose")
    assert pose is not None
    for place, (x, y, confidence) in zip(footage, pose[:, 0], strict=True):
        across = (place[0] + 0.5) / 2 - 0.5 - 24  # type: ignore[index]
        inside = -0.5 <= across < 47.5
        assert (confidence > 0) == inside
        assert inside or (x, y) == (0, 0)


@pytest.mark.usefixtures("with_ball")
def test_clips_without_a_person_are_refused_and_counted(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", ball_film(24, 96, 96, missing=[*range(3, 8), *range(8, 12)]), 25)
    data, info = cut(tmp_path / "film.mp4")
    assert info.refused == {"no person": 1}
    assert info.sources["film.mp4"] == {"kept": 2, "no person": 1}
    refused = json.loads((tmp_path / "data" / "refused.jsonl").read_text())
    assert (refused["first"], refused["last"], refused["share"], refused["limit"]) == (0, 7, 0.375, 0.5)
    pose = data.array(0, "pose")
    assert pose is not None
    assert pose[:4].tolist() == [[[0, 0, 0]]] * 4
    assert data.record(0).extra["pose"] == 0.5


@pytest.mark.usefixtures("with_ball")
def test_it_is_said_that_a_detector_does_not_follow_everybody(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for name, second in (("alone", False), ("pair", True)):
        film = ball_film(90, 96, 64)
        film[20:60, 10:30, 4:14] = (240, 10, 10) if second else film[20:60, 10:30, 4:14]
        write_video(tmp_path / "films" / f"{name}.mp4", film, 25)
    _, info = cut(tmp_path / "films", duplicates=-1.0)
    assert list(info.people) == ["pair.mp4"]
    assert "somebody else is in 1 of 3 frames looked at (first: 1.0 s); who is most prominent was" in info.people["pair.mp4"]
    assert "--person LEFT,TOP,WIDTH,HEIGHT chooses another" in info.people["pair.mp4"]
    report = (tmp_path / "data" / plan.REPORT_NAME).read_text()
    assert "somebody else is in 1 of 3 frames" in report
    _, alone = cut(tmp_path / "films" / "pair.mp4", person="30,0,66,64", pose="mediapipe")
    assert alone.people == {}


def test_a_performer_has_the_joints_that_a_true_detector_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The film is 256 wide and high and letterboxed into 96 x 64: a scale of 1/4, and 16 pixels more on the left."""
    clip = render_clip(2, PerformersSettings(frames=10, size=256))
    assert clip.pose is not None
    truth = clip.pose
    write_video(tmp_path / "film.mp4", clip.video, 16)
    decoded, _ = read_video(tmp_path / "film.mp4")

    class Truth:
        name, version, skeleton = "truth", "1", COCO_18

        def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
            for frame in frames:
                shown = np.flatnonzero((decoded == frame).all(axis=(1, 2, 3)))
                yield truth[shown]  # nobody where they are painted over

    monkeypatch.setattr(posed, "open_detector", lambda name, **settings: Truth())
    kept_poser.cache_clear()
    data, info = cut(tmp_path / "film.mp4", size="96x64", fit="letterbox", pose_skeleton="coco-18")
    kept_poser.cache_clear()
    assert info.skeleton == "coco-18"
    wanted = (truth[:8, :, :2] + 0.5) / 4 - 0.5 + (16, 0)
    seen = truth[:8, :, 2] > 0
    pose = data.array(0, "pose")
    assert pose is not None
    np.testing.assert_allclose(pose[..., :2][seen], wanted[seen], atol=1e-4)
    assert ((pose[..., 2] > 0) == seen).all()


# --- Poses that were found before


def recorded(folder: Path, name: str, film: np.ndarray, fps: float, *, size: tuple[int, int] | None = None) -> None:
    """Write where the ball is in every frame of a film, as ``kinema pose detect`` does."""
    places = np.array([[[(*(green(frame) or (0, 0)), 0.8)]] for frame in film], np.float32)
    poses = Poses(places, anonymous(1), film.shape[2], film.shape[1], fps)
    write_poses(folder / f"{name}.npz", poses.resized(*size) if size else poses)


@pytest.mark.parametrize("settings", [{}, {"fit": "letterbox"}, {"fps": 10}, {"fps": 40}, {"stabilise": "auto"}], ids=str)
def test_poses_found_before_belong_to_their_frames(tmp_path: Path, settings: dict[str, Any]) -> None:
    (tmp_path / "films").mkdir()
    for seed, name in enumerate("ab"):
        film = np.roll(ball_film(24, 192, 128), 5 * seed, axis=0)
        write_video(tmp_path / "films" / f"{name}.mp4", film, 25)
        recorded(tmp_path / "poses", name, film, 25, size=(96, 64) if seed else None)  # the second found in a smaller copy
    data, _ = cut(tmp_path / "films", pose=str(tmp_path / "poses"), duplicates=-1.0, **settings)
    assert {data.record(index).source for index in range(len(data))} == {"a.mp4", "b.mp4"}
    assert distances(data).max() < 0.35


def test_where_the_poses_end_nobody_is(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    film = ball_film(24, 96, 64)
    write_video(tmp_path / "films" / "a.mp4", film, 25)
    recorded(tmp_path / "poses", "a", film[:11], 25)
    data, info = cut(tmp_path / "films", pose=str(tmp_path / "poses"), min_pose=0.0)
    there = [(np.array(data.array(index, "pose"))[:, 0, 2] > 0).tolist() for index in range(len(data))]
    assert (info.kept, there) == (3, [[True] * 8, [True] * 4 + [False] * 4, [False] * 8])  # one frame's interval further


def test_poses_of_no_frames_are_refused_and_counted(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for name in "ab":
        write_video(tmp_path / "films" / f"{name}.mp4", ball_film(8, 96, 64), 25)
    recorded(tmp_path / "poses", "a", ball_film(8, 96, 64), 25)
    empty = Poses(np.zeros((0, 1, 1, 3), np.float32), anonymous(1), 96, 64, 25.0)
    write_poses(tmp_path / "poses" / "b.npz", empty)
    _, info = cut(tmp_path / "films", pose=str(tmp_path / "poses"), duplicates=-1.0)
    assert (info.kept, sum(info.refused.values())) == (1, 1)


def test_recorded_poses_of_a_folder_of_frames_are_counted_whatever_rate_it_is_given(tmp_path: Path) -> None:
    film = ball_film(16, 96, 64)
    (tmp_path / "films" / "a").mkdir(parents=True)
    for number, image in enumerate(film):
        write_image(tmp_path / "films" / "a" / f"{number:03d}.png", image)
    recorded(tmp_path / "poses", "a", film, 25)
    data, _ = cut(tmp_path / "films", pose=str(tmp_path / "poses"), fps=10)
    assert distances(data).max() < 0.35


def test_openpose_s_files_of_a_folder_of_frames_need_no_rate(tmp_path: Path) -> None:
    (tmp_path / "films" / "a").mkdir(parents=True)
    (tmp_path / "poses" / "a").mkdir(parents=True)
    for number, image in enumerate(ball_film(12, 96, 64)):
        write_image(tmp_path / "films" / "a" / f"{number:03d}.png", image)
        if number >= 3:  # and those that begin later are of later frames
            numbers = [float(value) for joint in range(18) for value in (10 + number, 5 + joint, 0.9)]
            text = json.dumps({"people": [{"pose_keypoints_2d": numbers}]})
            (tmp_path / "poses" / "a" / f"{number:012d}_keypoints.json").write_text(text)
    about = {"pose": str(tmp_path / "poses"), "pose_skeleton": "coco-18", "size": "96x64", "frames": 12, "min_pose": 0.0}
    data, _ = cut(tmp_path / "films", **about)
    nose = np.array(data.array(0, "pose"))[:, 0]
    assert nose[:, 2].tolist() == pytest.approx([0] * 3 + [0.9] * 9)
    assert nose[3:, 0].tolist() == pytest.approx([10 + number for number in range(3, 12)])


def test_sources_without_poses_are_refused_and_counted(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for name in "ab":
        write_video(tmp_path / "films" / f"{name}.mp4", ball_film(8, 96, 64), 25)
    recorded(tmp_path / "poses", "a", ball_film(8, 96, 64), 25)
    _, info = cut(tmp_path / "films", pose=str(tmp_path / "poses"))
    assert (info.kept, info.refused) == (1, {"no poses": 1})
    with pytest.raises(ConfigError, match=r"a\.npz holds the poses of one source; give a folder"):
        cut(tmp_path / "films", pose=str(tmp_path / "poses" / "a.npz"))


def two_people(path: Path, film: np.ndarray) -> None:
    """Write poses in which person 0 stands small in a corner, and person 1 is the ball and a point far from it."""
    places = np.full((len(film), 2, 2, 3), 0.8, np.float32)
    places[:, 0, :, :2] = (5, 5), (8, 8)
    places[:, 1, 0, :2] = [green(frame) or (0, 0) for frame in film]
    places[:, 1, 1, :2] = 95, 63
    write_poses(path, Poses(places, anonymous(2), film.shape[2], film.shape[1], 25))


@pytest.mark.parametrize(("person", "number"), [(None, 1), ("1", 1), ("0", 0), ("4,9", 0), ("largest", 1)])
def test_it_is_said_whom_of_several_people_is_taken(tmp_path: Path, person: str | None, number: int) -> None:
    film = ball_film(8, 96, 64)
    write_video(tmp_path / "film.mp4", film, 25)
    two_people(tmp_path / "poses.npz", film)
    settings = {"pose": str(tmp_path / "poses.npz"), "person": person, "size": "96x64", "pose_skeleton": "anonymous-2"}
    data, info = cut(tmp_path / "film.mp4", **settings)
    said, word = info.people["film.mp4"], person or "largest"
    assert said.startswith(f"2 people: took {number} ({word}, in 8 of 8 frames); the others are {1 - number} (8 frames);")
    assert said in (tmp_path / "data" / "report.html").read_text()
    pose = data.array(0, "pose")
    assert pose is not None
    if number:
        assert distances(data).max() < 0.35
    else:
        np.testing.assert_allclose(pose[:, :, :2], np.broadcast_to([(5, 5), (8, 8)], (8, 2, 2)), atol=1e-4)


def test_a_source_without_the_person_who_is_asked_for_is_refused_and_counted(tmp_path: Path) -> None:
    film = ball_film(8, 96, 64)
    (tmp_path / "films").mkdir()
    for name in "ab":
        write_video(tmp_path / "films" / f"{name}.mp4", film, 25)
    two_people(tmp_path / "poses" / "a.npz", film)
    write_poses(tmp_path / "poses" / "b.npz", read_poses(tmp_path / "poses" / "a.npz").person(0))
    settings = {"pose": str(tmp_path / "poses"), "person": "1", "pose_skeleton": "anonymous-2"}
    _, info = cut(tmp_path / "films", **settings)
    assert (info.kept, info.refused, list(info.people)) == (1, {"no poses": 1}, ["a.mp4"])
    assert "there is no person 1; there are 0" in (tmp_path / "data" / "refused.jsonl").read_text()
    with pytest.raises(DataError, match="there is no person 1; there are 0"):
        plan_footage([tmp_path / "films"], PrepareSettings(**settings, strict=True))


@pytest.mark.parametrize(
    ("pose", "person", "sentence"),
    [
        (None, "1", "person is '1'; it must be left out without --pose"),
        ("poses.npz", "all", "'all' is none of: largest, the number of a person"),
        ("poses.npz", "1,2,3", "'1,2,3' is none of: largest, the number of a person"),
        ("mediapipe", "1", "'1' says nothing to mediapipe, which follows one person: give LEFT,TOP,WIDTH,HEIGHT"),
    ],
)
def test_a_person_that_means_nothing_is_refused(tmp_path: Path, pose: str | None, person: str, sentence: str) -> None:
    write_video(tmp_path / "film.mp4", ball_film(8, 96, 64), 25)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        plan_footage([tmp_path / "film.mp4"], PrepareSettings(pose=pose, person=person))


def test_a_detector_looks_where_the_person_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def seen(name: str, *, still: bool = False, view: object = None, **settings: object) -> Ball:
        asked.append("anybody else" if still else view)
        return Ball()

    monkeypatch.setattr(posed, "open_detector", seen)
    posed.open_poser("mediapipe", "anonymous-1", person="8,4,40,50")
    posed.open_poser("mediapipe", "anonymous-1")
    assert asked == [(8.0, 4.0, 40.0, 50.0), None, "anybody else"]


def test_other_poses_are_another_version(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", ball_film(8, 96, 64), 25)
    versions = []
    for shift in (0, 1):
        (tmp_path / "poses.npz").unlink(missing_ok=True)
        recorded(tmp_path, "poses", np.roll(ball_film(8, 96, 64), shift, axis=2), 25)
        settings = PrepareSettings(pose=str(tmp_path / "poses.npz"), pose_skeleton="anonymous-1")
        versions.append(plan_footage([tmp_path / "film.mp4"], settings).settings["pose_version"])
    assert versions[0] != versions[1]


def test_poses_of_frames_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_video(tmp_path / "film.mp4", ball_film(8, 96, 64), 25)
    recorded(tmp_path, "poses", ball_film(8, 64, 64), 25)
    with pytest.raises(DataError, match="holds poses of 64x64 frames, and the footage is 96x64"):
        cut(tmp_path / "film.mp4", pose=str(tmp_path / "poses.npz"))


# --- With a network, as a person uses it --------------------------------------------------------------------------------------


def dots(folder: Path) -> tuple[Path, Path]:
    """A film of dots and the network that finds them."""
    return write_film(folder / "film" / "dots.mp4", 16), write_network(folder / "dots.onnx")


def test_a_network_of_ones_own_and_the_same_dataset_again(tmp_path: Path) -> None:
    footage, network = dots(tmp_path)
    settings = PrepareSettings(frames=8, size="72", stabilise="off", pose=str(network), pose_skeleton="coco-17")
    made = []
    for out in (tmp_path / "one", tmp_path / "two"):
        info = prepare([footage], out, settings)
        made.append((info.checksums, info.settings))
    assert made[0] == made[1]
    assert made[0][1]["pose_version"] is not None
    data = Dataset(tmp_path / "one")
    pose = data.array(1, "pose")
    assert pose is not None
    wanted = (points(16)[8:] + 0.5 - (18, 0)) / 2 - 0.5  # the middle 144 of 180 columns, halved
    inside = (wanted > -0.4).all(axis=-1) & (wanted < 71.4).all(axis=-1)
    assert (pose[inside][:, 2] > 0).mean() > 0.9
    distance = np.linalg.norm(pose[..., :2] - wanted, axis=-1)[(pose[..., 2] > 0) & inside]
    assert np.median(distance) < 0.8


def test_an_interrupted_preparation_becomes_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three films, three tasks; the second is interrupted. Other joints are not taken up."""
    monkeypatch.setattr("kinema.data.prepare.TASK_SECONDS", (0.0, 1e-9))
    _, network = dots(tmp_path)
    for name in "ab":
        write_film(tmp_path / "film" / f"{name}.mp4", 8)
    settings = PrepareSettings(frames=8, size="48", stabilise="off", duplicates=-1, pose=str(network))
    prepare([tmp_path / "film"], tmp_path / "whole", settings)
    original = plan.run_job

    def interrupted(job: plan.Job) -> None:
        if job.number == 1:
            raise KeyboardInterrupt
        original(job)

    with monkeypatch.context() as patch:
        patch.setattr(plan, "run_job", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare([tmp_path / "film"], tmp_path / "data", settings)
    with pytest.raises(DataError, match="was begun with pose_skeleton = 'coco-18', now it is 'coco-17'"):
        prepare([tmp_path / "film"], tmp_path / "data", replace(settings, pose_skeleton="coco-17"))
    prepare([tmp_path / "film"], tmp_path / "data", settings)
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "data" / path.relative_to(tmp_path / "whole")).read_bytes()


def test_another_model_under_the_same_name_does_not_go_on(tmp_path: Path) -> None:
    footage, network = dots(tmp_path)
    settings = PrepareSettings(frames=8, size="72", stabilise="off", pose=str(network))
    prepare([footage], tmp_path / "one", settings)
    version = Dataset(tmp_path / "one").info.settings["pose_version"]
    write_network(network, axes=False)
    with pytest.raises(ConfigError, match=rf"is of version .*, and {version} is asked for"):
        prepare([footage], tmp_path / "two", replace(settings, pose_version=version))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"pose": "openpose"}, "there is no pose detector 'openpose'; accepted: FILE.onnx, mediapipe"),
        ({"pose": "gone.onnx"}, "the pose model gone.onnx cannot be read"),
        ({"pose": "dots.onnx", "pose_skeleton": "coco18"}, "there is no skeleton 'coco18'; did you mean 'coco-18'"),
        ({"pose": "dots.onnx", "pose_skeleton": "anonymous-3"}, "no joint of skeleton anonymous-3 can be had from coco-17"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "dots.onnx")
    write_video(tmp_path / "film.mp4", ball_film(8, 64, 64), 25)
    with pytest.raises((ConfigError, DataError), match=says):
        prepare([tmp_path / "film.mp4"], tmp_path / "data", PrepareSettings(**{"frames": 8, **settings}))
    assert not (tmp_path / "data").exists()


def test_shares_are_from_0_to_1() -> None:
    with pytest.raises(ConfigError, match=r"min_pose is 1\.5; it must be from 0 to 1"):
        PrepareSettings(min_pose=1.5)


# --- Face and hands


def whole_ball(film: np.ndarray) -> np.ndarray:
    """All of 130 points where the ball is; no left hand in the first frame."""
    places = np.array([np.tile((*(green(frame) or (0, 0)), 0.8), (1, 130, 1)) for frame in film], np.float32)
    places[0, :, 88:109] = 0
    return places


@pytest.mark.parametrize("settings", [{}, {"fit": "letterbox"}, {"stabilise": "on"}], ids=str)
def test_face_and_hands_move_with_the_pixels_and_are_counted(tmp_path: Path, settings: dict[str, Any]) -> None:
    film = ball_film(8, 192, 128)
    write_video(tmp_path / "film.mp4", film, 25)
    skeleton = find_skeleton("coco-18+face+hands")
    write_poses(tmp_path / "film.npz", Poses(whole_ball(film), skeleton, 192, 128, 25))
    data, info = cut(tmp_path / "film.mp4", pose=str(tmp_path / "film.npz"), pose_skeleton=skeleton.name, **settings)
    assert info.skeleton == "coco-18+face+hands"
    pose = np.asarray(data.array(0, "pose"))
    assert pose.shape == (8, 130, 3)
    for frame, found in zip(data.video(0), pose, strict=True):
        there = found[found[:, 2] > 0, :2]
        np.testing.assert_allclose(there, np.broadcast_to(green(frame) or (0, 0), there.shape), atol=0.35)
    assert (pose[0, 88:109] == 0).all()
    extra = data.record(0).extra
    assert {name: extra[name] for name in ("face", "left hand", "right hand")} == {
        **{"face": 1.0, "left hand": 0.875, "right hand": 1.0}
    }


def test_poses_without_hands_are_refused_where_hands_are_wanted(tmp_path: Path) -> None:
    film = ball_film(8, 192, 128)
    write_video(tmp_path / "film.mp4", film, 25)
    write_poses(tmp_path / "film.npz", Poses(whole_ball(film)[:, :, :18], COCO_18, 192, 128, 25))
    with pytest.raises(
        DataError, match=r"film.npz holds no hands; find them with kinema pose detect --skeleton coco-18\+hands"
    ):
        cut(tmp_path / "film.mp4", pose=str(tmp_path / "film.npz"), pose_skeleton="coco-18+hands")


def test_a_dataset_of_bodies_is_what_it_was(tmp_path: Path) -> None:
    """The same joints, of poses with face and hands and of those without, under the old name of the layout."""
    film = ball_film(8, 192, 128)
    found = []
    for name, given, layout in (
        ("old", whole_ball(film)[:, :, :18], "coco-18"),
        ("new", whole_ball(film), "coco-18+face+hands"),
    ):
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "film.mp4", film, 25)
        write_poses(tmp_path / name / "film.npz", Poses(given, find_skeleton(layout), 192, 128, 25))
        footage = tmp_path / name / "film.mp4"
        data, info = cut(footage, pose=str(tmp_path / name / "film.npz"), pose_skeleton="coco-18")
        assert (info.skeleton, set(data.record(0).extra)) == ("coco-18", {"motion", "pose"})
        found.append(np.asarray(data.array(0, "pose")))
    assert found[0].shape == (8, 18, 3)
    np.testing.assert_array_equal(*found)
