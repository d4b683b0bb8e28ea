r"""Latent video diffusion transformer: the Sora-style system, at the scale of one machine.

Brooks et al., "Video generation models as world simulators", OpenAI 2024, a report without code or sizes; the choices follow
its open relatives (DiT, SiT, Latte, Open-Sora, minRF). Part of the report -> object:

- a learned compressor in space and time -> `Compressor`, stage "compressor"; stage "latent_scale" normalises
- space-time latent patches -> `to_tokens`, `positions`
- a diffusion transformer with time and text -> `Transformer`, stage "transformer"
- variable durations, resolutions, aspect ratios; an image is one frame -> `buckets`, `diffuse(shape=...)`
- text -> `kinema.nn.text`, `condition="caption"`
- prompting with images and video -> `TASKS`, `inpaint`: known pixels and their mask are an input of every token, so that one
  model animates, extends forward and backward, connects, loops and inpaints

Equations (SiT's and DiT's), as the tests name them:

- Equation 1, rectified flow: x_t = (1 - t) x_0 + t noise, velocity noise - x_0, mean squared error -> `flow_terms`
- Equation 2, times: t = sigmoid(n), n normal, then t' = a t / (1 + (a - 1) t) -> `draw_times`
- Equation 3, guidance: v_null + w (v - v_null); the null drops class and sentence, and keeps the known pixels, which have a
  weight of their own -> `model`

Departures: Sora's report says nothing of sizes, optimisers or how masks are given. Here: Muon on the matrices, a depthwise
convolution over tokens, conditioning by masked pixels instead of by clean latents (a zero-filled clip is nothing the compressor
has ever seen, and boxes work as frames do), in which unknown pixels show the nearest known time at their place (`with_mask`),
and a compressor that starts from principal components (`Compressor.start_linear`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.seeds import draw_rows, normal_codes
from kinema.core.system import Fit, Objective, OptimizerFactory, Paper, Player, Preset, Stage, System, muon
from kinema.core.types import Batch, ClipShape, Labels, Scalar, Video
from kinema.nn.moments import Moments
from kinema.nn.paths import (
    GaussianPath,
    Model,
    Predict,
    SeededNoise,
    Target,
    Times,
    edm_input,
    edm_path,
    edm_scales,
    guided,
    linear_beta_path,
    sample,
    shifted,
    straight_path,
)
from kinema.nn.text import SentenceEncoder, WordEncoder
from kinema.systems.latent_video_dit_compressor import Compressor, broadcast, decibels, fold, take_compressor
from kinema.systems.latent_video_dit_networks import (
    Context,
    Latent,
    LatentVideoDiTConfig,
    Transformer,
    refuse_other_sizes,
    sides,
)
from kinema.systems.latent_video_dit_tasks import Mask, hold, task_masks, with_mask

PAPER = Paper(
    "Video generation models as world simulators",
    "Tim Brooks, Bill Peebles, Connor Holmes, Will DePue, Yufei Guo, Li Jing, David Schnurr, Joe Taylor and others",
    "OpenAI",
    2024,
)

FIXED_TIMES = (0.1, 0.3, 0.5, 0.7, 0.9)  # at which the held-out loss is measured
EDM_NOISE = (-0.4, 1.0)  # mean and standard deviation of ln sigma in training (EDM2)

GPU: dict[str, Any] = {"height": 64, "width": 64, "frames": 32, "compressor_width": 128, "shift_tokens": 256}
LARGE: dict[str, Any] = GPU | {
    **{"frames": 64, "height": 256, "width": 256, "stem_time": 4, "stem_space": 8},
    **{"compressor_width": 256, "compressor_blocks": 4, "latent_channels": 16, "attention": "alternating"},
}
LAPTOP: dict[str, Any] = {
    "batch_size": 16,
    "ema_samples": 2000,
    "clip_gradients": 1.0,
    "schedule": "linear",
    "warmup_steps": 40,
    "minutes": 10.0,
}


class LatentVideoDiT(System[LatentVideoDiTConfig]):
    """A compressor in space and time, and a diffusion transformer that fills in whatever of its latent is unknown."""

    name: ClassVar[str] = "latent-video-dit"
    paper: ClassVar[Paper] = PAPER
    config_class = LatentVideoDiTConfig
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "A few hundred to a few thousand clips of 16x32x32, ten minutes on two cores: coherent motion, soft detail.",
            LatentVideoDiTConfig(),
            LAPTOP,
        ),
        "laptop-64": Preset(
            "A few hundred clips of 16x64x64, an hour on two cores.",
            LatentVideoDiTConfig(height=64, width=64, shift_tokens=128, hidden=128, depth=4, heads=4),
            LAPTOP | {"batch_size": 8, "minutes": 60.0},
        ),
        "small-gpu": Preset(
            "Thousands of clips of 32x64x64, a quarter of an hour on a GPU (a plan; never trained).",
            LatentVideoDiTConfig(**GPU, hidden=384, depth=12, heads=6, learning_rate=2e-3, sampling_steps=50),
            LAPTOP | {"batch_size": 64, "ema_samples": 64000, "warmup_steps": 500, "minutes": 20.0},
        ),
        "large-gpu": Preset(
            "Hundreds of thousands of clips of 64x256x256, several GPUs with shard (on paper: see --dry-run).",
            LatentVideoDiTConfig(**LARGE, hidden=1152, depth=28, heads=16, learning_rate=1e-3, sampling_steps=50),
            LAPTOP | {"batch_size": 64, "ema_samples": 640000, "warmup_steps": 2000, "steps": 200000, "minutes": None},
        ),
        "paper": Preset(
            "DiT-S over 32x64x64, as the open relatives size it: the report itself names no sizes.",
            LatentVideoDiTConfig(**GPU, hidden=384, depth=12, heads=6, optimizer="adamw", learning_rate=1e-4),
            LAPTOP | {"batch_size": 64, "ema_samples": 640000, "schedule": "constant", "steps": 400000, "minutes": None},
        ),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            LatentVideoDiTConfig(
                frames=8,
                height=16,
                width=16,
                buckets=("1x16x16", "4x16x16"),
                compressor_width=16,
                compressor_blocks=1,
                patch_time=2,
                shift_tokens=256,
                hidden=24,
                depth=2,
                heads=2,
                sampling_steps=3,
            ),
            {"batch_size": 4, "steps": 8, "ema_samples": 8},
        ),
    }
    config: LatentVideoDiTConfig
    latent_mean: Tensor
    latent_scale: Tensor

    def __init__(self, config: LatentVideoDiTConfig) -> None:
        super().__init__(config)
        self.needs = frozenset({"video", *config.asked_by})
        self.compressor = Compressor(config)
        self.register_buffer("latent_mean", torch.zeros(config.latent_channels))
        self.register_buffer("latent_scale", torch.ones(config.latent_channels))
        self.transformer = Transformer(config)
        self.classes = nn.Embedding(config.classes + 1, config.hidden) if config.condition == "label" else None  # last: null
        self.words, self.sentences, self.phrase, self.no_phrase = None, None, None, None
        if config.condition == "caption":
            if config.text_encoder == "words":
                self.words = WordEncoder(config.words, config.hidden)
            else:
                self.sentences = SentenceEncoder()
                self.phrase = nn.Linear(self.sentences.width, config.hidden)
            self.no_phrase = nn.Embedding(1, config.hidden)

    # What it is

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a training clip."""
        return self.config.shape

    @property
    def footprint(self) -> tuple[int, int, int]:
        """Frames, height and width of which a clip's must be multiples; a single frame always is one."""
        return self.config.footprint

    @property
    def trained_shapes(self) -> tuple[ClipShape, ...]:
        """Shapes of the clips that it learns from."""
        return self.config.shape, *(self.config.bucket_shapes if self.config.bucket_share else ())

    @property
    def conditions(self) -> tuple[str, ...]:
        """What clips can be asked for by."""
        return self.config.asked_by

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words of a caption that say nothing to it."""
        encoder = self.words or self.sentences
        return encoder.unknown(caption) if encoder else []

    @property
    def sampling(self) -> Sampling:
        """How it samples unless told otherwise."""
        sampler = {"flow": "euler", "noise": "ddim", "edm": "heun"}[self.config.path]
        c = self.config
        return Sampling(sampler, c.sampling_steps, c.guidance, c.known_guidance)  # type: ignore[arg-type]

    past_frames = 1

    def stages(self) -> Mapping[str, Stage]:
        """Return the compressor's linear start, compressor, scale of its latent, vocabulary, transformer."""
        c = self.config
        pressing = Player("compressor", (self.compressor,), self.compressor_objective, adamw(c.compressor_rate))
        moving = [module for module in (self.transformer, self.classes, self.words, self.phrase, self.no_phrase) if module]
        rates = muon(c.learning_rate, self.transformer.matrices) if c.optimizer == "muon" else adamw(c.learning_rate)
        denoising = Player("transformer", tuple(moving), self.transformer_objective, rates)
        vocabulary: dict[str, Stage] = {"vocabulary": Fit(self.fit_vocabulary)} if self.words else {}
        linear, scale = Fit(self.fit_linear_start, initial=True), Fit(self.fit_scale)
        start: dict[str, Stage] = {"linear_start": linear} if c.compressor_linear != "none" else {}
        return {**start, "compressor": (pressing,), "latent_scale": scale, **vocabulary, "transformer": (denoising,)}

    def shardable(self) -> tuple[nn.Module, ...]:
        """Return the compressor's parts, the transformer and its blocks."""
        return *self.compressor.children(), self.transformer, *self.transformer.blocks

    def shares(self) -> Mapping[str, float]:
        """Return how the budget is divided between compressor and transformer."""
        return {"compressor": self.config.compressor_share, "transformer": 1 - self.config.compressor_share}

    def skipped(self) -> Mapping[str, str]:
        """Return the compressor's stage where it is taken over from another run."""
        taken = self.config.compressor_from
        return dict.fromkeys(("linear_start", "compressor"), f"The compressor is that of {taken}.") if taken else {}

    def sampling_pass(self, batch: Batch) -> None:
        """Do nothing: no module has batch norm."""

    def open_files(self, device: torch.device) -> None:
        """Open the packaged sentence encoder, and take over the compressor of another run, where they are wanted.

        Raises:
            ConfigError: when one is missing, or the compressor is of other settings.
        """
        if self.sentences is not None:
            self.sentences.open()
        if self.config.compressor_from:
            take_compressor(self.compressor, Path(self.config.compressor_from))

    # Compressor

    def compressor_objective(self, batch: Batch) -> Objective:
        """Reconstruct clips through a narrow latent: L1 + MSE + weighted KL."""
        video = hold(self._cut(batch).video, self.footprint[0])
        latent = self._latent_shape(ClipShape(*video.shape[2:]))
        noise = draw_rows(lambda rows: torch.randn(rows, *latent, device=video.device), len(video))
        made, mean, log_variance = self.compressor(video, noise)
        error = made.float() - video
        divergence = 0.5 * (mean.float().square() + log_variance.float().exp() - 1 - log_variance.float()).mean()
        squared = error.square().mean()
        return Objective(
            {"absolute": error.abs().mean(), "squared": squared, "divergence": self.config.kl_weight * divergence},
            {"psnr": decibels(squared)},
        )

    def fit_linear_start(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Let the compressor start from the principal components of the training clips."""
        moments = Moments()
        for batch in batches:
            moments.add(fold(hold(batch.video, self.footprint[0]), self.config.stem))
        return {"variance_kept": self.compressor.start_linear(moments)}

    def fit_scale(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Store mean and scale of every channel of the latent over the training clips.

        Divided by its scale a channel is of unit variance, times a power of its weight in the pixels (`channel_emphasis`): the
        channels that matter little for the picture cost the transformer less. Over all channels the mean square is 1.
        """
        moments = Moments()
        for batch in batches:
            moments.add(self.compressor.encode(hold(batch.video, self.footprint[0]))[0])
        deviation = moments.covariance.diagonal().clamp_min(1e-12).sqrt()
        emphasis = self.compressor.weights(deviation) ** self.config.channel_emphasis
        self.latent_mean.copy_(moments.mean)
        self.latent_scale.copy_(deviation / emphasis * emphasis.square().mean().sqrt())
        return {"least_deviation": float(deviation.min()), "greatest_deviation": float(deviation.max())}

    def latents(self, stage: str) -> Callable[[Video], Tensor] | None:
        """Return the frozen compressor's encoder for the transformer's stage."""
        return self.encode if stage == "transformer" else None

    def encode(self, video: Video) -> Latent:
        """Return the normalised latent of clips; a single frame is held for as long as a token lasts."""
        mean = self.compressor.encode(hold(video, self.footprint[0]))[0].float()
        return (mean - broadcast(self.latent_mean)) / broadcast(self.latent_scale)

    def decode(self, latent: Latent, frames: int) -> Video:
        """Return the clips, in [-1, 1], of a normalised latent."""
        video = self.compressor.decode(latent * broadcast(self.latent_scale) + broadcast(self.latent_mean))
        return video[:, :, :frames].clamp(-1, 1)

    def reconstruct(self, video: Video) -> Video:
        """Return the clips through the compressor: the ceiling of everything else."""
        refuse_other_sizes(ClipShape(*video.shape[2:]), self.footprint)
        return self.decode(self.encode(video), video.shape[2])

    # Transformer

    def fit_vocabulary(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Collect the words of the captions."""
        assert self.words is not None
        return self.words.fit(batch.caption for batch in batches if batch.caption is not None)

    def transformer_objective(self, batch: Batch) -> Objective:
        """Predict the velocity at random times, given what a random task leaves known (Equation 1)."""
        batch = self._cut(batch)
        with torch.no_grad():
            clean = self.encode(batch.video) if batch.latent is None else batch.latent.float()
            known = self._draw_known(batch.video) if self.config.pixel_condition else None
        rows = len(clean)
        noise = draw_rows(lambda n: torch.randn(n, *clean.shape[1:], device=clean.device), rows)
        kept = draw_rows(lambda n: torch.rand(n, device=clean.device), rows) >= self.config.drop_condition
        context = self._context(rows, batch.label, batch.caption, kept)
        times = self.draw_times(rows, self.config.tokens(ClipShape(*batch.video.shape[2:])), clean.device)
        return Objective(self.flow_terms(clean, noise, times, context, known))

    def flow_terms(
        self, clean: Latent, noise: Latent, times: Times, context: Context | None, known: Float[Tensor, "B 4 T H W"] | None
    ) -> dict[str, Scalar]:
        """Return the mean squared error of the prediction over known and unknown positions alike (Equation 1)."""
        path, kind = self.path(1.0), self.kind
        x = path.mix(clean, noise, times)
        if self.config.path == "edm":
            skip, scale = edm_scales(times, 1.0)
            made = self.transformer(edm_input(x, times, 1.0), times.log() / 4, context, known)
            return {"flow": mse_loss(made.float(), (clean - skip * x) / scale)}  # EDM's weight makes it the plain error
        made = self.transformer(x, times, context, known)
        return {"flow": mse_loss(made.float(), path.target(kind, clean, noise, times))}

    @property
    def kind(self) -> Target:
        """What the transformer predicts."""
        kinds: dict[str, Target] = {"flow": "velocity", "noise": "noise", "edm": "clean"}
        return kinds[self.config.path]

    def path(self, shift: float) -> GaussianPath:
        """Return the path between latent and noise."""
        if self.config.path == "flow":
            return straight_path(shift)
        return linear_beta_path() if self.config.path == "noise" else edm_path()

    def shift(self, tokens: int) -> float:
        """Return a of Equation 2: more tokens bear more noise before they are hidden as well (Esser et al., 2024)."""
        return max(1.0, (tokens / self.config.shift_tokens) ** 0.5)

    def draw_times(self, rows: int, tokens: int, device: torch.device) -> Times:
        """Draw times of training (Equation 2): logit-normal and shifted for flow, even for DDPM, log-normal for EDM."""
        if self.config.path == "noise":
            return draw_rows(lambda n: torch.randint(1, 1001, (n,), device=device), rows) / 1000
        normal = draw_rows(lambda n: torch.randn(n, device=device), rows)
        if self.config.path == "edm":
            return (EDM_NOISE[0] + EDM_NOISE[1] * normal).exp()
        return shifted(normal.sigmoid(), self.shift(tokens))

    def _cut(self, batch: Batch) -> Batch:
        """Return the batch, or pieces of its clips of one of the further sizes, with as many tokens together."""
        shapes = self.config.bucket_shapes
        # One draw for all processes, whose generators are in the same state.
        if not shapes or float(torch.rand(())) >= self.config.bucket_share:
            return batch
        chosen = shapes[int(torch.randint(len(shapes), ()))]
        pieces = max(1, self.config.tokens(self.clip_shape) // self.config.tokens(chosen))
        spare = [whole - part for whole, part in zip(sides(self.clip_shape), sides(chosen), strict=True)]
        starts = [[int(torch.randint(most + 1, ())) for most in spare] for _ in range(pieces)]
        t, h, w = sides(chosen)
        video = torch.cat([batch.video[:, :, a : a + t, b : b + h, c : c + w] for a, b, c in starts])
        label = None if batch.label is None else batch.label.repeat(pieces)
        caption = None if batch.caption is None else batch.caption * pieces
        return Batch(video, label=label, caption=caption)

    def _draw_known(self, video: Video) -> Float[Tensor, "B 4 held H W"]:
        """Draw a task for every clip."""
        numbers = draw_rows(lambda n: torch.rand(n, 8, device=video.device), len(video))
        shown = hold(video, self.footprint[0])
        return with_mask(shown, task_masks(numbers, ClipShape(*shown.shape[2:])))

    def _context(
        self, rows: int, label: Labels | None, caption: Sequence[str] | None, kept: Tensor | None = None
    ) -> Context | None:
        """Return the embedding of classes or sentences; of the null where a row is not kept or nothing is asked for."""
        if self.classes is not None:
            null = torch.full((rows,), self.config.classes, device=self.latent_mean.device)
            chosen = null if label is None else label.to(null.device)
            return self.classes(chosen if kept is None else torch.where(kept, chosen, null))
        if self.no_phrase is None:
            return None
        null = self.no_phrase(torch.zeros(rows, dtype=torch.long, device=self.latent_mean.device))
        if caption is None:
            return null
        if self.words is not None:
            said = self.words(caption)
        else:
            assert self.sentences is not None
            assert self.phrase is not None
            said = self.phrase(self.sentences(caption).to(null.device))
        return said if kept is None else torch.where(kept[:, None], said, null)

    @torch.no_grad()
    def validate(self, batch: Batch, stage: str) -> Mapping[str, Scalar]:
        """Return errors on held-out clips, with the same noise every time: of the compressor, and of the flow at five times."""
        made = self.reconstruct(batch.video)
        numbers = {"reconstruction_psnr": decibels(mse_loss(made, batch.video))}
        if stage != "transformer":
            return numbers
        clean, rows = self.encode(batch.video), len(batch)
        noise = normal_codes(range(rows), *clean.shape[1:], device=clean.device)
        context = self._context(rows, batch.label, batch.caption)
        shown = hold(batch.video, self.footprint[0])
        first = torch.zeros_like(shown[:, :1])
        for name, frames in (("flow", 0), ("flow_given_first_frame", 1)):
            first[:, :, :frames] = 1
            known = with_mask(shown, first) if self.config.pixel_condition else None
            errors = []
            for time in FIXED_TIMES:
                at = torch.full((rows,), time, device=clean.device)
                times = at if self.config.path != "edm" else (EDM_NOISE[0] + EDM_NOISE[1] * torch.special.ndtri(at)).exp()
                errors.append(self.flow_terms(clean, noise, times, context, known)["flow"])
            numbers[name] = torch.stack(errors).mean()
            if not self.config.pixel_condition:
                break
        return numbers

    # Sampling

    def generate(self, seeds: Sequence[int], *, label: Labels | None = None) -> Video:
        """Return one clip per seed, of the classes that are asked for."""
        return self.diffuse(seeds, label=label)

    def diffuse(
        self,
        seeds: Sequence[int],
        *,
        shape: ClipShape | None = None,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Video:
        """Return one clip per seed (`kinema.core.tasks.Diffuses`)."""
        shape = shape or self.clip_shape
        latent = self._denoise(seeds, shape, None, label, caption, sampling)
        return self.decode(latent, shape.frames)

    def inpaint(
        self,
        video: Video,
        known: Mask,
        *,
        seeds: Sequence[int],
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        paste: bool = True,
    ) -> Video:
        """Return the clips with what is unknown filled in (`kinema.core.tasks.Inpaints`)."""
        shape = ClipShape(*video.shape[2:])
        shown = with_mask(hold(video, self.footprint[0]), hold(known, self.footprint[0]))
        latent = self._denoise(seeds, shape, shown, label, caption, sampling)
        made = self.decode(latent, shape.frames)
        return torch.where(known > 0.5, video, made) if paste else made

    def predict(self, past: Float[Tensor, "B C past H W"], *, seeds: Sequence[int]) -> Video:
        """Return clips that begin with a still image."""
        video = past.new_zeros(*past.shape[:2], self.config.frames, *past.shape[3:])
        video[:, :, : past.shape[2]] = past
        known = torch.zeros_like(video[:, :1])
        known[:, :, : past.shape[2]] = 1
        return self.inpaint(video, known, seeds=seeds)

    def trajectory(
        self,
        seeds: Sequence[int],
        moments: int,
        *,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Sequence[Video]:
        """Return what sampling looks like from noise to the clip: the latent, decoded on its way."""
        steps = (sampling or self.sampling).steps
        kept = {-1: self.decode(self._noise(seeds, self.clip_shape)(), self.config.frames)}
        wanted = torch.linspace(-1, steps - 1, max(2, moments)).round().int().tolist()
        times = self.path(1.0).grid(steps)

        def trace(number: int, x: Tensor, clean: Tensor) -> None:
            if number in wanted:
                kept[number] = self._shown(x, times[number + 1], self.config.frames)

        self._denoise(seeds, self.clip_shape, None, label, caption, sampling, trace)
        return [kept[number] for number in dict.fromkeys(wanted)]

    def noised(self, video: Video, moments: int, *, seed: int) -> Sequence[Video]:
        """Return clips as the forward process destroys their latent, decoded on its way, from the clip to noise."""
        clean = self.encode(video)
        noise = normal_codes(range(seed, seed + len(clean)), *clean.shape[1:], device=clean.device)
        path, count = self.path(1.0), max(2, moments)
        times = path.grid(count - 1).flip(0) if self.config.path == "edm" else torch.linspace(0, 1, count)
        mixed = [path.mix(clean, noise, time.expand(len(clean)).to(clean.device)) for time in times]
        return [self._shown(x, time, video.shape[2]) for x, time in zip(mixed, times, strict=True)]

    def _shown(self, x: Latent, time: Tensor, frames: int) -> Video:
        """Return x_t decoded; EDM's, which grows with its noise, is scaled down to that of a latent."""
        return self.decode(x / (float((1 + time.square()).sqrt()) if self.config.path == "edm" else 1.0), frames)

    def model(
        self,
        shape: ClipShape,
        context: Context | None,
        null: Context | None,
        known: Float[Tensor, "B 4 T H W"] | None,
        nothing: Float[Tensor, "B 4 T H W"] | None,
        how: Sampling,
    ) -> Model:
        """Return the guided transformer on its path (Equation 3).

        Args:
            shape: of the clips.
            context: embedding of the class or sentence; None for neither.
            null: embedding of none; None where the system has none.
            known: known pixels with their mask; None for a system without them.
            nothing: the same with nothing known; None where nothing is.
            how: the weights of both conditions.
        """

        def asked(context: Context | None, known: Float[Tensor, "B 4 T H W"] | None) -> Predict:
            def predict(x: Latent, times: Times) -> Latent:
                if self.config.path != "edm":
                    return self.transformer(x, times, context, known)
                skip, scale = edm_scales(times, 1.0)
                return skip * x + scale * self.transformer(edm_input(x, times, 1.0), times.log() / 4, context, known).float()

            return predict

        conditioned = [(asked(null, known), how.known_guidance)] if nothing is not None else []
        if context is not None:
            conditioned.append((asked(context, known), how.guidance))
        predict = guided(asked(null, known if nothing is None else nothing), *conditioned)
        return Model(self.path(self.shift(self.config.tokens(shape))), self.kind, predict)

    def sampling_memory(self, shape: ClipShape, clips: int) -> int:
        """Return an estimate of the bytes that sampling takes at once: the decoder's features, or the widest layer's."""
        c = self.config
        frames = -(-shape.frames // self.footprint[0]) * self.footprint[0]
        pixels = frames * shape.height * shape.width
        decoder = pixels // (c.stem_time * c.stem_space**2) * c.compressor_width * 6 + 3 * pixels * 4
        transformer = c.tokens(shape) * c.hidden * 16 + 8 * pixels
        return 4 * clips * max(decoder, transformer)

    def _denoise(
        self,
        seeds: Sequence[int],
        shape: ClipShape,
        known: Float[Tensor, "B 4 T H W"] | None,
        label: Labels | None,
        caption: Sequence[str] | None,
        sampling: Sampling | None,
        trace: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Latent:
        """Walk from noise to a normalised latent."""
        refuse_other_sizes(shape, self.footprint)
        for name, given in (("label", label), ("caption", caption)):
            if given is not None and name not in self.conditions:
                knows = f"it knows {self.conditions[0]}s" if self.conditions else "it knows no conditions"
                raise ConfigError(f"this {self.name} was trained without {name}s and cannot be asked for one; {knows}")
        if label is not None and len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.config.classes:
            raise ConfigError(f"labels of {self.name} are 0 to {self.config.classes - 1}; these reach {label.tolist()}")
        how, rows = sampling or self.sampling, len(seeds)
        nothing = None
        if self.config.pixel_condition:
            empty = torch.zeros(1, 1, *self._held(shape), device=self.latent_mean.device)
            nothing = with_mask(empty.expand(1, 3, -1, -1, -1), empty).expand(rows, -1, -1, -1, -1)
        known, nothing = (nothing, None) if known is None else (known, nothing)
        context = None if label is None and caption is None else self._context(rows, label, caption)
        model = self.model(shape, context, self._context(rows, None, None), known, nothing, how)
        noise = self._noise(seeds, shape)
        start = noise() * float(model.path.grid(how.steps)[0] if self.config.path == "edm" else 1)
        return sample(model, start, how.steps, how.sampler, eta=how.eta, noise=noise, trace=trace)

    def _held(self, shape: ClipShape) -> tuple[int, int, int]:
        """Return the sides of a clip as the transformer sees it."""
        return max(shape.frames, self.footprint[0]), shape.height, shape.width

    def _noise(self, seeds: Sequence[int], shape: ClipShape) -> SeededNoise:
        return SeededNoise(seeds, self._latent_shape(shape), self.latent_mean.device)

    def _latent_shape(self, shape: ClipShape) -> tuple[int, ...]:
        grid = [side // unit for side, unit in zip(self._held(shape), self.config.stem, strict=True)]
        return self.config.latent_channels, *grid


# --- Small parts --------------------------------------------------------------------------------------------------------------


def adamw(rate: float) -> OptimizerFactory:
    """Return AdamW without decay, betas (0.9, 0.99): `muon` without matrices."""
    return muon(rate, ())
