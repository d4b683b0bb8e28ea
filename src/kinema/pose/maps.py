"""Poses as maps that a network can learn through: batched, differentiable, in torch.

`kinema.pose.draw` is the fast renderer for data; these are for losses and for learned keypoints, and `show` makes pictures of
them. Points are (x, y) or (x, y,
confidence) in pixels, pixel centres are integers. A point of confidence 0 is missing: its map is empty and its coordinates get
no gradient, even where they are no numbers. Every gradient is finite, also that of a limb without length.

References:
    Unsupervised Keypoint Learning for Guiding Class-Conditional Video Prediction (Kim et al., 2019), its release:
    coordinates as the expectation over a softmax of the mean over rows or columns, maps with a peak of 1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.pose.draw import joint_colours, limb_colours
from kinema.pose.sequence import Poses

_TINY = 1e-6


def gaussian_maps(points: Float[Tensor, "*batch K D"], width: int, height: int, sigma: float) -> Float[Tensor, "*batch K H W"]:
    r"""Draw every point as a bump with a peak of its confidence.

    .. math:: G(u) = c \exp(-\|u - p\|^2 / 2 \sigma^2)

    Args:
        points: x, y and, where there is one, confidence c.
        width: of the maps, in pixels.
        height: of the maps, in pixels.
        sigma: standard deviation in pixels.

    Raises:
        ConfigError: for points of other than two or three numbers, or a sigma that is not positive.
    """
    if not sigma > 0:
        raise ConfigError(f"sigma is {sigma}; it must be more than 0 pixels")
    places, confidence = _split(points)
    columns, rows = _axes(points, width, height)
    across = torch.exp(-((columns - places[..., :1]) ** 2) / (2 * sigma**2))
    down = torch.exp(-((rows - places[..., 1:]) ** 2) / (2 * sigma**2))
    return confidence[..., None, None] * down[..., :, None] * across[..., None, :]


def limb_maps(
    points: Float[Tensor, "*batch J D"],
    edges: Sequence[tuple[int, int]],
    width: int,
    height: int,
    *,
    line_width: float = 3.0,
    sharpness: float = 4.0,
) -> Float[Tensor, "*batch E H W"]:
    r"""Draw every limb as a soft line from joint to joint.

    .. math:: m = \sigma(k (w/2 - d)) \, c_a \, c_b

    with d the distance of a pixel from the limb.

    Args:
        points: x, y and, where there is one, confidence c of every joint.
        edges: limbs as pairs of joint indices.
        width: of the maps, in pixels.
        height: of the maps, in pixels.
        line_width: w, in pixels.
        sharpness: k, per pixel; higher is a harder border.

    Raises:
        ConfigError: for points of other than two or three numbers, no limb, or a width or sharpness that is not positive.
    """
    if not line_width > 0 or not sharpness > 0:
        raise ConfigError(f"line width {line_width} and sharpness {sharpness}: both must be more than 0")
    if not edges:
        raise ConfigError("there are no limbs to draw; points without limbs are drawn by gaussian_maps")
    places, confidence = _split(points)
    first, second = (list(ends) for ends in zip(*edges, strict=True))
    begin, along = places[..., first, :], places[..., second, :] - places[..., first, :]
    columns, rows = _axes(points, width, height)
    right, down = columns - begin[..., :1], rows - begin[..., 1:]  # (..., E, W) and (..., E, H)
    squared = (along**2).sum(-1)[..., None, None]
    reach = (down * along[..., 1:])[..., :, None] + (right * along[..., :1])[..., None, :]
    part = (reach / (squared + _TINY)).clamp(0, 1)
    off_x = right[..., None, :] - part * along[..., 0, None, None]
    off_y = down[..., :, None] - part * along[..., 1, None, None]
    distance = torch.sqrt(off_x**2 + off_y**2 + _TINY)  # so that a pixel on the limb has a gradient
    strength = confidence[..., first] * confidence[..., second]
    return torch.sigmoid(sharpness * (line_width / 2 - distance)) * strength[..., None, None]


def stick_maps(
    points: Float[Tensor, "*batch J D"],
    edges: Sequence[tuple[int, int]],
    width: int,
    height: int,
    colours: Float[Tensor, "E C"],
    *,
    background: float = 0.0,
    line_width: float = 3.0,
    sharpness: float = 4.0,
) -> Float[Tensor, "*batch C H W"]:
    """Paint stick figures: limbs in order, each over those before, ``out (1 - m) + m colour``.

    Args:
        points: x, y and, where there is one, confidence of every joint.
        edges: limbs as pairs of joint indices.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        colours: of the limbs, in any number of channels.
        background: value of the empty picture.
        line_width: in pixels.
        sharpness: of the limbs' borders, per pixel.

    Raises:
        ConfigError: as `limb_maps`, or when there is not one colour per limb.
    """
    if len(colours) != len(edges):
        raise ConfigError(f"there are {len(colours)} colours for {len(edges)} limbs; give one each")
    masks = limb_maps(points, edges, width, height, line_width=line_width, sharpness=sharpness)
    return _painted(masks, colours, masks.new_full((*masks.shape[:-3], colours.shape[1], height, width), background))


def _painted(
    masks: Float[Tensor, "*batch N H W"], colours: Float[Tensor, "N C"], picture: Float[Tensor, "*batch C H W"]
) -> Float[Tensor, "*batch C H W"]:
    for number, colour in enumerate(colours.to(masks)):
        mask = masks[..., number, None, :, :]
        picture = picture * (1 - mask) + mask * colour[:, None, None]
    return picture


def show(poses: Poses, kind: str, *, over: UInt8[np.ndarray, "T H W 3"] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """Return pictures of maps of everybody's bodies, in the colours of style openpose: a bump per joint, or soft limbs.

    A bump has a standard deviation, and a limb half a width, of a 40th of the shorter side.

    Args:
        poses: what is drawn; the frames have their size.
        kind: out of `kinema.pose.draw.MAPS`.
        over: frames to draw on, instead of black.

    Raises:
        ConfigError: for limbs of points that have none.
    """
    width, height, skeleton = poses.width, poses.height, poses.skeleton
    picture = torch.zeros(len(poses), 3, height, width)
    if over is not None:
        picture = rearrange(torch.from_numpy(over), "t h w c -> t c h w").float()
    reach = max(1.0, min(width, height) / 40)
    for points in torch.from_numpy(poses.points).unbind(1):
        if kind == "gaussian":
            masks, colours = gaussian_maps(points, width, height, reach), joint_colours(skeleton, "hues")
        else:
            masks = limb_maps(points, skeleton.edges, width, height, line_width=2 * reach, sharpness=4 / reach)
            colours = limb_colours(skeleton, "hues")
        picture = _painted(masks, torch.tensor(colours).float(), picture)
    return rearrange(picture.round().clamp(0, 255).byte(), "t c h w -> t h w c").numpy()


def soft_argmax(scores: Float[Tensor, "*batch K H W"], mode: str = "marginal") -> Float[Tensor, "*batch K 2"]:
    """Return the x and y, in pixels, that score maps point at.

    Args:
        scores: maps without activation, such as logarithms of probabilities.
        mode: marginal takes the mean over rows before the softmax over columns, and the other way round; joint takes the
            softmax over all pixels.

    Raises:
        ConfigError: for another mode.
    """
    height, width = scores.shape[-2:]
    columns, rows = _axes(scores, width, height)
    if mode == "marginal":
        across, down = scores.mean(-2).softmax(-1), scores.mean(-1).softmax(-1)
    elif mode == "joint":
        chances = scores.flatten(-2).softmax(-1).unflatten(-1, (height, width))
        across, down = chances.sum(-2), chances.sum(-1)
    else:
        raise ConfigError(f"soft_argmax has no mode {mode!r}; accepted: joint, marginal")
    return torch.stack([(across * columns).sum(-1), (down * rows).sum(-1)], dim=-1)


def _split(points: Float[Tensor, "*batch K D"]) -> tuple[Float[Tensor, "*batch K 2"], Float[Tensor, "*batch K"]]:
    """Separate coordinates and confidence; what is missing is at 0 and takes no gradient there."""
    if points.shape[-1] == 2:
        return points, torch.ones_like(points[..., 0])
    if points.shape[-1] != 3:
        raise ConfigError(f"points have {points.shape[-1]} numbers; give x and y, or x, y and confidence")
    found = points.isfinite().all(-1) & (points[..., 2] > 0)
    places = torch.where(found[..., None], points[..., :2], 0.0)
    return places, torch.where(found, points[..., 2], 0.0)


def _axes(like: Tensor, width: int, height: int) -> tuple[Float[Tensor, "W"], Float[Tensor, "H"]]:
    """Return the columns' and the rows' coordinates."""
    return torch.arange(width, device=like.device).to(like.dtype), torch.arange(height, device=like.device).to(like.dtype)
