import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core.errors import ConfigError
from kinema.pose.draw import STYLES, draw_points
from kinema.pose.maps import gaussian_maps, limb_maps, soft_argmax, stick_maps
from kinema.pose.skeleton import COCO_18


def points(*places: tuple[float, ...]) -> Tensor:
    return torch.tensor(places, dtype=torch.float64)


def test_a_bump_has_its_peak_at_the_point_and_falls_as_a_gaussian() -> None:
    maps = gaussian_maps(points((10, 6)), 32, 24, sigma=2)
    assert maps.shape == (1, 24, 32)
    assert maps[0, 6, 10] == 1
    assert maps[0, 9, 14] == pytest.approx(math.exp(-25 / 8))


def test_the_paper_s_constants() -> None:
    """exp(-(d / 0.07)^2) on linspace(-1, 1, 32): 0.653 at the best of four nodes around a point (measured on the release)."""
    sigma = 0.07 / math.sqrt(2) * 31 / 2
    assert float(gaussian_maps(points((15.5, 15.5)), 32, 32, sigma).max()) == pytest.approx(0.653, abs=1e-3)


def test_confidence_scales_a_bump_and_missing_points_have_none() -> None:
    maps = gaussian_maps(points((10, 6, 0.5), (3, 3, 0), (math.nan, math.nan, 0), (4, math.inf, 1)), 16, 16, 2)
    assert maps[0, 6, 10] == 0.5
    assert (maps[1:] == 0).all()


@pytest.mark.parametrize("mode", ["marginal", "joint"])
def test_soft_argmax_inverts_gaussian_maps(mode: str) -> None:
    places = points((10.3, 9.7), (15.5, 12.25), (20, 11))
    found = soft_argmax(gaussian_maps(places, 32, 24, 1.5).log(), mode)
    torch.testing.assert_close(found, places, atol=1e-3, rtol=0)


def test_marginal_and_joint_differ_for_two_peaks() -> None:
    """By hand: scores 0 but for a at (0, 0) and (2, 1) in a map of 3 columns and 2 rows."""
    scores = torch.zeros(1, 2, 3, dtype=torch.float64)
    scores[0, 0, 0] = scores[0, 1, 2] = 2
    torch.testing.assert_close(soft_argmax(scores, "joint"), points((1, 0.5)))
    scores[0, 1, 2] = 0
    half, third, whole = math.exp(1), math.exp(2 / 3), math.exp(2)
    torch.testing.assert_close(soft_argmax(scores, "marginal"), points((3 / (half + 2), 1 / (third + 1))))
    torch.testing.assert_close(soft_argmax(scores, "joint"), points((6 / (whole + 5), 3 / (whole + 5))))


def test_a_limb_follows_the_formula() -> None:
    """By hand: distance 2 beside the middle, distance 5 = |(3, 4)| beyond the end, confidences 0.5 and 0.8."""
    mask = limb_maps(points((4, 8, 0.5), (12, 8, 0.8)), [(0, 1)], 24, 24, line_width=3, sharpness=4)[0]
    assert float(mask[10, 8]) == pytest.approx(0.4 / (1 + math.exp(-4 * (1.5 - 2))), rel=1e-4)
    assert float(mask[12, 15]) == pytest.approx(0.4 / (1 + math.exp(-4 * (1.5 - 5))), rel=1e-4)
    assert float(mask[8, 8]) == pytest.approx(0.4 / (1 + math.exp(-6)), rel=1e-2)


def test_later_limbs_are_painted_over_earlier_ones() -> None:
    places = points((2, 8), (14, 8), (8, 2), (8, 14))
    colours = torch.eye(2, dtype=torch.float64)
    picture = stick_maps(places, [(0, 1), (2, 3)], 16, 16, colours, line_width=6, sharpness=8)
    assert picture.shape == (2, 16, 16)
    torch.testing.assert_close(picture[:, 8, 8], torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(picture[:, 8, 3], torch.tensor([1.0, 0.0], dtype=torch.float64), atol=1e-6, rtol=0)
    white = stick_maps(places, [(0, 1)], 16, 16, colours[:1], background=1.0)
    assert white[0, 0, 0] == pytest.approx(1)


def test_a_batch_is_its_parts() -> None:
    torch.manual_seed(0)
    batch = torch.rand(2, 3, 18, 3) * 30
    edges, colours = list(COCO_18.edges), torch.rand(len(COCO_18.edges), 3)
    together = stick_maps(batch, edges, 20, 16, colours)
    assert together.shape == (2, 3, 3, 16, 20)
    torch.testing.assert_close(together[1, 2], stick_maps(batch[1, 2], edges, 20, 16, colours))
    torch.testing.assert_close(gaussian_maps(batch, 20, 16, 2)[0, 1], gaussian_maps(batch[0, 1], 20, 16, 2))


def test_missing_joints_draw_no_limb() -> None:
    assert (limb_maps(points((2, 2, 1), (9, 9, 0), (math.nan, 1, 0)), [(0, 1), (0, 2)], 12, 12) == 0).all()


def test_both_renderers_agree_where_a_limb_is() -> None:
    pose = np.zeros((1, 18, 3), np.float32)
    pose[0, 3], pose[0, 4] = (10.5, 12, 1), (40, 50.25, 1)
    edge = [(3, 4)]
    soft = limb_maps(torch.from_numpy(pose[0]), edge, 64, 64, line_width=3, sharpness=4)[0].numpy()
    hard = draw_points(pose, COCO_18, 64, 64, STYLES["pose-knows"])[0].max(axis=-1) / 255
    assert np.minimum(soft, hard).sum() / np.maximum(soft, hard).sum() > 0.75


def places_of_trouble() -> Tensor:
    """Return a limb without length, one through pixel centres, a missing joint, one that is no number, and one far away."""
    return points((5, 5, 1), (5, 5, 1), (2, 2, 1), (9, 2, 1), (0, 0, 0), (math.nan, math.nan, 0), (1e6, -1e6, 1))


def test_gradients_are_finite_everywhere() -> None:
    edges = [(0, 1), (2, 3), (3, 4), (3, 5), (5, 6), (2, 6)]
    for draw in (
        lambda given: stick_maps(given, edges, 12, 12, torch.rand(6, 3, dtype=torch.float64)),
        lambda given: gaussian_maps(given, 12, 12, 1.5),
    ):
        given = places_of_trouble().requires_grad_()
        (draw(given) ** 2).sum().backward()
        assert given.grad is not None
        assert given.grad.isfinite().all()
        assert (given.grad[4:6] == 0).all()
        assert (given.grad[2:4, :2] != 0).any()


def test_gradients_are_the_true_ones() -> None:
    given = points((3.3, 4.1, 0.7), (8.2, 6.4, 0.9), (5.7, 1.3, 0.5)).requires_grad_()
    colours = torch.rand(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: stick_maps(p, [(0, 1), (1, 2)], 10, 8, colours), (given,))
    assert torch.autograd.gradcheck(lambda p: gaussian_maps(p, 10, 8, 1.5), (given,))
    scores = torch.rand(2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda s: soft_argmax(s, "marginal"), (scores,))
    assert torch.autograd.gradcheck(lambda s: soft_argmax(s, "joint"), (scores,))


def test_a_limb_can_be_pulled_to_where_it_should_be() -> None:
    wanted = limb_maps(points((6, 6), (18, 14)), [(0, 1)], 24, 24, sharpness=1)
    given = points((8, 4), (15, 16)).requires_grad_()
    optimizer = torch.optim.Adam([given], lr=0.2)
    for _ in range(150):
        optimizer.zero_grad()
        (limb_maps(given, [(0, 1)], 24, 24, sharpness=1) - wanted).square().mean().backward()
        optimizer.step()
    torch.testing.assert_close(given.detach(), points((6, 6), (18, 14)), atol=0.1, rtol=0)


def test_bad_input_is_refused() -> None:
    good = points((1, 1), (2, 2))
    with pytest.raises(ConfigError, match="sigma is 0"):
        gaussian_maps(good, 8, 8, 0)
    with pytest.raises(ConfigError, match="points have 4 numbers"):
        gaussian_maps(torch.zeros(2, 4), 8, 8, 1)
    with pytest.raises(ConfigError, match="no limbs"):
        limb_maps(good, [], 8, 8)
    with pytest.raises(ConfigError, match="both must be more than 0"):
        limb_maps(good, [(0, 1)], 8, 8, line_width=0)
    with pytest.raises(ConfigError, match="1 colours for 2 limbs"):
        stick_maps(good, [(0, 1), (1, 0)], 8, 8, torch.ones(1, 3))
    with pytest.raises(ConfigError, match="no mode 'both'"):
        soft_argmax(torch.zeros(1, 4, 4), "both")
