"""kinema evaluate --paired of a run that transfers motion, as a person types it, on an untrained tiny system."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from kinema.cli import main
from kinema.cli.trained import Trained
from kinema.evaluation.transfers import Reenacted
from kinema.systems.dance import Dance
from kinema.training.checkpoint import provenance, save_checkpoint
from small_dataset import write_dataset

SHAPE = (4, 32, 32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two untrained systems, and datasets: with poses, without, and of another size; 10 of 40 clips are held out."""
    folder = tmp_path_factory.mktemp("place")
    for number, name in enumerate(("full", "ablated")):
        (folder / name).mkdir()
        torch.manual_seed(number)
        file = folder / name / "checkpoint.safetensors"
        save_checkpoint(file, Dance(Dance.presets["tiny"].config), stage="test", dataset={"fps": 25.0}, provenance=provenance())
    write_dataset(folder / "data", 40, per_shard=40, shape=SHAPE, test_every=4, people=True)
    write_dataset(folder / "plain", 40, per_shard=40, shape=SHAPE, test_every=4)
    write_dataset(folder / "wide", 40, per_shard=40, shape=(4, 32, 48), test_every=4, people=True)
    return folder


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


def judge(place: Path, name: str, out: Path) -> dict:
    assert run(place / name, "--against", place / "data", "--paired", "--perceptual", "none", "--out", out) == 0
    return json.loads((out / "report.json").read_text())


def test_a_report_of_frame_body_and_face(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judge(place, "full", tmp_path / "full")
    assert (report["protocol"]["kind"], report["protocol"]["pairs"]) == ("transfers", 10)
    assert report["protocol"]["baseline"] == "nearest training frame"
    assert set(report["transfer"]["regions"]) == {"frame", "body", "face"}
    frame = report["transfer"]["regions"]["frame"]["psnr"]
    assert frame["value"] == pytest.approx(report["scores"]["psnr"]["value"])
    assert frame["gain"]["value"] == pytest.approx(frame["value"] - frame["nearest training frame"])
    assert len(report["transfer"]["clips"]["face ssim"]) == 10
    said = capsys.readouterr().out
    assert re.search(r"body: ssim\s", said)
    assert "gain over pasting" in said
    assert "re-enacted from their poses" in (tmp_path / "full" / "report.html").read_text()


def test_an_ablation_stands_beside_the_whole_clip_by_clip(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, other = judge(place, "full", tmp_path / "full"), judge(place, "ablated", tmp_path / "ablated")
    capsys.readouterr()
    assert run("--compare", tmp_path / "full", tmp_path / "ablated") == 0
    said = capsys.readouterr().out
    assert "differences, clip by clip" in said
    line = next(line for line in said.splitlines() if line.strip().startswith("face psnr"))
    clips = [report["transfer"]["clips"]["face psnr"] for report in (one, other)]
    mean = sum(b - a for a, b in zip(*clips, strict=True)) / 10
    assert f"{mean:+.3g}" in line
    assert re.search(r"p [0-9.e-]+", line)


def test_a_stopped_judgement_goes_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten clips in portions of eight, stopped by Ctrl-C in the second: nothing of the first is made or measured again."""
    expected = judge(place, "full", tmp_path / "whole")
    made, measured = list[int](), list[int]()
    transfer, add = Trained.transfer, Reenacted.add

    def stops(self: Trained, poses: Any, **settings: Any) -> Any:
        made.append(len(poses))
        if len(made) == 2:
            raise KeyboardInterrupt
        return transfer(self, poses, **settings)

    def counted(self: Reenacted, index: int, *clips: Any) -> None:
        measured.append(index)
        add(self, index, *clips)

    monkeypatch.setattr(Trained, "transfer", stops)
    monkeypatch.setattr(Reenacted, "add", counted)
    words = (place / "full", "--against", place / "data", "--paired", "--perceptual", "none", "--out", tmp_path / "out")
    assert run(*words) == 130
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["unfinished.npz"]
    report = judge(place, "full", tmp_path / "out")
    assert made == [8, 2, 2, 6]  # the last six are for the page
    assert len(measured) == len(set(measured)) == 10
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    for one in (report, expected):
        one["provenance"].pop("time")
    assert report == expected


def test_reports_of_other_protocols_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = judge(place, "full", tmp_path / "full")
    report["protocol"]["detector"] = "mediapipe"
    (tmp_path / "other.json").write_text(json.dumps(report))
    assert run("--compare", tmp_path / "full", tmp_path / "other.json") == 2
    assert "different protocols and cannot be compared (detector: none and mediapipe)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("plain", "carry no poses; prepare them with --pose to judge"),
        ("wide", r"are 48x32; .* makes frames of 32x32"),
    ],
)
def test_data_that_do_not_fit(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: str, sentence: str
) -> None:
    assert run(place / "full", "--against", place / data, "--paired", "--out", tmp_path / "out") == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_a_detector_wants_a_run_that_transfers(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (place / "data", "--against", place / "data", "--paired", "--detector", "mediapipe", "--out", tmp_path / "out")
    assert run(*words) == 2
    assert "--detector finds poses in what a run re-enacts" in capsys.readouterr().err
    assert run(place / "full", "--against", place / "data", "--detector", "mediapipe", "--out", tmp_path / "out") == 2
    assert "--detector has no meaning without --paired" in capsys.readouterr().err
