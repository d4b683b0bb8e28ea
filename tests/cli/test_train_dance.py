"""``kinema train dance``: stages, budgets, sheets of held-out clips, and data of another layout."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.cli import main
from kinema.core.errors import TrainingError
from kinema.data.dataset import Dataset
from kinema.systems.dance import Dance
from kinema.training import load
from kinema.training.run import refuse_misfit
from small_dataset import write_dataset


def test_all_stages_are_played_and_transfers_are_shown(tmp_path: Path) -> None:
    data, run = write_dataset(tmp_path / "data", shape=(6, 32, 32), people=True), tmp_path / "run"
    options = ["--preset", "tiny", "--steps", "8", "--batch-size", "2", "--log-steps", "1"]
    assert main(["train", "dance", str(data), "--out", str(run), *options, "--style.radius", "12"]) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    reached = {line["stage"]: line["step"] for line in lines if "stage" in line}
    assert reached == {"statistics": 0, "global": 1, "local": 7, "face": 8}  # 5, 30 and 5 of 40
    assert list((run / "samples").glob("*-transfers.png"))
    system = load(run)
    assert isinstance(system, Dance)
    assert system.style.radius == 12
    assert system.target_statistics().frames == 8 * 6  # whole clips of the training split, not their windows
    assert bool(system.enhanced)
    assert bool(system.corrected)


def test_poses_of_another_layout_are_refused(tmp_path: Path) -> None:
    dataset = Dataset(write_dataset(tmp_path / "data", shape=(4, 32, 32), people=True))
    system = Dance(replace(Dance.presets["tiny"].config, skeleton="body-25"))
    with pytest.raises(TrainingError, match="are of the skeleton coco-18 and dance is set to body-25; give --skeleton coco-18"):
        refuse_misfit(dataset, system)
    plain = Dataset(write_dataset(tmp_path / "plain", shape=(4, 32, 32)))
    with pytest.raises(TrainingError, match="come without pose: prepare them with it"):
        refuse_misfit(plain, system)
