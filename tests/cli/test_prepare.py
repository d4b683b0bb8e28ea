"""``kinema prepare`` as a person types it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from footage import make_frames, write_footage, write_strip
from kinema.cli import main
from kinema.data.dataset import Dataset
from kinema.data.media import probe
from kinema.pose.files import write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18
from moving_dots import write_film
from small_onnx import write_network


@pytest.fixture
def footage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("walk/a.mp4", "run/b.mp4")):
        write_footage(tmp_path / "footage" / name, 20, seed=number)
    return tmp_path / "footage"


def test_footage_in_dataset_out(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "prepare",
        "footage",
        "--out",
        "data",
        "--frames",
        "8",
        "--size",
        "32x24",
        "--labels",
        "folder",
        "--workers",
        "1",
    ]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "data: 4 clips, 8 frames of 32x24 at 25 fps, from 2 sources" in shown
    assert "refused: 2 rest (each is listed in data/refused.jsonl)" in shown
    data = Dataset("data")
    assert str(data.shape) == "8x24x32"
    assert data.info.settings["labels"] == "folder"


def test_many_refusals_for_one_reason_say_what_keeps_the_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = np.zeros((8, 32, 32, 3), np.uint8)
    for time_, frame in enumerate(small):
        frame[10:13, 3 * time_ : 3 * time_ + 3] = 255
    write_strip(tmp_path / "strips" / "a.png", small)
    write_strip(tmp_path / "strips" / "b.png", make_frames(8, width=32, height=32))
    command = ["prepare", "strips", "--strip", "32x32", "--frames", "8", "--size", "32", "--stabilise", "off", "--workers", "1"]
    assert main([*command, "--out", "one"]) == 0
    note = "note: 50% were refused as black; look at them in the report: if they are good, --black 1 keeps them"
    assert note in capsys.readouterr().out
    assert main([*command, "--out", "two", "--black", "1"]) == 0
    shown = capsys.readouterr().out
    assert "two: 2 clips" in shown
    assert "note" not in shown


@pytest.mark.parametrize("what", [["footage", "--stabilise", "off"], ["performers", "--clips", "3"]])
def test_storage_changes_no_pixel(footage: Path, what: list[str]) -> None:
    for storage in ("pixels", "encoded", "auto"):
        assert (
            main(["prepare", *what, "--frames", "8", "--size", "32", "--storage", storage, "--out", storage, "--workers", "1"])
            == 0
        )
    pixels, encoded, auto = (Dataset(storage) for storage in ("pixels", "encoded", "auto"))
    assert pixels.fingerprint == auto.fingerprint != encoded.fingerprint
    for index in range(len(pixels)):
        assert (pixels.video(index) == encoded.video(index)).all()
        assert pixels.record(index) == encoded.record(index)
    assert "data:image/jpeg" in Path("encoded/report.html").read_text()


@pytest.mark.parametrize("kind", ["performers", "shapes"])
def test_procedural_clips_with_any_number_of_workers_and_after_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kinema.data.prepare.TASK_SECONDS", (0.0, 0.02))
    rest = [kind, "--clips", "9", "--frames", "4", "--size", "32", "--split", "0.3"]
    for out, workers in (("one", "1"), ("two", "2")):
        assert main(["prepare", *rest, "--out", out, "--workers", workers]) == 0
    one, two = Dataset("one"), Dataset("two")
    assert len(one) == 9
    assert one.fingerprint == two.fingerprint
    assert len(Dataset("one", "test")) == 2
    assert (one.info.skeleton is not None) == (kind == "performers")
    assert one.array(0, "mask") is not None
    assert set(one.info.labels) >= {one.record(i).label for i in range(9)}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere", "--out", "data"], "nowhere does not exist; give a file or a folder with footage"),
        (["--out", "data"], "no source was given"),
        (["footage"], "--out"),
        (["footage", "--out", "footage/data"], "lies inside the footage"),
        (["footage", "--out", "data", "--frames", "0"], "frames is 0; it must be at least 1"),
        (["footage", "--out", "data", "--frames", "many"], "--frames"),
        (["footage", "--out", "data", "--storage", "zip"], "--storage"),
        (["footage", "--out", "data", "--workers", "0"], "workers is 0; it must be at least 1"),
        (["footage", "--out", "data", "--executor", "rya"], "--executor"),
        (["footage", "--out", "data", "--frame", "8"], "did you mean --frames"),
        (["footage", "--out", "data", "--labels", "lables.csv"], "lables.csv cannot be read as a table: No such file"),
        (
            ["footage", "--out", "data", "--labels", "folderr"],
            "'folderr' is no part of a path and no table (.csv, .jsonl, .txt);",
        ),
        (["footage", "--out", "data", "--group", "folderr"], "did you mean 'folder'? accepted: folder, name, parent2"),
        (["footage", "--out", "data", "--group", "folder", "--frames", "8", "--split", "1"], "split is 1.0"),
        (["footage", "--out", "data", "--split-by", "time"], "split_by is 'time'; it must be group where --split holds"),
        (["footage", "--out", "data", "--scene-threshold", "0.5"], "scene_threshold is 0.5; it must be left out where --scene"),
        (["footage", "--out", "data", "--cluster", "a=b"], "are for --executor slurm"),
        (["footage", "--out", "data", "--cluster", "a", "--executor", "slurm"], "cluster option 'a' must be NAME=VALUE"),
        (["footage", "--out", "data", "--frames", "999"], "no usable clip: refused 2 short; for example"),
        (["performers", "--out", "data", "--actions", "wlak"], "wlak"),
        (["performers", "--out", "data", "--split", "-1"], "split is -1.0"),
    ],
)
def test_what_is_wrong_is_one_sentence(footage: Path, capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    assert main(["prepare", *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert not (footage / "data").exists()
    assert not Path("data").exists()


def test_unknown_clips_in_a_table_are_named(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.csv").write_text("source,label\nwalk/a.mp4,walk\nwalk/z.mp4,walk\n")
    assert main(["prepare", "footage", "--out", "data", "--labels", "labels.csv"]) == 2
    assert "labels.csv names 1 clips that are not in the sources: walk/z.mp4" in capsys.readouterr().err


def test_clips_of_several_rates_are_not_said_to_have_one(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_footage(footage / "slow.mp4", 8, fps=10, seed=2)
    options = ["--frames", "8", "--size", "32", "--stabilise", "off", "--workers", "1"]
    assert main(["prepare", "footage", "--out", "data", *options]) == 0
    shown = capsys.readouterr().out
    assert "data: 5 clips, 8 frames of 32x32 at 10 to 25, mostly 25 fps, from 3 sources" in shown
    assert "note: the footage has several frame rates" in shown
    assert "10 to 25, mostly 25 frames per second" in Path("data/report.html").read_text()
    assert main(["info", "data"]) == 0
    assert "frames per second  10 to 25, mostly 25\n" in capsys.readouterr().out
    assert main(["prepare", "footage", "--out", "alike", *options, "--fps", "10"]) == 0
    assert "several" not in capsys.readouterr().out


def test_a_class_that_is_held_out_whole_is_said(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--frames", "8", "--size", "32", "--stabilise", "off", "--workers", "1", "--labels", "folder"]
    assert main(["prepare", "footage", "--out", "data", *options]) == 0
    assert "note" not in capsys.readouterr().out
    assert main(["prepare", "footage", "--out", "split", *options, "--split", "0.5"]) == 0
    data = Dataset("split", "test")
    assert f"note: no clip of {data.record(0).label} is in the training split" in capsys.readouterr().out


def test_a_folder_in_which_nothing_can_be_written(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the place of a parent folder: refused like a lack of permission, and so for the superuser too."""
    Path("file").write_text("")
    assert main(["prepare", "footage", "--out", "file/data", "--frames", "8", "--workers", "1"]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_control_c_says_how_to_go_on(footage: Path) -> None:
    """Ctrl-C reaches the whole group of processes; the command answers at once, and the same one finishes."""
    for number in range(10):
        write_footage(footage / f"{number}.mp4", 150, seed=number)
    settings = ["--frames", "16", "--stride", "1", "--size", "32", "--stabilise", "off"]
    command = ["prepare", "footage", "--out", "data", *settings, "--workers", "2"]
    script = (
        "import kinema.data.prepare as p; p.TASK_SECONDS = (0, 1e-9)\nfrom kinema.cli import main\nraise SystemExit(main())"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", script, *command],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not list(Path("data/prepare").glob("0*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)
    _, error = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "what is done is kept in data; the same command goes on from there" in error
    assert "Traceback" not in error
    plan = json.loads(Path("data/prepare/plan.json").read_text())
    assert len(plan["items"]) == 12


def test_one_line_says_whom_of_several_people_is_taken(footage: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Person 0 is small, person 1 large; both films show both."""
    places = np.full((20, 2, 18, 3), 0.9, np.float32)
    places[:, 0, :, :2] = np.linspace((18, 4), (24, 12), 18)
    places[:, 1, :, :2] = np.linspace((20, 4), (40, 36), 18)
    for name in ("walk/a.npz", "run/b.npz"):
        width, height = probe(footage / name.replace("npz", "mp4")).width, probe(footage / name.replace("npz", "mp4")).height
        write_poses(Path("poses") / name, Poses(places, COCO_18, width, height, 25.0))
    options = ["--frames", "8", "--size", "32", "--stabilise", "off", "--pose"]
    assert main(["prepare", "footage", "--out", "both", *options, "poses"]) == 0
    assert (
        "several people in 2 sources: took largest of each (the report lists them); choose with --person NUMBER"
        in capsys.readouterr().out
    )
    assert main(["prepare", "footage/walk/a.mp4", "--out", "one", *options, "poses/walk/a.npz", "--person", "0"]) == 0
    assert "a.mp4: 2 people: took 0 (0, in 20 of 20 frames); the others are 1 (20 frames); choose" in capsys.readouterr().out
    assert main(["prepare", "footage", "--out", "none", *options, "poses", "--person", "tall"]) == 2
    assert "--person 'tall' is none of: largest" in capsys.readouterr().err


def test_files_that_are_no_footage_are_said_but_for_those_that_the_command_names(
    footage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (footage / "labels.csv").write_text("source,label\nwalk/a.mp4,walk\nrun/b.mp4,run\n")
    (footage / "captions.jsonl").write_text('{"source": "walk/a.mp4", "caption": "a walk"}\n')
    (footage / "trainlist.txt").write_text("walk/a.mp4\n")
    (footage / "testlist.txt").write_text("run/b.mp4\n")
    for name in ("walk/a.mp4", "run/b.mp4"):
        width, height = probe(footage / name).width, probe(footage / name).height
        places = np.full((20, 1, 18, 3), 0.9, np.float32)
        places[..., :2] = np.linspace((20, 4), (40, 36), 18)
        poses = Poses(places, COCO_18, width, height, 25.0)
        write_poses((footage / "poses" / name).with_suffix(".npz"), poses)
    named = ("--labels", "footage/labels.csv", "--captions", "footage/captions.jsonl", "--pose", "footage/poses")
    command = ["prepare", "footage", "--frames", "8", "--size", "32", "--stabilise", "off", "--workers", "1", *named]
    command += ["--split-files", "footage/trainlist.txt", "footage/testlist.txt"]
    assert main([*command, "--out", "none"]) == 0
    assert "passed over" not in capsys.readouterr().out
    (footage / "walk" / "notes.txt").write_text("rain")
    assert main([*command, "--out", "one"]) == 0
    assert "passed over: walk/notes.txt, which is no footage\n" in capsys.readouterr().out
    (footage / "run" / "poster.jpg").write_bytes(b"")
    assert main([*command, "--out", "two"]) == 0
    said = "passed over: 2 files that are no footage, the first run/poster.jpg (all are listed in two/dataset.json)\n"
    assert said in capsys.readouterr().out
    assert Dataset("two").info.ignored == ("run/poster.jpg", "walk/notes.txt")


def test_poses_beside_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A network finds dots in two films, in two processes; in one of them nobody is."""
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    write_network(tmp_path / "dots.onnx")
    write_film(tmp_path / "films" / "somebody.mp4", 8)
    write_film(tmp_path / "films" / "nobody.mp4", 8, empty=[*range(7)])
    options = ["--frames", "8", "--size", "72", "--stabilise", "off", "--pose", "dots.onnx", "--pose-skeleton", "coco-17"]
    assert main(["prepare", "films", "--out", "data", "--workers", "2", *options]) == 0
    assert "refused: 1 no person" in capsys.readouterr().out
    data = Dataset("data")
    assert (len(data), data.info.skeleton, data.arrays) == (1, "coco-17", {"video", "pose"})
    assert main(["prepare", "films", "--out", "gone", "--pose", "gone.onnx"]) == 2
    assert "the pose model gone.onnx cannot be read" in capsys.readouterr().err
