"""Procedural datasets through the same plan, tasks and shards as footage: clip i depends on the settings and i alone."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeVar

from kinema.core.config import Config, from_mapping, to_mapping
from kinema.data import performers, shapes
from kinema.data.dataset import Clip
from kinema.data.performers import PerformersSettings
from kinema.data.plan import Job, Maker, Plan, Refusal
from kinema.data.prepare import divide
from kinema.data.shapes import ShapesSettings
from kinema.pose.skeleton import COCO_18

_Settings = TypeVar("_Settings", bound=Config)

CLIP_SECONDS = 1e-2  # rough cost of a clip of 32 x 64 x 64, for the size of tasks


@dataclass(frozen=True)
class Split(Config):
    """Which of the procedural clips are held out."""

    split: float = 0.05
    """Share of the clips that goes into the test split, to watch over-fitting; evenly spread."""

    def check(self) -> None:
        """Refuse a share out of range."""
        self.require(0 <= self.split < 1, "split", "at least 0 and below 1")


def draw_performers(job: Job) -> Iterator[Clip | Refusal]:
    """Draw the people of one task; see `kinema.data.plan.Maker`."""
    return _draw(job, PerformersSettings, performers.render_clip)


def draw_shapes(job: Job) -> Iterator[Clip | Refusal]:
    """Draw the shapes of one task; see `kinema.data.plan.Maker`."""
    return _draw(job, ShapesSettings, shapes.render_clip)


@dataclass(frozen=True)
class Kind:
    """A kind of procedural clips.

    Attributes:
        settings: their settings.
        make: makes the clips of a task.
        skeleton: name of the skeleton of their poses.
    """

    settings: type[PerformersSettings] | type[ShapesSettings]
    make: Maker
    skeleton: str | None = None


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "performers": Kind(PerformersSettings, draw_performers, COCO_18.name),
        "shapes": Kind(ShapesSettings, draw_shapes),
    }
)
"""First word after ``kinema prepare`` -> what it draws."""


def plan_procedural(kind: str, settings: PerformersSettings | ShapesSettings, split: Split) -> Plan:
    """Divide the clips to be drawn into tasks.

    Args:
        kind: one of `KINDS`.
        settings: what to draw.
        split: which are held out.
    """
    pixels = settings.frames * settings.size**2
    tasks = divide([CLIP_SECONDS * pixels / 2**17] * settings.clips, [3.0 * pixels] * settings.clips)
    return Plan(
        kind=kind,
        settings=to_mapping(settings) | to_mapping(split),
        frames=settings.frames,
        height=settings.size,
        width=settings.size,
        items=[],
        tasks=tasks,
        costs=[float(stop - first) for first, stop in tasks],
        labels=list(settings.fork or settings.actions if isinstance(settings, PerformersSettings) else shapes.LABELS),
        skeleton=KINDS[kind].skeleton,
    )


def _draw(job: Job, settings_class: type[_Settings], render_clip: Callable[[int, _Settings], Clip]) -> Iterator[Clip | Refusal]:
    values = dict(job.settings)
    share = values.pop("split")
    settings = from_mapping(settings_class, values)
    for index in range(job.first, job.stop):
        clip = render_clip(index, settings)
        held_out = int((index + 1) * share) > int(index * share)
        yield replace(clip, record=replace(clip.record, split="test" if held_out else "train"))
