"""kinema train pose-knows, as a person drives it: two stages, sheets of forecasts, a drawing style in the checkpoint."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.cli import main
from kinema.data.dataset import Dataset
from kinema.pose.draw import STYLES, refuse_other_style
from kinema.training import load
from small_dataset import write_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("people") / "data", 24, shape=(9, 16, 16), people=True)


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    out = data.parent / "run"
    assert train(data, "--out", out, "--preset", "tiny", "--steps", 8, "--flip") == 0
    return out


def train(*words: object) -> int:
    return main(["train", "pose-knows", *(str(word) for word in words)])


def test_both_stages_are_played_and_their_forecasts_shown(finished: Path) -> None:
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert {line["stage"] for line in lines if "stage" in line} == {"spread", "pose", "codes", "video"}
    assert [0 <= line["explained"] <= 1 for line in lines if "explained" in line] == [True]
    held_out = [name for line in lines for name in line if name.startswith("validation/")]
    assert {*held_out} == {"validation/best_of_10", "validation/most_likely", "validation/l1_pixel"}
    sheets = sorted((finished / "samples").glob("*-forecasts.png"))
    assert sheets
    shown = [line["sheets"] for line in lines if "sheets" in line]
    assert "forecast skeleton" in json.dumps(shown)


def test_a_checkpoint_forecasts_and_renders_and_knows_how_it_draws(finished: Path, data: Path) -> None:
    system = load(finished)
    clips = Dataset(data)
    video = torch.from_numpy(np.stack([clips.video(index) for index in range(2)])).permute(0, 4, 1, 2, 3) / 127.5 - 1
    poses = torch.from_numpy(np.stack([clips.alike(index, "pose") for index in range(2)]))
    past = system.past_frames
    with torch.no_grad():
        futures = system.forecast_poses(video[:, :, :past], poses[:, :past], seeds=[0, 1], futures=3)
        film = system.render_poses(video[:, :, past - 1], torch.cat([poses[:, past - 1 : past], futures[:, 2]], dim=1))
    assert futures.shape == (2, 3, system.future_frames, 18, 3)
    assert film.shape == (2, 3, 1 + system.future_frames, 16, 16)
    refuse_other_style(system.config.drawing, STYLES["pose-knows"])


def test_another_style_is_part_of_the_run(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, "--out", tmp_path / "run", "--preset", "tiny", "--steps", 2, "--drawing.radius", 2.5) == 0
    assert f"make clips with: kinema predict {tmp_path / 'run'} DATA" in capsys.readouterr().err
    assert load(tmp_path / "run").config.drawing.radius == 2.5


def test_poses_of_another_skeleton_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(data, "--out", tmp_path / "run", "--preset", "tiny", "--steps", 2, "--skeleton", "coco-17") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "are of the skeleton coco-18 and pose-knows is set to coco-17; give --skeleton coco-18" in said


def test_shorter_clips_are_told_the_steps_that_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = write_dataset(tmp_path / "short", 12, shape=(16, 64, 64), people=True)
    assert train(short, "--out", tmp_path / "run", "--preset", "laptop", "--steps", 2) == 2
    said = capsys.readouterr().err
    assert "holds clips of 16x64x64" in said
    assert said.endswith("or give --past-steps 2 --future-steps 3\n")
    fitting = ("--preset", "laptop", "--past-steps", 2, "--future-steps", 3, "--dry-run")
    assert train(short, "--out", tmp_path / "run", *fitting) == 0
    capsys.readouterr()
    small = "--height 64 --width 64 --past-steps 1 --future-steps 1 --batch-size 4"
    paper = ("--preset", "paper", *small.split(), "--dry-run")
    assert train(short, "--out", tmp_path / "run", *paper) == 0
    said = capsys.readouterr().out
    assert "more than 100,000,000 weights: built without memory" in said
    # Poses are drawn outside of torch, and one clip is too few for batch normalisation.
    assert said.count("FLOPs per step") == 2
