"""kinema transfer, as a person types it: a drawn dancer moves an untrained tiny dance system."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.cli.driving import source_frames
from kinema.cli.mosaic import Mosaic
from kinema.cli.trained import Trained
from kinema.core.types import Batch
from kinema.data.encode import write_image, write_video
from kinema.data.film import film
from kinema.data.media import probe, read_video
from kinema.data.motions import sample_motion
from kinema.data.performers import Film, Placement, render, sample_identity, sample_stage
from kinema.pose.driving import as_prepared
from kinema.pose.files import read_poses, write_poses
from kinema.pose.found_by import RECORDED, FoundBy
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_17, COCO_18, PENN_13, find_skeleton
from kinema.systems.dance import Dance
from kinema.systems.vgan import VGAN
from kinema.training.checkpoint import provenance, save_checkpoint
from sound import heard, write_sounding

FRAMES, FPS, SIZE = 24, 25, 64


def performance(seed: int, frames: int = FRAMES, action: str = "dance", *, depth: float = 6.5) -> Film:
    rng = np.random.default_rng(seed)
    identity, stage = sample_identity("somebody", rng), sample_stage(np.random.default_rng(5))
    return render(sample_motion(action, frames, FPS, rng, 0.3), identity, stage, Placement(0, depth), size=SIZE)


def walking_in(frames: int = FRAMES) -> Film:
    """Somebody who dances from the back of the stage to its front."""
    films = [performance(3, frames, depth=depth) for depth in np.linspace(8, 6, frames)]
    return replace(
        films[0],
        video=np.stack([one.video[frame] for frame, one in enumerate(films)]),
        pose=np.stack([one.pose[frame] for frame, one in enumerate(films)]),
    )


def poses(points: np.ndarray, fps: float = FPS) -> Poses:
    """Poses of one person, or of several stacked in the second axis."""
    points = points[:, None] if points.ndim == 3 else points
    return Poses(points.astype(np.float32), COCO_18, SIZE, SIZE, fps)


def save_run(
    folder: Path,
    seed: int,
    skeleton: str = "coco-18",
    right: float = 0.0,
    fit: str = "crop",
    lacking: tuple[str, ...] = (),
    found_by: FoundBy | None = None,
) -> Path:
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    system = Dance(replace(Dance.presets["tiny"].config, skeleton=skeleton))
    with torch.no_grad():
        for weight in system.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    person = poses(walking_in(12).pose).resized(32, 32).cropped(-right, 0, 32, 32).converted(find_skeleton(skeleton)).filled()
    person[:, [COCO_18.index(joint) for joint in lacking], 2] = 0
    with torch.no_grad():
        system.fit_statistics([Batch(torch.zeros(1, 3, 12, 32, 32), pose=torch.from_numpy(person[None]))])
    about = {"fps": FPS, "fit": fit} | ({RECORDED: asdict(found_by)} if found_by else {})
    save_checkpoint(folder / "checkpoint.safetensors", system, stage="test", dataset=about, provenance=provenance())
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two targets, a dancer's video with sound, and that dancer's poses."""
    folder = tmp_path_factory.mktemp("place")
    for number, name in enumerate(("anna", "bert")):
        save_run(folder / name, number)
    dancer = walking_in()
    write_sounding(folder / "sound.mkv", FRAMES, FPS, tone_from=0.6)
    with film(folder / "dancer.mp4", SIZE, SIZE, FPS, sound=folder / "sound.mkv") as made:
        for image in dancer.video:
            made.add(image)
    write_poses(folder / "dancer.npz", poses(dancer.pose))
    return folder


def run(*words: object) -> int:
    return main(["transfer", *(str(word) for word in words)])


def usual(place: Path, out: Path, *words: object) -> tuple[object, ...]:
    return ("--source", place / "dancer.mp4", "--poses", place / "dancer.npz", "--target", place / "anna", "--out", out, *words)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_rate_length_sound_and_origin_are_kept(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*usual(place, tmp_path / "out.mp4")) == 0
    found = probe(tmp_path / "out.mp4")
    assert (found.width, found.height, found.fps, found.frames) == (32, 32, 25, FRAMES)
    onset, end = heard(tmp_path / "out.mp4")
    assert onset == pytest.approx(0.6, abs=0.05)
    assert end == pytest.approx(FRAMES / FPS, abs=0.06)
    said = capsys.readouterr().out
    assert "sound copied (aac)" in said
    assert "frames per second" in said
    assert found.metadata["comment"].startswith("generated by kinema ")
    known = json.loads(found.metadata["kinema"])
    assert known["synthetic"] is True
    assert known["source"] == "dancer.mp4"
    assert known["runs"][0]["checkpoint sha256"] == Trained(str(place / "anna"), "transfer").sha256
    assert known["runs"][0]["normaliser"]["mode"] == "depth"


def test_info_shows_that_a_file_is_synthetic(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(*usual(place, tmp_path / "out.webm"))
    capsys.readouterr()
    assert main(["info", str(tmp_path / "out.webm")]) == 0
    assert "synthetic yes" in capsys.readouterr().out
    assert main(["info", "--json", str(tmp_path / "out.webm")]) == 0
    assert json.loads(capsys.readouterr().out)["generated"]["synthetic"] is True


def test_chunks_change_nothing(place: Path) -> None:
    trained = Trained(str(place / "anna"), "transfer", "cpu")
    driving = poses(walking_in().pose).resized(32, 32).filled()
    whole = list(trained.perform(driving, FRAMES))
    np.testing.assert_allclose(whole, list(trained.perform(driving, 5)), atol=1)  # strides decide about the last digit
    again = np.array(list(trained.perform(driving, 16, restart=8)))
    np.testing.assert_allclose(again[:8], whole[:8], atol=1)
    np.testing.assert_allclose(again[8:16], list(trained.perform(driving[8:16], 8)), atol=1)
    assert np.abs(again[8:].astype(int) - whole[8:]).max() > 8  # the frame before matters


def test_a_part_is_the_part_of_the_whole(place: Path, tmp_path: Path) -> None:
    run(*usual(place, tmp_path / "part.mp4", "--first-frame", 10, "--frames", 12))
    run(*usual(place, tmp_path / "whole.mp4", "--restart", 10))
    part, whole = read_video(tmp_path / "part.mp4")[0], read_video(tmp_path / "whole.mp4")[0]
    assert len(part) == 12
    assert np.abs(part[:10].astype(int) - whole[10:20]).mean() < 4  # of lossy files
    onset, _ = heard(tmp_path / "part.mp4")
    assert onset == pytest.approx(0.6 - 10 / FPS, abs=0.06)


def test_side_by_side_shows_source_skeleton_and_result(place: Path, tmp_path: Path) -> None:
    assert run(*usual(place, tmp_path / "out.mp4", "--view", "side-by-side")) == 0
    video, _ = read_video(tmp_path / "out.mp4")
    assert video.shape == (FRAMES, 256, 3 * 256 + 2 * 4, 3)
    source = walking_in().video[10].repeat(4, axis=0).repeat(4, axis=1)
    assert np.abs(video[10, :, :256].astype(int) - source).mean() < 12
    corner = video[10, 2:20, 262:280]
    assert corner.mean() > 245  # the skeleton is on white


def test_targets_perform_together_in_one_grid(place: Path, tmp_path: Path) -> None:
    words = ("--target", place / "anna", place / "bert", "--view", "grid")
    assert run("--source", place / "dancer.mp4", "--poses", place / "dancer.npz", *words, "--out", tmp_path / "grid.mp4") == 0
    video, fps = read_video(tmp_path / "grid.mp4")
    assert (len(video), fps) == (FRAMES, 25)
    assert video.shape[1:3] == (2 * 256 + 4, 2 * 256 + 4)
    run(*usual(place, tmp_path / "anna.mp4"))
    alone = read_video(tmp_path / "anna.mp4")[0].repeat(8, axis=1).repeat(8, axis=2)
    for frame in (0, 15, FRAMES - 1):  # the same frame of the same target
        assert np.abs(video[frame, 260:, :256].astype(int) - alone[frame]).mean() < 6
    assert np.abs(video[:, 260:, :256].astype(int) - video[:, 260:, 260:]).mean() > 10
    known = json.loads(probe(tmp_path / "grid.mp4").metadata["kinema"])
    assert [target["name"] for target in known["runs"]] == ["anna", "bert"]


def test_poses_alone_drive_without_a_source(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--poses", place / "dancer.npz", "--target", place / "anna", "--view", "side-by-side")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert read_video(tmp_path / "out.mp4")[0].shape == (FRAMES, 256, 2 * 256 + 4, 3)
    assert "no sound" in capsys.readouterr().out


def test_missing_sound_is_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "silent.mp4", walking_in().video, FPS)
    words = ("--source", tmp_path / "silent.mp4", "--poses", place / "dancer.npz", "--target", place / "anna")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert "the source has no sound" in capsys.readouterr().out


def test_an_exact_rate_stays_exact(place: Path, tmp_path: Path) -> None:
    rate = Fraction(30_000, 1001)
    with film(tmp_path / "ntsc.mp4", SIZE, SIZE, rate) as made:
        for image in walking_in().video:
            made.add(image)
    words = ("--source", tmp_path / "ntsc.mp4", "--poses", place / "dancer.npz", "--target", place / "anna")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert probe(tmp_path / "out.mp4").fps == rate


def test_frames_without_a_person_are_counted_and_the_last_pose_is_held(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = walking_in().pose.copy()
    points[:2, :, 2] = 0
    points[10:20, :, 2] = 0
    write_poses(tmp_path / "gaps.npz", poses(points))
    words = ("--poses", tmp_path / "gaps.npz", "--target", place / "anna", "--restart", 1)
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert "nobody is in 12 frames (0-1, 10-19): gaps of up to 5 frames" in capsys.readouterr().out
    video = read_video(tmp_path / "out.mp4")[0].astype(int)
    assert np.abs(video[15] - video[18]).mean() < 2  # held


def test_frames_with_the_person_upside_down_count_as_without(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = walking_in().pose.copy()
    points[5:8, :, 1] = SIZE - points[5:8, :, 1]
    write_poses(tmp_path / "turned.npz", poses(points))
    words = ("--poses", tmp_path / "turned.npz", "--target", place / "anna")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    printed = capsys.readouterr().out
    assert "in 3 frames (5-7) the detector had turned the person upside down" in printed
    assert "nobody is in 3 frames (5-7)" in printed
    cleaned = tmp_path / "cleaned.npz"
    assert main(["pose", "convert", str(tmp_path / "turned.npz"), "--out", str(cleaned), "--outliers"]) == 0
    assert np.flatnonzero(~read_poses(cleaned).present.any(axis=(1, 2))).tolist() == [5, 6, 7]


@pytest.mark.parametrize("person", ["0", "1", "largest"])
def test_of_several_people_one_is_taken_and_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], person: str
) -> None:
    large = walking_in().pose
    small = large.copy()
    small[..., :2] = small[..., :2] / 3 + 40
    write_poses(tmp_path / "two.npz", poses(np.stack([small, large], axis=1)))
    words = ("--poses", tmp_path / "two.npz", "--target", place / "anna", "--person", person, "--frames", 2)
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    taken = "1" if person == "largest" else person
    assert f"2 people: took {taken} ({person}" in capsys.readouterr().out


def test_the_file_says_of_runs_of_one_name_how_the_poses_came_to_each(place: Path, tmp_path: Path) -> None:
    other = save_run(tmp_path / "other" / "anna", 1, right=4.0)
    assert run(*usual(place, tmp_path / "out.mp4", "--target", place / "anna", other, "--frames", 2)) == 0
    one, two = json.loads(probe(tmp_path / "out.mp4").metadata["kinema"])["runs"]
    assert one["name"] == two["name"] == "anna"
    middles = [run["normaliser"]["rule"]["target_middle"] for run in (one, two)]
    assert middles[1] - middles[0] == pytest.approx(4, abs=1e-3)


def test_a_still_dancer_falls_back_to_another_normaliser(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_poses(tmp_path / "still.npz", poses(np.repeat(walking_in().pose[:1], 10, axis=0)))
    assert run("--poses", tmp_path / "still.npz", "--target", place / "anna", "--out", tmp_path / "out.mp4") == 0
    assert "does not move towards or away from the camera: normaliser affine" in capsys.readouterr().out


def test_who_leaves_the_target_s_picture_is_said_and_can_be_kept_in_view(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    away = walking_in().pose
    away[..., 0] += np.linspace(-40, 40, FRAMES)[:, None]
    write_poses(tmp_path / "away.npz", poses(away))
    words = ("--poses", tmp_path / "away.npz", "--target", place / "anna")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    said = capsys.readouterr().out
    assert "of 24 frames head, trunk or legs lie beyond the sides of a picture of 32 pixels: --keep-in-view goes less" in said
    assert run(*words, "--keep-in-view", "--view", "side-by-side", "--out", tmp_path / "kept.mp4") == 0
    said = capsys.readouterr().out
    way = json.loads(probe(tmp_path / "kept.mp4").metadata["kinema"])["runs"][0]["normaliser"]["sideways"]
    assert f"{way['share']:.0%} of the source's way to the sides, to stay in view" in said
    assert 0 < way["share"] < 1
    assert "--keep-in-view" not in said
    assert run(*usual(place, tmp_path / "whole.mp4")) == 0
    assert "sides" not in capsys.readouterr().out


def test_as_is_takes_the_source_s_frame(place: Path, tmp_path: Path) -> None:
    assert run(*usual(place, tmp_path / "out.mp4", "--as-is", "--view", "side-by-side", "--restart", 1)) == 0
    trained = Trained(str(place / "anna"), "transfer", "cpu")
    made = list(trained.perform(poses(walking_in().pose).resized(32, 32).filled(), 1, 1))
    video = read_video(tmp_path / "out.mp4")[0]
    assert np.abs(video[9, :, 520:].astype(int) - made[9].repeat(8, axis=0).repeat(8, axis=1)).mean() < 6
    assert json.loads(probe(tmp_path / "out.mp4").metadata["kinema"])["runs"][0]["normaliser"] == "as prepared"


def test_as_is_letterboxes_where_the_target_s_clips_were_letterboxed(place: Path, tmp_path: Path) -> None:
    target, wide = save_run(tmp_path / "wide", 0, fit="letterbox"), poses(walking_in().pose).cropped(-32, 0, 128, 64)
    write_poses(tmp_path / "wide.npz", wide)
    words = ("--poses", tmp_path / "wide.npz", "--target", target, "--as-is", "--restart", 1)
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    video, trained = read_video(tmp_path / "out.mp4")[0], Trained(str(target), "transfer", "cpu")
    boxed, cut = (list(trained.perform(as_prepared(wide, 32, 32, fit).filled(), 1, 1)) for fit in ("letterbox", "crop"))
    near, far = (np.abs(video[9].astype(int) - made[9]).mean() for made in (boxed, cut))
    assert near < 0.5 * far


def test_a_still_image_is_one_frame(place: Path, tmp_path: Path) -> None:
    dancer = walking_in(1)
    write_image(tmp_path / "still.png", dancer.video[0])
    write_poses(tmp_path / "still.npz", poses(dancer.pose))
    words = ("--source", tmp_path / "still.png", "--poses", tmp_path / "still.npz", "--target", place / "anna", "--as-is")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert len(read_video(tmp_path / "out.mp4")[0]) == 1


class KnowsThePoses:
    """A detector that finds a given pose in every frame and counts the frames."""

    name, version, skeleton = "known", "1", COCO_18

    def __init__(self, found: np.ndarray) -> None:
        self.found, self.seen = found, 0

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        for frame in frames:
            assert frame.shape == (SIZE, SIZE, 3)
            self.seen += 1
            yield self.found[self.seen - 1].reshape(-1, 18, 3)


def nobody() -> KnowsThePoses:
    return KnowsThePoses(np.zeros((9, 18, 3), np.float32))


def test_of_several_people_whom_a_detector_finds_one_is_taken(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    large = walking_in().pose
    small = large.copy()
    small[..., :2] = small[..., :2] / 3 + 40
    asked: list[int] = []

    def opening(name: str, *, still: bool = False, people: int = 1, parts: tuple[str, ...] = ()) -> KnowsThePoses:
        asked.extend([] if still else [people])
        return nobody() if still else KnowsThePoses(np.stack([small, large], axis=1))

    monkeypatch.setattr("kinema.pose.detect.open_detector", opening)
    words = ("--source", place / "dancer.mp4", "--target", place / "anna", "--people", 2, "--person", 0, "--frames", 6)
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert asked == [2]
    assert "2 people: took 0 (0, in 6 of 6 frames); the others are 1 (6 frames)" in capsys.readouterr().out


def test_somebody_else_in_the_picture_is_said_with_how_to_choose(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other one comes in late; what looks for them is asked once at the start and once after 25 frames."""
    film_of_30 = walking_in(30)
    write_video(tmp_path / "long.mp4", film_of_30.video, FPS)
    other = np.zeros((2, 18, 3), np.float32)
    other[1] = film_of_30.pose[0]

    def opening(name: str, *, still: bool = False, people: int = 1, parts: tuple[str, ...] = ()) -> KnowsThePoses:
        return KnowsThePoses(other if still else film_of_30.pose)

    monkeypatch.setattr("kinema.pose.detect.open_detector", opening)
    monkeypatch.setattr("kinema.pose.detect.painted_over", lambda image, person: image)
    words = ("--source", tmp_path / "long.mp4", "--target", place / "anna", "--out", tmp_path / "out.mp4")
    assert run(*words) == 0
    said = capsys.readouterr().out
    assert "somebody else is in 1 of 2 frames looked at (first: frame 25); who is most prominent was taken" in said
    assert "--people 2 finds more" in said


def test_without_poses_a_detector_looks_at_the_frames_that_are_performed(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = KnowsThePoses(walking_in().pose)
    monkeypatch.setattr(
        "kinema.pose.detect.open_detector", lambda name, still=False, people=1, parts=(): nobody() if still else detector
    )
    words = ("--source", place / "dancer.mp4", "--target", place / "anna", "--detector", "known")
    assert run(*words, "--out", tmp_path / "all.mp4") == 0
    assert detector.seen == FRAMES
    run(*usual(place, tmp_path / "poses.mp4"))
    apart = read_video(tmp_path / "all.mp4")[0].astype(int) - read_video(tmp_path / "poses.mp4")[0]
    assert np.abs(apart).mean() < 1
    detector.seen = 0
    assert run(*words, "--out", tmp_path / "part.mp4", "--first-frame", 4, "--frames", 5) == 0
    assert detector.seen == 5


@pytest.mark.parametrize(
    ("target", "source", "advice"),
    [
        (
            FoundBy("dots.onnx", "ab" * 32),
            FoundBy("mediapipe", "0.10+2"),
            "find them with kinema pose detect --detector dots.onnx",
        ),
        (FoundBy("mediapipe", "0.10+1"), FoundBy("mediapipe", "0.10+2"), "have both found by one version"),
        (FoundBy("mediapipe", "0.10+2"), FoundBy("mediapipe", "0.10+2"), None),
        (FoundBy("mediapipe", "0.10+2"), None, None),
        (None, FoundBy("mediapipe", "0.10+2"), None),
    ],
)
def test_poses_of_another_detector_than_the_target_s_are_said(
    place: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    target: FoundBy | None,
    source: FoundBy | None,
    advice: str | None,
) -> None:
    """Silent where both are of one detector, or one is not known."""
    settings = {"detector": source.name, "detector_version": source.version} if source else {}
    write_poses(tmp_path / "found.npz", replace(poses(walking_in().pose), extra={"settings": settings}))
    words = ("--poses", tmp_path / "found.npz", "--target", save_run(tmp_path / "cleo", 0, found_by=target), "--frames", 2)
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    said = capsys.readouterr().out
    if advice is None:
        assert "learnt from" not in said
    else:
        assert f"{source} found the source's poses and {target} those that cleo learnt from: each puts joints" in said
        assert advice in said


def test_a_detector_that_looks_now_is_compared_with_the_target_s(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "kinema.pose.detect.open_detector",
        lambda name, still=False, people=1, parts=(): nobody() if still else KnowsThePoses(walking_in().pose),
    )
    for name, version in (("mediapipe", "0.10+2"), ("known", "1")):
        target = save_run(tmp_path / name, 0, found_by=FoundBy(name, version))
        words = ("--source", place / "dancer.mp4", "--target", target, "--detector", "known", "--frames", 4)
        assert run(*words, "--out", tmp_path / f"{name}.mp4") == 0
        said = capsys.readouterr().out
        assert ("known 1 found the source's poses and mediapipe 0.10+2 those" in said) == (name == "mediapipe")
        assert ("which may show; give --detector mediapipe" in said) == (name == "mediapipe")


@pytest.mark.parametrize(
    ("view", "corners"),
    [
        ("result", [(256, 256), (256, 516)]),
        ("side-by-side", [(256, 776), (516, 776)]),
        ("grid", [(516, 256), (516, 516)]),
    ],
)
def test_a_mark_is_in_a_corner_of_every_result_and_nowhere_else(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str, corners: list[tuple[int, int]]
) -> None:
    """Both targets have 32 pixels, which are shown as 256, with 4 between them; corners are their lower right ones."""
    frames, lay = [], Mosaic.lay
    monkeypatch.setattr(Mosaic, "lay", lambda self, rows: frames.append(lay(self, rows)) or frames[-1])
    words = ("--source", place / "dancer.mp4", "--poses", place / "dancer.npz", "--frames", 2, "--view", view)
    targets = ("--target", place / "anna", place / "bert", "--out", tmp_path / "out.mp4", "--overwrite")
    assert run(*words, *targets) == run(*words, *targets, "--mark") == 0
    for plain, marked in zip(frames[:2], frames[2:], strict=True):
        changed = (plain != marked).any(axis=2)
        for bottom, right in corners:
            label = changed[bottom - 20 : bottom, right - 75 : right]
            assert label.mean() > 0.5
            assert marked[bottom - 20 : bottom, right - 75 : right].max() > 200
            label[:] = False
        assert not changed.any()


@pytest.mark.parametrize(("side", "share"), [(8, 0.5), (32, 0.3), (64, 0.2), (512, 0.02)])
def test_a_mark_fits_into_any_picture_and_leaves_it_as_it_was(side: int, share: float) -> None:
    picture = np.full((side, side, 3), 90, np.uint8)
    marked = Mosaic([[(side, side)]], tall=side, enlarge=False, marked=[[True]]).lay([[picture]])
    assert (marked[-1, -1] == 0).all()
    assert 0 < (marked != 90).any(axis=2).mean() < share
    assert (picture == 90).all()


# --- What is refused, each with one sentence ----------------------------------------------------------------------------------


def test_a_picture_a_pixel_wider_than_its_cell_is_cut() -> None:
    """Two roundings of one width; seen to fail with a source of 742x896 beside a target of 96 pixels."""
    cells = [[(742, 896), (96, 96)]]
    mosaic = Mosaic(cells, tall=96, enlarge=True)
    source = np.full((mosaic.tall, round(742 * (mosaic.tall / 896)) + 1, 3), 7, np.uint8)
    laid = mosaic.lay([[source, np.zeros((96, 96, 3), np.uint8)]])
    assert (laid[:, : round(742 * mosaic.tall / 896)] == 7).all()


def test_the_source_is_never_replaced(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "dancer.mp4"
    copy.write_bytes((place / "dancer.mp4").read_bytes())
    words = (
        "--source",
        copy,
        "--poses",
        place / "dancer.npz",
        "--target",
        place / "anna",
        "--overwrite",
        "--frames",
        2,
        "--out",
    )
    assert "is what the result is made of; give another --out" in refused(capsys, *words, copy)
    assert copy.read_bytes() == (place / "dancer.mp4").read_bytes()
    (tmp_path / "folder.mp4").mkdir()
    assert "folder.mp4 is a folder; --out is a file that ends in" in refused(capsys, *words, tmp_path / "folder.mp4")
    assert "cannot be made" in refused(capsys, *words, copy / "out.mp4")


def test_poses_of_a_film_of_a_variable_rate_are_of_its_frames(place: Path, tmp_path: Path) -> None:
    """Its container counts 24 pictures; at its nominal rate they fill more frames, as kinema pose detect counts them."""
    with film(tmp_path / "phone.mp4", SIZE, SIZE, FPS) as made:
        for number, image in enumerate(walking_in().video):
            made.add(image, Fraction(number, FPS) if number < 12 else Fraction(12, FPS) + Fraction(number - 12, 15))
    info = probe(tmp_path / "phone.mp4")
    shown = sum(1 for _ in source_frames(info, 0, None))
    assert shown > FRAMES + 4
    write_poses(tmp_path / "phone.npz", poses(walking_in(shown).pose))
    words = ("--source", tmp_path / "phone.mp4", "--poses", tmp_path / "phone.npz", "--target", place / "anna")
    assert run(*words, "--out", tmp_path / "out.mp4") == 0
    assert probe(tmp_path / "out.mp4").frames == shown


def test_who_leaves_the_part_of_the_frame_that_is_prepared_is_counted(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    points = walking_in().pose.copy()
    points[10:, ..., 0] += 500
    write_poses(tmp_path / "left.npz", Poses(points[:, None].astype(np.float32), COCO_18, 600, SIZE, FPS))
    points[..., 0] += 500
    write_poses(tmp_path / "out.npz", Poses(points[:, None].astype(np.float32), COCO_18, 600, SIZE, FPS))
    words = ("--target", place / "anna", "--as-is", "--out", tmp_path / "out.mp4", "--overwrite", "--poses")
    shifted = replace(read_poses(tmp_path / "left.npz").cropped(-268, 0, 600, SIZE))
    write_poses(tmp_path / "left.npz", shifted, overwrite=True)
    assert run(*words, tmp_path / "left.npz", "--first-frame", 4) == 0
    assert "of 20 frames nobody is in 14 frames (10-23)" in capsys.readouterr().out  # as the source counts them
    assert "no person is inside of the target's picture in any of the 24 frames" in refused(
        capsys, *words, tmp_path / "out.npz"
    )


def test_runs_are_called_by_their_folders(tmp_path: Path) -> None:
    folder = save_run(tmp_path / "ada.v2", 0)
    assert Trained(str(folder), "transfer").name == "ada.v2"
    assert Trained(str(folder / "checkpoint.safetensors"), "transfer").name == "ada.v2"
    (folder / "checkpoint.safetensors").rename(tmp_path / "best.safetensors")
    assert Trained(str(tmp_path / "best.safetensors"), "transfer").name == "best"


def test_nobody(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_poses(tmp_path / "empty.npz", poses(np.zeros((5, 18, 3))))
    said = refused(capsys, "--poses", tmp_path / "empty.npz", "--target", place / "anna", "--out", tmp_path / "out.mp4")
    assert "no person is in any of the 5 frames" in said
    assert not (tmp_path / "out.mp4").exists()


def test_no_feet_in_view(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = walking_in().pose.copy()
    points[:, [COCO_18.index("RAnkle"), COCO_18.index("LAnkle")], 2] = 0
    write_poses(tmp_path / "bust.npz", poses(points))
    words = ("--poses", tmp_path / "bust.npz", "--target", place / "anna", "--out", tmp_path / "out.mp4")
    assert "no frame of the source shows a head and both feet" in refused(capsys, *words)
    assert run(*words, "--normalise", "relative") == 0


def test_a_target_without_feet_is_refused_before_anybody_is_looked_for(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(*words: object) -> None:
        raise AssertionError("somebody was looked for")

    save_run(tmp_path / "bust", 0, lacking=("RAnkle", "LAnkle"))
    monkeypatch.setattr("kinema.pose.detect.open_detector", looked)
    words = ("--source", place / "dancer.mp4", "--target", tmp_path / "bust", "--out", tmp_path / "out.mp4")
    assert "no frame of the target shows a head and both feet" in refused(capsys, *words)


def test_another_skeleton(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = poses(walking_in().pose)
    write_poses(tmp_path / "penn.npz", whole.converted(PENN_13, rough=True))
    words = ("--target", place / "anna", "--out", tmp_path / "out.mp4")
    said = refused(capsys, "--poses", tmp_path / "penn.npz", *words)
    assert "poses of skeleton penn-13 have no Nose" in said
    write_poses(tmp_path / "coco17.npz", whole.converted(COCO_17))
    assert run("--poses", tmp_path / "coco17.npz", *words) == 0
    said = refused(capsys, "--poses", tmp_path / "coco17.npz", *words, "--overwrite", "--skeleton", "body-25")
    assert "anna was trained on poses of skeleton coco-18, not body-25" in said


def test_another_style_of_drawing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "drawn in another style (background" in refused(capsys, *usual(place, tmp_path / "o.mp4", "--style", "openpose"))
    assert "no style 'edm'; did you mean 'edn'?" in refused(capsys, *usual(place, tmp_path / "o.mp4", "--style", "edm"))
    assert run(*usual(place, tmp_path / "o.mp4", "--style", "edn", "--frames", 1)) == 0


def test_poses_of_another_film(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_poses(tmp_path / "short.npz", poses(walking_in().pose[:12]))
    words = ("--source", place / "dancer.mp4", "--target", place / "anna", "--out", tmp_path / "out.mp4")
    said = refused(capsys, *words, "--poses", tmp_path / "short.npz")
    assert f"holds 12 frames of poses and {place / 'dancer.mp4'} has {FRAMES}" in said
    write_poses(tmp_path / "wide.npz", replace(poses(walking_in().pose), width=100))
    assert "poses of frames of 100x64" in refused(capsys, *words, "--poses", tmp_path / "wide.npz")


def test_json_that_is_not_openpose_s(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "a_000_keypoints.json").write_text('{"persons": []}')
    said = refused(
        capsys, *usual(place, tmp_path / "out.mp4")[:2], "--poses", tmp_path / "json", *usual(place, tmp_path / "o.mp4")[4:]
    )
    assert "is JSON, but not OpenPose's" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--first-frame", 24), "has no frame 24; its last is 23"),
        (("--frames", 0), "frames is 0; it must be at least 1"),
        (("--window", 4), "window is 4; it must be odd"),
        (("--person", "all"), "person is 'all'; it must be one person"),
        (("--person", "7"), "there is no person 7"),
        (("--as-is", "--normalise", "affine"), "--as-is takes poses unnormalised"),
        (("--as-is", "--keep-in-view"), "--as-is leaves everybody where they are"),
        (("--as-is", "--smooth", "savgol"), "--as-is takes poses as they are; leave out --as-is, or --smooth and --window"),
        (("--people", 2), "--poses are found already; leave out --poses, or --detector and --people"),
    ],
)
def test_wrong_options(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[object, ...], sentence: str
) -> None:
    assert sentence in refused(capsys, *usual(place, tmp_path / "out.mp4", *words))


def test_wrong_files(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--target", place / "anna", "--out")
    assert "transfer wants --source" in refused(capsys, *words, tmp_path / "o.mp4")
    assert "does not exist" in refused(capsys, "--source", tmp_path / "none.mp4", *words, tmp_path / "o.mp4")
    (tmp_path / "empty.mp4").touch()
    assert "is empty (0 bytes)" in refused(capsys, "--source", tmp_path / "empty.mp4", *words, tmp_path / "o.mp4")
    assert "ends in '.gif'" in refused(capsys, *usual(place, tmp_path / "o.gif"))
    (tmp_path / "o.mp4").touch()
    assert "exists; give another --out" in refused(capsys, *usual(place, tmp_path / "o.mp4"))


def test_targets_that_cannot(tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--poses", place / "dancer.npz", "--out", tmp_path / "o.mp4", "--target")
    save_checkpoint(tmp_path / "vgan.safetensors", VGAN(VGAN.presets["tiny"].config), stage="test")
    assert "vgan cannot transfer motion; systems that can: dance" in refused(capsys, *words, tmp_path / "vgan.safetensors")
    save_checkpoint(tmp_path / "new.safetensors", Dance(Dance.presets["tiny"].config), stage="test")
    assert "has not yet seen its target" in refused(capsys, *words, tmp_path / "new.safetensors")
    assert run(*words, tmp_path / "new.safetensors", "--as-is") == 0


# --- Face and hands -----------------------------------------------------------------------------------------------------------


def test_a_target_that_knows_hands_is_shown_them_or_it_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_run(tmp_path / "cleo", 0, skeleton="coco-18+hands")
    body = poses(walking_in().pose)
    wrists = [[COCO_18.index(f"{side}Wrist")] * 21 for side in "LR"]
    hands = body.points[:, :, wrists] + np.array([0, 0.3, 0], np.float32) * np.arange(21)[:, None]
    write_poses(tmp_path / "hands.npz", replace(body, hands=hands.astype(np.float32)))
    made = {}
    for name, file in (("with", tmp_path / "hands.npz"), ("without", place / "dancer.npz")):
        words = (
            "--source",
            place / "dancer.mp4",
            "--poses",
            file,
            "--target",
            tmp_path / "cleo",
            "--out",
            tmp_path / f"{name}.mp4",
        )
        assert run(*words) == 0
        said = capsys.readouterr().out
        assert ("dancer.npz has no hands, with which cleo was trained: drawn without; kinema pose detect" in said) == (
            name == "without"
        )
        made[name] = read_video(tmp_path / f"{name}.mp4")[0].astype(int)
    assert np.abs(made["with"] - made["without"]).max() > 8
    asked: list[tuple[str, ...]] = []

    def opening(name: str, *, still: bool = False, people: int = 1, parts: tuple[str, ...] = ()) -> KnowsThePoses:
        asked.extend([] if still else [parts])
        return nobody() if still else KnowsThePoses(walking_in().pose)

    monkeypatch.setattr("kinema.pose.detect.open_detector", opening)
    words = ("--source", place / "dancer.mp4", "--frames", 3, "--overwrite", "--out", tmp_path / "with.mp4")
    for target, detector in (("cleo", "mediapipe"), ("cleo", "net.onnx"), (place / "anna", "mediapipe")):
        assert run(*words, "--target", tmp_path / target, "--detector", detector) == 0
    assert asked == [("hands",), (), ()]
    assert "net.onnx has no hands, with which cleo was trained" in capsys.readouterr().out
