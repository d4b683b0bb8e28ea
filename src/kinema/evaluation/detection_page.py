"""What a detector of fakes was measured to do, as a page: error rates, the probabilities of all videos, are they right?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.evaluation.page import template, write_both

TEMPLATE = "detection.html.jinja"
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 500, 340, 52, 44, 14, 16  # of a panel, in pixels
DOT = 6.0  # pixels from video to video in the row of dots

ROWS = (
    ("false alarms", "real videos called fake"),
    ("misses", "fake videos called real"),
    ("misses beside real", "fake videos called real, were they compared with the real ones at 5 % false alarms (--real)"),
    ("accuracy", "videos called what they are"),
)


def write_detection_report(folder: Path, report: Mapping[str, Any]) -> None:
    """Write ``report.json`` and ``report.html``.

    Raises:
        MediaError: when a file cannot be written.
    """
    layout = {"width": WIDTH, "height": HEIGHT, "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "base": HEIGHT - BOTTOM}
    page = template(TEMPLATE).render(report=report, rows=rates(report["measured"]), panels=panels(report["measured"]), **layout)
    write_both(folder, page, report)


def rates(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return the lines of the table of error rates: name, share, interval, counts in words."""
    lines = []
    for name, about in ROWS:
        rate = found.get(name)
        if rate is not None:
            interval = f"{rate['low']:.1%} to {rate['high']:.1%}"
            lines.append((name, f"{rate['share']:.1%}", interval, f"{rate['count']} of {rate['total']} {about}"))
    return lines


def sentence(found: Mapping[str, Any]) -> str:
    """Return the error rates as one sentence."""
    subjects, parts = found["subjects"], []
    for name, kind in (("false alarms", "real"), ("misses", "fake")):
        rate = found[name]
        if rate is not None:
            whom = f"{subjects[kind]} subject{'s' * (subjects[kind] != 1)}"
            share = f"{rate['share']:.1%} (95 % interval {rate['low']:.1%} to {rate['high']:.1%})"
            parts.append(f"{name} {share} of {rate['total']} {kind} videos of {whom}")
    return "; ".join(parts)


def panels(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the marks of the two drawings in pixels: share of fakes against probability, and a dot per video."""
    ticks = [(round(number / 5, 1), _x(number / 5), _y(number / 5)) for number in range(6)]
    marks = [
        (_x(part["mean"]), _y(part["share"]), _y(part["low"]), _y(part["high"]), part["count"]) for part in found["reliability"]
    ]
    dots = {
        kind: _swarm([video["probability"] for video in found["probabilities"] if video["fake"] == fake], row)
        for row, (kind, fake) in enumerate((("real", False), ("fake", True)))
    }
    return {"ticks": ticks, "marks": marks, "dots": dots, "half": _x(0.5), "ideal": (_x(0), _y(0), _x(1), _y(1))}


def _swarm(probabilities: Sequence[float], row: int) -> list[tuple[float, float]]:
    """Place a dot per video: those of nearly one probability side by side, upwards from the line of their class."""
    inner = (HEIGHT - BOTTOM - TOP) / 2
    floor = TOP + (row + 1) * inner - 12
    columns: dict[int, int] = {}
    placed = []
    tallest = max(np.unique([round(_x(p) / DOT) for p in probabilities], return_counts=True)[1], default=1)
    step = min(DOT, (inner - 30) / tallest)
    for probability in sorted(probabilities):
        column = round(_x(probability) / DOT)
        placed.append((_x(probability), round(floor - step * columns.get(column, 0), 1)))
        columns[column] = columns.get(column, 0) + 1
    return placed


def _x(value: float) -> float:
    return round(LEFT + value * (WIDTH - LEFT - RIGHT), 1)


def _y(value: float) -> float:
    return round(TOP + (1 - value) * (HEIGHT - BOTTOM - TOP), 1)
