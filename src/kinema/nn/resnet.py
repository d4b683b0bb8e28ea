"""Residual generators of the pix2pixHD line: from an image to an image of the same size.

Convolutions have a bias and reflect at the borders; instance norm has no parameters.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad

from kinema.core.types import Image
from kinema.nn.convolution import TransposedImages
from kinema.nn.regions import shifted

EPSILON = 1e-5  # of instance norm
LARGE = 1024  # pixels from which torch's group norm walks through channels-last images in their order


class InstanceNorm(nn.Module):
    """Centre and scale every channel of every image by its own mean and deviation (Ulyanov et al., 2016).

    The same numbers as `nn.InstanceNorm2d`, which puts channels-last images into another order and back on a processor.
    """

    def forward(self, features: Image) -> Image:
        """Return the normalised features."""
        if features.device.type != "cpu":
            return nn.functional.instance_norm(features)
        return cast(Tensor, Centred.apply(features))


class Centred(torch.autograd.Function):
    """Instance norm by torch's norms of groups and of batches, whichever is quick where: it is a case of either.

    Large images in bfloat16 are groups of one channel. In small ones those are ten times slower than a batch norm of every
    image, and in float32 less exact: torch subtracts the square of the mean from the mean of squares. The gradient is that
    of batch norms.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor) -> Tensor:
        """Return the normalised features."""
        batch, channels, height, width = features.shape
        if height * width >= LARGE and features.dtype == torch.bfloat16:
            made, *moments = torch.native_group_norm(features, None, None, batch, channels, height * width, channels, EPSILON)
        else:
            plain = (None, None, None, None, True, 0.0, EPSILON)
            normed = (torch.native_batch_norm(image, *plain) for image in features.split(1))
            made, *moments = map(torch.cat, zip(*normed, strict=True))
        ctx.save_for_backward(features, *(moment.reshape(batch, channels).float() for moment in moments))
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the gradient of the features."""
        features, means, scales = ctx.saved_tensors
        images = zip(gradients[0].split(1), features.split(1), means, scales, strict=True)
        wanted, differentiate = (True, False, False), torch.ops.aten.native_batch_norm_backward
        return torch.cat(
            [
                differentiate(gradient, image, None, None, None, mean, scale, True, EPSILON, wanted)[0]
                for gradient, image, mean, scale in images
            ]
        )


class ReflectionPad(nn.Module):
    """Continue an image beyond its borders by its mirror image.

    Args:
        reach: pixels on every side.
    """

    def __init__(self, reach: int) -> None:
        super().__init__()
        self.reach = reach

    def forward(self, image: Image) -> Float[Tensor, "B C h w"]:
        """Return the larger image."""
        return cast(Tensor, Mirrored.apply(image, self.reach))


class Mirrored(torch.autograd.Function):
    """Reflection padding with its adjoint written out: torch's own is three times as slow on a processor.

    There autocast would pad in float32, between two conversions of the whole image.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, reach: int) -> Tensor:
        """Return the padded image."""
        ctx.reach = reach
        with torch.autocast("cpu", enabled=False):
            return pad(image, (reach,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Fold the gradient of the border back to where its pixels came from."""
        (gradient,), reach = gradients, ctx.reach
        for axis in (2, 3):
            extent = gradient.shape[axis] - 2 * reach
            inner = gradient.narrow(axis, reach, extent).clone()
            inner.narrow(axis, 1, reach).add_(gradient.narrow(axis, 0, reach).flip(axis))
            inner.narrow(axis, extent - 1 - reach, reach).add_(gradient.narrow(axis, extent + reach, reach).flip(axis))
            gradient = inner
        return gradient, None


class NarrowConvolution(nn.Conv2d):
    """A convolution to a few channels, of stride 1 and without padding.

    The same numbers as `nn.Conv2d`, in half the time on a processor, which computes 16 channels where 4 are asked for: here
    neighbouring places are further channels of one convolution that steps over them.
    """

    def forward(self, input: Image) -> Float[Tensor, "B D h w"]:
        """Return the channels."""
        if input.device.type != "cpu" or self.bias is None:
            return super().forward(input)
        return cast(Tensor, Packed.apply(*as_computed(input, self.weight, self.bias)))


class OpeningConvolution(nn.Conv2d):
    """A convolution from a few channels, of stride 1 and without padding.

    The same numbers as `nn.Conv2d`. The gradient of what came in is a convolution to a few channels; on a processor it takes
    two thirds of the time, computed as a `NarrowConvolution` is.
    """

    def forward(self, input: Image) -> Float[Tensor, "B D h w"]:
        """Return the channels."""
        if input.device.type != "cpu" or self.bias is None or not input.requires_grad:
            return super().forward(input)
        return cast(Tensor, Opened.apply(*as_computed(input, self.weight, self.bias)))


def as_computed(*parts: Tensor) -> tuple[Tensor, ...]:
    """Return what autocast would compute with on a processor, which it does not know of functions that are written out."""
    if not torch.is_autocast_enabled("cpu"):
        return parts
    return tuple(part.to(torch.get_autocast_dtype("cpu")) for part in parts)


class Opened(torch.autograd.Function):
    """Convolution whose gradient of the image is computed for neighbouring places at once."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the channels of every place."""
        ctx.save_for_backward(image, weight)
        return conv2d(image, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of image, weight and bias."""
        (gradient,), (image, weight), wanted = gradients, ctx.saved_tensors, ctx.needs_input_grad
        found = convolution_backward(gradient, image, weight, 1, (False, *wanted[1:])) if any(wanted[1:]) else (None,) * 3
        reach = weight.shape[2] - 1
        around = pad(gradient.permute(0, 2, 3, 1), (0, 0, reach, reach, reach, reach)).permute(0, 3, 1, 2)
        return convolved(around, weight.flip(2, 3).transpose(0, 1)) if wanted[0] else None, *found[1:]


class Packed(torch.autograd.Function):
    """Convolution whose neighbouring places are channels, for the result and for the gradient of the weights."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return the channels of every place."""
        ctx.save_for_backward(image, weight)
        return convolved(image, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of image, weight and bias; that of the image has a fast path of its own."""
        (gradient,), (image, weight) = gradients, ctx.saved_tensors
        of_image, of_weight, of_bias = ctx.needs_input_grad
        found: list[Tensor | None] = [None, None, None]
        if of_image:
            found[0] = convolution_backward(gradient, image, weight, 1, (True, False, False))[0]
        if of_weight or of_bias:
            places, reach = neighbours(gradient.shape[3]), weight.shape[3]
            packed = rearrange(rearrange(gradient, "b c h (w n) -> b h w (n c)", n=places), "b h w c -> b c h w")
            both = convolution_backward(packed, image, spread(weight, places), places, (False, True, True))[1:]
            wide, biases = cast(tuple[Tensor, Tensor], both)
            parts = rearrange(wide, "(n d) c h w -> n d c h w", n=places)
            found[1] = sum((part[..., place : place + reach] for place, part in enumerate(parts)), torch.zeros_like(weight))
            found[2] = rearrange(biases, "(n d) -> n d", n=places).sum(dim=0)
        return found[0], found[1], found[2]


def convolved(image: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return a convolution to a few channels, of stride 1 and without padding."""
    places = neighbours(image.shape[3] - weight.shape[3] + 1)
    packed = conv2d(image, spread(weight, places), bias if bias is None else bias.repeat(places), stride=(1, places))
    return rearrange(rearrange(packed, "b (n c) h w -> b h (w n) c", n=places), "b h w c -> b c h w")


def neighbours(width: int) -> int:
    """Return how many places become channels in rows of a width."""
    return next(places for places in (4, 2, 1) if width % places == 0)


def spread(weight: Float[Tensor, "D C k k"], places: int) -> Float[Tensor, "E C k w"]:
    """Return the weights of neighbouring places, one after the other, over all that they see together."""
    moved = [pad(weight, (place, places - 1 - place)) for place in range(places)]
    return torch.cat(moved).contiguous(memory_format=torch.channels_last)


def convolution_backward(
    gradient: Tensor, image: Tensor, weight: Tensor, step: int, wanted: tuple[bool, bool, bool]
) -> Sequence[Tensor | None]:
    """Return the gradients of image, weight and bias, as far as they are wanted.

    Args:
        gradient: of the result.
        image: what came in.
        weight: of the convolution.
        step: from place to place within a row.
        wanted: which of the three.
    """
    plain = ([len(weight)], (1, step), (0, 0), (1, 1), False, (0, 0), 1)
    return torch.ops.aten.convolution_backward(gradient, image, weight, *plain, wanted)


class ResidualBlock(nn.Module):
    """Two convolutions of kernel 3 whose result is added to what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.change = nn.Sequential(
            *(ReflectionPad(1), nn.Conv2d(width, width, 3), InstanceNorm(), nn.ReLU(inplace=True)),
            *(ReflectionPad(1), nn.Conv2d(width, width, 3), InstanceNorm()),
        )

    def forward(self, features: Image) -> Image:
        """Return features of the same shape."""
        return features + self.change(features)


def opening(inputs: int, outputs: int) -> Sequence[nn.Module]:
    """Return the first layers: a convolution of kernel 7, norm, ReLU."""
    return ReflectionPad(3), OpeningConvolution(inputs, outputs, 7), InstanceNorm(), nn.ReLU(inplace=True)


def halving(inputs: int, outputs: int) -> Sequence[nn.Module]:
    """Return layers that halve both sides."""
    return nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), InstanceNorm(), nn.ReLU(inplace=True)


def doubling(inputs: int, outputs: int) -> Sequence[nn.Module]:
    """Return layers that double both sides."""
    convolution = TransposedImages(inputs, outputs, 3, stride=2, padding=1, output_padding=1)
    return convolution, InstanceNorm(), nn.ReLU(inplace=True)


def closing(inputs: int, outputs: int, output: nn.Module) -> nn.Sequential:
    """Return the last layers: a convolution of kernel 7 and what makes an image of its numbers."""
    return nn.Sequential(ReflectionPad(3), NarrowConvolution(inputs, outputs, 7), output)


class ResidualGenerator(nn.Module):
    """The global generator: down, residual blocks, up.

    Args:
        inputs: channels that come in.
        outputs: channels of the last convolution.
        base: channels at full size; doubled with every halving.
        downs: how often both sides are halved; they must be multiples of two to that power.
        blocks: residual blocks at the lowest resolution.
        output: what makes an image of the last convolution's numbers; tanh by default.

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, Section 3.1;
        Johnson et al., "Perceptual Losses for Real-Time Style Transfer", ECCV 2016.
    """

    def __init__(self, inputs: int, outputs: int, base: int, downs: int, blocks: int, output: nn.Module | None = None) -> None:
        super().__init__()
        widths = [base << level for level in range(downs + 1)]
        steps = list(pairwise(widths))
        self.trunk = nn.Sequential(
            *opening(inputs, base),
            *(layer for narrow, wide in steps for layer in halving(narrow, wide)),
            *(ResidualBlock(widths[-1]) for _ in range(blocks)),
            *(layer for narrow, wide in reversed(steps) for layer in doubling(wide, narrow)),
        )
        self.last = closing(base, outputs, output or nn.Tanh())

    def forward(self, image: Image) -> Float[Tensor, "B D H W"]:
        """Return an image of the same size."""
        return self.last(self.trunk(image))

    def silence(self) -> None:
        """Let it return zeros at first, or what `output` makes of them: its last convolution learns before the others."""
        for parameter in self.last[1].parameters():
            nn.init.zeros_(parameter)


class LocalEnhancer(nn.Module):
    """Adds detail at twice the resolution to the features of a `ResidualGenerator`'s trunk, which sees the image pooled.

    Args:
        inputs: channels that come in.
        outputs: channels of the last convolution.
        base: channels of the trunk at its full size; here half as many at full size.
        blocks: residual blocks.
        output: what makes an image of the last convolution's numbers; tanh by default.

    References:
        Wang et al., CVPR 2018, Section 3.1.
    """

    def __init__(self, inputs: int, outputs: int, base: int, blocks: int, output: nn.Module | None = None) -> None:
        super().__init__()
        narrow = base // 2
        self.before = nn.Sequential(*opening(inputs, narrow), *halving(narrow, base))
        self.after = nn.Sequential(*(ResidualBlock(base) for _ in range(blocks)), *doubling(base, narrow))
        self.last = closing(narrow, outputs, output or nn.Tanh())

    def forward(self, image: Image, coarse: Float[Tensor, "B F h w"]) -> Float[Tensor, "B D H W"]:
        """Return an image.

        Args:
            image: at full size.
            coarse: features of the trunk for the image at half the size.
        """
        return self.last(self.after(self.before(image) + coarse))


class Overlay(nn.Module):
    """Composes a generated frame over a still background; starts from grey.

    Args:
        height: of a frame in pixels.
        width: of a frame in pixels.
    """

    channels = 4
    steps: Tensor | None = None
    """How far beside its place the background lies in every image, down and to the right in pixels; see `beside`."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.background = nn.Parameter(torch.zeros(1, 3, height, width))

    def forward(self, numbers: Float[Tensor, "B 4 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Return m * generated + (1 - m) * background."""
        # Apart in memory: a slice of channels-last numbers is walked through one by one.
        mask = torch.sigmoid(numbers[:, 3:].contiguous()).float()
        generated = torch.tanh(numbers[:, :3].contiguous(memory_format=torch.channels_last)).float()
        background = self.background if self.steps is None else shifted(self.background, self.steps)
        return torch.lerp(background.contiguous(memory_format=torch.channels_last), generated, mask)


@contextmanager
def beside(module: nn.Module, steps: Int[Tensor, "B 2"] | None) -> Iterator[None]:
    """Let the still backgrounds of a module lie beside their places, in every image by its own steps."""
    overlays = [part for part in module.modules() if isinstance(part, Overlay)]
    for overlay in overlays:
        overlay.steps = steps
    try:
        yield
    finally:
        for overlay in overlays:
            overlay.steps = None


def initialise_pix2pix(module: nn.Module) -> None:
    """Set convolution weights to N(0, 0.02), batch-norm scales to N(1, 0.02) and batch-norm biases to 0; use with `apply`."""
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
