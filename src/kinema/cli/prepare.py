"""``kinema prepare SOURCE... --out DATA``: footage, or procedural people and shapes, to a dataset."""

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from kinema.cli.arguments import cluster_options, parse
from kinema.core.config import Config
from kinema.data import plan
from kinema.data.cutting import PrepareSettings
from kinema.data.dataset import INFO_NAME, Dataset, DatasetInfo, rates_in_words
from kinema.data.looks import WAYS
from kinema.data.mocap import KIND as MOCAP
from kinema.data.mocap import MocapSettings, film_captures, plan_mocap
from kinema.data.performers import PerformersSettings
from kinema.data.posed import is_recorded
from kinema.data.prepare import Storage, prepare, work
from kinema.data.procedural import KINDS, Split, plan_procedural
from kinema.data.shapes import ShapesSettings


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Work(Config):
    """Where the dataset goes, how it is stored and who does the work; none of it changes a pixel."""

    out: Path
    """Folder of the dataset. An interrupted preparation goes on where it was when the same command is given again."""
    workers: int = field(default_factory=_cores)
    """Tasks at a time; by default one per core."""
    executor: Literal["local", "ray", "slurm"] = "local"
    """local: processes of this machine. ray: Ray, on the cluster of RAY_ADDRESS if it is set. slurm: one Slurm job per task."""
    cluster: tuple[str, ...] = ()
    """Options of --executor slurm, each NAME=VALUE as in submitit: slurm_partition=cpu timeout_min=60 ..."""
    storage: Storage = "auto"
    """How shards hold the clips. pixels: as they are, read without decoding. encoded: as lossless H.264, several times smaller,
    decoded while training. auto: encoded where a clip has more than 16 MiB of pixels (85 frames of 256x256)."""
    overwrite: bool = False
    """Replace a dataset that is there already."""

    def check(self) -> None:
        """Refuse values out of range."""
        self.require(self.workers >= 1, "workers", "at least 1")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the cluster."""
        return cluster_options(self.cluster)


_Sources = Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]


@dataclass(frozen=True)
class Footage:
    """Turn footage into a dataset: videos, folders of frames, image strips, and folders of all these.

    Instead of a source, the word performers draws procedural people, the word shapes moving shapes, and the word mocap films
    motion capture (see kinema prepare performers --help).
    """

    sources: _Sources
    """Files, or folders that are searched."""
    work: tyro.conf.OmitArgPrefixes[Work]
    settings: tyro.conf.OmitArgPrefixes[PrepareSettings] = field(default_factory=PrepareSettings)


@dataclass(frozen=True)
class Performers:
    """Draw procedural people who move, with their poses, masks and backgrounds."""

    work: tyro.conf.OmitArgPrefixes[Work]
    settings: tyro.conf.OmitArgPrefixes[PerformersSettings] = field(default_factory=PerformersSettings)
    held_out: tyro.conf.OmitArgPrefixes[Split] = field(default_factory=Split)


@dataclass(frozen=True)
class Shapes:
    """Draw moving shapes (Shape Motion), with their masks."""

    work: tyro.conf.OmitArgPrefixes[Work]
    settings: tyro.conf.OmitArgPrefixes[ShapesSettings] = field(default_factory=ShapesSettings)
    held_out: tyro.conf.OmitArgPrefixes[Split] = field(default_factory=Split)


@dataclass(frozen=True)
class Mocap:
    """Film motion capture as stick figures with their poses: CMU sequences (.npz with expmap), DeepMimic's motions (.txt)."""

    sources: _Sources
    """Files, or folders that are searched."""
    work: tyro.conf.OmitArgPrefixes[Work]
    settings: tyro.conf.OmitArgPrefixes[MocapSettings] = field(default_factory=MocapSettings)


KEPT_BY = {
    "black": "--black 1",
    "frozen": "--frozen -1",
    "still": "a lower --min-motion",
    "duplicate": "--duplicates -1",
    "unsteady": "--stabilise off",
    "no person": "a lower --min-pose",
}
"""What keeps clips that are refused for a reason about what they show."""
MANY = 0.25  # of all clips are refused for one reason: perhaps a threshold is wrong for this footage


def run(arguments: list[str]) -> int:
    """Prepare a dataset; returns the exit status."""
    began = time.monotonic()
    if arguments and arguments[0] in KINDS and not Path(arguments[0]).exists():
        out, info = _draw(arguments[0], arguments[1:])
    elif arguments and arguments[0] == MOCAP and not Path(MOCAP).exists():
        out, info = _film(arguments[1:])
    else:
        out, info = _cut(arguments)
    _summarise(out, info, time.monotonic() - began)
    return 0


def _cut(arguments: list[str]) -> tuple[Path, DatasetInfo]:
    options = parse(Footage, arguments, "prepare")
    with _shown(options.work) as progress:
        info = prepare(options.sources, options.work.out, options.settings, progress=progress, **_who(options.work))
    return options.work.out, info


def _draw(kind: str, arguments: list[str]) -> tuple[Path, DatasetInfo]:
    options = parse(Performers if kind == "performers" else Shapes, arguments, f"prepare {kind}")
    todo = plan_procedural(kind, options.settings, options.held_out)
    with _shown(options.work) as progress:
        info = work(options.work.out, todo, KINDS[kind].make, progress=progress, **_who(options.work))
    return options.work.out, info


def _film(arguments: list[str]) -> tuple[Path, DatasetInfo]:
    options = parse(Mocap, arguments, f"prepare {MOCAP}")
    todo = plan_mocap(options.sources, options.settings)
    with _shown(options.work) as progress:
        info = work(options.work.out, todo, film_captures, progress=progress, **_who(options.work))
    return options.work.out, info


def _who(options: Work) -> dict[str, Any]:
    return {
        "executor": options.executor,
        "workers": options.workers,
        "cluster": options.options,
        "storage": options.storage,
        "overwrite": options.overwrite,
    }


@contextmanager
def _shown(options: Work) -> Iterator[Callable[[plan.Progress], None]]:
    """Show progress on the terminal, and after Ctrl-C how to go on."""
    columns = (
        BarColumn(bar_width=28),
        TextColumn("{task.fields[words]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
    began: list[tuple[float, int]] = []

    def show(state: plan.Progress) -> None:
        began.append((time.monotonic(), state.kept)) if not began else None
        seconds, clips = time.monotonic() - began[0][0], state.kept - began[0][1]
        rate = f", {clips / seconds:.0f} clips/s" if clips and seconds > 0 else ""
        words = f"task {state.tasks_done} of {state.tasks}: {state.kept:,} kept, {state.refused:,} refused{rate}"
        bar.update(row, completed=state.cost_done, total=state.cost, words=words)

    try:
        with bar:
            row = bar.add_task("", total=None, words="looking at the footage")
            yield show
    except KeyboardInterrupt:
        if options.out.exists():
            print(f"kinema: what is done is kept in {options.out}; the same command goes on from there", file=sys.stderr)
        raise


def _summarise(out: Path, info: DatasetInfo, seconds: float) -> None:
    data = Dataset(out)
    records = [data.record(index) for index in range(len(data))]
    rates = rates_in_words(Counter(record.fps for record in records))
    shape = f"{info.frames} frames of {info.width}x{info.height} at {rates} fps"
    sources = "1 source" if len(info.sources) == 1 else f"{len(info.sources):,} sources"
    print(f"{out}: {info.kept:,} clips, {shape}, from {sources} in {seconds:.1f} s")
    if " to " in rates:
        print(
            "note: the footage has several frame rates, so that clips differ in speed and length of time; --fps gives all one"
        )
    learnt, held = ({record.label for record in records if record.split == split} for split in ("train", "test"))
    if unseen := [label for label in info.labels if label in held - learnt]:
        print(
            f"note: no clip of {', '.join(unseen)} is in the training split, so that nothing can be learnt of "
            f"{'it' if len(unseen) == 1 else 'them'}; choose another --split or --group"
        )
    if info.people:
        print(_whom(info))
    if info.refused:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(info.refused.items(), key=lambda item: -item[1]))
        print(f"refused: {reasons} (each is listed in {out / plan.REFUSED_NAME})")
    for reason, option in KEPT_BY.items():
        share = info.refused.get(reason, 0) / (info.kept + sum(info.refused.values()))
        if share > MANY:
            print(
                f"note: {share:.0%} were refused as {reason}; look at them in the report: if they are good, {option} keeps them"
            )
    if info.ignored:
        first, *others = info.ignored
        several = f"{len(info.ignored):,} files that are no footage, the first {first} (all are listed in {out / INFO_NAME})"
        print(f"passed over: {several if others else f'{first}, which is no footage'}")
    print(f"report: {out / plan.REPORT_NAME}")


def _whom(info: DatasetInfo) -> str:
    """Say in one line whom of several people was taken."""
    if len(info.people) == 1:
        return ": ".join(next(iter(info.people.items())))
    several, listed = f"several people in {len(info.people):,} sources: took", "(the report lists them)"
    if is_recorded(info.settings["pose"]):
        who = info.settings.get("person") or "largest"
        return (
            f"{several} {who} of each {listed}; choose with --person NUMBER, --person X,Y (pixel of the first frame) or "
            "--person largest"
        )
    return f"{several} who is most prominent of each {listed}; {WAYS}"
