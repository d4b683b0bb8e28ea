"""Perceptual distance: how far apart the activations of a network are for two frames that should be the same.

Activations of several layers are divided by their length at every place; the squared difference is averaged over places and
weighted over channels. LPIPS learns the weights from people's judgements; the packaged network has none, so that all are 1.

References:
    Zhang, Isola, Efros, Shechtman and Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018
    (arXiv 1801.03924), eq. (1); unweighted, as its uncalibrated networks. Layers and view of the packaged network are a choice.
"""

import hashlib
import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32, Float64
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE, IMAGE_WEIGHTS_SHA256
from kinema.evaluation.network import exact_convolutions
from kinema.evaluation.pixels import Planes, Scores
from kinema.nn.perceptual import ImageActivations, unit

VIEW = 128  # edge of what the packaged network sees, as in kinema.evaluation.features
LPIPS_LEAST = 64  # pixels: AlexNet's last layers need places to average over

Layers = list[Tensor]


def as_seen(frames: Planes) -> Float32[Tensor, "T C h w"]:
    """Return frames as the packaged network is shown them."""
    pixels = frames.float().contiguous(memory_format=torch.channels_last)
    pixels = F.interpolate(pixels, size=(VIEW, VIEW), mode="bilinear", antialias=True, align_corners=False)
    return (pixels - IMAGE_MEAN) / IMAGE_SCALE


class PackagedPerceptual:
    """Distance of activations of EfficientNet-Lite0, ImageNet's weights; 0 for equal frames. It is no LPIPS.

    Args:
        device: where to compute.

    Raises:
        ConfigError: the ``features`` extra is not installed.
        DataError: the packaged weights are not the expected ones.
    """

    name = "perceptual[efficientnet-lite0]"
    sha256 = IMAGE_WEIGHTS_SHA256

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._activations = ImageActivations(device)

    @torch.inference_mode()
    def describe(self, frames: Planes) -> Layers:
        """Return what `between` compares."""
        with exact_convolutions():
            return [unit(layer) for layer in self._activations(as_seen(frames.to(self._device)))]

    def between(self, truth: Layers, made: Layers) -> Scores:
        """Return a distance per frame."""
        return torch.stack([_apart(*pair, None) for pair in zip(truth, made, strict=True)]).mean(dim=0).cpu()


class LPIPS:
    """LPIPS 0.1 with AlexNet, from a file of weights; 0 for equal frames.

    Args:
        file: the state dict of the reference implementation, ``torch.save(lpips.LPIPS(net="alex").state_dict(), FILE)``.
        device: where to compute.

    Raises:
        EvaluationError: when the file is missing or holds something else.
    """

    name = "lpips[alex]"

    def __init__(self, file: Path, device: torch.device) -> None:
        self._device = device
        self._blocks = _alex_blocks().to(device).eval()
        try:
            content = file.read_bytes()
            weights = torch.load(file, map_location="cpu", weights_only=True)
            backbone = {name.partition(".")[2]: weights[name] for name in weights if name.startswith("net.")}
            self._blocks.load_state_dict({_position(name): tensor for name, tensor in backbone.items()})
            linear = [weights[f"lin{layer}.model.1.weight"].reshape(-1).to(device) for layer in range(len(self._blocks))]
            if [len(one) for one in linear] != list(ALEX_WIDTHS):
                raise ValueError(f"layers of {[len(one) for one in linear]} weights")
        except FileNotFoundError:
            raise EvaluationError(f"{file} does not exist; {LPIPS_WANTED}") from None
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise EvaluationError(f"{file} does not hold the weights of LPIPS ({reason}); {LPIPS_WANTED}") from None
        self._linear = linear
        self.sha256 = hashlib.sha256(content).hexdigest()

    @torch.inference_mode()
    def describe(self, frames: Planes) -> Layers:
        """Return what `between` compares."""
        if min(frames.shape[2:]) < LPIPS_LEAST:
            raise EvaluationError(
                f"LPIPS needs frames of {LPIPS_LEAST}x{LPIPS_LEAST} pixels or more, not {frames.shape[2]}x{frames.shape[3]}"
            )
        pixels = frames.to(self._device).float() / 127.5 - 1
        shift, scale = (torch.tensor(values, device=self._device).reshape(3, 1, 1) for values in (LPIPS_SHIFT, LPIPS_SCALE))
        pixels, layers = (pixels - shift) / scale, []
        with exact_convolutions():
            for block in self._blocks:
                pixels = block(pixels)
                layers.append(unit(pixels))
        return layers

    def between(self, truth: Layers, made: Layers) -> Scores:
        """Return a distance per frame."""
        parts = zip(truth, made, self._linear, strict=True)
        return torch.stack([_apart(one, other, weights) for one, other, weights in parts]).sum(dim=0).cpu()


ALEX_WIDTHS = (64, 192, 384, 256, 256)
LPIPS_SHIFT, LPIPS_SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of pixels in [-1, 1]
LPIPS_WANTED = 'make it where lpips is installed: torch.save(lpips.LPIPS(net="alex").state_dict(), "lpips-alex.pth")'


def _alex_blocks() -> nn.ModuleList:
    """Return AlexNet's five convolutions, each with the pooling before it and its activation (Krizhevsky, 2014)."""
    first = nn.Sequential(nn.Conv2d(3, ALEX_WIDTHS[0], 11, stride=4, padding=2), nn.ReLU())
    blocks = [first]
    for number, (narrow, wide) in enumerate(pairwise(ALEX_WIDTHS)):
        kernel = 5 if number == 0 else 3
        pool: Sequence[nn.Module] = [nn.MaxPool2d(3, stride=2)] if number < 2 else []
        blocks.append(nn.Sequential(*pool, nn.Conv2d(narrow, wide, kernel, padding=kernel // 2), nn.ReLU()))
    return nn.ModuleList(blocks)


def _position(name: str) -> str:
    """Turn ``slice2.3.weight``, AlexNet's layer 3, into the place of the convolution here."""
    part, _, kind = name.split(".")
    block = int(part.removeprefix("slice")) - 1
    return f"{block}.{1 if block in (1, 2) else 0}.{kind}"


def _apart(one: Tensor, other: Tensor, weights: Tensor | None) -> Float64[Tensor, "T"]:
    """Return the mean over places of the squared differences, weighted over channels."""
    squares: Any = (one - other).square()
    if weights is not None:
        squares = squares * weights.reshape(-1, 1, 1)
    return squares.sum(dim=1).double().mean(dim=(1, 2))
