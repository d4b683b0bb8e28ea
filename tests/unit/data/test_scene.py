"""Scene filters."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from kinema.core.errors import ConfigError, DataError
from kinema.data.scene import CLASS_NAMES, ClassFilter, open_scene_filter

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)


class Colours(nn.Module):
    """Takes three times the mean red, green and blue for the scores of three classes."""

    def forward(self, images: Tensor) -> Tensor:
        return 3 * images.mean(dim=(2, 3))


class Table:
    """Gives fixed probabilities."""

    names = ("golf", "beach", "golf")

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        return np.array([[0.1, 0.7, 0.2], [0.3, 0.5, 0.2]])


def test_probabilities_are_averaged_over_frames_and_added_over_classes_of_one_name() -> None:
    scenes = ClassFilter(Table(), {"golf": 0.41, "beach": 0.5})
    scores = scenes.scores(FRAMES[:2])
    assert scores == {"golf": pytest.approx(0.4), "beach": pytest.approx(0.6)}
    assert scenes.accepts(scores)
    assert not scenes.accepts({"golf": 0.40, "beach": 0.49})


def save_script(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.trace(Colours(), torch.zeros(1, 3, 224, 224)), path)
    return path


def save_program(path: Path) -> Path:
    batch = {"images": {0: torch.export.Dim("batch")}}
    torch.export.save(torch.export.export(Colours(), (torch.zeros(2, 3, 224, 224),), dynamic_shapes=batch), path)
    return path


@pytest.mark.parametrize(("save", "name"), [(save_script, "net.pt"), (save_program, "net.pt2")])
def test_a_network_of_ones_own(tmp_path: Path, save: Callable[[Path], Path], name: str) -> None:
    network, names = save(tmp_path / name), tmp_path / "names.txt"
    names.write_text("red\ngreen\nblue\n")
    scenes = open_scene_filter(str(network), ("green=0.5", "blue"), 0.2, str(names))
    green = np.zeros((2, 224, 224, 3), np.uint8)
    green[..., 1] = 255
    expected = np.exp([0, 3, 0]) / np.exp([0, 3, 0]).sum()  # scores 0, 3, 0 are no probabilities: softmax
    assert scenes.scores(green) == pytest.approx({"green": expected[1], "blue": expected[2]}, abs=1e-4)
    assert scenes.accepts(scenes.scores(green))


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    scenes = open_scene_filter(str(save_script(tmp_path / "net.pt")), ("2",), 0.2)
    assert set(scenes.scores(FRAMES)) == {"2"}


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_scenes.py").write_text(
        "def brightness(frames):\n"
        "    light = frames.mean(axis=(1, 2, 3)) / 255\n"
        "    return {'day': light, 'night': 1 - light.mean()}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    scenes = open_scene_filter("my_scenes:brightness", ("day", "night=0.9"), 0.6)
    bright = np.full((2, 224, 224, 3), 204, np.uint8)
    assert scenes.scores(bright) == {"day": 0.8, "night": 0.2}
    with pytest.raises(DataError, match="must return a mapping with a probability for dusk"):
        open_scene_filter("my_scenes:brightness", ("dusk",), 0.5).scores(bright)


def test_imagenet_names_belong_to_the_outputs_of_the_network() -> None:
    """A white grid on black is a window screen (0.92 when this was written), and no seashore."""
    names = CLASS_NAMES.read_text().splitlines()
    assert len(names) == 1000
    assert (names[0], names[574], names[999]) == ("tench", "golf ball", "toilet tissue")
    grid = np.zeros((1, 224, 224, 3), np.uint8)
    grid[:, ::6] = grid[:, :, ::6] = 255
    scenes = open_scene_filter("imagenet", ("window screen", "seashore"), 0.7)
    scores = scenes.scores(grid)
    assert scores["window screen"] > 0.7
    assert scores["seashore"] < 0.1
    assert scenes.accepts(scores)


@pytest.mark.parametrize(
    ("model", "wanted", "error", "says"),
    [
        ("imagenet", ("golf",), ConfigError, "no class 'golf'; did you mean 'golf ball' or 'golfcart'?"),
        ("imagenet", ("streberry",), ConfigError, "did you mean 'strawberry'?"),
        ("imagenet", ("golfcart=2",), ConfigError, "scene 'golfcart=2': the probability must be"),
        ("nowhere.pt", ("a",), DataError, "nowhere.pt does not exist"),
        ("no_module:f", ("a",), DataError, "no_module:f cannot be imported"),
        ("math:f", ("a",), DataError, "math:f cannot be imported"),
    ],
)
def test_what_is_wrong_is_a_sentence(model: str, wanted: tuple[str, ...], error: type[Exception], says: str) -> None:
    with pytest.raises(error) as raised:
        open_scene_filter(model, wanted, 0.5)
    assert says in str(raised.value)


def test_a_file_that_is_no_network_and_names_that_do_not_fit(tmp_path: Path) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no network")
    with pytest.raises(DataError, match="no TorchScript file"):
        open_scene_filter(str(tmp_path / "broken.pt"), ("a",), 0.5)
    names = tmp_path / "two.txt"
    names.write_text("red\ngreen\n")
    with pytest.raises(DataError, match="has 2 class names; the scene model has 3 classes"):
        open_scene_filter(str(save_script(tmp_path / "net.pt")), ("red",), 0.5, str(names))
