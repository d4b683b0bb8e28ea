"""Upsampling without checkerboards."""

import pytest
import torch
from torch.nn import functional as F

from kinema.nn.convolution import TRANSPOSED, NeighbourMean, upsample


def strengthened(features: torch.Tensor) -> torch.Tensor:
    """Multiply both ends of every axis by root two, with masks instead of slices."""
    for axis in range(2, features.dim()):
        place = torch.arange(features.shape[axis])
        end = (place < 2) | (place >= len(place) - 2)
        shape = [-1 if other == axis else 1 for other in range(features.dim())]
        features = features * torch.where(end, 2**0.5, 1.0).double().reshape(shape)
    return features


@pytest.mark.parametrize("rank", [2, 3])
def test_the_mean_over_neighbours_is_a_convolution_with_quarter_half_quarter(rank):
    features = torch.randn(2, 3, *(6, 5, 4)[:rank], dtype=torch.double, generator=torch.Generator().manual_seed(0))
    line = torch.tensor([0.25, 0.5, 0.25], dtype=torch.double)
    kernel = torch.einsum("i,j->ij", line, line) if rank == 2 else torch.einsum("i,j,k->ijk", line, line, line)
    convolve = F.conv2d if rank == 2 else F.conv3d
    expected = convolve(strengthened(features), kernel.expand(3, 1, *kernel.shape), groups=3)
    assert torch.allclose(NeighbourMean()(features), expected, atol=1e-12)


def test_its_written_out_gradient_is_right_and_can_be_differentiated_again():
    features = torch.randn(1, 2, 4, 5, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(NeighbourMean(), features)
    assert torch.autograd.gradgradcheck(NeighbourMean(), features)


def test_checkerboards_do_not_pass():
    """Period two vanishes in the middle, where a plain transposed convolution of the same input would keep it."""
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    checkerboard = (-1.0) ** (rows + columns)
    smooth = NeighbourMean()(checkerboard[None, None])
    assert smooth[..., 2:-2, 2:-2].abs().max() < 1e-6


def test_smoothed_upsampling_is_symmetric_and_as_strong_at_the_ends_as_between():
    """Without `strengthen_ends` the deviation in the first and last frame is three quarters of that in the middle."""
    torch.manual_seed(0)
    layer = upsample(3, 64, 32, "smoothed")
    with torch.no_grad():
        made = layer(torch.randn(8, 64, 4, 4, 4))
    assert made.shape == (8, 32, 8, 8, 8)
    deviation = made.std(dim=(0, 1, 3, 4))
    assert torch.allclose(deviation, deviation.mean(), rtol=0.06)

    transposed, _ = layer
    transposed.weight.data = 0.5 * (transposed.weight.data + transposed.weight.data.flip(2, 3, 4))
    features = torch.randn(1, 64, 4, 4, 4)
    with torch.no_grad():
        assert torch.allclose(layer(features.flip(2, 3, 4)), layer(features).flip(2, 3, 4), atol=1e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rank", [2, 3])
def test_a_transposed_convolution_and_its_gradients_are_those_of_torch(rank, precision):
    torch.manual_seed(0)
    theirs_of = {2: torch.nn.ConvTranspose2d, 3: torch.nn.ConvTranspose3d}[rank]
    ours, theirs = (kind(5, 3, 4, stride=2, padding=1) for kind in (TRANSPOSED[rank], theirs_of))
    ours.load_state_dict(theirs.state_dict())
    one = torch.randn(2, 5, *(3, 4, 5)[:rank], requires_grad=True)
    other = one.detach().clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        made, expected = ours(one), theirs(other)
    assert made.dtype == precision
    assert torch.equal(made, expected)
    gradient = torch.randn_like(made)
    made.backward(gradient)
    expected.backward(gradient)
    for a, b in ((one.grad, other.grad), (ours.weight.grad, theirs.weight.grad), (ours.bias.grad, theirs.bias.grad)):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-2 if precision == torch.bfloat16 else 1e-5)
