"""Networks that judge or encode: convolutions of the DCGAN line down to a few numbers."""

from dataclasses import dataclass
from itertools import pairwise

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from kinema.core.config import Config
from kinema.core.types import Video
from kinema.nn.convolution import CONVOLUTION, Normalisation, down_block


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
