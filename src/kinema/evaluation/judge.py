"""One protocol from clips to a report card: distances with their floor and spread, motion, diversity, copies.

References:
    What must stand beside a number, and why: docs/evaluation.md. All thresholds are a choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32

import kinema
from kinema.core.errors import EvaluationError
from kinema.data.dataset import Dataset
from kinema.evaluation.clips import PIXELS, Clip, Source, strided
from kinema.evaluation.content import Content, ContentRuler, doubts, look_at_all, summarise
from kinema.evaluation.frechet import HALVINGS, Distance, Features, bootstrap, floor, frechet_distance, kernel_distance
from kinema.evaluation.measures import ALONE, Measures, Workers, drawn, measure_all, measure_dataset, refuse_short
from kinema.evaluation.network import FeatureNetwork
from kinema.evaluation.recognition import Classifier, Scoring
from kinema.evaluation.recognition import warnings as recognition_warnings
from kinema.training import health

PROTOCOL_VERSION = 1
MINIMUM_CLIPS = 32
USUAL_CLIPS = 256
GALLERY = 8192  # training clips among which copies are looked for
PAIRS = 10  # nearest pairs that are shown
FEW_REPLICATES, MANY_VECTORS = 20, 512  # resampling many clips is slow, and their spread is small
CURVE = (1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # shares of the clips at which the distance is shown
DISTANCES: dict[str, Distance] = {"frechet": frechet_distance, "kernel": kernel_distance}

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
        stride: every so many frames of a clip are judged, from the first on.
    """

    count: int | None = None
    seed: int = 0
    split: Split = "train"
    replicates: int = 100
    stride: int = 1


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
    workers: Workers = ALONE,
    ruler: ContentRuler | None = None,
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
        workers: who measures real clips.
        ruler: of the content distance; None leaves it out.
        shown: clips of either side for the eye.
        said: called with what is being done, and how much of it.

    Raises:
        EvaluationError: for clips that do not fit the dataset or are too few.
        DataError: for a damaged dataset, or one without the split.
    """
    real = Dataset(data, None if question.split == "all" else question.split)
    refuse_unlike(source, real, question.stride)
    source = strided(source, question.stride)
    count = chosen_count(source, real, question.count)
    real_order = drawn(min(2 * count, len(real)), len(real), question.seed)
    judged_order = list(range(count)) if source.count is None else drawn(count, source.count, question.seed)
    if source.count is None:
        judged_order = [question.seed + number for number in judged_order]

    def read_real(indices: Sequence[int]) -> list[Clip]:
        return [real.video(index)[:: question.stride] for index in indices]

    pool, damaged = measure_dataset(
        real,
        real_order,
        network,
        question.seed,
        folder=store_folder,
        stride=question.stride,
        workers=workers,
        said=lambda done: said("real clips", done, len(real_order)),
    )
    judged = measure_all(source.read, judged_order, network, said=lambda done: said(source.name, done, len(judged_order)))
    scores = _scores(pool.features, judged.features, network, question, said)
    copies, pairs = _copies(judged, data, source, judged_order, question.stride)
    report = {
        "kinema": kinema.__version__,
        "judged": {"name": source.name, **source.about, "clips": _which(source, question.seed, count)},
        "against": {"name": real.path.resolve().name, "clips in split": len(real)},
        "protocol": _protocol(source, real, network, question, judged.features),
        "scores": scores,
        "motion": _motion(pool.first(count), judged),
        "copies": copies,
    }
    if ruler:
        report["content"] = _content(ruler, read_real, real_order[:count], source, judged_order, question.seed, said)
    report["against"]["share that overlaps"] = overlapping(real, real_order)
    report["warnings"] = [*network.notes, *_warnings(report, source, judged.features, network)]
    report["warnings"] += [f"The stored measures {path.name} were damaged and have been made again." for path in damaged]
    if classifier is not None:
        recognition = Scoring(classifier, report["protocol"]["replicates"], question.seed, said)
        report["recognition"] = recognition.judge(source, judged_order, read_real, real_order[:count])
        report["protocol"]["classifier sha256"] = classifier.about["checkpoint sha256"]
        report["warnings"] += recognition_warnings(report["recognition"], question.split)
    return Card(report, source.read(judged_order[:shown]), read_real(real_order[:shown]), pairs)


def refuse_unlike(source: Source, real: Dataset, stride: int = 1) -> None:
    """Raise `EvaluationError` where clips differ from those of a dataset in more than what they show, or are too short."""
    refuse_short(-(-real.shape.frames // stride))
    if source.shape != real.shape:
        raise EvaluationError(
            f"{source.name} has clips of {source.shape} and {real.path} of {real.shape} (frames x height x width); judge "
            "against data prepared with the same --frames and --size"
        )
    if source.about.get("dataset") == real.fingerprint and (source.about["split"] == "all" or real.split != "train"):
        held_out = source.about["split"] == "test"
        remedy = "judge it with --split train" if held_out else "hold some out: prepare it with --split 0.2"
        raise EvaluationError(f"the clips of {source.name} are among the real ones, and their distance is none; {remedy}")
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


def overlapping(real: Dataset, indices: Sequence[int]) -> float:
    """Return the share of clips that have frames in common with another one of them."""
    records = sorted((real.record(index) for index in indices), key=lambda record: (record.source, record.first_frame))
    pairs = [pair for pair in pairwise(records) if pair[0].shares_frames(pair[1], real.shape.frames)]
    return len({record.key for pair in pairs for record in pair}) / len(records)


def _which(source: Source, seed: int, count: int) -> str:
    return f"seeds {seed} to {seed + count - 1}" if source.count is None else f"{count} of {source.count}, drawn by seed {seed}"


def _protocol(source: Source, real: Dataset, network: FeatureNetwork, question: Question, features: Features) -> dict[str, Any]:
    """Return everything that must be equal before two numbers may stand in one table."""
    count = len(features)
    return {
        "version": PROTOCOL_VERSION,
        "real data": real.fingerprint,
        "split": question.split,
        "real clips": count,
        "judged clips": count,
        "frames": source.shape.frames,
        "stride": question.stride,
        "height": real.shape.height,
        "width": real.shape.width,
        "fps": real.info.fps,
        "real storage": PIXELS,
        "judged storage": source.storage,
        "features": network.id,
        "features sha256": network.sha256,
        **({"predicted from": source.about["predicted from"]} if "predicted from" in source.about else {}),
        "preprocessing": network.preprocessing,
        "precision": "float32",
        "seed": question.seed,
        "replicates": _replicates(question, features),
    }


def _replicates(question: Question, features: Features) -> int:
    return question.replicates if _vectors(features) <= MANY_VECTORS else min(question.replicates, FEW_REPLICATES)


def _vectors(features: Features) -> int:
    """Return how many samples there are: clips, or frames of clips."""
    return features.size // features.shape[-1]


def _scores(
    pool: Features, judged: Features, network: FeatureNetwork, question: Question, said: Said
) -> dict[str, dict[str, Any]]:
    """Return both distances with what stands beside them."""
    count, replicates, scores = len(judged), _replicates(question, judged), {}
    real, parts = pool[:count], [round(share * count) for share in CURVE]
    done, total = 0, len(DISTANCES) * (replicates + 1 + HALVINGS + len(parts))

    def counted(distance: Distance) -> Distance:
        def measured(one: Features, other: Features) -> float:
            nonlocal done
            done += 1
            said("distances", done, total)
            return distance(one, other)

        return measured

    for name, distance in {name: counted(distance) for name, distance in DISTANCES.items()}.items():
        curve = [[part, distance(real[:part], judged[:part])] for part in parts]
        lowest = floor(distance, pool, count, seed=question.seed)
        interval = bootstrap(distance, real, judged, replicates=replicates, seed=question.seed)
        score: dict[str, Any] = {"value": curve[-1][1], **asdict(interval), "floor": asdict(lowest)}
        if name == "frechet":
            score["times floor"] = score["value"] / max(lowest.mean, 1e-12)
            if _vectors(judged[: parts[0]]) > judged.shape[-1]:
                score["extrapolated"] = extrapolated(curve)
        score["by clips"] = curve
        scores[network.name_of(name)] = score
    return scores


def extrapolated(curve: Sequence[Sequence[float]]) -> float:
    """Return the distance at infinitely many clips on the straight line in 1/N through the curve, by least squares.

    The bias of the Frechet distance falls as 1/N where there are more vectors than dimensions; with fewer, it does not.

    Args:
        curve: numbers of clips and distances.

    References:
        Chong and Forsyth, "Effectively Unbiased FID and Inception Score", CVPR 2020 (arXiv 1911.07023), Section 3.
    """
    clips, distances = np.asarray(curve, np.float64).T
    return float(np.polyfit(1 / clips, distances, 1)[1])


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


def _content(
    ruler: ContentRuler,
    read_real: Callable[[Sequence[int]], list[Clip]],
    real_order: Sequence[int],
    source: Source,
    judged_order: Sequence[int],
    seed: int,
    said: Said,
) -> dict[str, Any]:
    def look(what: str, read: Callable[[Sequence[int]], list[Clip]], order: Sequence[int]) -> Content:
        return look_at_all(read, order, ruler, seed, lambda done: said(f"content of {what}", done, len(order)))

    return summarise(look(source.name, source.read, judged_order), look("real clips", read_real, real_order), ruler)


def _copies(
    judged: Measures, data: Path, source: Source, order: Sequence[int], stride: int
) -> tuple[dict[str, Any], list[tuple[Clip, Clip, str]]]:
    """Compare judged clips with their nearest training clips, and held-out clips with theirs."""
    training, held_out = _split(data, "train"), _split(data, "test")
    if training is None:
        return {"unknown": "the dataset has no training clips"}, []
    cpu, frames = torch.device("cpu"), source.shape.frames
    indices = health.evenly_spread(len(training), GALLERY)
    gallery = health.gallery(training, indices, frames, cpu, stride=stride)
    distances = torch.cdist(torch.from_numpy(judged.signature), gallery) / gallery.shape[1] ** 0.5
    nearest, which = (values.numpy() for values in distances.min(dim=1))
    found: dict[str, Any] = {"training clips": len(indices), "nearest": _levels(nearest)}
    if held_out is not None:
        unseen = health.gallery(held_out, health.evenly_spread(len(held_out), len(judged)), frames, cpu, stride=stride)
        held = (torch.cdist(unseen, gallery).amin(dim=1) / gallery.shape[1] ** 0.5).numpy()
        ratio = health.memorising(torch.from_numpy(judged.signature), gallery, unseen).value
        found |= {"held-out clips": len(unseen), "nearest of held-out": _levels(held), "against held-out": ratio}
    pairs = []
    for row in np.argsort(nearest)[:PAIRS].tolist():
        index = indices[int(which[row])]
        name = f"seed {order[row]}" if source.count is None else f"clip {order[row]}"
        words = f"{name}; training clip {training.record(index).key}; {nearest[row] * 127.5:.1f} levels apart"
        pairs.append((source.read([order[row]])[0], training.video(index)[::stride], words))
    return found, pairs


def _levels(distances: Float32[np.ndarray, "_"]) -> float:
    """Return the median in levels of 0 to 255."""
    return float(np.median(distances) * 127.5)


def _split(data: Path, split: str) -> Dataset | None:
    every = Dataset(data)
    return Dataset(data, split) if any(every.record(index).split == split for index in range(len(every))) else None


def _warnings(report: dict[str, Any], source: Source, features: Features, network: FeatureNetwork) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    count, motion, copies = len(features), report["motion"], report["copies"]
    frechet = report["scores"][network.name_of("frechet")]
    said = []
    if (vectors := _vectors(features)) < (size := features.shape[-1]):
        what = "clips" if vectors == count else "frames"
        said.append(
            f"{vectors} {what} are fewer than the {size} dimensions of the features: the Frechet distance is biased upwards, "
            "so read it as a multiple of its floor and compare it at equal numbers only; the kernel distance has no such bias."
        )
    if frechet["floor"]["count"] < count:
        said.append(
            f"The real set is too small for two disjoint sets of {count} clips: the floor is that of "
            f"{frechet['floor']['count']}, which is too high for a Frechet distance."
        )
    if (share := report["against"]["share that overlaps"]) > 0:
        said.append(
            f"{share:.0%} of the real clips share frames with another one: the two sets behind the floor are not independent, "
            "so that it is too low, and intervals are too narrow; kinema prepare without --stride makes clips that share none."
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
    said += doubts(report["content"]) if "content" in report else []
    return said
