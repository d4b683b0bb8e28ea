"""Every example runs, with tiny settings."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from kinema.data.media import probe
from kinema.training.checkpoint import load, read_metadata

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example") / "run"
    script = example("train_from_python")
    script.main(script.Options(folder, preset="tiny", clips=12, steps=2))
    return folder


def test_train_from_python(trained: Path) -> None:
    assert probe(trained / "samples.mp4").frames == 8
    assert (trained / "checkpoint.safetensors").exists()


def test_sample_a_checkpoint(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = example("sample_a_checkpoint")
    script.main(script.Options(str(trained), tmp_path / "clips.npy", count=2))
    clips = np.load(tmp_path / "clips.npy")
    assert clips.shape == (2 + 4, 8, 16, 16, 3)
    np.testing.assert_allclose(clips[0].astype(int), clips[2], rtol=0, atol=1)  # the walk begins at seed 0, in another batch
    assert "vgan makes clips of 8x16x16 and can generate" in capsys.readouterr().out


def test_halve_a_checkpoint(trained: Path, tmp_path: Path) -> None:
    script = example("halve_a_checkpoint")
    script.main(script.Options(trained, tmp_path / "half.safetensors"))
    whole, half = load(trained), load(tmp_path / "half.safetensors")
    assert (half.generate([1]) - whole.generate([1])).abs().max() < 2 / 255
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * (trained / "checkpoint.safetensors").stat().st_size
    about = read_metadata(tmp_path / "half.safetensors")
    assert about.steps == read_metadata(trained).steps
    assert "path" not in about.dataset


def test_motion_transfer_truth(tmp_path: Path) -> None:
    example("motion_transfer_truth").main(tmp_path / "truth.gif", frames=3, size=32)
    assert probe(tmp_path / "truth.gif").frames == 3


def test_every_example_has_a_test() -> None:
    tests = Path(__file__).read_text()
    assert all(f'"{path.stem}"' in tests for path in EXAMPLES.glob("*.py"))
