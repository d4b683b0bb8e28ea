"""Frozen convolutions: the network's own, in one operation or in two."""

import pytest
import torch
from torch import nn

from kinema.nn import frozen
from kinema.nn.frozen import FrozenConvolution

KINDS = {
    "pointwise": (6, 8, 1, 1, 1, 0),
    "depthwise 3": (6, 6, 3, 1, 6, 1),
    "depthwise 5": (6, 6, 5, 1, 6, 2),
    "halving 3": (6, 6, 3, 2, 6, (0, 1, 0, 1)),
    "halving 5": (6, 6, 5, 2, 6, (1, 2, 1, 2)),
    "stem": (3, 8, 3, 2, 1, (0, 1, 0, 1)),
    "stem 5": (3, 8, 5, 2, 1, (1, 2, 1, 2)),
    "plain 3": (6, 8, 3, 1, 1, 1),
}


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("path", ["float32", "bfloat16", "bfloat16 in two operations"])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_convolution_that_pads_apart_and_its_bound(kind, path, bounded, monkeypatch):
    if "two" in path:
        monkeypatch.setattr(frozen, "fuses", lambda: False)
    inputs, outputs, kernel, stride, groups, padding = KINDS[kind]
    precision = torch.float32 if path == "float32" else torch.bfloat16
    torch.manual_seed(0)
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, groups=groups).requires_grad_(False)
    mine = FrozenConvolution(layer, bounded).to(precision)
    for height, width in ((14, 16), (8, 10), (14, 16)):  # weights were laid out for the first
        image = (4 * torch.randn(2, inputs, height, width)).to(precision)
        image = image.contiguous(memory_format=torch.channels_last).requires_grad_()
        other = image.detach().float().requires_grad_()
        expected = layer(nn.ZeroPad2d(padding)(other))
        expected = nn.functional.relu6(expected) if bounded else expected
        made = mine(image)
        with torch.no_grad():
            torch.testing.assert_close(mine(image), made, atol=0, rtol=0)
        weights = torch.randn(expected.shape).to(precision)
        made.backward(weights)
        expected.backward(weights.float())
        assert made.dtype == image.grad.dtype == precision
        rough = {"atol": 0.05, "rtol": 0.02} if precision == torch.bfloat16 else {}
        torch.testing.assert_close(made.float(), expected, **rough)
        near = (image.grad.float() - other.grad).norm() / other.grad.norm()
        assert near < (0.1 if precision == torch.bfloat16 else 1e-5)


def test_one_operation_is_taken_where_the_processor_has_it():
    if not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        pytest.skip("oneDNN does not compute in bfloat16 here")
    mine = FrozenConvolution(nn.Conv2d(4, 4, 3), bounded=True).to(torch.bfloat16)
    image = torch.randn(1, 4, 8, 8, requires_grad=True)
    made = mine(image)
    assert made.grad_fn is not None
    assert "Fused" in made.grad_fn.name()
    made.sum().backward()
    assert image.grad is not None
    assert image.grad.dtype == torch.float32
