"""Square regions of images, cut out and put back with gradients: one box per image, its place known only at run time."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kinema.core.seeds import draw_rows
from kinema.core.types import Image
from kinema.pose.skeleton import Skeleton

Corners = Int[Tensor, "B 2"]
MARGIN = 0.15  # of the longer side of the box around a person's joints: hair, hands and shoes are beyond them


def places(
    points: Float[Tensor, "B J 3"], skeleton: Skeleton, choices: Sequence[Sequence[str]]
) -> tuple[Float[Tensor, "B 2"], Bool[Tensor, "B"]]:
    """Return where a region is, and whether it can be seen: in the middle of the first group of joints that are all there.

    Args:
        points: joints, (x, y, confidence) in pixels; confidence 0 is missing.
        skeleton: names of the joints.
        choices: groups of joints, the best first; groups with a joint that the skeleton lacks do not count.
    """
    middle = torch.zeros_like(points[:, 0, :2])
    visible = torch.zeros_like(points[:, 0, 0], dtype=torch.bool)
    for names in choices:
        if set(names) <= set(skeleton.joints):
            found = points[:, [skeleton.index(name) for name in names]]
            here = (found[..., 2] > 0).all(dim=1) & ~visible
            middle = torch.where(here[:, None], found[..., :2].mean(dim=1), middle)
            visible = visible | here
    return middle, visible


def boxes_around(centres: Float[Tensor, "B 2"], size: int, height: int, width: int) -> Corners:
    """Return the top left corners (row, column) of boxes around points, pushed inside the image.

    Args:
        centres: x and y in pixels; pixel centres are integers.
        size: side of the boxes in pixels, no larger than the image.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    corners = (centres.flip(1) - (size - 1) / 2).round().long()
    return torch.stack([corners[:, 0].clamp(0, height - size), corners[:, 1].clamp(0, width - size)], dim=1)


def around_joints(points: Float[Tensor, "*rows J 3"], height: int, width: int) -> Bool[Tensor, "*rows H W"]:
    """Return the pixels of the box around all joints that are there and a `MARGIN` more; none where there is no joint.

    Args:
        points: joints, (x, y, confidence) in pixels; confidence 0 is missing.
        height: of the image in pixels.
        width: of the image in pixels.
    """
    there = points[..., 2:] > 0
    least = torch.where(there, points[..., :2], torch.inf).amin(dim=-2)
    most = torch.where(there, points[..., :2], -torch.inf).amax(dim=-2)
    margin = MARGIN * (most - least).amax(dim=-1, keepdim=True)
    left, top = (least - margin)[..., None].unbind(-2)
    right, bottom = (most + margin)[..., None].unbind(-2)
    columns, rows = torch.arange(width, device=points.device), torch.arange(height, device=points.device)
    across, down = (columns >= left) & (columns <= right), (rows >= top) & (rows <= bottom)
    return down[..., :, None] & across[..., None, :]


def crop(images: Image, corners: Corners, size: int) -> Float[Tensor, "B C size size"]:
    """Cut the box of every image out of it."""
    return images.permute(0, 2, 3, 1)[_pixels(corners, size)].permute(0, 3, 1, 2)


def paste(images: Image, patches: Float[Tensor, "B C size size"], corners: Corners, where: Bool[Tensor, "B"]) -> Image:
    """Put a patch into the box of every image that has one; every other pixel stays as it is, bit for bit.

    Args:
        images: what is changed, in a copy.
        patches: of the size of the boxes.
        corners: of `boxes_around`.
        where: which images have a box.
    """
    kept = crop(images, corners, patches.shape[2])
    patches = torch.where(where[:, None, None, None], patches.to(images.dtype), kept)
    pasted = images.permute(0, 2, 3, 1).index_put(_pixels(corners, patches.shape[2]), patches.permute(0, 2, 3, 1))
    return pasted.permute(0, 3, 1, 2)


def draw_steps(share: float, images: Tensor, height: int, width: int) -> Int[Tensor, "B 2"] | None:
    """Draw how far each of several images is moved, down and to the right in whole pixels; None where the share is 0.

    Args:
        share: of height and width, the furthest.
        images: one or a clip per row, for their number and device.
        height: of what is moved, in pixels.
        width: of what is moved, in pixels.
    """
    if not share:
        return None
    most = (share * torch.tensor([height, width])).floor()
    drawn = draw_rows(lambda rows: torch.rand(rows, 2), len(images))
    return ((2 * most + 1) * drawn - most).floor().long().to(images.device)


def with_steps(points: Float[Tensor, "B *rows J 3"], steps: Int[Tensor, "B 2"]) -> Float[Tensor, "B *rows J 3"]:
    """Return joints, (x, y, confidence) in pixels, in images that were moved by steps."""
    right_and_down = torch.cat([steps.flip(1), torch.zeros_like(steps[:, :1])], dim=1).to(points)
    return points + right_and_down[(slice(None), *(None,) * (points.ndim - 2))]


def shifted(images: Image, steps: Int[Tensor, "N 2"]) -> Float[Tensor, "N C H W"]:
    """Move images by whole pixels, every one by its own; what comes in repeats the border.

    Args:
        images: one per row of `steps`, or one for all.
        steps: down and to the right, in pixels.
    """
    height, width = images.shape[2:]
    rows, columns = (
        (torch.arange(extent, device=images.device) - step[:, None]).clamp(0, extent - 1)
        for extent, step in zip((height, width), steps.unbind(1), strict=True)
    )
    image = torch.arange(len(images), device=images.device)[:, None, None]
    places = ((image * height + rows[:, :, None]) * width + columns[:, None, :]).flatten()
    pixels = images.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, places)
    return pixels.unflatten(0, (len(steps), height, width)).permute(0, 3, 1, 2)


def _pixels(corners: Corners, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return image, row and column of every pixel of the boxes."""
    steps = torch.arange(size, device=corners.device)
    images = torch.arange(len(corners), device=corners.device)
    rows, columns = corners[:, :1] + steps, corners[:, 1:] + steps
    return images[:, None, None], rows[:, :, None], columns[:, None, :]
