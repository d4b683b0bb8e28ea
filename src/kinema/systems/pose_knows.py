r"""The Pose Knows: video forecasting by generating pose futures.

Walker, Marino, Gupta and Hebert, ICCV 2017. What the paper says -> object:

- Networks and settings -> `kinema.systems.pose_knows_networks`
- Past encoder (image, poses, velocities) -> `ImageTower`, `PastEncoder`
- Past decoder (velocities in reverse, dropped after training) and future decoder (a code per step) -> `PoseDecoder`
- Future encoder, the posterior over codes -> `FutureEncoder`
- Velocities as directions and exponential magnitudes, Equation 1 -> `to_directions`, `from_directions`
- Objective of the pose-VAE, Equation 2 -> `PoseKnows.pose_objective`
- Its KL divergence, Equation 3 -> `kinema.nn.losses.kl_to_normal`
- Forecasting video: 3-D U-Net on first frame and skeleton video -> `kinema.nn.unet.UNet`, `PoseKnows.paint_over`
- Discriminator's objective, Equation 4 -> `PoseKnows.discriminator_objective`
- Generator's objective, Equation 5 -> `PoseKnows.generator_objective`
- From past to video -> `PoseKnows.forecast_poses`, `PoseKnows.render_poses`

The equations are numbered here in the order in which the objects use them. Sizes, weights and schedules are those of the
authors' release, which has no script that joins its two halves: here a clip is the past, whose last frame is the current one,
and `frames_per_step * future_steps` frames more. The video half sees the current frame and all that follow, and its last frame
again until the length suits the U-Net.

Departures from the release:

- A missing joint is masked: its confidence is an input, its zeroed coordinates enter no loss (the release clips by thresholds).
- One scale for x and y, the longer side of the frame. Magnitudes are at least 0 (the release reverses motion below).
- Step k of a sample reads code k, as in training (the release reads at shifted offsets).
- Terms are means over the batch with the release's weights for its batch of 32: 0.008 for the KL divergence.
- Pixels lie in [-1, 1], twice as wide as in the release: a mean L1 of weight 500 here is its 1000.
- Batch norm has one set of statistics for all steps, and uses them in evaluation; ordinary Adam for every part.
- The drawing of the current pose is made at the size of the frame, not at half of it: limbs of 11 pixels for 6 at 240 x 320.
- `laptop`: velocities in units of their own spread, joints around the person, layer norm, a small tower, a decoder that is fed
  its own poses; a discriminator with spectral norm that sees the skeleton; limbs of the current frame taken along. At 0.008
  its codes carry nothing; 0.001 is about 2 / 180 of the variance that 180 displacements of a future keep.
- `latent="none"` is the deterministic regressor of the same size.
- `tower="imagenet"` looks at the current frame through the packaged ImageNet network, which no stage trains (`FrozenTower`).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.compiling import untraced
from kinema.core.errors import DataError
from kinema.core.seeds import draw_rows
from kinema.core.system import Fit, Objective, Paper, Player, Preset, Stage, System, adam, learning
from kinema.core.types import Batch, ClipShape, Image, Scalar, Video
from kinema.nn.convolution import initialise_dcgan
from kinema.nn.losses import absolute_error, discriminator_terms, generator_term, kl_to_normal, masked_squared_error
from kinema.nn.regions import draw_steps, shifted, with_steps
from kinema.pose.draw import draw_points
from kinema.pose.skeleton import find_skeleton
from kinema.pose.warp import warp_limbs
from kinema.systems.pose_knows_networks import (
    OUTPUTS,
    CodeFit,
    CodePrior,
    Critic,
    Features,
    FrozenTower,
    FutureEncoder,
    Joints,
    PastEncoder,
    PoseDecoder,
    PoseKnowsConfig,
    State,
    Steps,
    from_directions,
    painter,
    to_directions,
)

# --- Presets ------------------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "origin": "person",
    "tower": "small",
    "posterior_sees": "poses",
    "pose_norm": "layer",
    "displacement": "euclidean",
    "fed": "itself",
    "prior": "fitted",
    "kl_weight": 0.001,
    "kl_doubles_at": 0,
    "discriminator_norm": "spectral",
    "discriminator_logits": 1,
    "condition_discriminator": True,
    "bottleneck_norm": "layer",
    "dropout": 0.0,
    "start": "limbs",
}
LAPTOP: dict[str, Any] = dict.fromkeys(("height", "width", "video_height", "video_width"), 64) | {
    "frames_per_step": 3,
    "past_steps": 5,
    "image_features": 64,
    "pose_features": 128,
    "state": 128,
    "posterior_width": 128,
    "generator_width": 16,
    "discriminator_width": 8,
    "learning_rate": 1e-3,
}
TINY: dict[str, Any] = dict.fromkeys(("height", "width", "video_height", "video_width"), 16) | {
    "frames_per_step": 2,
    "future_steps": 2,
    "tower_width": 4,
    "image_features": 8,
    "pose_features": 8,
    "state": 8,
    "code": 2,
    "posterior_width": 4,
    "generator_width": 3,
    "discriminator_width": 4,
}


GUESSES = 10
"""Futures of a held-out clip that are imagined while training."""
BARE = 2.0
"""Log-odds of the current frame's share in a pixel, before the U-Net learns."""


# --- The system ---------------------------------------------------------------------------------------------------------------

PAPER = Paper(
    "The Pose Knows: Video Forecasting by Generating Pose Futures",
    "Jacob Walker, Kenneth Marino, Abhinav Gupta, Martial Hebert",
    "ICCV",
    2017,
)
RELEASE = {"batch_size": 32, "steps": 320000}
"""80,000 steps of poses; 240,000 of video, which see as many clips as the release's 500,000 of batch 16 nearly do."""


class PoseKnows(System[PoseKnowsConfig]):
    """Forecasts poses out of a past of frames and poses, and renders them as video."""

    name = "pose-knows"
    paper = PAPER
    config_class = PoseKnowsConfig
    needs = frozenset({"video", "pose"})
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "A thousand clips of one person each, 64x64x31, a quarter of an hour on two cores: rendered video is soft.",
            PoseKnowsConfig(**SMALL, **LAPTOP),
            {"batch_size": 8, "ema_samples": 2000, "minutes": 15.0},
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
        self.generator, self.discriminator = painter(config), Critic(config).apply(initialise_dcgan)
        self.register_buffer("spread", torch.ones(()))  # of displacements, where they are euclidean
        if config.latent == "gaussian" and config.prior == "fitted":
            self.codes: CodePrior | None = CodePrior(2 * config.state, config.future_steps * config.code)
        else:
            self.codes = None
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
        """Return the two games, which share no weights, and around the first what is fitted, where it is not the paper's."""
        c = self.config
        learner, gan = adam(c.pose_learning_rate), adam(c.learning_rate, 0.5)
        parts = (self.encoder, self.past_decoder, self.future_decoder, self.future_encoder)
        forecaster = Player("forecaster", tuple(part for part in parts if part is not None), self.pose_objective, learner)
        critic = Player("discriminator", (self.discriminator,), self.discriminator_objective, gan)
        painter = Player("generator", (self.generator,), self.generator_objective, gan)
        before: dict[str, Stage] = {} if c.displacement == "directions" else {"spread": Fit(self.fit_spread)}
        after: dict[str, Stage] = {"codes": Fit(self.fit_codes)} if self.codes else {}
        return {**before, "pose": (forecaster,), **after, "video": (critic, painter)}

    def shares(self) -> Mapping[str, float]:
        """Divide a budget: a quarter for poses, the rest for video."""
        return {"pose": 1.0, "video": 3.0}

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return what forecasting and rendering use."""
        return (self.encoder, self.future_decoder, self.generator)

    def sampling_pass(self, batch: Batch) -> None:
        """Forecast a future of every clip, and render it."""
        past = self.config.past_frames
        poses = self.poses_of(batch)
        futures = self.forecast_poses(batch.video[:, :, :past], poses[:, :past], seeds=range(len(batch)), futures=1)
        self.render_poses(batch.video[:, :, past - 1], torch.cat([poses[:, past - 1 : past], futures[:, 0]], dim=1))

    def open_files(self, device: torch.device) -> None:
        """Open the ImageNet network where that is the tower: it is no part of the system, see `FrozenTower`."""
        if isinstance(self.encoder.tower, FrozenTower):
            self.encoder.tower.features.open(device)

    def begin_anew(self) -> None:
        """Count the turns of the forecaster from 0 on."""
        self.pose_steps.zero_()

    # Poses

    def poses_of(self, batch: Batch) -> Float[Tensor, "B T J 3"]:
        """Return the poses of a batch, refusing those of another layout."""
        poses = batch.pose
        if poses is None or poses.shape[2] != self.config.joints:
            found = "no poses" if poses is None else f"poses of {poses.shape[2]} joints"
            raise DataError(f"the clips have {found}; pose-knows is set to {self.config.skeleton}, {self.config.joints} joints")
        return poses.float()

    def seen(self, poses: Float[Tensor, "B T J 3"]) -> Bool[Tensor, "B T J"]:
        """Return which joints count: those that are there, and as surely as the settings want."""
        return (poses[..., 2] > 0) & (poses[..., 2] >= self.config.confidence)

    def steps_of(self, poses: Float[Tensor, "B T J 3"]) -> tuple[Steps, Float[Tensor, "B 1 1 2"]]:
        """Return the poses at the borders of steps and their origin; poses of the past alone will do.

        Args:
            poses: in pixels of the clip, from its first frame on.
        """
        c = self.config
        borders = poses[:, :: c.frames_per_step]
        present = self.seen(borders).float()
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

    @torch.no_grad()
    def fit_codes(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Fit the distribution of codes given the past; returns the share of their variance that the past explains."""
        assert self.codes is not None
        fit = CodeFit(self.codes)
        for batch in batches:
            state, mu, log_variance = self.posterior(batch)
            fit.add(_flat(state), mu, log_variance.exp())
        return {"explained": fit.solve()}

    def posterior(self, batch: Batch) -> tuple[State, Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Return the state after the past, and mean and logarithm of the variance of the codes of what follows."""
        c, poses = self.config, self.poses_of(batch)
        steps, _ = self.steps_of(poses)
        velocities, _ = self.velocities(steps)
        state = self.encode_past(batch.video[:, :, c.past_frames - 1], poses, steps, velocities)
        return state, *self.infer(steps, velocities, state)

    def infer(
        self, steps: Steps, velocities: Sequence[Features], state: State
    ) -> tuple[Float[Tensor, "B Z"], Float[Tensor, "B Z"]]:
        """Return mean and logarithm of the variance of the codes, given poses and velocities of a clip and the state."""
        c = self.config
        assert self.future_encoder is not None
        future = [part[:, c.past_steps :] for part in velocities]
        ends = [steps.features()[:, c.past_steps + 1 :]] if c.posterior_sees == "poses" else []
        return self.future_encoder([*future, *ends], state)

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
        backwards = ([part[:, : c.past_steps].flip(1) for part in parts] for parts in (velocities, masks))
        terms = {"past": self.velocity_error(past, *backwards)}
        codes, metrics = velocities[0].new_zeros(len(batch), c.future_steps, c.code), {}
        if self.future_encoder is not None:
            mu, log_variance = self.infer(steps, velocities, state)
            noise = draw_rows(lambda rows: torch.randn(rows, mu.shape[1]), len(batch)).to(mu)
            codes = rearrange(mu + (log_variance / 2).exp() * noise, "b (k z) -> b k z", z=c.code)
            metrics["kl_nats"] = kl_to_normal(mu, log_variance)
            if c.kl_weight:
                late = (self.pose_steps >= c.kl_doubles_at).float() if c.kl_doubles_at else 0.0
                terms["kl"] = (1 + late) * c.kl_weight * metrics["kl_nats"]
        if c.fed == "truth":
            predicted, _ = self.future_decoder(codes, steps.features()[:, c.past_steps : -1], state)
        else:
            start = Steps(*(part[:, c.past_steps : c.past_steps + 1] for part in steps))
            predicted, _ = self.unroll(codes, start, state)
        self.pose_steps += 1
        return Objective({"future": self.velocity_error(predicted, future, counted), **terms}, metrics)

    def velocity_error(self, predicted: Sequence[Features], target: Sequence[Features], mask: Sequence[Features]) -> Scalar:
        """Return the sum of the mean squared errors of the parts of velocities."""
        return torch.stack([masked_squared_error(*parts) for parts in zip(predicted, target, mask, strict=True)]).sum()

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
        """Return the future of the most likely code, in pixels: a forecast without chance."""
        code = past.new_zeros(len(past), 1, self.config.future_steps, self.config.code)
        return self.follow(past, poses, code)[:, 0]

    def follow(
        self,
        past: Float[Tensor, "B C past H W"],
        poses: Float[Tensor, "B past J 3"],
        codes: Float[Tensor, "B futures K Z"],
    ) -> Float[Tensor, "B futures T J 3"]:
        """Decode codes in closed loop and interpolate inside the steps.

        Args:
            past: frames.
            poses: in pixels.
            codes: standard normal numbers, or 0 for the most likely ones.

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
        flat = codes.flatten(0, 1)
        if self.codes:
            flat = self.codes(flat.flatten(1), _flat((h, cell))).unflatten(1, flat.shape[1:])
        _, borders = self.unroll(flat, start, (h, cell))
        share = torch.arange(1, c.frames_per_step + 1, device=past.device)[:, None, None] / c.frames_per_step
        between = borders[:, :-1, None] + share * (borders[:, 1:] - borders[:, :-1])[:, :, None]
        places = rearrange(between, "(b n) k f j c -> b n (k f) j c", n=futures) + origin[:, None]
        confidence = torch.where(steps.present[:, -1] > 0, poses[:, -1, :, 2], 0)[:, None, None, :, None]
        confidence = confidence.expand(*places.shape[:-1], 1)
        return torch.cat([torch.where(confidence > 0, places * max(c.height, c.width), 0), confidence], dim=-1)

    def validate(self, batch: Batch, stage: str) -> Mapping[str, Scalar]:
        """Return, of held-out clips, the distance of a joint from the truth in pixels, or the painter's L1 error of a pixel.

        Distances are of the best of `GUESSES` futures and of the one of the most likely codes; the painter gets the true poses.
        """
        c, poses = self.config, self.poses_of(batch)
        if stage == "video":
            real = self.lengthened(self.resized(batch.video[:, :, c.past_frames - 1 :]))
            poses = poses[:, c.past_frames - 1 :]
            painted = self.paint_over(real[:, :, 0], poses, self.skeletons(poses))
            return {"l1_pixel": absolute_error(painted, real)}
        past, known, truth = batch.video[:, :, : c.past_frames], poses[:, : c.past_frames], poses[:, c.past_frames :]
        futures = self.forecast_poses(past, known, seeds=range(len(batch)), futures=GUESSES)
        there = self.seen(known[:, -1:]) & self.seen(truth)

        def apart(made: Float[Tensor, "B N T J 3"]) -> Float[Tensor, "B N"]:
            distance = (made[..., :2] - truth[:, None, ..., :2]).norm(dim=-1)
            return (distance * there[:, None]).sum(dim=(2, 3)) / there.sum(dim=(1, 2)).clamp_min(1)[:, None]

        typical = apart(self.forecast_typical(past, known)[:, None])
        return {f"best_of_{GUESSES}": apart(futures).amin(dim=1).mean(), "most_likely": typical.mean()}

    # Video

    @torch.no_grad()
    @untraced
    def draw(self, poses: Float[Tensor, "B T J 3"], height: int, width: int) -> Video:
        """Draw poses, in pixels of the clip, as skeletons of a size."""
        if poses.is_meta:  # of which only sizes are asked
            return poses.new_empty(len(poses), 3, poses.shape[1], height, width)
        c, known = self.config, torch.where(self.seen(poses)[..., None], poses, 0)
        points = self.scaled(known, height, width).flatten(0, 1).cpu().numpy()
        drawn = draw_points(points, find_skeleton(c.skeleton), width, height, c.drawing)
        video = torch.from_numpy(drawn).to(poses.device).unflatten(0, poses.shape[:2])
        return rearrange(video, "b t h w c -> b c t h w").float().div(127.5).sub(1)

    def scaled(self, poses: Float[Tensor, "B T J 3"], height: int, width: int) -> Float[Tensor, "B T J 3"]:
        """Return poses in pixels of frames of a size, instead of the clip's."""
        scale = poses.new_tensor([width / self.config.width, height / self.config.height])
        return torch.cat([(poses[..., :2].float() + 0.5) * scale - 0.5, poses[..., 2:].float()], dim=-1)

    def skeletons(self, poses: Float[Tensor, "B T J 3"]) -> Float[Tensor, "B C frames H W"]:
        """Draw the current pose and the future as the U-Net sees them: the last one again up to the length that it takes."""
        return self.lengthened(self.draw(poses, self.config.video_height, self.config.video_width))

    def lengthened(self, video: Video) -> Float[Tensor, "B C frames H W"]:
        """Repeat the last frame up to the length that the networks take."""
        missing = self.config.video_frames - video.shape[2]
        return torch.cat([video, video[:, :, -1:].expand(-1, -1, missing, -1, -1)], dim=2) if missing else video

    def resized(self, frames: Float[Tensor, "B C *T H W"]) -> Float[Tensor, "B C *T h w"]:
        """Return frames in the size of the rendered video."""
        return resize(frames, (self.config.video_height, self.config.video_width))

    def paint_over(
        self, image: Image, poses: Float[Tensor, "B T J 3"], skeletons: Float[Tensor, "B C frames H W"]
    ) -> Float[Tensor, "B C frames H W"]:
        """Return the U-Net's video of the first frame, repeated over time, and a skeleton video.

        Args:
            image: first frame, in the size of the rendered video.
            poses: of the first frame and those that follow, in pixels of the clip.
            skeletons: the same poses as the U-Net sees them.
        """
        shown = repeat(image, "b c h w -> b c t h w", t=skeletons.shape[2])
        carried = self.carry(image, poses) if self.config.start == "limbs" else []
        numbers = self.generator(torch.cat([skeletons, shown, *carried], dim=1))
        painted, *masks = numbers.split(OUTPUTS[self.config.start], dim=1)
        if self.config.start == "grey":
            return painted.tanh()
        if carried:
            shown = shown.lerp(carried[0], (carried[1].clamp(0.01, 0.99).logit() + masks[1]).sigmoid().to(shown))
        under = shown.clamp(-0.98, 0.98).atanh()
        if masks:
            under = under * (BARE - masks[0]).sigmoid()
        return (painted + under).tanh()

    def carry(self, image: Image, poses: Float[Tensor, "B T J 3"]) -> list[Float[Tensor, "B _ frames H W"]]:
        """Return the first frame with each limb taken along to where the poses have it, and where somebody is in it."""
        places = torch.where(self.seen(poses)[..., None], self.scaled(poses, *image.shape[2:]), 0)
        warped = warp_limbs(image, places[:, 0], places, find_skeleton(self.config.skeleton))
        return [self.lengthened(part).to(image) for part in warped]

    def show(self, batch: Batch) -> tuple[Video, Video, Video]:
        """Return real, rendered and skeleton videos, made in the discriminator's turn and kept with their graph."""
        if self.shown is not None and self.shown[0] is batch:
            shown, self.shown = self.shown[1:], None
            return shown
        now = self.config.past_frames - 1
        video, poses = batch.video[:, :, now:], self.poses_of(batch)[:, now:]
        if (steps := draw_steps(self.config.shift, video, *video.shape[3:])) is not None:
            poses, video = with_steps(poses, steps), torch.stack([shifted(frame, steps) for frame in video.unbind(2)], dim=2)
        real = self.lengthened(self.resized(video))
        skeletons = self.skeletons(poses)
        with learning(self.generator):
            painted = self.paint_over(real[:, :, 0], poses, skeletons)
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
        distance = absolute_error(painted, real)
        adversarial = generator_term(self.judge(painted, skeletons), "non_saturating")
        return Objective({"adversarial": adversarial, "l1": self.config.l1_weight * distance}, {"l1_pixel": distance})

    def render_poses(self, image: Image, poses: Float[Tensor, "B T J 3"]) -> Video:
        """Return a frame per pose, of the image's size; the first pose is the image's own, then those of the whole future.

        Where no pose has a joint nothing says who is to be painted, and the image stays.
        """
        if poses.shape[1:3] != (1 + self.future_frames, self.config.joints):
            raise DataError(
                f"there are {poses.shape[1]} poses of {poses.shape[2]} joints; this pose-knows renders the image's own and "
                f"{self.future_frames} more, of {self.config.joints} joints"
            )
        video = self.paint_over(self.resized(image), poses, self.skeletons(poses))[:, :, : poses.shape[1]]
        somebody = self.seen(poses).flatten(1).any(dim=1)[:, None, None, None, None]
        return resize(video, (image.shape[2], image.shape[3])).where(somebody, image[:, :, None])


def _flat(state: State) -> Float[Tensor, "B D"]:
    """Return h of all layers as one vector per clip."""
    return rearrange(state[0], "l b s -> b (l s)")


def resize(frames: Float[Tensor, "B C *T H W"], size: tuple[int, int]) -> Float[Tensor, "B C *T h w"]:
    """Return every frame in another size: means where it shrinks, else a blend of neighbours."""
    if frames.shape[-2:] == size:
        return frames
    flat = frames.float() if frames.dim() == 4 else rearrange(frames.float(), "b c t h w -> (b t) c h w")
    flat = F.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return flat if frames.dim() == 4 else rearrange(flat, "(b t) c h w -> b c t h w", b=len(frames))
