"""Residual generators: norms, borders and shapes, against torch."""

import pytest
import torch
from torch import nn

from kinema.nn.resnet import (
    InstanceNorm,
    LocalEnhancer,
    NarrowConvolution,
    OpeningConvolution,
    Overlay,
    ReflectionPad,
    ResidualGenerator,
    initialise_pix2pix,
)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("mine", "torchs"), [(InstanceNorm(), nn.InstanceNorm2d(5)), (ReflectionPad(3), nn.ReflectionPad2d(3))]
)
def test_values_and_gradients_are_torchs(mine, torchs, layout):
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(3, 5, 8, 6, generator=generator).contiguous(memory_format=layout).requires_grad_()
    other = one.detach().clone().requires_grad_()
    made, expected = mine(one), torchs(other)
    weights = torch.randn(expected.shape, generator=generator)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 32])  # at 1,024 pixels another of torch's norms takes over
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_instance_norm_of_small_and_large_images_far_from_zero(side, precision):
    generator = torch.Generator().manual_seed(0)
    deviation = torch.tensor([0.1, 1, 3]).view(3, 1, 1, 1)
    image = (torch.randn(3, 5, side, side + 1, generator=generator) * deviation + 2).to(precision)
    one = image.contiguous(memory_format=torch.channels_last).requires_grad_()
    other = image.double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        made = InstanceNorm()(one)
    expected = nn.functional.instance_norm(other)
    weights = torch.randn(expected.shape, generator=generator)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    assert made.dtype == precision
    assert made.is_contiguous(memory_format=torch.channels_last)
    gap = (made.double() - expected).norm() / expected.norm()
    slope = (one.grad.double() - other.grad).flatten(1).norm(dim=1) / other.grad.flatten(1).norm(dim=1)
    assert gap < (0.02 if precision == torch.bfloat16 else 1e-5)
    assert slope.max() < (0.02 if precision == torch.bfloat16 else 1e-5)


def test_autocast_pads_images_in_bfloat16_as_they_are():
    image = torch.randn(1, 3, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        made = ReflectionPad(2)(image)
    made.sum().backward()
    assert made.dtype == image.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("side", [4, 32])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_channel_of_one_colour_becomes_zero(side, precision):
    image = torch.full((2, 3, side, side), 0.7, dtype=precision, requires_grad=True)
    made = InstanceNorm()(image)
    made.square().sum().backward()
    assert made.abs().max() < 1e-3
    assert image.grad.isfinite().all()


def test_images_do_not_see_each_other():
    images = torch.randn(4, 6, 16, 16)
    network = ResidualGenerator(6, 3, 4, 2, 1)
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_sizes():
    network, enhancer = ResidualGenerator(6, 3, 4, 2, 2), LocalEnhancer(6, 3, 4, 1)
    small, large = torch.randn(1, 6, 16, 24), torch.randn(1, 6, 32, 48)
    assert network(small).shape == (1, 3, 16, 24)
    assert network.trunk(small).shape == (1, 4, 16, 24)
    assert enhancer(large, network.trunk(small)).shape == (1, 3, 32, 48)
    assert network(small).abs().max() <= 1


def test_an_overlay_composes():
    overlay = Overlay(2, 2)
    overlay.background.data.fill_(0.5)
    numbers = torch.zeros(1, 4, 2, 2)
    numbers[:, :3] = 20.0
    for logit, expected in ((-30.0, 0.5), (0.0, 0.75), (30.0, 1.0)):
        numbers[:, 3] = logit
        torch.testing.assert_close(overlay(numbers), torch.full((1, 3, 2, 2), expected))


def test_weights_start_as_the_paper_says():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(32, 64, 3), nn.BatchNorm2d(2000)).apply(initialise_pix2pix)
    assert network[0].weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert network[1].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert network[1].weight.mean().item() == pytest.approx(1, abs=0.002)
    assert network[1].bias.abs().max() == 0


@pytest.mark.parametrize("width", [20, 18, 17])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("kind", "channels"), [(NarrowConvolution, (5, 4)), (OpeningConvolution, (4, 5))])
def test_a_convolution_to_or_from_few_channels_is_torchs(kind, channels, width: int, layout: torch.memory_format):
    torch.manual_seed(0)
    mine, torchs = kind(*channels, 7), nn.Conv2d(*channels, 7)
    torchs.load_state_dict(mine.state_dict())
    one = torch.randn(3, channels[0], 13, width + 6).contiguous(memory_format=layout).requires_grad_()
    other = one.detach().clone().requires_grad_()
    made, expected = mine(one), torchs(other)
    weights = torch.randn(expected.shape)
    (made * weights).sum().backward()
    (expected * weights).sum().backward()
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(made, expected, **close)
    torch.testing.assert_close(one.grad, other.grad, **close)
    torch.testing.assert_close(mine.weight.grad, torchs.weight.grad, **close)
    torch.testing.assert_close(mine.bias.grad, torchs.bias.grad, **close)
    with torch.autocast("cpu", torch.bfloat16):
        half = mine(one)
    assert half.dtype == torch.bfloat16
    half.float().sum().backward()
    assert mine.weight.grad.dtype == torch.float32
    torch.testing.assert_close(half.float(), expected, atol=0.05, rtol=0.05)


def test_an_opening_convolution_learns_where_no_gradient_of_the_image_is_wanted_and_the_other_way_round():
    torch.manual_seed(0)
    mine, image = OpeningConvolution(3, 5, 7), torch.randn(1, 3, 10, 10)
    mine(image).sum().backward()
    assert mine.weight.grad is not None
    mine.requires_grad_(False)
    seen = image.clone().requires_grad_()
    mine(seen).square().sum().backward()
    other = image.clone().requires_grad_()
    nn.functional.conv2d(other, mine.weight, mine.bias).square().sum().backward()
    torch.testing.assert_close(seen.grad, other.grad, atol=1e-4, rtol=1e-4)
