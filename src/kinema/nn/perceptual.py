"""Perceptual losses: how far apart the activations of a network are for an image and the one that it should be.

The network is named in the configuration and in the logs; it is no part of a system, and of no checkpoint. VGG19's weights are
not ours to give: they come as a file. The packaged network needs none.

References:
    Johnson et al., "Perceptual Losses for Real-Time Style Transfer and Super-Resolution", ECCV 2016; weights of the layers as
    in pix2pixHD (Wang et al., CVPR 2018); unit activations as in Zhang et al., CVPR 2018, Equation 1.
"""

import hashlib
import io
import pickle
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.fusion import fuse_conv_bn_eval

from kinema.core.compiling import untraced
from kinema.core.errors import ConfigError
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE, image_network
from kinema.core.types import Image, Scalar
from kinema.nn.frozen import FrozenConvolution
from kinema.nn.losses import absolute_error

PerceptualNetwork = Literal["efficientnet-lite0", "vgg19", "none"]

STAGES = (0, 2, 4, 10, 15)  # the packaged network's last blocks before every halving
WHOLE = 32  # its sides must be multiples of this
LEAST = 8  # pixels of a layer that the loss compares
EPSILON = 1e-10


@runtime_checkable
class PerceptualLoss(Protocol):
    """Compares images in [-1, 1]."""

    def __call__(self, made: Image, truth: Image) -> Scalar:
        """Return a distance whose gradient reaches `made`; 0 for equal images."""
        ...


class Frozen:
    """Something that never changes: copies of what holds it share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        """Return itself."""
        return self


def perceptual_loss(network: PerceptualNetwork, weights: str, digest: str, device: torch.device) -> PerceptualLoss:
    """Open the loss that a configuration names.

    Args:
        network: which; "none" has no loss and must not be asked for.
        weights: file of VGG19's weights.
        digest: SHA-256 of that file, or how it begins; empty: not checked.
        device: where to compute.

    Raises:
        ConfigError: for a network whose weights are missing or others.
    """
    if network == "vgg19":
        return VGGLoss(Path(weights), digest, device)
    if network == "efficientnet-lite0":
        return PackagedLoss(device)
    raise ConfigError("perceptual_network is 'none': there is no perceptual loss to compute")


# --- The packaged network -----------------------------------------------------------------------------------------------------


class ImageActivations:
    """EfficientNet-Lite0's activations before every halving, at sides of 1/2, 1/4, 1/8, 1/16 and 1/32.

    Args:
        device: where to compute.

    Raises:
        ConfigError: the ``features`` extra is not installed.
        DataError: the packaged weights are not the expected ones.
    """

    def __init__(self, device: torch.device) -> None:
        self._network = image_network().requires_grad_(False).to(device, memory_format=torch.channels_last)

    def fold(self) -> None:
        """Take batch norms, padding and ReLU6 up into the convolutions beside them: the same numbers, and quicker gradients."""
        network = self._network
        network._conv_stem, network._bn0 = folded(network._conv_stem, network._bn0, bounded=True)
        for block in network._blocks:
            if hasattr(block, "_expand_conv"):
                block._expand_conv, block._bn0 = folded(block._expand_conv, block._bn0, bounded=True)
            block._depthwise_conv, block._bn1 = folded(block._depthwise_conv, block._bn1, bounded=True)
            block._project_conv, block._bn2 = folded(block._project_conv, block._bn2, bounded=False)
        for part in (network, *network._blocks):
            part._swish = nn.Identity()
        network.requires_grad_(False).to(memory_format=torch.channels_last)

    def converted(self, precision: torch.dtype) -> "ImageActivations":
        """Return a copy with weights of a precision, which autocast would convert for every batch anew."""
        copy = deepcopy(self)
        copy._network.to(precision)
        return copy

    def __call__(self, pixels: Image, least: int = 1) -> list[Tensor]:
        """Return activations, the largest first.

        Args:
            pixels: less `IMAGE_MEAN` over `IMAGE_SCALE`, with sides that are multiples of 32.
            least: side in pixels below which activations are not computed.
        """
        network, seen = self._network, []
        features = network._swish(network._bn0(network._conv_stem(pixels)))
        for number, block in enumerate(network._blocks):
            features = block(features)
            if number in STAGES:
                seen.append(features)
                if min(features.shape[2:]) < 2 * least:
                    break
        return seen


def folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d, bounded: bool) -> tuple[nn.Module, nn.Module]:
    """Return one convolution for a convolution and its norm (and ReLU6, if bounded), and nothing in place of the norm."""
    return FrozenConvolution(fuse_conv_bn_eval(convolution, norm), bounded), nn.Identity()


def unit(activations: Tensor) -> Tensor:
    """Divide activations by their length at every place."""
    return activations / (torch.linalg.vector_norm(activations, dim=1, keepdim=True) + EPSILON)


class PackagedLoss(Frozen):
    """Mean over layers of the squared distance of EfficientNet-Lite0's unit activations; it is no VGG loss.

    Layers of fewer than `LEAST` pixels, which say what is shown and no longer where, are left out.
    """

    def __init__(self, device: torch.device) -> None:
        self._kind = device.type
        self._networks = {torch.float32: ImageActivations(device)}
        self._networks[torch.float32].fold()

    @untraced
    def __call__(self, made: Image, truth: Image) -> Scalar:
        """Return the distance."""
        with torch.no_grad():
            wanted = self._describe(truth)
        return torch.stack([unit_distance(a, b) for a, b in zip(self._describe(made), wanted, strict=True)]).mean()

    def _describe(self, images: Image) -> list[Tensor]:
        height, width = (-(-side // WHOLE) * WHOLE for side in images.shape[2:])
        if (height, width) != tuple(images.shape[2:]):
            images = interpolate(images, (height, width), mode="bilinear", align_corners=False)
        return self._activations()(images * (127.5 / IMAGE_SCALE) + (127.5 - IMAGE_MEAN) / IMAGE_SCALE, LEAST)

    def _activations(self) -> ImageActivations:
        precision = torch.get_autocast_dtype(self._kind) if torch.is_autocast_enabled(self._kind) else torch.float32
        if precision not in self._networks:
            self._networks[precision] = self._networks[torch.float32].converted(precision)
        return self._networks[precision]


def unit_distance(made: Tensor, truth: Tensor) -> Scalar:
    """Return the mean over places of the squared distance of unit activations, from their cosine: |a - b|^2 = 2 - 2 a b."""
    made, truth = made.float(), truth.float()
    lengths = [torch.linalg.vector_norm(one, dim=1) + EPSILON for one in (made, truth)]
    return (2 - 2 * (made * truth).sum(dim=1) / (lengths[0] * lengths[1])).mean()


# --- VGG19 --------------------------------------------------------------------------------------------------------------------

VGG_SLICES = ((64,), (64, "pool", 128), (128, "pool", 256), (256, 256, 256, "pool", 512), (512, 512, 512, "pool", 512))
"""Convolutions (by their channels) and poolings up to relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""
VGG_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)


def vgg_slices() -> nn.ModuleList:
    """Return VGG19 up to relu5_1 in five parts, its layers numbered as in torchvision's ``features`` (Simonyan, 2015)."""
    slices, channels, number = nn.ModuleList(), 3, 0
    for parts in VGG_SLICES:
        layers = nn.Sequential()
        for part in parts:
            if isinstance(part, int):
                layers.add_module(str(number), nn.Conv2d(channels, part, 3, padding=1))
                layers.add_module(str(number + 1), nn.ReLU(inplace=True))
                channels, number = part, number + 2
            else:
                layers.add_module(str(number), nn.MaxPool2d(2))
                number += 1
        slices.append(layers)
    return slices


class VGGLoss(Frozen):
    """Weighted mean absolute differences of VGG19's activations, as the release computes them: images in [-1, 1] as they are.

    Args:
        file: torchvision's state dict of VGG19.
        digest: its SHA-256, or how it begins; empty: not checked.
        device: where to compute.

    Raises:
        ConfigError: when the file is missing, of another digest, or holds something else.
    """

    def __init__(self, file: Path, digest: str, device: torch.device) -> None:
        try:
            content = file.read_bytes()
        except OSError:
            named = f"{str(file)!r}, which is no file" if file.name else "not given"
            raise ConfigError(f"perceptual_weights is {named}; {VGG_WANTED}") from None
        if not (found := hashlib.sha256(content).hexdigest()).startswith(digest.lower()):
            raise ConfigError(f"{file} has the SHA-256 {found}, which does not begin with {digest!r}; {VGG_WANTED}")
        slices = vgg_slices()
        try:
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            for part in slices:
                wanted = {name: state[f"features.{name}"] for name in part.state_dict()}
                part.load_state_dict(wanted)
        except (RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"{file} does not hold the weights of VGG19 ({reason}); {VGG_WANTED}") from None
        self._slices = slices.requires_grad_(False).eval().to(device)

    def __call__(self, made: Image, truth: Image) -> Scalar:
        """Return the distance."""
        total = torch.zeros((), device=made.device)
        for part, weight in zip(self._slices, VGG_WEIGHTS, strict=True):
            made = part(made)
            with torch.no_grad():
                truth = part(truth)
            total = total + weight * absolute_error(made, truth)
        return total


VGG_WANTED = (
    "it is torchvision's file https://download.pytorch.org/models/vgg19-dcbb9e9d.pth, whose SHA-256 begins with dcbb9e9d "
    "(give --perceptual-digest dcbb9e9d to have it checked)"
)
