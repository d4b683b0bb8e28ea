"""Networks that judge or encode: convolutions of the DCGAN line down to a few numbers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from torch.nn.utils.parametrizations import spectral_norm

from kinema.core.config import Config
from kinema.core.types import Image, Video
from kinema.nn.convolution import CONVOLUTION, Normalisation, down_block
from kinema.nn.resnet import InstanceNorm


@dataclass(frozen=True)
class StridedConfig(Config):
    """Clips that strided convolutions take down to 4x4 pixels, and how wide those are."""

    frames: int = 32
    """Frames of a clip; a multiple of size / 4."""
    size: int = 64
    """Height and width of a clip in pixels: a power of two from 8 on."""
    discriminator_width: int = 64
    """Channels of the discriminator's (or encoder's) first feature map."""

    def check(self) -> None:
        """Refuse shapes that the strided convolutions cannot make."""
        self.require(self.size >= 8 and self.size & (self.size - 1) == 0, "size", "a power of two, at least 8")
        self.require(
            self.frames > 0 and self.frames % (self.size // 4) == 0, "frames", f"a multiple of size / 4 = {self.size // 4}"
        )
        self.at_least(1, "discriminator_width")

    @property
    def doublings(self) -> int:
        """How often the resolution doubles from 4 pixels to `size`."""
        return self.size.bit_length() - 3

    def widths(self, finest: int) -> list[int]:
        """Return the channels of every resolution, finest first: they double as it halves."""
        return [finest << level for level in range(self.doublings)]


class StridedNetwork(nn.Module):
    """Convolutions of kernel 4 and stride 2, then one over what is left: a generator in reverse.

    Batch norm (epsilon 1e-3) everywhere except on the first and last layer, or spectral norm everywhere.

    Args:
        widths: channels after every halving of the resolution.
        left: extent of the last feature map, which the last convolution covers: two numbers for images, three for videos.
        outputs: channels that come out.
        norm: normalisation of the hidden layers.
        inputs: channels that come in: colours, and what is shown beside them.
    """

    def __init__(self, widths: list[int], left: tuple[int, ...], outputs: int, norm: Normalisation, inputs: int = 3) -> None:
        super().__init__()
        rank = len(left)
        last = CONVOLUTION[rank](widths[-1], outputs, left)
        self.features = nn.Sequential(
            down_block(rank, inputs, widths[0], "none" if norm == "batch" else norm),
            *(down_block(rank, narrow, wide, norm) for narrow, wide in pairwise(widths)),
        )
        self.last = spectral_norm(last) if norm == "spectral" else last


class VideoNetwork(StridedNetwork):
    """VGAN's discriminator; with more outputs an encoder or a recogniser.

    References:
        Vondrick et al., "Generating Videos with Scene Dynamics", NIPS 2016, Sections 2.3, 3.2 and 3.3.
    """

    def __init__(self, config: StridedConfig, outputs: int, norm: Normalisation = "batch") -> None:
        super().__init__(config.widths(config.discriminator_width), (config.frames >> config.doublings, 4, 4), outputs, norm)

    def forward(self, video: Video) -> Float[Tensor, "B outputs"]:
        """Return the outputs of every clip."""
        return rearrange(self.last(self.features(video)), "b c 1 1 1 -> b c")


class Judgement(NamedTuple):
    """What a patch discriminator says.

    Attributes:
        features: activations of its hidden layers, first to last.
        logits: one per patch; large is real.
    """

    features: list[Tensor]
    logits: Float[Tensor, "B 1 h w"]


class PatchDiscriminator(nn.Module):
    """Judges overlapping patches of an image; with the default depth each is 70 pixels wide.

    Args:
        inputs: channels that come in.
        base: channels of the first layer; doubled three times.
        norm: between the first layer and the last.

    References:
        Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017, Section 3.2.2; the
        padding of two is pix2pixHD's.
    """

    def __init__(self, inputs: int, base: int, norm: Literal["instance", "batch"] = "instance") -> None:
        super().__init__()
        widths = [base << level for level in range(4)]
        layers = [nn.Sequential(nn.Conv2d(inputs, base, 4, stride=2, padding=2), nn.LeakyReLU(0.2, inplace=True))]
        for (narrow, wide), stride in zip(pairwise(widths), (2, 2, 1), strict=True):
            normalise = InstanceNorm() if norm == "instance" else nn.BatchNorm2d(wide)
            convolution = nn.Conv2d(narrow, wide, 4, stride=stride, padding=2)
            layers.append(nn.Sequential(convolution, normalise, nn.LeakyReLU(0.2, inplace=True)))
        self.layers = nn.ModuleList(layers)
        self.last = nn.Conv2d(widths[-1], 1, 4, padding=2)

    def forward(self, image: Image) -> Judgement:
        """Judge every patch."""
        features = []
        for layer in self.layers:
            image = layer(image)
            features.append(image)
        return Judgement(features, self.last(image))


class MultiScaleDiscriminator(nn.Module):
    """Patch discriminators that see an image ever smaller, each in its own weights.

    Args:
        count: of scales, the finest first.
        inputs: channels that come in.
        base: channels of the first layers.

    References:
        Wang et al., "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs", CVPR 2018, Section 3.2.
    """

    def __init__(self, count: int, inputs: int, base: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchDiscriminator(inputs, base) for _ in range(count))

    def forward(self, image: Image, first: int = 0) -> list[Judgement]:
        """Judge an image at every scale.

        Args:
            image: at the size that scale `first` sees.
            first: scales before this one are left out.
        """
        judgements = []
        for scale in self.scales[first:]:
            judgements.append(scale(image))
            image = halved(image)
        return judgements


def halved(image: Image) -> Float[Tensor, "B C h w"]:
    """Return an image of half the size: means over 3x3 pixels in steps of two, what is beyond the border not counted."""
    return avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
