"""kinema train --start-from, as a person drives it: what another run's weights begin, and what begins anew."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kinema.cli import main
from kinema.data.dataset import Dataset
from kinema.systems.dance import Dance
from kinema.systems.pose_knows import PoseKnows
from kinema.training import load, load_checkpoint
from kinema.training.start import take_over
from labelled_dataset import write_labelled
from small_dataset import write_dataset

TINY = ("--preset", "tiny", "--log-steps", 1)
STILL = ("--steps", 2, "--learning-rate", 0)  # parameters stay as they begin


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("people") / "data", 24, shape=(9, 16, 16), people=True)


@pytest.fixture(scope="module")
def others(people: Path) -> Path:
    return write_dataset(people.parent / "others", 16, shape=(9, 16, 16), people=True)


@pytest.fixture(scope="module")
def trained(people: Path) -> Path:
    """A run with a setting that is not its preset's."""
    out = people.parent / "trained"
    assert train("pose-knows", people, "--out", out, *TINY, "--steps", 8, "--state", 12) == 0
    return out


def train(*words: object) -> int:
    return main(["train", *(str(word) for word in words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert train(*words) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def parameters(run: Path) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in load(run).named_parameters()}


def assert_same_parameters(one: Path, other: Path) -> None:
    ours, theirs = parameters(one), parameters(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_begins_with_the_weights_and_settings_of_another(
    trained: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, still = tmp_path / "run", (*STILL, "--pose-learning-rate", 0)
    assert train("pose-knows", others, "--out", run, "--start-from", trained, *TINY, *still) == 0
    assert f"weights of {trained / 'checkpoint.safetensors'}, 8 steps\n" in capsys.readouterr().err
    assert load(run).config.state == 12
    assert_same_parameters(run, trained)
    assert load(run).spread != load(trained).spread  # of the new footage
    assert int(load(run).state_dict()["pose_steps"]) == 1  # of this run
    about = load_checkpoint(run).metadata.provenance["started from"]
    assert (about["steps"], about["dataset"]["clips"]) == (8, 19)
    assert json.loads((run / "config.json").read_text())["options"]["start_from"] == str(trained)
    assert str(trained) in (run / "index.html").read_text()


def test_another_rate_than_the_one_that_the_weights_know_is_said(trained: Path, others: Path, tmp_path: Path) -> None:
    system = PoseKnows(load(trained).config)
    start = take_over(system, str(trained))
    rate = Dataset(others).info.fps
    assert "learnt motion" not in start.in_words(rate)
    assert start.in_words(15.0).endswith("; they learnt motion at 25 frames per second, and these clips have 15")


def test_it_goes_on_as_any_run_and_then_needs_the_other_no_more(trained: Path, others: Path, tmp_path: Path) -> None:
    source = shutil.copytree(trained, tmp_path / "source")
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = ("--start-from", source, *TINY, "--latent", "none")
    assert train("pose-knows", others, "--out", whole, *words, "--steps", 4) == 0
    assert train("pose-knows", others, "--out", run, *words, "--steps", 4) == 0
    for name in ("resume.pt", "checkpoint.safetensors"):
        (run / name).unlink()  # killed before it could save: it begins again, with the weights
    assert train("pose-knows", others, "--out", run, "--resume") == 0
    assert_same_parameters(run, whole)
    shutil.rmtree(source)
    assert train("pose-knows", others, "--out", run, "--resume", "--steps", 6) == 0
    assert load_checkpoint(run).metadata.provenance["started from"]["steps"] == 8


def test_what_does_not_fit_begins_anew_and_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    three = write_labelled(tmp_path / "three", labels=("left", "right", "still"))
    two = write_labelled(tmp_path / "two")
    first, run = tmp_path / "first", tmp_path / "run"
    assert train("latent-video-dit", three, "--out", first, *TINY, "--steps", 4) == 0
    capsys.readouterr()
    still = (*STILL, "--compressor-rate", 0)
    assert train("latent-video-dit", two, "--out", run, "--start-from", first, *TINY, *still) == 0
    said = capsys.readouterr().err
    assert "begin anew: classes.weight\n" in said
    assert "classes: 2, as the dataset has them" in said
    ours, theirs = parameters(run), parameters(first)
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == ["classes.weight"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    stages = {line["stage"] for line in lines if "stage" in line}
    assert "linear_start" not in stages  # it would overwrite the compressor
    assert "latent_scale" in stages


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("pose-knows", "--start-from", "nowhere"), "nowhere"),
        (("pose-knows", "--start-from", "zoo:nothing"), "there is no zoo:nothing"),
        (("dance", "--start-from", "TRAINED"), "holds the system 'pose-knows', and dance can only start from its own"),
        (("pose-knows", "--start-from", "TRAINED", "--state", "40"), "leave out the settings that change its networks"),
    ],
)
def test_a_start_that_cannot_be_is_one_sentence_and_nothing_is_written(
    words: tuple[str, ...], sentence: str, trained: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system, *rest = (str(trained) if word == "TRAINED" else word for word in words)
    assert sentence in refused(capsys, system, others, "--out", tmp_path / "run", *TINY, "--steps", 2, *rest)
    assert not (tmp_path / "run").exists()


def test_a_damaged_start_is_refused(trained: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(shutil.copy(trained / "checkpoint.safetensors", tmp_path / "damaged.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    said = refused(capsys, "pose-knows", others, "--out", tmp_path / "run", "--start-from", file, *TINY, "--steps", 2)
    assert "was changed after it was written" in said
    assert not (tmp_path / "run").exists()


def test_another_person_has_a_floor_a_background_and_a_face_of_their_own(tmp_path: Path) -> None:
    shape, small = (6, 32, 32), (*TINY, "--batch-size", 2)
    faceless = write_dataset(tmp_path / "faceless", 16, shape=shape, people=True, faceless=True)
    seen = write_dataset(tmp_path / "seen", shape=shape, people=True)
    assert train("dance", faceless, "--out", tmp_path / "one", *small, "--steps", 7) == 0
    assert train("dance", seen, "--out", tmp_path / "two", "--start-from", tmp_path / "one", *small, "--steps", 8) == 0
    one, two = load(tmp_path / "one"), load(tmp_path / "two")
    assert isinstance(one, Dance)
    assert isinstance(two, Dance)
    assert not bool(one.corrected)
    assert bool(two.corrected)  # the stage of the face was played, though the first person had none
    assert two.target_statistics().frames == 48
    kept = load_file(tmp_path / "two" / "checkpoint.safetensors")
    assert int(kept["face_steps"]) == 1
