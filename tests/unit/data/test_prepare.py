"""Footage to dataset: what comes out, what is refused, what happens when it is interrupted or goes wrong."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from footage import make_frames, write_footage, write_strip
from kinema.core.errors import ConfigError, DataError, KinemaError, MediaError
from kinema.data import cutting, plan
from kinema.data.cutting import PrepareSettings, fitted
from kinema.data.dataset import MEASURES_NAME, Dataset, DatasetInfo
from kinema.data.encode import write_video
from kinema.data.executor import Kind
from kinema.data.media import cover
from kinema.data.prepare import PIXELS_AT_MOST, divide, prepare
from kinema.data.report import EXPLANATIONS

PLAIN = PrepareSettings(frames=8, size="32", stabilise="off")


def prepared(footage: Path, **settings: Any) -> tuple[Path, DatasetInfo]:
    out = footage.parent / "data"
    return out, prepare([footage], out, PrepareSettings(**{"frames": 8, "size": "32", "stabilise": "off"} | settings))


def refusals(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "refused.jsonl").read_text().splitlines()]


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- What comes out -----------------------------------------------------------------------------------------------------------


def test_footage_becomes_single_pictures(tmp_path: Path) -> None:
    """A picture is not frozen for lack of a second one; the fourth of one shot and the first of the next are both second 3."""
    (tmp_path / "film").mkdir()
    dark, light = make_frames(85, seed=1), 255 - make_frames(60, seed=2)
    write_video(tmp_path / "film" / "cut.mp4", np.concatenate([dark, light]), 25)
    out, info = prepared(tmp_path / "film", frames=1, fps=1)
    data = Dataset(out)
    assert [data.record(i).first_frame for i in range(len(data))] == [0, 1, 2, 3, 3, 4, 5]
    assert len({data.record(i).key for i in range(len(data))}) == info.kept == 7


def test_a_folder_of_videos_becomes_a_dataset(tmp_path: Path) -> None:
    for number, name in enumerate(("walk/ada_1.mp4", "walk/ben_1.mp4", "run/ada_2.mp4")):
        write_footage(tmp_path / "footage" / name, 20, seed=number)
    (tmp_path / "footage" / "README.txt").write_text("about")
    out, info = prepared(tmp_path / "footage", labels="folder", group="prefix", split=0.34)
    data = Dataset(out)
    assert sorted(path.name for path in out.iterdir()) == ["dataset.json", "refused.jsonl", "report.html", "shards"]
    assert len(data) == info.kept == 6
    assert info.labels == ("run", "walk")
    assert [(data.record(i).source, data.record(i).first_frame) for i in range(6)] == [
        (name, first) for name in ("run/ada_2.mp4", "walk/ada_1.mp4", "walk/ben_1.mp4") for first in (0, 8)
    ]
    assert {(data.record(i).group, data.record(i).split) for i in range(6)} == {("ada", "train"), ("ben", "test")}
    assert [data.record(i).label for i in range(6)] == ["run"] * 2 + ["walk"] * 4
    assert info.refused == {"rest": 3}
    assert info.sources["run/ada_2.mp4"] == {"kept": 2, "rest": 1}
    assert refusals(out)[0] == {
        "source": "run/ada_2.mp4", "reason": "rest", "first": 16, "last": 19, "frames": 4, "needed": 8,
    }  # fmt: skip
    assert info.fps == 25
    assert data.record(0).extra["motion"] > 0


def test_strips_frames_and_pixels_are_exact(tmp_path: Path) -> None:
    """Lossless sources in the size of the clips come out as they are: frame for frame, pixel for pixel."""
    video = make_frames(19, width=32, height=32)
    write_strip(tmp_path / "strips" / "beside.png", video)
    write_strip(tmp_path / "strips" / "stacked.png", video[::-1], stacked=True)
    out, info = prepared(tmp_path / "strips", strip="32x32", stride=4)
    data = Dataset(out)
    assert [data.record(i).first_frame for i in range(len(data))] == [0, 4, 8] * 2
    for i in range(len(data)):
        record = data.record(i)
        original = video if record.source == "beside.png" else video[::-1]
        assert (data.video(i) == original[record.first_frame : record.first_frame + 8]).all()
    assert info.fps == 25
    assert [(r["first"], r["last"]) for r in refusals(out)] == [(16, 18)] * 2


def test_a_folder_of_frames_is_one_source_in_natural_order(tmp_path: Path) -> None:
    video = make_frames(12, width=32, height=32)
    (tmp_path / "scene").mkdir()
    for t, frame in enumerate(video):
        Image.fromarray(frame).save(tmp_path / "scene" / f"frame{t}.png")  # frame10 sorts before frame2 as text
    out, _ = prepared(tmp_path / "scene", frames=12, fps=10.0)
    data = Dataset(out)
    assert (data.video(0) == video).all()
    assert (data.record(0).source, data.record(0).fps) == ("scene", 10)


def test_gaps_between_windows_are_wished_not_refused(tmp_path: Path) -> None:
    write_strip(tmp_path / "strips" / "a.png", make_frames(40, width=32, height=32))
    out, _ = prepared(tmp_path / "strips", strip="32x32", stride=12)
    assert [Dataset(out).record(i).first_frame for i in range(3)] == [0, 12, 24]
    assert [(r["first"], r["last"]) for r in refusals(out)] == [(36, 39)]


def test_another_frame_rate_takes_the_nearest_frames(tmp_path: Path) -> None:
    video = make_frames(32, width=32, height=32)
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "a.apng", video, 20)
    out, info = prepared(tmp_path / "in", fps=10.0)
    assert info.fps == 10
    assert (Dataset(out).video(0) == video[:16:2]).all()
    assert (Dataset(out).video(1) == video[16:32:2]).all()
    assert Dataset(out).record(1).first_frame == 8


@pytest.mark.parametrize("settings", [{}, {"stride": 4}, {"stride": 20}, {"fps": 12.5}])
def test_a_long_video_is_shared_by_workers_and_comes_out_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    write_footage(tmp_path / "in" / "long.mp4", 700)
    out, whole = prepared(tmp_path / "in", **settings)
    first = Dataset(out)
    monkeypatch.setattr("kinema.data.prepare.PART_FRAMES", 200)
    monkeypatch.setattr("kinema.data.prepare.TASK_SECONDS", (0.0, 1e-9))
    chosen = PrepareSettings(**vars(PLAIN) | settings)
    assert prepare([tmp_path / "in"], tmp_path / "parts", chosen, workers=1).kept == whole.kept
    second = Dataset(tmp_path / "parts")
    assert len(second.info.shards) == 3
    assert [second.record(i).first_frame for i in range(len(second))] == [
        first.record(i).first_frame for i in range(len(first))
    ]
    assert all((first.video(i) == second.video(i)).all() for i in range(len(first)))
    assert second.info.refused == first.info.refused


@pytest.mark.parametrize(("fit", "rows"), [("crop", 32), ("letterbox", 16)])
def test_wide_footage_is_cropped_or_letterboxed(tmp_path: Path, fit: str, rows: int) -> None:
    video = np.full((8, 40, 80, 3), 200, np.uint8)
    video[4:] = 220
    write_strip(tmp_path / "in" / "a.png", video)
    out, _ = prepared(tmp_path / "in", strip="80x40", fit=fit)
    picture = Dataset(out).video(0)[0]
    top = (32 - rows) // 2
    assert (picture[top : top + rows] == 200).all()
    assert not picture[:top].any()
    assert not picture[top + rows :].any()


def test_the_middle_is_kept_by_a_crop() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (fitted([image], 10, 10, cover(10, 10)) == 255).all()


# --- What is refused ----------------------------------------------------------------------------------------------------------


def strip_of(tmp_path: Path, video: np.ndarray) -> Path:
    write_strip(tmp_path / "strips" / "a.png", video)
    write_strip(tmp_path / "strips" / "good.png", make_frames(8, width=32, height=32, seed=3))
    return tmp_path / "strips"


def refused(footage: Path, **settings: Any) -> list[dict[str, Any]]:
    out, info = prepared(footage, strip="32x32", **settings)
    assert info.kept == 1
    return [r for r in refusals(out) if r["source"] == "a.png"]


def test_black_clips(tmp_path: Path) -> None:
    video = np.full((8, 32, 32, 3), 12, np.uint8)
    video[:, :2, :8] = 255  # 1.6 % of the picture
    assert refused(strip_of(tmp_path, video)) == [
        {"source": "a.png", "reason": "black", "first": 0, "last": 7, "share": 0.9844, "limit": 0.98}
    ]


def test_frozen_clips_though_not_where_a_small_thing_moves(tmp_path: Path) -> None:
    still = make_frames(1, width=32, height=32).repeat(8, axis=0)
    noisy = (still + np.random.default_rng(0).integers(-1, 2, still.shape)).clip(0, 255).astype(np.uint8)
    assert [r["reason"] for r in refused(strip_of(tmp_path, noisy))] == ["frozen"]
    moving = noisy.copy()
    for t in range(8):
        moving[t, 20:22, 10 + t : 12 + t] += 40
    write_strip(tmp_path / "strips" / "a.png", moving)
    assert prepare([tmp_path / "strips"], tmp_path / "second", PrepareSettings(**vars(PLAIN) | {"strip": "32x32"})).kept == 2


def test_too_little_motion(tmp_path: Path) -> None:
    video = make_frames(8, width=32, height=32)
    [refusal] = refused(strip_of(tmp_path, video // 8 + 60), min_motion=2.0)
    assert refusal["reason"] == "still"
    expected = np.abs(np.diff((video // 8 + 60).astype(int), axis=0)).mean()
    assert refusal["motion"] == pytest.approx(expected, abs=1e-3)


def test_short_shots_and_shot_boundaries(tmp_path: Path) -> None:
    first, second = make_frames(13, width=32, height=32), 255 - make_frames(9, width=32, height=32, seed=9)
    found = refused(strip_of(tmp_path, np.concatenate([first[:5], second[:7]])))
    assert [(r["reason"], r["first"], r["last"]) for r in found] == [("short", 0, 4), ("short", 5, 11)]
    out, _ = prepared(strip_of(tmp_path / "b", np.concatenate([first, second])), strip="32x32")
    data = Dataset(out)
    assert [data.record(i).first_frame for i in range(len(data)) if data.record(i).source == "a.png"] == [0, 13]


def test_near_duplicates_across_files(tmp_path: Path) -> None:
    """The same footage, encoded again smaller, is dropped; other footage of the same scene is kept."""
    video = make_frames(16, width=64, height=64)
    folder = tmp_path / "footage"
    folder.mkdir()
    write_video(folder / "a.mp4", video, 25)
    write_video(folder / "b.mp4", video, 25)
    small = np.stack([np.asarray(Image.fromarray(frame).resize((48, 48), Image.Resampling.BICUBIC)) for frame in video])
    write_video(folder / "c.webm", small, 25)
    write_video(folder / "d.mp4", make_frames(8, width=64, height=64, start=40), 25)
    out, info = prepared(folder, size="48", duplicates=20)  # the copies are up to 11 bits apart here, other footage over 40
    assert info.kept == 3
    doubles = [r for r in refusals(out) if r["reason"] == "duplicate"]
    assert [(r["source"], r["first"], r["of"]) for r in doubles] == [
        (name, first, f"a.mp4, frame {first}") for name in ("b.mp4", "c.webm") for first in (0, 8)
    ]
    assert {Dataset(out).record(i).source for i in range(3)} == {"a.mp4", "d.mp4"}
    assert prepare([folder], tmp_path / "all", PrepareSettings(frames=8, size="48", stabilise="off", duplicates=-1)).kept == 7


def test_unreadable_and_truncated_files_are_listed_and_do_not_stop_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    write_footage(folder / "good.mp4", 16)
    whole = write_footage(folder / "cut.avi.mp4", 60, seed=1, width=64, height=64).read_bytes()
    (folder / "cut.avi.mp4").unlink()
    write_video(folder / "long.webm", make_frames(60, width=64, height=64, seed=2), 25)
    damaged = bytearray((folder / "long.webm").read_bytes())
    (folder / "long.webm").write_bytes(damaged[: len(damaged) * 2 // 3])
    (folder / "noise.mp4").write_bytes(os.urandom(4000))
    (folder / "stump.mp4").write_bytes(whole[:200])
    (folder / "empty.mkv").write_bytes(b"")
    out, info = prepared(folder)
    reasons = {r["source"]: (r["reason"], r["error"]) for r in refusals(out) if "error" in r}
    assert {name: reason for name, (reason, _) in reasons.items()} == {
        "noise.mp4": "unreadable", "stump.mp4": "unreadable", "empty.mkv": "unreadable", "long.webm": "truncated",
    }  # fmt: skip
    assert "noise.mp4" in reasons["noise.mp4"][1]
    assert info.sources["good.mp4"]["kept"] == 2
    assert info.sources["long.webm"]["kept"] >= 2
    with pytest.raises(MediaError, match=r"empty\.mkv"):
        prepare([folder], tmp_path / "strict", PrepareSettings(**vars(PLAIN) | {"strict": True}))
    assert not (tmp_path / "strict").exists()


def test_what_a_table_of_labels_leaves_out_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_footage(tmp_path / "footage" / f"{name}.mp4", 8, seed=ord(name))
    (tmp_path / "labels.csv").write_text("source,label\na.mp4,x\n")
    out, info = prepared(tmp_path / "footage", labels=str(tmp_path / "labels.csv"))
    assert (info.kept, info.refused) == (1, {"unlabelled": 1})
    assert refusals(out)[0]["source"] == "b.mp4"


def make_scene() -> np.ndarray:
    """A picture full of corners."""
    scene = np.random.default_rng(5).integers(80, 176, (60, 80, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(scene).resize((320, 240), Image.Resampling.BICUBIC))


def test_shaken_footage_is_stabilised_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    """A textured scene seen by a camera that drifts: afterwards the background stands still; a bare wall is refused."""
    scene = make_scene()
    drift = np.stack([scene[20 + t : 180 + t, 40 - 2 * t : 200 - 2 * t] for t in range(12)])
    for t in range(12):
        drift[t, 10:22, 20 + 3 * t : 32 + 3 * t] = 250
    wall = np.full_like(drift, 128)
    for t in range(12):
        wall[t, 60 : 90 + t] = 200
    write_strip(tmp_path / "strips" / "good.png", drift)
    write_strip(tmp_path / "strips" / "wall.png", wall)
    settings = PrepareSettings(frames=12, size="80", strip="160x160", stabilise="on")
    info = prepare([tmp_path / "strips"], tmp_path / "data", settings)
    assert info.sources == {"good.png": {"kept": 1}, "wall.png": {"unsteady": 1, "short": 1}}
    steady = Dataset(tmp_path / "data").video(0).astype(int)
    plain = fitted(list(drift), 80, 80, cover(80, 80)).astype(int)
    inner = (slice(None), slice(24, 56), slice(24, 56))
    assert np.abs(np.diff(steady[inner], axis=0)).mean() < np.abs(np.diff(plain[inner], axis=0)).mean() / 4
    unsteady = next(r for r in refusals(tmp_path / "data") if r["reason"] == "unsteady")
    assert (unsteady["source"], unsteady["gate"], unsteady["limit"]) == ("wall.png", "matches", 15)


def test_stabilising_gives_the_same_bytes_every_time(tmp_path: Path) -> None:
    """In other processes, and shared by two workers; fails when points are matched by randomised trees."""
    scene, rng = make_scene(), np.random.default_rng(0)
    for name in ("first.png", "second.png"):
        shaken = np.stack([scene[y : y + 160, x : x + 160] for x, y in rng.integers(36, 44, (24, 2))])
        write_strip(tmp_path / "strips" / name, (shaken + rng.normal(0, 12, shaken.shape)).clip(0, 255).astype(np.uint8))
    script = (
        "import sys; from pathlib import Path; from kinema.data import prepare; prepare.TASK_SECONDS = (0.0, 1e-9)\n"
        "settings = prepare.PrepareSettings(frames=12, size='160', strip='160x160', stabilise='on', cut=0, duplicates=-1)\n"
        "prepare.prepare([Path(sys.argv[1])], Path(sys.argv[2]), settings, workers=int(sys.argv[3]))"
    )
    for name, workers in (("one", "1"), ("again", "1"), ("shared", "2")):
        subprocess.run([sys.executable, "-c", script, tmp_path / "strips", tmp_path / name, workers], check=True)
    one, *others = (Dataset(tmp_path / name).info for name in ("one", "again", "shared"))
    assert one.kept == 4
    assert len(one.checksums) == 2
    assert all(other.checksums == one.checksums for other in others)


def test_auto_leaves_still_cameras_alone_and_steadies_others(tmp_path: Path) -> None:
    scene = make_scene()
    drift = np.stack([scene[10 + t : 170 + t, 60 - t : 220 - t] for t in range(32)])
    still = np.repeat(scene[None, 10:170, 60:220], 32, axis=0).copy()
    for t in range(32):
        drift[t, 10:22, 3 * t : 3 * t + 12] = 250
        still[t, 40:90, 3 * t : 3 * t + 40] = 255
    write_strip(tmp_path / "strips" / "moving.png", drift)
    write_strip(tmp_path / "strips" / "still.png", still)
    prepare([tmp_path / "strips"], tmp_path / "data", PrepareSettings(size="160", strip="160x160"))
    moving, left_alone = Dataset(tmp_path / "data").video(0), Dataset(tmp_path / "data").video(1)
    assert (left_alone == still).all()
    assert np.abs(np.diff(moving[:, 60:100, 60:100].astype(int), axis=0)).mean() < 5


def test_scenes_are_filtered_by_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sees_red.py").write_text(
        "def score(frames):\n    assert frames.shape == (4, 224, 224, 3)\n    return {'red': frames[..., 0].mean() / 255}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    dark, red = make_frames(8, width=32, height=32), make_frames(8, width=32, height=32, seed=1)
    red[..., 0] = red[..., 0] // 4 + 191
    write_strip(tmp_path / "strips" / "dark.png", dark)
    write_strip(tmp_path / "strips" / "red.png", red)
    out, info = prepared(tmp_path / "strips", strip="32x32", scene=("red=0.7",), scene_model="sees_red:score")
    assert info.sources == {"red.png": {"kept": 1}, "dark.png": {"scene": 1}}
    assert Dataset(out).record(0).extra["scene"]["red"] > 0.7
    assert refusals(out)[0]["red"] < 0.7


# --- Interruptions ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def three_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Footage that is divided into several tasks."""
    monkeypatch.setattr("kinema.data.prepare.TASK_SECONDS", (0.0, 1e-9))
    for number in range(3):
        write_footage(tmp_path / "footage" / f"{number}.mp4", 16, seed=number)
    return tmp_path / "footage"


def test_an_interrupted_preparation_goes_on_and_repeats_nothing(three_tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = three_tasks.parent / "data"
    prepare([three_tasks], three_tasks.parent / "whole", PLAIN)
    done: list[int] = []

    def interrupted(job: plan.Job) -> None:
        done.append(job.number)
        if job.number == 1 and done.count(1) == 1:
            raise KeyboardInterrupt
        original(job)

    original = plan.run_job
    monkeypatch.setattr(plan, "run_job", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare([three_tasks], out, PLAIN)
    assert not (out / "dataset.json").exists()
    prepare([three_tasks], out, PLAIN)
    assert done == [0, 1, 1, 2]
    assert content(out) == content(three_tasks.parent / "whole")


def test_an_interrupted_preparation_of_encoded_clips_becomes_the_same_dataset(
    three_tasks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, whole = three_tasks.parent / "data", three_tasks.parent / "whole"
    prepare([three_tasks], whole, PLAIN, storage="encoded")
    with monkeypatch.context() as patch:
        original = plan.run_job
        patch.setattr(plan, "run_job", lambda job: interrupt(job) if job.number else original(job))
        with pytest.raises(KeyboardInterrupt):
            prepare([three_tasks], out, PLAIN, storage="encoded")
    with pytest.raises(DataError, match="is unfinished and was begun with --storage encoded; give the same settings"):
        prepare([three_tasks], out, PLAIN, storage="pixels")
    prepare([three_tasks], out, PLAIN, storage="encoded")
    assert content(out) == content(whole)


def interrupt(job: plan.Job) -> None:
    raise KeyboardInterrupt


def test_auto_encodes_clips_of_many_pixels_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """32 frames of 64 or 128 squared stay as they are."""
    assert 32 * 128 * 128 * 3 * 10 < PIXELS_AT_MOST < 32 * 512 * 512 * 3
    write_footage(tmp_path / "footage" / "a.mp4", 16)
    for name, limit, member in (("at", 8 * 24 * 32 * 3, "video.npy"), ("above", 8 * 24 * 32 * 3 - 1, "video.mp4")):
        monkeypatch.setattr("kinema.data.prepare.PIXELS_AT_MOST", limit)
        prepare([tmp_path / "footage"], tmp_path / name, PrepareSettings(frames=8, size="32x24", stabilise="off"))
        with tarfile.open(tmp_path / name / "shards" / "000000.tar") as tar:
            assert {n.partition(".")[2] for n in tar.getnames()} == {"json", member}
    assert (Dataset(tmp_path / "at").video(1) == Dataset(tmp_path / "above").video(1)).all()


def test_killed_anywhere_it_becomes_the_same_dataset(three_tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file that is put in place is a moment at which a kill leaves another state; each is tried."""
    write_footage(three_tasks / "twin.mp4", 16, seed=0)  # so that the finishing step rewrites a shard
    whole = three_tasks.parent / "whole"
    prepare([three_tasks], whole, PLAIN)
    expected = content(whole)
    moments = count_moments(monkeypatch, lambda: prepare([three_tasks], three_tasks.parent / "counted", PLAIN))
    assert moments > 10
    for moment in range(moments):
        out = three_tasks.parent / f"killed {moment}"
        with monkeypatch.context() as patch:
            kill_at(patch, moment)
            with pytest.raises(Killed):
                prepare([three_tasks], out, PLAIN)
        if (out / "dataset.json").exists() and not (out / "prepare").exists():
            continue  # killed after the last thing there was to do
        prepare([three_tasks], out, PLAIN)
        assert content(out) == expected, moment


class Killed(BaseException):
    """Stands for a kill: nothing catches it, and clean-up does not come to pass (see `kill_at`)."""


def count_moments(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> int:
    with monkeypatch.context() as patch:
        moments = kill_at(patch, None)
        run()
    return len(moments)


def kill_at(patch: pytest.MonkeyPatch, moment: int | None) -> list[str]:
    """Make the `moment`-th change in the file system the last."""
    moments: list[str] = []

    def watched(name: str) -> None:
        original = getattr(Path, name)

        def change(self: Path, *arguments: Any, **options: Any) -> Any:
            if moment is not None and len(moments) >= moment + 1:
                raise Killed
            moments.append(f"{name} {self}")
            if moment is not None and len(moments) == moment + 1:
                raise Killed
            return original(self, *arguments, **options)

        patch.setattr(Path, name, change)

    for name in ("replace", "unlink", "write_bytes", "rmdir"):
        watched(name)
    return moments


def test_killed_by_the_system_with_two_workers(tmp_path: Path) -> None:
    """SIGKILL to a real command in the middle of its work; the same command finishes, to the same bytes."""
    for number in range(12):
        write_footage(tmp_path / "footage" / f"{number}.mp4", 150, seed=number)
    arguments = ["footage", "--frames", "16", "--stride", "1", "--size", "32", "--workers", "2", "--stabilise", "off"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def command(out: str) -> list[str]:
        script = (
            "import kinema.data.prepare as p; p.TASK_SECONDS = (0, 1e-9)\n"
            "from kinema.cli import main\n"
            "if __name__ == '__main__': raise SystemExit(main())"
        )
        return [sys.executable, "-c", script, "prepare", *arguments, "--out", out]

    running = subprocess.Popen(command("killed"), cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not list((tmp_path / "killed" / "prepare").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert (tmp_path / "killed" / "prepare" / "plan.json").exists()
    for out in ("killed", "whole"):
        subprocess.run(command(out), cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


# --- What is wrong is a sentence ----------------------------------------------------------------------------------------------


def test_a_finished_dataset_is_replaced_only_when_asked(tmp_path: Path) -> None:
    footage = write_footage(tmp_path / "a.mp4", 16)
    out, info = prepared(footage)
    with pytest.raises(DataError, match="is a finished dataset; give another --out, or --overwrite"):
        prepared(footage)
    (out / MEASURES_NAME).mkdir()
    (out / MEASURES_NAME / "of-the-old-clips.npz").touch()
    assert prepare([footage], out, PrepareSettings(**vars(PLAIN) | {"frames": 4}), overwrite=True).kept == 2 * info.kept
    assert not (out / MEASURES_NAME).exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_two_processes_do_not_prepare_one_dataset(three_tasks: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool) -> None:
    """Without the lock, what comes second finishes the dataset, and the first then writes into it."""
    out, run_job = three_tasks.parent / "data", plan.run_job

    def again(job: plan.Job) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(plan, "run_job", run_job)
            with pytest.raises(DataError, match="is being prepared by another process"):
                prepare([three_tasks], out, replace(PLAIN, frames=4) if overwrite else PLAIN, overwrite=overwrite)
        run_job(job)

    monkeypatch.setattr(plan, "run_job", again)
    assert prepare([three_tasks], out, PLAIN).kept > 0
    assert "prepare" not in [path.name for path in out.iterdir()]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 4}, "was begun with frames = 8, now it is 4"),
        ({"fit": "letterbox"}, "was begun with fit = 'crop', now it is 'letterbox'"),
        ({"labels": "folder"}, "was begun with labels = None, now it is 'folder'"),
        (None, "its sources have changed since \\(1.mp4\\)"),
    ],
)
def test_an_unfinished_dataset_goes_on_only_with_the_same_settings(
    three_tasks: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any] | None, says: str
) -> None:
    out = three_tasks.parent / "data"
    with monkeypatch.context() as patch:
        patch.setattr(plan, "run_job", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare([three_tasks], out, PLAIN)
    if change is None:
        write_footage(three_tasks / "1.mp4", 30)
    settings = PrepareSettings(**vars(PLAIN) | (change or {}))
    with pytest.raises(DataError, match=says):
        prepare([three_tasks], out, settings)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "run_job", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            prepare([three_tasks], out, settings, overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr(plan, "_clear", None)  # what --overwrite has begun goes on under the same command
        assert prepare([three_tasks], out, settings, overwrite=True).kept > 0


def test_nothing_usable_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    write_footage(tmp_path / "footage" / "short.mp4", 5)
    (tmp_path / "footage" / "noise.mp4").write_bytes(b"noise" * 100)
    with pytest.raises(DataError, match=r"no usable clip: refused 1 unreadable, 1 short; for example noise.mp4: .*noise.mp4"):
        prepared(tmp_path / "footage")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "is empty; give videos"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("")), r"holds no footage, only 1 other files \(.txt\)"),
    ],
)
def test_sources_without_footage(tmp_path: Path, make: Callable[[Path], object], says: str) -> None:
    make(tmp_path / "footage")
    with pytest.raises(DataError, match=says):
        prepared(tmp_path / "footage")


def test_a_name_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    video = write_footage(tmp_path / "footage" / "a.mp4", 8)
    video.rename(os.fsdecode(os.fsencode(video.parent) + b"/\xff\xfe.mp4"))
    with pytest.raises(DataError, match="is no UTF-8 text; rename the file"):
        prepared(tmp_path / "footage")


def test_out_and_footage_must_lie_apart(tmp_path: Path) -> None:
    write_footage(tmp_path / "footage" / "a.mp4", 8)
    for out, says in (
        (tmp_path / "footage" / "data", "lies inside the footage"),
        (tmp_path / "footage", "lies inside the footage"),
        (tmp_path, "the footage .* lies inside --out"),
    ):
        with pytest.raises(DataError, match=says):
            prepare([tmp_path / "footage"], out, PLAIN)


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    footage = write_footage(tmp_path / "a.mp4", 8)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(DataError, match=r"holds other things \(thesis.tex\)"):
            prepare([footage], tmp_path / "out", PLAIN, overwrite=overwrite)
    with pytest.raises(DataError, match="is a file"):
        prepare([footage], tmp_path / "out" / "thesis.tex", PLAIN)


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")])
def test_a_full_disk_is_a_sentence_and_the_same_call_goes_on(
    three_tasks: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    out, writes = three_tasks.parent / "data", []
    original = Path.write_bytes

    def write(self: Path, data: bytes) -> int:
        writes.append(self)
        if len(writes) > 3:
            raise OSError(number, os.strerror(number), str(self))
        return original(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        with pytest.raises(KinemaError, match=re.escape(words)):
            prepare([three_tasks], out, PLAIN)
    assert not (out / "dataset.json").exists()
    assert not list(out.rglob("*.tmp-*"))
    assert prepare([three_tasks], out, PLAIN).kept == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"frames": 0}, "frames is 0; it must be at least 1"),
        ({"stride": 0}, "stride is 0"),
        ({"size": "big"}, "size is 'big'; it must be a number of pixels such as 64"),
        ({"strip": "0x5"}, "strip is '0x5'"),
        ({"fps": -1.0}, "fps is -1.0"),
        ({"split": 1.0}, "split is 1.0"),
    ],
)
def test_absurd_settings(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        PrepareSettings(**change)


# --- Inside -------------------------------------------------------------------------------------------------------------------


def test_tasks_are_neighbours_of_about_the_same_cost() -> None:
    rng = np.random.default_rng(0)
    costs = rng.uniform(0.05, 0.5, 1000).tolist()
    tasks = divide(costs, [0.0] * 1000)
    assert [first for first, _ in tasks[1:]] == [stop for _, stop in tasks[:-1]]
    assert (tasks[0][0], tasks[-1][1]) == (0, 1000)
    shares = [sum(costs[first:stop]) for first, stop in tasks]
    assert 55 <= len(tasks) <= 75
    assert max(shares[:-1]) < 1.5 * min(shares[:-1])
    assert divide([1.0] * 3, [2.0**40] * 3) == [(0, 1), (1, 2), (2, 3)]  # no shard beyond its limit, if it can be helped
    assert divide([], []) == []


def test_the_report_holds_everything_itself(tmp_path: Path) -> None:
    for number in range(2):
        write_footage(tmp_path / "footage" / f"<b>{number}.mp4", 20, seed=number)
    write_footage(tmp_path / "footage" / "twin.mp4", 20, seed=0)
    out, _ = prepared(tmp_path / "footage", min_motion=0.5)
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 4 + 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert "url(" not in page
    assert "<b>0.mp4" not in page
    assert "&lt;b&gt;0.mp4, frame 8" in page
    assert "nearly the same as a clip that was kept" in page
    assert "<svg" in page


@pytest.mark.parametrize("fps", [None, 12.5])
def test_one_camera_is_split_by_time_and_no_frame_is_in_both_splits(tmp_path: Path, fps: float | None) -> None:
    write_footage(tmp_path / "footage" / "camera.mp4", 100, seed=3)
    out, info = prepared(tmp_path / "footage", stride=3, split=0.3, split_by="time", fps=fps, duplicates=-1)
    data = Dataset(out)
    spans: dict[str, set[int]] = {"train": set(), "test": set()}
    for record in (data.record(index) for index in range(len(data))):
        spans[record.split] |= set(range(record.first_frame, record.first_frame + 8))
    border = 70 if fps is None else 35
    assert all(spans.values())
    assert max(spans["train"]) < border <= min(spans["test"])
    assert info.refused["border"] == sum(refusal["reason"] == "border" for refusal in refusals(out)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("executor", "options"), [("ray", {}), ("slurm", {"cluster": "local"})])
def test_clusters_make_the_same_dataset(three_tasks: Path, executor: Kind, options: dict[str, Any]) -> None:
    """Ray on this machine, and Slurm's jobs on submitit's local cluster; each takes half a minute to begin and end."""
    prepare([three_tasks], three_tasks.parent / "here", PLAIN)
    prepare([three_tasks], three_tasks.parent / "there", PLAIN, executor=executor, workers=2, cluster=options)
    assert content(three_tasks.parent / "there") == content(three_tasks.parent / "here")


@pytest.mark.slow
def test_real_hands(tmp_path: Path) -> None:
    if "KINEMA_FOOTAGE" not in os.environ:
        pytest.skip("KINEMA_FOOTAGE names no folder with real footage")
    hands = Path(os.environ["KINEMA_FOOTAGE"]) / "01_static" / "hands" / "tom"
    info = prepare([hands], tmp_path / "data", PrepareSettings(labels="name", split=0.1))
    frames = 9665  # of all files together
    assert info.kept > 0.9 * frames / 32
    assert set(info.labels) == set("ABCDEFGHIKLM")


def test_every_reason_to_refuse_is_explained_in_the_report() -> None:
    """Reasons are words in the modules that refuse: all of them have a line in the table *Refused, by reason*."""
    package = Path(cutting.__file__).parent
    code = "\n".join(path.read_text() for path in package.glob("*.py"))
    reasons = {*re.findall(r'Refusal\([\w.]+, "([a-z ]+)"', code), *re.findall(r'refuse\("([a-z ]+)"', code)}
    assert {"no person", "no poses", "in no split file", "too short", "black"} <= reasons
    assert reasons <= set(EXPLANATIONS)
