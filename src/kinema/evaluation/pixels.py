r"""How near a clip is to what it should be, frame by frame and pixel by pixel.

All three take frames as planes of levels from 0 to 255 and give a number per frame. Colours are three grey pictures whose
numbers are averaged. A clip of one frame stands for a still one and is compared with every frame of the other. With a region
only its pixels count, in SSIM the windows around them; a frame that shows none of it has no number, NaN.

References:
    `ssim`: Wang, Bovik, Sheikh and Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE
    TIP 2004, eq. (13) to (16): Gaussian window of 11x11 with sigma 1.5, K1 0.01, K2 0.03; only where the window fits.
    `ms_ssim`: Wang, Simoncelli and Bovik, "Multi-scale Structural Similarity for Image Quality Assessment", 2003, eq. (7).
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8
from torch import Tensor
from torch.nn import functional as F

from kinema.core.errors import EvaluationError

PEAK = 255.0
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of Wang et al. 2003, finest first

GAUSSIAN = [math.exp(-((place - WINDOW // 2) ** 2) / (2 * SIGMA**2)) for place in range(WINDOW)]
GAUSSIAN = [weight / sum(GAUSSIAN) for weight in GAUSSIAN]

Planes = Float64[Tensor, "_ C H W"]  # levels; T frames, or one for a still clip
Scores = Float64[Tensor, "T"]
Region = Bool[Tensor, "T H W"]


def planes(clip: UInt8[np.ndarray, "T H W C"]) -> Float64[Tensor, "T C H W"]:
    """Return the planes of a clip."""
    return torch.tensor(clip).permute(0, 3, 1, 2).double()


def psnr(truth: Planes, made: Planes, region: Region | None = None) -> Scores:
    """Return the peak signal-to-noise ratio, 10 log10(255^2 / mean squared error), in decibels; infinite for equal frames."""
    return 10 * torch.log10(PEAK**2 / _mean_within((truth - made).square(), region))


def ssim(truth: Planes, made: Planes, region: Region | None = None) -> Scores:
    """Return the structural similarity, at most 1, which equal frames have.

    Raises:
        EvaluationError: for frames that are smaller than the window.
    """
    refuse_small(*truth.shape[2:])
    inside = WINDOW // 2
    return _mean_within(_similarity(truth, made)[0], None if region is None else region[:, inside:-inside, inside:-inside])


def ms_ssim(truth: Planes, made: Planes, scales: int = len(SCALE_WEIGHTS)) -> Scores:
    """Return the multi-scale structural similarity, from 0 to 1.

    Contrast and structure of every scale but the last, and the whole similarity of the last, each to the power of the scale's
    weight. Each scale halves the last by means of 2x2 pixels. Negative factors, which have no power, count as 0.

    Args:
        truth: of `scales_that_fit` scales or more.
        made: the same.
        scales: 5 is the published measure, with the weights as they are printed, whose sum is 1.0001. Fewer are another one and
            must be named so: the first weights, divided by their sum.

    Raises:
        EvaluationError: for frames whose last scale would be smaller than the window.
    """
    height, width = truth.shape[2:]
    if not 1 <= scales <= scales_that_fit(height, width):
        smallest = smallest_side(scales)
        raise EvaluationError(
            f"MS-SSIM of {scales} scales needs frames of {smallest}x{smallest} pixels or more, not {height}x{width}; "
            f"{scales_that_fit(height, width)} scales fit"
        )
    whole_measure = scales == len(SCALE_WEIGHTS)
    weights = np.array(SCALE_WEIGHTS[:scales]) / (1 if whole_measure else sum(SCALE_WEIGHTS[:scales]))
    product = torch.ones((), dtype=torch.float64)
    for scale, weight in enumerate(weights.tolist()):
        whole, structure = _similarity(truth, made)
        factor = (structure if scale < scales - 1 else whole).mean(dim=(2, 3))
        product = product * factor.clamp_min(0) ** weight
        truth, made = (F.avg_pool2d(side, 2, ceil_mode=True) for side in (truth, made))
    return product.mean(dim=1)


def scales_that_fit(height: int, width: int) -> int:
    """Return at how many scales SSIM's window fits, 5 at most."""
    side, scales = min(height, width), 0
    while side >= WINDOW and scales < len(SCALE_WEIGHTS):
        side, scales = (side + 1) // 2, scales + 1
    return scales


def smallest_side(scales: int) -> int:
    """Return the smallest side at which SSIM's window fits at so many scales, in pixels."""
    return ((WINDOW - 1) << (scales - 1)) + 1


def refuse_small(height: int, width: int) -> None:
    """Raise `EvaluationError` for frames that are smaller than SSIM's window."""
    if min(height, width) < WINDOW:
        raise EvaluationError(f"SSIM needs frames of {WINDOW}x{WINDOW} pixels or more, not {height}x{width}")


def _mean_within(values: Float64[Tensor, "T C h w"], region: Bool[Tensor, "T h w"] | None) -> Scores:
    if region is None:
        return values.mean(dim=(1, 2, 3))
    return (values.mean(dim=1) * region).sum(dim=(1, 2)) / region.sum(dim=(1, 2))


def _similarity(one: Planes, other: Planes) -> tuple[Float64[Tensor, "T C h w"], Float64[Tensor, "T C h w"]]:
    """Return the similarity at every place where the window fits, and its factor of contrast and structure."""
    one, other = torch.broadcast_tensors(one, other)
    mean, other_mean = _blur(one), _blur(other)
    variances = _blur(one.square()) - mean.square() + _blur(other.square()) - other_mean.square()
    covariance = _blur(one * other) - mean * other_mean
    structure = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean * other_mean + C1) / (mean.square() + other_mean.square() + C1)
    return luminance * structure, structure


def _blur(values: Float64[Tensor, "T C H W"]) -> Float64[Tensor, "T C h w"]:
    """Average under the window where it lies inside the picture."""
    # Sums of shifted pictures: in double precision several times as fast as torch's convolution.
    for axis in (2, 3):
        length = values.shape[axis] - WINDOW + 1
        blurred = values.narrow(axis, 0, length) * GAUSSIAN[0]
        for offset, weight in enumerate(GAUSSIAN[1:], 1):
            blurred.add_(values.narrow(axis, offset, length), alpha=weight)
        values = blurred
    return values
