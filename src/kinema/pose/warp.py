"""Pictures of people warped from one pose to others: each limb carries along what it looks like.

Every pixel goes where the limbs near it go. A limb is a line between two joints; seen from its target, it turns, is drawn
longer or shorter along itself and keeps its thickness, which is an affine map back to where its colours are. Maps of limbs are
blended by a softmax of their distances, so that nothing tears where two meet.

References:
    Linear blend skinning (Lewis et al., "Pose Space Deformation", SIGGRAPH 2000), here from the target back to the source; for
    people in pictures, Balakrishnan et al., "Synthesizing Images of Humans in Unseen Poses", CVPR 2018.
"""

from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from kinema.pose.skeleton import Skeleton

HALF_WIDTH = 0.07
"""Of a limb, as a share of the person's extent: of the longer side of the box around the joints that are there."""
SHARPNESS = 4.0
"""Of borders between limbs, and between limbs and what is around them, per half width."""
LENGTHENED = 2.0
"""How much longer or shorter a limb is drawn at most: one that points at the camera has no length to divide by."""
GRAIN = 2
"""Pixels from one point to the next at which maps are blended; between them they are interpolated."""
_TINY = 1e-3


class _Limbs(NamedTuple):
    """Limbs of poses: first ends, unit vectors to the second ones and their lengths in pixels, and which limbs are there."""

    ends: Float[Tensor, "B T E 2"]
    directions: Float[Tensor, "B T E 2"]
    lengths: Float[Tensor, "B T E"]
    there: Bool[Tensor, "B T E"]


@torch.no_grad()
def warp_limbs(
    image: Float[Tensor, "B C H W"], now: Float[Tensor, "B J 3"], then: Float[Tensor, "B T J 3"], skeleton: Skeleton
) -> tuple[Float[Tensor, "B C T H W"], Float[Tensor, "B 1 T H W"]]:
    """Show the person of an image in other poses.

    Args:
        image: in any range; height and width are multiples of `GRAIN`.
        now: pose in the image, in its pixels; confidence 0 is missing.
        then: poses to show, in the same pixels.
        skeleton: whose joints these are; joints without limbs between them are moved without turning.

    Returns:
        Pictures, and in [0, 1] where somebody is in them: near a limb that is there in both poses. Elsewhere a picture goes on
        as the nearest limbs go or, without any limb, means nothing.
    """
    with torch.autocast(image.device.type, enabled=False):
        image, now, then = image.float(), *(torch.where(pose[..., 2:] > 0, pose, 0).float() for pose in (now, then))
        before, after = _limbs(now[:, None], skeleton), _limbs(then, skeleton)
        height, width = image.shape[-2:]
        columns = _middles(image, width)
        rows = _middles(image, height)[:, None]
        distance = _distances(after, _half_width(now), columns, rows)
        distance = distance.masked_fill(~(before.there & after.there)[..., None, None], 1 / _TINY)
        turn, shift = _maps(before, after)
        blended = torch.einsum(
            "b t e k, b t e h w -> b t k h w",
            torch.cat([turn.flatten(-2), shift], dim=-1),
            (-SHARPNESS * distance).softmax(dim=2),
        )
        xx, xy, yx, yy, x, y = blended.unbind(2)
        places = torch.stack([xx * columns + xy * rows + x, yx * columns + yy * rows + y], dim=2)
        cover = torch.sigmoid(SHARPNESS * (1 - distance.amin(dim=2)))
        both = F.interpolate(torch.cat([places, cover[:, :, None]], dim=2).flatten(0, 1), (height, width), mode="bilinear")
        both = both.unflatten(0, then.shape[:2])
        grid = (rearrange(both[:, :, :2], "b t c h w -> b (t h) w c") + 0.5) / both.new_tensor([width, height]) * 2 - 1
        warped = F.grid_sample(image, grid, padding_mode="border", align_corners=False)
        return warped.unflatten(2, (then.shape[1], height)), rearrange(both[:, :, 2:], "b t c h w -> b c t h w")


def _limbs(poses: Float[Tensor, "B T J 3"], skeleton: Skeleton) -> _Limbs:
    """Return the limbs of poses; a joint of a skeleton without limbs is one without length."""
    edges = skeleton.edges or tuple((joint, joint) for joint in range(len(skeleton)))
    first, second = (poses[:, :, [edge[end] for edge in edges]] for end in (0, 1))
    along = (second - first)[..., :2]
    lengths = along.norm(dim=-1, keepdim=True)
    directions = torch.where(lengths > _TINY, along / lengths.clamp_min(_TINY), along.new_tensor([1.0, 0.0]))
    return _Limbs(first[..., :2], directions, lengths[..., 0], (first[..., 2] > 0) & (second[..., 2] > 0))


def _half_width(pose: Float[Tensor, "B J 3"]) -> Float[Tensor, "B 1 1 1 1"]:
    """Return half the width of a limb in pixels."""
    missing = pose[..., 2:] <= 0
    low, high = (pose[..., :2].masked_fill(missing, sign * torch.inf) for sign in (1, -1))
    extent = (high.amax(dim=1) - low.amin(dim=1)).amax(dim=-1).clamp_min(0)
    return (HALF_WIDTH * extent).clamp_min(1)[:, None, None, None, None]


def _middles(like: Tensor, extent: int) -> Float[Tensor, "_"]:
    """Return the coordinates of the middles of cells of `GRAIN` pixels."""
    return torch.arange(GRAIN / 2 - 0.5, extent, GRAIN, device=like.device)


def _distances(
    limbs: _Limbs, half_width: Float[Tensor, "B 1 1 1 1"], columns: Float[Tensor, "w"], rows: Float[Tensor, "h 1"]
) -> Float[Tensor, "B T E h w"]:
    """Return the distance of every place from every limb, in half widths."""
    right = columns - limbs.ends[..., 0, None, None]
    down = rows - limbs.ends[..., 1, None, None]
    x, y = limbs.directions[..., None, None, :].unbind(-1)
    along, across = x * right + y * down, x * down - y * right
    beyond = along - torch.minimum(along.clamp_min(0), limbs.lengths[..., None, None])
    return torch.addcmul(across.square(), beyond, beyond).sqrt() / half_width


def _maps(before: _Limbs, after: _Limbs) -> tuple[Float[Tensor, "B T E 2 2"], Float[Tensor, "B T E 2"]]:
    """Return matrices and shifts that take a place on a limb's target to where its colours are."""
    short = (before.lengths <= _TINY) | (after.lengths <= _TINY)
    stretch = before.lengths / after.lengths.clamp_min(_TINY)
    stretch = torch.where(short, 1, stretch.clamp(1 / LENGTHENED, LENGTHENED))[..., None, None]
    turned = torch.where(short[..., None], before.directions.new_tensor([1.0, 0.0]), after.directions)
    source = torch.where(short[..., None], turned, before.directions)
    across, onto = (torch.stack([-unit[..., 1], unit[..., 0]], dim=-1) for unit in (turned, source))
    turn = stretch * source[..., :, None] * turned[..., None, :] + onto[..., :, None] * across[..., None, :]
    return turn, before.ends - (turn @ after.ends[..., None])[..., 0]
