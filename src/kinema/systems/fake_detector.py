r"""A detector of synthesised video: real against made, by local statistics of a few neighbouring frames.

Chan, Ginosar, Zhou and Efros, "Everybody Dance Now", ICCV 2019, train a detector of their own kind of video on frames that
follow each other, with other subjects in training than in test. The idea has no numbered equation, the release has no code for
it, and so the network, the numbers and the disturbances here are ours:

- frame pairs, real against synthesised -> `FakeDetectorConfig.frames`, `FakeDetector`
- subjects disjoint between training and test -> `kinema.evaluation.detection`, which refuses anything else
- from pairs to a video -> the mean evidence of its windows, calibrated: `FakeDetector.calibration`

What a generator leaves behind is local: missing noise, periods of its upsampling, flicker between neighbours. So the network
sees windows of frames and their differences at full resolution, judges patches of 17 x 17 pixels and averages the judgements.
Of every pixel it sees what the mean of the 5 x 5 pixels around it leaves (`residual`), as detectors of hidden messages and of
retouched pictures do (Fridrich and Kodovsky, "Rich models for steganalysis of digital images", IEEE TIFS 2012; Zhou et al.,
"Learning rich features for image manipulation detection", CVPR 2018): given the pixels themselves it learns the colours and
shapes of the people it is trained on, and takes the next person for a fake. A patch has a vote, from -8 to 8, and no more:
nothing is normalised, and so what a patch says would grow with the contrast of the clip. A few loud ones would decide, and no
line leads from evidence of such a spread to a probability.

It would rather learn what is no sign of a generator, such as the codec or the resizing of one of the two collections. So while
it trains, clips of both classes are disturbed alike, each kind of disturbance with a probability and strength of its own for
every clip: `resampled`, `blurred`, `recompressed`, `noisy`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.core.seeds import draw_rows, normal_codes
from kinema.core.system import Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Video

NEIGHBOURS = 5
"""Side of the square of pixels whose mean is taken from the one in the middle."""
CONTRAST = 4.0
"""What is left differs little: times this it has about the contrast of a frame."""
LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87),
    *(80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92),
    *(95, 98, 112, 100, 103, 99),
)
"""Steps of the 8 x 8 coefficients of brightness at quality 50: ITU-T T.81 (JPEG), Annex K, Table K.1."""
CHROMINANCE = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))
"""Steps of the first 4 x 4 coefficients of the colour differences, Table K.2; those of all others are 99."""
TO_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))

CERTAIN = 8.0
"""Log-odds, 3,000 to one, that a patch may approach."""

Strength = Float[Tensor, "B"]


@dataclass(frozen=True)
class FakeDetectorConfig(Config):
    """Settings of the detector."""

    frames: int = 2
    """Frames of a window, which follow each other; the paper has pairs."""
    height: int = 64
    """Pixels."""
    width: int = 64
    """Pixels."""
    channels: int = 32
    """Channels of the first layer; the last ones have four times as many."""
    disturbed: float = 0.5
    """Probability of each kind of disturbance for a clip in training, in [0, 1]."""
    learning_rate: float = 1e-3
    """Adam's step size."""
    beta1: float = 0.9
    """Adam's decay of the gradient's mean."""
    beta2: float = 0.99
    """Adam's decay of the gradient's square."""

    @property
    def classes(self) -> int:
        """Real and fake."""
        return 2

    def check(self) -> None:
        """Refuse what cannot be computed."""
        self.at_least(2, "frames")
        self.at_least(17, "height", "width")  # a patch
        self.at_least(1, "channels")
        self.at_least(0, "learning_rate")
        self.require(0 <= self.disturbed <= 1, "disturbed", "from 0 to 1")
        for name in ("beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "in [0, 1)")


class FakeDetector(System[FakeDetectorConfig]):
    """Tells real from synthesised video by patches of neighbouring frames."""

    name = "fake-detector"
    paper = Paper("Everybody Dance Now", "Caroline Chan, Shiry Ginosar, Tinghui Zhou, Alexei A. Efros", "ICCV", 2019)
    config_class = FakeDetectorConfig
    needs = frozenset({"video", "label"})
    class_names = ("fake", "real")
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "Hundreds of clips of 64x64, real and fake, seven minutes on one core: narrow. Then kinema detect-fake evaluate.",
            FakeDetectorConfig(channels=24),
            {"batch_size": 24, "steps": 2000},
        ),
        "paper": Preset(
            "Pairs of frames of 256x256 as the paper has, on a GPU; network and schedule are ours, the paper's are unknown.",
            FakeDetectorConfig(height=256, width=256, channels=64),
            {"batch_size": 32, "steps": 20_000},
        ),
        "tiny": Preset(
            "For tests: seconds.",
            FakeDetectorConfig(height=24, width=24, channels=8),
            {"batch_size": 4, "steps": 4},
        ),
    }
    calibration: Tensor
    calibrated: Tensor

    def __init__(self, config: FakeDetectorConfig) -> None:
        super().__init__(config)
        c, pictures = config.channels, 3 * (2 * config.frames - 1)
        self.judges = nn.Sequential(
            _block(pictures, c),
            _block(c, 2 * c, stride=2),
            _block(2 * c, 4 * c),
            _block(4 * c, 4 * c),
            _block(4 * c, 4 * c),
            nn.Conv2d(4 * c, 1, 1),
        )
        # Slope and intercept of the log-odds of a window, then those of a video; see `calibrate`.
        self.register_buffer("calibration", torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        self.register_buffer("calibrated", torch.tensor(False))

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a window."""
        return ClipShape(self.config.frames, self.config.height, self.config.width)

    def stages(self) -> Mapping[str, Stage]:
        """Return the one stage with its one player."""
        c = self.config
        return {
            "detection": (
                Player("detector", (self.judges,), self.detection_objective, adam(c.learning_rate, c.beta1, c.beta2)),
            )
        }

    def detection_objective(self, batch: Batch) -> Objective:
        """Cross-entropy between the evidence of disturbed windows and the labels.

        Raises:
            ConfigError: for a batch without labels, or with a third class.
        """
        if batch.label is None or int(batch.label.max()) > 1:
            found = "no label" if batch.label is None else f"class {int(batch.label.max())}, counted from 0"
            raise ConfigError(f"a clip has {found}; {self.name} knows two classes, real and fake: prepare the clips with them")
        evidence = self.evidence(disturb(batch.video, self.config.disturbed)).float()
        right = ((evidence > 0) == (batch.label > 0)).float().mean()
        loss = F.binary_cross_entropy_with_logits(evidence, batch.label.float())
        return Objective({"cross_entropy": loss}, {"accuracy": right})

    def evidence(self, video: Video) -> Float[Tensor, "B"]:
        """Return how much the patches of each window speak for class 1 against class 0: their mean vote, not calibrated."""
        left = residual(video)
        stacked = torch.cat([left, left.diff(dim=2)], dim=2)
        pictures = rearrange(stacked, "b c t h w -> b (c t) h w").contiguous(memory_format=torch.channels_last)
        return (CERTAIN * torch.tanh(self.judges(pictures) / CERTAIN)).mean(dim=(1, 2, 3))

    def recognise(self, video: Video) -> Float[Tensor, "B K"]:
        """Return logits of the two classes, whose softmax is the probability, calibrated if the detector is."""
        slope, intercept = self.calibration[0]
        odds = slope * self.evidence(video).float() + intercept
        return torch.stack([-odds / 2, odds / 2], dim=1)

    def calibrate(self, window: tuple[float, float], video: tuple[float, float]) -> None:
        """Set how evidence becomes log-odds.

        Args:
            window: slope and intercept for the evidence of a window.
            video: the same for the mean evidence of the windows of a video.
        """
        self.calibration.copy_(torch.tensor([window, video]))
        self.calibrated.fill_(True)

    def begin_anew(self) -> None:
        """Forget a calibration, which holds for other weights."""
        self.calibration.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        self.calibrated.fill_(False)

    def sampling_pass(self, batch: Batch) -> None:
        """Judge the batch."""
        self.evidence(batch.video)


def residual(video: Video) -> Video:
    """Return what the mean of its neighbourhood leaves of every pixel, with more contrast; borders are mirrored."""
    frames, reach = rearrange(video, "b c t h w -> (b t) c h w"), NEIGHBOURS // 2
    mean = F.avg_pool2d(F.pad(frames, (reach,) * 4, mode="reflect"), NEIGHBOURS, stride=1)
    return rearrange(CONTRAST * (frames - mean), "(b t) c h w -> b c t h w", b=len(video))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution and its activation.

    Nothing is normalised: the mean of a normalised map is zero whatever is in it, and the mean over patches is what decides.
    """
    convolution = nn.Conv2d(inputs, outputs, 3, stride)
    nn.init.kaiming_normal_(convolution.weight, 0.2, nonlinearity="leaky_relu")
    nn.init.zeros_(cast(Tensor, convolution.bias))
    return nn.Sequential(convolution, nn.LeakyReLU(0.2))


# --- What happens to clips on their way to a viewer, and says nothing about where they come from ------------------------------


@torch.no_grad()
def disturb(video: Video, probability: float) -> Video:
    """Disturb clips as mirroring, resizing, soft lenses, codecs and sensors do: real and fake ones alike.

    Args:
        video: clips in [-1, 1].
        probability: of each kind, for each clip by itself; half of the clips are mirrored whatever it is.
    """
    kinds: tuple[Callable[[Video, Strength], Video], ...] = (resampled, blurred, recompressed, noisy)
    draws = draw_rows(lambda rows: torch.rand(rows, 1 + 2 * len(kinds)), len(video)).to(video.device)
    video = torch.where(_over_clip(draws[:, 0] < 0.5), video.flip(4), video)
    with torch.autocast(video.device.type, enabled=False):  # a quantised coefficient in bfloat16 would be off by a level
        video = video.float()
        for number, kind in enumerate(kinds):
            chosen, strength = draws[:, 1 + 2 * number] < probability, draws[:, 2 + 2 * number]
            if chosen.any():
                video = video.index_put((chosen,), kind(video[chosen], strength[chosen]))
    return video.clamp(-1, 1)


def resampled(video: Video, strength: Strength) -> Video:
    """Scale the content of each clip by 0.7 (strength 0) to 1.4 (strength 1), bilinearly, with mirrored edges."""
    batch, _, frames = video.shape[:3]
    grow = 0.7 * 2**strength
    placed = torch.zeros(batch, 2, 3, device=video.device)
    placed[:, 0, 0] = placed[:, 1, 1] = 1 / grow
    pictures = rearrange(video, "b c t h w -> b (c t) h w")
    grid = F.affine_grid(placed, list(pictures.shape), align_corners=False)
    moved = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return rearrange(moved, "b (c t) h w -> b c t h w", t=frames)


def blurred(video: Video, strength: Strength) -> Video:
    """Blur each clip by a Gaussian whose standard deviation is 0.3 (strength 0) to 1.5 pixels (strength 1)."""
    batch, colours, frames = video.shape[:3]
    offsets = torch.arange(-4, 5, device=video.device)
    kernel = torch.exp(-(offsets**2) / (2 * (0.3 + 1.2 * strength[:, None]) ** 2))
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).reshape(batch, 1, 1, 9)
    pictures = rearrange(video, "b c t h w -> (c t) b h w")
    for weights, padding in ((kernel, (4, 4, 0, 0)), (kernel.transpose(2, 3), (0, 0, 4, 4))):
        pictures = F.conv2d(F.pad(pictures, padding, mode="reflect"), weights, groups=batch)
    return rearrange(pictures, "(c t) b h w -> b c t h w", c=colours, t=frames)


def recompressed(video: Video, strength: Strength) -> Video:
    """Quantise 8 x 8 blocks of every frame as JPEG does, colour in full resolution, quality 95 (strength 0) to 30 (strength 1).

    References:
        ITU-T Recommendation T.81, "Digital compression and coding of continuous-tone still images", 1992, Annexes A and K.
    """
    height, width = video.shape[-2:]
    padded = F.pad(video, (0, -width % 8, 0, -height % 8, 0, 0), mode="replicate")
    colours = torch.tensor(TO_YCBCR, device=video.device)
    planes = torch.einsum("dc,bcthw->bdthw", colours, 127.5 * padded - 0.5)  # levels less 128
    blocks = rearrange(planes, "b d t (y i) (x j) -> b d t y x i j", i=8, j=8)
    cosines = dct_basis().to(video.device)
    steps = quantisation(95 - 65 * strength)[:, :, None, None, None]
    coefficients = (cosines @ blocks @ cosines.T / steps).round() * steps
    planes = rearrange(cosines.T @ coefficients @ cosines, "b d t y x i j -> b d t (y i) (x j)")
    restored = torch.einsum("cd,bdthw->bcthw", torch.linalg.inv(colours), planes)
    return (restored[..., :height, :width] + 0.5) / 127.5


def noisy(video: Video, strength: Strength) -> Video:
    """Add noise to each clip, independent for every pixel and frame: standard deviation 0 (strength 0) to 6 grey levels."""
    seeds = [int(draw * 2**24) for draw in strength.tolist()]  # of its own draw alone, so that processes may share a batch
    noise = normal_codes(seeds, *video.shape[1:], device=video.device)
    return video + _over_clip(6 / 127.5 * strength) * noise


def dct_basis() -> Float[Tensor, "8 8"]:
    """Return the orthonormal discrete cosine transform of eight numbers; row k is the frequency k."""
    place, frequency = torch.arange(8), torch.arange(8)[:, None]
    basis = torch.cos(torch.pi * frequency * (2 * place + 1) / 16) / 2
    basis[0] /= 2**0.5
    return basis


def quantisation(quality: Float[Tensor, "B"]) -> Float[Tensor, "B 3 8 8"]:
    """Return the steps of brightness and of the two colour differences for a quality from 1 to 100, as libjpeg scales them."""
    brightness, colour = torch.tensor(LUMINANCE).reshape(8, 8), F.pad(torch.tensor(CHROMINANCE), (0, 4, 0, 4), value=99)
    tables = torch.stack([brightness, colour, colour]).to(quality.device)
    percent = torch.where(quality < 50, 5000 / quality, 200 - 2 * quality).floor()[:, None, None, None]
    return ((tables * percent + 50) / 100).floor().clamp(1, 255)


def _over_clip(values: Float[Tensor, "B"] | Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1, 1)
