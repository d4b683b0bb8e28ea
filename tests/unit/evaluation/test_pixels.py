"""PSNR, SSIM and MS-SSIM: by hand, against OpenCV and pytorch-msssim, and against a statement with scipy's own filter."""

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from kinema.core.errors import EvaluationError
from kinema.evaluation.pixels import SCALE_WEIGHTS, ms_ssim, planes, psnr, scales_that_fit, smallest_side, ssim


def pair(frames: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Smooth coloured pictures, and the same with noise, a shift and less contrast."""
    generator = np.random.default_rng(0)
    truth = gaussian_filter(generator.uniform(0, 255, (frames, height, width + 2, 3)), (0, 3, 3, 0)) * 6 - 640
    made = 0.8 * truth[:, :, 2:] + 20 + generator.normal(0, 6, (frames, height, width, 3))
    return tuple(side.clip(0, 255).astype(np.uint8) for side in (truth[:, :, :-2], made))


def statement(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Wang et al. 2004 on a grey picture, with scipy's filter: the mean similarity, and that of contrast and structure."""

    def blurred(picture: np.ndarray) -> np.ndarray:
        return gaussian_filter(picture, 1.5, truncate=3.5)[5:-5, 5:-5]  # 11 taps; the border is left out

    one, other = one.astype(np.float64), other.astype(np.float64)
    m1, m2 = blurred(one), blurred(other)
    v1, v2, c = blurred(one * one) - m1**2, blurred(other * other) - m2**2, blurred(one * other) - m1 * m2
    structure = (2 * c + 58.5225) / (v1 + v2 + 58.5225)
    return float((structure * (2 * m1 * m2 + 6.5025) / (m1**2 + m2**2 + 6.5025)).mean()), float(structure.mean())


def multi_scale(one: np.ndarray, other: np.ndarray, scales: int) -> float:
    """Wang et al. 2003 on a grey picture; odd sides repeat their last row or column before halving."""
    weights, product = np.array(SCALE_WEIGHTS[:scales]) / (sum(SCALE_WEIGHTS[:scales]) if scales < 5 else 1), 1.0
    for scale in range(scales):
        whole, structure = statement(one, other)
        product *= (whole if scale == scales - 1 else structure) ** weights[scale]
        one, other = (np.pad(side, [(0, n % 2) for n in side.shape], mode="edge") for side in (one, other))
        one, other = ((s[::2, ::2] + s[1::2, ::2] + s[::2, 1::2] + s[1::2, 1::2]) / 4.0 for s in (one * 1.0, other * 1.0))
    return product


def test_psnr_by_hand() -> None:
    """One of 2x2x3 numbers is 3 levels off: mean squared error 9 / 12."""
    truth = np.full((2, 2, 2, 3), 100, np.uint8)
    made = truth.copy()
    made[1, 0, 0, 0] = 103
    equal, off = psnr(planes(truth), planes(made)).tolist()
    assert equal == float("inf")
    assert off == pytest.approx(10 * np.log10(255**2 / 0.75), abs=1e-12)


def test_ssim_of_flat_pictures_by_hand() -> None:
    one, other = (planes(np.full((1, 12, 12, 3), level, np.uint8)) for level in (100, 50))
    assert ssim(one, other).item() == pytest.approx((2 * 100 * 50 + 6.5025) / (100**2 + 50**2 + 6.5025), abs=1e-12)
    assert ssim(one, one).item() == pytest.approx(1, abs=1e-12)


def test_psnr_and_ssim_equal_opencv() -> None:
    """OpenCV blurs beyond the border and in single precision: its map is cut to where the window fits."""
    truth, made = pair(3, 40, 52)
    for frame in range(3):
        assert psnr(planes(truth), planes(made))[frame].item() == pytest.approx(cv2.PSNR(truth[frame], made[frame]), abs=1e-9)
        _, similarity = cv2.quality.QualitySSIM_compute(truth[frame], made[frame])
        theirs = similarity[5:-5, 5:-5].mean()
        assert 0.3 < theirs < 0.95
        assert ssim(planes(truth), planes(made))[frame].item() == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize(("height", "width", "scales"), [(64, 64, 1), (64, 64, 3), (180, 177, 5)])
def test_ms_ssim_equals_a_statement_with_scipy(height: int, width: int, scales: int) -> None:
    truth, made = pair(1, height, width)
    wanted = np.mean([multi_scale(truth[0, :, :, colour], made[0, :, :, colour], scales) for colour in range(3)])
    assert 0.3 < wanted < 0.99
    assert ms_ssim(planes(truth), planes(made), scales).item() == pytest.approx(wanted, abs=1e-10)
    if scales == 1:
        assert ssim(planes(truth), planes(made)).item() == pytest.approx(wanted, abs=1e-10)


def test_ms_ssim_equals_pytorch_msssim() -> None:
    """What version 1.0.0 of that package says of these pictures, in double precision with a window of the same.

    With weights that are divided by their sum, 1.0001, the numbers are 1.3e-5 higher.
    """
    truth, made = pair(2, 192, 176)
    assert ms_ssim(planes(truth), planes(made)).tolist() == pytest.approx([0.8622286084, 0.8597687250], abs=2e-6)


def test_a_still_clip_stands_beside_every_frame() -> None:
    truth, made = pair(3, 24, 24)
    for measure in (psnr, ssim, lambda one, other: ms_ssim(one, other, 2)):
        still = measure(planes(truth), planes(made)[:1])
        repeated = measure(planes(truth), planes(made)[:1].expand(3, -1, -1, -1))
        torch.testing.assert_close(still, repeated)
        assert len(still) == 3


def test_opposite_structure_counts_as_nothing_and_not_as_no_number() -> None:
    truth, _ = pair(1, 30, 30)
    assert ms_ssim(planes(truth), planes(255 - truth), 2).item() >= 0


def test_scales_that_fit() -> None:
    sides = {10: 0, 11: 1, 20: 1, 21: 2, 22: 2, 64: 3, 161: 5, 160: 4, 1000: 5}
    assert {side: scales_that_fit(side, 2000) for side in sides} == sides
    assert [smallest_side(scales) for scales in (1, 2, 5)] == [11, 21, 161]


def test_small_frames_are_refused() -> None:
    small = planes(np.zeros((1, 10, 64, 3), np.uint8))
    with pytest.raises(EvaluationError, match="SSIM needs frames of 11x11 pixels or more, not 10x64"):
        ssim(small, small)
    frames = planes(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(
        EvaluationError, match="MS-SSIM of 5 scales needs frames of 161x161 pixels or more, not 64x64; 3 scales"
    ):
        ms_ssim(frames, frames)
