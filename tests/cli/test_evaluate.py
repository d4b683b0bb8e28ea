"""kinema evaluate, as a person types it, on untrained tiny systems and small datasets."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.data.encode import write_video
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import make_video, write_dataset

SHAPE = (8, 16, 16)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained runs, a dataset of 80 training and 20 test clips of noise, and folders of clips."""
    folder = tmp_path_factory.mktemp("place")
    for name, fps in (("run", 25.0), ("slow", 12.0)):
        (folder / name).mkdir()
        torch.manual_seed(0)
        system = SYSTEMS["vgan"](SYSTEMS["vgan"].presets["tiny"].config)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, system, stage="test", dataset={"fps": fps}, provenance=provenance())
    write_dataset(folder / "data", 100, per_shard=50, shape=SHAPE)
    write_dataset(folder / "few", 20, shape=SHAPE)
    write_dataset(folder / "wide", 60, per_shard=60, shape=(8, 16, 20))
    write_dataset(folder / "noise", 40, per_shard=40, shape=SHAPE, test_every=1)
    (folder / "files").mkdir()
    for number in range(33):
        write_video(folder / "files" / f"{number:03d}.mp4", make_video(1000 + number, *SHAPE), 25.0)
    np.save(folder / "raw.npy", np.stack([make_video(2000 + number, *SHAPE) for number in range(40)]))
    (folder / "nothing").mkdir()
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


def judge(place: Path, out: Path, what: object, *words: object) -> dict:
    assert run(what, "--against", place / "data", "--features", "small_features:Colours", "--out", out, *words) == 0
    return json.loads((out / "report.json").read_text())


def test_a_run_gets_a_report_card(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judge(place, tmp_path / "card", place / "run", "--count", 32, "--seed", 5)
    protocol = report["protocol"]
    assert (protocol["real clips"], protocol["judged clips"], protocol["frames"], protocol["fps"]) == (32, 32, 8, 25.0)
    assert protocol["split"] == "train"
    assert protocol["judged storage"] == "pixels"
    assert len(protocol["features sha256"]) == 64
    assert report["judged"]["clips"] == "seeds 5 to 36"
    assert report["judged"]["system"] == "vgan"
    score = report["scores"]["frechet[small_features:Colours]"]
    assert score["low"] < score["value"] < score["high"]
    assert score["floor"]["count"] == 32
    assert score["floor"]["low"] <= score["floor"]["mean"] <= score["floor"]["high"] < score["value"]
    assert score["times floor"] > 10  # an untrained generator is grey, the data are noise
    assert [count for count, _ in score["by clips"]] == [8, 16, 32]
    assert score["by clips"][-1][1] == score["value"]
    assert report["motion"]["motion against real"] < 0.1
    assert any("nearly still pictures" in warning for warning in report["warnings"])
    assert report["copies"]["training clips"] == 80
    assert report["copies"]["held-out clips"] == 20
    said = capsys.readouterr().out
    assert "frechet[small_features:Colours]" in said
    assert "note: The judged clips are nearly still pictures." in said
    assert f"report card: {tmp_path / 'card' / 'report.html'}" in said.replace("\n", "")
    assert "FVD" not in said
    assert sorted(path.name for path in (tmp_path / "card").iterdir()) == ["report.html", "report.json"]


def test_the_page_is_one_file(place: Path, tmp_path: Path) -> None:
    judge(place, tmp_path, place / "run", "--count", 32)
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == 2 + 3  # both sides and the nearest pairs
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert "frechet[small_features:Colours]" in page
    assert "{{" not in page


def test_the_same_question_gets_the_same_answer(place: Path, tmp_path: Path) -> None:
    one, other = (judge(place, tmp_path / name, place / "run", "--count", 32) for name in "ab")
    for part in ("scores", "protocol", "motion", "copies", "judged"):
        assert one[part] == other[part]
    assert list((place / "data" / "measures").glob("*.npz"))


def test_held_out_clips_are_near_the_floor_and_copies_are_found(place: Path, tmp_path: Path) -> None:
    """Noise of other seeds is as good as real; training clips themselves are copies."""
    fresh = judge(place, tmp_path / "fresh", place / "raw.npy", "--count", 32)
    assert fresh["scores"]["frechet[small_features:Colours]"]["times floor"] < 3
    assert fresh["copies"]["against held-out"] == pytest.approx(1, abs=0.1)
    assert fresh["motion"]["motion against real"] == pytest.approx(1, abs=0.05)
    assert any("how many frames per second" in warning for warning in fresh["warnings"])
    copied = judge(place, tmp_path / "copied", place / "noise", "--count", 32)  # the first 40 clips of data, all held out
    assert copied["copies"]["against held-out"] < 0.5
    assert any("may be copies" in warning for warning in copied["warnings"])


def test_encoded_clips_are_called_encoded(place: Path, tmp_path: Path) -> None:
    report = judge(place, tmp_path, place / "files")
    assert report["protocol"]["judged storage"] == "h264"
    assert report["protocol"]["judged clips"] == 33
    assert any("stored as h264 and the real ones were not" in warning for warning in report["warnings"])


def test_a_small_real_set_gives_a_smaller_floor_and_says_so(place: Path, tmp_path: Path) -> None:
    report = judge(place, tmp_path, place / "run", "--count", 60)
    assert report["scores"]["kernel[small_features:Colours]"]["floor"]["count"] == 40
    assert any("too small for two disjoint sets of 60 clips: the floor is that of 40" in said for said in report["warnings"])


def test_equal_protocols_stand_in_one_table_and_others_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {"a": (place / "run",), "b": (place / "noise",), "c": (place / "run", "--seed", 1)}.items():
        judge(place, tmp_path / name, *words, "--count", 32)
    capsys.readouterr()
    assert run("--compare", tmp_path / "a", tmp_path / "b" / "report.json") == 0
    said = capsys.readouterr().out
    assert "floor: real clips" in said
    assert run("--compare", tmp_path / "a", tmp_path / "c") == 2
    complaint = capsys.readouterr().err
    assert "were made by different protocols and cannot be compared (seed: 0 and 1)" in complaint
    assert complaint.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "evaluate wants a run or clips, and none is named"),
        (["run"], "evaluate wants real clips to judge against; give --against DATA"),
        (["nowhere", "--against", "data"], "nowhere does not exist; give a run, a checkpoint file, zoo:NAME"),
        (["zoo:nothing", "--against", "data"], "there is no zoo:nothing; accepted:"),
        (["nothing", "--against", "data"], "nothing holds no checkpoint, no dataset and no clips; files of clips end in"),
        (["run", "--against", "nowhere"], "nowhere is not a directory"),
        (
            ["run", "--against", "few"],
            "few has 16 clips in the split 'train'; a distance between distributions needs at least 32",
        ),
        (
            ["run", "--against", "data", "--count", "8"],
            "--count 8 is below the least number of clips, 32; give --count 32 to 80",
        ),
        (["run", "--against", "data", "--count", "81"], "data has 80 clips in the split 'train'; give --count 32 to 80"),
        (["files", "--against", "data", "--count", "50"], "files has 33 clips; give --count 32 to 33"),
        (
            ["run", "--against", "wide"],
            "run has clips of 8x16x16 and wide of 8x16x20 (frames x height x width); judge against data",
        ),
        (["slow", "--against", "data"], "slow has 12 frames per second and data 25; judge against data prepared with --fps 12"),
        (["run", "--against", "data", "--features", "nowhere:Net"], "the feature network nowhere:Net cannot be imported"),
        (["run", "--against", "data", "--seed", "-1"], "seed is -1; it must be 0 or more"),
        (["run", "--against", "data", "--out", "raw.npy"], "raw.npy is a file; --out is a folder"),
        (["--compare", "run"], "--compare wants two reports or more"),
        (["--compare", "run", "slow"], "run/report.json does not exist; kinema evaluate RUN --against DATA makes a report"),
        (["--compare", "raw.npy", "slow"], "raw.npy is no report of kinema evaluate, or damaged"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run(*words) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"kinema: {sentence}")
    assert said.err.count("\n") == 1
    assert not list(place.glob("*evaluation"))


def test_reports_that_exist_are_kept_unless_told_otherwise(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "report.json").write_text("mine")
    words = (place / "run", "--against", place / "data", "--features", "small_features:Colours", "--out", tmp_path)
    assert run(*words) == 2
    assert f"{tmp_path / 'report.json'} exists; give another --out, or --overwrite to replace it" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "mine"
    assert run(*words, "--overwrite") == 0


def test_by_default_the_report_goes_into_the_run(place: Path) -> None:
    words = ("--against", place / "data", "--features", "small_features:Colours", "--count", 32, "--overwrite")
    assert run(place / "run", *words) == 0
    assert (place / "run" / "evaluation" / "report.html").exists()
