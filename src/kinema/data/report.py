"""The report of a preparation: one HTML file with everything inside, for a person to look at."""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kinema.data.dataset import rates_in_words, shard_name
from kinema.data.plan import Kept, Outcome, Plan, Refused, filmstrip, read_videos

_Value = TypeVar("_Value")

TEMPLATE = "report.html.jinja"
KEPT_SHOWN = 32
REFUSED_SHOWN = 8  # pictures per reason
ROWS_SHOWN = 200  # of the tables; refused.jsonl and dataset.json have all
BARS = 40

EXPLANATIONS = {
    "unreadable": "the file cannot be decoded",
    "truncated": "the file breaks off or is damaged; what came before was used",
    "empty": "the file holds no frames",
    "unlabelled": "the table of labels does not name it",
    "too short": "the motion ends before a clip does",
    "in no split file": "no list of --split-files names it",
    "no person": "a person is found in fewer frames than --min-pose asks for",
    "no poses": "there are no poses for it that can be used, or none of the person who is asked for",
    "short": "the shot, or its steady part, has fewer frames than a clip",
    "border": "holds frames of both splits",
    "rest": "what remains at the end of a shot when whole clips have been cut from it",
    "black": "nearly all pixels are black",
    "frozen": "nothing moves at all",
    "still": "less moves than --min-motion asks for",
    "unsteady": "the camera moves and could not be held still: a gate of the stabiliser was not passed",
    "scene": "it does not show what --scene asks for",
    "duplicate": "nearly the same as a clip that was kept",
}


@dataclass(frozen=True)
class Picture:
    """A clip in the report: evenly spaced frames side by side, as a data URI, and what is said about it."""

    uri: str
    words: str


@dataclass(frozen=True)
class Histogram:
    """Bars of equal width from 0 to `most`; heights as shares of the tallest."""

    bars: list[tuple[float, float]]
    most: float
    median: float
    limit: float | None


def report(
    folder: Path, plan: Plan, outcomes: Sequence[Outcome], refused: Sequence[Refused], duplicates: frozenset[str]
) -> str:
    """Return report.html; see `kinema.data.plan.Report`."""
    clips = [(number, clip) for number, outcome in enumerate(outcomes) for clip in outcome.kept]
    kept = [(number, clip) for number, clip in clips if clip.key not in duplicates]
    doubles = [(number, clip) for number, clip in clips if clip.key in duplicates]
    pictures = {"duplicate": list(_pictures(folder, plan, doubles, REFUSED_SHOWN))} if doubles else {}
    pictures |= {reason: stored for reason, _ in _counts(refused) if (stored := _stored(refused, reason))}
    return _template().render(
        plan=plan,
        rates=rates_in_words(Counter(clip.fps for _, clip in kept)),
        kept_count=len(kept),
        refused_count=len(refused),
        reasons=[(reason, count, EXPLANATIONS.get(reason, "")) for reason, count in _counts(refused)],
        sources=_by_source(plan, [clip for _, clip in kept], refused),
        kept=list(_pictures(folder, plan, kept, KEPT_SHOWN)),
        refused_pictures=pictures,
        histogram=_histogram([clip.motion for _, clip in kept], plan.settings.get("min_motion") or None),
        labels=_by_class(plan, [clip for _, clip in kept]),
        refusals=[(refusal, _details(refusal.detail)) for refusal in refused[:ROWS_SHOWN]],
        rows_shown=ROWS_SHOWN,
    )


@cache
def _template() -> Template:
    loader = PackageLoader("kinema.data", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(TEMPLATE)


def _counts(refused: Iterable[Refused]) -> list[tuple[str, int]]:
    return Counter(refusal.reason for refusal in refused).most_common()


def _by_class(plan: Plan, kept: Iterable[Kept]) -> list[tuple[str, int]]:
    """Return the number of clips of every class, also of those that have none."""
    counts = Counter(clip.label for clip in kept)
    return [(label, counts[label]) for label in plan.labels]


def _by_source(plan: Plan, kept: Iterable[Kept], refused: Iterable[Refused]) -> list[dict[str, Any]]:
    """Return a row per source: what was kept, what was refused and why."""
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in kept:
        rows[clip.source]["kept"] += 1
    for refusal in refused:
        rows[refusal.source][refusal.reason] += 1
    about = {item["name"]: item for item in plan.items}
    return [
        {"name": name, "kept": counts.pop("kept", 0), "refused": counts.most_common(), **_about(about.get(name, {}))}
        for name, counts in sorted(rows.items())
    ]


def _about(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item.get(name) for name in ("label", "group", "split")}


def _pictures(folder: Path, plan: Plan, clips: Sequence[tuple[int, Kept]], shown: int) -> Iterable[Picture]:
    """Show clips that are evenly spread over all, read from their shards."""
    chosen = _spread(clips, shown)
    wanted: defaultdict[int, list[str]] = defaultdict(list)
    for number, clip in chosen:
        wanted[number].append(clip.key)
    videos = dict[str, UInt8[np.ndarray, "T H W 3"]]()
    for number, keys in wanted.items():
        videos |= read_videos(folder / shard_name(number), keys, plan)
    for _, clip in chosen:
        label = f" · {clip.label}" if clip.label else ""
        yield Picture(_uri(filmstrip(videos[clip.key])), f"{clip.source}, frame {clip.first}{label} · motion {clip.motion:.2f}")


def _stored(refused: Sequence[Refused], reason: str) -> list[Picture]:
    found = [refusal for refusal in refused if refusal.reason == reason and refusal.picture]
    return [
        Picture(f"data:image/jpeg;base64,{shown.picture}", f"{shown.source}, frame {shown.first} · {_details(shown.detail)}")
        for shown in _spread(found, REFUSED_SHOWN)
    ]


def _spread(values: Sequence[_Value], count: int) -> list[_Value]:
    """Choose at most `count` values, evenly spread."""
    if not values:
        return []
    return [values[i] for i in np.unique(np.linspace(0, len(values) - 1, min(count, len(values))).round().astype(int))]


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def _details(detail: dict[str, Any]) -> str:
    if "error" in detail:
        return str(detail["error"])
    return ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in detail.items())


def _histogram(values: Sequence[float], limit: float | None) -> Histogram:
    most = max([*values, limit or 0, 1e-3])
    counts, edges = np.histogram(values, BARS, (0, most))
    heights = counts / max(1, counts.max())
    middle = float(np.median(values)) if len(values) else 0.0
    return Histogram(list(zip(edges[:-1].tolist(), heights.tolist(), strict=True)), most, middle, limit)
