r"""Settings and networks of The Pose Knows; `kinema.systems.pose_knows` says what the paper is and plays the two games."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate

from kinema.core.compiling import untraced
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError
from kinema.core.imagenet import IMAGE_MEAN, IMAGE_SCALE
from kinema.core.types import Image, Video
from kinema.nn.convolution import Normalisation, down_block, initialise_dcgan
from kinema.nn.discriminators import StridedNetwork
from kinema.nn.perceptual import WHOLE, Frozen, ImageActivations
from kinema.nn.unet import UNet, levels_down_to_one
from kinema.pose.draw import STYLES, DrawStyle
from kinema.pose.skeleton import find_skeleton

Joints = Float[Tensor, "B K J 2"]  # x and y per joint at K times, or their displacements over K steps; 0 where missing
Present = Float[Tensor, "B K J"]  # 1 or 0
Features = Float[Tensor, "B K _"]
State = tuple[Tensor, Tensor]  # h and c of an LSTM, each (layers, B, state)
CENTRE = (0.407, 0.456, 0.482)  # of the tower's pixels in [0, 1]
REPEATS = (10, 100)  # the posterior sees directions and magnitudes so often: it balances their sizes


# --- Configuration ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoseKnowsConfig(Config):
    """Settings of The Pose Knows; the defaults are the release's."""

    height: int = 240
    """Height of the clips in pixels."""
    width: int = 320
    """Width of the clips in pixels."""
    skeleton: str = "coco-18"
    """Layout of the joints."""
    frames_per_step: int = 6
    """Frames from one pose of the model to the next; poses between are interpolated."""
    past_steps: int = 2
    """Steps of the past: it has frames_per_step * past_steps + 1 frames, the last of which is the current one."""
    future_steps: int = 5
    """Steps of the future: it has frames_per_step * future_steps frames."""
    confidence: float = 0.1
    """Joints of less confidence are missing."""
    origin: Literal["frame", "person"] = "frame"
    """Where coordinates begin: at the frame's corner (release), or at the mean of the current joints."""
    tower: Literal["paper", "small", "imagenet"] = "paper"
    """Network of the current frame: the release's five convolutions, halvings down to 4 pixels (square frames), or the packaged
    ImageNet network, which never learns, is in no checkpoint and sees no drawing of the pose (needs kinema[features])."""
    tower_width: int = 16
    """Channels of the small tower's first feature map; doubled with every halving."""
    image_features: int = 1024
    """Features of the current frame."""
    pose_features: int = 1024
    """Features of the pose and velocity of a past step."""
    state: int = 1024
    """Units of each of the two LSTM layers, in encoder and decoders."""
    code: int = 4
    """Dimensions of the code of one future step."""
    posterior_width: int = 512
    """Hidden units of the future encoder."""
    posterior_sees: Literal["moves", "poses"] = "moves"
    """What the future encoder is given: velocities (release), or future poses too (slides)."""
    pose_norm: Literal["batch", "layer"] = "batch"
    """Normalisation in the pose-VAE."""
    displacement: Literal["directions", "euclidean"] = "directions"
    """How velocities are put into numbers: Equation 1, or x and y divided by their spread in the footage."""
    latent: Literal["gaussian", "none"] = "gaussian"
    """Codes, or none: one future per past, from a network of the same size."""
    prior: Literal["normal", "fitted"] = "normal"
    """What codes are drawn from: normal numbers that know nothing of the past (paper), or around what the state after the past
    says of them, fitted in closed form to the codes of the footage after stage "pose"."""
    kl_weight: float = 0.008
    """Weight of the KL divergence of a clip, summed over all codes."""
    kl_doubles_at: int = 60000
    """Step from which that weight is doubled; 0: never."""
    fed: Literal["truth", "itself"] = "truth"
    """Which poses the future decoder is fed in training: true ones, or those that it has forecast."""
    pose_learning_rate: float = 1e-3
    """Adam's step size for the pose-VAE."""
    video_height: int = 64
    """Height of the rendered video; a power of two, at least 8."""
    video_width: int = 80
    """Width of the rendered video; a multiple of video_height / 4."""
    generator_width: int = 32
    """Channels of the U-Net's finest feature map; doubled per level, eightfold at most."""
    discriminator_width: int = 128
    """Channels of the discriminator's first feature map; doubled per level."""
    discriminator_norm: Literal["batch", "spectral"] = "batch"
    """Normalisation in the discriminator."""
    discriminator_logits: Literal[1, 2] = 2
    """Outputs of the discriminator: 2 with cross-entropy (release), or 1; the same function of their difference."""
    condition_discriminator: bool = False
    """Show the discriminator the skeleton beside the video; without, only the L1 term asks for the right pose."""
    bottleneck_norm: Literal["batch", "layer"] = "batch"
    """Normalisation of the U-Net's single innermost position; a batch norm there cannot train on one clip."""
    dropout: float = 0.5
    """Dropout behind the U-Net's two innermost layers on the way up."""
    start: Literal["grey", "image", "overlay", "limbs"] = "grey"
    """What is painted over: grey (release), the current frame, as much of that frame as a mask of the U-Net leaves, or the same
    where a second mask chooses between the frame and the frame with its limbs taken along, which the U-Net is shown too and two
    convolutions at full size refine."""
    shift: float = 0.0
    """How far beside its place each clip lies when video is learnt, at most and by chance, as a share of height and width: few
    clips would soon be known by heart."""
    l1_weight: float = 500.0
    """Weight alpha of the mean absolute error of a pixel in [-1, 1]: half the release's, whose pixels span half as much."""
    learning_rate: float = 2e-4
    """Adam's step size for generator and discriminator."""
    drawing: DrawStyle = field(default_factory=lambda: STYLES["pose-knows"])
    """How skeletons are drawn."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        self.at_least(1, "height", "width", "frames_per_step", "past_steps", "future_steps", "tower_width", "image_features")
        self.at_least(1, "pose_features", "state", "code", "posterior_width", "generator_width", "discriminator_width")
        self.at_least(0, "kl_weight", "kl_doubles_at", "pose_learning_rate", "l1_weight", "learning_rate")
        self.require(0 <= self.confidence < 1, "confidence", "in [0, 1)")
        self.require(0 <= self.dropout < 1, "dropout", "in [0, 1)")
        self.require(0 <= self.shift < 1, "shift", "in [0, 1)")
        tall, wide = self.video_height, self.video_width
        self.require(tall >= 8 and tall & (tall - 1) == 0, "video_height", "a power of two, at least 8")
        self.require(wide >= tall // 4 and wide % (tall // 4) == 0, "video_width", f"a multiple of {tall // 4}")
        if self.tower == "small" and (self.height != self.width or self.height < 8 or self.height & (self.height - 1)):
            raise ConfigError(f"tower 'small' takes square frames of 8, 16, 32, ... pixels, not {self.width}x{self.height}")
        if self.tower == "paper" and min(self.height, self.width) < 64:
            raise ConfigError(f"tower 'paper' takes frames of 64 pixels or more, not {self.width}x{self.height}")
        try:
            find_skeleton(self.skeleton)
        except DataError as error:
            raise ConfigError(str(error)) from None

    def for_frames(self, frames: int) -> dict[str, int]:
        """Return steps of the past, at most half of those that fit, and of the future; none where what is set fits."""
        if frames >= self.past_frames + self.future_frames:
            return {}
        steps = (frames - 1) // self.frames_per_step
        past = min(self.past_steps, steps // 2)
        return {"past_steps": past, "future_steps": steps - past}

    @property
    def joints(self) -> int:
        """Joints of the skeleton."""
        return len(find_skeleton(self.skeleton))

    @property
    def past_frames(self) -> int:
        """Frames of the past, the current one included."""
        return self.frames_per_step * self.past_steps + 1

    @property
    def future_frames(self) -> int:
        """Frames of the future."""
        return self.frames_per_step * self.future_steps

    @property
    def halvings(self) -> int:
        """How often the video networks halve every extent before the last layer, which leaves 4 rows."""
        return self.video_height.bit_length() - 3

    @property
    def video_frames(self) -> int:
        """Frames that the video half sees: the current one, the future, and its last one again up to a suitable length."""
        return -(-(1 + self.future_frames) // (1 << self.halvings)) << self.halvings

    @property
    def parts(self) -> tuple[int, ...]:
        """Numbers of the parts of which a velocity consists: directions and magnitudes, or displacements."""
        return (2 * self.joints, 2) if self.displacement == "directions" else (2 * self.joints,)


# --- Velocities in numbers ----------------------------------------------------------------------------------------------------


class Steps(NamedTuple):
    """Poses at the borders of steps, in units of the frame's longer side."""

    places: Joints
    present: Present

    def moves(self) -> tuple[Joints, Present]:
        """Return the displacement over every step, and which joints have both ends."""
        both = self.present[:, 1:] * self.present[:, :-1]
        return (self.places[:, 1:] - self.places[:, :-1]) * both[..., None], both

    def features(self) -> Features:
        """Return all x, all y and all confidences, as numbers of a network."""
        return torch.cat([rearrange(self.places, "b k j c -> b k (c j)"), self.present], dim=-1)


def to_directions(moves: Joints) -> tuple[Features, Features]:
    r"""Put displacements Y into directions $5 Y / m$ and magnitudes $(e^m - 1.1) / 0.1$, apart for x and y (Equation 1).

    m is the norm over all joints; where it is 0 the directions are too.
    """
    halves = rearrange(moves, "b k j c -> b k c j")
    m = halves.norm(dim=-1)
    directions = 5 * halves / m.clamp_min(1e-8)[..., None]
    return rearrange(directions, "b k c j -> b k (c j)"), (m.exp() - 1.1) / 0.1


def from_directions(directions: Features, magnitudes: Features) -> Joints:
    """Return the displacements of directions and magnitudes, the inverse of Equation 1; m is at least 0."""
    m = (0.1 * magnitudes.clamp_min(-1) + 1.1).log()
    return rearrange(directions, "b k (c j) -> b k j c", c=2) / 5 * m[:, :, None]


# --- Networks of the pose-VAE -------------------------------------------------------------------------------------------------


class Embedding(nn.Module):
    """A linear layer and a normalisation; a batch norm has one set of statistics for all steps."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.BatchNorm1d(outputs) if norm == "batch" else nn.LayerNorm(outputs)

    def forward(self, features: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """Embed every row."""
        return self.norm(self.linear(features).flatten(0, -2)).unflatten(0, features.shape[:-1])

    def is_fed_zeros(self) -> None:
        """Keep weights that would only ever be multiplied by zeros out of training."""
        self.linear.weight.requires_grad_(False)


class ImageTower(nn.Module):
    """The current frame, with the drawing of its pose, as a vector."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        if config.tower == "paper":
            shape = [(6, 32, 7, 4, 2, True), (32, 128, 5, 1, 2, True), (128, 192, 3, 1, 1, False)]
            shape += [(192, 192, 3, 1, 1, False), (192, 128, 3, 1, 1, True)]
            layers: list[nn.Module] = []
            height, width, channels = config.height, config.width, 128
            for inputs, outputs, kernel, stride, padding, pooled in shape:
                layers += [nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.ReLU(inplace=True), nn.BatchNorm2d(outputs)]
                layers += [nn.MaxPool2d(3, 2)] if pooled else []
                height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
                height, width = ((side - 3) // 2 + 1 if pooled else side for side in (height, width))
            self.convolutions = nn.Sequential(*layers)
        else:
            widths = [6, *(config.tower_width << level for level in range(config.height.bit_length() - 3))]
            blocks = (down_block(2, *pair, "batch", nn.ReLU(inplace=True)) for pair in pairwise(widths))
            self.convolutions = nn.Sequential(*blocks)
            height = width = 4
            channels = widths[-1]
        self.head = Embedding(channels * height * width, config.image_features, config.pose_norm)

    def forward(self, image: Image, drawing: Image) -> Float[Tensor, "B F"]:
        """Return the features of a frame and a drawing."""
        centre = image.new_tensor(CENTRE * 2)[:, None, None]
        return self.head(self.convolutions((torch.cat([image, drawing], dim=1) + 1) / 2 - centre).flatten(1))


GRID = 4
"""Rows and columns in which features of the ImageNet network are averaged: one mean of all forgets where somebody is."""
SIXTEENTH = 16
"""What those features divide the frame's sides by: a place there tells poses apart better than one of 32 pixels."""
SEEN_CHANNELS = 112


class FrozenFeatures(Frozen):
    """EfficientNet-Lite0's activations of frames at 1/16 of their size, averaged in `GRID` rows and columns.

    It is no module, so that no optimiser, checkpoint or average holds it, and it is opened once per device, at the latest when
    it is first asked. Frames are enlarged to sides that are multiples of `WHOLE` and give every row and column a place. It
    computes in fp32 whatever the rest does, so that features are the same in training and afterwards.
    """

    def __init__(self) -> None:
        self._networks: dict[torch.device, ImageActivations] = {}

    def open(self, device: torch.device) -> ImageActivations:
        """Return the network on a device; random numbers go on as if nothing had been opened.

        Raises:
            ConfigError: the ``features`` extra is not installed.
            DataError: the packaged weights are not the expected ones.
        """
        if device not in self._networks:
            with torch.inference_mode(False), torch.device("cpu"), torch.random.fork_rng(devices=[]):
                network = ImageActivations(device)
                network.fold()
            self._networks[device] = network
        return self._networks[device]

    @untraced
    @torch.no_grad()
    def __call__(self, image: Image) -> Float[Tensor, "B D"]:
        """Return the features of frames in [-1, 1], all places of a channel together: `SEEN_CHANNELS` * `GRID`^2 numbers."""
        network, pixels = self.open(image.device), image.float()
        larger = max(1.0, GRID * SIXTEENTH / min(image.shape[2:]))
        height, width = (math.ceil(side * larger / WHOLE) * WHOLE for side in image.shape[2:])
        if (height, width) != tuple(image.shape[2:]):
            pixels = interpolate(pixels, (height, width), mode="bilinear", align_corners=False)
        pixels = pixels * (127.5 / IMAGE_SCALE) + (127.5 - IMAGE_MEAN) / IMAGE_SCALE
        with exactly(image.device):
            seen = network(pixels, least=min(height, width) // (2 * SIXTEENTH) + 1)[-1]  # nothing behind 1/16 is computed
        return adaptive_avg_pool2d(seen, GRID).flatten(1)


def exactly(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context without autocast; on a device that has none there is nothing to switch off."""
    return torch.autocast(device.type, enabled=False) if torch.amp.is_autocast_available(device.type) else nullcontext()


class FrozenTower(nn.Module):
    """The current frame as a vector: a learnt line over what the packaged ImageNet network sees, which never changes.

    References:
        Not the paper's: its tower learns from scratch. EfficientNet-Lite0: Tan and Le, ICML 2019, in its released variant.
    """

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        self.features = FrozenFeatures()
        self.head = Embedding(SEEN_CHANNELS * GRID**2, config.image_features, config.pose_norm)

    def forward(self, image: Image, drawing: Image) -> Float[Tensor, "B F"]:
        """Return the features of a frame; the drawing, which no photograph resembles, is not looked at."""
        return self.head(self.features(image))


class PastEncoder(nn.Module):
    """The current frame and the poses and velocities of the past as the state of an LSTM."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        wide, norm = 3 * config.joints, config.pose_norm
        self.tower = FrozenTower(config) if config.tower == "imagenet" else ImageTower(config)
        self.inputs = nn.ModuleList(Embedding(size, wide, norm) for size in (wide, *config.parts))
        self.pose = Embedding(wide * len(self.inputs), config.pose_features, norm)
        self.lstm = nn.LSTM(config.image_features + config.pose_features, config.state, 2, batch_first=True)

    def forward(self, image: Image, drawing: Image, poses: Features, velocities: Sequence[Features]) -> State:
        """Return h and c after the past."""
        parts = [embed(part) for embed, part in zip(self.inputs, (poses, *velocities), strict=True)]
        pose = self.pose(torch.cat(parts, dim=-1))
        seen = repeat(self.tower(image, drawing), "b f -> b k f", k=pose.shape[1])
        return self.lstm(torch.cat([seen, pose], dim=-1))[1]


class FutureEncoder(nn.Module):
    """The posterior Q over the codes of all steps, given the future and the state h after the past."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        sizes = [config.future_steps * size for size in config.parts]
        self.repeats = [*REPEATS[: len(sizes)]]
        if config.posterior_sees == "poses":
            sizes, self.repeats = [*sizes, config.future_steps * 3 * config.joints], [*self.repeats, REPEATS[0]]
        self.inputs = nn.ModuleList(Embedding(size, size, config.pose_norm) for size in sizes)
        width = sum(size * times for size, times in zip(sizes, self.repeats, strict=True)) + 2 * config.state
        self.hidden = nn.Sequential(nn.Linear(width, config.posterior_width), nn.ReLU())
        self.mu = nn.Linear(config.posterior_width, config.future_steps * config.code)
        self.log_variance = nn.Linear(config.posterior_width, config.future_steps * config.code)

    def forward(self, future: Sequence[Features], state: State) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Return mean and logarithm of the variance of the codes."""
        parts = zip(self.inputs, future, self.repeats, strict=True)
        seen = [embed(part.flatten(1)).repeat(1, times) for embed, part, times in parts]
        hidden = self.hidden(torch.cat([*seen, rearrange(state[0], "l b s -> b (l s)")], dim=-1))
        return self.mu(hidden).float(), self.log_variance(hidden).float()


RIDGE = 1000.0
"""Weight of the squared coefficients beside the summed squared errors of all clips: as a prior's it does not grow with them, so
that few clips say little. States lie in (-1, 1)."""


class CodePrior(nn.Module):
    r"""Codes given the past, $z \sim N(A h + b, L L^T)$; before it is fitted, the normal distribution of the paper.

    References:
        Fitting what a trained encoder's codes look like, instead of assuming it: From Variational to Deterministic
        Autoencoders (Ghosh et al., 2020), Section 4; here conditional and linear.
    """

    slope: Tensor
    offset: Tensor
    factor: Tensor

    def __init__(self, features: int, codes: int) -> None:
        super().__init__()
        self.register_buffer("slope", torch.zeros(features, codes))
        self.register_buffer("offset", torch.zeros(codes))
        self.register_buffer("factor", torch.eye(codes))

    def forward(self, normal: Float[Tensor, "B Z"], state: Float[Tensor, "B D"]) -> Float[Tensor, "B Z"]:
        """Return codes made of standard normal numbers, given the state after the past."""
        return state @ self.slope + self.offset + normal @ self.factor.T


class CodeFit:
    """Ridge regression of the codes' means on the state, and the covariance of what it leaves, from sums over clips.

    Args:
        prior: takes the result.
    """

    def __init__(self, prior: CodePrior) -> None:
        features, codes = prior.slope.shape
        self.prior, self.clips = prior, 0
        self.seen = torch.zeros(features + codes, dtype=torch.float64)
        self.products = torch.zeros(features + codes, features + codes, dtype=torch.float64)
        self.noise = torch.zeros(codes, dtype=torch.float64)

    def add(self, state: Float[Tensor, "B D"], mu: Float[Tensor, "B Z"], variance: Float[Tensor, "B Z"]) -> None:
        """Count clips: their states, and the posteriors of their codes."""
        both = torch.cat([state, mu], dim=1).double().cpu()
        self.clips += len(both)
        self.seen += both.sum(dim=0)
        self.products += both.T @ both
        self.noise += variance.double().cpu().sum(dim=0)

    def solve(self) -> float:
        """Write the prior; returns the share of the variance of the codes' means that the state explains."""
        features = len(self.prior.slope)
        mean = self.seen / self.clips
        covariance = self.products / self.clips - torch.outer(mean, mean)
        (states, across), (_, codes) = (rows.tensor_split([features], dim=1) for rows in covariance.tensor_split([features]))
        slope = torch.linalg.solve(states + RIDGE / self.clips * torch.eye(features).double(), across)
        left = codes - slope.T @ across - across.T @ slope + slope.T @ states @ slope
        factor = torch.linalg.cholesky(left + torch.diag(self.noise / self.clips + 1e-6))
        self.prior.slope.copy_(slope)
        self.prior.offset.copy_(mean[features:] - mean[:features] @ slope)
        self.prior.factor.copy_(factor)
        return float(1 - left.trace() / codes.trace().clamp_min(1e-12))


class PoseDecoder(nn.Module):
    """Codes and poses as velocities, one step after the other; begins with the state of the past encoder."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        wide = 3 * config.joints
        self.code, self.pose = Embedding(config.code, wide, config.pose_norm), Embedding(wide, wide, config.pose_norm)
        self.lstm = nn.LSTM(2 * wide, config.state, 2, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(config.state, size) for size in config.parts)

    def forward(self, codes: Float[Tensor, "B K Z"], poses: Features, state: State) -> tuple[list[Features], State]:
        """Return the parts of the velocity of every step, and the state after them."""
        hidden, state = self.lstm(torch.cat([self.code(codes), self.pose(poses)], dim=-1), state)
        return [head(hidden).float() for head in self.heads], state


# --- Networks of the pose-GAN -------------------------------------------------------------------------------------------------


class Critic(StridedNetwork):
    """VGAN's discriminator for clips that need not be square; it may see the skeleton too."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        left = tuple(side >> config.halvings for side in (config.video_frames, config.video_height, config.video_width))
        widths = [config.discriminator_width << level for level in range(config.halvings)]
        norm: Normalisation = config.discriminator_norm
        super().__init__(widths, left, config.discriminator_logits, norm, 6 if config.condition_discriminator else 3)

    def forward(self, video: Video) -> Float[Tensor, "B"]:
        """Return a logit per clip, positive for real; cross-entropy of two logits is the same function of their difference."""
        logits = self.last(self.features(video)).flatten(1)
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1]


OUTPUTS = {"grey": (3,), "image": (3,), "overlay": (3, 1), "limbs": (3, 1, 1)}
"""Channels that the generator gives: colours, log-odds to take what is painted over away, log-odds to take limbs along."""
REFINED = 16
"""Channels at full size where limbs are taken along."""


class Refined(UNet):
    """A U-Net and behind it two convolutions of every frame at full size, which see again what came in.

    A U-Net's outermost features have half the size and half the rate; edges of what is handed in whole are kept here.
    """

    def __init__(self, outputs: int, inputs: int, *network: Any) -> None:
        super().__init__(3, inputs, REFINED, *network)
        self.apply(initialise_dcgan)
        self.join = nn.Conv2d(REFINED + inputs, REFINED, 3, padding=1)
        self.last = nn.Conv2d(REFINED, outputs, 3, padding=1).apply(initialise_dcgan)

    def forward(self, features: Float[Tensor, "B inputs T H W"]) -> Float[Tensor, "B outputs T H W"]:
        """Return colours and masks."""
        coarse = super().forward(features).relu()
        joined = torch.cat([coarse, features.to(coarse)], dim=1)
        frames = rearrange(joined, "b c t h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)
        return rearrange(self.last(self.join(frames).relu()), "(b t) c h w -> b c t h w", b=len(features))


def painter(config: PoseKnowsConfig) -> UNet:
    """Return the generator: first frame and skeleton video in, video out."""
    count = config.halvings + 1
    widths = [config.generator_width * min(8, 1 << level) for level in range(count)]
    dropouts = [config.dropout if level >= count - 2 else 0.0 for level in range(count)]
    levels = levels_down_to_one((config.video_frames, config.video_height, config.video_width), widths, dropouts)
    inner = nn.BatchNorm3d if config.bottleneck_norm == "batch" else lambda width: nn.GroupNorm(1, width)
    outputs = sum(OUTPUTS[config.start])
    if config.start == "limbs":
        return Refined(outputs, 10, levels, nn.BatchNorm3d, inner)
    return UNet(3, 6, outputs, levels, nn.BatchNorm3d, inner).apply(initialise_dcgan)
