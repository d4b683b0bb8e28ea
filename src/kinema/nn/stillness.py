"""What stands still in footage."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from kinema.core.types import Video

FRAMES_APART, LEVELS = 4, 3  # what changes by no more than so many levels of 256 in so many frames stands still


def still_picture(videos: Iterable[Video]) -> Float[Tensor, "3 H W"]:
    """Return the picture that the footage shows where it stands still: the median over clips and frames at every pixel.

    Only colours that stay for a few frames count, so that what moves does not leave its mean behind; where nothing ever
    stands still, all count. Memory does not grow with the number of clips.

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
    middle = (counts.cumsum(dim=1) < 0.5 * counts.sum(dim=1, keepdim=True)).sum(dim=1)
    return rearrange(middle / 127.5 - 1, "(c h w) -> c h w", c=3, h=height)
