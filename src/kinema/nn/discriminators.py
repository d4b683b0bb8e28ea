"""Networks that judge or encode: convolutions of the DCGAN line down to a few numbers."""

from itertools import pairwise

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from kinema.nn.convolution import CONVOLUTION, Normalisation, down_block


class StridedNetwork(nn.Module):
    """Convolutions of kernel 4 and stride 2, then one over what is left: a generator in reverse.

    Batch norm (epsilon 1e-3) everywhere except on the first and last layer, or spectral norm everywhere.

    Args:
        widths: channels after every halving of the resolution.
        left: extent of the last feature map, which the last convolution covers: two numbers for images, three for videos.
        outputs: channels that come out.
        norm: normalisation of the hidden layers.
    """

    def __init__(self, widths: list[int], left: tuple[int, ...], outputs: int, norm: Normalisation) -> None:
        super().__init__()
        rank = len(left)
        last = CONVOLUTION[rank](widths[-1], outputs, left)
        self.features = nn.Sequential(
            down_block(rank, 3, widths[0], "none" if norm == "batch" else norm),
            *(down_block(rank, narrow, wide, norm) for narrow, wide in pairwise(widths)),
        )
        self.last = spectral_norm(last) if norm == "spectral" else last
