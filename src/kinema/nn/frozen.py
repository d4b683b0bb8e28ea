"""Convolutions whose weights never move: of networks that are asked what they see, and never taught."""

from collections.abc import Callable
from itertools import product
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu6

from kinema.core.types import Image

Bound = tuple[str, list[float]]  # what follows a convolution, as oneDNN calls it


class FrozenConvolution(nn.Conv2d):
    """A convolution of frozen weights, plain or depthwise, that pads by itself and ends in ReLU6 where it is `bounded`.

    With stride 2 the places in odd rows and columns are kept, as EfficientNet-Lite does: they are the places of a kernel that
    is one larger and begins with zeros. Once its weights are bfloat16 it is one operation on a processor, 0.6 times as long
    as torch's two: oneDNN bounds what it has just computed, finds the weights in the order that it wants, and takes the
    gradient as a convolution with the mirrored kernel.

    Args:
        convolution: of an odd kernel, for inputs of even sides.
        bounded: ReLU6 follows.
    """

    def __init__(self, convolution: nn.Conv2d, bounded: bool) -> None:
        c, (kernel, _), (stride, _) = convolution, convolution.kernel_size, convolution.stride
        wider, reach = stride - 1, kernel // 2
        super().__init__(c.in_channels, c.out_channels, kernel + wider, stride, reach, groups=c.groups)
        self.reach = reach
        self.weight = nn.Parameter(pad(c.weight.detach(), (wider, 0, wider, 0)), requires_grad=False)
        self.bias = None if c.bias is None else nn.Parameter(c.bias.detach().clone(), requires_grad=False)
        self.bounded = bounded
        self._packed: dict[str, Tensor] = {}

    def forward(self, input: Image) -> Float[Tensor, "B D h w"]:
        """Return the features."""
        if input.device.type == "cpu" and self.weight.dtype == torch.bfloat16 and fuses():
            image = input.to(self.weight.dtype)
            return cast(Tensor, Fused.apply(image, self)) if image.requires_grad else self.fused(image)
        features = super().forward(input)
        return relu6(features) if self.bounded else features

    def fused(self, image: Tensor) -> Tensor:
        """Return the features in one operation."""
        bound: Bound = ("hardtanh", [0.0, 6.0]) if self.bounded else ("none", [])
        return self._convolve("forward", image, lambda: self.weight, self.bias, self.stride[0], self.reach, bound)

    def adjoint(self, gradient: Tensor) -> Tensor:
        """Return the gradient of the image, given that of the features before they were bounded."""
        if self.stride[0] == 2 and self.groups == 1:
            places = self._convolve("adjoint", gradient, self.quartered, None, 1, 1, ("none", []))
            image = rearrange(places, "b (r s c) h w -> b (h r) (w s) c", r=2, s=2)
            return rearrange(image, "b h w c -> b c h w")
        if self.stride[0] == 2:  # that of stride 1, whose other places have no gradient
            batch, channels, height, width = gradient.shape
            everywhere = gradient.new_zeros(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
            everywhere[:, :, 1::2, 1::2] = gradient
            gradient = everywhere
        return self._convolve("adjoint", gradient, self.mirrored, None, 1, self.reach, ("none", []))

    def mirrored(self) -> Tensor:
        """Return the kernel, of stride 1, that takes gradients back."""
        wider = self.stride[0] - 1
        kernel = self.weight[:, :, wider:, wider:].flip(2, 3)
        return kernel if self.groups > 1 else kernel.transpose(0, 1)

    def quartered(self) -> Tensor:
        """Return the kernel of 3 places that takes gradients of stride 2 back: to four pixels each, as further channels.

        It has every other row and column of the mirrored one; which, depends on the pixel.
        """
        kernel = pad(self.mirrored(), (1, 3 - self.reach) * 2)
        every_other = [slice(self.reach - place, self.reach - place + 5, 2) for place in (0, 1)]
        return torch.cat([kernel[:, :, row, column] for row, column in product(every_other, repeat=2)])

    def _convolve(
        self, name: str, image: Tensor, kernel: Callable[[], Tensor], bias: Tensor | None, step: int, reach: int, bound: Bound
    ) -> Tensor:
        places = ((reach, reach), (step, step), (1, 1), self.groups)
        if name not in self._packed:
            ordered = kernel().contiguous(memory_format=torch.channels_last)
            self._packed[name] = torch.ops.mkldnn._reorder_convolution_weight(ordered, *places, image.shape)
        return torch.ops.mkldnn._convolution_pointwise(image, self._packed[name], bias, *places, *bound, "")


class Fused(torch.autograd.Function):
    """A `FrozenConvolution` in one operation."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, layer: FrozenConvolution) -> Tensor:
        """Return the features."""
        features = layer.fused(image)
        ctx.layer = layer
        ctx.save_for_backward(*([features] if layer.bounded else []))
        return features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the image: none where the features were bounded."""
        (gradient,) = gradients
        for features in ctx.saved_tensors:
            gradient = torch.ops.aten.hardtanh_backward(gradient, features, 0.0, 6.0)
        return ctx.layer.adjoint(gradient), None


def fuses() -> bool:
    """Tell whether oneDNN computes in bfloat16 here and bounds what it has computed; a compiler does so by itself."""
    return (
        not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
