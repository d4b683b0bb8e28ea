"""Differentiable augmentation that is the same for every frame of a clip.

References:
    Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020, Section 3: the three families and
    their strengths. Departure: one draw per clip, never per frame, and saturation averages over colour alone; a discriminator
    that sees flicker in its real clips teaches the generator to flicker.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.core.seeds import draw_rows
from kinema.core.types import Video


def change_colour(video: Video) -> Video:
    """Change brightness (up to 0.5 either way), saturation (factor 0 to 2) and contrast (factor 0.5 to 1.5) of each clip."""
    brightness, saturation, contrast = (_uniform(video) for _ in range(3))
    video = video + (brightness - 0.5)
    grey = video.mean(dim=1, keepdim=True)
    video = grey + (video - grey) * (2 * saturation)
    level = video.mean(dim=(1, 2, 3, 4), keepdim=True)
    return level + (video - level) * (contrast + 0.5)


def translate(video: Video, reach: float = 0.125) -> Video:
    """Shift each clip by up to `reach` of its height and width; what comes in from outside is mid-grey (0)."""
    height, width = video.shape[-2:]
    largest = torch.tensor([round(height * reach), round(width * reach)])
    shifts = ((2 * largest + 1) * draw_rows(lambda rows: torch.rand(rows, 2), len(video))).floor().long() - largest
    # Split, not sliced: the gradient of a slice is a whole batch of zeros.
    return torch.cat([_shift(clip, y, x) for clip, (y, x) in zip(video.split(1), shifts.tolist(), strict=True)])


def cut_out(video: Video, share: float = 0.5) -> Video:
    """Set one rectangle of each clip, `share` of its height and width, to mid-grey (0)."""
    height, width = video.shape[-2:]
    draw = draw_rows(lambda rows: torch.rand(rows, 2), len(video)).to(video.device)
    rows = _outside(draw[:, 0], height, round(height * share))
    columns = _outside(draw[:, 1], width, round(width * share))
    keep = torch.maximum(rows[:, :, None], columns[:, None, :])
    return video * keep[:, None, None].to(video.dtype)


FAMILIES: dict[str, Callable[[Video], Video]] = {"colour": change_colour, "translation": translate, "cutout": cut_out}


def augment(video: Video, families: tuple[str, ...]) -> Video:
    """Apply the named families of augmentation in order; both real and generated clips must pass through it.

    Args:
        video: clips in [-1, 1].
        families: names out of `FAMILIES`; empty returns the clips as they are.
    """
    for family in families:
        video = FAMILIES[family](video)
    return video


def _uniform(video: Video) -> Tensor:
    draw = draw_rows(lambda rows: torch.rand(rows, 1, 1, 1, 1), len(video))
    return draw.to(device=video.device, dtype=video.dtype)


def _shift(clip: Video, down: int, right: int) -> Video:
    # Negative padding crops, so one pad moves the picture. Slices of rank five keep the channels-last layout.
    return F.pad(clip, (right, -right, down, -down))


def _outside(draw: Tensor, length: int, extent: int) -> Tensor:
    # The rectangle's centre is uniform over the picture, so it may hang over an edge, as in the reference.
    centre = (draw * (length + 1 - extent % 2)).floor().long()[:, None]
    position = torch.arange(length, device=draw.device)[None]
    return ((position < centre - extent // 2) | (position >= centre - extent // 2 + extent)).float()
