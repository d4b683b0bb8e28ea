"""Report cards of clips beside the truth: ``report.json``, ``report.html`` with curves, and a table of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.evaluation import transfers
from kinema.evaluation.page import made_of, moving, template, write_both
from kinema.evaluation.paired import MEAN, REPEATED, PairedCard
from kinema.evaluation.report import FORMAT_VERSION, number

TEMPLATE = "paired.html.jinja"
WIDTH, HEIGHT, LEFT, BOTTOM = 480.0, 220.0, 52.0, 30.0  # of a plot, and of the room for its numbers
USUAL_FPS = 25.0  # where nothing says it
WORDS = {
    "predictions": "Predictions of held-out clips from their first {past}",
    "reconstructions": "Reconstructions of clips",
    "transfers": "Held-out clips of a person, re-enacted from their poses",
    "pairs": "Clips that belong together",
}


def write_paired_reports(folder: Path, card: PairedCard, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write both reports and return what the first holds; the folder is made where missing.

    Args:
        folder: where they go.
        card: the answer.
        provenance: versions, time, machine and command.

    Raises:
        MediaError: when a file cannot be written.
    """
    report = {"format_version": FORMAT_VERSION, **card.report, "provenance": dict(provenance)}
    fps, past = report["protocol"]["fps"] or USUAL_FPS, report["protocol"]["given frames"]
    given = "frame" if past == 1 else f"{past} frames"
    said = made_of(report["judged"]) or made_of(report["against"])
    beside = f"{said} beside the truth" if said else None
    page = template(TEMPLATE).render(
        report=report,
        what=WORDS[report["protocol"]["kind"]].format(past=given),
        rows=rows(report),
        stills=stills(report),
        plots=[plot(name, score, past) for name, score in report["scores"].items()],
        best=best_rows(report),
        shown=[(moving([truth, made], 2, fps, made=beside), words) for truth, made, words in card.shown],
    )
    write_both(folder, page, report)
    return report


def stills(report: Mapping[str, Any]) -> tuple[str, str]:
    """Return the names of the two still pictures."""
    return ("given frame repeated" if report["protocol"]["given frames"] else "first frame repeated", "mean frame")


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of a report card: what, its value, its 95 % interval, and what both still pictures reach."""
    lines = []
    for name, score in report["scores"].items():
        unit = f", {score['unit']}" if score["unit"] else ""
        kept = (number(score[REPEATED]), number(score[MEAN]))
        lines.append((f"{name}{unit}", number(score["value"]), _range(score), *kept))
        gain = score["gain over repeating"]
        better = f"nearer in {score['clips better than repeating']:.0%} of clips"
        lines.append((f"  {name}, gain over repeating", f"{gain['value']:+.3g}", _range(gain), better, ""))
        if given := score["given frames"]:
            lines.append((f"  {name} of the given frames", number(given["value"]), _range(given), "", ""))
        if len(score["best of"]) > 1 and not report["deterministic"]:
            n, best = score["best of"][-1]
            lines.append((f"  {name}, best of {n} futures", number(best), "", "", ""))
    motion = report["motion"]
    true = f"true clips {number(motion['motion of real clips'])}"
    lines.append(("motion, levels per frame", number(motion["motion"]), "", true, ""))
    lines.append(("still clips", f"{motion['still clips']:.0%}", "", "", ""))
    return [*lines, *(transfers.rows(report["transfer"]) if "transfer" in report else [])]


def best_rows(report: Mapping[str, Any]) -> list[list[str]]:
    """Return the best of n: a line of names, then one per number of futures; nothing where there is one future."""
    scores = report["scores"]
    counts = [n for n, _ in next(iter(scores.values()))["best of"]]
    if len(counts) < 2:
        return []
    lines = [[str(n), *(number(score["best of"][place][1]) for score in scores.values())] for place, n in enumerate(counts)]
    return [["futures", *scores], *lines]


def compared(reports: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and lines of a table of reports of one protocol."""
    first = next(iter(reports.values()))
    lines = [
        (name, *(f"{number(s['value'])} ({_range(s)})" for s in report["scores"].values()), _motion(report))
        for name, report in reports.items()
    ]
    for words, key in zip(stills(first), (REPEATED, MEAN), strict=True):
        lines.append((words, *(number(score[key]) for score in first["scores"].values()), "0%"))
    return ["", *first["scores"], "motion, of real"], lines


def _motion(report: Mapping[str, Any]) -> str:
    return f"{report['motion']['motion against real']:.0%}"


def _range(score: Mapping[str, Any]) -> str:
    return f"{number(score['low'])} to {number(score['high'])}"


@dataclass(frozen=True)
class Plot:
    """A measure against time, ready to be drawn: points as SVG wants them.

    Attributes:
        title: name, unit and which end is good.
        judged: line of the judged clips.
        band: its interval, as an outline.
        repeated: line of the repeated frame.
        mean: line of the mean frame.
        ticks: places and words on the left.
        frames: places and words below.
    """

    title: str
    judged: str
    band: str
    repeated: str
    mean: str
    ticks: list[tuple[float, str]]
    frames: list[tuple[float, str]]


def plot(name: str, score: Mapping[str, Any], past: int) -> Plot:
    """Lay out the curve of a measure from the first frame that was to be made; a repeated first frame begins after itself."""
    curve, later = score["curve"], max(past, 1)
    last = len(curve["value"]) - 1
    values = [*curve["low"][past:], *curve["high"][past:], *curve[REPEATED][later:], *curve[MEAN][past:]]
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 0.5

    def across(frame: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * (frame - past) / max(last - past, 1), 1)

    def up(value: float) -> float:
        return round((HEIGHT - BOTTOM) * (high + room - value) / (high - low + 2 * room), 1)

    def line(line_values: Sequence[float], first: int = past) -> str:
        return " ".join(f"{across(frame)},{up(value)}" for frame, value in enumerate(line_values) if frame >= first)

    outline = [*enumerate(curve["low"]), *reversed(list(enumerate(curve["high"])))]  # there below, and back above
    unit = f", {score['unit']}" if score["unit"] else ""
    return Plot(
        title=f"{name}{unit} ({score['better']} is nearer)",
        judged=line(curve["value"]),
        band=" ".join(f"{across(frame)},{up(value)}" for frame, value in outline if frame >= past),
        repeated=line(curve[REPEATED], later),
        mean=line(curve[MEAN]),
        ticks=[(up(value), number(value)) for value in (low, (low + high) / 2, high)],
        frames=[(across(frame), str(frame)) for frame in sorted({past, (past + last) // 2, last})],
    )
