r"""Everybody Dance Now: motion transfer by the poses of one person and the looks of another.

Chan, Ginosar, Zhou and Efros, ICCV 2019. Section of the paper -> object; its equations are numbered here in its order:

- Pose estimation and drawing -> `kinema.pose.draw`; style and skeleton are part of the configuration
- Global pose normalisation -> `kinema.pose.normalise`; the target's statistics are the stage "statistics"
- Pose to video, Equation 1 (temporal smoothing: pairs of frames, judged with their poses) -> `Dance.perform`, `Dance.judged`
- The stages' objective, Equation 2 (least squares, feature matching, perceptual) -> `Dance.generator_objective`
- Face GAN, Equation 3 (adversarial) and Equation 4 (with the perceptual term) -> `Face`, `Dance.face_objective`
- Network architecture -> `kinema.nn.resnet`, `kinema.nn.discriminators`; stages "global", "local" and "face"

Departures from the release, whose slips are not repeated:

- Every weight is registered with its optimiser once. The release steps each one twice: `code` has twice the learning rate.
- One box per item and frame around the face, instead of the first item's and frame's for all of the batch.
- Adversarial terms are means over the batch; the release's single-scale loss took the last item alone.
- Poses and photographs are both in [-1, 1]; `label_range="unit"` (`code`) draws poses in [0, 1].
- A player judges what was made before it moved, as in the release, but from one forward pass.
- Stage "global" trains at half the frame's size where stage "local" follows; its discriminator keeps its scales in the next.
- Chains may be longer than two frames; the perceptual term is then the mean over frames, times the two of the paper.
- `laptop`, `small-gpu`: a mask over a still background, averaged weights, a mean absolute error of pixels, the packaged
  network in place of VGG19, whose weights are not ours to give.
- The same, lest some hundred frames are known by heart: scenes lie beside their places by chance (`shift`), boxes beside
  faces (`face_shift`), whose discriminator sees them augmented (`face_augment`); the residual begins at zero (`face_start`).
- Faces of fewer than the paper's 128 pixels are enlarged for the perceptual network.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from kinema.core.compiling import untraced
from kinema.core.errors import ConfigError
from kinema.core.peers import mean_over_processes, standing_in
from kinema.core.seeds import draw_rows
from kinema.core.system import Fit, Objective, OptimizerFactory, Paper, Player, Preset, Stage, System, adam, learning
from kinema.core.types import Batch, ClipShape, Image, Scalar, Video
from kinema.nn.augment import augment
from kinema.nn.discriminators import Judgement, MultiScaleDiscriminator, PatchDiscriminator, halved
from kinema.nn.losses import absolute_error, feature_matching, least_squares
from kinema.nn.perceptual import PerceptualLoss, perceptual_loss
from kinema.nn.record import Record
from kinema.nn.regions import Corners, around_joints, boxes_around, crop, draw_steps, paste, places, shifted, with_steps
from kinema.nn.resnet import LocalEnhancer, Overlay, ResidualGenerator, beside, initialise_pix2pix
from kinema.nn.stillness import uncovered_picture
from kinema.pose.draw import DrawStyle, draw_points
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import FACE_PLACES, Skeleton, find_skeleton, shows_face
from kinema.pose.stature import BodyStatistics, measure
from kinema.systems.dance_config import DanceConfig

Pose = Float[Tensor, "B T J 3"]
STATISTICS_BYTES = 32768  # half of them are used by the longest
FACE_SEEN = 128  # pixels, the paper's side of a face: in smaller ones a perceptual network has few layers
Frames = list[Image]  # one after the other

# --- What is made -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Face:
    """Drawn poses, photographs and corrected frames inside the boxes around faces, of all frames of a chain.

    Attributes:
        label: drawn poses.
        real: photographs.
        fake: corrected frames.
        seen: the boxes that show a face; a process that has none while others have shows one that counts nothing.
        share: how much a mean over these faces counts in the mean over processes: their number, over its own mean.
    """

    label: Image
    real: Image
    fake: Image
    seen: Bool[Tensor, "N"]
    share: float

    def weighted(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Return means over these faces so that their mean over processes is one over the faces of all."""
        return {name: self.share * value for name, value in values.items()}


@dataclass(frozen=True)
class Scene:
    """Drawn poses, photographs and made frames of a chain, and its faces where the stage sees any.

    Attributes:
        verdicts: what the discriminator, which has not moved since, said of the photographs, for every scale; empty: not asked.
    """

    labels: Frames
    real: Frames
    fake: Frames
    face: Face | None = None
    verdicts: Sequence[Tensor] = ()

    def settled(self, verdicts: Sequence[Tensor] = ()) -> "Scene":
        """Return the scene without its graph, and with what the discriminator has said."""
        face = self.face and replace(self.face, fake=self.face.fake.detach())
        return Scene(self.labels, self.real, [frame.detach() for frame in self.fake], face, verdicts)


Paint = Callable[[int, Image, Image], Image]  # number of the frame, drawn pose, previous frame -> frame
Modules = tuple[nn.Module, ...]
Perform = Callable[[Batch], Scene]

# --- System -------------------------------------------------------------------------------------------------------------------

PAPER = Paper("Everybody Dance Now", "Caroline Chan, Shiry Ginosar, Tinghui Zhou, Alexei A. Efros", "ICCV", 2019)
PACKAGED: dict[str, Any] = {
    "perceptual_network": "efficientnet-lite0",
    "pixel_weight": 10.0,
    "background": True,
    "shift": 0.125,
    "face_start": "zero",
    "face_shift": 0.25,
    "face_augment": ("translation", "cutout"),
}
SMALL: dict[str, Any] = {"enhancer": False, "discriminator_width": 16, "face_base": 16, "face_downs": 2, "face_blocks": 3}


class Dance(System[DanceConfig]):
    """Shows one person in any pose: trained on clips of that person alone."""

    name = "dance"
    paper = PAPER
    config_class = DanceConfig
    needs = frozenset({"video", "pose"})
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "laptop": Preset(
            "Some minutes of one person before a fixed camera, a quarter of an hour on two cores: 64 pixels, narrow networks.",
            DanceConfig(height=64, width=64, base=16, downs=2, blocks=3, **SMALL, **PACKAGED),
            {"batch_size": 4, "ema_samples": 2000, "minutes": 15.0},
        ),
        "small-gpu": Preset(
            "Five minutes of one person or more, an hour on a GPU: 256 pixels in one stage, then the face.",
            DanceConfig(height=256, width=256, base=48, enhancer=False, face_base=32, **PACKAGED),
            {"batch_size": 4, "ema_samples": 5000, "minutes": 60.0},
        ),
        "paper": Preset(
            "The paper's numbers, days on a GPU of 12 GB: 1024x512 in three stages; needs a file of VGG19's weights.",
            DanceConfig(),
            {"batch_size": 1, "steps": 400000},
        ),
        "paper-512": Preset(
            "The paper's first stage alone, 512x256, and the face; needs a file of VGG19's weights.",
            DanceConfig(height=256, width=512, enhancer=False),
            {"batch_size": 1, "steps": 200000},
        ),
        "code": Preset(
            "The authors' release: twice the rate, poses in [0, 1], all terms for the face; needs a file of VGG19's weights.",
            DanceConfig(learning_rate=4e-4, label_range="unit", face_terms="all", discriminator_joins=100000),
            {"batch_size": 1, "steps": 400000},
        ),
        "tiny": Preset(
            "For tests: seconds, and nothing to look at.",
            DanceConfig(
                **{"height": 32, "width": 32, "base": 4, "downs": 1, "blocks": 1, "enhancer_blocks": 1},
                **{"discriminator_width": 4, "face_size": 16, "face_base": 4, "face_downs": 1, "face_blocks": 1, "scales": 2},
                **{"perceptual_network": "none", "perceptual_weight": 0.0, "pixel_weight": 1.0, "background": True},
            ),
            {"batch_size": 4, "steps": 4, "ema_samples": 8},
        ),
    }
    enhanced: Tensor
    corrected: Tensor
    face_steps: Tensor

    def __init__(self, config: DanceConfig) -> None:
        super().__init__(config)
        c = config
        self.joints: Skeleton = find_skeleton(c.skeleton)
        channels = Overlay.channels if c.background else 3
        self.generator = ResidualGenerator(6, channels, c.base, c.depth, c.depth_blocks, self._output(*c.coarse))
        self.enhancer: LocalEnhancer | None = None
        if c.enhancer:
            self.enhancer = LocalEnhancer(6, channels, c.base, c.enhancer_blocks, self._output(c.height, c.width))
        self.discriminator = MultiScaleDiscriminator(c.judged_scales, 12 if c.smoothing else 6, c.discriminator_width)
        self.face_generator: ResidualGenerator | None = None
        self.face_discriminator: PatchDiscriminator | None = None
        if c.face:
            self.face_generator = ResidualGenerator(6, 3, c.face_base, c.face_downs, c.face_blocks)
            self.face_discriminator = PatchDiscriminator(6, c.discriminator_width, "batch")
        for name in ("enhanced", "corrected"):  # which stages sampling can rely on
            self.register_buffer(name, torch.zeros((), dtype=torch.bool))
        self.known = Record(STATISTICS_BYTES)  # of the target's body
        self.register_buffer("face_steps", torch.zeros((), dtype=torch.long))
        self.apply(initialise_pix2pix)
        if self.face_generator is not None and c.face_start == "zero":
            self.face_generator.silence()
        self.shown: tuple[Batch, Scene] | None = None  # what the generator made in its turn
        self._perceptual: PerceptualLoss | None = None

    def _output(self, height: int, width: int) -> nn.Module:
        return Overlay(height, width) if self.config.background else nn.Tanh()

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a chain."""
        return ClipShape(self.config.chain, self.config.height, self.config.width)

    def shares(self) -> Mapping[str, float]:
        """Divide a budget as the paper's 5, 30 and 5 epochs; without the local enhancer all of the first two is "global"."""
        weights = {"global": 5.0, "local": 30.0, "face": 5.0} if self.enhancer else {"global": 35.0, "face": 5.0}
        return {name: weights[kind] for name in self.stages() if (kind := name.partition("-")[0]) in weights}

    def skipped(self) -> Mapping[str, str]:
        """Return every stage "face" where stage "statistics" has found no face, or too few."""
        known = self.known.read() or {}
        faces = known.get("faces")
        if faces is None or faces >= self.config.face_share * known["frames"]:  # the first releases' checkpoints do not say
            return {}
        reason = (
            f"A face (two of nose, eyes and ears) is visible in {faces:,} of {known['frames']:,} frames, and --face-share asks "
            f"for {self.config.face_share:.0%} of them."
        )
        return {name: reason for name in self.stages() if name.startswith("face")}

    def begin_anew(self) -> None:
        """Rely on no stage until it is played, and count the turns of the face from 0 on."""
        for known in (self.enhanced, self.corrected, self.face_steps):
            known.zero_()

    def averaged(self) -> tuple[nn.Module, ...]:
        """Return what draws frames."""
        return tuple(part for part in (self.generator, self.enhancer, self.face_generator) if part)

    def sampling_pass(self, batch: Batch) -> None:
        """Make the frames of a batch."""
        self.transfer(_pose(batch))

    # Stages

    def stages(self) -> Mapping[str, Stage]:
        """Return "statistics", "global", then "local" and "face" where they are configured; only the last leaves G as it is.

        With `alternate` the last stage of G and "face" follow again as "global-2" (or "local-2"), "face-2" and so on.
        """
        rate, first = self._adam(), 1 if self.enhancer else 0
        coarse = tuple(self.discriminator.scales[first:])
        stages: dict[str, Stage] = {
            "statistics": Fit(self.fit_statistics, whole=True),
            "global": self._players((self.generator,), coarse, self.perform_global, first, 0.5),
        }
        if self.enhancer is not None:
            moves = (self.generator.trunk, self.enhancer)
            stages["local"] = self._players(moves, (self.discriminator,), self.perform_local, 0, 1.0)
        if self.face_generator is not None and self.face_discriminator is not None:
            players = [
                Player("face_generator", (self.face_generator,), self.face_objective, rate),
                Player("face_discriminator", (self.face_discriminator,), self.face_discriminator_objective, rate),
            ]
            if self.config.face_terms == "all":
                players.append(Player("discriminator", (self.discriminator,), self.late_discriminator_objective, rate))
            again = {"local" if self.enhancer else "global": stages[next(reversed(stages))], "face": tuple(players)}
            stages["face"] = again["face"]
            rounds = range(2, 2 + self.config.alternate)
            stages |= {f"{name}-{number}": stage for number in rounds for name, stage in again.items()}
        return stages

    def _players(self, makers: Modules, judges: Modules, perform: Perform, first: int, share: float) -> tuple[Player, ...]:
        make = partial(self.generator_objective, perform=perform, first=first, share=share)
        judge = partial(self.discriminator_objective, perform=perform, first=first)
        return Player("generator", makers, make, self._adam()), Player("discriminator", judges, judge, self._adam())

    def _adam(self) -> OptimizerFactory:
        return adam(self.config.learning_rate, self.config.beta1, self.config.beta2)

    def fit_statistics(self, batches: Iterable[Batch]) -> Mapping[str, float]:
        """Measure the target's poses for the normaliser, and find what stands still behind; returns numbers of frames."""
        poses: list[Tensor] = []

        def watched() -> Iterator[tuple[Video, Bool[Tensor, "B 1 T H W"]]]:
            for batch in batches:
                pose = _pose(batch)
                poses.append(rearrange(pose, "b t j c -> (b t) 1 j c").float().cpu())
                yield batch.video, around_joints(pose, *batch.video.shape[3:]).unsqueeze(1)

        if self.config.background:
            still = uncovered_picture(watched())[None]
            overlays = [part for part in self.modules() if isinstance(part, Overlay)]
            for overlay in overlays:
                size = overlay.background.shape[2:]
                overlay.background.data.copy_(still if size == still.shape[2:] else halved(still))
        else:
            deque(watched(), maxlen=0)
        points = torch.cat(poses).numpy()
        found = measure(Poses(points, self.joints, self.config.width, self.config.height, fps=1.0))
        _, placed = places(torch.cat(poses)[:, 0], self.joints, FACE_PLACES)
        faces = int((shows_face(points[:, 0], self.joints) & placed.numpy()).sum())
        self.known.write({**found.to_mapping(), "faces": faces})
        standing = found.floor.standing if found.floor else 0
        seen = int((points[..., 2] > 0).any(axis=(1, 2)).sum())
        return {"frames": float(found.frames), "seen": float(seen), "standing": float(standing), "faces": float(faces)}

    def target_statistics(self) -> BodyStatistics:
        """Return the statistics of the person that it was trained on, for a normaliser.

        Raises:
            ConfigError: before stage "statistics".
        """
        if (known := self.known.read()) is None:
            raise ConfigError("this dance has not yet seen its target: train it first")
        return BodyStatistics.from_mapping(known)

    # Frames

    @untraced
    def draw(self, pose: Pose) -> Frames:
        """Return the drawn poses of a chain."""
        count, size = len(pose), (self.config.width, self.config.height)
        points = rearrange(pose, "b t j c -> (b t) j c").float().cpu().numpy()
        pixels = torch.from_numpy(draw_points(points, self.joints, *size, self.config.style)).to(pose.device)
        pixels = rearrange(rearrange(pixels, "(b t) h w c -> t b h w c", b=count).contiguous(), "t b h w c -> t b c h w")
        unit = pixels.float() / 255 if self.config.label_range == "unit" else pixels.float() / 127.5 - 1
        return list(unit)

    def chain(self, labels: Frames, paint: Paint, previous: Image | None = None) -> Frames:
        """Make frames one from the other; the first follows from zeros, or from a given frame."""
        nothing = torch.zeros_like(labels[0])
        before, frames = nothing if previous is None else previous, []
        for number, label in enumerate(labels):
            if not self.config.smoothing:
                before = nothing
            before = paint(number, label, before)
            frames.append(before)
        return frames

    def paint_global(self, number: int, label: Image, previous: Image) -> Image:
        """Return G(x_t, I_{t-1}) of stage "global"."""
        return self.generator(torch.cat([label, previous], dim=1))

    def paint_local(self, number: int, label: Image, previous: Image) -> Image:
        """Return G(x_t, I_{t-1}) of stage "local"."""
        if self.enhancer is None:
            return self.paint_global(number, label, previous)
        both = torch.cat([label, previous], dim=1)
        return self.enhancer(both, self.generator.trunk(halved(both)))

    def paint_coarse(self, number: int, label: Image, previous: Image) -> Image:
        """Return what stage "global" makes, enlarged: what there is before stage "local"."""
        small = self.paint_global(number, halved(label), halved(previous))
        return interpolate(small, label.shape[2:], mode="bilinear", align_corners=False)

    def correct(self, frame: Image, label: Image, corners: Corners, visible: Bool[Tensor, "B"]) -> Image:
        """Return the frame with G(x)_F + r in the face's box (Section "Face GAN"); without a face it stays as it is."""
        if self.face_generator is None:
            return frame
        size = self.config.face_side
        before = crop(frame, corners, size)
        residual = self.face_generator(torch.cat([crop(label, corners, size), before.to(label.dtype)], dim=1))
        return paste(frame, before + residual, corners, visible)

    def face_boxes(self, pose: Pose, shift: float = 0.0) -> tuple[list[Corners], list[Bool[Tensor, "B"]]]:
        """Return the corners of the face's box for every frame, and in which items there is one.

        Args:
            pose: joints, confidence 0 is missing.
            shift: of every item's boxes, at most, by chance, as a share of their side.
        """
        c = self.config
        found, edge = (
            [places(points, self.joints, FACE_PLACES) for points in pose.unbind(1)],
            pose.new_tensor([c.width, c.height]),
        )
        found = [(at, seen & ((at > -1) & (at < edge)).all(dim=1)) for at, seen in found]  # beyond the picture no face is
        apart = pose.new_zeros(len(pose), 2)
        if shift:
            apart += shift * c.face_side * (2 * draw_rows(lambda rows: torch.rand(rows, 2), len(pose)).to(pose) - 1)
        return [boxes_around(at + apart, c.face_side, c.height, c.width) for at, _ in found], [seen for _, seen in found]

    # What every stage makes

    def perform_global(self, batch: Batch) -> Scene:
        """Make a chain at the size of stage "global"."""
        steps = draw_steps(self.config.shift, batch.video, *self.config.coarse)
        labels, real = self.staged(batch, None if steps is None else steps * (1 if self.enhancer is None else 2))
        if self.enhancer is not None:
            labels, real = [halved(frame) for frame in labels], [halved(frame) for frame in real]
        with beside(self, steps):
            return Scene(labels, real, self.chain(labels, self.paint_global))

    def perform_local(self, batch: Batch) -> Scene:
        """Make a chain at full size."""
        steps = draw_steps(self.config.shift, batch.video, *self.frame_shape)
        labels, real = self.staged(batch, steps)
        with beside(self, steps):
            return Scene(labels, real, self.chain(labels, self.paint_local))

    def staged(self, batch: Batch, steps: Corners | None) -> tuple[Frames, Frames]:
        """Return drawn poses and real frames, every scene moved by its steps."""
        pose, real = _pose(batch), _frames(batch.video)
        if steps is not None:
            pose, real = with_steps(pose, steps), [shifted(frame, steps) for frame in real]
        return self.draw(pose), real

    def perform_face(self, batch: Batch) -> Scene:
        """Make a chain whose frames follow from corrected frames."""
        labels, real = self.draw(_pose(batch)), _frames(batch.video)
        corners, visible = self.face_boxes(_pose(batch), self.config.face_shift)

        def paint(number: int, label: Image, previous: Image) -> Image:
            return self.correct(self.paint_local(number, label, previous), label, corners[number], visible[number])

        fake = self.chain(labels, paint)
        return Scene(labels, real, fake, self.faces(labels, real, fake, corners, visible))

    def faces(
        self, labels: Frames, real: Frames, fake: Frames, corners: list[Corners], visible: list[Bool[Tensor, "B"]]
    ) -> Face | None:
        """Return the faces of a chain; None where no process sees any."""
        seen = torch.stack(visible, dim=1).flatten()
        own = seen.sum().float()
        number, usual = torch.stack([own, mean_over_processes(own)]).tolist()
        if not usual:
            return None
        if not number:
            seen = torch.arange(len(seen), device=seen.device) == 0

        def boxes(frames: Frames) -> Float[Tensor, "N C side side"]:
            parts = [crop(*one, self.config.face_side) for one in zip(frames, corners, strict=True)]
            # Item by item, so that several processes hold what one would, in the same order.
            return rearrange(parts, "t b c h w -> (b t) c h w").contiguous(memory_format=torch.channels_last)

        return Face(boxes(labels), boxes(real), boxes(fake), seen, number / usual)

    # Objectives

    def open_files(self, device: torch.device) -> None:
        """Open the perceptual network, which is apart from the weights: it is no part of the system."""
        c = self.config
        if c.perceptual_network != "none":
            self._perceptual = perceptual_loss(c.perceptual_network, c.perceptual_weights, c.perceptual_digest, device)

    def judged(self, labels: Frames, frames: Frames) -> Float[Tensor, "N D H W"]:
        """Return what the discriminator sees: pairs of frames with their poses (Equation 1), or single ones, stacked."""
        together = list(zip(labels, frames, strict=True))
        if not self.config.smoothing:
            return torch.cat([torch.cat([x, y.to(x)], dim=1) for x, y in together])
        pairs = [torch.cat([x, z, y.to(x), w.to(x)], dim=1) for (x, y), (z, w) in pairwise(together)]
        return torch.cat(pairs) if len(pairs) > 1 else pairs[0]

    def judged_face(self, face: Face, shown: Image) -> Float[Tensor, "N D h w"]:
        """Return what the face's discriminator sees: photographs or corrected frames with their drawings, augmented alike."""
        # Before the boxes without a face go: every process draws as many numbers.
        together = augment(torch.stack([face.label, shown.to(face.label)], dim=2), self.config.face_augment)
        return torch.cat(together[face.seen].unbind(2), dim=1)

    def judge_face(self, face: Face, shown: Image) -> Tensor:
        """Return what the face's discriminator says of photographs or corrected frames (Equation 3): logits."""
        assert self.face_discriminator is not None
        with nullcontext() if face.share else standing_in():
            return self.face_discriminator(self.judged_face(face, shown)).logits

    def generator_objective(self, batch: Batch, perform: Perform, first: int, share: float) -> Objective:
        """Equation 2 minimised over G: adversarial, feature matching and perceptual, halved in stage "global"."""
        scene = perform(batch)
        with learning(*self.discriminator.scales[first:]):
            real = self.discriminator(self.judged(scene.labels, scene.real), first)
        # The discriminator's turn goes on from here; a compiled graph could not be differentiated once more.
        said = [] if torch.compiler.is_compiling() else [one.logits for one in real]
        self.shown = (batch, scene.settled(said))
        if perform == self.perform_local:
            self.enhanced.fill_(True)
        return Objective(self.frame_terms(scene, real, first, share))

    def frame_terms(self, scene: Scene, real: list[Judgement], first: int, share: float) -> dict[str, Scalar]:
        """Return the terms of Equation 2 that ask for good frames, given what the discriminator makes of the real ones."""
        c = self.config
        fake = self.discriminator(self.judged(scene.labels, scene.fake), first)
        terms = {"adversarial": least_squares([one.logits for one in fake], 1.0)}
        if c.feature_weight:
            layers = [[layer.detach() for layer in one.features] for one in real], [one.features for one in fake]
            terms["feature_matching"] = c.feature_weight * feature_matching(*layers)
        return terms | self.likeness(torch.cat(scene.fake), torch.cat(scene.real), 2 * share)

    def likeness(self, fake: Image, real: Image, share: float, side: int = 0) -> dict[str, Scalar]:
        """Return the terms that compare images with the truth; the perceptual network sees smaller ones enlarged to `side`."""
        c, terms = self.config, {}
        if self._perceptual is None:
            self.open_files(fake.device)
        if self._perceptual is not None:
            seen = [interpolate(one, (side, side), mode="bilinear") if one.shape[2] < side else one for one in (fake, real)]
            terms[f"perceptual_{c.perceptual_network}"] = share * c.perceptual_weight * self._perceptual(seen[0], seen[1])
        if c.pixel_weight:
            terms["pixels"] = c.pixel_weight * absolute_error(fake, real)
        return terms

    def take_shown(self, batch: Batch, perform: Perform) -> Scene:
        """Return what the generator just made; something new where it did not play."""
        (made_of, scene), self.shown = self.shown or (None, None), self.shown
        return scene if scene is not None and made_of is batch else perform(batch)

    def discriminator_objective(self, batch: Batch, perform: Perform, first: int) -> Objective:
        """Equation 1 maximised over D, as least squares: half the real pairs' distance from 1 and the made ones' from 0."""
        scene = self.take_shown(batch, perform)
        self.shown = (batch, scene.settled())  # what was said holds once: this turn moves who said it
        real = scene.verdicts or [one.logits for one in self.discriminator(self.judged(scene.labels, scene.real), first)]
        fake = self.discriminator(self.judged(scene.labels, scene.fake), first)
        return _verdict(real, [one.logits for one in fake])

    def face_objective(self, batch: Batch) -> Objective:
        """Equation 4 minimised over G_f: Equation 3 as least squares, and the perceptual term."""
        scene = self.perform_face(batch)
        self.shown = (batch, scene.settled())
        self.face_steps += 1
        if (face := scene.face) is None:
            return Objective({})
        self.corrected.fill_(True)
        terms = {"adversarial": least_squares([self.judge_face(face, face.fake)], 1.0)}
        terms = face.weighted(terms | self.likeness(face.fake[face.seen], face.real[face.seen], 1.0, FACE_SEEN))
        if self.config.face_terms == "all":
            with torch.no_grad():
                real = self.discriminator(self.judged(scene.labels, scene.real))
            terms |= {f"frame_{name}": term for name, term in self.frame_terms(scene, real, 0, 1.0).items()}
        return Objective(terms)

    def face_discriminator_objective(self, batch: Batch) -> Objective:
        """Equation 3 maximised over D_f, as least squares; real and made faces pass apart, for batch norm tells them apart."""
        if (face := self.take_shown(batch, self.perform_face).face) is None:
            return Objective({})
        verdict = _verdict([self.judge_face(face, face.real)], [self.judge_face(face, face.fake)])
        return Objective(face.weighted(verdict.terms), face.weighted(verdict.metrics))

    def late_discriminator_objective(self, batch: Batch) -> Objective:
        """Equation 1 maximised over D in stage "face", once it has joined."""
        if int(self.face_steps) <= self.config.discriminator_joins:
            return Objective({})
        return self.discriminator_objective(batch, self.perform_face, 0)

    # Ability

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.config.height, self.config.width

    @property
    def stands_still(self) -> bool:
        """Whether it shows its person before a still background."""
        return self.config.background

    @property
    def skeleton(self) -> str:
        """Name of the layout of its poses."""
        return self.config.skeleton

    @property
    def style(self) -> DrawStyle:
        """How poses are drawn for it."""
        return self.config.style

    def transfer(self, pose: Pose, *, previous: Image | None = None) -> Video:
        """Return one frame per pose; each follows from the one before it.

        Args:
            pose: joints of consecutive frames, (x, y, confidence) in pixels of its own frames; confidence 0 is missing.
            previous: the last frame of the part before this one; None at the beginning.
        """
        frame = self.paint_local if bool(self.enhanced) or self.enhancer is None else self.paint_coarse
        corners, visible = self.face_boxes(pose) if bool(self.corrected) else ([], [])

        def paint(number: int, label: Image, previous: Image) -> Image:
            made = frame(number, label, previous)
            if corners:
                made = self.correct(made, label, corners[number], visible[number])
            return made.clamp(-1, 1)

        return torch.stack(self.chain(self.draw(pose), paint, previous), dim=2)


def _verdict(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Objective:
    """Return a discriminator's objective for its logits of real and made images."""
    terms = {"real": 0.5 * least_squares(real, 1.0), "fake": 0.5 * least_squares(fake, 0.0)}
    scores = (
        torch.stack([one.detach().float().mean() for one in real]),
        torch.stack([one.detach().float().mean() for one in fake]),
    )
    return Objective(terms, {"score_real": scores[0].mean(), "score_fake": scores[1].mean()})


def _pose(batch: Batch) -> Pose:
    if batch.pose is None:
        raise ConfigError("dance trains on clips with poses")
    return batch.pose


def _frames(video: Video) -> Frames:
    return [frame.contiguous(memory_format=torch.channels_last) for frame in video.unbind(2)]
