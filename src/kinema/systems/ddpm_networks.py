r"""Settings and network of DDPM: the U-Net of Ho et al., 2020, Appendix B, for images and, with one more axis, for short clips.

Residual blocks with group norm and swish, the time added to every one of them, self-attention at a few resolutions. In space
and time every convolution, halving and attention has one axis more and everything else stays.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.core.sampling import SAMPLERS, Sampler
from kinema.core.types import ClipShape, Labels
from kinema.nn.convolution import CONVOLUTION
from kinema.nn.paths import Target, Times

Features = Float[Tensor, "B _ ..."]  # images or clips
Moment = Float[Tensor, "B D"]


# --- Configuration ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DDPMConfig(Config):
    """Settings of DDPM; the defaults are the paper's for CIFAR-10."""

    frames: int = 1
    """Frames of a clip. 1: images, a random frame of every clip; more: convolutions and attention in space and time."""
    height: int = 32
    """Height of a clip in pixels."""
    width: int = 32
    """Width of a clip in pixels."""
    classes: int = 0
    """Number of classes that clips can be asked for by; 0: none."""
    drop_condition: float = 0.1
    """Share of the clips that train without their class, for guidance."""

    channels: int = 128
    """Channels of the finest feature map."""
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    """Multiples of them at every resolution, finest first; each halves the extent of the one before."""
    blocks: int = 2
    """Residual blocks at every resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Heights of the feature maps with self-attention; the middle always has it."""
    groups: int = 32
    """Groups of group norm."""
    dropout: float = 0.1
    """Share of the features that every block drops while training."""

    path: Literal["linear", "cosine", "straight", "edm"] = "linear"
    """linear: the paper's betas. cosine: Nichol and Dhariwal's. straight: rectified flow. edm: EDM with its preconditioning."""
    target: Target = "noise"
    """What the network predicts: noise (paper), velocity (for straight) or clean (the clip itself; for edm)."""
    learning_rate: float = 2e-4
    """Adam's step size."""
    beta1: float = 0.9
    """Adam's decay of the gradient's mean."""
    beta2: float = 0.999
    """Adam's decay of the gradient's square."""

    sampler: Sampler = "ancestral"
    """How it samples unless told otherwise: ancestral (paper), ddim, euler, heun or dpm-solver."""
    sampling_steps: int = 1000
    """Steps from noise to a clip unless told otherwise."""
    guidance: float = 1.0
    """Classifier-free guidance unless told otherwise."""
    inpaint_passes: int = 5
    """How often every stretch of the walk is repeated while completing clips (RePaint's r)."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        self.at_least(1, "frames", "height", "width", "channels", "blocks", "groups", "sampling_steps", "inpaint_passes")
        self.at_least(0, "classes", "learning_rate", "guidance")
        self.require(bool(self.multipliers) and min(self.multipliers) >= 1, "multipliers", "one or more numbers of at least 1")
        self.require(self.channels % self.groups == 0, "channels", f"a multiple of groups = {self.groups}")
        for name in ("drop_condition", "dropout", "beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "in [0, 1)")
        self.require(self.sampler in SAMPLERS, "sampler", f"one of {', '.join(SAMPLERS)}")
        learnable = {"straight": ("velocity", "clean"), "edm": ("clean",)}.get(self.path, ("noise", "velocity", "clean"))
        self.require(self.target in learnable, "target", f"{' or '.join(learnable)} on the {self.path} path")
        refuse_other_sizes(self.shape, self.footprint)

    @property
    def shape(self) -> ClipShape:
        """Of a clip."""
        return ClipShape(self.frames, self.height, self.width)

    @property
    def rank(self) -> int:
        """Axes of the convolutions: 2 for images, 3 for clips."""
        return 2 if self.frames == 1 else 3

    @property
    def footprint(self) -> tuple[int, int, int]:
        """Frames, height and width that the coarsest position covers."""
        side = 1 << (len(self.multipliers) - 1)
        return (1 if self.rank == 2 else side, side, side)


def refuse_other_sizes(shape: ClipShape, footprint: tuple[int, int, int]) -> None:
    """Raise `ConfigError` for a clip that cannot be halved as often as the network does; a single frame always can."""
    sides = (shape.frames, shape.height, shape.width)
    units = (1 if shape.frames == 1 else footprint[0], *footprint[1:])
    if any(side < 1 or side % unit for side, unit in zip(sides, units, strict=True)):
        nearest = ClipShape(*(max(1, round(side / unit)) * unit for side, unit in zip(sides, units, strict=True)))
        raise ConfigError(f"clips of {shape} cannot be: frames, height and width must be multiples of {units}; try {nearest}")


# --- Blocks -------------------------------------------------------------------------------------------------------------------


def convolution(rank: int, inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, scale: float = 1.0) -> nn.Module:
    """Return a convolution that keeps the extent (or halves it), its weights of variance `scale` times Glorot's."""
    layer = CONVOLUTION[rank](inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    return start(layer, scale)


def start(layer: Any, scale: float = 1.0) -> nn.Module:
    """Set weights as the release does: uniform, of variance `scale` times 2 / (inputs + outputs); biases zero."""
    nn.init.xavier_uniform_(layer.weight, gain=scale**0.5)
    nn.init.zeros_(layer.bias)
    return layer


NOTHING = 1e-10  # the release's scale of a layer that starts as zero: its gradient is none


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, the time added between them.

    Args:
        config: rank, groups, dropout.
        inputs: channels that come in.
        outputs: channels that go out.
    """

    def __init__(self, config: DDPMConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        rank, self.dropout = config.rank, nn.Dropout(config.dropout)
        self.norm1 = nn.GroupNorm(config.groups, inputs, eps=1e-6)
        self.convolution1 = convolution(rank, inputs, outputs)
        self.time = start(nn.Linear(4 * config.channels, outputs))
        self.norm2 = nn.GroupNorm(config.groups, outputs, eps=1e-6)
        self.convolution2 = convolution(rank, outputs, outputs, scale=NOTHING)
        self.shortcut = nn.Identity() if inputs == outputs else convolution(rank, inputs, outputs, 1)

    def forward(self, features: Features, moment: Moment) -> Features:
        """Return features of the same extent."""
        inner = self.convolution1(silu(self.norm1(features)))
        inner = inner + self.time(silu(moment)).reshape(*inner.shape[:2], *[1] * (inner.dim() - 2))
        return self.shortcut(features) + self.convolution2(self.dropout(silu(self.norm2(inner))))


class SelfAttention(nn.Module):
    """Every position looks at all others, with one head.

    Args:
        config: rank, groups.
        channels: of the features.
    """

    def __init__(self, config: DDPMConfig, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.query, self.key, self.value = (convolution(config.rank, channels, channels, 1) for _ in range(3))
        self.last = convolution(config.rank, channels, channels, 1, scale=NOTHING)

    def forward(self, features: Features) -> Features:
        """Return features of the same extent."""
        inner = self.norm(features)
        query, key, value = (layer(inner).flatten(2) for layer in (self.query, self.key, self.value))
        score = torch.einsum("bcq,bck->bqk", query, key) * query.shape[1] ** -0.5
        seen = torch.einsum("bqk,bck->bcq", score.softmax(dim=-1).to(value.dtype), value)
        return features + self.last(seen.reshape(features.shape))


class Shrink(nn.Module):
    """Halve every extent by a convolution."""

    def __init__(self, config: DDPMConfig, channels: int) -> None:
        super().__init__()
        self.convolution = convolution(config.rank, channels, channels, stride=2)

    def forward(self, features: Features) -> Features:
        """Return the smaller features."""
        return self.convolution(features)


class Grow(nn.Module):
    """Repeat every element and convolve."""

    def __init__(self, config: DDPMConfig, channels: int) -> None:
        super().__init__()
        self.convolution = convolution(config.rank, channels, channels)

    def forward(self, features: Features, extent: tuple[int, ...]) -> Features:
        """Return features of the larger `extent`."""
        return self.convolution(interpolate(features, extent))


def sinusoids(numbers: Times, width: int) -> Moment:
    """Return sines and cosines of a number at `width` / 2 frequencies from 1 down to 1 / 10000 (Vaswani et al., 2017)."""
    half = width // 2
    rates = torch.exp(torch.arange(half, device=numbers.device) * (-math.log(10000) / max(1, half - 1)))
    angles = numbers.float()[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class UNet(nn.Module):
    """Blocks down the resolutions and up again; the way up sees what every block on the way down gave.

    Args:
        config: every size.
    """

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__()
        self.channels, rank = config.channels, config.rank
        levels = [config.channels * multiple for multiple in config.multipliers]
        moment = 4 * config.channels
        self.time = nn.Sequential(start(nn.Linear(config.channels, moment)), nn.SiLU(), start(nn.Linear(moment, moment)))
        self.classes = nn.Embedding(config.classes + 1, moment) if config.classes else None  # the last is the null

        def block(inputs: int, level: int) -> nn.ModuleList:
            """Return a residual block, followed by self-attention where this resolution has it."""
            attends = config.height >> level in config.attention
            attention = [SelfAttention(config, levels[level])] if attends else []
            return nn.ModuleList([ResidualBlock(config, inputs, levels[level]), *attention])

        self.first = convolution(rank, 3, config.channels)
        given = [config.channels]  # channels that are handed across
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for level, channels in enumerate(levels):
            if level:
                self.shrink.append(Shrink(config, given[-1]))
                given.append(given[-1])
            blocks = nn.ModuleList()
            for _ in range(config.blocks):
                blocks.append(block(given[-1], level))
                given.append(channels)
            self.down.append(blocks)

        inner = levels[-1]
        around = (ResidualBlock(config, inner, inner) for _ in range(2))
        self.middle = nn.ModuleList([next(around), SelfAttention(config, inner), next(around)])

        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        coming = inner
        for level in reversed(range(len(levels))):
            blocks = nn.ModuleList()
            for _ in range(config.blocks + 1):
                blocks.append(block(coming + given.pop(), level))
                coming = levels[level]
            self.up.append(blocks)
            if level:
                self.grow.append(Grow(config, coming))
        self.last = nn.Sequential(
            nn.GroupNorm(config.groups, coming, eps=1e-6), nn.SiLU(), convolution(rank, coming, 3, scale=NOTHING)
        )

    def forward(self, x: Features, numbers: Times, label: Labels | None = None) -> Features:
        """Return the prediction for noisy clips.

        Args:
            x: noisy clips.
            numbers: of the steps, from 0 on.
            label: class of every clip; the number of classes, like None, is the null.
        """
        moment = self.time(sinusoids(numbers, self.channels).to(x.dtype))
        if self.classes is not None:
            null = torch.full((len(x),), self.classes.num_embeddings - 1, device=x.device)
            moment = moment + self.classes(null if label is None else label)
        features = self.first(x)
        skips = [features]
        for level, blocks in enumerate(self.down):
            if level:
                features = self.shrink[level - 1](features)
                skips.append(features)
            for block in cast(nn.ModuleList, blocks):
                features = through(block, features, moment)
                skips.append(features)
        features = through(self.middle, features, moment)
        for level, blocks in enumerate(self.up):
            if level:
                features = self.grow[level - 1](features, skips[-1].shape[2:])
            for block in cast(nn.ModuleList, blocks):
                features = through(block, torch.cat([features, skips.pop()], dim=1), moment)
        return self.last(features)


def through(parts: Any, features: Features, moment: Moment) -> Features:
    """Return what residual blocks, which see the time, and attention, which does not, make of features in turn."""
    for part in parts:
        features = part(features, moment) if isinstance(part, ResidualBlock) else part(features)
    return features
