"""What a run leaves behind while it trains, and what it shows.

    config.json             system, configuration, dataset, and every session's command and machine
    metrics.jsonl           one line every few steps: means of every number, rates; findings of every look; how it ended
    tensorboard/            the same numbers and sheets as events, where tensorboard is installed
    samples/NNNNNN.png      contact sheet at fixed seeds; .mp4 the same clips moving; -streams, -predictions, -reconstructions
    checkpoint.safetensors  the sampler, rebuilt by `kinema.load`
    resume.pt               everything that the next step depends on
    latents/                what a frozen compressor makes of every clip, see `kinema.data.latents`
    index.html              all of it on one page, see `kinema.training.report`

Only the first process of a run writes.
"""

import errno
import json
import math
import os
import shutil
import signal
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8

from kinema.core.errors import CheckpointError, KinemaError, TrainingError
from kinema.core.lock import is_held
from kinema.training import distributed
from kinema.training.checkpoint import CHECKPOINT_NAME, replace_file
from kinema.training.health import Finding
from kinema.training.memory import peak_memory

CPU = torch.device("cpu")
FORMAT_VERSION = 1
CONFIG_NAME, METRICS_NAME, RESUME_NAME, REPORT_NAME = "config.json", "metrics.jsonl", "resume.pt", "index.html"
SAMPLES_NAME, TENSORBOARD_NAME, LATENTS_NAME = "samples", "tensorboard", "latents"
FILES = (METRICS_NAME, RESUME_NAME, CHECKPOINT_NAME, REPORT_NAME, CONFIG_NAME)  # last what makes a folder a run
FOLDERS = (SAMPLES_NAME, TENSORBOARD_NAME, LATENTS_NAME)

Loaded = TypeVar("Loaded")


# --- The directory ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Description:
    """The file config.json.

    Attributes:
        system: name of the system.
        preset: the preset that the configuration started from.
        config: the system's configuration, as JSON values.
        training: the trainer's configuration.
        options: what else decides the weights: split, mirroring.
        dataset: path, fingerprint and summary of the dataset.
        sessions: command, machine, time and first step of every start.
        weights: parameters of the system.
        kinema: version.
        format_version: of this file.
    """

    system: str
    preset: str
    config: Mapping[str, Any]
    training: Mapping[str, Any]
    options: Mapping[str, Any]
    dataset: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]]
    weights: int
    kinema: str
    format_version: int = FORMAT_VERSION


def read_description(folder: Path) -> Description:
    """Read config.json.

    Raises:
        CheckpointError: when it is missing, damaged or of a newer format.
    """
    path = folder / CONFIG_NAME
    try:
        values = json.loads(path.read_text())
        if values["format_version"] > FORMAT_VERSION:
            raise CheckpointError(f"{path} has format {values['format_version']}; this kinema reads up to {FORMAT_VERSION}")
        return Description(**values)
    except FileNotFoundError:
        raise CheckpointError(f"{folder} is no run: it has no {CONFIG_NAME}") from None
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); start the run anew with --overwrite") from None


def write_description(folder: Path, description: Description) -> None:
    """Write config.json, whole or not at all."""
    text = json.dumps(asdict(description), indent=2) + "\n"
    replace_file(folder / CONFIG_NAME, lambda beside: beside.write_text(text))


def claim(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Make sure that `folder` may be trained in; a run that is overwritten loses its files, and only those.

    Raises:
        TrainingError: when the folder is occupied, there is nothing to resume, or it cannot be made.
    """
    if resume and overwrite:
        raise TrainingError("--resume goes on and --overwrite begins anew; give one of them")
    if folder.exists() and not folder.is_dir():
        raise TrainingError(f"{folder} is a file; --out must be a directory")
    is_run = (folder / CONFIG_NAME).is_file()
    if resume:
        if not is_run:
            raise TrainingError(f"there is nothing to resume in {folder}: it has no {CONFIG_NAME}; leave --resume out")
        refuse_busy(folder)
        remove_left_over(folder)
        return
    if folder.is_dir() and any(folder.iterdir()):
        if not is_run and not broke_off(folder):
            raise TrainingError(f"{folder} holds files that are no run of kinema; give --out another directory")
        if is_run and not overwrite:
            raise TrainingError(f"{folder} holds a run already; add --resume to go on, or --overwrite to begin anew")
        refuse_busy(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        remove_left_over(folder)
    except OSError as error:
        raise TrainingError(
            f"cannot write to {folder}: {error.strerror}; give --out a directory that you may write to"
        ) from None
    if not os.access(folder, os.W_OK):
        raise TrainingError(f"cannot write to {folder}: Permission denied; give --out a directory that you may write to")


def broke_off(folder: Path) -> bool:
    """Tell whether a folder holds no more than what a start leaves that is stopped before it has written config.json."""
    names = {path.name.partition(".tmp-")[0] for path in folder.iterdir()}
    log = folder / METRICS_NAME
    return names <= {METRICS_NAME, TENSORBOARD_NAME, CONFIG_NAME} and not (log.is_file() and log.stat().st_size)


def remove_left_over(folder: Path) -> None:
    """Remove what a process that was killed was just writing."""
    for left_over in folder.rglob("*.tmp-*"):
        left_over.unlink()


def refuse_busy(folder: Path) -> None:
    """Raise `TrainingError` when another process is training in `folder`."""
    with suppress(FileNotFoundError), (folder / METRICS_NAME).open("rb") as file:
        hold(file)


def hold(file: BinaryIO) -> None:
    """Lock a file against other processes until it is closed.

    Raises:
        TrainingError: when another process holds it.
    """
    if is_held(file):
        raise TrainingError(f"{Path(file.name).parent} is being trained by another process; stop that one first")


# --- Numbers ------------------------------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Sums of what the next line of metrics.jsonl averages."""

    steps: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, numbers: Mapping[str, float], seconds: float, waited: float) -> None:
        """Add one step; a number that a player did not give in this step is left out of its mean."""
        self.steps += 1
        self.seconds += seconds
        self.waited += waited
        for name, value in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        """Return the mean of every number."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


class RunLog:
    """Writes metrics.jsonl and TensorBoard events.

    Args:
        folder: the run's directory.
        every: steps between two lines.
        batch_size: clips in a global batch, for the rate.
        device: of the training; what it takes of a GPU's memory is noted.
    """

    def __init__(self, folder: Path, every: int, batch_size: int, device: torch.device = CPU) -> None:
        self.folder, self.every, self.batch_size, self.device = folder, every, batch_size, device
        self._path = folder / METRICS_NAME
        self._file: BinaryIO | None = None
        self._events: Any = None
        self._tally = Tally()
        self._began = self._arrived = time.monotonic()

    def start(self, state: Mapping[str, Any] | None, step: int) -> None:
        """Open the files; without a state from the beginning, with one as if everything since had never been written.

        Args:
            state: of `state_dict`.
            step: steps done.

        Raises:
            CheckpointError: when metrics.jsonl is shorter than it was when the state was saved.
            TrainingError: when another process is training in the folder.
        """
        self._file = self._open(state["position"] if state else 0)
        self._tally = Tally(**state["tally"]) if state else Tally()
        for sheet in (self.folder / SAMPLES_NAME).glob("*"):
            if sheet.name[:6].isdigit() and int(sheet.name.split("-")[0].split(".")[0]) > step:
                sheet.unlink()
        self._events = open_events(self.folder / TENSORBOARD_NAME, step)

    def state_dict(self) -> dict[str, Any]:
        """Return where metrics.jsonl ends and what the next line has gathered; everything so far is on disk afterwards."""
        if self._file is not None:
            os.fsync(self._file.fileno())
        return {"position": self._path.stat().st_size, "tally": asdict(self._tally)}

    def waiting_for(self, source: Iterable[Loaded]) -> Iterator[Loaded]:
        """Pass on what `source` gives and note how long it took to come."""
        self._began = time.monotonic()
        for item in source:
            self._arrived = time.monotonic()
            yield item
            self._began = time.monotonic()

    def note(self, step: int, stage: str, total_seconds: float, numbers: Mapping[str, float]) -> None:
        """Gather the numbers of the step that has just been done, and write a line when it is time.

        Args:
            step: steps done in the run.
            stage: name of the stage.
            total_seconds: spent on the run so far.
            numbers: of this step.
        """
        self._tally.add(numbers, time.monotonic() - self._began, self._arrived - self._began)
        if step % self.every == 0:
            self.flush(step, stage, total_seconds)

    def flush(self, step: int, stage: str, total_seconds: float) -> None:
        """Write what was gathered since the last line, if anything."""
        tally, self._tally = self._tally, Tally()
        if not tally.steps:
            return
        seconds = max(tally.seconds, 1e-9)
        rates = {
            "steps_per_second": tally.steps / seconds,
            "clips_per_second": tally.steps * self.batch_size / seconds,
            "waiting_share": tally.waited / seconds,
        }
        if (peak := peak_memory(self.device)) is not None:
            rates["device_memory"] = peak  # MiB, the most so far
        self.write(step, stage, {"seconds": total_seconds, **rates, **tally.means()})

    def write(self, step: int, stage: str, numbers: Mapping[str, float]) -> None:
        """Write a line of numbers."""
        self._line({"step": step, "stage": stage, **numbers})
        for name, value in numbers.items():
            self._event("add_scalar", name, value, step)

    def report(
        self,
        step: int,
        stage: str,
        findings: Sequence[Finding],
        sheets: Mapping[str, Sequence[str]] | None = None,
        numbers: Mapping[str, float] | None = None,
    ) -> None:
        """Write a line about a look.

        Args:
            step: steps done in the run.
            stage: name of the stage.
            findings: what the rules of health say.
            sheets: kinds of sheets that were written, with the names of their columns.
            numbers: measured on held-out clips.
        """
        health = [{**asdict(finding), "value": _json_number(finding.value)} for finding in findings]
        measured = dict(numbers or {})
        self._line({"step": step, "stage": stage, "health": health, "sheets": sheets or {}, **measured})
        for name, value in measured.items():
            self._event("add_scalar", name, value, step)
        for finding in findings:
            if finding.value is not None:
                self._event("add_scalar", f"health/{finding.name}", finding.value, step)

    def end(self, step: int, stage: str, how: str, sentence: str) -> None:
        """Write how the session ended: finished, stopped or failed. Resuming drops the line."""
        self._line({"step": step, "stage": stage, "end": how, "sentence": sentence})

    def picture(self, name: str, image: UInt8[np.ndarray, "H W 3"], step: int) -> None:
        """Show a sheet in TensorBoard."""
        self._event("add_image", name, image, step, dataformats="HWC")

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._events is not None:
            self._events.close()
            self._events = None

    def _open(self, position: int) -> BinaryIO:
        file = self._path.open("ab", buffering=0)
        try:
            hold(file)
            if self._path.stat().st_size < position:
                raise CheckpointError(f"{self._path} was cut short since the run stopped; begin anew with --overwrite")
        except KinemaError:
            file.close()
            raise
        os.truncate(self._path, position)
        return file

    def _line(self, values: Mapping[str, Any]) -> None:
        if self._file is None:
            raise TrainingError(f"{self._path} is not open; call start first")
        plain = {name: _json_number(value) for name, value in values.items()}
        line = json.dumps(plain, allow_nan=False).encode() + b"\n"
        position = self._path.stat().st_size
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            os.truncate(self._path, position)  # half a line would spoil the next one
            raise CheckpointError(_cannot_write(self._path, error)) from None

    def _event(self, method: str, *arguments: Any, **options: Any) -> None:
        if self._events is not None:
            getattr(self._events, method)(*arguments, **options)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; a last one that is still being written is left out."""
    path = folder / METRICS_NAME
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1] if line]


def open_events(folder: Path, step: int) -> Any:
    """Return TensorBoard's writer, which drops events after `step`; None where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


# --- On the terminal ----------------------------------------------------------------------------------------------------------


class Display:
    """Shows how a stage goes: a live bar on a terminal, else a plain line now and then.

    Args:
        batch_size: clips in a global batch.
        every: seconds between plain lines.
    """

    def __init__(self, batch_size: int, every: float = 10.0) -> None:
        self.batch_size, self.every = batch_size, every
        self._recent: deque[tuple[float, int]] = deque(maxlen=64)
        self._last = -math.inf
        self._means: dict[str, float] = {}
        self._live: Any = None

    def begin(self) -> None:
        """Begin a stage."""
        self._recent.clear()
        self._means.clear()
        self._last = -math.inf
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True)
            self._live.start()

    def update(self, steps: int, progress: float | None, remaining: float | None, numbers: Mapping[str, float]) -> None:
        """Show the state after a step.

        Args:
            steps: done in this stage.
            progress: share of the budget in [0, 1], None without one.
            remaining: seconds that the budget of minutes leaves, None without one.
            numbers: of this step; shown as running means, terms before metrics.
        """
        now = time.monotonic()
        for name, value in numbers.items():
            self._means[name] = 0.9 * self._means.get(name, value) + 0.1 * value
        if not self._recent or now - self._recent[-1][0] > 0.25:
            self._recent.append((now, steps))
        if now - self._last < (0.25 if self._live else self.every):
            return
        self._last = now
        line = self._line(now, steps, progress, remaining)
        if self._live:
            self._live.update(self._picture(line, progress))
        else:
            print(line, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._live:
            self._live.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the bar away."""
        if self._live:
            self._live.stop()
            self._live = None

    def rate(self, now: float, steps: int) -> float | None:
        """Return steps per second over the last quarter of a minute or so; None before the second step."""
        then, done = self._recent[0]
        return (steps - done) / (now - then) if now > then and steps > done else None

    def _line(self, now: float, steps: int, progress: float | None, remaining: float | None) -> str:
        rate = self.rate(now, steps)
        parts = [f"step {steps:,}"]
        if progress is not None:
            parts.append(f"{progress:.0%}")
        if rate:
            parts.append(f"{rate:.3g} steps/s, {rate * self.batch_size:.3g} clips/s")
            by_steps = steps * (1 - progress) / progress / rate if progress else None
            ends = [seconds for seconds in (by_steps, remaining) if seconds is not None]
            if ends:
                parts.append(f"{clock(min(ends))} left")
        important = [name for name in self._means if not name.endswith("gradient_norm")][:6]
        parts.append(", ".join(f"{name} {self._means[name]:.3g}" for name in important))
        return " · ".join(parts)

    def _picture(self, line: str, progress: float | None) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.text import Text

        return Group(ProgressBar(total=None if progress is None else 1.0, completed=progress or 0.0), Text(line))


def clock(seconds: float) -> str:
    """Write seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class StopSignals:
    """Turns the first Ctrl-C or SIGTERM into a wish that the loop asks for; the second Ctrl-C interrupts at once."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def anywhere(self, device: torch.device) -> bool:
        """Tell, in every process alike, whether any process of the run was asked to stop; messages travel by `device`."""
        asked = torch.tensor(float(self.received is not None))
        if distributed.processes() > 1:
            asked = distributed.average(asked.to(device))
        if not asked:
            return False
        self.received = self.received or signal.SIGTERM
        return True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)


def is_look_step(step: int) -> bool:
    """Tell whether to look at the samples after `step`: 20, 50, 100, 150, 200, 300, 400, 500, 600, 800, 1000, 1500, ..."""
    if step < 100:
        return step in (20, 50)
    decade = 10 ** (len(str(step)) - 1)
    return step in {round(decade * share) for share in (1, 1.5, 2, 3, 4, 5, 6, 8)}


def _json_number(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _cannot_write(path: Path, error: OSError) -> str:
    return f"{path} cannot be written: {error.strerror}; the last checkpoint is intact: make room and go on with --resume"
