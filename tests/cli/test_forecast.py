"""predict and evaluate --forecast, as a person types them, on an untrained tiny system and forked performers."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from forked_dataset import FORKED, write_forked_dataset
from kinema.cli import main
from kinema.data.dataset import Dataset
from kinema.data.encode import write_video
from kinema.data.media import read_video
from kinema.pose.files import read_poses, write_poses
from kinema.pose.found_by import RECORDED
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import COCO_17, COCO_18
from kinema.systems import SYSTEMS
from kinema.systems.pose_knows import PoseKnows
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import write_dataset


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained systems that forecast (one has not learnt to render), one that does not, and forked performers."""
    folder = tmp_path_factory.mktemp("place")
    for name, system_name, stage in (
        ("run", "pose-knows", "video"),
        ("poses-only", "pose-knows", "pose"),
        ("vgan", "vgan", "gan"),
    ):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS[system_name](SYSTEMS[system_name].presets["tiny"].config)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, system, stage=stage, dataset={"fps": 8.0}, provenance=provenance())
    write_forked_dataset(folder / "data")
    write_dataset(folder / "posed-by-nobody", 20, per_shard=20, shape=(9, 16, 16))
    return folder


def clip_and_poses(place: Path, folder: Path, people: int = 1, frames: int = 9) -> tuple[Path, Path]:
    """Write a clip of the dataset twice as large and twice as fast, and its poses."""
    data = Dataset(place / "data")
    video = np.repeat(np.repeat(np.repeat(data.video(0), 2, axis=0), 2, axis=1), 2, axis=2)[: 2 * frames]
    poses = Poses(np.array(data.array(0, "pose"))[:, None], COCO_18, 16, 16, 8.0).resized(32, 32)
    points = np.repeat(np.repeat(poses.points, 2, axis=0), people, axis=1)[: 2 * frames]
    write_video(folder / "clip.mp4", video, 16.0)
    write_poses(folder / "clip.npz", Poses(points, COCO_18, 32, 32, 16.0))
    return folder / "clip.mp4", folder / "clip.npz"


def tallness(folder: Path, name: str) -> float:
    """Height by width of one column: about 1 of a square picture, 2 of two above each other."""
    video, _ = read_video(folder / f"{name}.mp4")
    columns = 1 + len(np.load(folder / f"{name}.poses.npz")["shares"])
    return video.shape[1] * columns / video.shape[2]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_predict_shows_modes_and_keeps_poses(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    command = ("predict", place / "run", place / "data", "--count", 2, "--futures", 12, "--modes", 3, "--out", out)
    assert run(*command) == 0
    said = capsys.readouterr().out
    keys = [Dataset(place / "data", "test").record(index).key for index in (0, -1)]
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{key}{end}" for key in keys for end in (".mp4", ".poses.npz")
    )
    found = np.load(out / f"{keys[0]}.poses.npz")
    assert found["past"].shape == (5, 18, 3)
    assert found["futures"].shape == (12, 4, 18, 3)
    assert found["modes"].shape[1:] == (4, 18, 3)
    assert found["shares"].sum() == pytest.approx(1)
    assert (np.diff(found["shares"]) <= 0).all()
    assert found["skeleton"] == "coco-18"
    assert re.search(rf"{keys[0]}: 3 modes of \d+%, \d+%, \d+% of 12 futures", said)
    assert len(read_video(out / f"{keys[0]}.mp4")[0]) == 9
    assert 1.8 < tallness(out, keys[0]) < 2.4  # skeletons, video, bar
    again = tmp_path / "again"
    assert run(*command[:-1], again) == 0
    np.testing.assert_array_equal(found["futures"], np.load(again / f"{keys[0]}.poses.npz")["futures"])
    assert run(*command) == 2  # nothing is overwritten
    assert "exists" in capsys.readouterr().err


def test_poses_beside_one_file_bear_its_name(place: Path, tmp_path: Path) -> None:
    """Two forecasts of one clip do not claim the same file."""
    clip, poses = clip_and_poses(place, tmp_path)
    for name in ("first", "second"):
        words = ("--poses", poses, "--futures", 4, "--modes", 2, "--out", tmp_path / f"{name}.png")
        assert run("predict", place / "run", clip, *words) == 0
        assert np.load(tmp_path / f"{name}.poses.npz")["futures"].shape[0] == 4
    assert run("predict", place / "run", place / "data", "--count", 2, "--futures", 4, "--out", tmp_path / "both.png") == 0
    keys = [Dataset(place / "data", "test").record(index).key for index in (0, -1)]
    assert all((tmp_path / f"both-{key}.poses.npz").exists() for key in keys)


def test_modes_are_made_of_what_moves_most(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("predict", place / "run", place / "data", "--count", 1, "--futures", 20, "--keep", 0.1, "--out", tmp_path)
    assert run(*command, "--skeletons") == 0
    assert "of 2 futures" in capsys.readouterr().out
    found = np.load(next(tmp_path.glob("*.npz")))
    assert (found["groups"] >= 0).sum() == 2
    steps = np.diff(
        np.concatenate([np.repeat(found["past"][None, -1:], 20, axis=0), found["futures"]], axis=1)[..., :2], axis=1
    )
    motion = np.square(steps).sum(axis=(1, 2, 3))
    assert motion[found["groups"] >= 0].min() >= motion[found["groups"] < 0].max()
    assert tallness(tmp_path, next(tmp_path.glob("*.mp4")).stem) < 1.3


def test_a_future_without_chance(place: Path, tmp_path: Path) -> None:
    for folder, seed in ((tmp_path / "a", 0), (tmp_path / "b", 5)):
        assert run("predict", place / "run", place / "data", "--count", 1, "--typical", "--seed", seed, "--out", folder) == 0
    one, other = (np.load(next((tmp_path / name).glob("*.npz"))) for name in "ab")
    assert one["futures"].shape == (1, 4, 18, 3)
    np.testing.assert_array_equal(one["futures"], other["futures"])


def test_the_code_0_is_what_a_system_without_codes_forecasts() -> None:
    torch.manual_seed(0)
    config = PoseKnows.presets["tiny"].config
    system, plain = PoseKnows(config).eval(), PoseKnows(replace(config, latent="none")).eval()
    weights = {name: value for name, value in system.state_dict().items() if not name.startswith(("future_encoder.", "codes."))}
    plain.load_state_dict(weights)
    past, poses = torch.rand(2, 3, 5, 16, 16), torch.rand(2, 5, 18, 3) * 10
    with torch.no_grad():
        without = plain.forecast_poses(past, poses, seeds=[1, 2], futures=1)[:, 0]
        torch.testing.assert_close(system.forecast_typical(past, poses), without)
        assert (system.forecast_poses(past, poses, seeds=[1, 2], futures=1)[:, 0] - without).abs().max() > 1e-6


def test_a_run_that_cannot_render_yet_shows_skeletons(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", place / "poses-only", place / "data", "--count", 1, "--futures", 4, "--out", tmp_path) == 0
    assert "not yet to render" in capsys.readouterr().out
    assert tallness(tmp_path, next(tmp_path.glob("*.mp4")).stem) < 1.3


def test_predict_takes_footage_with_its_poses(place: Path, tmp_path: Path) -> None:
    clip, poses = clip_and_poses(place, tmp_path)
    assert run("predict", place / "run", clip, "--poses", poses, "--futures", 6, "--out", tmp_path / "out") == 0
    found = np.load(tmp_path / "out" / "clip.poses.npz")
    truth = np.array(Dataset(place / "data").array(0, "pose"))[:5]  # every second frame, at half the size
    there = truth[..., 2] > 0
    np.testing.assert_allclose(found["past"][..., :2][there], truth[..., :2][there], atol=1e-4)
    assert len(read_video(tmp_path / "out" / "clip.mp4")[0]) == 9


@pytest.mark.parametrize(("rate", "frames"), [(12.0, [0, 2, 3, 5, 6]), (6.0, [0, 1, 2, 2, 3])])
def test_footage_of_any_rate_is_seen_at_the_rate_of_training(
    place: Path, tmp_path: Path, rate: float, frames: list[int]
) -> None:
    """The run has 8 frames per second; every or every second frame would be motion at another speed."""
    points = np.ones((18, 1, 18, 3), np.float32)
    points[:, :, :, 0] = np.arange(18)[:, None, None]
    write_video(tmp_path / "clip.mp4", np.zeros((18, 16, 16, 3), np.uint8), rate)
    write_poses(tmp_path / "clip.npz", Poses(points, COCO_18, 16, 16, rate))
    words = ("--poses", tmp_path / "clip.npz", "--futures", 3, "--skeletons", "--out", tmp_path / "out")
    assert run("predict", place / "run", tmp_path / "clip.mp4", *words) == 0
    past = np.load(tmp_path / "out" / "clip.poses.npz")["past"]
    np.testing.assert_allclose(past[:, 0, 0], frames, atol=1e-4)


def test_footage_may_end_with_the_past(place: Path, tmp_path: Path) -> None:
    clip, poses = clip_and_poses(place, tmp_path, frames=5)
    assert run("predict", place / "run", clip, "--poses", poses, "--futures", 3, "--out", tmp_path / "out") == 0
    assert len(read_video(tmp_path / "out" / "clip.mp4")[0]) == 9


@pytest.mark.parametrize(
    ("person", "taken"), [((), 7), (("--person", "largest"), 7), (("--person", 4), 4), (("--person", "28,12"), 4)]
)
def test_of_several_people_one_is_taken_by_number_or_place_and_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], person: tuple[object, ...], taken: int
) -> None:
    """The first has the number 4, stands to the right and is small; the second has the number 7 and is large."""
    places, spread = np.array([[26.0, 10.0], [2.0, 2.0]]), np.arange(18)[:, None] / 18
    points = np.ones((18, 2, 18, 3), np.float32)
    points[..., :2] = places[:, None] + np.array([4, 16])[:, None, None] * spread
    write_video(tmp_path / "clip.mp4", np.zeros((18, 32, 32, 3), np.uint8), 8.0)
    write_poses(tmp_path / "two.npz", Poses(points, COCO_18, 32, 32, 8.0, people=(4, 7)))
    words = ("--poses", tmp_path / "two.npz", *person, "--futures", 3, "--skeletons", "--out", tmp_path / "out")
    assert run("predict", place / "run", tmp_path / "clip.mp4", *words) == 0
    who = person[1] if person else "largest"
    assert f"two.npz: 2 people: took {taken} ({who}, in 18 of 18 frames)" in capsys.readouterr().out
    past = np.load(tmp_path / "out" / "clip.poses.npz")["past"]
    assert (past[..., 0].min() > 10) == (taken == 4)


def test_a_person_is_not_chosen_in_a_dataset(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", place / "run", place / "data", "--person", 1, "--out", tmp_path / "out") == 2
    assert "data is a dataset, whose clips have the poses of one person; leave out --person" in capsys.readouterr().err


def test_poses_of_another_detector_than_the_run_s_are_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip, poses = clip_and_poses(place, tmp_path)
    system = SYSTEMS["pose-knows"](SYSTEMS["pose-knows"].presets["tiny"].config)
    about = {"fps": 8.0, RECORDED: {"name": "mediapipe", "version": "0.10+2"}}
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run" / "checkpoint.safetensors", system, stage="video", dataset=about)
    words = ("predict", tmp_path / "run", clip, "--poses", poses, "--futures", 3, "--skeletons", "--out")
    for name, said in (("mediapipe", False), ("dots.onnx", True)):
        settings = {"detector": name, "detector_version": "0.10+2" if name == "mediapipe" else "ab" * 32}
        write_poses(poses, replace(read_poses(poses), extra={"settings": settings}), overwrite=True)
        assert run(*words, tmp_path / name) == 0
        sentence = "dots.onnx abababababababab found the poses in "
        assert (sentence in capsys.readouterr().out) == said


def test_a_choice_that_is_none_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, poses = clip_and_poses(place, tmp_path, people=2)
    command = ("predict", place / "run", clip, "--poses", poses, "--out", tmp_path / "out", "--person")
    for person, complaint in (
        (2, "there is no person 2; there are 0, 1"),
        ("all", "person is 'all'; it must be one person: largest, a number or X,Y"),
        ("tall", "--person 'tall' is none of: largest"),
    ):
        assert run(*command, person) == 2
        assert complaint in capsys.readouterr().err


def test_people_in_any_order_are_followed_before_one_is_chosen(place: Path, tmp_path: Path) -> None:
    """OpenPose without ids: who is listed first in one frame is listed second in the next."""
    points = np.ones((18, 2, 18, 3), np.float32)
    points[..., 0] = np.arange(18) / 4 + np.array([2.0, 24.0])[:, None]
    points[..., 1] = 4 + np.arange(18)
    points[1::2] = points[1::2, ::-1]
    write_video(tmp_path / "clip.mp4", np.zeros((18, 32, 32, 3), np.uint8), 8.0)
    write_poses(tmp_path / "listed", Poses(points, COCO_18, 32, 32, 8.0, extra={UNORDERED: True}))
    words = ("--poses", tmp_path / "listed", "--person", 1, "--futures", 3, "--skeletons", "--out", tmp_path / "out")
    assert run("predict", place / "run", tmp_path / "clip.mp4", *words) == 0
    past = np.load(tmp_path / "out" / "clip.poses.npz")["past"]
    assert past[..., 0].min() > 10


def test_what_is_wrong_with_a_past_is_said(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, poses = clip_and_poses(place, tmp_path)

    def complaint(*words: object) -> str:
        out = () if "--out" in words else ("--out", tmp_path / "out")
        assert run("predict", place / "run", *words, *out) == 2
        return capsys.readouterr().err

    assert "give those of" in complaint(clip)
    assert "leave out --poses" in complaint(place / "data", "--poses", poses)
    assert "one clip at a time" in complaint(clip, clip, "--poses", poses)
    assert "none is named" in complaint()
    assert "forecasts from 5" in complaint(clip, "--poses", poses, "--start", 12)
    assert "are needed" in complaint(place / "data", "--start", 3)
    assert "keep is 2.0" in complaint(place / "data", "--keep", 2)
    assert "--format npy" in complaint(place / "data", "--format", "npy")
    assert "has no pose" in complaint(place / "posed-by-nobody")
    assert "one.npy holds no modes" in complaint(place / "data", "--out", tmp_path / "one.npy")
    assert "seed is 99999999999999999999; it must be less" in complaint(place / "data", "--seed", 99999999999999999999)
    assert "--typical is one future without chance" in complaint(place / "data", "--typical", "--modes", 3)
    assert "--count takes clips from datasets" in complaint(clip, "--poses", poses, "--count", 3)
    write_poses(tmp_path / "wide.npz", Poses(np.ones((18, 1, 18, 3), np.float32), COCO_18, 16, 12, 16.0))
    assert "holds poses of frames of 16x12" in complaint(clip, "--poses", tmp_path / "wide.npz")
    write_poses(tmp_path / "long.npz", Poses(np.ones((36, 1, 18, 3), np.float32), COCO_18, 32, 32, 32.0))
    assert "holds 36 frames of poses and" in complaint(clip, "--poses", tmp_path / "long.npz")
    faint = np.full((18, 1, 18, 3), 0.05, np.float32)
    write_poses(tmp_path / "faint.npz", Poses(faint, COCO_18, 32, 32, 16.0))
    assert "has nobody in frame 8, the current one" in complaint(clip, "--poses", tmp_path / "faint.npz")
    nobody = np.zeros((20, 1, 17, 3), np.float32)
    write_poses(tmp_path / "nobody.npz", Poses(nobody, COCO_17, 32, 32, 16.0))
    assert "has nobody in any of its 20 frames" in complaint(clip, "--poses", tmp_path / "nobody.npz")
    nobody[0] = 1
    write_poses(tmp_path / "gone.npz", Poses(nobody, COCO_17, 32, 32, 16.0))
    assert "nobody in frame 8" in complaint(clip, "--poses", tmp_path / "gone.npz")


def test_one_file_in_a_new_folder_has_its_poses_beside_it(place: Path, tmp_path: Path) -> None:
    words = ("predict", place / "run", place / "data", "--futures", 2, "--skeletons", "--out")
    assert run(*words, tmp_path / "new" / "folder" / "futures.png", "--count", 1) == 0
    assert run(*words, tmp_path / "of.v2", "--sheet", "--count", 2) == 0
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*") if path.is_file())
    keys = [Dataset(place / "data", "test").record(index).key for index in (0, -1)]
    assert found == sorted(
        [
            *("new/folder/futures.png", "new/folder/futures.poses.npz", "of.v2/sheet.mp4"),
            *(f"of.v2/sheet-{key}.poses.npz" for key in keys),
        ]
    )


def test_a_dataset_of_another_rate_is_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "data", tmp_path / "data")
    about = json.loads((tmp_path / "data" / "dataset.json").read_text())
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(about | {"fps": 24.0}))
    assert run("predict", place / "run", tmp_path / "data", "--out", tmp_path / "out") == 2
    assert "run forecasts 8; prepare the data with --fps 8" in capsys.readouterr().err


def test_clips_without_anybody_in_the_current_frame_are_left_out(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_forked_dataset(tmp_path / "some", unseen=(1, 5))
    command = ("predict", place / "run", data, "--skeletons", "--futures", 2, "--count", 99, "--out", tmp_path / "out")
    assert run(*command) == 0
    assert f"note: 2 of 12 clips of {data} have nobody in the current frame" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("*.npz"))) == 10
    empty = write_forked_dataset(tmp_path / "none", unseen=range(24))
    assert run("predict", place / "run", empty, "--out", tmp_path / "more") == 2
    assert "has nobody in frame 4 of any clip" in capsys.readouterr().err


def test_the_report_card_of_forecasts(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("evaluate", place / "run", "--against", place / "data", "--forecast", "--samples", 6, "--count", 10)
    assert run(*command, "--out", tmp_path / "a") == 0
    said = capsys.readouterr().out
    assert "6 futures of each of 10 clips" in said
    assert "known futures that are hit" in said
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    assert (report["protocol"]["kind"], report["protocol"]["split"], report["protocol"]["samples"]) == ("forecasts", "test", 6)
    assert report["protocol"]["frames of a displacement"] == 2
    curve = report["best of"]["displacement error"]
    assert len(curve["value"]) == 6
    assert set(curve["beside"]) == {"current pose stays", "current velocity goes on", "code 0", "mean of the samples"}
    assert set(report["scores"]) == {"APD", "ADE", "FDE", "MMADE", "MMFDE"}
    assert set(report["modes"]["futures"]) == set(FORKED.fork)
    page = (tmp_path / "a" / "report.html").read_text()
    assert "Best of n futures" in page
    assert run(*command, "--out", tmp_path / "b") == 0
    capsys.readouterr()
    assert run("evaluate", "--compare", tmp_path / "a", tmp_path / "b") == 0
    assert "known futures that are hit" in capsys.readouterr().out
    again = json.loads((tmp_path / "b" / "report.json").read_text())
    assert again["best of"] == report["best of"]
    assert run(*command[:-1], 9, "--out", tmp_path / "c") == 0
    assert run("evaluate", "--compare", tmp_path / "a", tmp_path / "c") == 2
    assert "clips: 10 and 9" in capsys.readouterr().err


def test_rendered_forecasts_stand_beside_the_held_out_clips(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--against", place / "data", "--paired", "--futures", 3, "--count", 9, "--perceptual", "none", "--out", tmp_path)
    assert run("evaluate", place / "run", *words) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["protocol"]["kind"], report["protocol"]["given frames"]) == ("predictions", 5)
    assert report["scores"]["psnr"]["given frames"]["value"] == 100  # the past is the true one
    assert not report["deterministic"]
    best = [value for _, value in report["scores"]["psnr"]["best of"]]
    assert best == sorted(best)
    capsys.readouterr()
    assert run("evaluate", place / "poses-only", *words, "--overwrite") == 2
    assert "not yet to render" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vgan", "--against", "data", "--forecast"], "vgan cannot forecast; systems that can: pose-knows"),
        (["data", "--against", "data", "--forecast"], "is no run or checkpoint"),
        (["run", "--against", "data", "--forecast", "--paired"], "give one of them"),
        (["run", "--against", "data", "--samples", "9"], "--samples has no meaning without --forecast"),
        (["run", "--against", "data", "--forecast", "--stride", "2"], "--stride has no meaning with --forecast"),
        (["run", "--against", "data", "--forecast", "--futures", "2"], "--futures has no meaning without --paired"),
        (["run", "--against", "data", "--forecast", "--count", "99"], "give 8 to 12"),
        (["run", "--against", "posed-by-nobody", "--forecast"], "has no pose"),
    ],
)
def test_what_is_wrong_with_a_question_is_said(
    place: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = ("vgan", "data", "run", "posed-by-nobody")
    assert run("evaluate", *[place / word if word in names else word for word in words], "--out", tmp_path / "out") == 2
    assert sentence in capsys.readouterr().err


def test_other_systems_predict_as_before(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("predict", place / "vgan", "picture.png") == 2
    assert "vgan cannot predict" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run("predict", "--help")
    said = capsys.readouterr().out
    assert "Continue still images" in said
    assert "--modes" in said


def test_prepare_forked_performers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("prepare", "performers", "--out", tmp_path / "data", "--clips", 6, "--frames", 4, "--size", 16, "--workers", 1)
    assert run(*command, "--fork", "stop", "kick", "--fork-odds", 3, 1) == 0
    data = Dataset(tmp_path / "data")
    assert data.info.labels == ("stop", "kick")
    assert {data.record(index).extra["fork"] for index in range(len(data))} == {2}
    capsys.readouterr()
    assert run(*command, "--overwrite", "--fork", "stop", "fly") == 2
    assert "accepted: bow" in capsys.readouterr().err
