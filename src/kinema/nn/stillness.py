"""What stands still in footage, and the places that it shows."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor
from torch.nn import functional as F

from kinema.core.types import Video

FRAMES_APART, LEVELS = 4, 3  # what changes by no more than so many levels of 256 in so many frames stands still
ENOUGH = 12  # looks at a colour that stays; fewer stay by chance
AGREEMENT, REACH = 24, 4  # levels between quartiles at which neighbours, so many pixels around, count as much as the pixel
RARE = 0.01  # share of the clips below which a place is none of its own
SAMPLE, GRID = 512, 16  # places are told apart in so many clips, by the means of so many fields across and down


def still_picture(videos: Iterable[Video]) -> Float[Tensor, "3 H W"]:
    """Return the picture that the footage shows where it stands still: the median over clips and frames at every pixel.

    Only colours that stay for a few frames count, so that what moves does not leave its mean behind; where next to nothing ever
    stands still, all count. Medians of clips that disagree, of many skies for example, are speckles: the less the clips agree
    on a pixel, the more it is a mean over its neighbours. Memory does not grow with the number of clips.

    Args:
        videos: batches of clips of at least two frames; at least one batch.
    """
    return _still((_looks(video), None) for video in videos)


def uncovered_picture(
    seen: Iterable[tuple[Video, Bool[Tensor, "B 1 T H W"]]],
) -> Float[Tensor, "3 H W"]:
    """Return the `still_picture` of what nobody stands before; what is always covered is filled in from around it.

    Args:
        seen: batches of clips with the pixels that somebody covers; at least one batch.
    """
    return _still((_looks(video), _every_few(covered)) for video, covered in seen)


def still_pictures(videos: Iterable[Video], scenes: int) -> tuple[Float[Tensor, "scenes 3 H W"], Float[Tensor, "scenes"]]:
    """Return what stands still in every kind of place that the footage shows, and the share of the clips that show it.

    Two clips show the same place where they agree in more than half of the picture: what moves may cover the rest. Clips are
    merged by their mean disagreement (average linkage) until no two groups show the same place, and on until there are at most
    `scenes`; clips of a place that less than a hundredth show join the place they disagree with least. Where there are fewer
    places, the other pictures are black and have share 0. Commonest first. At most `SAMPLE` clips, drawn evenly, decide.

    Args:
        videos: batches of clips of at least two frames; at least one batch.
        scenes: the largest number of places.
    """
    clips = _sample(map(_looks, videos))
    of = _places(torch.stack([_fields(clip) for clip in clips]), scenes)
    shares = torch.bincount(of, minlength=scenes) / len(clips)
    found = range(int(of.max()) + 1)
    pictures = [_still((clip[None], None) for clip, place in zip(clips, of, strict=True) if place == k) for k in found]
    black = [torch.full_like(pictures[0], -1)] * (scenes - len(pictures))
    return torch.stack(pictures + black), shares.to(pictures[0])


def _looks(video: Video) -> UInt8[Tensor, "B 3 L H W"]:
    """Return every few frames of clips in levels."""
    return ((_every_few(video).float() + 1) * 127.5).round().byte()


def _every_few(clips: Shaped[Tensor, "B C T H W"]) -> Shaped[Tensor, "B C L H W"]:
    """Return the frames that are compared."""
    return clips[:, :, :: min(FRAMES_APART, clips.shape[2] - 1)]


def _still(looks: Iterable[tuple[UInt8[Tensor, "B 3 L H W"], Bool[Tensor, "B 1 L H W"] | None]]) -> Float[Tensor, "3 H W"]:
    """Return what stands still in frames that are `FRAMES_APART`, where they are not covered."""
    counts, height = torch.zeros(0), 0  # of the colours that stay, and of all
    for frames, covered in ((levels.long(), covered) for levels, covered in looks):
        if not len(counts):
            height, counts = frames.shape[-2], torch.zeros(2, frames[0, :, 0].numel(), 256, device=frames.device)
        change = (frames[:, :, 1:] - frames[:, :, :-1]).abs().amax(dim=1, keepdim=True).expand(-1, 3, -1, -1, -1)
        levels, change = (rearrange(x, "b c t h w -> (c h w) (b t)") for x in (frames[:, :, 1:], change))
        shown = torch.ones_like(change, dtype=torch.bool)
        if covered is not None:
            hidden = (covered[:, :, 1:] | covered[:, :, :-1]).expand(-1, 3, -1, -1, -1)
            shown = ~rearrange(hidden, "b c t h w -> (c h w) (b t)")
        counts[0].scatter_add_(1, levels, ((change <= LEVELS) & shown).to(counts))
        counts[1].scatter_add_(1, levels, shown.to(counts))
    staying = counts[0].sum(dim=1, keepdim=True)
    counts = torch.where(staying >= ENOUGH, counts[0], counts[1]).double()
    below = counts.cumsum(dim=1) / counts.sum(dim=1, keepdim=True).clamp_min(1)
    quartiles = torch.stack([(below < share).sum(dim=1) for share in (0.25, 0.5, 0.75)]).float()
    low, middle, high = rearrange(quartiles, "q (c h w) -> q c h w", c=3, h=height)
    unseen = rearrange(counts.sum(dim=1) == 0, "(c h w) -> c h w", c=3, h=height)[0]
    middle = _filled(middle, unseen)
    around = F.avg_pool2d(F.pad(middle, (REACH,) * 4, mode="replicate"), 2 * REACH + 1, stride=1)
    doubt = (high - low) ** 2 / ((high - low) ** 2 + AGREEMENT**2)
    return torch.lerp(middle, around, doubt) / 127.5 - 1


def _filled(levels: Float[Tensor, "3 H W"], unseen: Bool[Tensor, "H W"]) -> Float[Tensor, "3 H W"]:
    """Return a picture whose unseen pixels go on as their neighbourhood does (Telea, 2004)."""
    if not bool(unseen.any()) or bool(unseen.all()):
        return levels
    import cv2

    picture = rearrange(levels.round().clamp(0, 255).byte(), "c h w -> h w c").cpu().numpy()
    filled = cv2.inpaint(picture, unseen.byte().cpu().numpy(), REACH, cv2.INPAINT_TELEA)
    return torch.where(unseen, rearrange(torch.from_numpy(filled), "h w c -> c h w").to(levels), levels)


def _sample(looks: Iterable[UInt8[Tensor, "B 3 L H W"]]) -> list[UInt8[Tensor, "3 L H W"]]:
    """Return at most `SAMPLE` clips, every one with the same chance (reservoir sampling)."""
    kept = []
    for i, clip in enumerate(clip for some in looks for clip in some):
        place = i if i < SAMPLE else int(torch.randint(i + 1, ()))
        if place < SAMPLE:
            kept[place : place + 1] = [clip.clone()]
    return kept


def _fields(clip: UInt8[Tensor, "3 L H W"]) -> Float[Tensor, "3 F"]:
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
    groups = F.one_hot(torch.from_numpy(found).long() - 1).double()
    shares = groups.mean(dim=0)
    groups = groups[:, shares >= min(RARE, float(shares.max()))]  # clips of the others join whom they disagree with least
    numbers = (apart @ groups / groups.sum(dim=0)).argmin(dim=1)
    return torch.bincount(numbers).argsort(descending=True, stable=True).argsort()[numbers]
