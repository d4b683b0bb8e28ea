"""What a probe found: accuracies with intervals, and the three panels of Figure 4 as a page.

References:
    Vondrick et al., "Generating Videos with Scene Dynamics", NIPS 2016, Figure 4: (a) accuracy, (b) accuracy against the
    number of labels, (c) relative gain of fine-tuning over random initialisation.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

import kinema
from kinema.core.seeds import numpy_generator
from kinema.evaluation.page import template, write_both
from kinema.evaluation.probe import FRACTIONS, WAYS, Cell, Outcome, Probe

TEMPLATE = "probe.html.jinja"
FORMAT_VERSION = 1
REPLICATES = 2000
COVERED = (0.025, 0.975)
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 300, 52, 40, 14, 16  # of a panel, in pixels

PerVideo = Float[np.ndarray, "_"]


@dataclass(frozen=True)
class Counts:
    """The test of one cell, video by video.

    Attributes:
        right: clips recognised, per video.
        clips: clips, per video.
        video: whether the mean log-probability of its clips is highest for the right class, per video.
    """

    right: PerVideo
    clips: PerVideo
    video: PerVideo


def count_right(probe: Probe, seed: int, outcome: Outcome) -> Counts:
    """Count what is right, per video."""
    test = list(probe.divisions[seed].test)
    labels, found = probe.clips.labels[test], outcome.log_probabilities
    names = sorted({probe.clips.videos[index] for index in test})
    row = {name: number for number, name in enumerate(names)}
    rows = np.array([row[probe.clips.videos[index]] for index in test])
    clips = np.bincount(rows, minlength=len(names)).astype(float)
    right = np.bincount(rows, weights=found.argmax(axis=1) == labels, minlength=len(names))
    sums, truth = np.zeros((len(names), found.shape[1])), np.zeros(len(names), int)
    np.add.at(sums, rows, found)
    truth[rows] = labels
    return Counts(right, clips, (sums.argmax(axis=1) == truth).astype(float))


def accuracies(seeds: Sequence[Counts]) -> dict[str, Any]:
    """Return accuracy per clip and per video: mean over seeds, interval, and every seed's."""
    found: dict[str, Any] = {}
    for unit in ("clip", "video"):
        replicates = _replicates(seeds, unit)
        low, high = np.quantile(replicates, COVERED)
        each = [_accuracy(seed, unit) for seed in seeds]
        found[unit] = {"accuracy": float(np.mean(each)), "low": float(low), "high": float(high), "seeds": each}
    return found


def gains(tuned: Sequence[Counts], random: Sequence[Counts]) -> dict[str, Any]:
    """Compare fine-tuning with random initialisation on the same seeds, labels and test videos.

    Returns:
        Per clip and per video: difference and ratio of the mean accuracies with their intervals, both sides drawn together;
        the ratio is None where random initialisation recognises nothing.
    """
    found: dict[str, Any] = {}
    for unit in ("clip", "video"):
        one, other = _replicates(tuned, unit), _replicates(random, unit)
        means = [float(np.mean([_accuracy(seed, unit) for seed in side])) for side in (tuned, random)]
        low, high = np.quantile(one - other, COVERED)
        found[unit] = {"difference": means[0] - means[1], "low": float(low), "high": float(high), "ratio": None}
        if means[1] > 0:
            ratio_low, ratio_high = np.quantile(one / np.maximum(other, 1e-3), COVERED)
            found[unit] |= {"ratio": means[0] / means[1], "ratio low": float(ratio_low), "ratio high": float(ratio_high)}
    return found


def summarise(probe: Probe, outcomes: Mapping[Cell, Outcome], provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the report of the seeds that are complete, at least one, as JSON values."""
    cells: defaultdict[tuple[str, float], dict[int, Cell]] = defaultdict(dict)
    for cell in outcomes:
        cells[cell.way, cell.fraction][cell.seed] = cell
    seeds = [seed for seed in range(probe.settings.seeds) if all(seed in cells[w, f] for w in WAYS for f in FRACTIONS)]
    table = {
        (way, fraction): [count_right(probe, seed, outcomes[cells[way, fraction][seed]]) for seed in seeds]
        for way in WAYS
        for fraction in FRACTIONS
    }
    rows = []
    for fraction in FRACTIONS:
        ways = {}
        for way in WAYS:
            own = [outcomes[cells[way, fraction][seed]] for seed in seeds]
            ways[way] = accuracies(table[way, fraction]) | {
                "training accuracy": float(np.mean([outcome.training_accuracy for outcome in own])),
                "seconds": float(np.sum([outcome.seconds for outcome in own])),
            }
        labelled = [outcomes[cells["random", fraction][seed]].labelled for seed in seeds]
        gain = gains(table["fine-tuned", fraction], table["random", fraction])
        rows.append({"fraction": fraction, "labelled clips": labelled, "ways": ways, "gain": gain})
    report = {
        "format_version": FORMAT_VERSION,
        "kinema": kinema.__version__,
        "run": {"name": probe.pretrained.name, **probe.pretrained.about},
        "data": _data(probe, seeds),
        "settings": asdict(probe.settings) | {"seeds": len(seeds)},
        "rows": rows,
        "provenance": dict(provenance),
    }
    return report | {"findings": findings(report)}


def _data(probe: Probe, seeds: Sequence[int]) -> dict[str, Any]:
    clips, divisions = probe.clips, [probe.divisions[seed] for seed in seeds]
    usual = []
    for division in divisions:
        training, test = clips.labels[list(division.training)], clips.labels[list(division.test)]
        usual.append(float((test == np.bincount(training).argmax()).mean()))
    return {
        "path": str(clips.dataset.path),
        "fingerprint": clips.dataset.fingerprint,
        "clips": len(clips.dataset),
        "videos": len(set(clips.videos)),
        "groups": len(set(clips.groups)),
        "classes": list(clips.classes),
        "chance": 1 / len(clips.classes),
        "most frequent class": float(np.mean(usual)),
        "held out": [division.about for division in divisions],
        "training clips": [len(division.training) for division in divisions],
        "test clips": [len(division.test) for division in divisions],
        "test videos": [len({clips.videos[index] for index in division.test}) for division in divisions],
        "left out": [division.left_out for division in divisions],
        "seen in pretraining": probe.pretrained.about["trained on"]["fingerprint"] == clips.dataset.fingerprint,
    }


def findings(report: Mapping[str, Any], unit: str = "clip") -> list[str]:
    """Say in words what came out, per clip."""
    rows = report["rows"]
    said = []
    better = [row for row in rows if row["gain"][unit]["difference"] > 0]
    sure = [row for row in better if row["gain"][unit]["low"] > 0]
    said.append(
        f"Fine-tuning recognises more clips than random initialisation at {len(better)} of {len(rows)} fractions; the 95% "
        f"interval of the difference lies above 0 at {len(sure)}."
    )
    all_labels, fewest = rows[0]["gain"][unit], rows[-1]["gain"][unit]
    if all_labels["ratio"] and fewest["ratio"]:
        said.append(
            f"Its relative gain is {all_labels['ratio']:.2f} with all labels and {fewest['ratio']:.2f} with "
            f"{words(rows[-1]['fraction'])} of them."
        )
    full = rows[0]["ways"]["random"][unit]["accuracy"]
    enough = [row["fraction"] for row in rows if row["ways"]["fine-tuned"][unit]["accuracy"] >= full]
    said.append(
        f"Fine-tuning on {words(min(enough))} of the labels is as good as random initialisation on all of them."
        if enough
        else "Fine-tuning with no fraction of the labels is as good as random initialisation on all of them."
    )
    learned = min(row["ways"][way]["training accuracy"] for row in rows for way in ("random", "fine-tuned"))
    if learned < 0.9:
        said.append(
            f"Some networks recognise only {learned:.0%} of the clips that they train on by the last steps: more --steps would "
            "change these numbers."
        )
    if report["data"]["seen in pretraining"]:
        said.append(
            "The run was trained on these clips without their labels, the test clips among them; whatever it gains may be due "
            "to having seen those."
        )
    return said


def write_reports(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json`` and ``report.html``.

    Raises:
        MediaError: when a file cannot be written.
    """
    page = template(TEMPLATE).render(report=report, ways=WAYS, words=words, panels=panels(report), **_layout())
    write_both(folder, page, report)


def table_rows(report: Mapping[str, Any], unit: str) -> list[tuple[str, ...]]:
    """Return the lines of a table: fraction, labelled clips, one accuracy per way, relative gain."""
    lines = []
    for row in report["rows"]:
        labelled = row["labelled clips"]
        count = f"{min(labelled)}" if min(labelled) == max(labelled) else f"{min(labelled)} to {max(labelled)}"
        cells = [row["ways"][way][unit] for way in WAYS]
        gain = row["gain"][unit]
        ratio = "-" if gain["ratio"] is None else f"{gain['ratio']:.2f} ({gain['ratio low']:.2f} to {gain['ratio high']:.2f})"
        accuracies = (f"{cell['accuracy']:.1%} ({cell['low']:.0%} to {cell['high']:.0%})" for cell in cells)
        lines.append((words(row["fraction"]), count, *accuracies, ratio))
    return lines


def words(fraction: float) -> str:
    """Write a fraction as people do."""
    return "all" if fraction == 1 else f"1/{round(1 / fraction)}"


def panels(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the drawings of panels b and c: marks and lines in pixels."""
    rows = report["rows"]
    accuracy = {way: [row["ways"][way]["clip"] for row in rows] for way in WAYS}
    top = min(1.0, max(0.1, *(cell["high"] for cells in accuracy.values() for cell in cells)) * 1.05)
    lines = {
        way: [
            (_x(i, len(rows)), *(_y(cell[part], 0, top) for part in ("accuracy", "low", "high")))
            for i, cell in enumerate(cells)
        ]
        for way, cells in accuracy.items()
    }
    levels = [(name, _y(report["data"][name], 0, top)) for name in ("chance", "most frequent class")]
    ratios = [row["gain"]["clip"] for row in rows]
    known = [(i, gain) for i, gain in enumerate(ratios) if gain["ratio"] is not None]
    low = min([1.0, *(gain["ratio low"] for _, gain in known)])
    high = max([1.0, *(gain["ratio high"] for _, gain in known)])
    low, high = low - 0.05 * (high - low) - 0.01, high + 0.05 * (high - low) + 0.01
    gain = [(_x(i, len(rows)), *(_y(g[part], low, high) for part in ("ratio", "ratio low", "ratio high"))) for i, g in known]
    return {
        "labels": [(_x(i, len(rows)), words(row["fraction"])) for i, row in enumerate(rows)],
        "accuracy": lines,
        "accuracy ticks": [(_y(value, 0, top), f"{value:.0%}") for value in _ticks(0, top)],
        "levels": levels,
        "gain": gain,
        "gain ticks": [(_y(value, low, high), f"{value:g}") for value in _ticks(low, high)],
        "even": _y(1.0, low, high),
    }


def _layout() -> dict[str, int]:
    return {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": RIGHT, "base": HEIGHT - BOTTOM}


def _x(place: int, count: int) -> float:
    """Return the place of a fraction: fewest labels at the left, each step doubles them."""
    share = (count - 1 - place) / max(1, count - 1)
    return round(LEFT + 24 + share * (WIDTH - LEFT - RIGHT - 48), 1)


def _y(value: float, low: float, high: float) -> float:
    return round(TOP + (high - value) / (high - low) * (HEIGHT - BOTTOM - TOP), 1)


def _ticks(low: float, high: float) -> list[float]:
    """Return four or so round numbers between two."""
    step = 10.0 ** np.floor(np.log10((high - low) / 2))
    step *= next(factor for factor in (1, 2, 5) if (high - low) / (step * factor) <= 6)
    first = int(np.ceil(low / step))
    return [round(number * step, 6) for number in range(first, int(np.floor(high / step)) + 1)]


def _accuracy(seed: Counts, unit: str) -> float:
    return float(seed.right.sum() / seed.clips.sum() if unit == "clip" else seed.video.mean())


def _replicates(seeds: Sequence[Counts], unit: str) -> Float[np.ndarray, "R"]:
    """Resample seeds, and within each its test videos; equal seeds of two ways are drawn alike."""
    each = []
    for number, seed in enumerate(seeds):
        drawn = numpy_generator(number, 1).integers(len(seed.video), size=(REPLICATES, len(seed.video)))
        if unit == "clip":
            each.append(seed.right[drawn].sum(axis=1) / seed.clips[drawn].sum(axis=1))
        else:
            each.append(seed.video[drawn].mean(axis=1))
    which = numpy_generator(len(seeds), 2).integers(len(seeds), size=(REPLICATES, len(seeds)))
    return np.stack(each, axis=1)[np.arange(REPLICATES)[:, None], which].mean(axis=1)
