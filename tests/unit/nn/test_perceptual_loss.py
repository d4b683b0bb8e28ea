"""Perceptual losses: equal is nothing, gradients arrive, wrong files are refused."""

import hashlib

import pytest
import torch

from kinema.core.errors import ConfigError
from kinema.nn.perceptual import (
    VGG_WEIGHTS,
    ImageActivations,
    PackagedLoss,
    VGGLoss,
    perceptual_loss,
    unit,
    unit_distance,
    vgg_slices,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """VGG19's layers with weights at random, as torchvision stores them."""
    torch.manual_seed(0)
    state = {f"features.{name}": value for part in vgg_slices() for name, value in part.state_dict().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return path


def test_the_packaged_loss():
    torch.manual_seed(0)
    loss = PackagedLoss(CPU)
    truth, made = torch.rand(2, 3, 40, 40) * 2 - 1, torch.rand(2, 3, 40, 40, requires_grad=True)
    assert abs(loss(truth, truth)) < 1e-6
    loss(made, truth).backward()
    assert made.grad.abs().sum() > 0
    near = (truth + 0.05 * torch.randn_like(truth)).clamp(-1, 1)
    assert loss(near, truth) < loss(made, truth)


def test_folded_and_in_bfloat16_the_activations_are_the_same():
    torch.manual_seed(0)
    activations, pixels = ImageActivations(CPU), torch.randn(1, 3, 64, 64)
    full = activations(pixels)
    assert [layer.shape[2] for layer in full] == [32, 16, 8, 4, 2]
    activations.fold()
    folded = activations(pixels, least=8)
    assert [layer.shape[2] for layer in folded] == [32, 16, 8]
    with torch.autocast("cpu", torch.bfloat16):
        half = activations.converted(torch.bfloat16)(pixels, least=8)
    for one, other, rough in zip(full, folded, half, strict=False):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
        assert (one - rough.float()).abs().mean() < 0.05 * one.abs().mean()


def test_the_distance_of_unit_activations_is_that_of_the_formula():
    torch.manual_seed(0)
    made, truth = torch.randn(2, 5, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4)
    other = made.detach().clone().requires_grad_()
    (found := unit_distance(made, truth)).backward()
    (expected := (unit(other) - unit(truth)).square().sum(dim=1).mean()).backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(made.grad, other.grad)


def test_vgg_is_weighted_differences_of_five_layers(vgg_file):
    assert [len([p for p in part.parameters() if p.dim() == 4]) for part in vgg_slices()] == [1, 2, 2, 4, 4]
    assert sum(parameter.numel() for parameter in vgg_slices().parameters()) == 12_944_960
    digest = hashlib.sha256(vgg_file.read_bytes()).hexdigest()
    loss = VGGLoss(vgg_file, digest[:8], CPU)
    made, truth = torch.rand(1, 3, 32, 32, requires_grad=True), torch.rand(1, 3, 32, 32)
    expected, a, b = 0.0, made, truth
    for part, weight in zip(loss._slices, VGG_WEIGHTS, strict=True):
        a, b = part(a), part(b)
        expected += weight * (a - b).abs().mean().item()
    assert loss(made, truth).item() == pytest.approx(expected, rel=1e-5)
    loss(made, truth).backward()
    assert made.grad.abs().sum() > 0
    assert loss(truth, truth) == 0


def test_what_is_no_vgg_is_refused(vgg_file, tmp_path):
    with pytest.raises(ConfigError, match=r"perceptual_weights is not given; it is .* https://.* SHA-256 begins with dcbb9e9d"):
        perceptual_loss("vgg19", "", "", CPU)
    with pytest.raises(ConfigError, match=r"perceptual_weights is .*none.pth', which is no file; it is torchvision's"):
        perceptual_loss("vgg19", str(tmp_path / "none.pth"), "", CPU)
    with pytest.raises(ConfigError, match=r"has the SHA-256 .* which does not begin with 'dcbb9e9d'"):
        perceptual_loss("vgg19", str(vgg_file), "dcbb9e9d", CPU)
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("other.pth", "text.pth"):
        with pytest.raises(ConfigError, match=f"{name} does not hold the weights of VGG19"):
            perceptual_loss("vgg19", str(tmp_path / name), "", CPU)
    with pytest.raises(ConfigError, match="there is no perceptual loss"):
        perceptual_loss("none", "", "", CPU)
