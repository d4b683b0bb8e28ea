"""What stands still in footage."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kinema.core.types import Video

FRAMES_APART, LEVELS = 4, 3  # what changes by no more than so many levels of 256 in so many frames stands still
AGREEMENT, REACH = 24, 4  # levels between quartiles at which neighbours, so many pixels around, count as much as the pixel


def still_picture(videos: Iterable[Video]) -> Float[Tensor, "3 H W"]:
    """Return the picture that the footage shows where it stands still: the median over clips and frames at every pixel.

    Only colours that stay for a few frames count, so that what moves does not leave its mean behind; where nothing ever
    stands still, all count. Medians of clips that disagree, of many skies for example, are speckles: the less the clips agree
    on a pixel, the more it is a mean over its neighbours. Memory does not grow with the number of clips.

    Args:
        videos: batches of clips of at least two frames; at least one batch.
    """
    counts, height = torch.zeros(0, dtype=torch.float64), 0
    for video in videos:
        apart = min(FRAMES_APART, video.shape[2] - 1)
        frames = ((video[:, :, ::apart].float() + 1) * 127.5).round().long()
        if not len(counts):
            height, counts = frames.shape[-2], counts.new_zeros(frames[0, :, 0].numel(), 256, device=video.device)
        still = (frames[:, :, 1:] - frames[:, :, :-1]).abs().amax(dim=1, keepdim=True) <= LEVELS
        weights = torch.where(still, 1.0, 1e-6).to(counts.dtype).expand(-1, 3, -1, -1, -1)
        levels, weights = (rearrange(x, "b c t h w -> (c h w) (b t)") for x in (frames[:, :, 1:], weights))
        counts.scatter_add_(1, levels, weights)
    below = counts.cumsum(dim=1) / counts.sum(dim=1, keepdim=True)
    quartiles = torch.stack([(below < share).sum(dim=1) for share in (0.25, 0.5, 0.75)]).float()
    low, middle, high = rearrange(quartiles, "q (c h w) -> q c h w", c=3, h=height)
    around = F.avg_pool2d(F.pad(middle, (REACH,) * 4, mode="replicate"), 2 * REACH + 1, stride=1)
    doubt = (high - low) ** 2 / ((high - low) ** 2 + AGREEMENT**2)
    return torch.lerp(middle, around, doubt) / 127.5 - 1
