"""Poses of whole films: long ones in parts, parts in parallel, every part kept until its film is done.

    OUT.npz                    poses of a film (`kinema.pose.files`); its presence and OUT.json mean that the film is done
    OUT.json                   report: which frames nobody was found in, how sure the detector was of every joint
    OUT.parts-DIGEST/000.npz   a finished part; the digest is of everything that decides what is found

A part but the first begins `LEAD` seconds early, so that the detector has found the person again where its frames begin.
Killing at any moment loses the parts under way: the same call does what is not there yet. Frames pass as a stream.

Frames in which somebody is upside down by mistake (`kinema.pose.filters.flips`) count as without them, and are listed.

One person is followed unless more are asked for. So that nobody is surprised whom, some frames are looked at again with those
who were found painted over: somebody found then is somebody else. Several people come from a detector in any order, and are
followed when the parts of their film are joined, so that nobody changes number where two parts meet.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from kinema.core.arrays import read_arrays
from kinema.core.config import Config, to_mapping
from kinema.core.errors import ConfigError, DataError, MediaError
from kinema.data.encode import beside
from kinema.data.executor import run_tasks
from kinema.data.media import Frame, displayed
from kinema.data.sources import SEEKABLE, Source, open_source
from kinema.pose.detect import (
    LEAST_CONFIDENCE,
    Box,
    PoseDetector,
    collect,
    has_trunk,
    next_look,
    open_detector,
    paired,
    somebody_else,
)
from kinema.pose.files import write_poses
from kinema.pose.filters import drop_flips
from kinema.pose.people import chosen, is_choice, told_apart
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import converter, find_skeleton

PART_FRAMES = 1000
LEAD = 1.0  # seconds
COUNTED_SECONDS = 0.5  # between two notes of how far a part is
_NO_PIXELS = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True)
class DetectSettings(Config):
    """How people are found; everything here decides what comes out."""

    detector: str = "mediapipe"
    """mediapipe, or the ONNX file of a top-down network such as RTMPose (17 joints of COCO)."""
    detector_version: str | None = None
    """Refuse another version of MediaPipe than this, or an ONNX file with another SHA-256."""
    skeleton: str = "coco-18"
    """Layout of the poses: coco-18, coco-17, body-25, edn-23, blazepose-33 or penn-13. With +face, +hands or +face+hands behind
    it, such as coco-18+face+hands, mediapipe finds these too, 70 points of the face and 21 of each hand."""
    people: int = 1
    """How many people at most are looked for in a frame, the most prominent ones; more than one with mediapipe alone, because a
    network in an ONNX file sees one crop. They are followed and numbered."""
    person: str | None = None
    """LEFT,TOP,WIDTH,HEIGHT in pixels, where the one person is who is looked for: MediaPipe sees nothing else, a network in an
    ONNX file looks there first. By default who is most prominent in the whole frame. With several --people: whom of them to
    write, a number, largest, X,Y (pixel of the first frame with anybody) or all (default)."""
    still: bool = False
    """The frames have nothing to do with one another: look for the person anew in each."""
    complexity: int = 1
    """Size of MediaPipe's network, 0 to 2; its package holds that of 1, and says where the others are to be had."""
    confidence: float = LEAST_CONFIDENCE
    """Joints of which the detector is less sure are missing, as are those outside of the frame."""
    fps: float | None = None
    """Frames per second of folders of frames; by default 25."""

    def check(self) -> None:
        """Refuse values out of range."""
        self.require(0 <= self.confidence <= 1, "confidence", "from 0 to 1")
        self.require(self.complexity in (0, 1, 2), "complexity", "0, 1 or 2")
        self.require(self.fps is None or 0 < self.fps <= 1000, "fps", "above 0 and at most 1000")
        self.require(self.people >= 1, "people", "1 or more")
        _ = self.view
        if self.people > 1 and not is_choice(self.choice):
            raise ConfigError(
                f"person is {self.person!r}; of several people it must be all, largest, the number of a person or a pixel X,Y"
            )

    @property
    def view(self) -> Box | None:
        """Where to look; with several people everywhere."""
        if self.person is None or self.people > 1:
            return None
        try:
            left, top, width, height = (float(word) for word in self.person.split(","))
        except ValueError:
            raise ConfigError(
                f"person is {self.person!r}; it must be LEFT,TOP,WIDTH,HEIGHT in pixels, or, with --people 2 or more, one of "
                "all, largest, the number of a person, X,Y"
            ) from None
        if not (width >= 1 and height >= 1 and np.isfinite([left, top, width, height]).all()):
            raise ConfigError(f"person is {self.person!r}; the width and height must be 1 pixel or more")
        return left, top, width, height

    @property
    def choice(self) -> str:
        """Whom of several people to write."""
        return self.person or "all"


@dataclass(frozen=True)
class Film:
    """One piece of footage and where its poses go.

    Attributes:
        source: the footage, measured.
        out: the .npz; the report lies beside it.
    """

    source: Source
    out: Path

    @property
    def report(self) -> Path:
        """Where the report lies."""
        return self.out.with_suffix(".json")


@dataclass(frozen=True)
class Part:
    """A stretch of a film as it travels to a worker.

    Attributes:
        source: with the stretch, its lead included.
        begins: seconds; frames before only lead up to it.
        settings: how people are found.
        file: of the result.
    """

    source: Source
    begins: float
    settings: DetectSettings
    file: Path

    @property
    def counter(self) -> Path:
        """File that holds the number of frames done, while they are."""
        return self.file.with_suffix(".count")


def settled(settings: DetectSettings) -> DetectSettings:
    """Open the detector once, for what is wrong with it, and return the settings with its version.

    Raises:
        ConfigError: no such detector or skeleton.
    """
    detector = _opened(settings)
    converter(detector.skeleton, find_skeleton(settings.skeleton))
    return replace(settings, detector_version=detector.version)


def is_done(film: Film, settings: DetectSettings) -> bool:
    """Tell whether the poses of a film are there.

    Raises:
        DataError: they are, but of another film or found with other settings.
    """
    if not film.report.exists():
        if film.out.exists():
            raise DataError(f"{film.out} exists and has no {film.report.name} beside it; give another --out, or --overwrite")
        return False
    try:
        report = json.loads(film.report.read_text())
        same, before = report["digest"] == digest(film, settings), report["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{film.report} is no report of kinema pose detect; give another --out, or --overwrite") from None
    if same:
        return report["found"] == 0 or film.out.exists()
    changed = next((name for name, value in to_mapping(settings).items() if before.get(name) != value), None)
    what = f"with {changed} = {before.get(changed)!r}" if changed else "in other footage"
    raise DataError(f"the poses in {film.out} were found {what}; give another --out, or --overwrite")


def digest(film: Film, settings: DetectSettings) -> str:
    """Return a hash of what decides the poses of a film."""
    source = {name: value for name, value in asdict(film.source).items() if name not in ("name", "path")}  # it may move
    facts = [to_mapping(settings), source, PART_FRAMES, LEAD]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def divide(film: Film, settings: DetectSettings) -> list[Part]:
    """Divide a film; only those in which every frame can be reached directly have more than one part."""
    source, folder = film.source, parts_folder(film, settings)
    if not _can_be_divided(source) or settings.still:
        return [Part(source, 0.0, settings, folder / "000.npz")]
    count = max(1, round((source.frames or 0) / PART_FRAMES))
    half = 0.5 / (source.fps or 1)  # between two frames, so that rounding moves none across
    edges = [max(0.0, number * PART_FRAMES / (source.fps or 1) - half) for number in range(count)]
    parts = []
    for number, (begins, stop) in enumerate(zip(edges, [*edges[1:], None], strict=True)):
        stretch = replace(source, start=max(0.0, begins - LEAD), stop=stop)
        parts.append(Part(stretch, begins, settings, folder / f"{number:03d}.npz"))
    return parts


def parts_folder(film: Film, settings: DetectSettings) -> Path:
    """Return where the finished parts of a film lie; they hold everybody, so that one of several is chosen from them later."""
    everybody = replace(settings, person=None) if settings.people > 1 else settings
    return film.out.with_name(f"{film.out.name}.parts-{digest(film, everybody)[:12]}")


def detect_films(
    films: Sequence[Film], settings: DetectSettings, executor: Executor, *, in_flight: int
) -> Iterator[tuple[Film, dict[str, Any]]]:
    """Find the people of films, and yield each with its report as soon as it is done.

    Args:
        films: those that are done, done again: what there is of them stays until the new poses are there.
        settings: as `settled` returns them.
        executor: where the parts are worked on.
        in_flight: parts at a time.

    Raises:
        DataError: a film cannot be read, or a result not be written.
    """
    parts = {film: divide(film, settings) for film in films}
    owner = {part: film for film, divided in parts.items() for part in divided}
    todo = [part for part in owner if not part.file.exists()]
    waiting = {film: {part for part in divided if part in todo} for film, divided in parts.items()}
    for film in [film for film in films if not waiting[film]]:
        yield film, finish(film, settings, parts[film])
    for part, _ in run_tasks(executor, detect_part, todo, in_flight=in_flight):
        film = owner[part]
        waiting[film].discard(part)
        if not waiting[film]:
            yield film, finish(film, settings, parts[film])


def detect_part(part: Part) -> None:
    """Find the people in one part and write them; runs in a worker.

    Raises:
        MediaError: nothing can be read, or the result cannot be written.
    """
    cv2.setNumThreads(1)  # one process per core
    part.file.parent.mkdir(parents=True, exist_ok=True)
    detector, skeleton = _kept(part.settings), find_skeleton(part.settings.skeleton)
    times: list[float] = []
    people: list[Float32[np.ndarray, "_ _ 3"]] = []
    looks: list[tuple[float, bool]] = []
    size, interval, damage = (0, 0), None, ""
    began = noted = time.monotonic()
    try:
        frames = open_source(part.source, strip=None, fps=part.settings.fps, resize=None)
        for frame, found in paired(detector, frames, lambda frame: frame.image):
            size, interval = (frame.image.shape[1], frame.image.shape[0]), frame.interval
            if frame.time < part.begins:
                continue
            times.append(frame.time)
            people.append(found)
            if len(found) and len(times) > next_look(len(looks)) and part.settings.view is None:
                looks.append((frame.time, somebody_else(_kept(of_stills(part.settings)), frame.image, found)))
            if time.monotonic() - noted > COUNTED_SECONDS:
                noted = time.monotonic()
                part.counter.write_text(str(len(times)))
    except MediaError as error:
        if not times and part.begins == 0:
            raise
        damage = str(error)
    with beside(part.file) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            times=np.array(times),
            points=collect(people, detector.skeleton, skeleton),
            size=np.array(size),
            interval=np.array(interval or 0.0),
            damage=np.array(damage),
            looks=np.array(looks, np.float64).reshape(-1, 2),
            seconds=np.array(time.monotonic() - began),
        )
    part.counter.unlink(missing_ok=True)


def of_stills(settings: DetectSettings) -> DetectSettings:
    """Return settings of what looks for somebody else: one body in a single frame."""
    return replace(settings, still=True, people=1, person=None, skeleton=find_skeleton(settings.skeleton).body.name)


def frames_done(parts: Sequence[Part]) -> int:
    """Count the frames of parts that are finished or under way, as far as their workers have noted."""
    done = 0
    for part in parts:
        for file, count in ((part.counter, _count), (part.file, _length)):
            try:
                done += count(file)
                break
            except (OSError, ValueError, KeyError, DataError):
                continue  # not there, or just being written
    return done


def finish(film: Film, settings: DetectSettings, parts: Sequence[Part]) -> dict[str, Any]:
    """Join the parts of a film, write poses and report, and remove the parts.

    Returns:
        The report.
    """
    read = [_read(part) for part in parts]
    broken = next((number for number, part in enumerate(read) if part.damage), None)
    read = read if broken is None else read[: broken + 1]  # what follows damage has lost its place in time
    people = max(part.points.shape[1] for part in read)
    points = np.concatenate([_widened(part.points, people) for part in read])
    times = np.concatenate([part.times for part in read])
    shown, interval = on_grid(times, read[0].interval), read[0].interval
    points, times = points[shown], times[shown]
    width, height = next((part.size for part in read if part.size[0]), (1, 1))
    poses = Poses(points, find_skeleton(settings.skeleton), width, height, 1 / interval if interval else 1.0)
    notes: tuple[str, ...] = ()
    if settings.people > 1 and poses.present.any():
        poses, notes = told_apart(replace(poses, extra={UNORDERED: True}))
        choice = chosen(poses, settings.choice)
        poses, notes = choice.poses, (*notes, *filter(None, [choice.sentence]))
    upright = poses if settings.still else drop_flips(poses)
    flipped = np.flatnonzero((poses.present & ~upright.present).any(axis=(1, 2))).tolist()
    poses = upright
    looks = [(round(seconds / interval) if interval else 0, bool(seen)) for part in read for seconds, seen in part.looks]
    about = {"source": film.source.name, "settings": to_mapping(settings)}
    report = describe(poses) | {
        **about,
        "notes": list(notes),
        "upside_down": {"count": len(flipped), "ranges": ranges(flipped)},
        "somebody_else": {"looks": len(looks), "frames": [frame for frame, seen in looks if seen]},
        "damage": next((part.damage for part in read if part.damage), ""),
        "seconds": round(sum(part.seconds for part in read), 3),
        "digest": digest(film, settings),
    }
    if report["found"]:
        write_poses(film.out, replace(poses, extra=about | {"times": times.round(6).tolist()}), overwrite=True)
    else:
        film.out.unlink(missing_ok=True)  # of an earlier run, which is done again
    with beside(film.report) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n")
    _remove_parts(film)
    return report


def describe(poses: Poses) -> dict[str, Any]:
    """Return what was found, as JSON values.

    A frame counts as missed when nobody in it has two of shoulders and hips; a joint's confidence is the mean over the frames
    in which it was found. Faces and hands are counted as a whole, where they were looked for.
    """
    there = has_trunk(poses.points, poses.skeleton)
    missed = np.flatnonzero(~there.any(axis=1)).tolist()
    counted = poses.present & there[..., None]
    shares = counted.sum(axis=(0, 1)) / max(1, there.sum())
    totals = np.where(counted, np.nan_to_num(poses.points[..., 2]), 0).sum(axis=(0, 1))
    means = totals / np.maximum(1, counted.sum(axis=(0, 1)))
    return {
        "frames": len(poses),
        "fps": poses.fps,
        "width": poses.width,
        "height": poses.height,
        "people": poses.points.shape[1] if len(missed) < len(poses) else 0,
        "found": len(poses) - len(missed),
        "missed": {"count": len(missed), "ranges": ranges(missed)},
        "parts": {name: round(float((seen & there).sum() / max(1, there.sum())), 4) for name, seen in poses.shown.items()},
        "joints": {
            joint: {"found": round(float(share), 4), "confidence": round(float(mean), 4)}
            for joint, share, mean in zip(poses.skeleton.joints, shares, means, strict=True)
        },
    }


def ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as ranges, first and last of each."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found


def on_grid(times: Float64[np.ndarray, "N"], interval: float | None) -> list[int]:
    """Return which frame is on display at every point of the film's nominal rate, as `kinema.data.media.resample` shows them.

    Args:
        times: of the frames, in seconds.
        interval: between two points of the rate, in seconds; None or 0 for single images.
    """
    stamps = [Frame(seconds, _NO_PIXELS, interval or None) for seconds in times.tolist()]
    number = {id(stamp): place for place, stamp in enumerate(stamps)}
    return [number[id(stamp)] for stamp in displayed(iter(stamps), None)]


@dataclass(frozen=True)
class _Read:
    """A finished part."""

    times: Float64[np.ndarray, "N"]
    points: Float32[np.ndarray, "N P J 3"]
    size: tuple[int, int]
    interval: float
    damage: str
    looks: Float64[np.ndarray, "L 2"]
    seconds: float


def _read(part: Part) -> _Read:
    try:
        file = read_arrays(part.file)
        size = (int(file["size"][0]), int(file["size"][1]))
        interval, damage, seconds = float(file["interval"]), str(file["damage"]), float(file["seconds"])
        return _Read(file["times"], file["points"], size, interval, damage, file["looks"], seconds)
    except (DataError, ValueError, KeyError) as error:
        raise DataError(f"{part.file} cannot be read ({error}); remove it and run the same command again") from None


def _remove_parts(film: Film) -> None:
    """Remove the parts of a film, those of other settings that were left behind included."""
    if not film.out.parent.is_dir():
        return
    for folder in film.out.parent.iterdir():
        if folder.name.startswith(f"{film.out.name}.parts-"):
            shutil.rmtree(folder)


def _widened(points: Float32[np.ndarray, "N P J 3"], people: int) -> Float32[np.ndarray, "N Q J 3"]:
    more = ((0, 0), (0, people - points.shape[1]), (0, 0), (0, 0))
    return np.pad(points, more)


def _can_be_divided(source: Source) -> bool:
    return bool(source.kind == "video" and source.fps and source.frames and Path(source.path).suffix.lower() in SEEKABLE)


def _count(file: Path) -> int:
    return int(file.read_text())


def _length(file: Path) -> int:
    return len(read_arrays(file)["times"])


def _opened(settings: DetectSettings) -> PoseDetector:
    return open_detector(
        settings.detector,
        version=settings.detector_version,
        still=settings.still,
        complexity=settings.complexity,
        view=settings.view,
        least_confidence=settings.confidence,
        people=settings.people,
        parts=find_skeleton(settings.skeleton).parts,
    )


_kept = lru_cache(maxsize=2)(_opened)
"""For workers, which open a detector once and not once per part: one for the film and one for single frames."""
