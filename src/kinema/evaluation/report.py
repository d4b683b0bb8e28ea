"""Report cards on disk and in the terminal: ``report.json``, ``report.html``, and a table of several that may be compared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinema.core.errors import EvaluationError
from kinema.evaluation.judge import Card
from kinema.evaluation.page import HTML_NAME as HTML_NAME
from kinema.evaluation.page import JSON_NAME, made_of, moving, template, write_both

TEMPLATE = "report.html.jinja"
FORMAT_VERSION = 1
COLUMNS = 4
CURVE_SIZE = (420, 150)  # width and height of a plot, in its own units; the template has the margins


def write_reports(folder: Path, card: Card, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write both reports and return what the first holds; the folder is made where missing.

    Args:
        folder: where they go.
        card: the answer.
        provenance: versions, time, machine and command.

    Raises:
        MediaError: when a file cannot be written.
    """
    report = {"format_version": FORMAT_VERSION, **card.report, "provenance": dict(provenance)}
    rate = report["protocol"]["fps"] / report["protocol"]["stride"]
    made = made_of(report["judged"])
    beside = f"{made} beside real ones" if made else None
    page = template(TEMPLATE).render(
        report=report,
        judged=moving(card.judged, COLUMNS, rate, made=made),
        real=moving(card.real, COLUMNS, rate, made=None),
        pairs=[(moving([one, other], 2, rate, made=beside), words) for one, other, words in card.pairs],
        rows=rows(report),
        curves={name: curve(score) for name, score in report["scores"].items()},
    )
    write_both(folder, page, report)
    return report


def read_report(path: Path) -> dict[str, Any]:
    """Read a report, or the one in a folder.

    Raises:
        EvaluationError: when it is missing, damaged or of another format.
    """
    file = path / JSON_NAME if path.is_dir() else path
    try:
        report = json.loads(file.read_text(encoding="utf-8"))
        version = report["format_version"]
    except FileNotFoundError:
        raise EvaluationError(f"{file} does not exist; kinema evaluate RUN --against DATA makes a report") from None
    except (OSError, ValueError, TypeError, KeyError):
        raise EvaluationError(f"{file} is no report of kinema evaluate, or damaged; make it again") from None
    if version != FORMAT_VERSION:
        raise EvaluationError(f"{file} has format version {version}; this kinema reads version {FORMAT_VERSION}")
    if not all(isinstance(report.get(part), dict) for part in ("judged", "protocol", "scores", "motion")):
        raise EvaluationError(f"{file} is no report of kinema evaluate, or damaged; make it again")
    return report


def refuse_unequal(reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse reports whose numbers may not stand in one table.

    Args:
        reports: name -> report.

    Raises:
        EvaluationError: naming the fields of the protocols that differ, and both values.
    """
    (first, reference), *others = reports.items()
    for name, other in others:
        one, two = reference["protocol"], other["protocol"]
        unequal = [field for field in (*one, *(two.keys() - one.keys())) if one.get(field) != two.get(field)]
        if unequal:
            differences = "; ".join(f"{field}: {_short(one.get(field))} and {_short(two.get(field))}" for field in unequal)
            raise EvaluationError(f"{first} and {name} were made by different protocols and cannot be compared ({differences})")


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the lines of a report card: what, its value, its 95 % interval, and what real clips reach."""
    lines = []
    for name, score in report["scores"].items():
        low, high, mean = (number(value) for value in (score["low"], score["high"], score["floor"]["mean"]))
        spread = f"{mean} ({number(score['floor']['low'])} to {number(score['floor']['high'])}, N = {score['floor']['count']})"
        times = f" ({score['times floor']:.3g} times the floor)" if "times floor" in score else ""
        lines.append((name, f"{number(score['value'])}{times}", f"{low} to {high}", spread))
    motion, copies = report["motion"], report["copies"]
    lines.append(("motion, levels per frame", number(motion["motion"]), "", number(motion["motion of real clips"])))
    lines.append(("still clips", f"{motion['still clips']:.0%}", "", ""))
    lines.append(("flicker, levels per frame", number(motion["flicker"]), "", number(motion["flicker of real clips"])))
    lines.append(("diversity, of real", f"{motion['diversity against real']:.0%}", "", "100%"))
    lines += content_rows(report["content"]) if "content" in report else []
    if "nearest" in copies:
        held = number(copies["nearest of held-out"]) if "nearest of held-out" in copies else ""
        lines.append(("nearest training clip, levels", number(copies["nearest"]), "", held))
    if "recognition" in report:
        lines += _recognition_rows(report["recognition"])
    return lines


@dataclass(frozen=True)
class Curve:
    """A plot of a distance over the number of clips, in the units of `CURVE_SIZE`, from the upper left corner.

    Attributes:
        zero: y of distance 0.
        points: x, y, clips and distance of every point, in words the last two.
        floor: y and distance of what real clips score.
        line: y and distance of the extrapolation, where there is one.
    """

    zero: float
    points: list[tuple[float, float, str, str]]
    floor: tuple[float, str]
    line: tuple[float, str] | None


def curve(score: Mapping[str, Any]) -> Curve:
    """Lay out the plot of one score; the axes meet at 0."""
    width, height = CURVE_SIZE
    clips, distances = zip(*score["by clips"], strict=True)
    levels = [0.0, *distances, score["floor"]["mean"], score.get("extrapolated", 0.0)]
    low, high = min(levels), max(levels)

    def across(count: float) -> float:
        return round(width * count / max(clips), 1)

    def down(distance: float) -> float:
        return round(height * (high - distance) / ((high - low) or 1), 1)

    points = [(across(n), down(d), str(n), number(d)) for n, d in zip(clips, distances, strict=True)]
    floor, line = score["floor"]["mean"], score.get("extrapolated")
    return Curve(down(0), points, (down(floor), number(floor)), None if line is None else (down(line), number(line)))


def content_rows(content: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the lines about the content of clips."""
    unit = f", {content['unit']}" if content["unit"] else ""
    spread = f"{number(content['low'])} to {number(content['high'])}" if "low" in content else ""
    lines = [(f"{content['name']}{unit}", _known(content["acd"]), spread, _known(content["acd of real clips"]))]
    share, usual = (f"{content[f'frames with content{whose}']:.1%}" for whose in ("", " of real clips"))
    lines.append(("  frames with content", share, "", usual))
    for what in ("spread across clips", "frames mixed across clips", "path length"):
        if what in content:
            words = f"  {what}{', pixels' if what == 'path length' else ''}"
            lines.append((words, _known(content[what]), "", _known(content[f"{what} of real clips"])))
    return lines


def _known(value: float | None) -> str:
    return "none" if value is None else number(value)


def _recognition_rows(recognition: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the scores by a classifier, each with its formula, and the accuracy of the classifier."""
    lines = [
        (f"{name} = {s['formula']}", number(s["value"]), f"{number(s['low'])} to {number(s['high'])}", _real(s))
        for name, s in recognition["scores"].items()
    ]
    about = recognition["classifier"]
    held = f"{about['held-out accuracy']:.1%} of {about['held-out clips']} held out"
    return [*lines, ("accuracy of the classifier", "", "", held)]


def _real(score: Mapping[str, Any]) -> str:
    chance = f", chance {number(score['chance'])}" if "chance" in score else ""
    return f"{number(score['real'])}{chance}"


def number(value: float) -> str:
    """Write a number with three digits that count, without an exponent unless it is tiny."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and set(text) <= set("0123456789abcdef") else text
