r"""The Pose Knows: video forecasting by generating pose futures.

Walker, Marino, Gupta and Hebert, ICCV 2017. What the paper says -> object:

- Forecasting poses, past encoder (image, poses, velocities) -> `ImageTower`, `PastEncoder`
- Past decoder (velocities in reverse, dropped after training) and future decoder (a code per step) -> `PoseDecoder`
- Future encoder, the posterior over codes -> `FutureEncoder`
- Velocities as directions and exponential magnitudes, Equation 1 -> `to_directions`, `from_directions`
- Objective of the pose-VAE, Equation 2 and Equation 3 (its KL divergence) -> `PoseKnows.pose_objective`, `kl_divergence`
- Forecasting video: 3-D U-Net on first frame and skeleton video -> `kinema.nn.unet.UNet`, `PoseKnows.paint_over`
- Discriminator's objective, Equation 4 -> `PoseKnows.discriminator_objective`
- Generator's objective, Equation 5 -> `PoseKnows.generator_objective`
- From past to video -> `PoseKnows.forecast_poses`, `PoseKnows.render_poses`

The equations are numbered here in the order in which the objects use them. Sizes, weights and schedules are those of the
authors' release, which has no script that joins its two halves: here a clip is the past, whose last frame is the current one, and
`frames_per_step * future_steps` frames more. The video half sees the current frame and all that follow, and its last frame again
until the length suits the U-Net.

Departures from the release:

- A missing joint is masked: its confidence is an input, its zeroed coordinates enter no loss (the release clips by thresholds).
- One scale for x and y, the longer side of the frame. Magnitudes are at least 0 (the release reverses motion below).
- Step k of a sample reads code k, as in training (the release reads at shifted offsets).
- Terms are means over the batch with the release's weights for its batch of 32: 0.008 for the KL divergence.
- Pixels lie in [-1, 1], twice as wide as in the release: a mean L1 of weight 500 here is its 1000.
- Batch norm has one set of statistics for all steps, and uses them in evaluation; ordinary Adam for every part.
- The drawing of the current pose is made at the size of the frame, not at half of it.
- `laptop`: velocities in units of their own spread, joints around the person, layer norm, a small tower, decoding that is fed with
  its own poses; a discriminator with spectral norm that sees the skeleton; video that starts from the current frame.
- `latent="none"` is the deterministic regressor of the same size.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError
from kinema.core.seeds import draw_rows
from kinema.core.system import Fit, Objective, Paper, Player, Preset, Stage, System, adam, learning
from kinema.core.types import Batch, ClipShape, Image, Scalar, Video
from kinema.nn.convolution import Normalisation, down_block, initialise_dcgan
from kinema.nn.discriminators import StridedNetwork
from kinema.nn.losses import discriminator_terms, generator_term
from kinema.nn.unet import UNet, levels_down_to_one
from kinema.pose.draw import STYLES, DrawStyle, draw_points
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
    tower: Literal["paper", "small"] = "paper"
    """Network of the current frame: the release's five convolutions, or halvings down to 4 pixels (square frames)."""
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
    start: Literal["grey", "image"] = "grey"
    """What the video shows before the U-Net learns: grey (release) or the current frame."""
    l1_weight: float = 500.0
    """Weight alpha of the mean absolute error of a pixel; in [-1, 1] it is twice that of the release's range, whose weight is 1000."""
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


SMALL: dict[str, Any] = {
    **{"origin": "person", "tower": "small", "posterior_sees": "poses", "pose_norm": "layer", "displacement": "euclidean"},
    **{"fed": "itself", "kl_doubles_at": 0, "discriminator_norm": "spectral", "discriminator_logits": 1, "dropout": 0.0},
    **{"condition_discriminator": True, "bottleneck_norm": "layer", "start": "image"},
}
LAPTOP: dict[str, Any] = {
    **{"height": 64, "width": 64, "video_height": 64, "video_width": 64, "frames_per_step": 3, "past_steps": 5},
    **{"image_features": 64, "pose_features": 128, "state": 128, "posterior_width": 128},
    **{"generator_width": 16, "discriminator_width": 16},
}
TINY: dict[str, Any] = {
    **{"height": 16, "width": 16, "video_height": 16, "video_width": 16, "frames_per_step": 2, "past_steps": 2},
    **{"future_steps": 2, "tower_width": 4, "image_features": 8, "pose_features": 8, "state": 8, "code": 2},
    **{"posterior_width": 4, "generator_width": 3, "discriminator_width": 4},
}


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


def masked_error(predicted: Features, target: Features, mask: Features) -> Scalar:
    """Return the mean squared error over what the mask holds."""
    return ((predicted.float() - target).square() * mask).sum() / mask.sum().clamp_min(1)


def kl_divergence(mu: Float[Tensor, "B Z"], log_variance: Float[Tensor, "B Z"]) -> Scalar:
    r"""Return $-\frac{1}{2} \sum (1 + \log \sigma^2 - \mu^2 - \sigma^2)$, summed over a clip's codes; mean of the batch (Equation 3)."""
    return -0.5 * (1 + log_variance - mu.square() - log_variance.exp()).sum(dim=1).mean()


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
            pairs = zip(widths[:-1], widths[1:], strict=True)
            self.convolutions = nn.Sequential(*(down_block(2, *pair, "batch", nn.ReLU(inplace=True)) for pair in pairs))
            height = width = 4
            channels = widths[-1]
        self.head = Embedding(channels * height * width, config.image_features, config.pose_norm)

    def forward(self, image: Image, drawing: Image) -> Float[Tensor, "B F"]:
        """Return the features of a frame and a drawing."""
        centre = image.new_tensor(CENTRE * 2)[:, None, None]
        return self.head(self.convolutions((torch.cat([image, drawing], dim=1) + 1) / 2 - centre).flatten(1))


class PastEncoder(nn.Module):
    """The current frame and the poses and velocities of the past as the state of an LSTM."""

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__()
        wide, norm = 3 * config.joints, config.pose_norm
        self.tower = ImageTower(config)
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


def unet(config: PoseKnowsConfig) -> UNet:
    """Return the generator: first frame and skeleton video in, video out."""
    count = config.halvings + 1
    widths = [config.generator_width * min(8, 1 << level) for level in range(count)]
    dropouts = [config.dropout if level >= count - 2 else 0.0 for level in range(count)]
    levels = levels_down_to_one((config.video_frames, config.video_height, config.video_width), widths, dropouts)
    inner = nn.BatchNorm3d if config.bottleneck_norm == "batch" else lambda width: nn.GroupNorm(1, width)
    return UNet(3, 6, 3, levels, nn.BatchNorm3d, inner)


# --- The system ---------------------------------------------------------------------------------------------------------------

PAPER = Paper(
    "The Pose Knows: Video Forecasting by Generating Pose Futures",
    "Jacob Walker, Kenneth Marino, Abhinav Gupta, Martial Hebert",
    "ICCV",
    2017,
    "https://arxiv.org/abs/1705.00053",
)
RELEASE = {"batch_size": 32, "steps": 160000}


class PoseKnows(System[PoseKnowsConfig]):
    """Forecasts poses out of a past of frames and poses, and renders them as video."""

    name = "pose-knows"
    paper = PAPER
    config_class = PoseKnowsConfig
    needs = frozenset({"video", "pose"})
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "A thousand clips of one person each, 64x64 pixels and 31 frames, a quarter of an hour on two cores.",
            PoseKnowsConfig(**SMALL, **LAPTOP),
            {"batch_size": 16, "ema_samples": 2000, "minutes": 15.0},
        ),
        "paper": Preset(
            "The release's numbers, for tens of thousands of clips of 43 frames on a GPU.", PoseKnowsConfig(), RELEASE
        ),
        "code": Preset("The same as paper: only the release prints sizes and weights.", PoseKnowsConfig(), RELEASE),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            PoseKnowsConfig(**SMALL, **TINY),
            {"batch_size": 4, "steps": 8, "ema_samples": 8},
        ),
    }
    spread: Tensor
    pose_steps: Tensor

    def __init__(self, config: PoseKnowsConfig) -> None:
        super().__init__(config)
        self.encoder = PastEncoder(config)
        self.past_decoder = PoseDecoder(config)
        self.past_decoder.code.is_fed_zeros()
        self.past_decoder.pose.is_fed_zeros()
        self.future_decoder = PoseDecoder(config)
        self.future_encoder = FutureEncoder(config) if config.latent == "gaussian" else None
        if self.future_encoder is None:
            self.future_decoder.code.is_fed_zeros()
        self.generator, self.discriminator = unet(config).apply(initialise_dcgan), Critic(config).apply(initialise_dcgan)
        self.register_buffer("spread", torch.ones(()))  # of displacements, where they are euclidean
        self.register_buffer("pose_steps", torch.zeros((), dtype=torch.long))  # counts turns, for the KL divergence's weight
        self.shown: tuple[Batch, Video, Video, Video] | None = None  # what the discriminator judged in its turn

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a clip: past and future."""
        return ClipShape(self.config.past_frames + self.config.future_frames, self.config.height, self.config.width)

    @property
    def past_frames(self) -> int:
        """Frames of the past, the current one included."""
        return self.config.past_frames

    @property
    def future_frames(self) -> int:
        """Frames of the future."""
        return self.config.future_frames

    @property
    def skeleton(self) -> str:
        """Layout of the joints."""
        return self.config.skeleton

    def stages(self) -> Mapping[str, Stage]:
        """Return the two games, which share no weights; before them the spread of velocities, where they are in its units."""
        c = self.config
        learner, gan = adam(c.pose_learning_rate), adam(c.learning_rate, 0.5)
        parts = (self.encoder, self.past_decoder, self.future_decoder, self.future_encoder)
        forecaster = Player("forecaster", tuple(part for part in parts if part is not None), self.pose_objective, learner)
        critic = Player("discriminator", (self.discriminator,), self.discriminator_objective, gan)
        painter = Player("generator", (self.generator,), self.generator_objective, gan)
        games: dict[str, Stage] = {"pose": (forecaster,), "video": (critic, painter)}
        return games if c.displacement == "directions" else {"spread": Fit(self.fit_spread), **games}

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return what forecasting and rendering use."""
        return (self.encoder, self.future_decoder, self.generator)

    def sampling_pass(self, batch: Batch) -> None:
        """Forecast a future of every clip, and render it."""
        past = self.config.past_frames
        poses = self.poses_of(batch)
        futures = self.forecast_poses(batch.video[:, :, :past], poses[:, :past], seeds=range(len(batch)), futures=1)
        self.render_poses(batch.video[:, :, past - 1], torch.cat([poses[:, past - 1 : past], futures[:, 0]], dim=1))

    # Poses

    def poses_of(self, batch: Batch) -> Float[Tensor, "B T J 3"]:
        """Return the poses of a batch, refusing those of another layout."""
        poses = batch.pose
        if poses is None or poses.shape[2] != self.config.joints:
            found = "no poses" if poses is None else f"poses of {poses.shape[2]} joints"
            raise DataError(f"the clips have {found}; pose-knows is set to {self.config.skeleton}, {self.config.joints} joints")
        return poses.float()

    def steps_of(self, poses: Float[Tensor, "B T J 3"]) -> tuple[Steps, Float[Tensor, "B 1 1 2"]]:
        """Return the poses at the borders of steps and their origin; poses of the past alone will do.

        Args:
            poses: in pixels of the clip, from its first frame on.
        """
        c = self.config
        borders = poses[:, :: c.frames_per_step]
        present = ((borders[..., 2] > 0) & (borders[..., 2] >= c.confidence)).float()
        mask = present[..., None]
        places = torch.where(mask > 0, borders[..., :2], 0) / max(c.height, c.width)
        current = slice(c.past_steps, c.past_steps + 1)
        count = mask[:, current].sum(dim=2, keepdim=True).clamp_min(1)
        origin = (places[:, current] * mask[:, current]).sum(dim=2, keepdim=True) / count
        origin = origin if c.origin == "person" else torch.zeros_like(origin)
        return Steps((places - origin) * mask, present), origin

    def velocities(self, steps: Steps) -> tuple[list[Features], list[Features]]:
        """Return the parts of the velocity of every step, and which numbers of them count."""
        moves, both = steps.moves()
        mask = both.repeat(1, 1, 2)
        if self.config.displacement == "euclidean":
            return [rearrange(moves, "b k j c -> b k (c j)") / self.spread], [mask]
        return list(to_directions(moves)), [mask, both.amax(dim=-1, keepdim=True).expand(-1, -1, 2)]

    def displacements(self, parts: Sequence[Features]) -> Joints:
        """Return the displacements that parts of a velocity stand for."""
        if self.config.displacement == "euclidean":
            return rearrange(parts[0] * self.spread, "b k (c j) -> b k j c", c=2)
        return from_directions(*parts)

    def fit_spread(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Find the root mean square of a joint's displacement in x or y over a step; returns it, in pixels."""
        total, count = torch.zeros(()), torch.zeros(())
        for batch in batches:
            moves, both = self.steps_of(self.poses_of(batch))[0].moves()
            total, count = total + moves.square().sum().cpu(), count + 2 * both.sum().cpu()
        if not total > 0:
            raise DataError("nobody moves in these clips; forecasting needs poses that change")
        self.spread.copy_((total / count).sqrt())
        return {"displacement_pixels": float(self.spread) * max(self.config.height, self.config.width)}

    def encode_past(self, image: Image, poses: Float[Tensor, "B T J 3"], steps: Steps, velocities: Sequence[Features]) -> State:
        """Return the state after the past.

        Args:
            image: the current frame.
            poses: of the clip in pixels; the current one is drawn.
            steps: poses at the borders of steps, of the past or beyond.
            velocities: parts of the velocity of every step.
        """
        c = self.config
        drawing = self.draw(poses[:, c.past_frames - 1 : c.past_frames], c.height, c.width)[:, :, 0]
        past = [part[:, : c.past_steps] for part in velocities]
        return self.encoder(image, drawing, steps.features()[:, : c.past_steps], past)

    def unroll(
        self, codes: Float[Tensor, "B K Z"], start: Steps, state: State
    ) -> tuple[list[Features], Float[Tensor, "B borders J 2"]]:
        """Decode step by step, each from the pose to which the steps before it have led.

        Args:
            codes: of every step.
            start: the pose from which they begin.
            state: after the past.

        Returns:
            Parts of the velocities, and the poses at the borders of steps, `start` first.
        """
        steps, decoded = [start], []
        for code in codes.split(1, dim=1):
            parts, state = self.future_decoder(code, steps[-1].features(), state)
            decoded.append(parts)
            moved = (steps[-1].places + self.displacements(parts)) * start.present[..., None]
            steps.append(Steps(moved, start.present))
        parts = [torch.cat(part, dim=1) for part in zip(*decoded, strict=True)]
        return parts, torch.cat([step.places for step in steps], dim=1)

    def pose_objective(self, batch: Batch) -> Objective:
        r"""Errors of future and past velocities and $\beta$ times the KL divergence of the posterior (Equation 2)."""
        c, poses = self.config, self.poses_of(batch)
        steps, _ = self.steps_of(poses)
        velocities, masks = self.velocities(steps)
        state = self.encode_past(batch.video[:, :, c.past_frames - 1], poses, steps, velocities)
        nothing = velocities[0].new_zeros(len(batch), c.past_steps, c.code + 3 * c.joints).split([c.code, 3 * c.joints], dim=-1)
        past, _ = self.past_decoder(*nothing, state)
        future, counted = ([part[:, c.past_steps :] for part in parts] for parts in (velocities, masks))
        terms = {
            "past": self.velocity_error(
                past, [p[:, : c.past_steps].flip(1) for p in velocities], [m[:, : c.past_steps].flip(1) for m in masks]
            )
        }
        codes, metrics = velocities[0].new_zeros(len(batch), c.future_steps, c.code), {}
        if self.future_encoder is not None:
            ends = [steps.features()[:, c.past_steps + 1 :]] if c.posterior_sees == "poses" else []
            mu, log_variance = self.future_encoder([*future, *ends], state)
            noise = draw_rows(lambda rows: torch.randn(rows, mu.shape[1]), len(batch)).to(mu)
            codes = rearrange(mu + (log_variance / 2).exp() * noise, "b (k z) -> b k z", z=c.code)
            metrics["kl_nats"] = kl_divergence(mu, log_variance)
            late = bool(c.kl_doubles_at) and int(self.pose_steps) >= c.kl_doubles_at
            if c.kl_weight:
                terms["kl"] = (2 if late else 1) * c.kl_weight * metrics["kl_nats"]
        if c.fed == "truth":
            predicted, _ = self.future_decoder(codes, steps.features()[:, c.past_steps : -1], state)
        else:
            start = Steps(*(part[:, c.past_steps : c.past_steps + 1] for part in steps))
            predicted, _ = self.unroll(codes, start, state)
        self.pose_steps += 1
        return Objective({"future": self.velocity_error(predicted, future, counted), **terms}, metrics)

    def velocity_error(self, predicted: Sequence[Features], target: Sequence[Features], mask: Sequence[Features]) -> Scalar:
        """Return the sum of the mean squared errors of the parts of velocities."""
        return torch.stack([masked_error(*parts) for parts in zip(predicted, target, mask, strict=True)]).sum()

    def forecast_poses(
        self, past: Float[Tensor, "B C past H W"], poses: Float[Tensor, "B past J 3"], *, seeds: Sequence[int], futures: int
    ) -> Float[Tensor, "B futures T J 3"]:
        """Return possible futures in pixels; poses inside a step lie on the line between its ends.

        Future n of clip i depends on ``seeds[i]``, n and the clip alone. What is missing in the current pose stays missing.
        """
        c = self.config
        codes = [
            [torch.randn(c.future_steps, c.code, generator=generator) for _ in range(futures)]
            for generator in (torch.Generator().manual_seed(int(seed)) for seed in seeds)
        ]
        code = torch.stack([row for rows in codes for row in rows]).to(past.device)
        if c.latent == "none":
            code = torch.zeros_like(code)
        return self.follow(past, poses, code.unflatten(0, (len(seeds), futures)))

    def forecast_typical(
        self, past: Float[Tensor, "B C past H W"], poses: Float[Tensor, "B past J 3"]
    ) -> Float[Tensor, "B T J 3"]:
        """Return the future of the code 0, the most likely one, in pixels: a forecast without chance."""
        code = past.new_zeros(len(past), 1, self.config.future_steps, self.config.code)
        return self.follow(past, poses, code)[:, 0]

    def follow(
        self,
        past: Float[Tensor, "B C past H W"],
        poses: Float[Tensor, "B past J 3"],
        codes: Float[Tensor, "B futures K Z"],
    ) -> Float[Tensor, "B futures T J 3"]:
        """Decode codes in closed loop and interpolate inside the steps.

        Raises:
            DataError: for a past of another length.
        """
        c, poses, futures = self.config, self.poses_of(Batch(past, pose=poses)), codes.shape[1]
        if past.shape[2] != c.past_frames:
            raise DataError(f"the past has {past.shape[2]} frames; this pose-knows forecasts from {c.past_frames}")
        steps, origin = self.steps_of(poses)
        state = self.encode_past(past[:, :, -1], poses, steps, self.velocities(steps)[0])
        h, cell = (part.repeat_interleave(futures, dim=1) for part in state)
        start = Steps(*(part[:, -1:].repeat_interleave(futures, dim=0) for part in steps))
        _, borders = self.unroll(codes.flatten(0, 1), start, (h, cell))
        share = torch.arange(1, c.frames_per_step + 1, device=past.device)[:, None, None] / c.frames_per_step
        between = borders[:, :-1, None] + share * (borders[:, 1:] - borders[:, :-1])[:, :, None]
        places = rearrange(between, "(b n) k f j c -> b n (k f) j c", n=futures) + origin[:, None]
        confidence = (poses[:, -1, :, 2] * steps.present[:, -1])[:, None, None, :, None].expand(*places.shape[:-1], 1)
        found = confidence > 0
        return torch.cat([torch.where(found, places * max(c.height, c.width), 0), confidence], dim=-1)

    # Video

    @torch.no_grad()
    def draw(self, poses: Float[Tensor, "B T J 3"], height: int, width: int) -> Video:
        """Draw poses, in pixels of the clip, as skeletons of a size."""
        c = self.config
        scale = poses.new_tensor([width / c.width, height / c.height])
        places = (poses[..., :2].float() + 0.5) * scale - 0.5
        points = torch.cat([places, poses[..., 2:].float()], dim=-1).flatten(0, 1).cpu().numpy()
        drawn = draw_points(points, find_skeleton(c.skeleton), width, height, c.drawing)
        video = torch.from_numpy(drawn).to(poses.device).unflatten(0, poses.shape[:2])
        return rearrange(video, "b t h w c -> b c t h w").float().div(127.5).sub(1)

    def skeletons(self, poses: Float[Tensor, "B T J 3"]) -> Float[Tensor, "B C frames H W"]:
        """Draw the current pose and the future as the U-Net sees them: the last one again up to the length that it takes."""
        return self.lengthened(self.draw(poses, self.config.video_height, self.config.video_width))

    def lengthened(self, video: Video) -> Float[Tensor, "B C frames H W"]:
        """Repeat the last frame up to the length that the networks take."""
        missing = self.config.video_frames - video.shape[2]
        return torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2) if missing else video

    def resized(self, frames: Float[Tensor, "B C *T H W"]) -> Float[Tensor, "B C *T h w"]:
        """Return frames in the size of the rendered video."""
        size = (self.config.video_height, self.config.video_width)
        return resize(frames, size)

    def paint_over(self, image: Image, skeletons: Video) -> Video:
        """Return the U-Net's video of the first frame, repeated over time, and a skeleton video."""
        first = repeat(image, "b c h w -> b c t h w", t=skeletons.shape[2])
        painted = self.generator(torch.cat([skeletons, first], dim=1))
        return (painted + first.clamp(-0.98, 0.98).atanh() if self.config.start == "image" else painted).tanh()

    def show(self, batch: Batch) -> tuple[Video, Video, Video]:
        """Return real, rendered and skeleton videos; made in the discriminator's turn and kept with their graph for the next."""
        if self.shown is not None and self.shown[0] is batch:
            shown, self.shown = self.shown[1:], None
            return shown
        now = self.config.past_frames - 1
        real = self.lengthened(self.resized(batch.video[:, :, now:]))
        skeletons = self.skeletons(self.poses_of(batch)[:, now:])
        with learning(self.generator):
            painted = self.paint_over(real[:, :, 0], skeletons)
        self.shown = (batch, real, painted, skeletons)
        return real, painted, skeletons

    def judge(self, video: Video, skeletons: Video) -> Float[Tensor, "B"]:
        """Return the discriminator's logits."""
        return self.discriminator(torch.cat([video, skeletons], dim=1) if self.config.condition_discriminator else video)

    def discriminator_objective(self, batch: Batch) -> Objective:
        r"""Cross-entropy of real and rendered clips, $l(D(V), 1) + l(D(G(I, S_T)), 0)$ (Equation 4)."""
        self.shown = None
        real, painted, skeletons = self.show(batch)
        scores = self.judge(real, skeletons), self.judge(painted.detach(), skeletons)
        metrics = {"accuracy_real": (scores[0] > 0).float().mean(), "accuracy_fake": (scores[1] <= 0).float().mean()}
        return Objective(discriminator_terms(*scores, "non_saturating"), metrics)

    def generator_objective(self, batch: Batch) -> Objective:
        r"""Return $l(D(G(I, S_T)), 1) + \alpha \lVert G(I, S_T) - V \rVert_1$, the norm as a mean over pixels (Equation 5)."""
        real, painted, skeletons = self.show(batch)
        self.shown = None
        distance = (painted.float() - real).abs().mean()
        adversarial = generator_term(self.judge(painted, skeletons), "non_saturating")
        return Objective({"adversarial": adversarial, "l1": self.config.l1_weight * distance}, {"l1_pixel": distance})

    def render_poses(self, image: Image, poses: Float[Tensor, "B T J 3"]) -> Video:
        """Return a frame per pose, of the image's size; the first pose is the image's own, then those of the whole future."""
        if poses.shape[1:3] != (1 + self.future_frames, self.config.joints):
            raise DataError(
                f"there are {poses.shape[1]} poses of {poses.shape[2]} joints; this pose-knows renders the image's own and "
                f"{self.future_frames} more, of {self.config.joints} joints"
            )
        video = self.paint_over(self.resized(image), self.skeletons(poses))[:, :, : poses.shape[1]]
        return resize(video, (image.shape[2], image.shape[3]))


def resize(frames: Float[Tensor, "B C *T H W"], size: tuple[int, int]) -> Float[Tensor, "B C *T h w"]:
    """Return every frame in another size: means where it shrinks, else a blend of neighbours."""
    if frames.shape[-2:] == size:
        return frames
    flat = frames.float() if frames.dim() == 4 else rearrange(frames.float(), "b c t h w -> (b t) c h w")
    flat = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return flat if frames.dim() == 4 else rearrange(flat, "(b t) c h w -> b c t h w", b=len(frames))
