"""The verb transfer: somebody's motion performed by the person that a system was trained on."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import numpy as np
import tyro
from jaxtyping import UInt8

from kinema.cli.arguments import parse
from kinema.cli.terminal import Progress
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError, MediaError, accepted

if TYPE_CHECKING:
    from kinema.cli.mosaic import Mosaic
    from kinema.cli.trained import Trained
    from kinema.data.film import Film
    from kinema.data.media import MediaInfo
    from kinema.pose.driving import Driving
    from kinema.pose.normalise import Normaliser
    from kinema.pose.sequence import Poses

CellT = TypeVar("CellT")

Picture = UInt8[np.ndarray, "_ _ 3"]
View = Literal["result", "side-by-side", "grid"]

CHUNK = 16  # frames that are made at a time: memory does not grow with length


@dataclass(frozen=True, kw_only=True)
class Transfer(Config):
    """Show the person that a run was trained on doing what somebody else does in a video."""

    source: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Video, or image, of who sets the motion; its rate and sound are kept. Without one --poses drive alone."""
    target: Annotated[tuple[str, ...], tyro.conf.arg(metavar="RUN...")]
    """Run directories or checkpoint files of people; several perform together, frame by frame, in one picture."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.mp4", help_behavior_hint="")]
    """Film to make: .mp4 or .webm."""
    poses: Annotated[Path | None, tyro.conf.arg(metavar="FILE.npz|FOLDER", help_behavior_hint="")] = None
    """Poses of the source, from kinema pose detect or OpenPose, instead of looking for them."""
    detector: Annotated[str, tyro.conf.arg(metavar="mediapipe|FILE.onnx")] = "mediapipe"
    """What looks for people in the source."""
    people: int = 1
    """How many people at most it looks for, the most prominent ones, so that --person can choose; mediapipe alone finds
    several."""
    person: Annotated[str, tyro.conf.arg(metavar="largest|N|X,Y")] = "largest"
    """Who of several people sets the motion: the largest, a number, or who is nearest to a pixel of the first frame with
    anybody."""
    normalise: Literal["depth", "affine", "relative", "none"] = "depth"
    """How the source's place and size become the target's. depth: feet on the target's floor and the size that belongs there
    (Everybody Dance Now). affine: heights of joints as the target's on average. relative: the target's place, moved as the
    source moves. none: as in the source's frame."""
    smooth: Literal["median", "savgol", "one-euro", "ema", "none"] = "median"
    """Filter over time, after normalisation."""
    window: int = 7
    """Frames of the filters median and savgol; odd."""
    as_is: bool = False
    """Take the poses unnormalised and unsmoothed, the source's frame cut as kinema prepare cuts it: for footage of the target
    that was not trained on."""
    keep_in_view: bool = False
    """Go less far to the sides than the source, as far as head, trunk and legs stay in the target's picture; feet slide by the
    difference."""
    view: View = "result"
    """result: the target alone. side-by-side: source, skeleton and result, a row per target. grid: source, its skeleton and
    all results."""
    mark: bool = False
    """Write 'synthetic' into a lower corner of every result."""
    first_frame: int = 0
    """First frame of the source that is performed, counted from 0."""
    frames: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """How many frames are performed. Default: to the end."""
    restart: int = 0
    """Forget the frame before every so many frames, so that errors cannot grow; 0: never."""
    skeleton: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Layout of joints that the target must have been trained with; refused where it was another."""
    style: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Style of drawing that the target must have been trained with; refused where it was another."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace a file that exists."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        self.require(len(self.target) > 0, "target", "at least one run")
        self.require(self.first_frame >= 0, "first_frame", "0 or more")
        self.require(self.frames is None or self.frames >= 1, "frames", "at least 1")
        self.require(self.restart >= 0, "restart", "0 or more")
        self.require(self.window >= 1 and self.window % 2 == 1, "window", "odd and 1 or more")
        self.require(self.people >= 1, "people", "1 or more")
        self.require(self.person != "all", "person", "one person: largest, a number or X,Y")
        if self.source is None and self.poses is None:
            raise ConfigError("transfer wants --source, a video of somebody who moves, or --poses")
        if self.as_is and self.keep_in_view:
            raise ConfigError("--as-is leaves everybody where they are; leave out --as-is or --keep-in-view")
        defaults = type(self)
        if self.as_is and (self.smooth, self.window) != (defaults.smooth, defaults.window):
            raise ConfigError("--as-is takes poses as they are; leave out --as-is, or --smooth and --window")
        if self.poses and (self.detector, self.people) != (defaults.detector, defaults.people):
            raise ConfigError("--poses are found already; leave out --poses, or --detector and --people")
        if self.as_is and self.normalise not in ("depth", "none"):
            raise ConfigError(f"--as-is takes poses unnormalised; leave out --as-is or --normalise {self.normalise}")


def run(arguments: list[str]) -> int:
    """Run ``kinema transfer``."""
    from kinema.cli.trained import Trained
    from kinema.pose.normalise import floor_of

    options = parse(Transfer, arguments, "transfer")
    _refuse_output(options)
    info = _probed(options)
    targets = [Trained(name, "transfer", options.device) for name in options.target]
    for name, target in zip(options.target, targets, strict=True):
        _refuse_other_drawing(options, name, target)
        if not options.as_is:
            known = target.target_statistics()  # a target that knows none is refused before anybody is looked for
            if options.normalise == "depth":
                floor_of("target", known)
    poses, performed = _source_poses(options, info, _parts_drawn(targets))
    _say_lacking(options, poses, targets)
    _say_other_detector(options, poses, targets)
    maps: list[Any] = []
    driven = [_driven(options, poses, performed, target, maps) for target in targets]
    poses = poses.window(performed.start, performed.stop)
    _say_absent(driven[0], poses, performed.start if options.poses else options.first_frame)
    began = time.monotonic()
    with _film(options, info, poses, targets, maps) as (film, mosaic), Progress() as progress:
        for pictures in _performed(options, info, poses, targets, driven, mosaic.tall):
            film.add(mosaic.lay(pictures))
            progress.show("performing", film.frames, len(poses))
    seconds = time.monotonic() - began
    rate = f"{film.frames / seconds:.1f} frames per second"
    print(f"{options.out}: {film.frames} frames of {film.width}x{film.height} at {float(film.fps):g} fps, {film.sound}; {rate}")
    return 0


# --- Before anything is made --------------------------------------------------------------------------------------------------


def _refuse_output(options: Transfer) -> None:
    from kinema.cli.output import refuse_unwritable
    from kinema.data.film import FILM_SUFFIXES

    if options.out.suffix.lower() not in FILM_SUFFIXES:
        raise MediaError(f"{options.out} ends in {options.out.suffix!r}; accepted: {', '.join(FILM_SUFFIXES)}")
    if options.source and options.out.resolve() == options.source.resolve():
        raise MediaError(f"{options.out} is what the result is made of; give another --out")
    if options.out.is_dir():
        raise MediaError(f"{options.out} is a folder; --out is a file that ends in {' or '.join(FILM_SUFFIXES)}")
    if options.out.exists() and not options.overwrite:
        raise MediaError(f"{options.out} exists; give another --out, or --overwrite to replace it")
    refuse_unwritable(options.out.parent)


def _probed(options: Transfer) -> "MediaInfo | None":
    from kinema.data.media import probe

    return probe(options.source) if options.source else None


def _refuse_other_drawing(options: Transfer, name: str, target: "Trained") -> None:
    """Refuse a target that reads other drawings than the user believes.

    Raises:
        ConfigError: naming the target's own.
    """
    from kinema.pose.draw import STYLES, refuse_other_style
    from kinema.pose.skeleton import find_skeleton

    if options.skeleton and find_skeleton(options.skeleton).name != target.system.skeleton:
        raise ConfigError(
            f"{name} was trained on poses of skeleton {target.system.skeleton}, not {options.skeleton}; leave out --skeleton, "
            "and poses are converted"
        )
    if options.style:
        if options.style not in STYLES:
            raise ConfigError(f"there is no style {options.style!r}; {accepted(options.style, STYLES)}")
        refuse_other_style(target.system.style, STYLES[options.style])


# --- Poses --------------------------------------------------------------------------------------------------------------------


def _parts_drawn(targets: Sequence["Trained"]) -> tuple[str, ...]:
    """Return which of face and hands a source must show: those that were drawn when the targets were trained."""
    from kinema.pose.skeleton import find_skeleton

    wanted = {
        part for target in targets for part in find_skeleton(target.system.skeleton).parts if getattr(target.system.style, part)
    }
    return tuple(sorted(wanted))


def _say_lacking(options: Transfer, poses: "Poses", targets: Sequence["Trained"]) -> None:
    """Say which of face and hands the targets were trained with and the source's poses do not have."""
    for target in targets:
        lacking = [part for part in _parts_drawn([target]) if getattr(poses, part) is None]
        if lacking:
            print(
                f"{options.poses or options.detector} has no {' and no '.join(lacking)}, with which {target.name} was trained: "
                f"drawn without; kinema pose detect --skeleton {target.system.skeleton} finds them with mediapipe"
            )


def _say_other_detector(options: Transfer, poses: "Poses", targets: Sequence["Trained"]) -> None:
    """Say which targets learnt from poses of another detector than the source's, where both are known."""
    from kinema.pose.found_by import of_poses, unlike

    source, now = of_poses(poses), options.poses is None
    for target in targets:
        if sentence := unlike(source, target.poses_found_by, "the source's poses", target.name, looks_now=now):
            print(sentence)


def _source_poses(options: Transfer, info: "MediaInfo | None", parts: tuple[str, ...]) -> tuple["Poses", range]:
    """Return the poses of the one person who sets the motion, and which of their frames are performed.

    Poses from a file are there as a whole, so that normalisation measures all of them; a detector looks at no other frames
    than those that are performed.

    Raises:
        DataError: when there is nobody, or no such frame.
    """
    from kinema.cli.driving import detected, read_driving
    from kinema.pose.detect import crowd, open_detector
    from kinema.pose.people import take

    first, count = options.first_frame, options.frames
    if options.poses:
        poses = read_driving(options.poses, info)
        if not len(poses):
            raise DataError(f"{options.poses} holds no frames; give poses of somebody who moves")
        if first >= len(poses):
            raise DataError(f"{options.poses} has no frame {first}; its last is {len(poses) - 1}")
        performed = range(first, len(poses) if count is None else min(len(poses), first + count))
    else:
        assert info is not None  # checked with the options
        with Progress() as progress:
            # A network in a file finds the body alone, which is said; MediaPipe is asked for what was drawn in training.
            parts = parts if options.detector == "mediapipe" else ()
            detector = open_detector(options.detector, people=options.people, parts=parts)
            still = open_detector(options.detector, still=True)
            poses, looks = detected(info, detector, still, first, count, progress.show)
        choice = "kinema pose detect --person LEFT,TOP,WIDTH,HEIGHT chooses another, " if options.people == 1 else ""
        seen = [f"frame {frame}" for frame, there in looks.items() if there]
        if others := crowd(len(looks), seen, options.people, f"{choice}--people {options.people + 1} finds more"):
            print(others)
        performed = range(len(poses))
    if not poses.present.any():
        raise DataError(
            f"no person is in any of the {len(poses)} frames of {options.poses or options.source}; give footage of one whole "
            "person, or another --detector"
        )
    person, notes = take(poses, options.person)
    for note in notes:
        print(note)
    return person, performed


def _normaliser(options: Transfer, poses: "Poses", target: "Trained") -> "Normaliser":
    """Fit what takes the source's poses into the target's frame, and say what is to be known of it."""
    from kinema.pose.normalise import fit

    normaliser = fit(poses, target.target_statistics(), options.normalise)
    for note in normaliser.notes:
        _say(options, target, note)
    return normaliser


def _driven(options: Transfer, poses: "Poses", performed: range, target: "Trained", maps: list[Any]) -> "Driving":
    """Return the poses in which a target is shown; say last in `maps` how they came into its frame."""
    from kinema.pose.driving import as_prepared, drive
    from kinema.pose.skeleton import find_skeleton

    height, width = target.system.frame_shape

    def normalise(found: "Poses") -> "Poses":
        if options.as_is:
            maps.append("as prepared")
            return as_prepared(found, width, height, target.fit)
        normaliser = _normaliser(options, found, target)
        maps.append(normaliser.to_mapping())
        return normaliser(found)

    smooth = "none" if options.as_is else options.smooth
    whole = drive(poses, find_skeleton(target.system.skeleton), normalise, smooth=smooth, window=options.window)
    if options.keep_in_view:
        whole, maps[-1]["sideways"] = _in_view(options, whole, target)
    driven = whole.window(performed.start, performed.stop)
    if not options.as_is:
        _say_cut_off(options, driven, target)
    return driven


def _in_view(options: Transfer, whole: "Driving", target: "Trained") -> tuple["Driving", dict[str, float]]:
    """Return the poses with a way to the sides that stays in view, and what was done, which is said."""
    from kinema.pose.driving import within

    way = within(whole.poses)
    _say(options, target, f"{way.share:.0%} of the source's way to the sides, to stay in view")
    return whole.moved(way), asdict(way)


def _say_cut_off(options: Transfer, driven: "Driving", target: "Trained") -> None:
    if not (cut_off := driven.cut_off):
        return
    width = target.system.frame_shape[1]
    advice = "" if options.keep_in_view else "--keep-in-view goes less far to the sides; "
    _say(
        options,
        target,
        f"in {len(cut_off)} of {len(driven.poses)} frames head, trunk or legs lie beyond the sides of a picture of {width} "
        f"pixels: {advice}a target of wider pictures (kinema prepare --size WIDTHxHEIGHT) has more room",
    )


def _say(options: Transfer, target: "Trained", words: str) -> None:
    """Print what is to be known of a target, with its name where there are several."""
    print(f"{target.name}: {words}" if len(options.target) > 1 else words)


def _say_absent(driven: "Driving", poses: "Poses", first: int) -> None:
    """Say in which frames, as the source counts them, nobody is."""
    from kinema.pose.driving import bridged
    from kinema.pose.people import frame_list

    flipped, absent = ([first + frame for frame in kind] for kind in (driven.flipped, driven.absent))
    if flipped:
        print(
            f"in {frame_list(flipped)} the detector had turned the person upside down from one frame to the next: they "
            "count as frames without anybody"
        )
    if absent:
        print(
            f"of {len(poses)} frames nobody is in {frame_list(absent)}: gaps of up to {bridged(poses.fps)} frames are "
            "bridged by a straight line, in longer ones the last pose is held, before the first person the first one"
        )


# --- Frames -------------------------------------------------------------------------------------------------------------------


@contextmanager
def _film(
    options: Transfer, info: "MediaInfo | None", poses: "Poses", targets: Sequence["Trained"], maps: Sequence[Any]
) -> Iterator[tuple["Film", "Mosaic"]]:
    """Open the film that is made, and what lays its pictures out."""
    from kinema.cli.mosaic import Mosaic
    from kinema.data.film import film

    rate = info.fps if info and info.fps else Fraction(poses.fps).limit_denominator(1001)
    alone = options.view == "result" and len(targets) == 1
    cells = _cells(options, info, poses, targets)
    mosaic = Mosaic(cells, tall=_tall(targets), enlarge=not alone, marked=_marked(options, info, cells))
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MediaError(f"the folder {options.out.parent} cannot be made: {error.strerror}") from None
    start = float(options.first_frame / rate)
    tags = _tags(options, targets, maps)
    sound = info.path if info and info.fps else None
    with film(options.out, mosaic.width, mosaic.height, rate, metadata=tags, sound=sound, start=start) as made:
        yield made, mosaic


def _tall(targets: Sequence["Trained"]) -> int:
    return max(target.system.frame_shape[0] for target in targets)


def _cells(
    options: Transfer, info: "MediaInfo | None", poses: "Poses", targets: Sequence["Trained"]
) -> list[list[tuple[int, int]]]:
    """Return the sizes of the pictures that `_performed` yields."""
    results = [(width, height) for height, width in (target.system.frame_shape for target in targets)]
    source = [(info.width, info.height)] if info else []
    if options.view == "result":
        return _rows(results)
    if options.view == "grid":
        return _rows([*source, (poses.width, poses.height), *results])
    return [[*source, size, size] for size in results]


def _marked(options: Transfer, info: "MediaInfo | None", cells: Sequence[Sequence[tuple[int, int]]]) -> list[list[bool]]:
    """Return which of the cells are marked: results, which come after the source and the skeleton."""
    shown = 0 if options.view == "result" else 1 + (info is not None)
    if options.view == "side-by-side":
        return [[options.mark and column >= shown for column in range(len(row))] for row in cells]
    return _rows([options.mark and number >= shown for number in range(sum(map(len, cells)))])


def _tags(options: Transfer, targets: Sequence["Trained"], maps: Sequence[Any]) -> dict[str, str]:
    """Return what the file says about itself, for people and for programs."""
    from kinema.data.tags import generated_tags

    driver = (options.source or options.poses or Path()).name
    systems = sorted({target.metadata.system for target in targets})
    about = f"{', '.join(systems)} of {', '.join(target.name for target in targets)}, moved by {driver}"
    runs = [
        {
            "name": target.name,
            "system": target.metadata.system,
            "checkpoint sha256": target.sha256,
            "normaliser": way,
        }
        for target, way in zip(targets, maps, strict=True)
    ]
    return generated_tags(about, source=driver, runs=runs)


def _performed(
    options: Transfer,
    info: "MediaInfo | None",
    poses: "Poses",
    targets: Sequence["Trained"],
    driven: Sequence["Driving"],
    tall: int,
) -> Iterator[list[list[Picture]]]:
    """Yield the pictures of every frame as rows; those of the source are as tall as a row is."""
    results = [target.perform(one.poses.filled(), CHUNK, options.restart) for target, one in zip(targets, driven, strict=True)]
    if options.view == "result":
        for made in zip(*results, strict=True):
            yield _rows(list(made))
        return
    sources = _shown(options, info, len(poses), tall)
    if options.view == "grid":
        small = poses.resized(max(1, round(poses.width * tall / poses.height)), tall)
        for source, *made in zip(sources, _skeletons(small, targets[0]), *results, strict=False):
            yield _rows([*source, *made])
        return
    drawn = [_skeletons(one.poses, target) for one, target in zip(driven, targets, strict=True)]
    for source, *rest in zip(sources, *drawn, *results, strict=False):
        pairs = zip(rest[: len(targets)], rest[len(targets) :], strict=True)
        yield [[*source, *pair] for pair in pairs]


def _rows(pictures: list[CellT]) -> list[list[CellT]]:
    """Lay pictures out in rows of nearly a square."""
    columns = int(np.ceil(np.sqrt(len(pictures))))
    return [pictures[start : start + columns] for start in range(0, len(pictures), columns)]


def _shown(options: Transfer, info: "MediaInfo | None", count: int, tall: int) -> Iterator[list[Picture]]:
    """Yield the frames of the source, or nothing; the last one is held where its poses go on for a frame or two."""
    from kinema.cli.driving import source_frames

    last: list[Picture] = []
    if info is not None:
        for picture in source_frames(info, options.first_frame, count, tall):
            last = [picture]
            yield last
    yield from repeat(last)


def _skeletons(poses: "Poses", target: "Trained") -> Iterator[Picture]:
    """Yield drawings of poses, in the target's style."""
    from kinema.pose.draw import draw

    parts = (poses.window(start, min(start + CHUNK, len(poses))) for start in range(0, len(poses), CHUNK))
    return chain.from_iterable(draw(part, target.system.style) for part in parts)
