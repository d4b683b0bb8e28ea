r"""DDPM: denoising diffusion of images and short clips, sampled as trained, by DDIM or by a solver.

Ho, Jain and Abbeel, NeurIPS 2020; Song, Meng and Ermon, ICLR 2021. Section or equation of the paper -> object:

- Section 2, Equation 4 (x_t at once) -> `kinema.nn.paths.linear_beta_path`, `GaussianPath.mix`; `DDPM.noised` shows it
- Section 3.2, Equation 7 (posterior), with the variance beta -> `kinema.nn.paths.ancestral`
- Section 3.2, Equation 11 (the mean in terms of the noise) -> `GaussianPath.solve` within `ancestral`
- Section 3.4, Equation 14 (L_simple) -> `DDPM.denoising_objective`
- Section 4.3, Equation 15 (the clip that is seen in x_t) -> `Model.solve`, clamped to [-1, 1]
- Section 4 and Appendix B (U-Net, schedule) -> `kinema.systems.ddpm_networks.UNet`, preset "paper"
- DDIM, Equation 12 (the same network in fewer steps, with eta) -> `kinema.nn.paths.ddim`

Beyond the papers, each a field of the configuration: other paths and targets (the ablation of flow against noise prediction),
EDM's preconditioning (Karras et al., 2022), classes with guidance, the same U-Net over space and time. `inpaint` is RePaint
(Lugmayr et al., 2022): nothing is trained for it. Known pixels replace the model's own at every step, noisy as x_t is, and
every stretch of the walk is repeated, or what is filled in would fit its surroundings only by texture; a system that was shown
masks in training completes better and in fewer steps.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.seeds import draw_rows, normal_codes
from kinema.core.system import Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Labels, Video
from kinema.nn.paths import (
    GaussianPath,
    Model,
    Predict,
    SeededNoise,
    Times,
    Trace,
    added_between,
    cosine_path,
    edm_input,
    edm_path,
    edm_scales,
    guided,
    linear_beta_path,
    sample,
    straight_path,
)
from kinema.systems.ddpm_networks import DDPMConfig, UNet, refuse_other_sizes

STEPS = 1000  # T: the network is told times as numbers of steps
DATA_DEVIATION = 0.5  # of pixels in [-1, 1], for EDM's preconditioning
EDM_NOISE = (-1.2, 1.2)  # mean and standard deviation of ln sigma in training
STRETCHES = 25  # of a walk that completes clips (RePaint: 250 steps, 10 at a time)

PATHS: Mapping[str, Callable[[], GaussianPath]] = {
    "linear": linear_beta_path,
    "cosine": cosine_path,
    "straight": straight_path,
    "edm": edm_path,
}


class DDPM(System[DDPMConfig]):
    """Learns to tell the noise in noisy clips, and makes clips out of noise by taking it away in steps."""

    name = "ddpm"
    paper = Paper("Denoising Diffusion Probabilistic Models", "Jonathan Ho, Ajay Jain, Pieter Abbeel", "NeurIPS", 2020)
    config_class = DDPMConfig
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "Frames of 32x32 out of a few hundred clips, ten minutes on two cores: a narrow network, sampled in 30 steps.",
            DDPMConfig(
                channels=32,
                multipliers=(1, 2, 4),
                attention=(8,),
                blocks=1,
                groups=8,
                dropout=0.0,
                path="straight",
                target="velocity",
                learning_rate=1e-3,
                sampler="heun",
                sampling_steps=30,
            ),
            {"batch_size": 32, "ema_samples": 16000, "clip_gradients": 1.0, "warmup_steps": 100, "minutes": 10.0},
        ),
        "small-data": Preset(
            "Thousands of frames, an hour on a GPU: the paper's network on the cosine path, sampled by DPM-Solver.",
            DDPMConfig(path="cosine", target="velocity", sampler="dpm-solver", sampling_steps=30),
            {"batch_size": 128, "ema_samples": 500_000, "clip_gradients": 1.0, "warmup_steps": 1000, "steps": 50_000},
        ),
        "paper": Preset(
            "The paper's CIFAR-10: 32x32 images, days on a GPU; with --flip, as the paper does.",
            DDPMConfig(),
            {"batch_size": 128, "ema_samples": 887_000, "clip_gradients": 1.0, "warmup_steps": 5000, "steps": 800_000},
        ),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            DDPMConfig(
                **{"frames": 4, "height": 16, "width": 16, "channels": 4, "multipliers": (1, 2), "attention": (8,)},
                **{"blocks": 1, "groups": 2, "sampler": "ddim", "sampling_steps": 3, "inpaint_passes": 2},
            ),
            {"batch_size": 4, "steps": 4, "ema_samples": 8},
        ),
    }

    def __init__(self, config: DDPMConfig) -> None:
        super().__init__(config)
        self.needs = frozenset({"video", "label"} if config.classes else {"video"})
        self.network = UNet(config)
        self.path = PATHS[config.path]()

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a clip; of one frame, for images."""
        return self.config.shape

    @property
    def footprint(self) -> tuple[int, int, int]:
        """Frames, height and width of which a clip's must be multiples."""
        return self.config.footprint

    @property
    def conditions(self) -> tuple[str, ...]:
        """What clips can be asked for by."""
        return ("label",) if self.config.classes else ()

    @property
    def sampling(self) -> Sampling:
        """How it samples unless told otherwise."""
        c = self.config
        return Sampling(sampler=c.sampler, steps=c.sampling_steps, guidance=c.guidance)

    def stages(self) -> Mapping[str, Stage]:
        """Return the one stage with its one player."""
        c = self.config
        learner = adam(c.learning_rate, c.beta1, c.beta2)
        return {"denoising": (Player("denoiser", (self.network,), self.denoising_objective, learner),)}

    def sampling_pass(self, batch: Batch) -> None:
        """Do nothing: no module has batch norm."""

    # Training

    def denoising_objective(self, batch: Batch) -> Objective:
        """Mean squared error of what the network says about x_t, for the noise at a random step (Equation 14)."""
        clean, rows = batch.video.float(), len(batch)
        noise = draw_rows(lambda n: torch.randn(n, *clean.shape[1:], device=clean.device), rows)
        times = self.draw_times(rows, clean.device)
        label = batch.label
        if self.config.classes and label is not None:
            self._refuse_unknown(label)
            kept = draw_rows(lambda n: torch.rand(n, device=clean.device), rows) >= self.config.drop_condition
            label = torch.where(kept, label, self.config.classes)
        x = self.path.mix(clean, noise, times)
        if self.config.path == "edm":
            skip, scale = edm_scales(times, DATA_DEVIATION)
            wanted = (clean - skip * x) / scale  # EDM's weight of the clip's error makes it the plain error of this
        else:
            wanted = self.path.target(self.config.target, clean, noise, times)
        return Objective({"error": mse_loss(self._ask(x, times, label).float(), wanted)})

    def draw_times(self, rows: int, device: torch.device) -> Times:
        """Draw times of training: a step of T, for flow sigmoid(N(0, 1)), for EDM ln sigma ~ N(-1.2, 1.2^2)."""
        if self.config.path in ("linear", "cosine"):
            return draw_rows(lambda n: torch.randint(1, STEPS + 1, (n,), device=device), rows) / STEPS
        normal = draw_rows(lambda n: torch.randn(n, device=device), rows)
        return normal.sigmoid() if self.config.path == "straight" else (EDM_NOISE[0] + EDM_NOISE[1] * normal).exp()

    def _ask(self, x: Video, times: Times, label: Labels | None) -> Video:
        """Return what the network says of x_t, as it was trained to; EDM scales its input."""
        numbers = STEPS * times - 1
        if self.config.path == "edm":
            x, numbers = edm_input(x, times, DATA_DEVIATION), STEPS * times.log() / 4
        if self.config.rank == 3:
            return self.network(x, numbers, label)
        return rearrange(self.network(rearrange(x, "b c 1 h w -> b c h w"), numbers, label), "b c h w -> b c 1 h w")

    # Sampling

    def model(self, label: Labels | None, guidance: float) -> Model:
        """Return the network on its path, guided towards classes where some are asked for."""

        def asked(label: Labels | None) -> Predict:
            def predict(x: Tensor, times: Times) -> Tensor:
                said = self._ask(x, times, label)
                if self.config.path != "edm":
                    return said
                skip, scale = edm_scales(times, DATA_DEVIATION)
                return skip * x + scale * said

            return predict

        predict = asked(label) if label is None else guided(asked(None), (asked(label), guidance))
        return Model(self.path, self.config.target, predict, limit=1.0)

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
        model, start, noise, how = self._prepare(seeds, shape or self.clip_shape, label, caption, sampling)
        return sample(model, start, how.steps, how.sampler, eta=how.eta, noise=noise).clamp(-1, 1)

    def inpaint(
        self,
        video: Video,
        known: Float[Tensor, "B 1 T H W"],
        *,
        seeds: Sequence[int],
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        paste: bool = True,
    ) -> Video:
        """Return the clips with what is unknown filled in (`kinema.core.tasks.Inpaints`); see `complete`."""
        model, start, noise, how = self._prepare(seeds, ClipShape(*video.shape[2:]), label, caption, sampling)
        if how.known_guidance != 1:
            raise ConfigError(f"known_guidance is {how.known_guidance:g}, and {self.name} puts known pixels in: take 1")
        made = complete(model, video, known > 0.5, start, noise, how, self.config.inpaint_passes).clamp(-1, 1)
        return torch.where(known > 0.5, video, made) if paste else made

    def trajectory(
        self,
        seeds: Sequence[int],
        moments: int,
        *,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Sequence[Video]:
        """Return x_t on its way from noise to the clip."""
        model, start, noise, how = self._prepare(seeds, self.clip_shape, label, caption, sampling)
        walk = [start]
        keep: Trace = lambda _, x, clean: walk.append(x)  # noqa: E731
        sample(model, start, how.steps, how.sampler, eta=how.eta, noise=noise, trace=keep)
        visited = torch.linspace(0, how.steps, max(2, moments)).round().int().tolist()
        times = self.path.grid(how.steps)
        return [self._shown(walk[number], times[number]) for number in dict.fromkeys(visited)]

    def noised(self, video: Video, moments: int, *, seed: int) -> Sequence[Video]:
        """Return x_t from the clip to noise (Equation 4), with the same noise in every clip."""
        noise = normal_codes([seed] * len(video), *video.shape[1:], device=video.device)
        count = max(2, moments)
        times = self.path.grid(count - 1).flip(0) if self.config.path == "edm" else torch.linspace(0, 1, count)
        return [self._shown(self.path.mix(video, noise, t.to(video.device).expand(len(video))), t) for t in times]

    def _shown(self, x: Video, time: Tensor) -> Video:
        """Return x_t as pixels; EDM's is scaled down to the size of its noise."""
        return (x / self.path.at(time).sigma.clamp_min(1).to(x.device)).clamp(-1, 1)

    def _prepare(
        self,
        seeds: Sequence[int],
        shape: ClipShape,
        label: Labels | None,
        caption: Sequence[str] | None,
        sampling: Sampling | None,
    ) -> tuple[Model, Video, SeededNoise, Sampling]:
        """Return the model, x at the first time, where more noise comes from, and how to sample.

        Raises:
            ConfigError: for a size or a condition that this system cannot make.
        """
        if self.config.rank == 2 and shape.frames != 1:
            raise ConfigError(f"clips of {shape} cannot be: this {self.name} makes single frames; try {self.clip_shape}")
        refuse_other_sizes(shape, self.footprint)
        if caption is not None:
            raise ConfigError(f"{self.name} reads no caption; it can be asked for {' or '.join(self.conditions) or 'nothing'}")
        device = next(self.parameters()).device
        if label is not None:
            if not self.config.classes:
                raise ConfigError(f"this {self.name} was trained without classes and cannot be asked for a label")
            self._refuse_unknown(label)
            label = label.to(device)
        how = sampling or self.sampling
        noise = SeededNoise(seeds, (3, shape.frames, shape.height, shape.width), device)
        start = noise() * self.path.at(self.path.grid(how.steps)[0]).sigma.to(device)
        return self.model(label, how.guidance), start, noise, how

    def _refuse_unknown(self, label: Labels) -> None:
        """Refuse a class that is none of those trained on."""
        classes = self.config.classes
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < classes:
            wrong = int(label.max()) if int(label.max()) >= classes else int(label.min())
            raise ConfigError(f"the label is {wrong}, and {self.name} is set to {classes} classes: 0 to {classes - 1}")


# --- Small parts --------------------------------------------------------------------------------------------------------------


def complete(
    model: Model,
    video: Tensor,
    known: Tensor,
    start: Tensor,
    noise: Callable[[], Tensor],
    how: Sampling,
    passes: int,
) -> Tensor:
    """Walk from noise to clips of which some pixels are known, by replacement and resampling.

    Args:
        model: the network on its path.
        video: clips; what is not known is not looked at.
        known: where a pixel is known.
        start: x at the first time.
        noise: draws noise.
        how: steps, sampler, eta.
        passes: how often each stretch is walked; in between, x is made as noisy again as it was where the stretch begins.

    References:
        Lugmayr et al., "RePaint", CVPR 2022, Algorithm 1.
    """
    path, x = model.path, start

    def put_in(x: Tensor, time: Tensor) -> Tensor:
        return torch.where(known, path.mix(video, noise(), time.expand(len(video))), x)

    times = path.grid(how.steps).to(start.device)
    length = -(-how.steps // STRETCHES) if passes > 1 else how.steps
    for first in range(0, how.steps, length):
        part = times[first : first + length + 1]
        stretch = Model(GaussianPath(path.name, path.at, lambda _, part=part: part), model.kind, model.predict, model.limit)
        for number in range(passes):
            x = sample(stretch, x, len(part) - 1, how.sampler, eta=how.eta, noise=noise, known=put_in)
            if number == passes - 1 or first + length >= how.steps:
                break
            ratio, variance = added_between(path.at(part[0]), path.at(part[-1]))
            x = ratio * x + variance.sqrt() * noise()
    return x
