"""Report cards of completions: ``report.json``, ``report.html`` with moving sheets, and a table of several."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.evaluation.completion import BEST, MEAN, MEASURES, CompletionCard
from kinema.evaluation.page import moving, template, write_both
from kinema.evaluation.report import FORMAT_VERSION, number

TEMPLATE = "completion.html.jinja"
USUAL_FPS = 25.0  # where nothing says it
COLUMNS = ("", "completed", "95% interval", "compressor", "nearest of the rest")


def write_completion_reports(folder: Path, card: CompletionCard, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write both reports and return what the first holds; the folder is made where missing.

    Args:
        folder: where they go.
        card: the answer.
        provenance: versions, time, machine and command.

    Raises:
        MediaError: when a file cannot be written.
    """
    report = {"format_version": FORMAT_VERSION, **card.report, "provenance": dict(provenance)}
    fps = report["protocol"]["fps"] or USUAL_FPS
    made = f"clips completed by {report['judged']['name']}, beside the truth"
    sheets = {
        name: (columns, moving([clip for row in clips for clip in row], len(columns), fps, made=made))
        for name, (columns, clips) in card.shown.items()
    }
    page = template(TEMPLATE).render(
        report=report, columns=COLUMNS, rows=rows(report), beside=beside(report), sheets=sheets, measures=list(MEASURES)
    )
    write_both(folder, page, report)
    return report


def rows(report: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """Return the lines of a report card, see `COLUMNS`."""
    lines: list[tuple[str, str, str, str, str]] = []
    for name, score in report["scores"].items():
        for measure in MEASURES:
            one = score[measure]
            unit = f", {one['unit']}" if one["unit"] else ""
            best = f"{one['nearest of them']} {number(one['beside'][one['nearest of them']])}"
            lines.append((f"{name}: {measure}{unit}", *_with_range(one), _known(one["compressor"]), best))
            gain, known = one["gain over it"], one["known, before pasting"]
            if gain["value"] is not None:
                lines.append(("  gain over the nearest", f"{gain['value']:+.3g}", _range(gain), "", ""))
            count = report["protocol"].get("completions of each clip", 1)
            for kind in (BEST, MEAN) if count > 1 else ():
                several = one[f"{kind} of several"]
                lines.append((f"  {measure}, {kind} of {count}", *_with_range(several), "", ""))
                if several["gain"]["value"] is not None:
                    lines.append(
                        ("  gain over the nearest", f"{several['gain']['value']:+.3g}", _range(several["gain"]), "", "")
                    )
            if known["value"] is not None:
                what = "the first frame" if name == "image-to-video" else "known pixels"
                ceiling = _known(one["known, of the compressor"])
                lines.append((f"  {measure} of {what}, not pasted", *_with_range(known), ceiling, ""))
        motion = report["motion"][name]
        lines.append(("  motion, of real", f"{motion['motion against real']:.0%}", "", "", ""))
        lines.append(("  still clips", f"{motion['still clips']:.0%}", "", "", ""))
        lines.append(("  seam, of real", f"{motion['seam against real']:.0%}", "", "", ""))
    return lines


def beside(report: Mapping[str, Any]) -> dict[str, list[tuple[str, ...]]]:
    """Return what every completion without a model reaches: task -> its name and a number per measure."""
    found: dict[str, list[tuple[str, ...]]] = {}
    for name, score in report["scores"].items():
        rivals = next(iter(score[measure] for measure in MEASURES))["beside"]
        found[name] = [(rival, *(number(score[measure]["beside"][rival]) for measure in MEASURES)) for rival in rivals]
    return found


def compared(reports: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and lines of a table of reports of one protocol: a report per column."""
    first = next(iter(reports.values()))
    lines: list[tuple[str, ...]] = []
    for name, score in first["scores"].items():
        for measure in MEASURES:
            values = (report["scores"][name][measure] for report in reports.values())
            best = score[measure]["nearest of them"]
            rival = f"{best} {number(score[measure]['beside'][best])}"
            lines.append(
                (f"{name}: {measure}", *(" ".join(filter(None, _with_range(value, "({})"))) for value in values), rival)
            )
        moves = (report["motion"][name] for report in reports.values())
        lines.append((f"{name}: motion, of real", *(f"{motion['motion against real']:.0%}" for motion in moves), ""))
    return ["", *reports, "nearest of the rest"], lines


def _with_range(score: Mapping[str, Any], form: str = "{}") -> tuple[str, str]:
    if score["value"] is None:
        return "none", ""
    return number(score["value"]), form.format(_range(score))


def _range(score: Mapping[str, Any]) -> str:
    return f"{number(score['low'])} to {number(score['high'])}"


def _known(value: float | None) -> str:
    return "" if value is None else number(value)
