"""Does it understand motion? Discriminator features for recognition with few labels.

A cell is one way to use a network (`WAYS`), one labelled fraction and one seed. Each is stored when it is done, so that a
probe that was stopped goes on where it was. Within one seed all ways see the same labelled clips in the same order, the same
test clips and, where they learn by steps, the same number of steps, the same noise and the same first weights of the last
layer.

References:
    Vondrick et al., "Generating Videos with Scene Dynamics", NIPS 2016, Section 3.3 and Figure 4.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from kinema.core.arrays import read_arrays
from kinema.core.config import from_mapping
from kinema.core.errors import DataError, EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.data.encode import beside
from kinema.data.loader import Loader
from kinema.evaluation.labelled import Labelled, divide, portion
from kinema.evaluation.probe_settings import ProbeSettings
from kinema.nn.discriminators import StridedConfig
from kinema.systems.vgan_recogniser import VGANRecogniser, VGANRecogniserConfig
from kinema.training.checkpoint import load_checkpoint, resolve
from kinema.training.trainer import TrainConfig, Trainer, borrowed_generators

WAYS = {
    "random": "random initialisation, all layers trained",
    "untrained": "features of a random initialisation, logistic regression",
    "frozen": "features of the run, logistic regression",
    "fine-tuned": "the run's weights, all layers trained",
}
FRACTIONS = (1.0, 1 / 2, 1 / 4, 1 / 8, 1 / 16)
PARTS = ("discriminator", "encoder")  # where a system may have the features, first found first taken
QUESTION_NAME, CELLS_NAME = "question.json", "cells"
FORMAT_VERSION = 1
LATEST = 20  # steps over which the training accuracy is averaged
MOST_ITERATIONS = 5000  # of logistic regression
AT_ONCE = 32  # clips whose features are computed together

Predictions = Float32[np.ndarray, "N K"]
Said = Callable[["Cell", int, int], None]


@dataclass(frozen=True)
class Pretrained:
    """The convolutions of a trained run.

    Attributes:
        name: as the user calls the run.
        config: of a recogniser of the same shape.
        weights: of its convolutions, by name.
        about: system, part, steps, SHA-256 of the checkpoint, and what it was trained on, as JSON values.
    """

    name: str
    config: VGANRecogniserConfig
    weights: Mapping[str, Tensor]
    about: Mapping[str, Any]

    @property
    def shape(self) -> ClipShape:
        """Shape of its clips."""
        return ClipShape(self.config.frames, self.config.size, self.config.size)


@dataclass(frozen=True)
class Cell:
    """One training, or one regression.

    Attributes:
        seed: decides about everything random.
        fraction: of the labels.
        way: one of `WAYS`.
    """

    seed: int
    fraction: float
    way: str

    @property
    def name(self) -> str:
        """Name of its file, without suffix."""
        return f"seed{self.seed}-{self.fraction:g}-{self.way}"


@dataclass(frozen=True)
class Outcome:
    """What a cell found.

    Attributes:
        log_probabilities: of every class for every test clip, in the order of the division.
        labelled: clips whose labels were used.
        training_accuracy: on the labelled clips, with dropout where there is any, over the last steps.
        seconds: that it took.
    """

    log_probabilities: Predictions
    labelled: int
    training_accuracy: float
    seconds: float


def open_pretrained(run: str) -> Pretrained:
    """Take the convolutions of a discriminator, or of an encoder of clips, out of a run.

    Raises:
        CheckpointError: for a run that is missing or damaged.
        EvaluationError: when its system has neither.
    """
    file = resolve(run)
    checkpoint = load_checkpoint(file)
    system, weights = checkpoint.system, checkpoint.system.state_dict()
    found = {part: {n.split(".", 2)[2]: w for n, w in weights.items() if n.startswith(f"{part}.features.")} for part in PARTS}
    part = next((part for part in PARTS if found[part]), None)
    if part is None or not isinstance(system.config, StridedConfig):
        raise EvaluationError(
            f"{run} is a run of {system.name}, which has no discriminator or encoder of clips; probe a run of vgan, "
            "vgan-future or vgan-autoencoder"
        )
    given, dataset = system.config, checkpoint.metadata.dataset
    known = {name: getattr(given, name) for name in ("frames", "size", "discriminator_width")}
    if part == "discriminator":  # an encoder has batch norm
        known["discriminator_norm"] = getattr(given, "discriminator_norm", "batch")
    config = from_mapping(VGANRecogniserConfig, known)
    about = {
        "system": system.name,
        "part": part,
        "stage": checkpoint.metadata.stage,
        "steps": checkpoint.metadata.steps,
        "checkpoint sha256": sha256(file.read_bytes()).hexdigest(),
        "trained on": {name: dataset.get(name) for name in ("fingerprint", "clips", "held_out")},
    }
    return Pretrained(run, config, found[part], about)


def refuse_misfit(pretrained: Pretrained, dataset: Dataset) -> None:
    """Raise `EvaluationError` when the clips are not those that the run can look at."""
    has, wants = dataset.shape, pretrained.shape
    if (has.height, has.width) != (wants.height, wants.width) or has.frames < wants.frames:
        raise EvaluationError(
            f"{dataset.path} has clips of {has} and {pretrained.name} was trained on {wants} (frames x height x width); "
            f"prepare it with --frames {wants.frames} --size {wants.width}"
        )


def take_over(recogniser: VGANRecogniser, pretrained: Pretrained) -> None:
    """Give a recogniser the convolutions of a run, by the names of the parameters.

    Raises:
        EvaluationError: naming the first weight that is missing or of another shape.
    """
    wanted = recogniser.features.state_dict()
    for name in sorted(wanted.keys() | pretrained.weights.keys()):
        shapes = [tuple(weights[name].shape) if name in weights else None for weights in (pretrained.weights, wanted)]
        if shapes[0] != shapes[1]:
            here, there = ("no such weight" if shape is None else f"shape {shape}" for shape in shapes)
            raise EvaluationError(f"{pretrained.name} has for features.{name} {here}, and the recogniser {there}")
    recogniser.features.load_state_dict(pretrained.weights)


class Probe:
    """All cells of a question, and the folder in which their outcomes are kept.

    Args:
        pretrained: the run.
        clips: labelled clips.
        settings: how.
        folder: made where missing.
        device: where to compute.
        overwrite: forget the outcomes of another question that are there.

    Attributes:
        divisions: seed -> what is held out.

    Raises:
        EvaluationError: for clips that the run cannot look at or that cannot be divided, or a folder that answers another
            question.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        clips: Labelled,
        settings: ProbeSettings,
        folder: Path,
        *,
        device: torch.device | None = None,
        overwrite: bool = False,
    ) -> None:
        refuse_misfit(pretrained, clips.dataset)
        self.clips, self.settings, self.folder = clips, settings, folder
        self.device = device or torch.device("cpu")
        config = replace(
            pretrained.config, classes=len(clips.classes), learning_rate=settings.learning_rate, dropout=settings.dropout
        )
        self.pretrained = replace(pretrained, config=config)
        take_over(VGANRecogniser(config), self.pretrained)  # what does not fit is refused before anything is written
        self.divisions = [
            divide(clips, seed, held_out=settings.held_out, within=settings.within) for seed in range(settings.seeds)
        ]
        self._features = lru_cache(maxsize=2)(self._compute_features)  # of the run, and of one untrained network
        self._claim(overwrite)

    @property
    def question(self) -> dict[str, Any]:
        """Everything that decides about a cell, as JSON values."""
        settings = {name: value for name, value in asdict(self.settings).items() if name != "seeds"}  # more may follow
        return {
            "format_version": FORMAT_VERSION,
            "checkpoint sha256": self.pretrained.about["checkpoint sha256"],
            "data": self.clips.dataset.fingerprint,
            **settings,
        }

    def cells(self) -> list[Cell]:
        """Return all cells, seed by seed, so that a probe that is stopped has whole seeds."""
        return [Cell(s, fraction, way) for s in range(self.settings.seeds) for fraction in FRACTIONS for way in WAYS]

    def labelled(self, seed: int, fraction: float) -> tuple[int, ...]:
        """Return the clips whose labels are used."""
        return portion(self.clips, self.divisions[seed].training, fraction, seed, spread=self.settings.spread)

    def outcome(self, cell: Cell) -> Outcome | None:
        """Return what is stored of a cell; None where it is not done, or its file is damaged."""
        try:
            file = read_arrays(self._file(cell))
            numbers = (file["labelled"].item(), file["training_accuracy"].item(), file["seconds"].item())
            found = Outcome(file["log_probabilities"], *numbers)
        except (DataError, ValueError, KeyError):
            return None
        shape = (len(self.divisions[cell.seed].test), len(self.clips.classes))
        return found if found.log_probabilities.shape == shape else None

    def run(self, said: Said = lambda cell, step, steps: None) -> Iterator[tuple[Cell, Outcome]]:
        """Yield every cell with its outcome; those that are not stored yet are computed and stored.

        Args:
            said: called with what is being computed, and how many of its steps are done.
        """
        for cell in self.cells():
            outcome = self.outcome(cell)
            if outcome is None:
                outcome = self._compute(cell, said)
                self._store(cell, outcome)
            yield cell, outcome

    def _claim(self, overwrite: bool) -> None:
        """Take the folder, or refuse it."""
        file = self.folder / QUESTION_NAME
        if file.exists() and not overwrite:
            try:
                there = json.loads(file.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                there = {}
            differ = [name for name, value in self.question.items() if there.get(name) != value]
            if differ:
                name = differ[0]
                raise EvaluationError(
                    f"{self.folder} holds a probe with another {name} ({there.get(name)!r}, not {self.question[name]!r}); "
                    "give another --out, or --overwrite to replace it"
                )
        (self.folder / CELLS_NAME).mkdir(parents=True, exist_ok=True)
        if overwrite:
            for old in (self.folder / CELLS_NAME).glob("seed*.npz"):
                old.unlink()
        with beside(file) as temporary:
            temporary.write_text(json.dumps(self.question, indent=2) + "\n", encoding="utf-8")

    def _file(self, cell: Cell) -> Path:
        return self.folder / CELLS_NAME / f"{cell.name}.npz"

    def _store(self, cell: Cell, outcome: Outcome) -> None:
        with beside(self._file(cell)) as temporary, temporary.open("wb") as file:
            np.savez(file, **asdict(outcome))

    def _compute(self, cell: Cell, said: Said) -> Outcome:
        began = time.monotonic()
        training, test = self.labelled(cell.seed, cell.fraction), self.divisions[cell.seed].test
        if cell.way in ("frozen", "untrained"):
            said(cell, 0, 1)
            features = self._features(None if cell.way == "frozen" else cell.seed)
            found, right = regress(features, self.clips.labels, training, test, self.settings.regularisation)
        else:
            recogniser, right = self._train(cell, training, said)
            found = log_probabilities(recogniser, self.clips.dataset.subset(test), self.device)
        return Outcome(found, len(training), right, time.monotonic() - began)

    def _recogniser(self, seed: int, *, pretrained: bool) -> VGANRecogniser:
        """Return a recogniser whose first weights depend on the seed, but for the convolutions of the run."""
        with borrowed_generators(self.device):
            torch.manual_seed(seed)
            recogniser = VGANRecogniser(self.pretrained.config)
        if pretrained:
            take_over(recogniser, self.pretrained)
        return recogniser.to(self.device)

    def _train(self, cell: Cell, training: Sequence[int], said: Said) -> tuple[VGANRecogniser, float]:
        """Train all layers; returns the recogniser and its accuracy over the last steps."""
        settings = self.settings
        recogniser = self._recogniser(cell.seed, pretrained=cell.way == "fine-tuned")
        size = min(settings.batch_size, len(training))
        training_settings = TrainConfig(steps=settings.steps, batch_size=size, seed=cell.seed)
        trainer = Trainer(recogniser, "recognition", training_settings, self.device)
        subset, frames = self.clips.dataset.subset(training), self.pretrained.config.frames
        loader = Loader(subset, size, seed=cell.seed, flip=settings.flip, frames=frames, fields=recogniser.needs)
        right: list[float] = []
        for batch in loader:
            right.append(trainer.step(batch.to_batch(self.device))["recogniser/accuracy"])
            said(cell, trainer.steps_done, settings.steps)
            if trainer.finished:
                break
        return recogniser.eval(), float(np.mean(right[-LATEST:]))

    def _compute_features(self, seed: int | None) -> Float32[np.ndarray, "N D"]:
        """Return the last feature map of every clip, of the run (None) or of an untrained network."""
        recogniser = self._recogniser(seed or 0, pretrained=seed is None).eval()
        return _over(lambda video: recogniser.features(video).flatten(1), recogniser, self.clips.dataset, self.device)


def regress(
    features: Float32[np.ndarray, "N D"],
    labels: Int64[np.ndarray, "N"],
    training: Sequence[int],
    test: Sequence[int],
    regularisation: float,
) -> tuple[Float32[np.ndarray, "test K"], float]:
    """Fit a logistic regression to features of unit variance.

    Returns:
        Log-probabilities of the test clips, and the accuracy on the training clips.
    """
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=MOST_ITERATIONS))
    model.fit(features[list(training)], labels[list(training)])
    scores = model.decision_function(features[list(test)])
    if scores.ndim == 1:  # of two classes, only the second one's score
        scores = np.stack([np.zeros_like(scores), scores], axis=1)
    found = torch.from_numpy(scores).log_softmax(dim=1).float().numpy()
    return found, float(model.score(features[list(training)], labels[list(training)]))


def log_probabilities(recogniser: VGANRecogniser, clips: Dataset, device: torch.device) -> Predictions:
    """Return the logarithm of the softmax of every clip."""
    return _over(lambda video: recogniser.recognise(video).log_softmax(dim=1), recogniser, clips, device)


@torch.inference_mode()
def _over(look: Callable[[Tensor], Tensor], system: VGANRecogniser, clips: Dataset, device: torch.device) -> np.ndarray:
    """Apply a function to every clip in evaluation mode; of longer clips to their beginning."""
    loader = Loader(clips, min(AT_ONCE, len(clips)), frames=system.config.frames)
    return np.concatenate([look(batch.to_batch(device).video).float().cpu().numpy() for batch in loader.epoch()])
