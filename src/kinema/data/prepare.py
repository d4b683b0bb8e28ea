"""Footage to dataset: find it, name it, divide it into tasks, cut it (`kinema.data.cutting`), finish the dataset."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from kinema.core.config import to_mapping
from kinema.core.errors import DataError, MediaError
from kinema.data.cutting import PrepareSettings, cut_footage, poser_of, scene_filter, unreadable
from kinema.data.dataset import DatasetInfo
from kinema.data.executor import Kind, open_executor
from kinema.data.labels import NAMINGS, Naming, annotate, split_by_files, split_by_group, split_by_time
from kinema.data.plan import WORK, Maker, Plan, Progress, Refusal, carry_out, claim
from kinema.data.report import report
from kinema.data.sources import Source, find_sources, measure, parts

TASKS = 64  # about as many tasks as this, so that many workers are busy to the end,
TASK_SECONDS = (0.7, 60.0)  # but no shorter and no longer ones than this, and
PART_FRAMES = 4096  # a longer video is divided into parts of about so many frames
SHARD_BYTES = 512 * 2**20  # no larger shards than this
PIXELS_AT_MOST = 16 * 2**20  # a thousand larger clips no longer fit into the page cache of a laptop, where pixels are quicker
FRAME_SECONDS, PIXEL_SECONDS, STABILISE_SECONDS, POSE_SECONDS = (
    2e-4,
    3.5e-9,
    2e-2,
    3e-2,
)  # rough cost of a frame, for the size of tasks

Storage = Literal["auto", "pixels", "encoded"]


def prepare(
    roots: Sequence[Path],
    out: Path,
    settings: PrepareSettings,
    *,
    executor: Kind = "local",
    workers: int = 1,
    cluster: Mapping[str, Any] | None = None,
    storage: Storage = "auto",
    overwrite: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> DatasetInfo:
    """Make a dataset from footage; the same call takes up what an interrupted one has left.

    Args:
        roots: files and folders with footage.
        out: folder of the dataset, which must not exist, or be an unfinished one of the same call.
        settings: how footage becomes clips.
        executor: where the work is done.
        workers: tasks at a time.
        cluster: options of a Slurm executor.
        storage: how shards hold the videos; auto encodes clips of more than `PIXELS_AT_MOST` bytes.
        overwrite: replace a dataset.
        progress: called after each task.

    Raises:
        ConfigError: a setting out of range, or a package that is not installed.
        DataError: footage, tables or the folder cannot be used, or nothing usable came out.
    """
    if not roots:
        raise DataError("no source was given; give files or folders with footage, or the word performers or shapes")
    _refuse_overlap(roots, out)
    return work(
        out,
        plan_footage(roots, settings),
        cut_footage,
        executor=executor,
        workers=workers,
        cluster=cluster,
        storage=storage,
        overwrite=overwrite,
        progress=progress,
    )


def plan_footage(roots: Sequence[Path], settings: PrepareSettings) -> Plan:
    """Look at all footage and divide it into tasks.

    Raises:
        DataError: nothing was found, a table cannot be used, or, with `strict`, a file cannot be read.
    """
    found = find_sources(roots, strips=settings.strip is not None, companions=_companions(settings))
    scene_filter(settings)  # now, for what is wrong with it
    refused: list[Refusal] = []
    posed, settings = _posed(found.sources, settings, refused)
    named = annotate(posed, Naming(settings.labels, settings.captions, settings.group))
    sources = _measured(_listed(_labelled(named, settings, refused), settings, refused), settings, refused)
    sources, people = _chosen(sources, settings, refused)
    if sources:
        sources = [part for source in _split(sources, settings) for part in _parts(source, settings)]
    costs = [_seconds(source, settings) for source in sources]
    width, height = settings.shape
    tasks = divide(costs, [_bytes(source, settings) for source in sources])
    return Plan(
        kind="footage",
        settings=to_mapping(settings),
        frames=settings.frames,
        height=height,
        width=width,
        items=[asdict(source) for source in sources],
        tasks=tasks,
        costs=[round(sum(costs[first:stop]), 3) for first, stop in tasks],
        refused=[{"source": r.source, "reason": r.reason, "detail": r.detail} for r in refused],
        ignored=list(found.ignored),
        labels=sorted({source.label for source in sources if source.label}),
        skeleton=settings.pose_skeleton if settings.pose else None,
        people=people,
        duplicates=settings.duplicates if settings.duplicates >= 0 else None,
    )


def _companions(settings: PrepareSettings) -> list[Path]:
    """Return the files and folders that the settings name, which may lie beside the footage."""
    words = (settings.labels, settings.captions, settings.group, settings.pose, settings.scene_model, settings.scene_names)
    return [Path(word) for word in (*words, *settings.split_files) if word and word not in NAMINGS]


def _posed(
    sources: Sequence[Source], settings: PrepareSettings, refused: list[Refusal]
) -> tuple[Sequence[Source], PrepareSettings]:
    """Take out the sources without poses, where poses are wanted, and note the version of these, for others would differ."""
    poser = poser_of(settings)
    if poser is None:
        return sources, settings
    known = [source for source in sources if poser.knows(source)]
    error = f"{settings.pose} holds no poses of that name"
    refused += [Refusal(source.name, "no poses", detail={"error": error}) for source in sources if source not in known]
    return known, replace(settings, pose_version=poser.version(known))


def _chosen(
    sources: Sequence[Source], settings: PrepareSettings, refused: list[Refusal]
) -> tuple[list[Source], dict[str, str]]:
    """Take out the sources whose poses cannot be used, and say whom of several people in the others is taken."""
    poser, usable, people = poser_of(settings), list[Source](), dict[str, str]()
    for source in sources:
        try:
            taken = poser.taken(source) if poser else ""
        except DataError as error:
            if settings.strict:
                raise
            refused.append(Refusal(source.name, "no poses", detail={"error": str(error)}))
            continue
        usable.append(source)
        if taken:
            people[source.name] = taken
    return usable, people


def work(
    out: Path,
    plan: Plan,
    make: Maker,
    *,
    executor: Kind = "local",
    workers: int = 1,
    cluster: Mapping[str, Any] | None = None,
    storage: Storage = "auto",
    overwrite: bool = False,
    progress: Callable[[Progress], None] = lambda progress: None,
) -> DatasetInfo:
    """Carry a plan out in a folder, from its beginning or from where it was interrupted; see `prepare` for the arguments."""
    large = plan.frames * plan.height * plan.width * 3 > PIXELS_AT_MOST
    plan = replace(plan, encoded=storage == "encoded" or (storage == "auto" and large))
    if executor == "local":
        workers = min(workers, max(1, len(plan.tasks)))
    with open_executor(executor, workers, folder=out / WORK / "cluster", options=cluster) as pool:
        plan = claim(out, plan, overwrite=overwrite)
        return carry_out(out, plan, make, pool, in_flight=2 * workers, report=report, progress=progress)


def divide(costs: Sequence[float], sizes: Sequence[float]) -> list[tuple[int, int]]:
    """Divide items into tasks of neighbours, of about the same cost.

    Args:
        costs: estimated seconds per item.
        sizes: estimated bytes per item.

    Returns:
        First item and one past the last, of each task.
    """
    least, most = TASK_SECONDS
    wanted = min(max(sum(costs) / TASKS, least), most)
    tasks, first, cost, size = [], 0, 0.0, 0.0
    for number, (seconds, held) in enumerate(zip(costs, sizes, strict=True)):
        if number > first and (cost + seconds / 2 > wanted or size + held > SHARD_BYTES):
            tasks.append((first, number))
            first, cost, size = number, 0.0, 0.0
        cost += seconds
        size += held
    return [*tasks, (first, len(costs))] if costs else []


def _refuse_overlap(roots: Sequence[Path], out: Path) -> None:
    for root in (Path(root).resolve() for root in roots):
        if out.resolve() == root or (root.is_dir() and root in out.resolve().parents):
            raise DataError(f"--out {out} lies inside the footage {root}; give a folder outside of it")
        if out.resolve() in root.parents:
            raise DataError(f"the footage {root} lies inside --out {out}; give a folder that does not hold the footage")


def _labelled(sources: Sequence[Source], settings: PrepareSettings, refused: list[Refusal]) -> list[Source]:
    """Take out the sources that a table of labels leaves out."""
    if settings.labels is None:
        return list(sources)
    error = f"{settings.labels} gives no label for it"
    refused += [Refusal(source.name, "unlabelled", detail={"error": error}) for source in sources if source.label is None]
    return [source for source in sources if source.label is not None]


def _measured(sources: Sequence[Source], settings: PrepareSettings, refused: list[Refusal]) -> list[Source]:
    """Look at every source and take out those that cannot be read at all."""

    def look(source: Source) -> Source | MediaError:
        try:
            return measure(source, settings.strip_shape)
        except MediaError as error:
            return error

    measured = []
    with ThreadPoolExecutor(8) as pool:  # FFmpeg and the disk work outside of Python's lock
        for source, seen in zip(sources, pool.map(look, sources), strict=True):
            if isinstance(seen, Source):
                measured.append(seen)
            elif settings.strict:
                raise seen
            else:
                refused.append(unreadable(source, seen))
    return measured


def _listed(sources: Sequence[Source], settings: PrepareSettings, refused: list[Refusal]) -> list[Source]:
    """Split as the given lists say, and take out the sources that they do not name."""
    if not settings.split_files:
        return list(sources)
    listed, others = split_by_files(sources, [Path(name) for name in settings.split_files])
    error = f"it is in none of {', '.join(settings.split_files)}"
    refused += [Refusal(source.name, "in no split file", detail={"error": error}) for source in others]
    return listed


def _split(sources: Sequence[Source], settings: PrepareSettings) -> list[Source]:
    if settings.split_by == "time":
        return split_by_time(sources, settings.split, settings.fps)
    return split_by_group(sources, settings.split)


def _parts(source: Source, settings: PrepareSettings) -> list[Source]:
    """Divide a long video, so that several workers share it; windows begin where they would in the whole."""
    rate, width, height = settings.fps or source.fps, *settings.shape
    if not rate or not source.fps:
        return [source]
    frames = min(PART_FRAMES, SHARD_BYTES // (width * height * 3))
    windows = max(1, round(frames * rate / source.fps / settings.step))
    return parts(source, windows * settings.step / rate, max(0, settings.frames - settings.step) / rate)


def _seconds(source: Source, settings: PrepareSettings) -> float:
    """Estimate what it costs to cut a source, in seconds of one core."""
    decoding = FRAME_SECONDS + source.width * source.height * PIXEL_SECONDS
    per_frame = {"off": decoding, "auto": 2 * decoding, "on": decoding + STABILISE_SECONDS}[settings.stabilise]
    per_frame += POSE_SECONDS if settings.pose else 0
    return (source.frames or 0) * per_frame + 1e-3


def _bytes(source: Source, settings: PrepareSettings) -> float:
    """Estimate the size of a source's clips, in bytes."""
    width, height = settings.shape
    return (source.frames or 0) * width * height * 3 * max(1.0, settings.frames / settings.step)
