"""The sheet of a layer's units on disk: ``units.json`` and ``units.html``, one file with moving clips."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

import kinema
from kinema.core.errors import EvaluationError
from kinema.data.dataset import Dataset
from kinema.data.encode import beside
from kinema.evaluation.clips import Clip
from kinema.evaluation.layers import Layer
from kinema.evaluation.measures import drawn
from kinema.evaluation.page import moving, template
from kinema.evaluation.unfinished import Unfinished
from kinema.evaluation.units import (
    Activity,
    Question,
    Said,
    UnitView,
    chance_share,
    concentration,
    look,
    measure_activity,
    most_frequent,
    movement,
    selectivity,
    top_clips,
)

JSON_NAME, HTML_NAME, TEMPLATE = "units.json", "units.html", "units.html.jinja"
FORMAT_VERSION = 1
DIMMED = 0.3  # brightness outside of the lit region
HEAT = np.array([[16, 18, 22], [11, 110, 105], [255, 244, 214]], np.float32)  # nothing, half, peak

Keep = Callable[..., Unfinished | None]
"""Name of a part, and what else decides about it -> what keeps it."""


class Footage:
    """Clips of a dataset that a layer is shown, in a random order.

    Args:
        data: a dataset.
        count: clips; None takes all.
        top: clips that a unit will be shown with.
        seed: of the order.

    Raises:
        EvaluationError: when there are fewer clips than are wanted, or fewer than `top`.
    """

    def __init__(self, data: Dataset, count: int | None, top: int, seed: int) -> None:
        self.data, self.count, split = data, count or len(data), f" in the split {data.split!r}" if data.split else ""
        if self.count > len(data):
            raise EvaluationError(f"{data.path} has {len(data)} clips{split}; give --clips {len(data)} or fewer")
        if self.count < top:
            raise EvaluationError(
                f"{self.count} clips are fewer than the {top} that a unit is shown with; give --top {self.count}"
            )
        self.order = drawn(self.count, len(data), seed)
        self.records = [data.record(index) for index in self.order]
        self.sources = len({record.source for record in self.records})
        self.by_source = self.sources >= top  # made-up people have one source, and every clip is another

    @property
    def origins(self) -> list[str]:
        """What a unit's top clips may show once only: a source, or where there are too few of them a clip."""
        return [record.source if self.by_source else record.key for record in self.records]

    @property
    def labels(self) -> list[str] | None:
        """Class of every clip; None unless each has one."""
        labels = [record.label for record in self.records if record.label is not None]
        return labels if len(labels) == self.count else None

    def read(self, numbers: Sequence[int]) -> list[Clip]:
        """Return clips by their place in the order."""
        return [self.data.video(self.order[number]) for number in numbers]

    def figure(self, number: int) -> Float32[np.ndarray, "T H W"] | None:
        """Return how much of every pixel is foreground, where the dataset knows."""
        mask = self.data.array(self.order[number], "mask")
        return None if mask is None else mask.astype(np.float32) / 255


def keeper(folder: Path, network: Mapping[str, Any], layer: Layer, footage: Footage) -> Keep:
    """Return what keeps parts of the work in a folder, each for as long as everything that decides about it is the same.

    Args:
        folder: made where missing; whoever has written the sheet deletes it.
        network: whose layer it is, as JSON values.
        layer: whose units are meant.
        footage: what they are shown.
    """
    device, data = next(layer.steps.parameters()).device.type, footage.data
    about = [kinema.__version__, dict(network), layer.name, device, data.fingerprint, data.split, footage.count]
    return lambda name, *more: Unfinished(folder / f"{name}.npz", [*about, *more])


def examine(
    layer: Layer,
    footage: Footage,
    question: Question,
    said: Said,
    keep: Keep = lambda name, *more: None,
) -> tuple[dict[str, Any], list[UnitView], dict[int, Clip]]:
    """Ask a layer what its units look for.

    Args:
        layer: whose units are meant.
        footage: what they are shown.
        question: which units, and how.
        said: told what is being done, and how much of it.
        keep: of `keeper`, where work that is stopped shall go on later.

    Returns:
        What is known as JSON values, what is shown of the units in the order of the sheet, and the clips that are shown.
    """
    share = question.share
    activity = measure_activity(layer, footage.read, range(footage.count), share, said, keep("activity", question.seed, share))
    asked = {name: value for name, value in asdict(question).items() if name not in ("units", "shown")}
    views = look(layer, footage.read, activity, footage.origins, question, said, lambda unit: keep(f"unit-{unit}", asked))
    shown = sorted({clip for view in views for clip in view.clips})
    clips = dict(zip(shown, footage.read(shown), strict=True))
    report = {
        "kinema": kinema.__version__,
        "layer": _layer(layer),
        "data": {
            "name": footage.data.path.resolve().name,
            "fingerprint": footage.data.fingerprint,
            "split": footage.data.split or "all",
            "clips": footage.count,
            "fps": footage.data.info.fps,
            "sources": footage.sources,
            "shown once": "source" if footage.by_source else "clip",
        },
        "question": asdict(question),
        "summary": _summary(activity, footage, question),
        "units": [_unit(view, activity, footage, clips) for view in views],
    }
    return report, views, clips


def write_sheet(folder: Path, report: Mapping[str, Any], views: Sequence[UnitView], clips: Mapping[int, Clip]) -> None:
    """Write the JSON and the page; the folder is made where missing.

    Args:
        folder: where they go.
        report: of `examine`, with the keys ``network`` and ``provenance``.
        views: of `examine`.
        clips: of `examine`.

    Raises:
        MediaError: when a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report = {"format_version": FORMAT_VERSION, **report}
    rows = []
    for view in views:
        cells = [dimmed(clips[clip], lit) for clip, lit in zip(view.clips, view.regions, strict=True)]
        heat = [] if view.field is None else [moving([still], 1, made=None) for still in heat_maps(view.field.change)]
        rows.append((moving(cells, len(cells), report["data"]["fps"], made=None), heat))
    page = template(TEMPLATE).render(report=report, units=list(zip(report["units"], rows, strict=True)))
    with beside(folder / HTML_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    with beside(folder / JSON_NAME) as temporary:
        temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def dimmed(clip: Clip, lit: Bool[np.ndarray, "_ H W"]) -> UInt8[np.ndarray, "_ H W 3"]:
    """Return a clip that is dark outside of a region; of a region of one frame, the first frame."""
    frames = clip[: len(lit)]
    return np.where(lit[..., None], frames, (frames * DIMMED).astype(np.uint8))


def heat_maps(change: Float32[np.ndarray, "..."]) -> list[UInt8[np.ndarray, "1 H W 3"]]:
    """Return pictures of a receptive field: over height and width, and where there are frames, over height and frames.

    The peak over the axis that is left out is shown; brightest is the peak of all.
    """
    share = change / max(float(change.max()), 1e-30)
    flat = [share] if share.ndim == 2 else [share.max(axis=0), share.max(axis=2).T]
    return [_heat(one)[None] for one in flat]


def _heat(share: Float32[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W 3"]:
    levels = np.linspace(0, 1, len(HEAT))
    colours = [np.interp(share, levels, HEAT[:, colour]) for colour in range(3)]
    return np.stack(colours, axis=-1).round().astype(np.uint8)


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "units": layer.channels,
        "map": list(layer.map_shape),
        "sees": "frames, height, width" if layer.moving else "height, width of the first frame",
        "receptive field": list(layer.field.extent),
        "stride": list(layer.field.stride),
    }


def _summary(activity: Activity, footage: Footage, question: Question) -> dict[str, Any]:
    """Return what all units of the layer are like, also those that are not shown."""
    live = np.flatnonzero(~activity.dead)
    summary: dict[str, Any] = {
        "selectivity": [round(float(value), 6) for value in selectivity(activity.highest)],
        "dead": _numbers(activity.dead),
        "silent": _numbers(activity.silent),
    }
    if labels := footage.labels:
        tops = [top_clips(activity.highest[:, unit], footage.origins, question.top) for unit in live]
        shares = [most_frequent([labels[clip] for clip in top])[1] for top in tops]
        summary["label share"] = float(np.mean(shares)) if shares else None
        summary["label share by chance"] = chance_share(labels, footage.origins, question.top, question.seed)
    return summary


def _unit(view: UnitView, activity: Activity, footage: Footage, clips: Mapping[int, Clip]) -> dict[str, Any]:
    unit, labels = view.unit, footage.labels
    figures = [footage.figure(clip) for clip in view.clips]
    masks = [figure[: len(lit)] for figure, lit in zip(figures, view.regions, strict=True) if figure is not None]
    moves = [movement(clips[clip])[: len(lit)] for clip, lit in zip(view.clips, view.regions, strict=True)]
    found: dict[str, Any] = {
        "unit": unit,
        "selectivity": round(float(selectivity(activity.highest[:, [unit]])[0]), 6),
        "threshold": float(activity.threshold[unit]),
        "movement in lit region": concentration(view.regions, moves),
        "figure in lit region": concentration(view.regions, masks) if len(masks) == len(view.regions) else None,
        "clips": [
            {
                "key": footage.records[clip].key,
                "source": footage.records[clip].source,
                "label": footage.records[clip].label,
                "highest": highest,
                "lit": round(float(lit.mean()), 6),
            }
            for clip, highest, lit in zip(view.clips, view.highest, view.regions, strict=True)
        ],
    }
    if labels:
        label, share = most_frequent([labels[clip] for clip in view.clips])
        found |= {"label": label, "label share": share}
    if view.field:
        found["receptive field"] = {
            "extent": list(view.field.extent),
            "patch": list(view.field.patch),
            "clips": view.field.clips,
            "peak change": float(view.field.change.max()),
        }
    return found


def _numbers(marked: Bool[np.ndarray, "C"]) -> list[int]:
    return np.flatnonzero(marked).tolist()
