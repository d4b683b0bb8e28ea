"""kinema probe, as a person types it, and kinema evaluate --classifier; untrained tiny systems."""

import json
from pathlib import Path

import pytest
import torch

from kinema.cli import main
from kinema.evaluation import probe as module
from kinema.systems import SYSTEMS
from kinema.systems.vgan_recogniser import VGANRecogniserConfig
from kinema.training.checkpoint import save_checkpoint
from labelled_dataset import write_labelled
from small_dataset import write_dataset


def save(folder: Path, name: str, config: object = None, **dataset: object) -> None:
    folder.mkdir()
    torch.manual_seed(0)
    system_class = SYSTEMS[name]
    system = system_class(config or system_class.presets["tiny"].config)
    save_checkpoint(folder / "checkpoint.safetensors", system, stage="test", dataset={"fps": 25.0, **dataset})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    save(folder / "run", "vgan")
    split = {"anna": "train", "bert": "train", "cleo": "test"}
    data = write_labelled(folder / "data", per_video=24, splits=split)
    write_labelled(folder / "others", labels=("up", "down"), per_video=24, splits=split)
    write_labelled(folder / "unsplit", per_video=12)
    write_labelled(folder / "unlabelled", unlabelled=True)
    write_labelled(folder / "one-class", labels=("left",))
    write_labelled(folder / "lonely", per_video={"left": 4, "right": 1}, groups=("anna",))
    write_dataset(folder / "leaking", 20, shape=(8, 16, 16))
    write_dataset(folder / "wide", 20, shape=(8, 16, 20))
    from kinema.data.dataset import Dataset

    about = {"fingerprint": Dataset(data).fingerprint, "labels": ["left", "right"]}
    save(folder / "classifier", "vgan-recogniser", split="train", **about)
    save(folder / "glutton", "vgan-recogniser", split="all", **about)
    save(folder / "peeker", "vgan-recogniser", split="test", **about)
    small = VGANRecogniserConfig(frames=2, size=8, discriminator_width=4, classes=2)
    save(folder / "small", "vgan-recogniser", small, split="train", **about)
    return folder


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_probe_from_command_to_page(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRACTIONS", (1.0, 0.5))
    monkeypatch.setattr("kinema.evaluation.probe_report.FRACTIONS", (1.0, 0.5))
    words = ("probe", place / "run", "--data", place / "data", "--out", tmp_path / "out", "--seeds", 1, "--steps", 2)
    assert run(*words) == 0
    said = capsys.readouterr()
    assert "seed 0, all labels, fine-tuned, 96 clips: " in said.err
    assert "seed 0, 1/2 of the labels, random, 48 clips: " in said.err
    assert "accuracy per clip" in said.out
    assert "chance 50.0%, always the most frequent class 50.0%" in said.out
    assert "held out: the dataset's own test split" in said.out
    assert f"report: {tmp_path / 'out' / 'report.html'}" in said.out.replace("\n", "")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["data"]["test clips"] == [48]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "cells",
        "question.json",
        "report.html",
        "report.json",
    ]
    assert run(*words) == 0  # everything is stored
    assert json.loads((tmp_path / "out" / "report.json").read_text())["rows"] == report["rows"]


def test_ctrl_c_says_how_to_go_on(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.Probe, "_compute", stop)
    assert run("probe", place / "run", "--data", place / "data", "--out", tmp_path) == 130
    assert f"what is done is kept in {tmp_path}; the same command goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("run_name", "data", "words", "sentence"),
    [
        (
            "classifier",
            "data",
            (),
            "classifier is a run of vgan-recogniser, which has no discriminator or encoder of clips; probe",
        ),
        ("nowhere", "data", (), "nowhere does not exist; give a run directory"),
        ("run", "nowhere", (), "nowhere is not a directory"),
        ("run", "unlabelled", (), "unlabelled has clips without a label; prepare it with --labels"),
        ("run", "one-class", (), "one-class has the one class 'left'; to recognise means"),
        ("run", "lonely", (), "the class 'right' of lonely has 1 clip; a class needs one to train on and one to test on"),
        ("run", "leaking", (), "the group 'hall.mp4' of leaking is in both splits: who is recognised may be the group"),
        ("run", "wide", (), "wide has clips of 8x16x20 and run was trained on 8x16x16 (frames x height x width); prepare"),
        ("run", "data", ("--seeds", "0"), "seeds is 0; it must be 1 or more"),
        ("run", "data", ("--held-out", "1"), "held_out is 1.0; it must be above 0 and below 1"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path,
    run_name: str,
    data: str,
    words: tuple[str, ...],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    assert run("probe", run_name, "--data", data, "--out", "out", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: {sentence}")
    assert said.count("\n") == 1
    assert not (place / "out").exists()


# --- Scores by a classifier ---------------------------------------------------------------------------------------------------


def judge(place: Path, out: Path, *words: object) -> int:
    judged = ("evaluate", place / "run", "--against", place / "data", "--features", "small_features:Colours", "--out", out)
    return run(*judged, "--count", 32, "--replicates", 10, *words)


def test_scores_by_a_classifier_stand_on_the_card(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge(place, tmp_path, "--classifier", place / "classifier") == 0
    said = capsys.readouterr().out
    assert "inception score = exp(mean KL(p(y|x) || p(y)))" in said
    assert "accuracy of the classifier" in said
    assert "% of 48 held out" in said
    report = json.loads((tmp_path / "report.json").read_text())
    scores = report["recognition"]["scores"]
    assert list(scores) == ["inception score", "inter-entropy", "intra-entropy"]
    assert 1 <= scores["inception score"]["value"] <= 2
    assert sum(report["recognition"]["recognised as"].values()) == 32
    assert len(report["protocol"]["classifier sha256"]) == 64
    assert any("The classifier was trained on some of the real clips" in warning for warning in report["warnings"])
    assert "inter-entropy = H(p(y))" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("classifier", "data", "sentence"),
    [
        ("run", "data", "run is a run of vgan, which recognises nothing; train one of: vgan-recogniser"),
        (
            "classifier",
            "others",
            "the classifier classifier knows 2 classes (left, right) and others has 2 classes (up, down); train it on",
        ),
        (
            "classifier",
            "unsplit",
            "unsplit has no test split on which the classifier could be measured; prepare it with --split",
        ),
        (
            "glutton",
            "data",
            "the classifier glutton was trained on the split 'all' of data, whose held-out clips are to measure it; train",
        ),
        (
            "peeker",
            "data",
            "the classifier peeker was trained on the split 'test' of data, whose held-out clips are to measure it; train",
        ),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(
    place: Path, classifier: str, data: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run("evaluate", "run", "--against", data, "--classifier", classifier, "--out", "card") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: {sentence}")
    assert said.count("\n") == 1


def test_a_classifier_of_other_clips_is_refused(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run("evaluate", "run", "--against", "data", "--classifier", "small", "--out", tmp_path / "card") == 2
    assert "the classifier small was trained on clips of 2x8x8 and data has 8x16x16" in capsys.readouterr().err


def test_training_asks_for_as_many_classes_as_there_are(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("train", "vgan-recogniser", place / "data", "--out", tmp_path / "run", "--preset", "tiny")
    assert run(*words, "--classes", 5) == 2
    assert "has 2 classes (left, right) and vgan-recogniser is set to 5; give --classes 2" in capsys.readouterr().err
    assert run(*words, "--steps", 2) == 0
    assert "make clips with" not in capsys.readouterr().err  # it makes none
    assert run("evaluate", place / "data", "--against", place / "data", "--classifier", tmp_path / "run", "--count", "40",
               "--features", "small_features:Colours", "--out", tmp_path / "card") == 0  # fmt: skip
