"""What stands still in footage, and the places that it shows."""

from collections.abc import Iterable
from itertools import count

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from kinema.core.types import Video

FRAMES_APART, LEVELS = 4, 3  # what changes by no more than so many levels of 256 in so many frames stands still
ENOUGH = 12  # looks at a colour that stays; fewer stay by chance
AGREEMENT, REACH = 24, 4  # levels between quartiles at which neighbours, so many pixels around, count as much as the pixel
SAMPLE, GRID = 512, 16  # places are told apart in so many clips, by the means of so many fields across and down


def still_picture(videos: Iterable[Video]) -> Float[Tensor, "3 H W"]:
    """Return the picture that the footage shows where it stands still: the median over clips and frames at every pixel.

    Only colours that stay for a few frames count, so that what moves does not leave its mean behind; where next to nothing ever
    stands still, all count. Medians of clips that disagree, of many skies for example, are speckles: the less the clips agree
    on a pixel, the more it is a mean over its neighbours. Memory does not grow with the number of clips.

    Args:
        videos: batches of clips of at least two frames; at least one batch.
    """
    counts, height = torch.zeros(0), 0  # of the colours that stay, and of all
    for video in videos:
        apart = min(FRAMES_APART, video.shape[2] - 1)
        frames = ((video[:, :, ::apart].float() + 1) * 127.5).round().long()
        if not len(counts):
            height, counts = frames.shape[-2], torch.zeros(2, frames[0, :, 0].numel(), 256, device=video.device)
        change = (frames[:, :, 1:] - frames[:, :, :-1]).abs().amax(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1)
        levels, change = (rearrange(x, "b c t h w -> (c h w) (b t)") for x in (frames[:, :, 1:], change))
        stays = (change <= LEVELS).to(counts)
        counts[0].scatter_add_(1, levels, stays)
        counts[1].scatter_add_(1, levels, torch.ones_like(stays))
    staying = counts[0].sum(dim=1, keepdim=True)
    counts = torch.where(staying >= ENOUGH, counts[0], counts[1]).double()
    below = counts.cumsum(dim=1) / counts.sum(dim=1, keepdim=True)
    quartiles = torch.stack([(below < share).sum(dim=1) for share in (0.25, 0.5, 0.75)]).float()
    low, middle, high = rearrange(quartiles, "q (c h w) -> q c h w", c=3, h=height)
    around = F.avg_pool2d(F.pad(middle, (REACH,) * 4, mode="replicate"), 2 * REACH + 1, stride=1)
    doubt = (high - low) ** 2 / ((high - low) ** 2 + AGREEMENT**2)
    return torch.lerp(middle, around, doubt) / 127.5 - 1


def still_pictures(videos: Iterable[Video], scenes: int) -> tuple[Float[Tensor, "scenes 3 H W"], Float[Tensor, "scenes"]]:
    """Return what stands still in every kind of place that the footage shows, and the share of the clips that show it.

    Two clips show the same place where they agree in more than half of the picture: what moves may cover the rest. Clips are
    merged by their mean disagreement (average linkage) until no two groups show the same place, and on until there are at most
    `scenes`; where there are fewer, the other pictures are black and have share 0. Commonest first. At most `SAMPLE` clips,
    drawn evenly, decide.

    Args:
        videos: batches of clips of at least two frames; at least one batch.
        scenes: the largest number of places.
    """
    clips = _sample(videos)
    of = _places(torch.stack([_fields(clip) for clip in clips]), scenes)
    shares = torch.bincount(of, minlength=scenes) / len(clips)
    pictures = [
        still_picture(clip[None] / 127.5 - 1 for clip, place in zip(clips, of, strict=True) if place == k)
        for k in range(int(of.max()) + 1)
    ]
    black = [torch.full_like(pictures[0], -1)] * (scenes - len(pictures))
    return torch.stack(pictures + black), shares.to(pictures[0])


def _sample(videos: Iterable[Video]) -> list[UInt8[Tensor, "3 T H W"]]:
    """Return at most `SAMPLE` clips in bytes, every one with the same chance (reservoir sampling)."""
    kept, position = [], count()
    for clip in (clip for video in videos for clip in video):
        i = next(position)
        place = i if i < SAMPLE else int(torch.randint(i + 1, ()))
        if place < SAMPLE:
            kept[place : place + 1] = [((clip.float() + 1) * 127.5).round().byte()]
    return kept


def _fields(clip: UInt8[Tensor, "3 T H W"]) -> Float[Tensor, "3 F"]:
    """Return the mean levels of the fields of a grid over the clip's median picture."""
    median = clip.float().median(dim=1).values
    return F.adaptive_avg_pool2d(median, GRID).flatten(1)


def _places(fields: Float[Tensor, "N 3 F"], scenes: int) -> Int[Tensor, "N"]:
    """Number the clips' places, commonest first."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(fields) == 1:
        return torch.zeros(1, dtype=torch.long)
    fields = fields.cpu()
    apart = torch.stack([((fields - one).abs().amax(dim=1) > AGREEMENT).double().mean(dim=1) for one in fields])
    tree = linkage(squareform(apart.numpy(), checks=False), "average")
    found = fcluster(tree, 0.5, "distance")
    if found.max() > scenes:
        found = fcluster(tree, scenes, "maxclust")
    numbers = torch.from_numpy(found).long() - 1
    return torch.bincount(numbers).argsort(descending=True, stable=True).argsort()[numbers]
