"""Is the run well? Rules that look at samples, scores and weights and answer in plain words.

Every rule is a function from measurements to a `Finding`; `Watch` takes the measurements. Distances are root mean squares
between `signature` vectors (a few frames, pooled to 8 x 8): they cost next to nothing and still see copies and collapse. All
thresholds are our choice.

References:
    Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, Section 2: the discriminator's
    opinion of held-out clips as the sign of over-fitting.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from kinema.core.errors import KinemaError
from kinema.core.system import Fit, System
from kinema.core.tasks import Decomposes, Forecasts, Generates, Predicts, Reconstructs, Scores
from kinema.core.types import Video
from kinema.data.dataset import Dataset

Verdict = Literal["ok", "watch", "bad"]
# Underscores: what is compared may differ in number and, for clips, in length.
Signature = Float[Tensor, "_ D"]
Scored = Float[Tensor, "_"]
Clips = Float[Tensor, "_ _ _ _ _"]
Joints = Float[Tensor, "_ _ J 3"]
Made = TypeVar("Made")

FRAMES, CELLS = 4, 8  # a signature is this many frames of this many cells squared
GALLERY = 1024  # training clips that samples are compared with
COMPARED = 48  # real clips that are scored, and that samples are compared with
YOUNG = 500  # steps before which samples are judged leniently
FRAMES_WANTED = 200  # of a person to whom motion is transferred; fewer are known by heart before long
PORTION = 16  # clips that are generated or scored at a time


@dataclass(frozen=True)
class Finding:
    """What one rule says.

    Attributes:
        name: what was looked at, in two or three words.
        value: the number behind the verdict, None where there is none.
        verdict: "ok", "watch" or "bad".
        sentence: what it means, the likely cause and what to do.
    """

    name: str
    value: float | None
    verdict: Verdict
    sentence: str


def overfitting(training: Scored, held_out: Scored) -> Finding:
    """Compare how often the discriminator calls training clips and held-out clips real.

    Args:
        training: logits of clips that it is trained on; positive means judged real.
        held_out: logits of real clips that it has never seen.
    """
    known, unknown = _share_judged_real(training), _share_judged_real(held_out)
    gap = known - unknown
    facts = f"The discriminator calls {known:.0%} of the training clips and {unknown:.0%} of the held-out clips real"
    if gap > 0.4:
        advice = "it has learnt the training clips by heart; augment, add R1, collect more clips or stop here."
        return Finding("over-fitting", unknown, "bad", f"{facts}: {advice}")
    if gap > 0.2:
        return Finding("over-fitting", unknown, "watch", f"{facts}: it begins to know them by heart; augmentation helps.")
    return Finding("over-fitting", unknown, "ok", f"{facts}: no sign of learning by heart.")


def balance(real: Scored, generated: Scored, steps_won: int) -> Finding:
    """Tell whether the discriminator has won the game.

    Args:
        real: logits of real clips.
        generated: logits of generated clips.
        steps_won: steps for which it has been winning without a break, this look included.
    """
    right = (_share_judged_real(real) + 1 - _share_judged_real(generated)) / 2
    facts = f"The discriminator is right about {right:.0%} of real and generated clips"
    if is_winning(real, generated):
        advice = "give it a smaller learning rate or fewer layers, add R1 or augmentation."
        if steps_won >= 1000:
            return Finding("balance", right, "bad", f"{facts}, for {steps_won:,} steps now: it has won; {advice}")
        return Finding("balance", right, "watch", f"{facts}: it is winning; if that lasts, {advice}")
    return Finding("balance", right, "ok", f"{facts}: both players still have something to learn.")


def is_winning(real: Scored, generated: Scored) -> bool:
    """Tell whether a discriminator is right about nearly every clip."""
    return _share_judged_real(real) > 0.97 and _share_judged_real(generated) < 0.03


def diversity(generated: Signature, real: Signature) -> Finding:
    """Compare the pairwise distances of samples with those of real clips; below a tenth the generator has collapsed."""
    ratio = _pairwise(generated) / max(_pairwise(real), 1e-6)
    facts = f"Samples differ from each other {ratio:.0%} as much as real clips do"
    if ratio < 0.1:
        advice = "the generator has collapsed; add R1 or spectral norm, augment, or train on more clips."
        return Finding("diversity", ratio, "bad", f"{facts}: {advice}")
    if ratio < 0.3:
        return Finding("diversity", ratio, "watch", f"{facts}: normal early on, a beginning collapse later.")
    return Finding("diversity", ratio, "ok", f"{facts}.")


def motion(generated: Clips, real: Clips) -> Finding:
    """Compare how much pixels change from frame to frame in samples and in real clips."""
    ratio = _change(generated) / max(_change(real), 1e-6)
    facts = f"Samples change from frame to frame {ratio:.2g} times as much as real clips do"
    if ratio < 0.1:
        return Finding("motion", ratio, "watch", f"{facts}: they are nearly still pictures.")
    if ratio > 3:
        return Finding("motion", ratio, "watch", f"{facts}: they flicker; normal early on, otherwise average weights (EMA).")
    return Finding("motion", ratio, "ok", f"{facts}.")


def mask(mask: Float[Tensor, "B C T H W"]) -> Finding:
    """Find a dead stream in the mask of a two-stream generator.

    Args:
        mask: in [0, 1]; 1 shows the foreground stream, 0 the background stream.
    """
    mean = float(mask.mean())
    darkest, brightest = torch.quantile(_thin(mask.float().flatten()), torch.tensor([0.01, 0.99], device=mask.device)).tolist()
    facts = f"The mask's mean is {mean:.2f}"
    if mean < 0.01 or brightest < 0.05:
        advice = "everything comes from the background stream; lower the sparsity weight of the mask."
        return Finding("mask", mean, "bad", f"{facts}: {advice}")
    if mean > 0.99 or darkest > 0.95:
        advice = (
            "everything comes from the foreground stream; raise the sparsity weight, and check that the camera stands still."
        )
        return Finding("mask", mean, "bad", f"{facts}: {advice}")
    if brightest < 0.25 or darkest > 0.75:
        return Finding("mask", mean, "watch", f"{facts} and one stream hardly shows; normal early on.")
    return Finding("mask", mean, "ok", f"{facts}: both streams are in use.")


def memorising(generated: Signature, training: Signature, held_out: Signature) -> Finding:
    """Compare how near samples and held-out real clips come to their nearest training clips."""
    ratio = _nearest(generated, training) / max(_nearest(held_out, training), 1e-6)
    facts = f"Samples lie {ratio:.2f} times as far from their nearest training clips as held-out real clips do"
    if ratio < 0.25:
        advice = "they are copies; stop earlier, augment, or train on more clips."
        return Finding("memorising", ratio, "bad", f"{facts}: {advice}")
    if ratio < 0.5:
        return Finding("memorising", ratio, "watch", f"{facts}: suspiciously near; compare them side by side.")
    return Finding("memorising", ratio, "ok", f"{facts}: no copies.")


def generalisation(training_error: float, held_out_error: float) -> Finding:
    """Compare reconstruction errors (root mean squares) on training and held-out clips."""
    ratio = held_out_error / max(training_error, 1e-6)
    facts = f"Reconstructions of held-out clips are off by {held_out_error:.3f}, of training clips by {training_error:.3f}"
    if ratio > 2:
        return Finding("generalisation", ratio, "watch", f"{facts}: it learns clips by heart; stop earlier or use more clips.")
    return Finding("generalisation", ratio, "ok", f"{facts}.")


def movement(player: str, before: Scored, after: Scored, steps: int) -> Finding:
    """Call out a player whose weights stand still.

    Args:
        player: its name.
        before: a sample of its weights at the last look.
        after: the same weights now.
        steps: steps in between.
    """
    relative = float((after - before).norm() / before.norm().clamp_min(1e-12))
    name = f"weights of {player}"
    if relative < 1e-7:
        advice = "is the learning rate 0, or are they not reached by the loss?"
        return Finding(name, relative, "bad", f"They did not move in {steps:,} steps: {advice}")
    return Finding(name, relative, "ok", f"They moved by {relative:.1%} in {steps:,} steps.")


def leniently(finding: Finding, step: int) -> Finding:
    """Judge the samples of a run that has hardly begun with less severity: grey clips that are all alike are normal then."""
    if step >= YOUNG or finding.verdict == "ok":
        return finding
    facts = finding.sentence.split(":")[0]
    return replace(finding, verdict="watch", sentence=f"{facts}: too early to judge, look again after step {YOUNG}.")


def not_finite(complaint: str) -> Finding:
    """Turn the trainer's complaint about NaN or infinity into a finding with advice."""
    advice = (
        "The last good checkpoint is kept. Begin a new run with a smaller learning rate, --clip-gradients 1 or --precision "
        "fp32; if it happens within the first steps, look for broken clips."
    )
    return Finding("finite numbers", None, "bad", f"{complaint.rstrip('.')}. {advice}")


def left_out(stage: str, reason: str) -> Finding:
    """Say that a stage was skipped, and why.

    Args:
        stage: its name.
        reason: a sentence.
    """
    return Finding(f"stage {stage}", None, "watch", f"Skipped, and its budget given to the others. {reason}")


def few_frames(frames: int, started: bool) -> Finding | None:
    """Say that a person was seen in few frames; None where they are enough.

    Args:
        frames: of the person whom a system learns that transfers motion.
        started: it begins with the weights of another run.
    """
    if frames >= FRAMES_WANTED:
        return None
    advice = "film more" if started else "film more, or begin with a run of anybody else (--start-from)"
    return Finding(
        "length of the target",
        float(frames),
        "watch",
        f"{frames:,} frames of the target: several hundred are wanted, for poses that were not seen come out like the nearest "
        f"one that was; {advice}.",
    )


def no_held_out() -> Finding:
    """Say that over-fitting cannot be seen."""
    advice = "prepare the dataset with a test split to watch over-fitting and copying."
    return Finding("held-out clips", 0.0, "watch", f"The dataset holds no clips out: {advice}")


def signature(video: Video) -> Signature:
    """Describe each clip by a few frames pooled to a few cells, values in [-1, 1]."""
    return _describe(video[:, :, _chosen_frames(video.shape[2])])


def _chosen_frames(frames: int) -> list[int]:
    return np.linspace(0, frames - 1, FRAMES).round().astype(int).tolist()


def _describe(stills: Video) -> Signature:
    if not len(stills):
        return stills.new_empty(0, FRAMES * 3 * CELLS**2)
    pooled = F.adaptive_avg_pool2d(stills.float().transpose(1, 2).flatten(0, 1), CELLS)
    return pooled.reshape(len(stills), -1)


def _spread(dataset: Dataset, count: int, frames: int, device: torch.device) -> Video:
    """Return clips at even distances in a dataset, so that every source has its share."""
    return _stack([dataset.video(index, frames=frames) for index in evenly_spread(len(dataset), count)], device)


def gallery(dataset: Dataset, indices: Sequence[int], frames: int, device: torch.device, *, stride: int = 1) -> Signature:
    """Return signatures of clips of a dataset, reading only the frames that count of every `stride`-th one."""
    chosen = [stride * number for number in _chosen_frames(frames)]
    portions = [indices[first : first + 64] for first in range(0, len(indices), 64)]
    return torch.cat([_describe(_stack([dataset.video(i)[chosen] for i in portion], device)) for portion in portions])


def evenly_spread(total: int, count: int) -> list[int]:
    """Return up to `count` indices at even distances below `total`."""
    return np.unique(np.linspace(0, total - 1, min(total, count)).round().astype(int)).tolist()


def _stack(clips: Sequence[UInt8[np.ndarray, "T H W 3"]], device: torch.device) -> Video:
    return torch.from_numpy(np.stack(clips)).to(device).permute(0, 4, 1, 2, 3).div(127.5).sub(1)


class Watch:
    """Takes the measurements that the rules judge, at every look at a run.

    Args:
        training: the clips that are trained on.
        held_out: real clips that are not, None where there are none.
        frames: of a clip as the system sees it; longer clips are cut to their beginning.
        device: where to measure.

    Attributes:
        training: some training clips, spread over the dataset.
        held_out: some held-out clips, perhaps none.
        gallery: signatures of up to `GALLERY` training clips.
    """

    def __init__(self, training: Dataset, held_out: Dataset | None, frames: int, device: torch.device) -> None:
        self.training = _spread(training, COMPARED, frames, device)
        self.held_out = self.training[:0] if held_out is None else _spread(held_out, COMPARED, frames, device)
        self.gallery = gallery(training, evenly_spread(len(training), GALLERY), frames, device)
        self.real = signature(self.training)
        self.unseen = signature(self.held_out)
        self._weights: dict[str, Tensor] = {}
        self._weights_step = 0
        self._winning_since: int | None = None

    def begin(self, players: Mapping[str, Sequence[nn.Module]], step: int) -> None:
        """Remember the weights that a stage begins with.

        Args:
            players: name -> the modules that it moves.
            step: steps done.
        """
        self._weights, self._weights_step = {name: _sample_of_weights(modules) for name, modules in players.items()}, step

    @torch.no_grad()
    def look(self, sampler: System[Any], players: Mapping[str, Sequence[nn.Module]], step: int, clips: Video) -> list[Finding]:
        """Measure and judge.

        Args:
            sampler: the system with the weights that are sampled.
            players: name -> the modules that it moves, with the weights that are trained.
            step: steps done.
            clips: samples of the system: generated, predicted or reconstructed.
        """
        findings = [*self._judge_weights(players, step)]
        findings += [leniently(finding, step) for finding in self._judge_samples(sampler, step, clips)]
        return findings if len(self.held_out) else [*findings, no_held_out()]

    def _judge_samples(self, sampler: System[Any], step: int, clips: Video) -> list[Finding]:
        findings: list[Finding] = []
        if len(clips):
            findings += [diversity(signature(clips), self.real)]
            findings += [motion(clips, self.training)] if clips.shape[2] > 1 else []
        if isinstance(sampler, Decomposes):
            streams = able(lambda: sampler.streams(range(PORTION))) or {}
            findings += [mask((streams["mask"] + 1) / 2)] if "mask" in streams else []
        if isinstance(sampler, Scores):
            findings += self._judge_scores(sampler, clips, step)
        generates = isinstance(sampler, Generates) and able(lambda: sampler.generate([0])) is not None
        if generates and len(clips) and len(self.held_out):
            findings.append(memorising(signature(clips), self.gallery, self.unseen))
        if isinstance(sampler, Reconstructs) and len(self.held_out):
            findings.append(generalisation(*(_error(sampler, real) for real in (self.training, self.held_out))))
        return findings

    def state_dict(self) -> dict[str, Any]:
        """Return what has to survive a stop."""
        return {"weights": self._weights, "weights_step": self._weights_step, "winning_since": self._winning_since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the state of `state_dict`."""
        self._weights, self._weights_step = dict(state["weights"]), state["weights_step"]
        self._winning_since = state["winning_since"]

    def _judge_weights(self, players: Mapping[str, Sequence[nn.Module]], step: int) -> Iterable[Finding]:
        before, steps = self._weights, step - self._weights_step
        self.begin(players, step)
        if steps > 0:
            yield from (movement(name, before[name], now, steps) for name, now in self._weights.items() if name in before)

    def _judge_scores(self, sampler: Scores, clips: Video, step: int) -> list[Finding]:
        training = _in_portions(sampler.score, self.training)
        findings = []
        if len(clips):
            generated = _in_portions(sampler.score, clips)
            if not is_winning(training, generated):
                self._winning_since = None
            elif self._winning_since is None:
                self._winning_since = step
            steps_won = 0 if self._winning_since is None else step - self._winning_since
            findings.append(balance(training, generated, steps_won))
        if len(self.held_out):
            findings.append(overfitting(training, _in_portions(sampler.score, self.held_out)))
        return findings


def players_of(system: System[Any], stage: str) -> dict[str, tuple[nn.Module, ...]]:
    """Return the players of a stage and the modules that they move; none for a closed-form stage."""
    players = system.stages()[stage]
    return {} if isinstance(players, Fit) else {player.name: player.moves for player in players}


def sample_clips(sampler: System[Any], count: int, real: Video, poses: Joints | None = None) -> Clips:
    """Return clips as the system makes them: generated from seeds 0, 1, ..., else predicted or reconstructed from real ones.

    Args:
        sampler: a system in evaluation mode.
        count: clips wanted; predictions and reconstructions are limited by the real clips.
        real: clips to predict from or to reconstruct; held-out ones where there are any.
        poses: of the real clips, for a system that forecasts from them.
    """
    if isinstance(sampler, Generates):
        portions = [range(first, min(first + PORTION, count)) for first in range(0, count, PORTION)]
        clips = able(lambda: torch.cat([sampler.generate(seeds) for seeds in portions]))
        if clips is not None:
            return clips
    if isinstance(sampler, Predicts):
        past = real[:count, :, : sampler.past_frames]
        return torch.cat([sampler.predict(part, seeds=range(len(part))) for part in past.split(PORTION)])
    if isinstance(sampler, Forecasts) and poses is not None:
        pairs = zip(real[:count].split(PORTION), poses[:count].split(PORTION), strict=True)
        return torch.cat([forecast_clips(sampler, clips, joints)[1] for clips, joints in pairs])
    if isinstance(sampler, Reconstructs):
        return _in_portions(sampler.reconstruct, real[:count])
    return real[:0]


def forecast_clips(sampler: Forecasts, real: Video, poses: Joints) -> tuple[Joints, Clips]:
    """Return one future per clip from the current frame on: its poses, and the frames that the system renders for them.

    Args:
        sampler: a system in evaluation mode.
        real: clips, of which the past is used.
        poses: of these clips.
    """
    past = sampler.past_frames
    futures = sampler.forecast_poses(real[:, :, :past], poses[:, :past], seeds=range(len(real)), futures=1)
    film = torch.cat([poses[:, past - 1 : past], futures[:, 0]], dim=1)
    return film, sampler.render_poses(real[:, :, past - 1], film)


def able(make: Callable[[], Made]) -> Made | None:
    """Return what `make` makes, or None when the system says that it cannot, in its present state or with its settings.

    A system whose mixture is not fitted yet cannot generate; a generator of one stream has no streams to show.
    """
    try:
        return make()
    except KinemaError:
        return None


def _in_portions(function: Any, clips: Video) -> Tensor:
    return torch.cat([function(part).float() for part in clips.split(PORTION)])


def _error(sampler: Reconstructs, clips: Video) -> float:
    clips = clips[:PORTION]
    return float((sampler.reconstruct(clips).float() - clips).square().mean().sqrt())


def _share_judged_real(scores: Scored) -> float:
    return float((scores > 0).float().mean())


def _pairwise(signatures: Signature) -> float:
    """Mean root-mean-square distance between different clips."""
    count, size = signatures.shape
    return float(torch.cdist(signatures, signatures).sum() / max(count * (count - 1), 1) / size**0.5)


def _nearest(clips: Signature, gallery: Signature) -> float:
    """Median root-mean-square distance of clips to the nearest of a gallery."""
    return float(torch.cdist(clips, gallery).amin(dim=1).median() / clips.shape[1] ** 0.5)


def _change(video: Video) -> float:
    return float((video[:, :, 1:].float() - video[:, :, :-1].float()).abs().mean()) if video.shape[2] > 1 else 0.0


def _thin(values: Scored, most: int = 1_000_000) -> Scored:
    # torch.quantile refuses more than 16 million values; every n-th says the same.
    return values[:: 1 + len(values) // most]


def _sample_of_weights(modules: Iterable[nn.Module], most: int = 4096) -> Float[Tensor, "W"]:
    parts = [p.detach().flatten()[:most].float().cpu() for module in modules for p in module.parameters()]
    return torch.cat(parts) if parts else torch.zeros(1)
