"""A run's page: index.html, made from the files of the run alone, so that it can be made again at any time.

The page asks no other host for anything; pictures and films are the files of ``samples/`` beside it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from kinema.core.config import to_mapping
from kinema.systems import SYSTEMS
from kinema.training import runlog
from kinema.training.checkpoint import CHECKPOINT_NAME, replace_file
from kinema.training.sheets import SHEET_FRAMES

WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 320, 150, 44, 20, 8, 8  # of a chart and its margins, in pixels
BINS = 160  # points of a curve
ROWS = 10  # looks that the picture of the development shows

FILES = {
    runlog.CONFIG_NAME: "settings, dataset and commands",
    runlog.METRICS_NAME: "every number of this page",
    CHECKPOINT_NAME: "the trained sampler",
    runlog.RESUME_NAME: "what --resume goes on from",
    runlog.SAMPLES_NAME: "sheets and films",
    runlog.TENSORBOARD_NAME: "the same as TensorBoard events",
    runlog.LATENTS_NAME: "the encoded clips; made again where they are missing",
}


@dataclass(frozen=True)
class Chart:
    """A curve, ready to be drawn.

    Attributes:
        name: of the number.
        last: its last value.
        line: SVG path of the smoothed values.
        band: SVG path of the values themselves.
        points: (x, y, step, value) of the smoothed values, for reading off.
        ticks: (y, text) of the vertical axis.
        steps: (x, text) of the horizontal axis.
    """

    name: str
    last: float
    line: str
    band: str
    points: list[tuple[float, float, float, float]]
    ticks: list[tuple[float, str]]
    steps: list[tuple[float, str]]


def write_report(folder: Path) -> None:
    """Write the page of a run, whole or not at all.

    Raises:
        CheckpointError: when the run's files cannot be read, or the page cannot be written.
    """
    page = template().render(**facts(folder))
    replace_file(folder / runlog.REPORT_NAME, lambda beside: beside.write_text(page, encoding="utf-8"))


@cache
def template() -> jinja2.Template:
    """Return the page's template, read once: an update of kinema must not meet a run in the middle."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"number": number, "clock": runlog.clock, "words": words}
    return environment.get_template("run.html.jinja")


def facts(folder: Path) -> dict[str, Any]:
    """Gather what the page shows."""
    description, lines = runlog.read_description(folder), runlog.read_metrics(folder)
    numbers = [line for line in lines if "steps_per_second" in line]
    looks = [line for line in lines if "health" in line]
    drawn = pictured(looks)
    last = numbers[-1] if numbers else {}
    end = lines[-1] if lines and "end" in lines[-1] else {"end": "running", "sentence": ""}
    return {
        "run": description,
        "paper": SYSTEMS[description.system].paper if description.system in SYSTEMS else None,
        "folder": folder.absolute().name,
        "end": end,
        "step": lines[-1]["step"] if lines else 0,
        "seconds": last.get("seconds", 0.0),
        "rate": last,
        "waiting": mean(line["waiting_share"] for line in numbers),
        "health": health(looks),
        "sheets": drawn[-1]["sheets"] if drawn else {},
        "moments": drawn,
        "rows": evenly(drawn, ROWS),
        **first_row(description.dataset, [folder / "samples" / f"{look['step']:06d}.png" for look in drawn]),
        "groups": groups([line for line in lines if {"steps_per_second", "health"} & set(line)]),
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "fitted": [line for line in lines if not {"steps_per_second", "health", "end"} & set(line)],
        "settings": settings(description),
        "files": [(name, about, size(folder / name)) for name, about in FILES.items() if (folder / name).exists()],
    }


def pictured(looks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the looks that left sheets as step, sheets and a label, which names the stage where there are several.

    A closed-form stage takes no steps: its sheets have the names of those at the end of the stage before it, and replace them.
    """
    kept: dict[int, dict[str, Any]] = {}
    for look in looks:
        if look["sheets"]:
            sheets = kept.get(look["step"], {}).get("sheets", {}) | look["sheets"]
            kept[look["step"]] = {"step": look["step"], "stage": look["stage"], "sheets": sheets}
    several = len({look["stage"] for look in kept.values()}) > 1
    for look in kept.values():
        look["label"] = f"{words(look['stage'])} · {look['step']:,}" if several else f"{look['step']:,}"
    return list(kept.values())


def health(looks: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the latest finding of every rule with the values of all looks, the worst first."""
    latest: dict[str, dict[str, Any]] = {}
    for look in looks:
        for finding in look["health"]:
            before = latest.get(finding["name"], {}).get("values", [])
            latest[finding["name"]] = {**finding, "values": [*before, (look["step"], finding["value"])]}
    for finding in latest.values():
        finding["spark"] = spark([value for _, value in finding["values"] if value is not None])
    return sorted(latest.values(), key=lambda finding: ["bad", "watch", "ok"].index(finding["verdict"]))


def spark(values: Sequence[float], width: float = 120, height: float = 24) -> str:
    """Return the SVG path of a small curve without axes; empty for fewer than two values."""
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    points = [(width * i / (len(values) - 1), height - 2 - (height - 4) * (v - low) / span) for i, v in enumerate(values)]
    return path(points)


def groups(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[Chart]]:
    """Return charts of every number, by player."""
    names = dict.fromkeys(name for line in lines for name in line if "/" in name)
    result: dict[str, list[Chart]] = {}
    for name in names:
        player, _, term = name.partition("/")
        values = [(line["step"], line[name]) for line in lines if line.get(name) is not None]
        if values:
            result.setdefault(player, []).append(chart(term, values))
    speed = [(line["step"], line["clips_per_second"]) for line in lines if line.get("clips_per_second") is not None]
    return result | ({"speed": [chart("clips per second", speed)]} if speed else {})


def chart(name: str, values: Sequence[tuple[float, float]]) -> Chart:
    """Draw a curve: means of up to `BINS` bins, and a smoother one through them.

    Args:
        name: of the number.
        values: (step, value), steps rising.
    """
    bins = [values[len(values) * i // BINS : len(values) * (i + 1) // BINS] for i in range(BINS)]
    bins = [part for part in bins if part]
    middles = [(mean(s for s, _ in part), mean(v for _, v in part)) for part in bins]
    low, high = span_of([value for _, value in values])
    end = max(values[-1][0], 1)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - RIGHT) * step / end
        y = TOP + (HEIGHT - TOP - BOTTOM) * (high - min(max(value, low), high)) / (high - low)
        return round(x, 1), round(y, 1)

    smooth = [(step, value) for (step, _), value in zip(middles, smoothed([v for _, v in middles]), strict=True)]
    return Chart(
        name=words(name),
        last=values[-1][1],
        line=path([place(*point) for point in smooth]),
        band=path([place(*point) for point in middles]),
        points=[(*place(s, v), round(s), v) for s, v in smooth],
        ticks=[(place(0, value)[1], number(value)) for value in nice_ticks(low, high)],
        steps=[(place(step, low)[0], f"{step:,.0f}") for step in (0, *nice_ticks(0, end)[-1:])],
    )


def smoothed(values: Sequence[float]) -> list[float]:
    """Return means over a twelfth of the curve around every point, less at its ends."""
    reach = len(values) // 24
    windows = ((i, min(i, len(values) - 1 - i, reach)) for i in range(len(values)))
    return [mean(values[i - width : i + width + 1]) for i, width in windows]


def span_of(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis: nearly all values, so that one outlier does not flatten the curve."""
    ordered = sorted(values)
    low, high = ordered[len(ordered) // 100], ordered[-1 - len(ordered) // 100]
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def nice_ticks(low: float, high: float, most: int = 4) -> list[float]:
    """Return up to `most` round values between `low` and `high`."""
    rough = (high - low) / most
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first = math.ceil(low / step)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the SVG path through points."""
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def words(name: str) -> str:
    """Write the name of a stage, player, term, rule or setting as people read it."""
    return name.replace("_", " ")


def number(value: float | None) -> str:
    """Write a number briefly, with three digits that count."""
    if value is None:
        return "none"
    if abs(value) >= 10_000 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def mean(values: Iterable[float]) -> float:
    """Return the mean, 0 of nothing."""
    known = list(values)
    return sum(known) / len(known) if known else 0.0


def evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Return up to `count` items at even distances, first and last included."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def first_row(dataset: Mapping[str, Any], sheets: Sequence[Path]) -> dict[str, str]:
    """Return the aspect ratio of the first row of contact sheets, for the style sheet, and what is in it.

    A system may make fewer frames than the clips of the dataset have; images are beside each other with gaps.
    """
    _, height, width = (int(side) for side in dataset["shape"].split("x"))
    wide = SHEET_FRAMES * width
    if sheet := next((sheet for sheet in reversed(sheets) if sheet.exists()), None):
        with Image.open(sheet) as image:
            wide = image.width
    frames = wide // width
    of_one = f"How the first sample developed: {frames} frames of it at every step."
    return {"shape": f"{wide} / {height}", "developed": of_one if wide % width == 0 else "How the first samples developed."}


def settings(description: runlog.Description) -> list[tuple[str, list[tuple[str, Any, bool]]]]:
    """Return all settings by part as (name, value, whether it differs from the preset)."""
    system = SYSTEMS.get(description.system)
    preset = system.presets.get(description.preset) if system else None
    usual = {} if preset is None else {**to_mapping(preset.config), **preset.training}
    parts = {"system": description.config, "training": description.training, "run": description.options}
    return [
        (part, [(name, shown(value), name in usual and usual[name] != value) for name, value in values.items()])
        for part, values in parts.items()
    ]


def shown(value: Any) -> str:
    """Write a setting."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value).replace("None", "none")


def size(file: Path) -> str:
    """Write the size of a file or folder."""
    total = sum(part.stat().st_size for part in file.rglob("*")) if file.is_dir() else file.stat().st_size
    return f"{total / 2**20:,.1f} MB" if total >= 2**20 else f"{total / 2**10:,.0f} kB"
