"""The verb predict for systems that forecast poses: many futures of a past, shown as a few modes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from jaxtyping import Float32, UInt8

from kinema.cli.arguments import parse
from kinema.cli.sample import Sampled
from kinema.core.errors import CheckpointError, ConfigError, DataError, MediaError

if TYPE_CHECKING:
    from kinema.cli.output import Output
    from kinema.cli.trained import Trained
    from kinema.evaluation.forecast import Forecaster
    from kinema.pose.sequence import Poses

Clip = UInt8[np.ndarray, "_ _ _ 3"]  # of any length
Points = Float32[np.ndarray, "_ J 3"]
BAR = 3  # pixels of the bar below a mode, per 64 of the picture
POSES_SUFFIX = ".poses.npz"
LARGEST_SEED = 2**62


@dataclass(frozen=True, kw_only=True)
class Forecast(Sampled):
    """Forecast what people do next: many futures of a past of frames and poses, grouped and shown as modes.

    Every file shows the past and what happened, then the modes, the largest first; skeletons above, video below; the bar is as
    long as the mode's share. Beside it, NAME.poses.npz holds the poses: past, futures, groups, modes, shares. NAME is the
    clip's, or that of the one file that --out names, or both for several clips in one file.
    """

    made = "predicted"

    files: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="CLIP|DATA...", help_behavior_hint="")]
    """Clips, with --poses; or prepared datasets with poses, of which the test split is taken where there is one."""
    poses: Annotated[Path | None, tyro.conf.arg(metavar="FILE|DIR", help_behavior_hint="")] = None
    """Poses of the one clip: .npz of kinema pose, or a folder of OpenPose's JSON."""
    person: Annotated[str, tyro.conf.arg(metavar="largest|N|X,Y")] = "largest"
    """Whose future, where --poses have several people: of the largest, a number, or who is nearest to a pixel of the first
    frame with anybody. Clips of a dataset have the poses of one."""
    start: int = 0
    """Frame of the clip at which the past begins."""
    count: int = 8
    """Clips taken from each dataset, evenly spread."""
    futures: int = 100
    """Futures of each past; the paper's authors draw 800."""
    modes: int = 5
    """Groups that are shown."""
    keep: float = 1.0
    """Share of the futures that is grouped, those that move most; the paper's authors keep 0.1. Below 1 the shares of the modes
    are no probabilities."""
    seed: int = 0
    """Seed of the first past, counted up per past."""
    typical: bool = False
    """One future without chance, of the code 0, instead of many."""
    skeletons: bool = False
    """Skeletons alone, no video."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        super().check()
        self.at_least(0, "seed", "start")
        self.require(self.seed < LARGEST_SEED, "seed", f"less than {LARGEST_SEED}")
        self.at_least(1, "count", "futures", "modes")
        self.require(self.person != "all", "person", "one person: largest, a number or X,Y")
        self.require(0 < self.keep <= 1, "keep", "above 0 and at most 1")
        without = ("futures", "modes", "keep")
        if self.typical and any(getattr(self, name) != getattr(type(self), name) for name in without):
            raise ConfigError(f"--typical is one future without chance; leave out --{', --'.join(without)}")
        if "npy" in (self.format, self.ending[1:]):
            what = "--format npy" if self.format else self.out
            raise ConfigError(f"{what} holds no modes beside each other; NAME.poses.npz is written anyway")
        if not self.files:
            raise ConfigError("predict wants clips or datasets, and none is named")


@dataclass(frozen=True)
class Past:
    """What a forecast begins with.

    Attributes:
        name: of the clip.
        frames: of the past.
        poses: of the past, in pixels of the frames.
        shown: the past and what happened, or the past and its last frame.
        happened: poses of what happened, where they are known.
    """

    name: str
    frames: Clip
    poses: Points
    shown: Clip
    happened: Points | None = None


def run(arguments: list[str]) -> int:
    """Run ``kinema predict`` for a system that forecasts."""
    options = parse(Forecast, arguments, "predict")
    from kinema.cli.trained import Trained
    from kinema.data.encode import beside

    trained = Trained(options.run, "forecast", options.device)
    forecaster = as_forecaster(options.run, trained)
    pasts = [past for file in options.files for past in _pasts(file, options, forecaster, trained)]
    if options.typical and forecaster.typical is None:
        raise CheckpointError(f"{trained.metadata.system} has no future without chance; leave out --typical")
    video = not options.skeletons and trained.renders
    if not video and not options.skeletons:
        print(f"note: {trained.name} has learnt to forecast poses and not yet to render them: skeletons alone")
    output = options.output([past.name for past in pasts], trained, "forecast")
    tables = _tables(output, [past.name for past in pasts])
    if not options.overwrite and (taken := next((file for file in tables if file.exists()), None)):
        raise MediaError(f"{taken} exists; give another --out, or --overwrite to replace it")
    for number, (past, table) in enumerate(zip(pasts, tables, strict=True)):
        if options.typical and forecaster.typical:
            samples = forecaster.typical([past.frames], past.poses[None])
        else:
            samples = forecaster.forecast([past.frames], past.poses[None], [options.seed + number], options.futures)[0]
        found, row = _modes(past, samples, options, trained, video)
        output.add(row)
        output.make_folder(table)
        with beside(table) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(stream, **found, **output.tags)
        print(f"{past.name}: {_said(found) if not options.typical else 'the one future without chance'}")
    place = output.close()
    forecasts = "1 forecast" if len(pasts) == 1 else f"{len(pasts)} forecasts"
    print(f"{forecasts} of {forecaster.future} frames at {output.fps:g} frames per second: {place}")
    return 0


def _said(found: dict[str, Any]) -> str:
    """Say how many modes there are, and how likely each."""
    modes, shares = len(found["shares"]), ", ".join(f"{share:.0%}" for share in found["shares"])
    return f"{modes} mode{'s' * (modes != 1)} of {shares} of {int((found['groups'] >= 0).sum())} futures"


def _tables(output: "Output", names: Sequence[str]) -> list[Path]:
    """Return the files that hold the poses: named as the clips in a folder, after the file where there is one."""
    if not output.one_file:
        return [output.out / f"{name}{POSES_SUFFIX}" for name in names]
    stem = output.one_file.with_suffix("")
    return [Path(f"{stem}{POSES_SUFFIX}" if len(names) == 1 else f"{stem}-{name}{POSES_SUFFIX}") for name in names]


def open_forecaster(name: str, device: str) -> "Forecaster":
    """Return the forecaster of a run.

    Args:
        name: run directory, checkpoint file or ``zoo:NAME``.
        device: where it works.

    Raises:
        CheckpointError: for a damaged checkpoint, or a system that does not forecast.
    """
    from kinema.cli.trained import Trained, is_system

    if not is_system(name):
        raise CheckpointError(f"{name} is no run or checkpoint; --forecast judges a system that forecasts poses")
    return as_forecaster(name, Trained(name, "forecast", device))


def as_forecaster(name: str, trained: "Trained") -> "Forecaster":
    """Return a trained system as what `kinema.evaluation.forecast` judges."""
    import torch

    from kinema.cli.trained import describe_run
    from kinema.core.tasks import ForecastsTypical
    from kinema.evaluation.forecast import Forecaster

    system = trained.system

    def given(clips: Sequence[Clip], poses: Any) -> tuple[Any, Any]:
        return trained.video(np.stack(clips)), torch.from_numpy(np.asarray(poses, np.float32)).to(trained.device)

    @torch.inference_mode()
    def forecast(clips: Sequence[Clip], poses: Any, seeds: Sequence[int], futures: int) -> Any:
        return system.forecast_poses(*given(clips, poses), seeds=seeds, futures=futures).float().cpu().numpy()

    @torch.inference_mode()
    def typical(clips: Sequence[Clip], poses: Any) -> Any:
        return system.forecast_typical(*given(clips, poses)).float().cpu().numpy()

    return Forecaster(
        name=name,
        shape=trained.metadata.clip,
        past=system.past_frames,
        future=system.future_frames,
        step=int(getattr(system.config, "frames_per_step", 1)),
        skeleton=system.skeleton,
        forecast=forecast,
        typical=typical if isinstance(system, ForecastsTypical) else None,
        about=describe_run(trained),
        fps=trained.metadata.dataset.get("fps"),
        confidence=float(getattr(trained.system.config, "confidence", 0.0)),
    )


def _modes(
    past: Past, samples: Float32[np.ndarray, "N T J 3"], options: Forecast, trained: "Trained", video: bool
) -> tuple[dict[str, Any], list[Clip]]:
    """Group the futures; return what the file of poses holds, and the columns that are shown."""
    from kinema.evaluation.modes import find_modes

    current = past.poses[-1]
    modes = find_modes(samples[..., :2].astype(np.float64), current[:, :2].astype(np.float64), options.modes, options.keep, 0)
    shown = samples[modes.nearest]
    present = samples[0, :1, :, 2:]
    centres = np.concatenate([modes.centres, np.broadcast_to(present, (*modes.centres.shape[:3], 1))], axis=-1)
    found = {
        "past": past.poses,
        "futures": samples,
        "groups": modes.groups,
        "modes": centres.astype(np.float32),
        "shown": shown,
        "shares": modes.shares,
        "skeleton": np.array(trained.system.skeleton),
    }
    happened = past.poses if past.happened is None else np.concatenate([past.poses, past.happened])
    columns = [_column(happened, past.shown, trained, video, None)]
    for poses, share in zip(shown, modes.shares, strict=True):
        frames = _rendered(past.frames[-1], np.concatenate([current[None], poses]), trained) if video else None
        whole = past.shown[:0] if frames is None else np.concatenate([past.frames, frames])
        columns.append(_column(np.concatenate([past.poses, poses]), whole, trained, video, float(share)))
    return found, columns


def _column(poses: Points, frames: Clip, trained: "Trained", video: bool, share: float | None) -> Clip:
    """Put skeletons above the video and a bar below both; poses that end early stay."""
    from kinema.pose.draw import STYLES, draw_points
    from kinema.pose.skeleton import find_skeleton

    shape, system = trained.metadata.clip, trained.system
    length = system.past_frames + system.future_frames
    style = getattr(system.config, "drawing", STYLES["pose-knows"])
    drawn = draw_points(poses, find_skeleton(system.skeleton), shape.width, shape.height, style)
    parts = [np.concatenate([drawn, np.repeat(drawn[-1:], length - len(drawn), axis=0)])]
    if video:
        parts.append(frames[:length])
    high = 2 * max(1, BAR * shape.height // 128)  # encoders want even sizes
    bar = np.full((length, high, shape.width, 3), 24, np.uint8)
    if share is not None:
        bar[:, :, : max(1, round(share * shape.width))] = (235, 180, 60)
    return np.concatenate([*parts, bar], axis=1)


def _rendered(image: UInt8[np.ndarray, "H W 3"], poses: Points, trained: "Trained") -> Clip:
    """Return the video of the future, without the current frame."""
    import torch

    from kinema.training.sheets import to_pixels

    with torch.inference_mode():
        frame = trained.video(image[None, None])[:, :, 0]
        return to_pixels(trained.system.render_poses(frame, torch.from_numpy(poses)[None].to(trained.device)))[0, 1:]


# Where pasts come from


def _pasts(file: Path, options: Forecast, forecaster: "Forecaster", trained: "Trained") -> list[Past]:
    if file.is_dir() and (file / "dataset.json").exists():
        if options.poses:
            raise ConfigError(f"{file} is a dataset, which has poses of its own; leave out --poses")
        if options.person != "largest":
            raise ConfigError(f"{file} is a dataset, whose clips have the poses of one person; leave out --person")
        return _stored(file, options, forecaster)
    if options.poses is None:
        raise ConfigError(f"{trained.metadata.system} forecasts from poses; give those of {file} with --poses FILE.npz")
    if len(options.files) > 1:
        raise ConfigError("--poses belong to one clip; give one clip at a time")
    if options.count != Forecast.count:
        raise ConfigError(f"--count takes clips from datasets, and {file} is none")
    return [_footage(file, options.poses, options, forecaster, trained)]


def _stored(path: Path, options: Forecast, forecaster: "Forecaster") -> list[Past]:
    """Return the pasts of clips of a dataset, of its test split where there is one."""
    from kinema.data.dataset import Dataset
    from kinema.evaluation.forecast import refuse_unfit

    every = Dataset(path)
    refuse_unfit(forecaster, every)
    held_out = any(every.record(index).split == "test" for index in range(len(every)))
    data = Dataset(path, "test") if held_out else every
    first, past, stop = options.start, forecaster.past, options.start + forecaster.past + forecaster.future
    if stop > data.info.frames:
        raise DataError(
            f"--start {first} leaves {data.info.frames - first} of {data.info.frames} frames; {stop - first} are needed"
        )
    now = first + past - 1
    peopled = [index for index in range(len(data)) if forecaster.seen(np.array(data.array(index, "pose"))[now]).any()]
    if not peopled:
        raise DataError(f"{path} has nobody in frame {now} of any clip, the current one; choose another --start")
    if len(peopled) < len(data):
        print(
            f"note: {len(data) - len(peopled)} of {len(data)} clips of {path} have nobody in the current frame and are left out"
        )
    found = []
    for place in np.linspace(0, len(peopled) - 1, min(options.count, len(peopled))).round().astype(int).tolist():
        index = peopled[place]
        video, poses = np.array(data.video(index)[first:stop]), np.array(data.array(index, "pose"), np.float32)[first:stop]
        found.append(Past(data.record(index).key, video[:past], poses[:past], video, poses[past:]))
    return found


def _footage(file: Path, poses_file: Path, options: Forecast, forecaster: "Forecaster", trained: "Trained") -> Past:
    """Return the past out of a clip and its poses, at the rate and size of the system; what follows in the clip is shown."""
    from kinema.cli.driving import read_driving
    from kinema.data.cutting import fitted
    from kinema.data.media import probe, read_frames, resample, scaled_to
    from kinema.pose.driving import as_prepared
    from kinema.pose.found_by import of_poses, unlike

    info, shape = probe(file), trained.metadata.clip
    rate = float(info.fps) if info.fps else None
    read = read_driving(poses_file, info)
    if sentence := unlike(of_poses(read), trained.poses_found_by, f"the poses in {poses_file}", trained.name):
        print(f"note: {sentence}")
    poses = _one_person(read, poses_file, options.person)
    pace = rate / trained.fps if rate else 1.0
    wanted = [options.start + math.floor(pace * number + 0.5) for number in range(forecaster.past + forecaster.future)]
    resize = scaled_to(trained.fit, shape.width, shape.height)
    pictures: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
    for number, image in enumerate(resample(read_frames(file, resize=resize), None)):
        if number > wanted[-1]:
            break
        if number in wanted:
            pictures[number] = image
    there = [number for number in wanted if number in pictures and number < len(poses)]
    if len(there) < forecaster.past:
        raise DataError(
            f"{file} and its poses have {len(there)} frames at {trained.fps:g} per second from frame {options.start} on; "
            f"{trained.name} forecasts from {forecaster.past}"
        )
    if lacking := poses.lacking(_layout(forecaster.skeleton)):
        raise DataError(f"{poses_file} has no {' and no '.join(lacking)}, and {trained.name} forecasts {forecaster.skeleton}")
    moved = as_prepared(poses.converted(_layout(forecaster.skeleton)), shape.width, shape.height, trained.fit)
    points = moved.filled()[there]
    if not forecaster.seen(points[forecaster.past - 1]).any():
        raise DataError(
            f"{poses_file} has nobody in frame {there[forecaster.past - 1]}, the current one; choose another --start"
        )
    frames = fitted([pictures[number] for number in there], shape.width, shape.height, resize)
    still = np.repeat(frames[-1:], len(wanted) - len(there), axis=0)
    happened = points[forecaster.past :] if len(there) > forecaster.past else None
    shown = np.concatenate([frames, still])
    return Past(file.stem, frames[: forecaster.past], points[: forecaster.past], shown, happened)


def _layout(name: str) -> Any:
    from kinema.pose.skeleton import find_skeleton

    return find_skeleton(name)


def _one_person(poses: "Poses", file: Path, who: str) -> "Poses":
    """Return the poses of one person and say who it is; people whom a file lists in any order are followed first.

    Raises:
        ConfigError: for a choice that is none.
        DataError: when there is no such person, or nobody at all.
    """
    from kinema.pose.people import take

    if not poses.present.any():
        raise DataError(f"{file} has nobody in any of its {len(poses)} frames; give poses of somebody")
    person, notes = take(poses, who)
    for note in notes:
        print(f"{file}: {note}")
    return person
