"""kinema evaluate --complete, and sampling, classes and captions of systems that diffuse; by one whose answers are known."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.cli.compare import Compare, plan
from kinema.cli.evaluate import COMPLETIONS
from kinema.cli.trained import open_completer, open_source
from kinema.core.config import to_mapping
from kinema.core.sampling import Sampling
from kinema.core.tasks import abilities
from kinema.data.dataset import Dataset
from kinema.evaluation.completion import TASKS
from kinema.evaluation.leaderboard import sampling_parameters
from kinema.systems import SYSTEMS
from kinema.training import load, save_checkpoint
from small_dataset import write_dataset
from small_diffuser import NAME, SmallDiffuser, install, save

SHAPE = (8, 16, 16)
LABELS = ("bow", "walk")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs of a system that is told nothing, classes or captions; and 20 training and 20 test clips."""
    install(monkeypatch)
    write_dataset(tmp_path / "data", 40, per_shard=40, shape=SHAPE, test_every=2, labels=LABELS)
    save(tmp_path / "run")
    save(tmp_path / "labelled", ("label",), labels=list(LABELS))
    save(tmp_path / "captioned", ("caption",), labels=list(LABELS))
    return tmp_path


def run(*words: object) -> int:
    return main(["evaluate", *(str(word) for word in words)])


def level(clip: np.ndarray) -> int:
    """Return how many hundredths of the way from grey to white a clip is."""
    return round(float(clip.mean() / 127.5 - 1) * 100)


def test_the_names_on_the_command_line_are_those_of_the_tasks() -> None:
    assert tuple(TASKS) == COMPLETIONS


def test_completions_from_command_to_page(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (place / "run", "--against", place / "data", "--complete", "--count", 8, "--steps", 7)
    assert run(*words, "--out", tmp_path / "one") == 0
    said = capsys.readouterr().out
    assert re.search(r"run\s+completes\s+8\s+clips\s+of", said)
    assert "psnr of the first frame, not pasted" in said
    report = json.loads((tmp_path / "one" / "report.json").read_text())
    assert list(report["scores"]) == list(COMPLETIONS)
    assert (report["protocol"]["kind"], report["protocol"]["split"], report["protocol"]["clips"]) == ("completions", "test", 8)
    assert report["protocol"]["told beside the known pixels"] == "nothing"
    assert report["judged"]["sampling"] == to_mapping(Sampling(steps=7))
    score = report["scores"]["image-to-video"]["psnr"]
    assert score["compressor"] == pytest.approx(score["known, of the compressor"], abs=0.5)
    assert score["compressor"] > score["value"] + 10  # noise has no future; the compressor is given it
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["report.html", "report.json"]
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("data:image/webp;base64,") == len(COMPLETIONS)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    assert run(*words, "--seed", 1, "--out", tmp_path / "seed") == 0
    assert run(*words[:-2], "--out", tmp_path / "two") == 0
    capsys.readouterr()
    assert run("--compare", tmp_path / "one", tmp_path / "two") == 0
    said = capsys.readouterr().out
    assert "differences, clip by clip" in said
    assert re.search(r"extend psnr\s+\+0 \(\+0 to \+0\), p 1", said)  # it takes no notice of the steps
    assert run("--compare", tmp_path / "one", tmp_path / "seed") == 2
    assert "different protocols" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if "inpaint" in abilities(system)])
def test_every_system_that_inpaints_is_judged(name: str, place: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    system = SYSTEMS[name](SYSTEMS[name].presets["tiny"].config)
    (tmp_path / "untrained").mkdir()
    save_checkpoint(tmp_path / "untrained" / "checkpoint.safetensors", system, stage="test", dataset={"fps": 25.0})
    shape = system.clip_shape
    write_dataset(tmp_path / "own", 16, per_shard=16, shape=(shape.frames, shape.height, shape.width), test_every=2)
    words = (tmp_path / "untrained", "--against", tmp_path / "own", "--complete", "--tasks", "interpolate", "moving-box")
    assert run(*words, "--out", tmp_path / "card") == 0
    report = json.loads((tmp_path / "card" / "report.json").read_text())
    for score in report["scores"].values():
        assert 0 < score["psnr"]["value"] < 30
        assert (score["psnr"]["compressor"] is not None) == ("reconstruct" in abilities(system))


def test_what_other_frames_show_counts_unless_it_is_left_out(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system makes a picture of one grey, and so does the film, but for its grain."""
    grain = np.random.default_rng(0).integers(120, 136, (1, 16, 16, 3), np.uint8).repeat(8, axis=0)
    monkeypatch.setattr(Dataset, "video", lambda self, index: grain)
    monkeypatch.setattr(SmallDiffuser, "inpaint", lambda self, video, known, **asked: torch.zeros_like(video))
    words = (place / "run", "--against", place / "data", "--complete", "--count", 8, "--tasks", "extend", "moving-box")
    scores = {}
    for name, more in (("with", ()), ("without", ("--no-clean-plate",))):
        assert run(*words, *more, "--out", tmp_path / name) == 0
        report = json.loads((tmp_path / name / "report.json").read_text())
        assert report["judged"]["clean plate"] == (name == "with")
        scores[name] = {task: score["psnr"]["value"] for task, score in report["scores"].items()}
    assert scores["with"]["moving-box"] == 100
    assert scores["without"]["moving-box"] < 40
    assert scores["with"]["extend"] == scores["without"]["extend"]


def test_some_tasks_and_a_guidance_that_tells_the_class(place: Path, tmp_path: Path) -> None:
    words = ("--against", place / "data", "--complete", "--count", 8, "--tasks", "extend", "box", "--guidance", 3)
    assert run(place / "labelled", *words, "--out", tmp_path / "card") == 0
    report = json.loads((tmp_path / "card" / "report.json").read_text())
    assert list(report["scores"]) == ["extend", "box"]
    assert report["protocol"]["told beside the known pixels"] == "its label"
    assert run(place / "labelled", *words, "--completions", 2, "--out", tmp_path / "two") == 0
    two = json.loads((tmp_path / "two" / "report.json").read_text())
    assert two["clips"] == report["clips"]
    assert two["scores"]["box"]["psnr"]["best of several"]["value"] >= report["scores"]["box"]["psnr"]["value"]
    assert "mean of 2" in (tmp_path / "two" / "report.html").read_text()
    completer, real = open_completer(str(place / "labelled"), place / "data", None, "cpu", {"guidance": 3.0})
    grey, known = np.full((*SHAPE, 3), 128, np.uint8), np.stack([TASKS["extend"].known(real.shape, 0)] * 2)
    bow, walk = completer.complete([grey, grey], known, [0, 1], [0, 1])
    assert level(walk[4:]) - level(bow[4:]) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("run", "--guidance", 3), "--guidance exaggerates a class or a caption: run takes neither"),
        (("run", "--tasks", "extent"), "there is no task 'extent'; did you mean 'extend'?"),
        (("run", "--count", 3), "--count is 3; data has 20 clips: give 8 to 20"),
        (("run", "--completions", 0), "completions is 0; it must be from 1 to 1000"),
        (("run", "--steps", 0), "steps is 0; it must be 1 or more"),
        (("run", "--paired"), "--paired compares videos, --forecast poses and --complete parts of videos; give one"),
        (("run", "--stride", 2), "--stride has no meaning with --complete"),
        (("data",), "data is a directory without a checkpoint.safetensors"),
    ],
)
def test_bad_input_is_one_sentence(
    place: Path, words: tuple, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    assert run(*words, "--against", "data", "--complete") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"kinema: {sentence}")
    assert said.count("\n") == 1


def test_options_have_their_places(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    assert run("run", "--against", "data", "--tasks", "extend") == 2
    assert "--tasks has no meaning without --complete" in capsys.readouterr().err
    assert run("run", "--against", "data", "--paired", "--steps", 3) == 2
    assert "--steps has no meaning with --paired" in capsys.readouterr().err
    assert run("data", "--against", "data", "--steps", 3) == 2
    assert "--steps is for a run that makes clips in steps, and data is none" in capsys.readouterr().err


# --- Classes, captions and sampling -------------------------------------------------------------------------------------------


def test_steps_reach_the_sampler(place: Path) -> None:
    usual, more = (open_source(str(place / "run"), "cpu", place / "data", chosen) for chosen in ({}, {"steps": 5}))
    assert (level(usual.read([0])[0]), level(more.read([0])[0])) == (20, 50)
    assert more.about["sampling"]["steps"] == 5
    assert more.about["asked for"] == "nothing"
    assert more.by_label is None


def test_a_system_is_asked_by_label(place: Path) -> None:
    source = open_source(str(place / "labelled"), "cpu", place / "data")
    assert source.by_label is not None
    assert [level(clip) for clip in source.by_label([0, 1, 2], [0, 1, 0])] == [20, 21, 20]
    assert source.labels == LABELS
    assert source.about["asked for"] == "label of training clips, drawn by the seed"
    write_dataset(place / "fifths", 40, per_shard=40, shape=SHAPE, labels=LABELS)
    mixed = open_source(str(place / "labelled"), "cpu", place / "fifths")
    assert {level(clip) for clip in mixed.read(range(20))} == {20, 21}  # for the distances, as training clips are


def test_a_system_is_asked_by_captions_of_held_out_clips_of_the_class(place: Path) -> None:
    """Even clips are held out and bow, odd ones are learnt from and walk: nothing held out says what walking is."""
    assert open_source(str(place / "captioned"), "cpu", place / "data").by_label is None
    write_dataset(place / "threes", 40, per_shard=40, shape=SHAPE, test_every=3, labels=LABELS)
    source = open_source(str(place / "captioned"), "cpu", place / "threes")
    assert source.by_label is not None
    asked = [level(clip) - 20 for clip in source.by_label(range(14), [0, 1] * 7)]
    held_out = Dataset(place / "threes", "test")
    sentences = {
        level: [r.caption for r in map(held_out.record, range(len(held_out))) if r.label == LABELS[level]] for level in (0, 1)
    }
    assert all(f"sentence {number}" in sentences[label] for number, label in zip(asked, [0, 1] * 7, strict=True))
    assert len(set(asked)) > 4  # not one caption again and again


def test_what_was_made_in_many_steps_is_not_made_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    source = open_source(str(place / "run"), "cpu", place / "data")
    cells = type(load(str(place / "run"))).diffuse

    def counted(self, seeds, **options):
        made.extend(seeds)
        return cells(self, seeds, **options)

    monkeypatch.setattr("small_diffuser.SmallDiffuser.diffuse", counted)
    first, again = source.read([3, 4, 5]), source.read([5, 6, 3])
    assert made == [3, 4, 5, 6]
    assert (again[0] == first[2]).all()
    assert (again[2] == first[0]).all()


def test_a_stopped_card_of_a_system_that_diffuses_makes_no_clip_twice(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    cells = SmallDiffuser.diffuse

    def stops(self: SmallDiffuser, seeds: Sequence[int], **options: Any) -> Any:
        made.extend(seeds)
        if len(made) == 24:
            raise KeyboardInterrupt
        return cells(self, seeds, **options)

    words = ("--against", place / "data", "--split", "all", "--features", "small_features:Colours", "--replicates", 2)
    assert run(place / "run", *words, "--count", 32, "--out", tmp_path / "whole") == 0
    monkeypatch.setattr(SmallDiffuser, "diffuse", stops)
    assert run(place / "run", *words, "--count", 32, "--out", tmp_path / "out") == 130
    assert run(place / "run", *words, "--count", 32, "--out", tmp_path / "out") == 0
    assert made == [*range(24), *range(16, 32)]
    whole, found = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("whole", "out"))
    assert found["scores"] == whole["scores"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]


def test_sampling_parameters_of_a_system_that_diffuses(place: Path) -> None:
    """Its denoiser, not its compressor, whose decoder it does without."""
    assert sampling_parameters(load(str(place / "run"))) == 3 * 3 + 3


def test_a_comparison_takes_a_system_that_diffuses_and_has_stages(place: Path) -> None:
    write_dataset(place / "more", 80, per_shard=80, shape=SHAPE, test_every=2, labels=LABELS)
    contest = plan(Compare(data=place / "more", out=place / "out", systems=f"{NAME},vgan", preset="tiny", minutes=1.0))
    assert [(one.name, one.points) for one in contest.contestants] == [(NAME, 1), ("vgan", 3)]
