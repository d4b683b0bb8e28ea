"""One protocol from clips to a report card: distances with their floor and spread, motion, diversity, copies.

References:
    What must stand beside a number, and why: docs/evaluation.md. All thresholds are a choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

import kinema
from kinema.core.errors import EvaluationError
from kinema.data.dataset import Dataset
from kinema.evaluation.clips import PIXELS, Clip, Source
from kinema.evaluation.features import FeatureNetwork
from kinema.evaluation.frechet import Distance, bootstrap, floor, frechet_distance, kernel_distance
from kinema.evaluation.measures import Measures, Store, drawn, measure_all, refuse_short
from kinema.evaluation.recognition import Classifier, Scoring
from kinema.evaluation.recognition import warnings as recognition_warnings
from kinema.training import health

PROTOCOL_VERSION = 1
MINIMUM_CLIPS = 32
USUAL_CLIPS = 256
GALLERY = 8192  # training clips among which copies are looked for
PAIRS = 3  # nearest pairs that are shown
FEW_REPLICATES, MANY_CLIPS = 20, 512  # resampling many clips is slow, and their spread is small

Split = Literal["train", "test", "all"]
Said = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        count: clips on either side; None takes up to `USUAL_CLIPS`.
        seed: of the drawing of clips and of the resampling, 0 or more.
        split: of the real clips.
        replicates: of the bootstrap.
    """

    count: int | None = None
    seed: int = 0
    split: Split = "train"
    replicates: int = 100


@dataclass(frozen=True)
class Card:
    """The answer.

    Attributes:
        report: JSON values; what ``report.json`` holds.
        judged: some of the judged clips.
        real: some of the real clips.
        pairs: judged clips and their nearest training clips, nearest first, with words about each.
    """

    report: dict[str, Any]
    judged: list[Clip]
    real: list[Clip]
    pairs: list[tuple[Clip, Clip, str]]


def judge(
    source: Source,
    data: Path,
    network: FeatureNetwork,
    question: Question,
    *,
    classifier: Classifier | None = None,
    store_folder: Path | None = None,
    shown: int = 12,
    said: Said = lambda what, done, total: None,
) -> Card:
    """Measure clips against real ones.

    Args:
        source: the clips to be judged.
        data: a prepared dataset.
        network: describes clips.
        question: how many, which.
        classifier: recognises the classes of the dataset; None leaves out the scores by it.
        store_folder: where measures of real clips are kept; None keeps none.
        shown: clips of either side for the eye.
        said: called with what is being done, and how much of it.

    Raises:
        EvaluationError: for clips that do not fit the dataset or are too few.
        DataError: for a damaged dataset, or one without the split.
    """
    real = Dataset(data, None if question.split == "all" else question.split)
    refuse_unlike(source, real)
    count = chosen_count(source, real, question.count)
    store = Store(store_folder, real, network, question.seed) if store_folder else None
    real_order = drawn(min(2 * count, len(real)), len(real), question.seed)
    judged_order = list(range(count)) if source.count is None else drawn(count, source.count, question.seed)
    if source.count is None:
        judged_order = [question.seed + number for number in judged_order]

    def read_real(indices: Sequence[int]) -> list[Clip]:
        return [real.video(index) for index in indices]

    pool = measure_all(read_real, real_order, network, store=store, said=lambda done: said("real clips", done, len(real_order)))
    judged = measure_all(source.read, judged_order, network, said=lambda done: said(source.name, done, len(judged_order)))
    scores = _scores(pool, judged, network, question, said)
    copies, pairs = _copies(judged, data, real, source, judged_order)
    report = {
        "kinema": kinema.__version__,
        "judged": {"name": source.name, **source.about, "clips": _which(source, question.seed, count)},
        "against": {"name": real.path.resolve().name, "clips in split": len(real)},
        "protocol": _protocol(source, real, network, question, count),
        "scores": scores,
        "motion": _motion(pool.first(count), judged),
        "copies": copies,
    }
    report["warnings"] = _warnings(report, source, pool.features.shape[1], store)
    if classifier is not None:
        real_clips = (lambda indices: [real.video(index) for index in indices], real_order[:count])
        recognition = Scoring(classifier, report["protocol"]["replicates"], question.seed, said)
        report["recognition"] = recognition.judge(source, judged_order, *real_clips)
        report["protocol"]["classifier sha256"] = classifier.about["checkpoint sha256"]
        report["warnings"] += recognition_warnings(report["recognition"], question.split)
    return Card(report, source.read(judged_order[:shown]), read_real(real_order[:shown]), pairs)


def refuse_unlike(source: Source, real: Dataset) -> None:
    """Raise `EvaluationError` where clips differ from those of a dataset in more than what they show."""
    refuse_short(real.shape.frames)
    if source.shape != real.shape:
        raise EvaluationError(
            f"{source.name} has clips of {source.shape} and {real.path} of {real.shape} (frames x height x width); judge "
            "against data prepared with the same --frames and --size"
        )
    if source.fps is not None and abs(source.fps - real.info.fps) > 0.01 * real.info.fps:
        raise EvaluationError(
            f"{source.name} has {source.fps:g} frames per second and {real.path} {real.info.fps:g}; judge against data "
            f"prepared with --fps {source.fps:g}"
        )


def chosen_count(source: Source, real: Dataset, count: int | None) -> int:
    """Return how many clips of either side are judged.

    Raises:
        EvaluationError: when there are fewer, or fewer than `MINIMUM_CLIPS`.
    """
    split = f" in the split {real.split!r}" if real.split else ""
    sides = [(len(real), f"{real.path} has {len(real)} clips{split}")]
    if source.count is not None:
        sides.append((source.count, f"{source.name} has {source.count} clips"))
    most, where = min(sides)
    if most < MINIMUM_CLIPS:
        raise EvaluationError(f"{where}; a distance between distributions needs at least {MINIMUM_CLIPS} on either side")
    if count is not None and not MINIMUM_CLIPS <= count <= most:
        what = f"--count {count} is below the least number of clips, {MINIMUM_CLIPS}" if count < MINIMUM_CLIPS else where
        raise EvaluationError(f"{what}; give --count {MINIMUM_CLIPS} to {most}")
    return min(USUAL_CLIPS, most) if count is None else count


def _which(source: Source, seed: int, count: int) -> str:
    return f"seeds {seed} to {seed + count - 1}" if source.count is None else f"{count} of {source.count}, drawn by seed {seed}"


def _protocol(source: Source, real: Dataset, network: FeatureNetwork, question: Question, count: int) -> dict[str, Any]:
    """Return everything that must be equal before two numbers may stand in one table."""
    return {
        "version": PROTOCOL_VERSION,
        "real data": real.fingerprint,
        "split": question.split,
        "real clips": count,
        "judged clips": count,
        "frames": real.shape.frames,
        "stride": 1,
        "height": real.shape.height,
        "width": real.shape.width,
        "fps": real.info.fps,
        "real storage": PIXELS,
        "judged storage": source.storage,
        "features": network.id,
        "features sha256": network.sha256,
        "preprocessing": network.preprocessing,
        "seed": question.seed,
        "replicates": _replicates(question, count),
    }


def _replicates(question: Question, count: int) -> int:
    return question.replicates if count <= MANY_CLIPS else min(question.replicates, FEW_REPLICATES)


def _scores(
    pool: Measures, judged: Measures, network: FeatureNetwork, question: Question, said: Said
) -> dict[str, dict[str, Any]]:
    count, scores = len(judged), {}
    distances: Mapping[str, Distance] = {"frechet": frechet_distance, "kernel": kernel_distance}
    for number, (name, distance) in enumerate(distances.items()):
        said("distances", number, len(distances))
        interval = bootstrap(
            distance, pool.features[:count], judged.features, replicates=_replicates(question, count), seed=question.seed
        )
        lowest = floor(distance, pool.features, count, seed=question.seed)
        score: dict[str, Any] = {
            "value": distance(pool.features[:count], judged.features),
            **asdict(interval),
            "floor": asdict(lowest),
        }
        if name == "frechet":
            score["times floor"] = score["value"] / max(lowest.mean, 1e-12)
        score["by clips"] = [
            [part, distance(pool.features[:part], judged.features[:part])] for part in (count // 4, count // 2, count)
        ]
        scores[f"{name}[{network.id}]"] = score
    said("distances", len(distances), len(distances))
    return scores


def _motion(real: Measures, judged: Measures) -> dict[str, Any]:
    """Return what moves, in levels of 0 to 255, and how much clips differ, as a share of what real clips do."""
    diversity = health.diversity(torch.from_numpy(judged.signature), torch.from_numpy(real.signature)).value
    return {
        "motion": float(judged.motion.mean()),
        "motion of real clips": float(real.motion.mean()),
        "motion against real": float(judged.motion.mean() / max(float(real.motion.mean()), 1e-6)),
        "still clips": float((judged.motion < 0.1 * np.median(real.motion)).mean()),
        "flicker": float(judged.flicker.mean()),
        "flicker of real clips": float(real.flicker.mean()),
        "diversity against real": diversity,
    }


def _copies(
    judged: Measures, data: Path, real: Dataset, source: Source, order: Sequence[int]
) -> tuple[dict[str, Any], list[tuple[Clip, Clip, str]]]:
    """Compare judged clips with their nearest training clips, and held-out clips with theirs."""
    training, held_out = _split(data, "train"), _split(data, "test")
    if training is None:
        return {"unknown": "the dataset has no training clips"}, []
    cpu, frames = torch.device("cpu"), real.shape.frames
    indices = health.evenly_spread(len(training), GALLERY)
    gallery = health.gallery(training, indices, frames, cpu)
    distances = torch.cdist(torch.from_numpy(judged.signature), gallery) / gallery.shape[1] ** 0.5
    nearest, which = (values.numpy() for values in distances.min(dim=1))
    found: dict[str, Any] = {"training clips": len(indices), "nearest": _levels(nearest)}
    if held_out is not None:
        unseen = health.gallery(held_out, health.evenly_spread(len(held_out), len(judged)), frames, cpu)
        held = (torch.cdist(unseen, gallery).amin(dim=1) / gallery.shape[1] ** 0.5).numpy()
        ratio = health.memorising(torch.from_numpy(judged.signature), gallery, unseen).value
        found |= {"held-out clips": len(unseen), "nearest of held-out": _levels(held), "against held-out": ratio}
    pairs = []
    for row in np.argsort(nearest)[:PAIRS].tolist():
        index = indices[int(which[row])]
        name = f"seed {order[row]}" if source.count is None else f"clip {order[row]}"
        words = f"{name}; training clip {training.record(index).key}; {nearest[row] * 127.5:.1f} levels apart"
        pairs.append((source.read([order[row]])[0], training.video(index), words))
    return found, pairs


def _levels(distances: Float32[np.ndarray, "_"]) -> float:
    """Return the median in levels of 0 to 255."""
    return float(np.median(distances) * 127.5)


def _split(data: Path, split: str) -> Dataset | None:
    every = Dataset(data)
    return Dataset(data, split) if any(every.record(index).split == split for index in range(len(every))) else None


def _warnings(report: Mapping[str, Any], source: Source, size: int, store: Store | None) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    count, motion, copies = report["protocol"]["judged clips"], report["motion"], report["copies"]
    frechet = next(score for name, score in report["scores"].items() if name.startswith("frechet"))
    said = []
    if count < size:
        said.append(
            f"{count} clips are fewer than the {size} dimensions of the features: the Frechet distance is biased upwards, "
            "so read it as a multiple of its floor and compare it at equal numbers only; the kernel distance has no such bias."
        )
    if frechet["floor"]["count"] < count:
        said.append(
            f"The real set is too small for two disjoint sets of {count} clips: the floor is that of "
            f"{frechet['floor']['count']}, which is too high for a Frechet distance."
        )
    if source.storage != PIXELS:
        said.append(
            f"The judged clips were stored as {source.storage} and the real ones were not: encoding alone changes the "
            "distance; judge a run itself, or clips stored as npy."
        )
    if source.fps is None:
        said.append("Nothing says how many frames per second the judged clips have; the rate of the data is assumed.")
    if motion["motion against real"] < 0.1:
        said.append("The judged clips are nearly still pictures.")
    if motion["diversity against real"] is not None and motion["diversity against real"] < 0.1:
        said.append("The judged clips hardly differ from each other: the generator has collapsed.")
    if copies.get("against held-out", 1) < 0.5:
        said.append("The judged clips lie nearer to training clips than held-out clips do by half or more: they may be copies.")
    if "against held-out" not in copies:
        said.append("The dataset has no test split beside its training clips, so that copies cannot be told from good clips.")
    if store and store.damaged:
        said.append(f"The stored measures {store.path.name} were damaged and have been made again.")
    return said
