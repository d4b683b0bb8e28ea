"""Report cards of forecasts: ``report.json``, ``report.html`` with the best-of-n plot, and a table of several."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from kinema.evaluation.forecast import MEAN, STEADY, STILL, TYPICAL, Case, ForecastCard
from kinema.evaluation.modes import find_modes
from kinema.evaluation.page import moving, template, write_both
from kinema.evaluation.report import FORMAT_VERSION, number
from kinema.pose.draw import STYLES, draw_points
from kinema.pose.skeleton import find_skeleton

TEMPLATE = "forecast.html.jinja"
WIDTH, HEIGHT, LEFT, BOTTOM = 480.0, 240.0, 58.0, 30.0  # of a plot, and of the room for its numbers
SHOWN_MODES = 4
LINES = {STILL: "still", STEADY: "steady", TYPICAL: "typical", MEAN: "mean"}  # rival -> its class in the page


def write_forecast_reports(folder: Path, card: ForecastCard, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Write both reports and return what the first holds; the folder is made where missing.

    Args:
        folder: where they go.
        card: the answer.
        provenance: versions, time, machine and command.

    Raises:
        MediaError: when a file cannot be written.
    """
    report = {"format_version": FORMAT_VERSION, **card.report, "provenance": dict(provenance)}
    protocol = report["protocol"]
    size, fps = (protocol["width"], protocol["height"]), protocol["fps"]
    columns, lines = rows(report)
    page = template(TEMPLATE).render(
        report=report,
        columns=columns,
        rows=lines,
        plots=[plot(name, curve) for name, curve in report["best of"].items()],
        lines={name: LINES[name] for name in next(iter(report["best of"].values()))["beside"]},
        shown=[picture(case, card.skeleton, size, fps) for case in card.shown],
    )
    write_both(folder, page, report)
    return report


def rows(report: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and lines of a report card: value, 95 % interval, and what each rival reaches."""
    rivals = list(next(iter(report["best of"].values()))["beside"])
    lines: list[tuple[str, ...]] = []

    def add(name: str, value: str, words: str, beside_it: Mapping[str, str] | None = None) -> None:
        lines.append((name, value, words, *((beside_it or {}).get(rival, "") for rival in rivals)))

    for name, curve in report["best of"].items():
        for n in _told(len(curve["value"])):
            reached = {rival: number(value) for rival, value in curve["beside"].items()} if n == 1 else None
            ends = f"{number(curve['low'][n - 1])} to {number(curve['high'][n - 1])}"
            add(f"{name}, best of {n}", number(curve["value"][n - 1]), ends, reached)
    for name, score in report["scores"].items():
        reached = {rival: number(value) for rival, value in score["beside"].items()}
        ends = f"{number(score['low'])} to {number(score['high'])}"
        add(f"{name}, {score['unit']}", number(score["value"]), ends, reached)
    limbs, motion = report["limbs"], report["motion"]
    if limbs["clips"]:
        reached = {rival: f"{value:.1%}" for rival, value in limbs["beside"].items()}
        add("change of limb lengths", f"{limbs['variation']:.1%}", f"truth {limbs['variation of the truth']:.1%}", reached)
    add("motion, pixels per frame", number(motion["motion"]), f"truth {number(motion['motion of real clips'])}")
    if modes := report.get("modes"):
        reached = {rival: f"{value:.0%}" for rival, value in modes["coverage beside"].items()}
        likely = f"with the known odds {modes['coverage of samples with the known odds']:.0%}"
        add("known futures that are hit", f"{modes['coverage']:.0%}", likely, reached)
        add("samples that hit one", f"{modes['samples that hit one']:.0%}", "")
        for name, mode in modes["futures"].items():
            words = f"odds {mode['odds']:.0%}, hit in {mode['hit in clips']:.0%} of clips"
            add(f"  {name}, share of samples", f"{mode['share of samples']:.0%}", words)
        add("  shares from odds", f"{modes['shares from odds, all clips']:.0%}", "half the sum of differences")
    return ["", "forecast", "95% interval", *rivals], lines


def _told(most: int) -> list[int]:
    return [n for n in (1, 5, 20, 100, 500) if n < most] + [most]


def compared(reports: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the columns and lines of a table of reports of one protocol: a report per column."""
    first = next(iter(reports.values()))
    lines: list[tuple[str, ...]] = []

    def add(name: str, value: Callable[[Mapping[str, Any]], str]) -> None:
        lines.append((name, *(value(report) for report in reports.values())))

    for name, curve in first["best of"].items():
        for n in _told(len(curve["value"])):
            add(f"{name}, best of {n}", lambda report, name=name, n=n: number(report["best of"][name]["value"][n - 1]))
    for name in first["scores"]:
        add(name, lambda report, name=name: number(report["scores"][name]["value"]))
    if first["limbs"]["clips"]:
        add("change of limb lengths", lambda report: f"{report['limbs']['variation']:.1%}")
    add("motion, of real", lambda report: f"{report['motion']['motion against real']:.0%}")
    if "modes" in first:
        add("known futures that are hit", lambda report: f"{report['modes']['coverage']:.0%}")
        add("shares from odds", lambda report: f"{report['modes']['shares from odds, all clips']:.0%}")
    return ["", *reports], lines


@dataclass(frozen=True)
class Plot:
    """An error against the number of samples, ready to be drawn: points as SVG wants them.

    Attributes:
        title: what is measured.
        samples: line of the best of n.
        band: its interval, as an outline.
        rivals: class, place and words of a level line.
        ticks: places and words on the left.
        counts: places and words below.
    """

    title: str
    samples: str
    band: str
    rivals: list[tuple[str, float, str]]
    ticks: list[tuple[float, str]]
    counts: list[tuple[float, str]]


def plot(name: str, curve: Mapping[str, Any]) -> Plot:
    """Lay out a best-of-n curve; a rival that is far above everything else stands at the upper edge with its number."""
    most = len(curve["value"])
    top = max(curve["high"])
    near = [value for value in curve["beside"].values() if value <= 2.5 * top]
    high, low = 1.05 * max([top, *near]), 0.0

    def across(n: float) -> float:
        return round(LEFT + (WIDTH - LEFT) * (n - 1) / max(most - 1, 1), 1)

    def up(value: float) -> float:
        return round((HEIGHT - BOTTOM) * (1 - (min(value, high) - low) / (high - low or 1)), 1)

    def points(values: Sequence[float]) -> str:
        return " ".join(f"{across(n)},{up(value)}" for n, value in enumerate(values, 1))

    outline = [*enumerate(curve["low"], 1), *reversed(list(enumerate(curve["high"], 1)))]
    return Plot(
        title=name,
        samples=points(curve["value"] if most > 1 else curve["value"] * 2),
        band=" ".join(f"{across(n)},{up(value)}" for n, value in outline),
        rivals=[(LINES[rival], up(value), f"{rival}: {number(value)}") for rival, value in curve["beside"].items()],
        ticks=[(up(value), number(value)) for value in (0, high / 2, high)],
        counts=[(across(n), str(n)) for n in sorted({1, (1 + most) // 2, most})],
    )


def picture(case: Case, layout: str, size: tuple[int, int], fps: float) -> tuple[str, str]:
    """Return skeletons that move, the truth first, then the modes of the samples, and words about them."""
    modes = find_modes(case.samples, case.current, SHOWN_MODES)
    found = [(case.truth, case.mask), *((case.samples[nearest], case.present) for nearest in modes.nearest)]
    clips = [drawn(poses, there, layout, size) for poses, there in found]
    words = ", ".join(f"{share:.0%}" for share in modes.shares)
    made = f"forecast poses beside the truth, {case.key}"
    return moving(clips, len(clips), fps, made=made), f"{case.key}: truth, then modes of {words} of {len(case.samples)} samples"


def drawn(
    poses: Float[np.ndarray, "T J 2"], there: Bool[np.ndarray, "*frames J"], layout: str, size: tuple[int, int]
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw poses.

    Args:
        poses: in pixels.
        there: which joints, in all frames or in each.
        layout: of the joints.
        size: width and height in pixels.
    """
    confidence = np.broadcast_to(there, poses.shape[:2]).astype(np.float64)[..., None]
    return draw_points(np.concatenate([poses, confidence], axis=-1), find_skeleton(layout), *size, STYLES["pose-knows"])
