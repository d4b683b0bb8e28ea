"""Verbs that sample from a trained system: generate, predict, reconstruct, interpolate."""

import contextlib
import re
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar, get_args

import numpy as np
import tyro
from jaxtyping import UInt8

from kinema.cli.abilities import named_abilities
from kinema.cli.arguments import parse
from kinema.cli.inputs import Queue, media_files
from kinema.cli.steering import (
    Number,
    Steered,
    Steering,
    fitting_batch,
    read_size,
    refuse_undiffusing,
    say_untrained,
    steered,
)
from kinema.core.config import Config
from kinema.core.errors import ConfigError, DataError, KinemaError, MediaError
from kinema.core.shape import ClipShape

if TYPE_CHECKING:
    from kinema.cli.output import Output
    from kinema.cli.trained import Trained

MOMENTS = 8  # of a process that are drawn

ItemT = TypeVar("ItemT")

Format = Literal["mp4", "webm", "gif", "webp", "apng", "png", "npy"]
Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
Files = Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE...", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Sampled(Config):
    """What every sampling verb understands."""

    made: ClassVar[str] = "samples"

    run: Run
    """Run directory, checkpoint file, or zoo:NAME for a system that comes with kinema."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR|FILE", help_behavior_hint="")] = None
    """Folder for one file per clip, or one file for all of them: a moving grid, with .png a contact sheet. Default: a folder
    in the run directory."""
    format: Annotated[Format | None, tyro.conf.arg(help_behavior_hint="")] = None
    """Kind of the files in a folder. Default: mp4, and png for an image of which an image is made."""
    sheet: bool = False
    """One file for all clips also in a folder."""
    fps: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Frames per second of the files. Default: those of the footage that the system was trained on."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace files that exist."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        super().check()
        self.require(self.fps is None or 0 < self.fps <= 1000, "fps", "more than 0 and at most 1000")
        if self.format and self.ending not in ("", f".{self.format}"):
            raise ConfigError(
                f"--out {self.out} is a {self.ending} file and --format says {self.format}; leave out one of them"
            )

    @property
    def ending(self) -> str:
        """Suffix of the one file of all clips that --out names; nothing where it names a folder."""
        ending = self.out.suffix.lower() if self.out else ""
        return ending if ending in {f".{name}" for name in get_args(Format)} else ""

    def output(
        self, names: Sequence[str], trained: "Trained", about: str, *, stills: Collection[str] = (), resume: bool = False
    ) -> "Output":
        """Return where the clips go.

        Args:
            names: of the clips.
            trained: what makes them.
            about: what is made, in words.
            stills: names of clips that are images.
            resume: of several, those that are there already are not made again.
        """
        from kinema.cli.output import Output

        run = Path(self.run)
        default = run / self.made if run.is_dir() else Path(f"{trained.name}-{self.made}")
        return Output(
            self.out or default,
            names,
            suffix=f".{self.format or 'mp4'}",
            sheet=self.sheet,
            fps=self.fps or trained.fps,
            about=f"{trained.metadata.system} of {trained.name}, {about}",
            overwrite=self.overwrite,
            stills=() if self.format else stills,
            resume=resume,
        )


@dataclass(frozen=True, kw_only=True)
class BatchSampled(Sampled):
    """What verbs understand that work batch by batch."""

    batch_size: int = 16
    """Clips that are made at once; changes memory and speed, never a clip."""

    def check(self) -> None:
        """Refuse an empty batch."""
        super().check()
        self.require(self.batch_size >= 1, "batch_size", "at least 1")


@dataclass(frozen=True, kw_only=True)
class Generate(Steering, BatchSampled):
    """Make clips out of seeds: seed i gives the same clip whatever else is asked for."""

    made = "generated"

    seeds: Annotated[str | None, tyro.conf.arg(metavar="0-15|3,7,9-12", help_behavior_hint="")] = None
    """Which seeds, as ranges and single numbers."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """How many clips, from --seed on (default: 16; with --process 1, or one for each of several --label or --text)."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """First seed for --count (default: 0)."""
    streams: bool = False
    """Show background, foreground, mask and result side by side, as Figure 3 of the VGAN paper; prints the mask's range."""
    size: Annotated[str | None, tyro.conf.arg(metavar="FRAMESxHEIGHTxWIDTH", help_behavior_hint="")] = None
    """Size of the clips, such as 16x48x32, of a system that makes clips of any. Default: those that it was trained on."""
    frames: Number = None
    """Frames of the clips, instead of --size."""
    process: Annotated[Path | None, tyro.conf.arg(metavar="FILE.png", help_behavior_hint="")] = None
    """Draw how a real clip turns into noise, and below it how each seed becomes a clip, instead of making clips."""

    def check(self) -> None:
        """Refuse contradictions and numbers that are no seeds."""
        super().check()
        if self.size is not None and self.frames is not None:
            raise ConfigError("--size already says how many frames; leave out --frames")
        if self.size is not None:
            read_size(self.size)
        self.require(self.frames is None or self.frames >= 1, "frames", "at least 1")
        other = [*self.said, *(["--size"] if self.size else []), *(["--frames"] if self.frames else [])]
        if self.streams and other:
            raise ConfigError(f"--streams shows the clips of seeds as they are; leave out {other[0]}")
        unwanted = [word for word in other if word in ("--size", "--frames")]
        if self.process and (self.streams or unwanted):
            raise ConfigError(f"--process shows sampling at the system's own size; leave out {(*unwanted, '--streams')[0]}")
        files = {"--out": self.out, "--format": self.format, "--sheet": self.sheet, "--fps": self.fps}
        if self.process and (given := next((name for name, value in files.items() if value), None)):
            raise ConfigError(f"--process draws one picture into the file that it names; leave out {given}")
        if self.seeds is not None and (self.count is not None or self.seed is not None):
            raise ConfigError("--seeds already says which clips; leave out --count and --seed")
        self.require(self.count is None or self.count >= 1, "count", "at least 1")
        self.require(self.seed is None or self.seed >= 0, "seed", "0 or more")

    def chosen(self) -> list[int]:
        """Return the seeds that are asked for."""
        if self.seeds is not None:
            return parse_seeds(self.seeds)
        first, usual = self.seed or 0, max(1, len(self.label), len(self.text)) if self.process else 16
        return list(range(first, first + (usual if self.count is None else self.count)))


@dataclass(frozen=True, kw_only=True)
class Predict(BatchSampled):
    """Continue still images, or the beginning of clips.

    A system that forecasts poses has other options, which follow below.
    """

    made = "predicted"

    files: Files
    """Images or clips, or folders of them; a clip gives its first frames. What does not have the system's shape is fitted as
    its dataset was: the middle is cut out, or all of it put between borders."""
    seed: int = 0
    """Seed of the first future, for systems that imagine several; counted up per file."""

    def check(self) -> None:
        """Refuse a negative seed."""
        super().check()
        self.require(self.seed >= 0, "seed", "0 or more")


@dataclass(frozen=True, kw_only=True)
class Reconstruct(BatchSampled):
    """Encode clips and decode them: original and reconstruction side by side."""

    made = "reconstructed"

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FILE|DATA...", help_behavior_hint="")]
    """Clips, or folders of them, or prepared datasets; of a longer clip the beginning."""
    count: int = 16
    """Clips taken from each dataset; its test split where there is one."""
    alone: bool = False
    """Only the reconstruction, as a video of its own: a made example for kinema train fake-detector."""

    def check(self) -> None:
        """Refuse fewer than one clip."""
        super().check()
        self.require(self.count >= 1, "count", "at least 1")


@dataclass(frozen=True, kw_only=True)
class Interpolate(Sampled):
    """Walk from one seed to another in code space, one clip per step."""

    made = "interpolated"

    start: Annotated[int, tyro.conf.arg(name="from")]
    """Seed of the first clip."""
    end: Annotated[int, tyro.conf.arg(name="to")]
    """Seed of the last clip."""
    steps: int = 8
    """Clips, both ends included."""

    def check(self) -> None:
        """Refuse a walk without two ends."""
        super().check()
        self.require(self.start >= 0, "start", "0 or more")
        self.require(self.end >= 0, "end", "0 or more")
        self.require(self.steps >= 2, "steps", "at least 2")


def generate(arguments: list[str]) -> int:
    """Run ``kinema generate``."""
    options = parse(Generate, arguments, "generate")
    seeds = options.chosen()
    trained = _open(options, "streams" if options.streams else ("diffuse", "generate"))
    asked = steered(options, trained)
    for option in ("size", "frames", "process"):
        if getattr(options, option) is not None:
            refuse_undiffusing(trained, option)
    if options.process:
        return _draw_process(options.process, options, trained, asked, seeds)
    shape = read_size(options.size) if options.size else trained.metadata.clip
    shape = replace(shape, frames=options.frames or shape.frames)
    diffuses = trained.ability == "diffuse"
    at_once = fitting_batch(trained, shape, min(options.batch_size, len(seeds))) if diffuses else options.batch_size
    output = options.output([f"seed-{seed:04d}" for seed in seeds], trained, f"seeds {seeds[0]} to {seeds[-1]}")
    if diffuses:
        say_untrained(trained, shape)
    for batch in _progress(list(enumerate(seeds)), at_once, "generating"):
        numbers, chosen = [number for number, _ in batch], [seed for _, seed in batch]
        labels, captions = asked.labels_of(numbers), asked.captions_of(numbers)
        if options.streams:
            for row in _streams(trained, chosen):
                output.add(row)
            continue
        made = (
            trained.diffuse(chosen, shape, labels, captions, asked.sampling) if diffuses else trained.generate(chosen, labels)
        )
        for clip in made:
            output.add([clip])
    return _done(output, len(seeds), trained, shape)


def predict(arguments: list[str]) -> int:
    """Run ``kinema predict``."""
    from kinema.cli import complete, forecast

    can = named_abilities(arguments)
    if "forecast" in can:
        return forecast.run(arguments)
    if "inpaint" in can:
        return complete.predict(arguments)
    if arguments in (["--help"], ["-h"]):
        with contextlib.suppress(SystemExit):
            parse(Predict, arguments, "predict")
        print("\nWith a RUN of a system that forecasts poses:\n")
        with contextlib.suppress(SystemExit):
            forecast.run(arguments)
        print("\nWith a RUN of a system that completes clips:\n")
        return complete.predict(arguments)
    options = parse(Predict, arguments, "predict")
    _refuse_none(options.files, "predict wants images or clips")
    trained = _open(options, ("predict", "inpaint"))
    files = media_files(options.files)
    output = options.output([file.stem for file in files], trained, "predicted", resume=True)
    queue = Queue(files, output)
    pasts = queue.each(lambda _, file: _beginning(file, trained.system.past_frames, trained))
    for batch in _progress(list(pasts.items()), options.batch_size, "predicting"):
        made = trained.predict(np.stack([past for _, past in batch]), [options.seed + number for number, _ in batch])
        for (number, _), clip in zip(batch, made, strict=True):
            output.turn_to(number)
            output.add([clip])
    return queue.finish(f"{_clips(len(pasts))} of {trained.metadata.clip} at {output.fps:g} frames per second")


def reconstruct(arguments: list[str]) -> int:
    """Run ``kinema reconstruct``."""
    options = parse(Reconstruct, arguments, "reconstruct")
    _refuse_none(options.files, "reconstruct wants clips or a dataset")
    trained = _open(options, "reconstruct")
    clips: dict[str, UInt8[np.ndarray, "T H W 3"]] = {}
    failed = 0
    paths = [path for given in options.files for path in ([given] if _is_dataset(given) else media_files([given]))]
    for path in paths:
        try:
            found = _stored(path, options.count, trained) if path.is_dir() else {path.stem: _whole(path, trained)}
        except KinemaError as error:
            if len(paths) == 1 or options.sheet or options.ending:
                raise
            print(f"kinema: {error}", file=sys.stderr)
            failed += 1
            continue
        if shared := clips.keys() & found.keys():
            raise DataError(f"two clips are called {min(shared)!r}; give them to separate commands")
        clips |= found
    if not clips:
        return 2
    output = options.output(list(clips), trained, "reconstructed")
    errors: list[float] = []
    for batch in _progress(list(clips.items()), options.batch_size, "reconstructing"):
        originals = np.stack([clip for _, clip in batch])
        for (name, original), again in zip(batch, trained.reconstruct(originals), strict=True):
            output.add([again] if options.alone else [original, again])
            errors.append(peak_signal_to_noise(original, again))
            print(f"{name}: {errors[-1]:.2f} dB")
    sides = "" if options.alone else "; original left, memory right"
    print(f"peak signal-to-noise ratio, mean over {_clips(len(errors))}: {np.mean(errors):.2f} dB{sides}")
    return max(_done(output, len(clips), trained), int(failed > 0))


def interpolate(arguments: list[str]) -> int:
    """Run ``kinema interpolate``."""
    from kinema.cli import complete

    if arguments in (["--help"], ["-h"]):
        with contextlib.suppress(SystemExit):
            parse(Interpolate, arguments, "interpolate")
        print("\nBetween two images or clips:\n")
        return complete.interpolate(arguments)
    if not any(word.partition("=")[0] in ("--from", "--to") for word in arguments):
        return complete.interpolate(arguments)
    options = parse(Interpolate, arguments, "interpolate")
    trained = _open(options, "interpolate")
    names = [f"step-{step:02d}" for step in range(options.steps)]
    output = options.output(names, trained, f"seed {options.start} to seed {options.end}")
    for clip in trained.interpolate(options.start, options.end, options.steps):
        output.add([clip])
    return _done(output, options.steps, trained)


def parse_seeds(text: str) -> list[int]:
    """Read ``0-15`` or ``3,7,9-12``.

    Raises:
        ConfigError: for anything else, or a seed that comes twice.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,18})(?:-(\d{1,18}))?\s*", part)
        if not match or (match[2] and int(match[2]) < int(match[1])):
            raise ConfigError(f"--seeds {text!r} is no list of seeds; write for example 0-15 or 3,7,9-12")
        seeds.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"--seeds {text!r} names a seed twice; name each once")
    return seeds


def peak_signal_to_noise(original: UInt8[np.ndarray, "T H W 3"], again: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Return 10 log10(255^2 / mean squared error) in decibels; infinite for equal clips."""
    error = np.square(original.astype(np.float32) - again.astype(np.float32)).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def _open(options: Sampled, ability: str | Sequence[str]) -> "Trained":
    from kinema.cli.trained import Trained

    return Trained(options.run, ability, options.device)


def _streams(trained: "Trained", seeds: Sequence[int]) -> Iterable[list[UInt8[np.ndarray, "T H W 3"]]]:
    """Yield a row of streams per seed, and say how far its mask reaches: a mask that is all 0 or all 1 shows a dead stream."""
    streams, ranges = trained.streams(seeds)
    for row, (seed, (low, mean, high)) in enumerate(zip(seeds, ranges.tolist(), strict=True)):
        print(f"seed {seed}: {', '.join(streams)}; mask from {low:.3f} to {high:.3f}, mean {mean:.3f}")
        yield [clips[row] for clips in streams.values()]


def _draw_process(file: Path, options: Generate, trained: "Trained", asked: Steered, seeds: Sequence[int]) -> int:
    """Draw the forward process of a clip above the reverse process of every seed."""
    from kinema.data.encode import write_image
    from kinema.data.tags import generated_tags
    from kinema.evaluation.process_figure import process_figure

    if file.exists() and not options.overwrite:
        raise MediaError(f"{file} exists; give another --process, or --overwrite to replace it")
    if file.suffix.lower() != ".png":
        raise MediaError(f"{file} ends in {file.suffix or 'no suffix'!r}; the figure is written as .png")
    sampling = asked.sampling or trained.system.sampling
    moments = min(MOMENTS, sampling.steps + 1)
    reverse: dict[str, list[UInt8[np.ndarray, "T H W 3"]]] = {}
    for ((number, seed),) in _progress(list(enumerate(seeds)), 1, "sampling"):  # every step is held, so one after the other
        words = "".join(f", {said[number % len(said)]}" for said in (options.label, options.text) if said)
        walk = trained.trajectory(seed, moments, asked.labels_of([number]), asked.captions_of([number]), sampling)
        reverse[f"seed {seed}{words}"] = walk
    real = _real_clip(trained, options.label[0] if options.label else None)
    forward = trained.noised(next(iter(reverse.values()))[-1] if real is None else real, moments, seeds[0])
    shown = "; ".join(reverse)
    about = f"{trained.metadata.system} of {trained.name}, {shown}, {sampling.steps} steps of {sampling.sampler}"
    file.parent.mkdir(parents=True, exist_ok=True)
    figure = process_figure(forward, reverse, sampling.steps, real=real is not None)
    write_image(file, figure, metadata=generated_tags(about))
    sample = "the sample itself" if len(reverse) == 1 else "the first sample itself"
    above = "a clip of the run's dataset" if real is not None else f"{sample}, for the run's dataset is not here"
    print(f"{file}: above {above}, below {shown} in {sampling.steps} steps of {sampling.sampler}")
    return 0


def _real_clip(trained: "Trained", label: str | None) -> UInt8[np.ndarray, "T H W 3"] | None:
    """Return a clip, of a class if one is named, of the dataset that a run was trained on, where it still lies there."""
    from kinema.data.dataset import Dataset

    path, shape = trained.metadata.dataset.get("path"), trained.metadata.clip
    if not path or not (Path(path) / "dataset.json").is_file():
        return None
    data = Dataset(Path(path))
    if (data.shape.height, data.shape.width) != (shape.height, shape.width) or data.shape.frames < shape.frames:
        return None
    of_class = (number for number in range(len(data)) if label is None or data.record(number).label == label)
    return np.array(data.video(next(of_class, 0), 0, shape.frames))


def _progress(items: Sequence[ItemT], batch_size: int, doing: str) -> Iterable[Sequence[ItemT]]:
    """Yield the items in batches, with a bar on a terminal."""
    from rich.console import Console
    from rich.progress import track

    batches = [items[first : first + batch_size] for first in range(0, len(items), batch_size)]
    console = Console(stderr=True)
    return track(batches, doing, console=console, transient=True, disable=not console.is_terminal)


def _done(output: "Output", count: int, trained: "Trained", shape: ClipShape | None = None) -> int:
    print(f"{_clips(count)} of {shape or trained.metadata.clip} at {output.fps:g} frames per second: {output.close()}")
    return 0


def _clips(count: int) -> str:
    return "1 clip" if count == 1 else f"{count} clips"


def _refuse_none(files: Sequence[Path], wanted: str) -> None:
    if not files:
        raise ConfigError(f"{wanted}, and none is named")


def _beginning(path: Path, frames: int, trained: "Trained") -> UInt8[np.ndarray, "T H W 3"]:
    """Read the first frames of an image or clip, fitted as the system's own clips were; says in a line what was done.

    Raises:
        DataError: when the file holds fewer frames.
    """
    from itertools import islice

    from kinema.data.cutting import fitted
    from kinema.data.fitting import fitting
    from kinema.data.media import probe, read_frames, scaled_to

    shape, info = trained.metadata.clip, probe(path)
    resize = scaled_to(trained.fit, shape.width, shape.height)
    found = [frame.image for frame in islice(read_frames(path, resize=resize), frames)]
    if len(found) < frames:
        raise DataError(f"{path} has {len(found)} frames; {trained.metadata.system} wants clips of at least {frames}")
    if (info.width, info.height) != (shape.width, shape.height):
        way = fitting((info.width, info.height), (shape.width, shape.height), trained.fit)
        print(f"{path}: {way.describe()}")
    if info.fps and (info.frames or 0) > frames:
        print(f"{path}: of {info.frames} frames, the first{f' {frames}' if frames > 1 else ''}")
    if frames > 1 and info.fps and abs(float(info.fps) / trained.fps - 1) > 0.1:
        print(f"{path}: at {float(info.fps):g} frames per second, learnt at {trained.fps:g}")
    return fitted(found, shape.width, shape.height, resize)


def _whole(path: Path, trained: "Trained") -> UInt8[np.ndarray, "T H W 3"]:
    return _beginning(path, trained.metadata.clip.frames, trained)


def _is_dataset(path: Path) -> bool:
    from kinema.data.dataset import INFO_NAME

    return (path / INFO_NAME).exists()


def _stored(path: Path, count: int, trained: "Trained") -> dict[str, UInt8[np.ndarray, "T H W 3"]]:
    """Read clips of a dataset, of its test split where there is one.

    Raises:
        DataError: when the clips have another shape than the system's.
    """
    from kinema.data.dataset import Dataset

    every = Dataset(path)
    if every.shape != trained.metadata.clip:
        raise DataError(f"{path} holds clips of {every.shape}; {trained.name} was trained on {trained.metadata.clip}")
    held_out = any(every.record(index).split == "test" for index in range(len(every)))
    dataset = Dataset(path, "test") if held_out else every
    return {dataset.record(index).key: np.array(dataset.video(index)) for index in range(min(count, len(dataset)))}
