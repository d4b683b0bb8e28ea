"""Scores by a classifier: do clips show recognisable classes, all of them, and the ones that were asked for?

A score is worth as much as its classifier, and depends on it: absolute values of two classifiers are never comparable. So the
accuracy on held-out clips and the scores of real clips stand beside every score.

References:
    Salimans et al., "Improved Techniques for Training GANs", NIPS 2016, Section 4, for the inception score; Sun et al.,
    "TwoStreamVAN", WACV 2020, for inter- and intra-entropy (papers on disentanglement exchange the two names, hence the
    formulas); Tulyakov et al., "MoCoGAN", CVPR 2018, for the motion control score.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import entr, rel_entr

from kinema.core.errors import EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.core.shape import ClipShape
from kinema.core.tasks import abilities
from kinema.data.dataset import Dataset
from kinema.evaluation.clips import Clip, Source
from kinema.evaluation.network import exact_convolutions
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import load_checkpoint, resolve

AT_ONCE = 16  # clips in memory
FORMULAS = {
    "inception score": "exp(mean KL(p(y|x) || p(y)))",
    "inter-entropy": "H(p(y))",
    "intra-entropy": "mean H(p(y|x))",
}
MOTION_CONTROL, CONTROL_FORMULA = "motion control score", "share of clips recognised as what was asked for"
POOR = 2  # times chance: below, a classifier says little

Probabilities = Float[np.ndarray, "N K"]
Said = Callable[[str, int, int], None]
ByLabel = Callable[[Sequence[int], Sequence[int]], list[Clip]]


@dataclass(frozen=True)
class Classifier:
    """A trained recogniser.

    Attributes:
        name: as the user calls the run.
        labels: its classes.
        recognise: clips -> probabilities of the classes.
        about: system, steps, SHA-256 of the checkpoint, accuracy on held-out clips, as JSON values.
    """

    name: str
    labels: tuple[str, ...]
    recognise: Callable[[Sequence[Clip]], Probabilities]
    about: dict[str, Any]


def open_classifier(run: str, data: Path, device: torch.device) -> Classifier:
    """Open a run that recognises, and measure it on the test split of the data.

    Args:
        run: run directory or checkpoint file.
        data: prepared dataset with the same labels and a test split.
        device: where to compute.

    Raises:
        CheckpointError: for a run that is missing or damaged.
        DataError: for a damaged dataset.
        EvaluationError: when the system does not recognise, its labels or clips are others, or no clips were held out.
    """
    file = resolve(run)
    checkpoint = load_checkpoint(file)
    system, dataset = checkpoint.system.to(device), checkpoint.metadata.dataset
    if "recognise" not in abilities(system):
        able = [name for name, other in SYSTEMS.items() if "recognise" in abilities(other)]
        raise EvaluationError(f"{run} is a run of {system.name}, which recognises nothing; train one of: {', '.join(able)}")
    every, labels = Dataset(data), tuple(dataset.get("labels", ()))
    if every.labels is None or labels != every.info.labels:
        raise EvaluationError(
            f"the classifier {run} knows {_listed(labels)} and {data} has {_listed(every.info.labels)}; train it on these clips"
        )
    shape = checkpoint.metadata.clip
    refuse_unlike(run, shape, every)
    unseen = _held_out(run, data, every, dataset)

    @torch.inference_mode()
    def recognise(clips: Sequence[Clip]) -> Probabilities:
        pixels = torch.from_numpy(np.stack([clip[: shape.frames] for clip in clips])).to(device)
        with exact_convolutions():
            logits: Any = system.recognise(pixels.permute(0, 4, 1, 2, 3).div(127.5).sub(1))  # type: ignore[operator]
        return logits.double().softmax(dim=1).cpu().numpy()

    classifier = Classifier(run, labels, recognise, {})
    found = probabilities(classifier, lambda indices: [unseen.video(index) for index in indices], range(len(unseen)))
    classifier.about.update(
        {
            "system": system.name,
            "steps": checkpoint.metadata.steps,
            "checkpoint sha256": sha256(file.read_bytes()).hexdigest(),
            "held-out accuracy": float((found.argmax(axis=1) == unseen.labels).mean()),
            "held-out clips": len(unseen),
            "trained on these clips": dataset.get("fingerprint") == every.fingerprint,
        }
    )
    return classifier


def refuse_unlike(run: str, shape: ClipShape, clips: Dataset) -> None:
    """Raise `EvaluationError` for clips that a classifier cannot look at; of longer clips it sees the beginning."""
    has = clips.shape
    if (has.height, has.width) != (shape.height, shape.width) or has.frames < shape.frames:
        raise EvaluationError(
            f"the classifier {run} was trained on clips of {shape} and {clips.path} has {has} (frames x height x width); "
            "train one on these clips"
        )


def _held_out(run: str, data: Path, every: Dataset, trained_on: Any) -> Dataset:
    """Return the test split, or refuse a classifier that may have been trained on it."""
    splits = {every.record(index).split for index in range(len(every))}
    if splits != {"train", "test"}:
        raise EvaluationError(
            f"{data} has no test split on which the classifier could be measured; prepare it with --split 0.2"
        )
    if trained_on.get("fingerprint") == every.fingerprint and trained_on.get("split") != "train":
        raise EvaluationError(
            f"the classifier {run} was trained on the split {trained_on.get('split')!r} of {data}, whose held-out clips are to "
            "measure it; train it with --split train"
        )
    return Dataset(data, "test")


def probabilities(
    classifier: Classifier,
    read: Callable[[Sequence[int]], Sequence[Clip]],
    indices: Sequence[int],
    said: Callable[[int], None] = lambda done: None,
) -> Probabilities:
    """Return the probabilities of the classes for clips, in portions.

    Args:
        classifier: what recognises them.
        read: index -> clip.
        indices: of the clips, at least one.
        said: called with the number of clips that are done.
    """
    parts: list[Probabilities] = []
    for first in range(0, len(indices), AT_ONCE):
        portion = indices[first : first + AT_ONCE]
        parts.append(classifier.recognise(read(portion)))
        said(first + len(portion))
    return np.concatenate(parts)


def scores(found: Probabilities) -> dict[str, float]:
    """Return the scores of `FORMULAS`, in nats, p(y) being the mean of p(y|x) over the clips.

    ln(inception score) = inter-entropy - intra-entropy; the score lies between 1 and the number of classes.
    """
    marginal = found.mean(axis=0)
    divergence = rel_entr(found, marginal).sum(axis=1).mean()
    values = (np.exp(divergence), entr(marginal).sum(), entr(found).sum(axis=1).mean())
    return dict(zip(FORMULAS, map(float, values), strict=True))


def motion_control(found: Probabilities, asked: Int[np.ndarray, "N"]) -> float:
    """Return the share of clips in which the classifier sees the class that was asked for."""
    return float((found.argmax(axis=1) == asked).mean())


@dataclass(frozen=True)
class Scoring:
    """How clips are scored by a classifier.

    Attributes:
        classifier: what recognises them.
        replicates: resamplings behind an interval.
        seed: of the resampling.
        said: called with what is being done, and how much of it.
    """

    classifier: Classifier
    replicates: int
    seed: int
    said: Said

    def judge(
        self,
        source: Source,
        judged: Sequence[int],
        read_real: Callable[[Sequence[int]], Sequence[Clip]],
        real: Sequence[int],
    ) -> dict[str, Any]:
        """Score judged clips and as many real ones.

        Args:
            source: of the judged clips.
            judged: their indices, or seeds.
            read_real: index -> real clip.
            real: indices of real clips.

        Raises:
            EvaluationError: for a system that makes clips by label, of other labels than the classifier's.
        """
        labels = self.classifier.labels
        found, others = self._look(source.name, source.read, judged), scores(self._look("real clips", read_real, real))
        values, intervals = scores(found), self._intervals(found, lambda rows: scores(found[rows]))
        answer: dict[str, Any] = {
            "classifier": {"name": self.classifier.name, **self.classifier.about},
            "scores": {
                name: {"formula": formula, "value": values[name], **intervals[name], "real": others[name]}
                for name, formula in FORMULAS.items()
            },
            "recognised as": dict(zip(labels, np.bincount(found.argmax(axis=1), minlength=len(labels)).tolist(), strict=True)),
        }
        if source.by_label is not None:
            answer["scores"][MOTION_CONTROL] = self._by_label(source, source.by_label, judged)
        return answer

    def _by_label(self, source: Source, make: ByLabel, seeds: Sequence[int]) -> dict[str, Any]:
        """Ask a conditional system for every class in turn; beside the score stands what held-out clips reach."""
        labels = self.classifier.labels
        if source.labels != labels:
            raise EvaluationError(
                f"{source.name} makes {_listed(source.labels)} and the classifier {self.classifier.name} knows "
                f"{_listed(labels)}; train both on the same labels"
            )
        asked = np.arange(len(seeds)) % len(labels)

        def read(places: Sequence[int]) -> list[Clip]:
            return make([seeds[place] for place in places], asked[list(places)].tolist())

        found = self._look(f"{source.name} by label", read, range(len(seeds)))
        interval = self._intervals(found, lambda rows: {"": motion_control(found[rows], asked[rows])})[""]
        held_out = self.classifier.about["held-out accuracy"]
        seen = found.argmax(axis=1) == asked
        return {
            "formula": CONTROL_FORMULA,
            "value": motion_control(found, asked),
            **interval,
            "real": held_out,
            "chance": 1 / len(labels),
            "by class": {name: float(seen[asked == label].mean()) for label, name in enumerate(labels) if label in asked},
        }

    def _look(self, what: str, read: Callable[[Sequence[int]], Sequence[Clip]], indices: Sequence[int]) -> Probabilities:
        return probabilities(self.classifier, read, indices, lambda done: self.said(f"recognising {what}", done, len(indices)))

    def _intervals(
        self, found: Probabilities, measure: Callable[[np.ndarray], dict[str, float]]
    ) -> dict[str, dict[str, float]]:
        """Return 95 % percentile intervals over resampled clips."""
        generator = numpy_generator(self.seed, 3)
        drawn = [measure(generator.integers(len(found), size=len(found))) for _ in range(self.replicates)]
        bounds = {name: np.quantile([one[name] for one in drawn], (0.025, 0.975)).tolist() for name in drawn[0]}
        return {name: {"low": low, "high": high} for name, (low, high) in bounds.items()}


def warnings(answer: dict[str, Any], split: str) -> list[str]:
    """Say in words what a reader of the scores has to know."""
    about, said = answer["classifier"], []
    chance = 1 / len(answer["recognised as"])
    if about["held-out accuracy"] < min(POOR * chance, 0.5 + chance / 2):
        said.append(
            f"The classifier recognises {about['held-out accuracy']:.0%} of held-out clips, and {chance:.0%} is chance: its "
            "scores say little."
        )
    if not about["trained on these clips"]:
        said.append("The classifier was trained on other clips; nothing says that the held-out ones were not among them.")
    if split != "test":
        said.append(
            "The classifier was trained on some of the real clips, and is surer of those than of any others; --split test "
            "compares with unseen ones."
        )
    return said


def _listed(labels: Sequence[str], shown: int = 5) -> str:
    if not labels:
        return "no classes"
    more = f" and {len(labels) - shown} more" if len(labels) > shown else ""
    return f"{len(labels)} classes ({', '.join(labels[:shown])}{more})"
