"""kinema train with a frozen compressor: every clip is encoded once, and each step gets the codes of its own clips."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import run_averager
from averager import Averager
from kinema.cli import main
from kinema.core.errors import TrainingError
from kinema.data import latents
from kinema.data.dataset import Dataset
from kinema.data.latents import LatentStore
from kinema.data.loader import Loader
from kinema.systems import SYSTEMS
from kinema.training import runlog
from kinema.training.latents import keep_latents
from kinema.training.trainer import TrainConfig, Trainer
from small_dataset import write_dataset

SMALL = ("--preset", "tiny", "--look-steps", "1000", "--log-steps", "1", "--precision", "fp32")
ROUNDING = 2e-3
"""Codes are within [-2, 2], where float16 is off by at most 1e-3."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips of eight frames to train on, of which windows of four are drawn."""
    return write_dataset(tmp_path_factory.mktemp("latents") / "data", 30, shape=(8, 16, 16))


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SYSTEMS, "averager", Averager)
    monkeypatch.setattr(latents, "SHARD_BYTES", 20_000)


def train(data: Path, out: Path, *words: object) -> int:
    return main(["train", "averager", str(data), "--out", str(out), *(str(word) for word in words)])


def steps_of(run: Path, number: str) -> list[float]:
    return [line[f"denoiser/{number}"] for line in runlog.read_metrics(run) if f"denoiser/{number}" in line]


def child(data: Path, out: Path, *words: str, program: tuple[str, ...] = (), **environment: object) -> "subprocess.Popen[str]":
    words = (run_averager.__file__, "train", "averager", str(data), "--out", str(out), *words)
    paths = os.pathsep.join(path for path in sys.path if path)
    settings = {**os.environ, "PYTHONPATH": paths, "SHARD_BYTES": "20000"} | {k: str(v) for k, v in environment.items()}
    return subprocess.Popen([sys.executable, "-W", "ignore", *program, *words], env=settings, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("flip", [(), ("--flip",)])
def test_every_step_gets_the_codes_of_its_own_clips(flip: tuple[str, ...], data: Path, tmp_path: Path) -> None:
    assert train(data, tmp_path / "run", *SMALL, "--steps", 40, *flip) == 0
    assert steps_of(tmp_path / "run", "cached") == [1.0] * 20
    mismatch = max(steps_of(tmp_path / "run", "mismatch"))
    assert 0 < mismatch < ROUNDING
    assert "encoded clips" in (tmp_path / "run" / "index.html").read_text()


@pytest.mark.parametrize("wrong", ["clip", "window", "mirrored"])
def test_a_code_of_anything_else_would_be_noticed(
    wrong: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LatentStore.read

    def read(self: LatentStore, cuts: Any, into: Any) -> None:
        changed = {
            "clip": [(23 - clip, first, way) for clip, first, way in cuts],
            "window": [(clip, 4 - first, way) for clip, first, way in cuts],
            "mirrored": [(clip, first, not way) for clip, first, way in cuts],
        }
        original(self, changed[wrong], into)

    monkeypatch.setattr(LatentStore, "read", read)
    assert train(data, tmp_path / "run", *SMALL, "--steps", 8, "--flip") == 0
    assert max(steps_of(tmp_path / "run", "mismatch")) > 100 * ROUNDING


def test_a_run_killed_while_it_encodes_goes_on_with_what_is_missing(data: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the third of five shards; then the run ends as one that was left alone."""
    assert train(data, tmp_path / "whole", *SMALL) == 0
    killed = child(data, tmp_path / "killed", *SMALL, KILL_AFTER=2)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "killed" / "latents"
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert sorted(before) == ["000000.npy", "000001.npy"]

    resumed = child(data, tmp_path / "killed", "--resume")
    _, said = resumed.communicate()
    assert resumed.returncode == 0, said
    whole = sorted((tmp_path / "whole" / "latents").glob("*.npy"))
    assert f"{len(whole) - 2} of {len(whole)} files are missing" in said
    assert {path.name for path in folder.iterdir()} == {"index.json", *(path.name for path in whole)}
    assert {name: (folder / name).stat().st_mtime_ns for name in before} == before
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in whole)
    ours, theirs = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_going_on_in_the_middle_of_the_stage_encodes_nothing_again(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(data, tmp_path / "run", *SMALL) == 0
    capsys.readouterr()
    assert train(data, tmp_path / "run", "--resume", "--steps", 12) == 0
    assert "24 clips are encoded already" in capsys.readouterr().err


def test_two_processes_share_the_work_and_train_as_one(data: Path, tmp_path: Path) -> None:
    torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
    both = child(data, tmp_path / "two", *SMALL, "--flip", "--device", "cpu", program=torchrun)
    assert train(data, tmp_path / "one", *SMALL, "--flip", "--device", "cpu") == 0
    _, said = both.communicate()
    assert both.returncode == 0, said
    assert steps_of(tmp_path / "two", "error") == pytest.approx(steps_of(tmp_path / "one", "error"), abs=1e-4)
    assert max(steps_of(tmp_path / "two", "mismatch")) < ROUNDING
    ours, theirs = (sorted((tmp_path / name / "latents").glob("*")) for name in ("one", "two"))
    assert [path.name for path in ours] == [path.name for path in theirs]


# --- Whose latents they are ---------------------------------------------------------------------------------------------------


def trainer() -> Trainer:
    torch.manual_seed(0)
    return Trainer(Averager(Averager.presets["tiny"].config), "denoiser", TrainConfig(precision="fp32"))


def kept(trainer: Trainer, data: Path, folder: Path) -> str:
    said: list[str] = []
    keep_latents(trainer, Loader(Dataset(data, "train"), 4, frames=4), folder, said.append)
    return said[0]


def test_another_compressor_makes_them_anew_and_another_denoiser_does_not(data: Path, tmp_path: Path) -> None:
    """Whether a weight, a bias or a buffer has changed; what the codes do not depend on is not asked."""
    assert "encoding 24 clips once, 5 windows each: " in kept(trainer(), data, tmp_path)
    changed = trainer()
    with torch.no_grad():
        for parameter in changed.system.denoiser.parameters():
            parameter.add_(1)
        changed.system.get_buffer("turns").add_(1)
    assert "encoded already" in kept(changed, data, tmp_path)
    for name in ("encoder.weight", "encoder.bias", "scale"):
        changed = trainer()
        changed.system.state_dict()[name].mul_(1.001).add_(1e-4)
        assert "encoding 24 clips" in kept(changed, data, tmp_path), name
        assert "encoded already" in kept(changed, data, tmp_path), name


def test_codes_that_the_stage_itself_changes_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Averager, "latents", lambda self, stage: lambda video: self.denoiser(self.encode(video)))
    with pytest.raises(TrainingError, match=r"depend on 'denoiser.0.weight', which that stage moves; they cannot be kept"):
        kept(trainer(), data, tmp_path)


def test_a_disk_that_is_too_small_is_said_before_anything_is_encoded(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000})())
    with pytest.raises(TrainingError, match=r"the latents take 0.0 GB and .* has 0.0 GB free; make room"):
        kept(trainer(), data, tmp_path)
    assert json.loads((tmp_path / "index.json").read_text())["clips"] == 24
    assert not list(tmp_path.glob("*.npy"))
