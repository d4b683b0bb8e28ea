"""Pictures of people in other poses: limbs take along what they look like."""

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from kinema.pose.skeleton import COCO_18, anonymous
from kinema.pose.warp import warp_limbs

SIDE = 64
ELBOW, WRIST = COCO_18.index("RElbow"), COCO_18.index("RWrist")


def forearm(*ends: tuple[float, float]) -> Float[Tensor, "1 1 18 3"]:
    """Return a pose of which only the right forearm is there."""
    pose = torch.zeros(1, 1, 18, 3)
    for joint, place in zip((ELBOW, WRIST), ends, strict=True):
        pose[0, 0, joint] = torch.tensor([*place, 1.0])
    return pose


def ramp() -> Float[Tensor, "1 2 64 64"]:
    """Return a picture of coordinates: a pixel says where it is."""
    return torch.stack(torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="xy"))[None]


def test_a_limb_that_stays_shows_what_is_there_and_says_where_it_is() -> None:
    pose = forearm((10, 30), (50, 30))
    warped, cover = warp_limbs(ramp(), pose[:, 0], pose, COCO_18)
    assert warped.shape == (1, 2, 1, SIDE, SIDE)
    assert cover.shape == (1, 1, 1, SIDE, SIDE)
    torch.testing.assert_close(warped[:, :, 0], ramp(), rtol=0, atol=0.51)  # half a pixel at the border of the picture
    torch.testing.assert_close(warped[:, :, 0, 8:56, 8:56], ramp()[:, :, 8:56, 8:56], rtol=0, atol=1e-3)
    assert cover[0, 0, 0, 30, 12:49].min() > 0.9
    half_width = 0.07 * 40
    assert cover[0, 0, 0, 30 + round(half_width), 30] == pytest.approx(0.5, abs=0.2)
    assert cover[0, 0, 0, :20].max() < 1e-3


def test_a_limb_turns_about_its_joint_is_drawn_longer_along_itself_and_keeps_its_thickness() -> None:
    """From right to down, and half as long again: six pixels along are four of before, two across are two."""
    now, then = forearm((20, 20), (40, 20)), forearm((30, 10), (30, 40))
    warped, _ = warp_limbs(ramp(), now[:, 0], then, COCO_18)
    for along in (0, 6, 18, 30):
        for across in (-2, 0, 2):
            came = warped[0, :, 0, 10 + along, 30 - across]
            torch.testing.assert_close(came, torch.tensor([20 + along / 1.5, 20.0 + across]), rtol=0, atol=1e-3)


def test_a_limb_that_points_at_the_camera_is_stretched_twofold_at_most() -> None:
    now, then = forearm((20, 20), (21, 20)), forearm((20, 20), (50, 20))
    warped, _ = warp_limbs(ramp(), now[:, 0], then, COCO_18)
    torch.testing.assert_close(warped[0, :, 0, 20, 40], torch.tensor([30.0, 20.0]), rtol=0, atol=1e-3)


def test_every_pixel_goes_with_the_nearest_limb() -> None:
    now = torch.zeros(1, 18, 3)
    for joint, place in (("RElbow", (10, 20)), ("RWrist", (10, 40)), ("LElbow", (50, 20)), ("LWrist", (50, 40))):
        now[0, COCO_18.index(joint)] = torch.tensor([*place, 1.0])
    then = now[:, None].clone()
    then[:, :, [COCO_18.index("LElbow"), COCO_18.index("LWrist")], 0] -= 12
    warped, _ = warp_limbs(ramp(), now, then, COCO_18)
    torch.testing.assert_close(warped[0, :, 0, 30, 10], torch.tensor([10.0, 30.0]), rtol=0, atol=1e-2)
    torch.testing.assert_close(warped[0, :, 0, 30, 38], torch.tensor([50.0, 30.0]), rtol=0, atol=1e-2)


@pytest.mark.parametrize("missing", ["now", "then", "both"])
def test_limbs_that_are_missing_before_or_after_cover_nothing(missing: str) -> None:
    now, then = forearm((20, 20), (40, 20)), forearm((20, 20), (20, 40))
    for pose in (now, then) if missing == "both" else ({"now": now, "then": then}[missing],):
        pose[0, 0, WRIST] = torch.tensor([torch.nan, 1e30, 0.0])
    warped, cover = warp_limbs(ramp(), now[:, 0], then, COCO_18)
    assert warped.isfinite().all()
    assert cover.max() < 1e-3


def test_points_without_limbs_take_their_surroundings_along_without_turning() -> None:
    points = anonymous(2)
    now = torch.tensor([[[10.0, 10.0, 1.0], [50.0, 50.0, 1.0]]])
    then = now[:, None] + torch.tensor([[[[5.0, 0.0, 0.0], [0.0, -8.0, 0.0]]]])
    warped, cover = warp_limbs(ramp(), now, then, points)
    torch.testing.assert_close(warped[0, :, 0, 11, 16], torch.tensor([11.0, 11.0]), rtol=0, atol=1e-2)
    torch.testing.assert_close(warped[0, :, 0, 43, 50], torch.tensor([50.0, 51.0]), rtol=0, atol=1e-2)
    assert cover[0, 0, 0, 10, 15] > 0.8
    assert cover[0, 0, 0, 10, 40] < 1e-3


def test_half_precision_around_it_does_not_move_a_pixel() -> None:
    now, then = forearm((20, 20), (40, 20)), forearm((30, 10), (30, 40))
    plain = warp_limbs(ramp(), now[:, 0], then, COCO_18)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = warp_limbs(ramp(), now[:, 0], then, COCO_18)
    assert all(torch.equal(*pair) for pair in zip(plain, mixed, strict=True))
