"""The Pose Knows that looks through the packaged ImageNet network: it never learns, and is nowhere among the weights."""

import json
import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d

from kinema.cli import main
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE, image_network
from kinema.core.types import Batch
from kinema.data.dataset import Dataset
from kinema.systems.pose_knows import PoseKnows
from kinema.systems.pose_knows_networks import FrozenFeatures, FrozenTower
from kinema.training import load
from small_dataset import write_dataset


def system_of(preset: str = "tiny", **changes: Any) -> PoseKnows:
    torch.manual_seed(3)
    return PoseKnows(replace(PoseKnows.presets[preset].config, tower="imagenet", **changes))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def batch_for(system: PoseKnows, rows: int = 3) -> Batch:
    """Random clips, every joint there."""
    generator, shape = torch.Generator().manual_seed(0), system.clip_shape
    video = torch.rand(rows, 3, shape.frames, shape.height, shape.width, generator=generator) * 2 - 1
    pose = torch.rand(rows, shape.frames, 18, 3, generator=generator) * shape.width
    pose[..., 2] = 1
    return Batch(video, pose=pose)


# --- The network --------------------------------------------------------------------------------------------------------------


def test_every_preset_learns_its_tower_from_scratch() -> None:
    assert {name: preset.config.tower for name, preset in PoseKnows.presets.items()} == {
        **{"laptop": "small", "paper": "paper"},
        **{"code": "paper", "tiny": "small"},
    }


def test_the_rest_of_the_past_encoder_is_that_of_the_paper_and_the_frozen_weights_count_as_none() -> None:
    with torch.device("meta"):
        encoder = system_of("paper").encoder
    line, norm = 112 * 4 * 4 * 1024 + 1024, 2 * 1024
    assert parameters(encoder.tower) == line + norm
    assert parameters(encoder) - parameters(encoder.tower) == 29_131_246 - 887_968 - 7_080_960
    assert encoder.tower(torch.zeros(2, 3, 240, 320, device="meta"), torch.zeros(2, 3, 240, 320)).shape == (2, 1024)


def test_features_are_the_last_activations_at_a_sixteenth_averaged_in_four_rows_and_columns() -> None:
    """The network's own layers, one after the other, with their norms where they were."""
    network, image = image_network(), torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        features = ((image + 1) * 127.5 - IMAGE_MEAN) / IMAGE_SCALE
        features = network._swish(network._bn0(network._conv_stem(features)))
        for block in network._blocks[:11]:
            features = block(features)
        assert features.shape == (2, 112, 4, 6)
        expected = adaptive_avg_pool2d(features, 4).flatten(1)
    torch.testing.assert_close(FrozenFeatures()(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [(8, 8), (16, 24), (33, 47), (64, 64), (240, 320)])
def test_frames_of_every_size_are_seen(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    found = FrozenFeatures()(torch.rand(2, 3, *size, generator=generator) * 2 - 1)
    assert found.shape == (2, 112 * 16)
    assert found[0].ne(found[1]).any()


def test_neither_precision_nor_training_changes_what_is_seen() -> None:
    """A network whose batch norms followed the batch, or that computed in bf16, would see something else in training."""
    tower, image = system_of().encoder.tower, batch_for(system_of()).video[:, :, 0]
    assert isinstance(tower, FrozenTower)
    seen = tower.eval().features(image)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(tower.train().features(image), seen)
    torch.testing.assert_close(tower.features(image[:1]), seen[:1], rtol=1e-4, atol=1e-4)


def test_opening_the_network_takes_no_random_numbers() -> None:
    torch.manual_seed(5)
    expected, system = torch.rand(3), system_of()
    torch.manual_seed(5)
    system.open_files(torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)


def test_no_gradient_reaches_the_frame_and_every_weight_of_the_tower_has_one() -> None:
    system = system_of()
    batch = batch_for(system)
    batch.video.requires_grad_(True)
    system.pose_objective(batch).total.backward()
    assert batch.video.grad is None
    tower = system.encoder.tower
    assert [name for name, one in tower.named_parameters() if one.grad is None] == []
    assert not tower.features(batch.video[:, :, 0]).requires_grad
    network = tower.features.open(torch.device("cpu"))._network
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in network.parameters())


def test_a_network_opened_for_sampling_can_train() -> None:
    system = system_of()
    batch = batch_for(system)
    with torch.inference_mode():
        system.eval().sampling_pass(batch)
    system.train().pose_objective(batch).total.backward()
    assert system.encoder.tower.head.linear.weight.grad.abs().sum() > 0


def test_copies_share_the_network_and_no_weight_of_it_is_in_the_state() -> None:
    system = system_of()
    system.open_files(torch.device("cpu"))
    assert deepcopy(system).encoder.tower.features is system.encoder.tower.features
    tower = {name for name in system.state_dict() if "tower" in name}
    assert tower == {f"encoder.tower.head.{name}" for name in ("linear.weight", "linear.bias", "norm.weight", "norm.bias")}
    assert [name for name, _ in system.named_modules() if "features" in name and "tower" in name] == []


COMPILED = """
import functools, sys, torch
from test_pose_knows_imagenet import batch_for, system_of
from kinema.core.compiling import compiled
torch.compile = functools.partial(torch.compile, backend="eager")
found = []
for wrap in (lambda function: function, compiled):
    system = system_of()
    torch.manual_seed(0)
    found.append(wrap(system.pose_objective)(batch_for(system)).total)
    found[-1].backward()
torch.testing.assert_close(*found)
"""


@pytest.mark.slow
def test_a_compiled_objective_leaves_the_network_alone() -> None:
    """In a process of its own, as torch cannot trace the checks of types; traced, without asking for a compiler of C++."""
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", COMPILED], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


# --- As a person types it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("people") / "data", 24, shape=(9, 16, 16), people=True)


@pytest.fixture(scope="module")
def finished(data: Path) -> Path:
    assert train(data, data.parent / "run", "--preset", "tiny", "--steps", 8, "--tower", "imagenet") == 0
    return data.parent / "run"


def train(data: Path, out: Path, *words: object) -> int:
    return main(["train", "pose-knows", str(data), "--out", str(out), *(str(word) for word in words)])


def predict(run: Path, data: Path, out: Path) -> int:
    return main(["predict", str(run), str(data), "--count", "2", "--futures", "4", "--out", str(out)])


def test_a_checkpoint_holds_nothing_of_the_network_and_forecasts_again(finished: Path, data: Path) -> None:
    with safe_open(finished / "checkpoint.safetensors", "pt") as file:
        stored = [name for name in list(file.keys()) if "tower" in name]
    assert {name.split(".")[2] for name in stored} == {"head"}
    described = json.loads((finished / "config.json").read_text())
    assert described["weights"] == parameters(system_of())
    clips = Dataset(data)
    video = torch.from_numpy(np.array(clips.video(0))[None]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    poses = torch.from_numpy(np.array(clips.alike(0, "pose"))[None])
    futures = []
    for _ in range(2):
        system = load(finished)
        past = system.past_frames
        with torch.no_grad():
            futures.append(system.forecast_poses(video[:, :, :past], poses[:, :past], seeds=[0], futures=3))
            black = system.forecast_poses(0 * video[:, :, :past] - 1, poses[:, :past], seeds=[0], futures=3)
    assert torch.equal(*futures)
    assert not torch.equal(black, futures[0])  # it looks


def test_predict_gives_the_same_every_time(finished: Path, data: Path, tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        assert predict(finished, data, tmp_path / name) == 0
        found.append([np.load(file)["futures"] for file in sorted((tmp_path / name).glob("*.npz"))])
    assert len(found[0]) == 2
    assert all(np.array_equal(*pair) for pair in zip(*found, strict=True))


def test_it_goes_on_and_others_begin_with_it(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train(data, run, "--preset", "tiny", "--tower", "imagenet", "--steps", 4) == 0
    assert train(data, run, "--resume", "--steps", 8) == 0
    assert load(run).encoder.tower.head.linear.in_features == 1792
    capsys.readouterr()
    assert train(data, tmp_path / "on", "--start-from", run, "--steps", 4) == 0
    assert "begin anew" not in capsys.readouterr().err
    assert load(tmp_path / "on").config.tower == "imagenet"
    assert train(data, tmp_path / "other", "--start-from", run, "--tower", "small", "--steps", 4) == 0
    assert "begin anew: encoder.tower" in capsys.readouterr().err


def test_without_the_extra_one_sentence_says_what_is_missing(
    finished: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    capsys.readouterr()
    for again in (
        lambda: train(data, tmp_path / "run", "--preset", "tiny", "--steps", 4, "--tower", "imagenet"),
        lambda: predict(finished, data, tmp_path / "out"),
    ):
        assert again() == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert said[-1].endswith("efficientnet_lite_pytorch is not installed; pip install 'kinema[features]'")
        assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run").exists()
    assert train(data, tmp_path / "run", "--preset", "tiny", "--steps", 4) == 0  # which the other towers do not need
