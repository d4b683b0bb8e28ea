"""Convolution blocks of the DCGAN line: kernel 4, stride 2, one normalisation, one activation.

`rank` is 2 for images and 3 for videos. Every convolution has a bias, also before batch norm.
"""

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.parametrizations import spectral_norm

Upsampling = Literal["transposed", "smoothed", "resize"]
Normalisation = Literal["none", "batch", "spectral"]

CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class BiasApart(nn.modules.conv._ConvTransposeNd):
    """A transposed convolution that learns its bias apart from its weights.

    The same numbers: oneDNN adds up the gradient of a bias so slowly that the backward pass takes a third longer and more.
    """

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Return the features."""
        if input.device.type != "cpu" or self.bias is None or output_size is not None or not torch.is_grad_enabled():
            return super().forward(input, output_size)
        parts = (input, self.weight, self.bias)
        if torch.is_autocast_enabled("cpu"):
            parts = tuple(part.to(torch.get_autocast_dtype("cpu")) for part in parts)
        places = (self.stride, self.padding, self.dilation, True, self.output_padding, self.groups)
        return cast(Tensor, TransposedConvolution.apply(*parts, places))


class TransposedConvolution(torch.autograd.Function):
    """A transposed convolution whose bias has a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, places: tuple[Any, ...]) -> Tensor:
        """Return the features; `places` are stride, padding and so on, as torch's own function takes them."""
        ctx.save_for_backward(features, weight)
        ctx.places = places
        return torch.convolution(features, weight, bias, *places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        """Return the gradients of features, weight and bias."""
        (gradient,), (features, weight), wanted = gradients, ctx.saved_tensors, ctx.needs_input_grad
        found = torch.ops.aten.convolution_backward(gradient, features, weight, [0], *ctx.places, [*wanted[:2], False])
        of_bias = gradient.sum(dim=(0, *range(2, gradient.dim()))) if wanted[2] else None
        return found[0], found[1], of_bias, None


class TransposedImages(BiasApart, nn.ConvTranspose2d):
    """`BiasApart` on images."""


class TransposedVideos(BiasApart, nn.ConvTranspose3d):
    """`BiasApart` on videos."""


TRANSPOSED = {2: TransposedImages, 3: TransposedVideos}


def upsample(rank: int, inputs: int, outputs: int, upsampling: Upsampling = "transposed") -> nn.Module:
    """Return a layer that doubles every extent.

    Args:
        rank: 2 or 3.
        inputs: channels that come in.
        outputs: channels that go out.
        upsampling: "transposed": a transposed convolution, kernel 4, stride 2. "smoothed": the same weights, then a mean over
            neighbours along every axis, whose response is zero at the period of two pixels that checkerboards have.
            "resize": nearest resize and a convolution of kernel 3, at 3.4 times the cost in three dimensions.

    References:
        Odena et al., "Deconvolution and Checkerboard Artifacts", Distill 2016, for the cause and for "resize".
    """
    if upsampling == "resize":
        return nn.Sequential(nn.Upsample(scale_factor=2), CONVOLUTION[rank](inputs, outputs, 3, padding=1))
    if upsampling == "transposed":
        return TRANSPOSED[rank](inputs, outputs, 4, stride=2, padding=1)
    # Without padding one row, column and frame more comes out at either end, which the mean uses up: nothing shifts.
    return nn.Sequential(TRANSPOSED[rank](inputs, outputs, 4, stride=2), NeighbourMean())


class SpaceTimeConvolution(nn.Conv3d):
    """A convolution of kernel 3 that keeps the extents, padded with zeros.

    On processors that compute in bf16, torch 2.13 returns memory that was never written as the gradient of the weights
    where a clip has two frames and the convolution pads them itself; so time is padded before.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=(0, 1, 1))

    def forward(self, input: Tensor) -> Tensor:
        """Return features of the same extents."""
        return super().forward(pad(input, (0, 0, 0, 0, 1, 1)))


class NeighbourMean(nn.Module):
    """Mean of every element (weight 1/2) and its two neighbours (1/4 each) along every axis: each extent shrinks by two.

    The two elements at either end, which only one input of the convolution before it reaches, count for root two: their
    variance is that of the others then, and first and last frames are no paler than those between.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return the means."""
        return cast(Tensor, EvenMean.apply(features))


class EvenMean(torch.autograd.Function):
    """The sums of `NeighbourMean` and their adjoint, written out.

    Average pooling has no fast path for bfloat16 on a processor, and autograd's gradient of slices fills and copies a whole
    tensor for each of them: together a sixth of a training step.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        """Return the means."""
        return mean_of_neighbours(strengthen_ends(features.clone()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient: the weights are symmetric, and beyond the ends there is nothing."""
        (gradient,) = gradients
        return strengthen_ends(mean_of_neighbours(pad(gradient, (2,) * (2 * gradient.dim() - 4))))


def mean_of_neighbours(features: Tensor) -> Tensor:
    """Return means with weights 1/4, 1/2, 1/4 along every axis but the first two."""
    for axis in range(2, features.dim()):
        extent = features.shape[axis] - 2
        ends = torch.lerp(features.narrow(axis, 0, extent), features.narrow(axis, 2, extent), 0.5)
        features = ends.lerp_(features.narrow(axis, 1, extent), 0.5)
    return features


def strengthen_ends(features: Tensor) -> Tensor:
    """Multiply the two elements at either end of every axis but the first two by root two, in place."""
    for axis in range(2, features.dim()):
        for first in (0, features.shape[axis] - 2):
            features.narrow(axis, first, 2).mul_(2**0.5)
    return features


def stem(rank: int, inputs: int, outputs: int, kernel: tuple[int, ...]) -> nn.Module:
    """Return the layer that turns a code (extent 1) into the first feature map, of extent `kernel`."""
    return nn.Sequential(TRANSPOSED[rank](inputs, outputs, kernel), BATCH_NORM[rank](outputs), nn.ReLU(inplace=True))


def up_block(rank: int, inputs: int, outputs: int, upsampling: Upsampling = "transposed") -> nn.Module:
    """Return upsampling by two, batch norm and ReLU."""
    return nn.Sequential(upsample(rank, inputs, outputs, upsampling), BATCH_NORM[rank](outputs), nn.ReLU(inplace=True))


def down_block(
    rank: int,
    inputs: int,
    outputs: int,
    norm: Normalisation,
    activation: nn.Module | None = None,
) -> nn.Module:
    """Return a convolution that halves every extent, its normalisation and its activation (LeakyReLU 0.2)."""
    convolution = CONVOLUTION[rank](inputs, outputs, 4, stride=2, padding=1)
    layers: list[nn.Module] = [spectral_norm(convolution) if norm == "spectral" else convolution]
    if norm == "batch":
        layers.append(BATCH_NORM[rank](outputs, eps=1e-3))
    return nn.Sequential(*layers, activation or nn.LeakyReLU(0.2, inplace=True))


def initialise_dcgan(module: nn.Module) -> None:
    """Set convolution weights to N(0, 0.01), batch-norm scales to N(1, 0.02) and every bias to 0.

    Use as ``network.apply(initialise_dcgan)`` before spectral norm is of any effect: scale does not matter under it.

    References:
        The release of Vondrick et al. 2016; the paper says N(0, 0.01) for all weights.
    """
    if isinstance(module, (*CONVOLUTION.values(), *TRANSPOSED.values())):
        for name, parameter in module.named_parameters():  # under spectral norm the weight has another name
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, 0.0, 0.01)
    elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
