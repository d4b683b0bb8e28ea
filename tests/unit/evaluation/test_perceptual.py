"""Perceptual distances: the packaged network's order, and LPIPS against a statement of its own."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_pre_hook

from kinema.core.errors import EvaluationError
from kinema.data.performers import PerformersSettings, render_clip
from kinema.evaluation.content import ImageContent
from kinema.evaluation.perceptual import LPIPS, PackagedPerceptual
from kinema.evaluation.pixels import planes

CPU = torch.device("cpu")


def test_a_gpu_does_not_round_what_it_multiplies() -> None:
    """cuDNN has 10 bits (TF32) unless told otherwise: its numbers would not be those of a processor."""
    allowed: set[bool] = set()
    networks = PackagedPerceptual(CPU), ImageContent(CPU)
    hook = register_module_forward_pre_hook(lambda *_: allowed.add(torch.backends.cudnn.allow_tf32))
    try:
        networks[0].describe(planes(np.zeros((1, 32, 32, 3), np.uint8)))
        networks[1](np.zeros((1, 32, 32, 3), np.uint8))
    finally:
        hook.remove()
    assert allowed == {False}
    assert torch.backends.cudnn.allow_tf32


def test_the_packaged_distance_orders_what_eyes_order() -> None:
    """Equal is 0, more blur and more noise are farther; a slight change of brightness is nearer than either."""
    frames = render_clip(0, PerformersSettings(clips=1, frames=2, size=64)).video
    network = PackagedPerceptual(CPU)
    truth = network.describe(planes(frames))
    noise = np.random.default_rng(0).normal(size=frames.shape)
    versions = {
        "equal": frames,
        "brighter": frames * 0.97 + 8,
        "blur 1": gaussian_filter(frames, (0, 1, 1, 0)),
        "blur 2": gaussian_filter(frames, (0, 2, 2, 0)),
        "noise 10": frames + 10 * noise,
        "noise 30": frames + 30 * noise,
    }
    found = {
        name: network.between(truth, network.describe(planes(np.clip(version, 0, 255).astype(np.uint8)))).mean().item()
        for name, version in versions.items()
    }
    assert found["equal"] == 0
    assert 0 < found["brighter"] < found["blur 1"] < found["blur 2"]
    assert found["brighter"] < found["noise 10"] < found["noise 30"]
    still = network.between(truth, network.describe(planes(frames[:1])))
    assert still[0].item() == pytest.approx(0, abs=1e-6)
    assert len(still) == 2


def reference_weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict as `lpips.LPIPS(net="alex")` has it, with weights at random."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"1.0": (64, 3, 11), "2.3": (192, 64, 5), "3.6": (384, 192, 3), "4.8": (256, 384, 3), "5.10": (256, 256, 3)}
    weights = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1), "scaling_layer.scale": torch.ones(1, 3, 1, 1)}
    for layer, (place, (wide, narrow, kernel)) in enumerate(shapes.items()):
        size = (wide, narrow, kernel, kernel)
        weights[f"net.slice{place}.weight"] = torch.randn(size, generator=generator) / (narrow * kernel**2) ** 0.5
        weights[f"net.slice{place}.bias"] = 0.1 * torch.randn(wide, generator=generator)
        for name in (f"lin{layer}.model.1.weight", f"lins.{layer}.model.1.weight"):
            weights[name] = torch.rand((1, wide, 1, 1), generator=torch.Generator().manual_seed(layer))
    return weights


def test_lpips_equals_a_statement_of_its_own(tmp_path: Path) -> None:
    """Zhang et al. 2018, eq. (1), with AlexNet written out as functions."""
    weights = reference_weights()
    torch.save(weights, tmp_path / "alex.pth")
    generator = np.random.default_rng(0)
    one, other = (generator.integers(0, 256, (2, 64, 70, 3), dtype=np.uint8) for _ in range(2))

    def activations(frame: np.ndarray) -> list[torch.Tensor]:
        x = torch.from_numpy(frame / 127.5 - 1).float().permute(2, 0, 1)[None]
        x = (x - torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)) / torch.tensor([0.458, 0.448, 0.450]).reshape(
            1, 3, 1, 1
        )
        found = []
        for place, stride, padding, pooled in (
            ("1.0", 4, 2, 0),
            ("2.3", 1, 2, 1),
            ("3.6", 1, 1, 1),
            ("4.8", 1, 1, 0),
            ("5.10", 1, 1, 0),
        ):
            x = F.max_pool2d(x, 3, 2) if pooled else x
            x = F.relu(F.conv2d(x, weights[f"net.slice{place}.weight"], weights[f"net.slice{place}.bias"], stride, padding))
            found.append(F.normalize(x, dim=1))
        return found

    wanted = [
        sum(
            float((weights[f"lin{layer}.model.1.weight"] * (a - b) ** 2).sum(dim=1).mean())
            for layer, (a, b) in enumerate(zip(activations(one[frame]), activations(other[frame]), strict=True))
        )
        for frame in range(2)
    ]
    measure = LPIPS(tmp_path / "alex.pth", CPU)
    found = measure.between(measure.describe(planes(one)), measure.describe(planes(other)))
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    assert measure.between(measure.describe(planes(one)), measure.describe(planes(one))).tolist() == [0, 0]
    assert len(measure.sha256) == 64
    small = planes(cv2.resize(one[0], (40, 40))[None])
    with pytest.raises(EvaluationError, match="LPIPS needs frames of 64x64 pixels or more, not 40x40"):
        measure.describe(small)


@pytest.mark.parametrize("damage", ["missing", "nonsense", "lacks", "wide", "list"])
def test_a_file_that_is_no_lpips_is_refused_with_what_to_do(tmp_path: Path, damage: str) -> None:
    file, weights = tmp_path / "alex.pth", reference_weights()
    if damage == "nonsense":
        file.write_bytes(b"nothing")
    elif damage == "lacks":
        torch.save({name: tensor for name, tensor in weights.items() if name != "lin3.model.1.weight"}, file)
    elif damage == "wide":
        torch.save(weights | {"net.slice2.3.weight": torch.zeros(192, 64, 3, 3)}, file)
    elif damage == "list":
        torch.save([1, 2], file)
    with pytest.raises(EvaluationError, match=r"alex\.pth does not .*; make it where lpips is installed: torch\.save\("):
        LPIPS(file, CPU)
