"""kinema train, as a person drives it, with tiny presets: what it leaves, how it goes on, what it refuses."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from averager import Averager
from kinema.cli import main
from kinema.systems import SYSTEMS
from kinema.systems.vgan import VGAN
from kinema.training import checkpoint, load, runlog
from kinema.training.run import Run
from kinema.training.trainer import Trainer
from labelled_dataset import write_labelled
from small_dataset import write_dataset

TIMING = {"seconds", "steps_per_second", "clips_per_second", "waiting_share"}
SMALL = ("--preset", "tiny", "--look-steps", "1000", "--log-steps", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips to train on and 6 held out."""
    return write_dataset(tmp_path_factory.mktemp("train") / "data", 30, shape=(8, 16, 16))


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    """A run of eight steps, never to be changed: copy it."""
    out = data.parent / "finished"
    assert train("vgan", data, "--out", out, *SMALL, "--steps", 8, "--look-steps", 4) == 0
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy")


def train(*words: object) -> int:
    return main(["train", *(str(word) for word in words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the one sentence with which a command line is refused."""
    capsys.readouterr()
    assert train(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("kinema: ")
    return lines[-1]


def log_of(run: Path, *, looks: bool = False) -> list[dict[str, Any]]:
    lines = [line for line in runlog.read_metrics(run) if "end" not in line and (looks or "health" not in line)]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def assert_same(one: Path, other: Path) -> None:
    """Two runs have the same sampler, the same state and the same log, to the last bit."""
    ours, theirs = (load_file(run / "checkpoint.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    states = [torch.load(run / "resume.pt", weights_only=True) for run in (one, other)]
    assert states[0]["trainer"]["steps"] == states[1]["trainer"]["steps"]
    assert states[0]["loader"] == states[1]["loader"]
    for name, weight in states[0]["trainer"]["system"].items():
        assert torch.equal(weight, states[1]["trainer"]["system"][name]), name
    assert log_of(one) == log_of(other)


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int, happen: Callable[[], object]) -> None:
    """Let something happen within the `steps`-th step from now on."""
    original, count = Trainer.step, iter(range(1, 1000))

    def step(self: Trainer, batch: Any) -> dict[str, float]:
        numbers = original(self, batch)
        if next(count) == steps:
            happen()
        return numbers

    monkeypatch.setattr(Trainer, "step", step)


# --- What a run leaves --------------------------------------------------------------------------------------------------------


def test_a_run_leaves_a_sampler_numbers_sheets_and_a_page(finished: Path, data: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "checkpoint.safetensors", "resume.pt", "index.html", "samples"}
    assert not [name for name in names if "tmp" in name]

    clips = load(finished).generate([0, 1])
    assert clips.shape == (2, 3, 8, 16, 16)

    config = json.loads((finished / "config.json").read_text())
    assert (config["system"], config["preset"], config["training"]["steps"]) == ("vgan", "tiny", 8)
    assert (config["dataset"]["clips"], config["dataset"]["held_out"]) == (24, 6)
    assert config["sessions"][0]["command"].startswith(f"kinema train vgan {data}")

    lines = runlog.read_metrics(finished)
    assert [line["step"] for line in lines if "seconds" in line] == list(range(1, 9))
    assert "still_picture" in lines[0]  # the closed-form stage before the first step
    assert {"discriminator/real", "generator/adversarial", "clips_per_second"} <= lines[1].keys()
    found = {finding["name"]: finding for line in lines if "health" in line for finding in line["health"]}
    assert {"diversity", "mask", "over-fitting", "memorising", "weights of generator"} <= found.keys()
    assert lines[-1]["end"] == "finished"

    sheets = {path.name for path in (finished / "samples").iterdir()}
    assert sheets == {
        f"{step:06d}{kind}{suffix}" for step in (4, 8) for kind in ("", "-streams") for suffix in (".png", ".mp4")
    }
    page = (finished / "index.html").read_text()
    assert "samples/000008.mp4" in page
    assert "http://" not in page
    assert "Finished" in page


def test_looking_and_saving_change_nothing(finished: Path, data: Path, tmp_path: Path) -> None:
    assert train("vgan", data, "--out", tmp_path / "other", *SMALL, "--steps", 8, "--save-minutes", 0, "--look-steps", 3) == 0
    assert_same(finished, tmp_path / "other")


def test_stages_follow_each_other_and_a_mixture_is_fitted_last(data: Path, tmp_path: Path) -> None:
    assert train("vgan-autoencoder", data, "--out", tmp_path / "run", *SMALL) == 0
    lines = runlog.read_metrics(tmp_path / "run")
    assert [line["stage"] for line in lines if "log_likelihood" in line] == ["mixture"]
    assert "samples/000004-reconstructions.mp4" in (tmp_path / "run" / "index.html").read_text()
    assert load(tmp_path / "run").generate([0]).shape == (1, 3, 8, 16, 16)


def test_the_future_model_shows_predictions(data: Path, tmp_path: Path) -> None:
    assert train("vgan-future", data, "--out", tmp_path / "future", *SMALL, "--steps", 2) == 0
    assert (tmp_path / "future" / "samples" / "000002-predictions.mp4").exists()


def test_held_out_clips_are_measured_at_every_look(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In metrics.jsonl, in TensorBoard and as a chart of its own; with weights that stand still the numbers do too."""
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    curves = {}
    for name, rate in (("learning", 1e-2), ("still", 0.0)):
        out = tmp_path / name
        words = (*SMALL, "--look-steps", 20, "--steps", 80, "--batch-size", 8, "--rate", rate, "--precision", "fp32")
        assert train("averager", data, "--out", out, *words) == 0
        looks = [line for line in runlog.read_metrics(out) if "validation/error" in line]
        assert [(line["step"], line["stage"]) for line in looks] == [
            (20, "compressor"), (40, "compressor"), (60, "denoiser"), (80, "denoiser"),
        ]  # fmt: skip
        curves[name] = [line["validation/error"] for line in looks]
    assert curves["learning"][1] < 0.5 * curves["still"][1]
    assert curves["learning"][3] < 0.8 * curves["still"][3]
    assert curves["still"][0] == curves["still"][1]
    assert curves["still"][2] == curves["still"][3]

    page = (tmp_path / "learning" / "index.html").read_text()
    assert "<h3>Validation</h3>" in page
    assert page.count("<header>error<span>") == 3  # compressor, validation, denoiser
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "learning" / "tensorboard")).Reload().Scalars("validation/error")
    assert [event.value for event in events] == pytest.approx(curves["learning"], rel=1e-5)


def test_without_held_out_clips_nothing_is_measured(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    assert train("averager", data, "--out", tmp_path / "run", *SMALL, "--split", "all") == 0
    assert not [line for line in runlog.read_metrics(tmp_path / "run") if "validation/error" in line]


def test_a_run_whose_weights_do_not_move_is_called_out(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    still = ("--learning-rate", 0, "--steps", 2)
    assert train("vgan", data, "--out", tmp_path / "run", *SMALL, *still) == 0
    assert "weights of generator: bad. They did not move in 2 steps" in capsys.readouterr().err


def test_help_shows_presets_and_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--help") == 0
    assert "vgan-autoencoder" in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        train("vgan", "--preset", "tiny", "--help")
    assert ended.value.code in (0, None)
    text = capsys.readouterr().out
    for expected in ("small-data", "Presets:", "--minutes", "--mask-weight", "--overwrite", "(default: 8)"):
        assert expected in text


# --- What the dataset decides -----------------------------------------------------------------------------------------------


def stored_classes(run: Path) -> int:
    return json.loads((run / "config.json").read_text())["config"]["classes"]


def test_a_recogniser_learns_the_classes_of_the_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_labelled(tmp_path / "data", labels=("left", "right", "still")), tmp_path / "run"
    assert train("vgan-recogniser", data, "--out", out, *SMALL, "--steps", 2) == 0
    assert "classes: 3, as the dataset has them (left, right, still)" in capsys.readouterr().err
    assert stored_classes(out) == 3
    assert load(out).recognise(torch.zeros(1, 3, 8, 16, 16)).shape == (1, 3)

    assert train("vgan-recogniser", data, "--out", out, "--resume", "--steps", 3) == 0
    assert stored_classes(out) == 3
    assert "as the dataset has them" not in capsys.readouterr().err


def test_classes_that_are_given_are_taken_at_their_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled(tmp_path / "data", labels=("left", "right", "still"))
    for option in (("--classes", 5), ("--classes=5",)):
        sentence = refused(capsys, "vgan-recogniser", data, "--out", tmp_path / "run", *SMALL, *option)
        assert "has 3 classes (left, right, still) and vgan-recogniser is set to 5; give --classes 3" in sentence


def test_classes_are_filled_in_only_where_labels_are_the_condition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    data = write_labelled(tmp_path / "data", labels=("left", "right", "still"))
    for condition, classes in (("none", 0), ("label", 3)):
        out = tmp_path / condition
        assert train("averager", data, "--out", out, *SMALL, "--condition", condition) == 0
        assert stored_classes(out) == classes


def test_one_class_or_none_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_labelled(tmp_path / "data", labels=("left",))
    sentence = refused(capsys, "vgan-recogniser", data, "--out", tmp_path / "run", *SMALL)
    assert "classes is 1; it must be 2 or more" in sentence


# --- Before anything is done --------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_every_stage_would_take_and_writes_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    monkeypatch.chdir(data.parent)
    before = {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")}
    words = ("averager", data, "--preset", "tiny", "--steps", 100, "--precision", "fp32", "--flip")
    assert train(*words, "--width", 20000, "--dry-run") == 0
    said = capsys.readouterr().out
    compressor, denoiser = (part.partition("\n\n")[0] for part in said.split("\nstage ")[1:])
    assert "averager (tiny): 1,700,150 weights, clips of 4x16x16" in said
    assert compressor.startswith("compressor: compressor, 147 weights learn")
    assert denoiser.startswith("denoiser: denoiser, 1,700,003 weights learn")
    assert re.search(r"optimiser state +0.013 GiB", denoiser)  # two numbers of four bytes per weight
    assert re.search(r"steps +50 ", denoiser)  # two stages share the budget
    assert re.search(r"latents on the disk .* 240 windows, encoded once", denoiser)
    assert "latents" not in compressor
    assert "Nothing was trained, and nothing was written." in said
    assert {path: path.stat().st_mtime_ns for path in data.parent.rglob("*")} == before


def test_a_dry_run_of_a_system_that_fits_in_no_memory_counts_it(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """13 billion weights are 190 GiB with their optimiser; nothing of the kind is taken."""
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    words = ("averager", data, "--preset", "tiny", "--minutes", 3, "--dry-run")
    assert train(*words, "--width", 150_000_000) == 0
    said = capsys.readouterr().out
    assert "more than 100,000,000 weights: built without memory" in said
    assert re.search(r"memory in all +\d{3}\.\d+ GiB", said)
    assert "as many as 1.5 minutes allow" in said


def test_a_dry_run_refuses_what_a_run_would(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "trains on 8x32x32" in refused(capsys, "vgan", data, "--preset", "tiny", "--size", 32, "--dry-run")
    assert "--out" in refused(capsys, "vgan", data, "--preset", "tiny")


# --- Stopping and going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_goes_on_as_if_it_never_had(
    number: signal.Signals, status: int, finished: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 3, lambda: os.kill(os.getpid(), number))
        assert train("vgan", data, "--out", out, *SMALL, "--steps", 8, "--look-steps", 4) == status
    assert "stopped by" in capsys.readouterr().err
    assert "--resume goes on" in (out / "index.html").read_text()
    assert load(out).generate([0]).isfinite().all()

    assert train("vgan", data, "--out", out, "--resume") == 0
    assert_same(out, finished)
    assert [session["first_step"] for session in json.loads((out / "config.json").read_text())["sessions"]] == [0, 3]


def test_a_signal_in_the_last_look_of_a_stage_is_not_lost(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was asked for before that look alone, and the next stage began as if nothing had been said."""
    out, look = tmp_path / "run", Run.look
    with monkeypatch.context() as patch:
        patch.setattr(Run, "look", lambda run, trainer: (look(run, trainer), signal.raise_signal(signal.SIGINT)))
        assert train("vgan-autoencoder", data, "--out", out, *SMALL) == 130
    assert "fitting" not in capsys.readouterr().err
    assert (out / "samples" / "000004-reconstructions.mp4").exists()
    assert train("vgan-autoencoder", data, "--out", out, "--resume") == 0
    assert [line["stage"] for line in runlog.read_metrics(out) if "log_likelihood" in line] == ["mixture"]


def test_killing_at_any_moment_loses_nothing(data: Path, tmp_path: Path) -> None:
    """SIGKILL, twice, while the run saves after every step; then it ends the same as one that was left alone."""
    words = [str(word) for word in ("vgan", data, *SMALL, "--steps", 16)]
    assert train(*words, "--out", tmp_path / "whole") == 0
    words += ["--save-minutes", "0", "--out"]
    killed = tmp_path / "killed"
    program = [sys.executable, "-W", "ignore", "-m", "kinema", "train", *words, str(killed)]
    for attempt in range(2):
        process = subprocess.Popen(program + (["--resume"] if attempt else []), stderr=subprocess.DEVNULL)
        wanted = 4 * (attempt + 1)
        while process.poll() is None and len(read_lines(killed)) < wanted:
            time.sleep(0.003)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert train(*words, killed, "--resume") == 0
    assert_same(killed, tmp_path / "whole")
    assert not [path for path in killed.rglob("*") if "tmp" in path.name]


def read_lines(run: Path) -> list[str]:
    path = run / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def test_a_run_that_was_killed_before_it_saved_begins_again(copy: Path, finished: Path, data: Path) -> None:
    (copy / "resume.pt").unlink()
    (copy / "checkpoint.safetensors").unlink()
    assert train("vgan", data, "--out", copy, "--resume") == 0
    assert_same(copy, finished)


def test_a_budget_can_grow(copy: Path, data: Path, tmp_path: Path) -> None:
    assert train("vgan", data, "--out", copy, "--resume", "--steps", 10) == 0
    assert train("vgan", data, "--out", tmp_path / "ten", *SMALL, "--steps", 10, "--look-steps", 4) == 0
    assert_same(copy, tmp_path / "ten")


def test_minutes_count_over_resumes(copy: Path, data: Path) -> None:
    state = torch.load(copy / "resume.pt", weights_only=True)
    state["trainer"]["seconds"] = 59.999
    torch.save(state, copy / "resume.pt")
    assert train("vgan", data, "--out", copy, "--resume", "--minutes", 1) == 0
    lines = runlog.read_metrics(copy)
    assert 9 <= lines[-1]["step"] <= 12
    assert lines[-2].get("seconds", 60) >= 59.999


@pytest.mark.parametrize("full_at", [4, 5], ids=["state", "sampler"])
def test_a_disk_that_fills_up_harms_nothing(
    finished: Path,
    data: Path,
    tmp_path: Path,
    full_at: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What can be resumed and what samples are of one step whichever of the two does not fit any more."""
    out, original, calls = tmp_path / "run", checkpoint.replacing, iter(range(100))

    def fill(path: Path, write: Callable[[Path], object]) -> Any:
        def half(beside: Path) -> None:
            write(beside)
            if path.name in ("checkpoint.safetensors", "resume.pt") and next(calls) >= full_at:
                os.truncate(beside, 100)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(beside))

        return original(path, half)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "replacing", fill)
        words = ("vgan", data, "--out", out, *SMALL, "--steps", 8, "--save-minutes", 0, "--look-steps", 4)
        sentence = refused(capsys, *words)
    assert "No space left on device" in sentence
    assert "the checkpoint of step 2 is intact: make room and go on with --resume" in sentence
    assert checkpoint.read_metadata(out).steps == 2
    assert checkpoint.load_resume(out / "resume.pt")["trainer"]["steps"] == 2
    assert load(out).generate([0]).isfinite().all()
    assert not [path for path in out.rglob("*") if "tmp" in path.name]
    assert "Failed" in (out / "index.html").read_text()
    assert train("vgan", data, "--out", out, "--resume", "--save-minutes", 5) == 0
    assert_same(out, finished)


def test_numbers_that_are_not_finite_stop_the_run_and_keep_the_last_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, out = VGAN.generator_objective, tmp_path / "run"

    def poisoned(self: VGAN, batch: Any) -> Any:
        objective = original(self, batch)
        if int(self.steps) == 4:
            objective.terms["adversarial"].data.fill_(float("nan"))
        return objective

    monkeypatch.setattr(VGAN, "generator_objective", poisoned)
    sentence = refused(capsys, "vgan", data, "--out", out, *SMALL, "--steps", 8, "--save-minutes", 0)
    assert "term 'adversarial' of player 'generator' became nan in step 3" in sentence
    assert torch.load(out / "resume.pt", weights_only=True)["trainer"]["steps"] == 3
    assert load(out).generate([0]).isfinite().all()
    finding = next(line for line in runlog.read_metrics(out) if "health" in line)["health"][0]
    assert (finding["name"], finding["verdict"]) == ("finite numbers", "bad")
    assert "--clip-gradients 1" in (out / "index.html").read_text()


def test_weights_that_are_not_finite_are_not_saved_and_nobody_is_told_to_make_room(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The still picture is clamped before anything is added to it, so that no loss tells."""
    original, out = VGAN.generator_objective, tmp_path / "run"

    def poisoned(self: VGAN, batch: Any) -> Any:
        objective = original(self, batch)
        assert self.still is not None
        self.still.fill_(float("inf"))
        return objective

    monkeypatch.setattr(VGAN, "generator_objective", poisoned)
    sentence = refused(capsys, "vgan", data, "--out", out, *SMALL, "--steps", 4, "--ema-samples", 0)
    assert "it is not saved; nothing was saved before: lower the learning rate or clip gradients" in sentence
    found = [finding for line in runlog.read_metrics(out) for finding in line.get("health", ())]
    assert ("finite numbers", "bad") in [(finding["name"], finding["verdict"]) for finding in found]


@pytest.mark.slow
def test_two_processes_train_as_one_and_stop_as_one(data: Path, tmp_path: Path) -> None:
    """``torchrun --nproc-per-node 2 -m kinema train``: half a minute on two cores, hence slow.

    Clips are compared, not weights: Adam turns the rounding of a gradient that is zero (a bias before batch norm) into steps.
    """
    words = [str(word) for word in ("vgan", data, *SMALL, "--precision", "fp32", "--device", "cpu", "--steps")]
    program = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "kinema", "train"]
    assert train(*words, 12, "--out", tmp_path / "one") == 0
    subprocess.run([*program, *words, "12", "--out", str(tmp_path / "two")], check=True, stderr=subprocess.DEVNULL)
    for ours, theirs in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    ours, theirs = (load(tmp_path / name).generate(range(8)) for name in ("one", "two"))
    assert float((ours - theirs).detach().abs().max()) < 1e-3

    endless = subprocess.Popen([*program, *words, "100000", "--out", str(tmp_path / "three")], stderr=subprocess.DEVNULL)
    while endless.poll() is None and len(read_lines(tmp_path / "three")) < 3:
        time.sleep(0.1)
    endless.terminate()
    endless.wait(timeout=60)
    assert runlog.read_metrics(tmp_path / "three")[-1]["end"] == "stopped"
    assert load(tmp_path / "three").generate([0]).isfinite().all()


# --- What is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["vagn", "DATA", "--out", "NEW"], "no system 'vagn'; did you mean 'vgan'?"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tinny"], "no preset 'tinny'; did you mean 'tiny'?"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--widht", "3"], "--width"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--steps", "0"], "steps is 0; it must be at least 1"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--minutes", "-1"], "minutes is -1.0; it must be more than 0"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--batch-size", "25"], "a batch of 25 clips cannot be drawn"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--frames", "16"], "at that size, or give --frames 8"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--size", "32"], "footage at that size, or give --size 16"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--device", "tpu"], "there is no device 'tpu'"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--split", "tset"], "--split"),
        (["vgan"], "Missing from kinema train vgan: DATA The prepared dataset."),
        (["vgan", "DATA", "--preset", "tiny"], "--out"),
        (["vgan", "NEW", "--out", "NEW", "--preset", "tiny"], "is not a directory"),
        (["vgan", "DATA", "--out", "NEW", "--preset", "tiny", "--resume"], "nothing to resume in"),
        (["vgan", "DATA", "--out", "RUN", "--preset", "tiny"], "holds a run already; add --resume to go on, or --overwrite"),
        (["vgan", "DATA", "--out", "RUN", "--resume", "--overwrite"], "give one of them"),
        (["vgan", "DATA", "--out", "RUN", "--resume"], "it is finished, at step 8; give more --steps or --minutes"),
        (["vgan", "DATA", "--out", "RUN", "--resume", "--width", "8", "--seed", "3"], "differ: width: 4 -> 8; seed: 0 -> 3"),
        (["vgan", "DATA", "--out", "RUN", "--resume", "--preset", "laptop"], "preset: 'tiny' -> 'laptop'"),
        (["vgan-future", "DATA", "--out", "RUN", "--resume"], "holds a run of vgan, not of vgan-future"),
        (["vgan", "PLAIN", "--out", "RUN", "--resume", "--steps", "9"], "whose clips are not those of"),
        (["vgan", "DATA", "--out", "DATA", "--preset", "tiny", "--overwrite"], "holds files that are no run of kinema"),
        (["vgan", "DATA", "--out", "DATA/dataset.json/run", "--preset", "tiny"], "cannot write to"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_sentence_and_changes_nothing(
    words: list[str], sentence: str, data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = data.parent / "plain"
    if "PLAIN" in words and not plain.exists():
        write_dataset(plain, 30, shape=(8, 16, 16), labels=(), captions=False)
    places = {"DATA": data, "RUN": finished, "NEW": tmp_path / "new", "PLAIN": plain}
    before = {path: path.stat().st_mtime_ns for folder in (data, finished) for path in folder.rglob("*")}
    said = refused(capsys, *(places.get(word, str(data / word[5:]) if word.startswith("DATA/") else word) for word in words))
    assert sentence in said
    assert not (tmp_path / "new").exists()
    assert {path: path.stat().st_mtime_ns for folder in (data, finished) for path in folder.rglob("*")} == before


def test_a_finished_run_whose_rates_fell_is_not_told_to_grow(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("vgan", data, "--out", tmp_path / "run", "--preset", "tiny")
    assert main(["train", *map(str, words), "--steps", "2", "--schedule", "linear"]) == 0
    assert "so train longer in a new directory" in refused(capsys, *words[:4], "--resume")


def test_clips_without_what_a_system_needs_are_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VGAN, "needs", frozenset({"video", "label", "caption"}))
    assert train("vgan", data, "--out", tmp_path / "run", *SMALL, "--steps", 1) == 0
    plain = write_dataset(tmp_path / "plain", 30, shape=(8, 16, 16), labels=(), captions=False)
    sentence = refused(capsys, "vgan", plain, "--out", tmp_path / "new", *SMALL)
    assert "vgan learns from caption and label and video; the clips of" in sentence
    assert sentence.endswith("come without caption and label: prepare them with it")


@pytest.mark.parametrize("mute", [98, 95], ids=["in training", "held out"])
def test_clips_of_which_some_have_no_caption_are_refused_before_anything_is_written(
    mute: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asking the first clip, or the first held-out batch, alone let a run begin, and end in the step that drew one without."""
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    monkeypatch.setattr(Averager, "needs", frozenset({"video", "caption"}))
    some = write_dataset(tmp_path / "some", 100, shape=(8, 16, 16), captions={*range(100)} - {mute})
    assert "caption" in refused(capsys, "averager", some, "--out", tmp_path / "new", *SMALL)
    assert not (tmp_path / "new").exists()


def test_poses_and_masks_reach_the_system_that_needs_them(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(VGAN, "needs", frozenset({"video", "pose", "mask"}))
    assert refused(capsys, "vgan", data, "--out", tmp_path / "no", *SMALL).endswith(
        "come without mask and pose: prepare them with it"
    )
    people = write_dataset(tmp_path / "people", 30, shape=(8, 16, 16), people=True)
    seen: list[Any] = []
    original = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda self, batch: seen.append(batch.carries) or original(self, batch))
    assert train("vgan", people, "--out", tmp_path / "run", *SMALL, "--steps", 2, "--flip") == 0
    assert [carried >= {"pose", "mask"} for carried in seen] == [True, True]


def test_a_directory_that_cannot_be_written_is_one_sentence(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulated, because the tests may run as root, who may write everywhere."""
    monkeypatch.setattr(runlog.os, "access", lambda *_: False)
    sentence = refused(capsys, "vgan", data, "--out", tmp_path / "run", *SMALL)
    assert "cannot write to" in sentence
    assert "Permission denied" in sentence
