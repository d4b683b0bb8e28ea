"""Resumable work on a dataset: a plan written first, one task per shard, every result written beside and renamed.

    DATA/prepare/plan.json           settings, sources and tasks; makes a folder without dataset.json an unfinished one
    DATA/prepare/lock                held by the one process that works on it
    DATA/prepare/000007.json         outcome of task 7: what was kept and refused; its presence means that the shard is done
    DATA/shards/000007.tar           its clips
    DATA/report.html, refused.jsonl  written at the end, then dataset.json, then DATA/prepare is removed

Killing at any moment loses at most the tasks that were running: the same command takes up the plan and does what has no
outcome. What a task makes depends on the plan alone, so that the finished dataset is the same to the byte.
"""

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, NoReturn, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
from jaxtyping import UInt8
from pydantic import TypeAdapter, ValidationError

from kinema.core.errors import DataError
from kinema.core.lock import is_held
from kinema.core.shape import ClipShape
from kinema.data.dataset import ENCODED, INFO_NAME, MEASURES_NAME, Clip, DatasetInfo, shard_name, write_info, write_shard
from kinema.data.duplicates import find_duplicates, signature
from kinema.data.executor import run_tasks
from kinema.data.looks import Look, others
from kinema.data.lossless import decode_clip

WORK = "prepare"
LOCK_NAME = "lock"  # in there; held by the process that hands out the tasks
REFUSED_NAME = "refused.jsonl"
REPORT_NAME = "report.html"
OURS = frozenset({WORK, REFUSED_NAME, REPORT_NAME, INFO_NAME, MEASURES_NAME, "shards"})

PLAN_VERSION = 1
PICTURES_PER_REASON = 3  # of a task's refused clips that the report may show

_Read = TypeVar("_Read")
_adapter = cache(TypeAdapter)  # making one takes as long as cutting a clip


@dataclass(frozen=True)
class Refusal:
    """A stretch of footage that did not become a clip.

    Attributes:
        source: name of the footage.
        reason: one word or two, under which it is counted.
        first: first frame, at the rate of the clips; None for the whole source.
        last: last frame.
        detail: what was measured and what would have been right, as JSON values.
        video: its pixels, where the report should show it.
    """

    source: str
    reason: str
    first: int | None = None
    last: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    video: UInt8[np.ndarray, "T H W 3"] | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be done, as JSON values; equal plans make equal datasets."""

    kind: str
    """Name of the maker."""
    settings: dict[str, Any]
    """Everything that decides what is made."""
    frames: int
    """Frames of a clip."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    items: list[dict[str, Any]]
    """What the tasks are ranges of, such as sources; empty where a number is all there is to an item."""
    tasks: list[tuple[int, int]]
    """First item and one past the last, of each task."""
    costs: list[float]
    """Estimated seconds per task, for the remaining time."""
    refused: list[dict[str, Any]] = field(default_factory=list)
    """What was refused while planning."""
    ignored: list[str] = field(default_factory=list)
    """Files in the folders of footage that are none."""
    labels: list[str] = field(default_factory=list)
    """Class names."""
    skeleton: str | None = None
    """Name of the skeleton of the poses."""
    people: dict[str, str] = field(default_factory=dict)
    """Source whose poses hold several people -> who is taken."""
    duplicates: float | None = None
    """Near-duplicates differ by at most this many grey levels anywhere; None keeps them."""
    encoded: bool = False
    """Videos are stored as lossless H.264 instead of as pixels."""
    version: int = PLAN_VERSION
    """Of the plan's format."""

    def to_json(self) -> bytes:
        """Return the text of ``plan.json``."""
        return _adapter(Plan).dump_json(self, indent=1)


Made = Clip | Refusal | Look
"""What makers yield."""


@runtime_checkable
class Maker(Protocol):
    """Makes the clips of one task; a function of a module, so that other processes can import it."""

    def __call__(self, job: "Job") -> Iterator["Made"]:
        """Yield clips, refusals and looks in a fixed order."""
        ...


@dataclass(frozen=True)
class Job:
    """One task as it travels to a worker.

    Attributes:
        make: what makes its clips.
        folder: of the dataset.
        digest: of the plan.
        number: of the task and its shard.
        first: first item.
        stop: one past the last item.
        items: the items from the plan, where they are listed there.
        settings: from the plan.
        encoded: from the plan.
    """

    make: Maker
    folder: Path
    digest: str
    number: int
    first: int
    stop: int
    items: Sequence[dict[str, Any]]
    settings: Mapping[str, Any]
    encoded: bool = False


@dataclass(frozen=True)
class Kept:
    """A clip that a task wrote.

    Attributes:
        key: of its record.
        source: name of its footage.
        first: first frame.
        fps: frames per second.
        motion: mean difference of neighbouring frames, in grey levels.
        signature: tiny pictures of it, base64.
        label: class.
    """

    key: str
    source: str
    first: int
    fps: float
    motion: float
    signature: str
    label: str | None = None


@dataclass(frozen=True)
class Refused:
    """A refusal as it is stored; `picture` is a JPEG strip of its frames, base64."""

    source: str
    reason: str
    first: int | None = None
    last: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    picture: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What a task did."""

    digest: str
    """Of the plan it belongs to."""
    kept: list[Kept]
    """Clips of its shard, in order."""
    refused: list[Refused]
    """What did not become a clip."""
    looks: list[Look] = field(default_factory=list)
    """For other people."""


@dataclass(frozen=True)
class Progress:
    """How far the work is."""

    tasks_done: int
    tasks: int
    cost_done: float
    cost: float
    kept: int
    refused: int


Report = Callable[[Path, Plan, Sequence[Outcome], Sequence[Refused], frozenset[str]], str]
"""Makes report.html from the folder, the plan, the outcomes, all refusals and the keys of the duplicates."""


def claim(folder: Path, plan: Plan, *, overwrite: bool) -> Plan:
    """Make `folder` the place of this plan, or find it there from an earlier, interrupted start.

    Args:
        folder: of the dataset.
        plan: what is to be done.
        overwrite: remove what is there, other than unfinished work on the same plan.

    Raises:
        DataError: the folder holds a finished dataset (without `overwrite`), the work of another plan, or something else, or
            another process works in it.
    """
    _refuse_foreign(folder)
    _refuse_busy(folder)
    if overwrite and not _is_begun(folder, plan):
        _clear(folder)
    earlier = _read_plan(folder)
    if earlier is not None:
        _refuse_difference(folder, earlier, plan)
        return earlier
    if (folder / INFO_NAME).exists():
        raise DataError(f"{folder} is a finished dataset; give another --out, or --overwrite to replace it")
    if any(path.name != WORK for path in folder.glob("*")):
        raise DataError(
            f"{folder} holds parts of a dataset without their plan; give another --out, or --overwrite to replace them"
        )
    _write(folder / WORK / "plan.json", plan.to_json())
    return plan


def carry_out(
    folder: Path,
    plan: Plan,
    make: Maker,
    executor: Executor,
    *,
    in_flight: int,
    report: Report,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> DatasetInfo:
    """Do the tasks that have no outcome yet, then finish the dataset.

    Args:
        folder: claimed for `plan`.
        plan: what to do.
        make: what makes the clips of a task.
        executor: where the tasks run.
        in_flight: tasks to hand out at a time.
        report: makes the report.
        progress: called after each task.

    Raises:
        DataError: nothing usable came out, a file cannot be read or written, or another process works in the folder.
    """
    digest = hashlib.sha256(plan.to_json()).hexdigest()
    with _explained(folder):
        lock = (folder / WORK / LOCK_NAME).open("ab")
    with lock:
        _hold(lock, folder)
        outcomes = _read_outcomes(folder, digest)
        jobs = [
            Job(make, folder.absolute(), digest, number, first, stop, plan.items[first:stop], plan.settings, plan.encoded)
            for number, (first, stop) in enumerate(plan.tasks)
            if number not in outcomes
        ]
        progress(_progress(plan, outcomes))
        for job, _ in run_tasks(executor, run_job, jobs, in_flight=in_flight):
            outcomes[job.number] = _parse(Outcome, _outcome_path(folder, job.number))
            progress(_progress(plan, outcomes))
        return finish(folder, plan, [outcomes[number] for number in range(len(plan.tasks))], report)


def run_job(job: Job) -> None:
    """Make the shard of one task and write its outcome; runs in a worker.

    Nothing is returned: a worker that is killed in the middle of a long answer would leave a pool waiting for its end.

    Raises:
        KinemaError: whatever the maker raises, or a file that cannot be written.
    """
    cv2.setNumThreads(1)  # one process per core
    kept: list[Kept] = []
    refused: list[Refused] = []
    looks: list[Look] = []
    clips = _kept(job.make(job), kept, refused, looks)
    shard = job.folder / shard_name(job.number)
    first = next(clips, None)
    if first is None:
        shard.unlink(missing_ok=True)
    else:
        write_shard(shard, chain([first], clips), encoded=job.encoded)
    outcome = Outcome(job.digest, kept, refused, looks)
    _write(_outcome_path(job.folder, job.number), _adapter(Outcome).dump_json(outcome))


def finish(folder: Path, plan: Plan, outcomes: Sequence[Outcome], report: Report) -> DatasetInfo:
    """Drop near-duplicates, write the report and ``dataset.json``, and remove the plan.

    Raises:
        DataError: nothing usable came out, or a file cannot be read or written.
    """
    refused = [*(Refused(**refusal) for refusal in plan.refused), *(r for outcome in outcomes for r in outcome.refused)]
    clips = {kept.key: kept for outcome in outcomes for kept in outcome.kept}
    tiny = {key: clip.signature for key, clip in clips.items()}
    twins = {} if plan.duplicates is None else find_duplicates(tiny, plan.duplicates)
    for key, (twin, difference) in twins.items():
        clip = clips[key]
        detail = {"of": f"{clips[twin].source}, frame {clips[twin].first}", "difference": difference, "limit": plan.duplicates}
        refused.append(Refused(clip.source, "duplicate", clip.first, clip.first + plan.frames - 1, detail))
    if not clips:
        _give_up(folder, refused)
    plan = replace(plan, people=plan.people | others(look for outcome in outcomes for look in outcome.looks))
    if not (folder / WORK / REPORT_NAME).exists() and not (folder / REPORT_NAME).exists():
        # Before anything is dropped, since it shows the duplicates too; once, since a killed run may have dropped them since.
        _write(folder / WORK / REPORT_NAME, report(folder, plan, outcomes, refused, frozenset(twins)).encode())
    for stale in folder.glob("*.tmp-*"):
        stale.unlink()
    shards = _drop(folder, outcomes, frozenset(twins))
    _write(folder / REFUSED_NAME, b"".join(_refusal_line(refusal) for refusal in refused))
    if (folder / WORK / REPORT_NAME).exists():
        (folder / WORK / REPORT_NAME).replace(folder / REPORT_NAME)
    info = write_info(folder, _describe(plan, [clip for key, clip in clips.items() if key not in twins], refused, shards))
    shutil.rmtree(folder / WORK)
    return info


def motion(video: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Return the mean difference of neighbouring frames, in grey levels."""
    if len(video) < 2:
        return 0.0
    before, after = (frames.reshape(-1, *video.shape[2:]) for frames in (video[:-1], video[1:]))
    return round(cv2.norm(before, after, cv2.NORM_L1) / before.size, 4)


def filmstrip(video: UInt8[np.ndarray, "T H W 3"], frames: int = 8) -> bytes:
    """Return evenly spaced frames side by side, as JPEG."""
    chosen = np.linspace(0, len(video) - 1, frames).round().astype(int)
    strip = cv2.cvtColor(np.concatenate(list(video[chosen]), axis=1), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def read_videos(shard: Path, keys: Sequence[str], plan: Plan) -> dict[str, UInt8[np.ndarray, "T H W 3"]]:
    """Read some clips of a shard whose dataset is not finished."""
    member, shape = ENCODED if plan.encoded else "video.npy", ClipShape(plan.frames, plan.height, plan.width)
    with tarfile.open(shard, "r:") as tar:
        files = {key: tar.extractfile(f"{key}.{member}") for key in keys}
        payloads = {key: file.read() for key, file in files.items() if file is not None}
    return {key: decode_clip(p, shape) if plan.encoded else np.load(io.BytesIO(p)) for key, p in payloads.items()}


def _kept(made: Iterator[Made], kept: list[Kept], refused: list[Refused], looks: list[Look]) -> Iterator[Clip]:
    """Pass clips on, noting clips, refusals and looks."""
    shown: Counter[str] = Counter()
    for result in made:
        if isinstance(result, Look):
            looks.append(result)
            continue
        if isinstance(result, Refusal):
            picture = None
            if result.video is not None and shown[result.reason] < PICTURES_PER_REASON:
                shown[result.reason] += 1
                picture = base64.b64encode(filmstrip(result.video)).decode()
            refused.append(Refused(result.source, result.reason, result.first, result.last, result.detail, picture))
            continue
        record = result.record
        moved = record.extra.get("motion")
        moved = motion(result.video) if moved is None else moved
        kept.append(
            Kept(record.key, record.source, record.first_frame, record.fps, moved, signature(result.video), record.label)
        )
        yield replace(result, record=replace(record, extra=record.extra | {"motion": moved}))


def _progress(plan: Plan, outcomes: Mapping[int, Outcome]) -> Progress:
    return Progress(
        tasks_done=len(outcomes),
        tasks=len(plan.tasks),
        cost_done=sum(plan.costs[number] for number in outcomes),
        cost=sum(plan.costs),
        kept=sum(len(outcome.kept) for outcome in outcomes.values()),
        refused=len(plan.refused) + sum(len(outcome.refused) for outcome in outcomes.values()),
    )


def _describe(plan: Plan, kept: Sequence[Kept], refused: Sequence[Refused], shards: Sequence[str]) -> DatasetInfo:
    sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for clip in kept:
        sources[clip.source]["kept"] += 1
    for refusal in refused:
        sources[refusal.source][refusal.reason] += 1
    rates = Counter(clip.fps for clip in kept)
    return DatasetInfo(
        frames=plan.frames,
        height=plan.height,
        width=plan.width,
        fps=max(rates, key=lambda rate: (rates[rate], rate)),
        shards=tuple(shards),
        kept=len(kept),
        refused=dict(sorted(Counter(refusal.reason for refusal in refused).items())),
        sources={name: dict(counts) for name, counts in sources.items()},
        labels=tuple(plan.labels),
        skeleton=plan.skeleton,
        people=plan.people,
        ignored=tuple(plan.ignored),
        settings={"kind": plan.kind} | plan.settings,
    )


def _drop(folder: Path, outcomes: Sequence[Outcome], keys: frozenset[str]) -> list[str]:
    """Take clips out of the shards and return the shards that are left; nothing else stays among them."""
    shards = []
    for number, outcome in enumerate(outcomes):
        name = shard_name(number)
        held = {kept.key for kept in outcome.kept}
        if held - keys:
            shards.append(name)
            if held & keys:
                _copy_without(folder / name, keys)
    for path in (folder / shard_name(0)).parent.glob("*"):
        if path.relative_to(folder).as_posix() not in shards:
            path.unlink()
    return shards


def _copy_without(shard: Path, keys: frozenset[str]) -> None:
    kind = tarfile.USTAR_FORMAT
    with _beside(shard) as beside, tarfile.open(shard, "r:") as old, tarfile.open(beside, "w", format=kind) as new:
        for member in old:
            if member.name.partition(".")[0] not in keys:
                new.addfile(member, old.extractfile(member))


def _give_up(folder: Path, refused: Sequence[Refused]) -> NoReturn:
    _clear(folder)
    counts = ", ".join(f"{count} {reason}" for reason, count in Counter(refusal.reason for refusal in refused).most_common())
    example = next((refusal for refusal in refused if refusal.detail), None)
    first = f"; for example {example.source}: {_words(example.detail)}" if example else ""
    raise DataError(f"no usable clip: refused {counts or 'nothing, for there was nothing'}{first}")


def _words(detail: Mapping[str, Any]) -> str:
    return str(detail["error"]) if "error" in detail else ", ".join(f"{name} {value}" for name, value in detail.items())


def _refusal_line(refusal: Refused) -> bytes:
    line = {"source": refusal.source, "reason": refusal.reason, "first": refusal.first, "last": refusal.last} | refusal.detail
    return json.dumps(line).encode() + b"\n"


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; give a folder that does not exist yet as --out")
    # What a killed run was about to put in place is ours too.
    names = (path.name.partition(".tmp-")[0] for path in folder.glob("*")) if folder.exists() else ()
    foreign = sorted(name for name in names if name not in OURS)
    if foreign:
        raise DataError(
            f"{folder} holds other things ({', '.join(foreign[:3])}); give a folder that does not exist yet as --out"
        )


def _refuse_busy(folder: Path) -> None:
    """Raise `DataError` when another process works in a folder, before anything of it is removed."""
    with suppress(FileNotFoundError, NotADirectoryError), (folder / WORK / LOCK_NAME).open("rb") as lock:
        _hold(lock, folder)


def _hold(lock: BinaryIO, folder: Path) -> None:
    """Keep other processes out until the file is closed: what one drops at the end another would still be writing."""
    if is_held(lock):
        raise DataError(f"{folder} is being prepared by another process; wait for it, or stop that one first")


def _refuse_difference(folder: Path, earlier: Plan, plan: Plan) -> None:
    """Raise `DataError` naming the first difference between the plan of an unfinished dataset and this one."""
    ways = "give the same settings to go on, another --out, or --overwrite to begin again"
    if earlier.kind != plan.kind:
        raise DataError(f"{folder} is an unfinished dataset of {earlier.kind}, not of {plan.kind}; {ways}")
    if earlier.encoded != plan.encoded:
        begun = "encoded" if earlier.encoded else "pixels"
        raise DataError(f"{folder} is unfinished and was begun with --storage {begun}; {ways}")
    for name in plan.settings | earlier.settings:
        before, now = earlier.settings.get(name), plan.settings.get(name)
        if before != now:
            raise DataError(f"{folder} is unfinished and was begun with {name} = {before!r}, now it is {now!r}; {ways}")
    if earlier != plan:
        before, now = ({item.get("name"): item for item in p.items} for p in (earlier, plan))
        changed = next((name for name in [*now, *before] if before.get(name) != now.get(name)), "their list")
        raise DataError(f"{folder} is unfinished and its sources have changed since ({changed}); {ways}")


def _clear(folder: Path) -> None:
    """Remove a dataset; dataset.json first, so that what is left after a kill is not taken for a finished one."""
    with _explained(folder):
        (folder / INFO_NAME).unlink(missing_ok=True)
        for name in (WORK, "shards", MEASURES_NAME):
            shutil.rmtree(folder / name, ignore_errors=True)
        for path in folder.glob("*"):
            path.unlink()
        if folder.is_dir():
            folder.rmdir()


def _outcome_path(folder: Path, number: int) -> Path:
    return folder / WORK / f"{number:06d}.json"


def _is_begun(folder: Path, plan: Plan) -> bool:
    """Tell whether the folder is unfinished work on this very plan, with which even `overwrite` goes on."""
    path = folder / WORK / "plan.json"
    return path.exists() and path.read_bytes() == plan.to_json()


def _read_plan(folder: Path) -> Plan | None:
    path = folder / WORK / "plan.json"
    return _parse(Plan, path) if path.exists() else None


def _read_outcomes(folder: Path, digest: str) -> dict[int, Outcome]:
    outcomes = {int(path.stem): _parse(Outcome, path) for path in sorted((folder / WORK).glob("[0-9]*.json"))}
    return {number: outcome for number, outcome in outcomes.items() if outcome.digest == digest}


def _parse(kind: type[_Read], path: Path) -> _Read:
    try:
        return _adapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        raise DataError(f"{path} is damaged or of another version of kinema; begin again with --overwrite") from None


def _write(path: Path, content: bytes) -> None:
    with _beside(path) as beside:
        beside.write_bytes(content)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`, which takes its place when the block ends well."""
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield beside
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the file system says (disk full, no permission) into one sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot write {path}: {error.strerror or error}") from None
