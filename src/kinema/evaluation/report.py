"""Report cards on disk and in the terminal: ``report.json``, ``report.html``, and a table of several that may be compared."""

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kinema.core.errors import EvaluationError
from kinema.data.encode import beside, write_video
from kinema.evaluation.clips import Clip
from kinema.evaluation.judge import Card
from kinema.training.sheets import grid

JSON_NAME, HTML_NAME, TEMPLATE = "report.json", "report.html", "report.html.jinja"
FORMAT_VERSION = 1
COLUMNS = 4


def write_reports(folder: Path, card: Card, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write both reports and return what the first holds; the folder is made where missing.

    Args:
        folder: where they go.
        card: the answer.
        provenance: versions, time, machine and command.

    Raises:
        MediaError: when a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = {"format_version": FORMAT_VERSION, **card.report, "provenance": dict(provenance)}
    page = _template().render(
        report=report,
        judged=_moving(card.judged, COLUMNS, report["protocol"]["fps"]),
        real=_moving(card.real, COLUMNS, report["protocol"]["fps"]),
        pairs=[(_moving([one, other], 2, report["protocol"]["fps"]), words) for one, other, words in card.pairs],
        rows=rows(report),
    )
    with beside(folder / HTML_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    with beside(folder / JSON_NAME) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
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
    if "nearest" in copies:
        held = number(copies["nearest of held-out"]) if "nearest of held-out" in copies else ""
        lines.append(("nearest training clip, levels", number(copies["nearest"]), "", held))
    if "recognition" in report:
        lines += _recognition_rows(report["recognition"])
    return lines


def _recognition_rows(recognition: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the scores by a classifier, each with its formula, and the accuracy of the classifier."""
    lines = [
        (f"{name} = {s['formula']}", number(s["value"]), f"{number(s['low'])} to {number(s['high'])}", number(s["real"]))
        for name, s in recognition["scores"].items()
    ]
    about = recognition["classifier"]
    held = f"{about['held-out accuracy']:.1%} of {about['held-out clips']} held out"
    return [*lines, ("accuracy of the classifier", "", "", held)]


def number(value: float) -> str:
    """Write a number with three digits that count, without an exponent unless it is tiny."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _moving(clips: Sequence[Clip], columns: int, fps: float) -> str:
    """Return a moving grid of clips as a data URI, so that the page is one file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clips.webp"
        write_video(file, grid([np.asarray(clip) for clip in clips], columns), fps)
        return f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"


@cache
def _template() -> Template:
    loader = PackageLoader("kinema.evaluation", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(TEMPLATE)
