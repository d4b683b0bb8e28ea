"""Action ``pose detect``: find the people in films, folders of frames and images, and write their poses."""

import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.cli.inputs import usable
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError
from kinema.data.detection import DetectSettings, Film
from kinema.pose.detect import crowd

if TYPE_CHECKING:
    from kinema.data.detection import Part
    from kinema.data.sources import Source

RANGES_SHOWN = 8
WEAK_SHOWN = 3


def _cores() -> int:
    """Count the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Where(Config):
    """Where results go and who does the work; none of it changes a pose."""

    out: Annotated[Path, tyro.conf.arg(metavar="FILE.npz|FOLDER", help_behavior_hint="")]
    """One .npz for one source, or a folder with one per source; a .json beside each says in which frames nobody was found. What
    is there already is not done again, and an interrupted run goes on where it was."""
    overlay: Annotated[Path | None, tyro.conf.arg(metavar="FILE.mp4|FOLDER", help_behavior_hint="")] = None
    """Also write films with the poses drawn on, to look at; frames without a person have a red edge."""
    workers: int = field(default_factory=_cores)
    """Parts of films at a time; by default one per core."""
    overwrite: bool = False
    """Do again what is there already."""

    def check(self) -> None:
        """Refuse values out of range."""
        self.require(self.workers >= 1, "workers", "at least 1")


@dataclass(frozen=True)
class Detect:
    """Find people in videos, folders of frames and images."""

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO|FOLDER|IMAGE...")]
    """Files, or folders that are searched. A folder that holds nothing but images is one film."""
    where: tyro.conf.OmitArgPrefixes[Where]
    settings: tyro.conf.OmitArgPrefixes[DetectSettings] = field(default_factory=DetectSettings)


def run(arguments: list[str]) -> int:
    """Run ``kinema pose detect``.

    Raises:
        DataError: nobody is in any of the films, or a film or place cannot be used.
    """
    from kinema.data import detection
    from kinema.data.executor import open_executor

    options = parse(Detect, arguments, "pose detect")
    where, settings = options.where, detection.settled(options.settings)
    films, bad = plan(options.sources, where.out)
    if settings.fps is not None and all(film.source.kind == "video" for film in films):
        raise ConfigError("--fps is the rate of folders of frames, and there are none: videos have a rate of their own")
    todo = [film for film in films if where.overwrite or not detection.is_done(film, settings)]
    for film in films:
        if film not in todo:
            nobody = "" if film.out.exists() else f": nobody was found in {film.source.name}, as {film.report} says"
            print(f"{film.out} is {'done' if nobody else 'there'} already{nobody}; --overwrite does it again")
    found = sum(film not in todo and film.out.exists() for film in films)
    parts = [part for film in todo for part in detection.divide(film, settings)]
    overlays = _overlays(films, where.overlay, set() if where.overwrite else set(todo))
    workers = min(where.workers, max(1, len(parts)))
    with open_executor("local", workers, folder=where.out.parent) as pool:
        try:
            with _shown([film.source for film in todo], parts) as told:
                for film, report in detection.detect_films(todo, settings, pool, in_flight=2 * workers):
                    told(film, report)
                    found += bool(report["found"])
        except KeyboardInterrupt:
            print(f"kinema: finished parts are kept beside {where.out}; the same command goes on from there", file=sys.stderr)
            raise
        if not found:
            raise DataError(
                f"nobody was found in {_names(films)}; people must be seen with their shoulders or hips and not too small, "
                f"or give --person LEFT,TOP,WIDTH,HEIGHT to say where to look"
            )
        _draw(overlays, settings, pool, overwrite=where.overwrite, fresh={film.out for film in todo})
    return int(bad > 0)


def plan(roots: Sequence[Path], out: Path) -> tuple[list[Film], int]:
    """Look at all footage and say where the poses of each go, and how many of several files cannot be read.

    Raises:
        DataError: there is no footage, none that can be read, or two would be written to one file.
    """
    from kinema.data.sources import find_sources, measure
    from kinema.pose.files import NO_FOLDERS

    if not roots:
        raise DataError("no source was given; give videos, folders of frames or images")
    looked = find_sources(roots)
    if looked.ignored:
        print(f"passed over, as no footage: {', '.join(looked.ignored[:RANGES_SHOWN])}{_more(looked.ignored)}")
    found = looked.sources
    sources = usable(found, lambda source: measure(source, None))
    bad = len(found) - len(sources)
    if not sources:
        raise DataError(f"none of {bad} sources can be read")
    if out.suffix.lower() == ".npz":
        if len(sources) > 1:
            raise DataError(f"--out {out} is one file, and there are {len(sources)} sources; give a folder")
        return [Film(sources[0], out)], bad
    if out.suffix.lower() in NO_FOLDERS:
        raise DataError(f"--out {out} ends in {out.suffix!r}; give FILE.npz or a folder")
    films = [Film(source, out / f"{_stem(source)}.npz") for source in sources]
    taken: dict[Path, Source] = {}
    for film in films:
        if film.out in taken:
            raise DataError(f"{taken[film.out].name} and {film.source.name} would both be written to {film.out}; rename one")
        taken[film.out] = film.source
    return films, bad


def summary(film: Film, report: dict[str, Any]) -> list[str]:
    """Say in a few lines what was found in a film."""
    name, frames, missed = film.source.name, report["frames"], report["missed"]
    lines = []
    if report["damage"]:
        lines.append(f"{name}: {report['damage']}; the poses end there")
    if not report["found"]:
        return [*lines, f"{name}: nobody was found in {frames:,} frames; no poses are written"]
    share = report["found"] / frames
    rate = frames / report["seconds"] if report["seconds"] else 0
    lines.append(
        f"{name}: a person in {report['found']:,} of {frames:,} frames ({share:.1%}), {rate:.1f} frames/s -> {film.out}"
    )
    if missed["count"]:
        lines.append(f"  nobody in {_listed(missed)}")
    if (flipped := report["upside_down"])["count"]:
        lines.append(f"  upside down by mistake, and so counted as nobody, in {_listed(flipped)}")
    joints = report["joints"]
    sure = [values["confidence"] for values in joints.values() if values["found"]]
    weak = sorted(joints, key=lambda joint: joints[joint]["found"])[:WEAK_SHOWN]
    words = ", ".join(f"{joint} in {joints[joint]['found']:.0%}" for joint in weak if joints[joint]["found"] < 1)
    lines.append(
        f"  mean confidence {sum(sure) / len(sure):.2f}" + (f"; seldom found: {words} of these frames" if words else "")
    )
    if report["parts"]:
        lines.append("  in view: " + ", ".join(f"{name} in {share:.0%}" for name, share in report["parts"].items()))
    lines += [f"  {note}" for note in report["notes"]]
    if report["people"] > 1:
        lines.append("  kinema pose convert --person takes one of them, or writes a file for each")
    others, asked = report["somebody_else"], report["settings"]["people"]
    choice = "--person LEFT,TOP,WIDTH,HEIGHT chooses another, " if asked == 1 else ""
    seen = [f"frame {frame}" for frame in others["frames"]]
    if said := crowd(others["looks"], seen, asked, f"{choice}--people {asked + 1} finds more"):
        lines.append(f"  {said}")
    return lines


def _listed(found: dict[str, Any]) -> str:
    """Return how many frames, and the first ranges of them."""
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in found["ranges"][:RANGES_SHOWN]]
    return f"{found['count']:,} frame{'s' * (found['count'] != 1)}: {', '.join(shown)}{_more(found['ranges'])}"


def _more(listed: Sequence[object]) -> str:
    return ", ..." if len(listed) > RANGES_SHOWN else ""


def _stem(source: "Source") -> str:
    return source.name if source.kind == "frames" else source.name.rpartition(".")[0] or source.name


def _names(films: Sequence[Film]) -> str:
    return films[0].source.path if len(films) == 1 else f"any of {len(films)} sources"


@contextmanager
def _shown(sources: Sequence["Source"], parts: Sequence["Part"]) -> Iterator[Callable[[Film, dict[str, Any]], None]]:
    """Show how far the work is and how fast, and print what was found in every film."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from kinema.data.detection import frames_done

    columns = (BarColumn(bar_width=28), TextColumn("{task.fields[words]}"), TimeElapsedColumn(), TextColumn("left"))
    console = Console(stderr=True)
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty(), transient=True)
    finished = threading.Event()
    before, gone = frames_done(parts), 0  # of an earlier run; of films whose parts are joined

    def watch() -> None:
        began = time.monotonic()
        while not finished.wait(0.5):
            done = gone + frames_done(parts)
            rate = (done - before) / (time.monotonic() - began)
            words = f"{done:,} of {total:,} frames" if total else f"{done:,} frames"
            bar.update(row, completed=done, words=f"{words}, {rate:.1f} frames/s")

    def tell(film: Film, report: dict[str, Any]) -> None:
        nonlocal gone
        gone += report["frames"]
        bar.stop()
        print("\n".join(summary(film, report)), flush=True)
        bar.start()

    total = sum(source.frames or 1 for source in sources)
    watcher = threading.Thread(target=watch, daemon=True)
    with bar:
        row = bar.add_task("", total=total, words="looking for people")
        if not bar.disable:
            watcher.start()
        try:
            yield tell
        finally:
            finished.set()
            if watcher.ident is not None:
                watcher.join()


def _overlays(films: Sequence[Film], place: Path | None, new: Collection[Film]) -> list[tuple[Film, Path]]:
    """Return where the films with drawings go; refuses what cannot be before anything is looked at.

    Args:
        films: all of them.
        place: a file, or a folder for one of each.
        new: films whose drawings may replace nothing.

    Raises:
        DataError: no place for films, one that exists, or that of a source.
    """
    from kinema.data.film import FILM_SUFFIXES
    from kinema.data.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

    if place is None:
        return []
    if place.suffix.lower() in VIDEO_SUFFIXES | IMAGE_SUFFIXES:
        if place.suffix.lower() not in FILM_SUFFIXES:
            raise DataError(f"--overlay {place} ends in {place.suffix!r}; give a .mp4, a .webm or a folder")
        if len(films) > 1:
            raise DataError(f"--overlay {place} is one file, and there are {len(films)} sources; give a folder")
        found = [(films[0], place)]
    else:
        found = [(film, place / f"{_stem(film.source)}.mp4") for film in films]
    sources = {Path(film.source.path).resolve() for film in films}
    for film, file in found:
        if file.resolve() in sources:
            raise DataError(f"--overlay {place} would replace {file}, in which people are looked for; give another place")
        if film in new and file.exists():
            raise DataError(f"{file} exists; give another --overlay, or --overwrite to replace it")
    return found


def _draw(
    overlays: Sequence[tuple[Film, Path]], settings: DetectSettings, pool: Any, *, overwrite: bool, fresh: set[Path]
) -> None:
    from kinema.data.executor import run_tasks
    from kinema.data.overlay import Overlay, write_overlay

    jobs = [
        Overlay(film.source, film.out, path, settings.fps)
        for film, path in overlays
        if film.out.exists() and (overwrite or film.out in fresh or not path.exists())
    ]
    for job, _ in run_tasks(pool, write_overlay, jobs, in_flight=len(jobs) or 1):
        print(f"drawn on {job.source.name}: {job.out}")
