r"""VGAN: generating videos with scene dynamics.

Vondrick, Pirsiavash and Torralba, NIPS 2016. Section or equation of the paper -> object:

- Section 2.1, Equation 1 (adversarial learning) -> `Adversarial.discriminator_objective`, `.generator_objective`
- Section 2.2, one-stream architecture -> `Foreground` alone (`streams="one"`)
- Section 2.2, two-stream architecture, Equation 2 -> `Foreground`, `Background`, `compose`
- Section 2.2, sparsity prior on the mask -> the term "mask_sparsity"
- Section 2.3, discriminator -> `kinema.nn.discriminators.VideoNetwork`
- Section 3.2, baseline (autoencoder and Gaussian mixture) -> `VGANAutoencoder`
- Section 3.3, video representation -> `kinema.systems.vgan_recogniser`
- Section 3.4, Equation 3 (future generation) -> `ImageNetwork`, `FutureVGAN`

Departures from the paper, each a field of the configuration:

- The mask prior is the mean of the mask, as in the release; the printed L1 norm would be 131,072 times as strong.
- The generator's term is non-saturating, as in the release; "minimax" is the printed one.
- One logit (`discriminator_logits=2` is the release's: cross-entropy of two classes, the same function of their difference).
- Weights start as in the release: batch-norm scales N(1, 0.02), epsilon 1e-3 in discriminator and encoders.
- `FutureVGAN`: the weight of the first-frame term and the widths of the encoder are not printed; weight 10 and norm L1 follow
  the release and the text, the widths copy the discriminator.
- `small-data` and `laptop`: `upsampling="smoothed"`, spectral norm in place of the discriminator's batch norm, R1,
  augmentation, averaged weights. Nothing in Equation 2 says which stream draws what: a still stream that starts from what
  stands still in the footage (`background_start`), a picture for every place (`background_scenes`), and learns slower
  (`background_rate`) keeps moving things out of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import ConfigError
from kinema.core.seeds import draw_rows, great_circle, normal_codes
from kinema.core.system import Fit, Objective, Paper, Player, Preset, Stage, System, adam, learning
from kinema.core.types import Batch, ClipShape, Code, Image, Labels, Video
from kinema.nn.augment import FAMILIES, augment
from kinema.nn.convolution import Normalisation, Upsampling, down_block, initialise_dcgan, stem, up_block, upsample
from kinema.nn.discriminators import StridedConfig, StridedNetwork, VideoNetwork
from kinema.nn.losses import Adversary, discriminator_terms, generator_term, r1_penalty
from kinema.nn.mixture import GaussianMixture
from kinema.nn.stillness import still_picture, still_pictures

PAPER = Paper("Generating Videos with Scene Dynamics", "Carl Vondrick, Hamed Pirsiavash, Antonio Torralba", "NIPS", 2016)

Picture = Float[Tensor, "#B C H W"]  # one for all, or one each
CodeMap = Float[Tensor, "B Z h w"]  # a code is a 1x1 map; the released future model conditions on a 4x4 one


# --- Configuration ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NetworkConfig(StridedConfig):
    """What the networks of all three systems share."""

    code: int = 100
    """Dimensions of the code z."""
    width: int = 64
    """Channels of the generator's finest hidden layer; doubled with every halving of the resolution."""
    upsampling: Upsampling = "transposed"
    """transposed (paper); smoothed: the same weights and a mean over neighbours, no checkerboards; resize: slower still."""
    learning_rate: float = 2e-4
    """Adam's step size for the generator (or the only player)."""
    beta1: float = 0.5
    """Adam's decay of the gradient's mean."""
    beta2: float = 0.999
    """Adam's decay of the gradient's square."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        super().check()
        self.at_least(1, "code", "width")
        self.at_least(0, "learning_rate")
        for name in ("beta1", "beta2"):
            self.require(0 <= getattr(self, name) < 1, name, "in [0, 1)")


@dataclass(frozen=True)
class AdversarialConfig(NetworkConfig):
    """What the two adversarial systems share."""

    adversary: Adversary = "non_saturating"
    """Adversarial loss of Equation 1: non_saturating (release), minimax (as printed) or hinge."""
    discriminator_logits: Literal[1, 2] = 1
    """Outputs of the discriminator: 1 (paper), or 2 with cross-entropy (release)."""
    discriminator_norm: Literal["batch", "spectral"] = "batch"
    """Normalisation in the discriminator; spectral norm is steadier on small data and allows R1."""
    discriminator_learning_rate: float = 2e-4
    """Adam's step size for the discriminator."""
    mask_weight: float = 0.1
    """Weight of the mean of the mask (sparsity prior of Section 2.2)."""
    background_rate: float = 1.0
    """Step size of the still stream, relative to learning_rate; below 1 it learns first what all clips share."""
    background_start: Literal["grey", "still"] = "grey"
    """What the still stream shows before it learns: grey (paper), or what stands still in the footage or the given image."""
    r1_weight: float = 0.0
    """Weight gamma of the R1 gradient penalty on real clips; 0 turns it off."""
    r1_every: int = 16
    """R1 is computed once every this many steps and scaled up by as much (lazy regularisation)."""
    augment: tuple[str, ...] = ()
    """Differentiable augmentation of what the discriminator sees: colour, translation, cutout."""

    def check(self) -> None:
        """Refuse what cannot be computed."""
        super().check()
        self.at_least(0, "background_rate")
        self.require(set(self.augment) <= set(FAMILIES), "augment", f"names out of {', '.join(FAMILIES)}")
        self.at_least(1, "r1_every")
        self.at_least(0, "r1_weight", "mask_weight", "discriminator_learning_rate")
        if self.r1_weight and self.discriminator_norm == "batch":
            raise ConfigError(
                "r1_weight needs discriminator_norm 'spectral': under batch norm a score depends on other samples"
            )


SMOOTH: dict[str, Any] = {"upsampling": "smoothed"}
STILL: dict[str, Any] = {"background_rate": 0.1, "background_start": "still"}
PLACES: dict[str, Any] = {"background_scenes": 16}
STABILISERS: dict[str, Any] = SMOOTH | STILL | {"discriminator_norm": "spectral", "r1_weight": 1.0, "augment": tuple(FAMILIES)}
LIGHT = STABILISERS | {"augment": ("translation",)}  # an hour on two cores is over before more is needed
LONG: dict[str, Any] = {"batch_size": 64, "steps": 65000}


def presets_of(
    config_class: Callable[..., NetworkConfig],
    small: Mapping[str, Any],
    laptop: Mapping[str, Any],
    paper: Mapping[str, Any] = {},
    tiny: Mapping[str, Any] = {},
) -> dict[str, Preset[Any]]:
    """Return the presets that the generative systems share, with further fields for each kind."""
    narrow, miniature = {"width": 24, "discriminator_width": 24}, {"frames": 8, "size": 16, "code": 8}
    return {
        "laptop": Preset(
            "A few hundred clips of a few places, three quarters of an hour on two cores: narrow networks, small batches.",
            config_class(**narrow, **laptop),
            {"batch_size": 8, "ema_samples": 4000, "minutes": 40.0},
        ),
        "small-data": Preset(
            "100 to 5,000 clips, an hour on a GPU: today's stabilisers and averaged weights.",
            config_class(**small),
            {"batch_size": 64, "ema_samples": 10000, "steps": 20000},
        ),
        "paper": Preset("The paper's numbers, for hundreds of thousands of clips on a GPU.", config_class(**paper), LONG),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            config_class(**miniature, width=4, discriminator_width=4, **{**small, **tiny}),
            {"batch_size": 4, "steps": 4, "ema_samples": 8},
        ),
    }


# --- Networks (Sections 2.2 and 2.3) ------------------------------------------------------------------------------------------


class Foreground(nn.Module):
    """Space-time generator: the one-stream model, or with `mask` the moving stream of Section 2.2.

    The trunk's channels halve while time, height and width double; both heads share it.
    """

    def __init__(self, config: NetworkConfig, *, mask: bool, code_map: bool = False) -> None:
        super().__init__()
        widths = config.widths(config.width)[::-1]
        start = config.frames >> config.doublings
        inputs, kernel = (widths[0], (start, 1, 1)) if code_map else (config.code, (start, 4, 4))
        self.trunk = nn.Sequential(
            stem(3, inputs, widths[0], kernel),
            *(up_block(3, wide, narrow, config.upsampling) for wide, narrow in pairwise(widths)),
        )
        self.heads = upsample(3, widths[-1], 3 + mask, config.upsampling)  # colours and mask in one convolution: faster

    def forward(self, code: CodeMap) -> tuple[Video, Float[Tensor, "B 1 T H W"] | None]:
        """Return f in [-1, 1] and, where there is a mask head, m in [0, 1]."""
        features = self.trunk(rearrange(code, "b z h w -> b z 1 h w"))
        heads = self.heads(features)
        # Cloned into dense memory: on a processor tanh of a slice takes six times as long, a seventh of a training step.
        return heads[:, :3].clone().tanh(), heads[:, 3:].clone().sigmoid() if heads.shape[1] > 3 else None


class Background(nn.Module):
    """Image generator: the static stream of Section 2.2."""

    def __init__(self, config: NetworkConfig, *, code_map: bool = False) -> None:
        super().__init__()
        widths = config.widths(config.width)[::-1]
        self.trunk = nn.Sequential(
            nn.Identity() if code_map else stem(2, config.code, widths[0], (4, 4)),
            *(up_block(2, wide, narrow, config.upsampling) for wide, narrow in pairwise(widths)),
        )
        self.rgb = upsample(2, widths[-1], 3, config.upsampling)

    def forward(self, code: CodeMap, start: Picture | None = None) -> Image:
        """Return b in [-1, 1]; before it learns, `start` or grey."""
        added = self.rgb(self.trunk(code))
        return (added if start is None else added + start.clamp(-0.98, 0.98).atanh()).tanh()  # at 1 nothing could be added


def compose(mask: Float[Tensor, "B 1 T H W"], foreground: Video, background: Image) -> Video:
    r"""Blend the streams: $m(z) \odot f(z) + (1 - m(z)) \odot b(z)$, b repeated over time and m over colour (Equation 2)."""
    still = rearrange(background, "b c h w -> b c 1 h w")
    return still + mask * (foreground - still)  # one pass less over the video than the printed form


@dataclass(frozen=True)
class Generated:
    """What a generator returns: the video x and the streams it is made of (None for one stream)."""

    video: Video
    foreground: Video | None = None
    mask: Float[Tensor, "B 1 T H W"] | None = None
    background: Image | None = None


class Generator(nn.Module):
    """G(z): one stream, or two streams that share the code."""

    def __init__(self, config: NetworkConfig, *, two_streams: bool, code_map: bool = False) -> None:
        super().__init__()
        self.foreground = Foreground(config, mask=two_streams, code_map=code_map)
        self.background = Background(config, code_map=code_map) if two_streams else None

    def forward(self, code: CodeMap, start: Picture | None = None) -> Generated:
        """Return the video with its streams; the still stream adds to `start`."""
        foreground, mask = self.foreground(code)
        if self.background is None or mask is None:
            return Generated(foreground)
        background = self.background(code, start)
        return Generated(compose(mask, foreground, background), foreground, mask, background)


class ImageNetwork(StridedNetwork):
    """Encoder of the first frame (Section 3.4): five layers to a code, or the release's four layers to a 4x4 map."""

    def __init__(self, config: NetworkConfig, *, code_map: bool) -> None:
        super().__init__(config.widths(config.discriminator_width), (4, 4), config.code, "batch")
        if code_map:
            # The release: twice the width, plain ReLU, no code vector.
            steps = pairwise([3, *config.widths(config.width)])
            norms: list[Normalisation] = ["batch"] * config.doublings
            norms[0] = "none"
            blocks = [down_block(2, *step, norm, nn.ReLU(inplace=True)) for step, norm in zip(steps, norms, strict=True)]
            self.features, self.last = nn.Sequential(*blocks), nn.Identity()

    def forward(self, image: Image) -> CodeMap:
        """Return a code as a map."""
        return self.last(self.features(image))


NetworkConfigT = TypeVar("NetworkConfigT", bound=NetworkConfig)
AdversarialConfigT = TypeVar("AdversarialConfigT", bound=AdversarialConfig)


class VideoSystem(System[NetworkConfigT]):
    """A system on square clips of a fixed number of frames."""

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a clip."""
        return ClipShape(self.config.frames, self.config.size, self.config.size)


# --- Adversarial systems ------------------------------------------------------------------------------------------------------


class Adversarial(VideoSystem[AdversarialConfigT]):
    """What VGAN and its future model share: the discriminator's side of the game."""

    steps: Tensor
    generator: Generator

    def __init__(self, config: AdversarialConfigT) -> None:
        super().__init__(config)
        self.discriminator = VideoNetwork(config, config.discriminator_logits, config.discriminator_norm)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))  # counts discriminator turns for lazy R1
        self.shown: tuple[Batch, Generated] | None = None  # what the discriminator judged in its turn

    def stages(self) -> Mapping[str, Stage]:
        """Return the one stage: the discriminator and the maker of videos take turns."""
        c = self.config
        still = [(self.generator.background, c.background_rate)] if self.generator.background else []
        critic = adam(c.discriminator_learning_rate, c.beta1, c.beta2)
        maker = adam(c.learning_rate, c.beta1, c.beta2, scales=still)
        return {
            "adversarial": (
                Player("discriminator", (self.discriminator,), self.discriminator_objective, critic),
                Player("generator", self.averaged(), self.generator_objective, maker),
            )
        }

    def make(self, batch: Batch) -> Generated:
        """Return as many generated videos as the batch holds clips."""
        raise NotImplementedError

    def sampling_pass(self, batch: Batch) -> None:
        """Make as many videos as the batch holds clips."""
        self.make(batch)

    def show(self, batch: Batch) -> Generated:
        """Make videos for the discriminator's turn, and keep them with their graph for the generator's.

        One forward pass for both turns, as in the release: the generator does not change between them.
        """
        with learning(*self.averaged()):
            made = self.make(batch)
        self.shown = (batch, made)
        return made

    def take_shown(self, batch: Batch) -> Generated:
        """Return what the discriminator just judged; new videos where it did not play."""
        (judged, made), self.shown = self.shown or (None, None), None
        return made if made is not None and judged is batch else self.make(batch)

    def score(self, video: Video) -> Float[Tensor, "B"]:
        """Return a logit per clip, positive for real; cross-entropy of two is the same function of their difference."""
        logits = self.discriminator(video)
        return logits[:, 0] if logits.shape[1] == 1 else logits[:, 0] - logits[:, 1]

    def augmented_score(self, video: Video) -> Float[Tensor, "B"]:
        """Score clips the way the discriminator sees them in training."""
        return self.score(augment(video, self.config.augment))

    def discriminator_objective(self, batch: Batch) -> Objective:
        """Equation 1 maximised over w_D; real and generated clips pass apart, or batch norm would tell which is which."""
        real, fake = batch.video, self.show(batch).video.detach()
        real_score, fake_score = self.augmented_score(real), self.augmented_score(fake)
        terms = discriminator_terms(real_score, fake_score, self.config.adversary)
        if self.config.r1_weight and int(self.steps) % self.config.r1_every == 0:
            scale = self.config.r1_weight * self.config.r1_every
            terms["r1"] = scale * r1_penalty(self.augmented_score, real)
        self.steps += 1
        metrics = {"accuracy_real": (real_score > 0).float().mean(), "accuracy_fake": (fake_score <= 0).float().mean()}
        return Objective(terms, metrics)

    def generator_objective(self, batch: Batch) -> Objective:
        """Equation 1 minimised over w_G, plus the sparsity prior of Section 2.2."""
        return self.convince(self.take_shown(batch))

    def convince(self, made: Generated) -> Objective:
        """Return the generator's adversarial term for what it made, and the prior on its mask."""
        terms = {"adversarial": generator_term(self.augmented_score(made.video), self.config.adversary)}
        if made.mask is None:
            return Objective(terms)
        coverage = made.mask.float().mean()
        if self.config.mask_weight:
            terms["mask_sparsity"] = self.config.mask_weight * coverage
        return Objective(terms, {"mask_mean": coverage})


@dataclass(frozen=True)
class VGANConfig(AdversarialConfig):
    """Settings of VGAN; the defaults are the paper's."""

    generator_streams: Literal["one", "two"] = "two"
    """One space-time stream, or a masked foreground over a still background."""
    background_scenes: int = 1
    """Places, at most, that the still stream starts from, a still picture each; the code chooses as often as clips show it."""

    def check(self) -> None:
        """Refuse places that nothing can be known of."""
        super().check()
        self.require(1 <= self.background_scenes <= self.code, "background_scenes", "from 1 to the code's dimensions")
        if self.background_scenes > 1 and self.background_start != "still":
            raise ConfigError("background_scenes above 1 needs background_start 'still': their pictures come from the footage")


class VGAN(Adversarial[VGANConfig]):
    """Generates clips from codes (Sections 2.1 to 2.3)."""

    still: Tensor | None  # what the still stream adds to: a picture for every place
    scene_shares: Tensor | None  # of the clips that show each place
    name = "vgan"
    paper = PAPER
    config_class = VGANConfig
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        **presets_of(VGANConfig, STABILISERS | PLACES, LIGHT | PLACES, tiny={"background_scenes": 4}),
        "code": Preset("The authors' release: two logits, cross-entropy.", VGANConfig(discriminator_logits=2), LONG),
    }

    def __init__(self, config: VGANConfig) -> None:
        super().__init__(config)
        two_streams = config.generator_streams == "two"
        self.generator = Generator(config, two_streams=two_streams)
        known, scenes = two_streams and config.background_start == "still", config.background_scenes
        self.register_buffer("still", torch.zeros(scenes, 3, config.size, config.size) if known else None)
        self.register_buffer("scene_shares", torch.zeros(scenes) if known and scenes > 1 else None)
        self.apply(initialise_dcgan)

    def stages(self) -> Mapping[str, Stage]:
        """Return the game, and before it, where the still stream starts from the footage, the stage that finds its pictures."""
        return super().stages() if self.still is None else {"background": Fit(self.fit_still), **super().stages()}

    def fit_still(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Find what stands still in the footage; returns its mean over places, in [-1, 1], and the number of places."""
        videos = (batch.video for batch in batches)
        if self.scene_shares is None:
            self.still = still_picture(videos)[None]
            return {"still_picture": float(self.still.mean())}
        self.still, self.scene_shares = still_pictures(videos, len(self.scene_shares))
        mean = self.still.mean(dim=(1, 2, 3)) @ self.scene_shares
        return {"still_picture": float(mean), "scenes": float(self.scene_shares.count_nonzero())}

    def generated(self, code: CodeMap) -> Generated:
        """Return what the generator makes of codes: as many of a code's dimensions as there are places choose one and tell it.

        The choice is the Gumbel-max trick on those dimensions, so that N(0, I) gives every place its share of the clips, and
        the same code always the same place.
        """
        places = 1 if self.scene_shares is None else int(self.scene_shares.count_nonzero())
        if self.still is None or self.scene_shares is None or places <= 1:
            return self.generator(code, None if self.still is None else self.still[:1])
        uniform = torch.special.ndtr(code[:, :places, 0, 0].double()).clamp(1e-12, 1 - 1e-12)
        place = (self.scene_shares[:places].double().log() - (-uniform.log()).log()).argmax(dim=1)
        told = F.one_hot(place, places).to(code) * places**0.5  # as much variance as the normal numbers it replaces
        return self.generator(torch.cat([told[:, :, None, None], code[:, places:]], dim=1), self.still[place])

    def make(self, batch: Batch) -> Generated:
        """Generate from z ~ N(0, I)."""
        code = draw_rows(lambda rows: torch.randn(rows, self.config.code, 1, 1), len(batch))
        return self.generated(code.to(batch.video.device))

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return the generator; nothing else is needed for sampling."""
        return (self.generator,)

    def generate(self, seeds: Sequence[int], *, label: Labels | None = None) -> Video:
        """Return one clip per seed; labels are refused."""
        if label is not None:
            raise ConfigError(f"{self.name} is unconditional: it cannot generate by label")
        return self.generated(self._codes(seeds)).video

    def streams(self, seeds: Sequence[int]) -> Mapping[str, Video]:
        """Return background, foreground, mask (white = foreground) and result, as in Figure 3; one stream is refused."""
        made = self.generated(self._codes(seeds))
        if made.background is None or made.foreground is None or made.mask is None:
            raise ConfigError("this vgan has generator_streams 'one': there is only the result; train one with 'two'")
        return {
            "background": repeat(made.background, "b c h w -> b c t h w", t=self.config.frames),
            "foreground": made.foreground,
            "mask": repeat(2 * made.mask - 1, "b 1 t h w -> b 3 t h w"),
            "result": made.video,
        }

    def interpolate(self, start: int, end: int, steps: int) -> Video:
        """Return clips whose codes lead from seed `start` to seed `end` along the great circle between them."""
        return self.generated(great_circle(self._codes([start, end]), steps)).video

    def _codes(self, seeds: Sequence[int]) -> CodeMap:
        return normal_codes(seeds, self.config.code, 1, 1, device=self.steps.device)


@dataclass(frozen=True)
class FutureVGANConfig(AdversarialConfig):
    """Settings of the future model; the defaults are the paper's, with weight 10 for lack of a printed one."""

    encoder_output: Literal["code", "map"] = "code"
    """What the image encoder gives: a code vector (paper) or a 4x4 feature map (release)."""
    first_frame_norm: Literal["l1", "squared_l2"] = "l1"
    """Norm of the first-frame term, a mean over pixels: L1 (text, release) or squared L2 (Equation 3)."""
    first_frame_weight: float = 10.0
    """Weight lambda of the first-frame term."""

    def check(self) -> None:
        """Refuse a negative weight."""
        super().check()
        self.at_least(0, "first_frame_weight")


class FutureVGAN(Adversarial[FutureVGANConfig]):
    """Generates the future of one image (Section 3.4); deterministic: one future per image."""

    name = "vgan-future"
    paper = PAPER
    config_class = FutureVGANConfig
    past_frames = 1
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        **presets_of(FutureVGANConfig, STABILISERS, LIGHT),
        "code": Preset(
            "The authors' release: four-layer encoder to a map, doubled widths, no mask prior.",
            FutureVGANConfig(encoder_output="map", width=128, discriminator_width=128, discriminator_logits=2, mask_weight=0.0),
            {"batch_size": 32, "steps": 65000},
        ),
    }

    def __init__(self, config: FutureVGANConfig) -> None:
        super().__init__(config)
        code_map = config.encoder_output == "map"
        self.encoder = ImageNetwork(config, code_map=code_map)
        self.generator = Generator(config, two_streams=True, code_map=code_map)
        self.apply(initialise_dcgan)

    def continue_from(self, image: Image) -> Generated:
        """Return the video that follows an image."""
        return self.generator(self.encoder(image), image if self.config.background_start == "still" else None)

    def make(self, batch: Batch) -> Generated:
        """Continue the first frames of the batch; the discriminator never sees the condition beside the clip."""
        return self.continue_from(batch.video[:, :, 0])

    def generator_objective(self, batch: Batch) -> Objective:
        r"""Equation 3 minimised over w_G: adversarial, $\lambda \lVert x_0 - G^0(x_0) \rVert$ and the sparsity prior."""
        made = self.take_shown(batch)
        objective = self.convince(made)
        gap = made.video[:, :, 0].float() - batch.video[:, :, 0].float()
        distance = gap.abs().mean() if self.config.first_frame_norm == "l1" else gap.square().mean()
        terms = {**objective.terms, "first_frame": self.config.first_frame_weight * distance}
        return Objective(terms, objective.metrics)

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return what prediction uses."""
        return (self.encoder, self.generator)

    def predict(self, past: Float[Tensor, "B C past H W"], *, seeds: Sequence[int]) -> Video:
        """Return the future of each image, whose frame 0 repeats it; `seeds` change nothing, the model is deterministic."""
        return self.continue_from(past[:, :, 0]).video


# --- Baseline (Section 3.2) ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VGANAutoencoderConfig(NetworkConfig):
    """Settings of the baseline; paper: 256 components. The covariance and the loss are not printed."""

    reconstruction_norm: Literal["squared_l2", "l1"] = "squared_l2"
    """Norm of the reconstruction error, a mean over pixels."""
    components: int = 256
    """Most components of the mixture; never more than one for every eight codes."""
    covariance: Literal["diag", "full"] = "diag"
    """Covariance of each component; full ones over-fit below about 5,000 clips."""

    def check(self) -> None:
        """Refuse an empty mixture."""
        super().check()
        self.at_least(1, "components")


class VGANAutoencoder(VideoSystem[VGANAutoencoderConfig]):
    """Autoencoder whose codes are modelled by a Gaussian mixture, which is then sampled and decoded."""

    name = "vgan-autoencoder"
    paper = PAPER
    config_class = VGANAutoencoderConfig
    presets = presets_of(VGANAutoencoderConfig, SMOOTH, SMOOTH, {"covariance": "full"})

    def __init__(self, config: VGANAutoencoderConfig) -> None:
        super().__init__(config)
        self.encoder = VideoNetwork(config, config.code)
        self.generator = Generator(config, two_streams=True)
        self.mixture = GaussianMixture(config.components, config.code, config.covariance)
        self.apply(initialise_dcgan)

    def stages(self) -> Mapping[str, Stage]:
        """Return training of the autoencoder, then expectation maximisation on its codes."""
        c = self.config
        learner = adam(c.learning_rate, c.beta1, c.beta2)
        player = Player("autoencoder", (self.encoder, self.generator), self.reconstruction_objective, learner)
        return {"autoencoder": (player,), "mixture": Fit(self.fit_mixture)}

    def decode(self, code: Code) -> Video:
        """Return the clips of codes."""
        return self.generator(rearrange(code, "b z -> b z 1 1")).video

    def reconstruction_objective(self, batch: Batch) -> Objective:
        """Mean error of the reconstruction; no adversarial term."""
        gap = self.decode(self.encoder(batch.video)).float() - batch.video.float()
        error = gap.square().mean() if self.config.reconstruction_norm == "squared_l2" else gap.abs().mean()
        return Objective({"reconstruction": error})

    def fit_mixture(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Fit the mixture to the codes of all clips; returns its log-likelihoods, one of them on held-out codes."""
        codes = torch.cat([self.encoder(batch.video).float() for batch in batches])
        return self.mixture.fit(codes)

    def averaged(self) -> tuple[nn.Module, ...]:
        """Average both networks; the mixture is fitted to the averaged encoder's codes."""
        return (self.encoder, self.generator)

    def sampling_pass(self, batch: Batch) -> None:
        """Reconstruct the batch."""
        self.reconstruct(batch.video)

    def reconstruct(self, video: Video) -> Video:
        """Encode clips and decode them."""
        return self.decode(self.encoder(video))

    def generate(self, seeds: Sequence[int], *, label: Labels | None = None) -> Video:
        """Sample a code from the mixture for every seed and decode it; labels are refused."""
        if label is not None:
            raise ConfigError(f"{self.name} is unconditional: it cannot generate by label")
        return self.decode(self.mixture.sample(seeds))
