"""Clips of which a part is hidden, completed, beside the truth: future, past, what lies between, a box that stands or moves.

Only what was hidden is judged, and apart from it how well known pixels come back before they are pasted. Beside each number
stand what the system's compressor makes of the whole true clip, which no latent model beats, and completions that know nothing
of video: a repeated frame, a cross-fade, means and medians of what is known. Hidden pixels are grey before a system sees them.

A sharp guess that is wrong costs twice the error of the best blurred one, so that a system which draws from what may be there
loses to a median by PSNR even where it knows more. Of several completions the mean is told beside the first: it is a blurred
guess too, and the like of a median.

References:
    Medians over the training clips: `kinema.nn.stillness`. Intervals: percentile bootstrap over clips. What is measured, and
    the thresholds, are a choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, UInt8

import kinema
from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.data.masks import Known, ends, first_frames, last_frames, outside_box
from kinema.evaluation.clips import Clip, chosen_clips
from kinema.evaluation.measures import changes, drawn
from kinema.evaluation.paired import CEILING, Said, bootstrapped
from kinema.evaluation.pixels import C1, C2, PEAK, SIGMA, WINDOW, Planes, Region, planes, psnr, refuse_small, ssim
from kinema.evaluation.unfinished import keeping
from kinema.nn.stillness import LEVELS, still_picture

PROTOCOL_VERSION = 1
KIND = "completions"
MINIMUM_FRAMES = 3  # with fewer nothing lies between two ends
AT_ONCE = 8
SHOWN = 4
HIDDEN = 128  # the grey that systems and readers see instead
TRAINING_CLIPS = 64  # of which the median is taken
SEEDS_APART = 1_000_003  # from one completion of a clip to the next: no clip of the data has that one's seed
ONE_PLACE = 12  # levels between the still picture of the training clips and the medians of others of the same place
COPIED, FADED, AVERAGED = "nearest known frame", "cross-fade", "mean of what is known"
MEDIAN, SCENE = "median over time", "still picture of the training clips"


# --- What is hidden -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A part of a clip to be completed.

    Attributes:
        given: what is known, in words.
        known: shape of a clip and its seed -> what is known.
    """

    given: str
    known: Callable[[ClipShape, int], Known]


def _box_somewhere(shape: ClipShape, seed: int) -> Known:
    """Hide a box of half of each side, at a place that is drawn from all, in every frame."""
    left, top = np.random.default_rng(seed).random(2) * (shape.width / 2, shape.height / 2)
    return outside_box(shape, (round(left), round(top), shape.width / 2, shape.height / 2))


def _moving_box(shape: ClipShape, _: int) -> Known:
    """Hide a box of a third of each side that crosses the picture from left to right, and no pixel for ever."""
    width, height = shape.width / 3, shape.height / 3
    lefts = np.linspace(0, shape.width - width, shape.frames)
    return outside_box(shape, [(left, height, width, height) for left in lefts.tolist()])


TASKS: Mapping[str, Task] = {
    "image-to-video": Task("the first frame", lambda shape, _: first_frames(shape, 1)),
    "extend": Task("the first half", lambda shape, _: first_frames(shape, shape.frames // 2)),
    "backward": Task("the last half", lambda shape, _: last_frames(shape, shape.frames // 2)),
    "interpolate": Task("the first and the last frame", lambda shape, _: ends(shape, 1, 1)),
    "box": Task(
        "everything but a box of half of each side in the middle",
        lambda shape, _: outside_box(shape, (shape.width / 4, shape.height / 4, shape.width / 2, shape.height / 2)),
    ),
    "box-somewhere": Task("everything but a box of half of each side, drawn for every clip", _box_somewhere),
    "moving-box": Task("everything but a box of a third of each side that crosses the picture", _moving_box),
}


BOXES = ("box", "box-somewhere")  # that never move


def baselines(clip: Clip, known: Known, scene: UInt8[np.ndarray, "H W 3"] | None) -> dict[str, Clip]:
    """Return completions that know nothing of video; those that have no meaning for this mask are left out.

    Args:
        clip: the true clip, of which only what is known is looked at.
        known: where it is known.
        scene: still picture of the training clips, where there is one.
    """
    whole = known.all(axis=(1, 2))  # frames
    seen = known.any(axis=0)  # pixels that are known at some time
    made: dict[str, np.ndarray] = {}
    if whole.any():
        frames = np.flatnonzero(whole)
        time = np.arange(len(clip))
        made[COPIED] = clip[frames[np.abs(time[:, None] - frames).argmin(axis=1)]]
        before, after = (np.clip(np.searchsorted(frames, time, side) - low, 0, len(frames) - 1) for side, low in _SIDES)
        if (frames[before] < time).any() and ((frames[after] > time) & (frames[before] < time)).any():
            share = (time - frames[before]) / np.maximum(frames[after] - frames[before], 1)
            made[FADED] = (
                clip[frames[before]] * (1 - share)[:, None, None, None] + clip[frames[after]] * share[:, None, None, None]
            )
    if not (whole.sum() == 1 and known.sum() == clip.shape[1] * clip.shape[2]):  # the mean of one frame is that frame
        made[AVERAGED] = np.broadcast_to(_over_time(clip, known, np.nanmean), clip.shape)
    if not whole.any() and seen.all():
        made[MEDIAN] = np.broadcast_to(_over_time(clip, known, np.nanmedian), clip.shape)
    if not seen.all() and scene is not None:
        made[SCENE] = np.broadcast_to(scene, clip.shape)
    return {name: _pasted(clip, known, np.rint(one).astype(np.uint8)) for name, one in made.items()}


_SIDES: tuple[tuple[Any, int], ...] = (("right", 1), ("left", 0))  # of numpy's searchsorted: the known frame before, and after


def _over_time(clip: Clip, known: Known, middle: Callable[..., Any]) -> Float64[np.ndarray, "T H W 3"]:
    """Return what is known of every pixel over time, and of one that is never known the mean colour of its frame."""
    seen = np.where(known[..., None], clip.astype(np.float64), np.nan)
    ever = known.any(axis=0)
    picture = np.zeros(clip.shape[1:])
    picture[ever] = middle(seen[:, ever], axis=0)
    filled = np.repeat(picture[None], len(clip), axis=0)
    if not ever.all():
        colours = np.nanmean(seen, axis=(1, 2))  # every frame shows something where a box hides the rest for ever
        filled[:, ~ever] = colours[:, None]
    return filled


def _pasted(clip: Clip, known: Known, made: Clip) -> Clip:
    return np.where(known[..., None], clip, made)


# --- The question and the answer ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Completer:
    """What completes clips.

    Attributes:
        name: of the run.
        shape: of its clips.
        complete: clips whose hidden pixels say nothing, what is known of each, their places in the data and a seed of each ->
            clips with what is hidden filled in and what is known as the system remembers it.
        remember: clips -> what the system's compressor makes of them; None where it has none.
        condition: what else it is told of each clip, in words.
        about: what else is known of it, as JSON values.
    """

    name: str
    shape: ClipShape
    complete: Callable[[Sequence[Clip], Bool[np.ndarray, "N T H W"], Sequence[int], Sequence[int]], Sequence[Clip]]
    remember: Callable[[Sequence[Clip]], Sequence[Clip]] | None = None
    condition: str = "nothing"
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CompletionQuestion:
    """What is asked.

    Attributes:
        count: clips; None takes the usual number, see `chosen_clips`.
        seed: of the drawing of clips; clip i gets the seed of its place in the data after this one.
        tasks: out of `TASKS`.
        completions: of each clip; the first has the clip's seed, each further one the seed `SEEDS_APART` after it.
    """

    count: int | None = None
    seed: int = 0
    tasks: tuple[str, ...] = tuple(TASKS)
    completions: int = 1


@dataclass(frozen=True)
class CompletionCard:
    """The answer.

    Attributes:
        report: JSON values; what ``report.json`` holds.
        shown: task -> names of columns, and rows of clips: what was given, the result, the truth, ...
    """

    report: dict[str, Any]
    shown: dict[str, tuple[tuple[str, ...], list[list[Clip]]]]


def judge_completions(
    completer: Completer,
    data: Dataset,
    training: Dataset | None,
    question: CompletionQuestion,
    said: Said = lambda what, done, total: None,
    unfinished: Path | None = None,
) -> CompletionCard:
    """Measure what a system puts in the place of what is hidden.

    Args:
        completer: the system.
        data: clips that it has not seen.
        training: clips whose still picture is a rival; None leaves it out.
        question: how many, which.
        said: called with what is being done, and how much of it.
        unfinished: folder that keeps completions, so that the same question goes on where it was stopped; only for completers
            whose `about` says all that decides about them.

    Raises:
        EvaluationError: for clips that are too few, too short, too small or of another shape.
    """
    refuse_unfit(completer, data)
    count = chosen_clips(data, question.count, "complete")
    order = drawn(count, len(data), question.seed)
    scene, camera = None, None
    if training is not None:
        some = [training.video(index) for index in drawn(min(TRAINING_CLIPS, len(training)), len(training), question.seed)]
        scene = _still(some)
        camera = _camera(scene, [data.video(index) for index in order[:TRAINING_CLIPS]], len(some))

    def known_of(name: str, index: int) -> Known:
        return TASKS[name].known(data.shape, question.seed + index)

    def complete(name: str, seed: int, places: Sequence[int]) -> Sequence[Clip]:
        known = np.stack([known_of(name, index) for index in places])
        given = [_hidden(data.video(index), one) for index, one in zip(places, known, strict=True)]
        return _checked(completer, completer.complete(given, known, places, [seed + one for one in places]))

    about = [kinema.__version__, dict(completer.about), completer.condition, data.fingerprint, data.split]
    seeds = [question.seed + number * SEEDS_APART for number in range(question.completions)]
    make: dict[str, list[Callable[[Sequence[int]], Sequence[Clip]]]] = {}
    for name in question.tasks:
        make[name] = [partial(complete, name, seed) for seed in seeds]
        if unfinished:
            folders = [unfinished / f"{name}-{number}" for number in range(len(seeds))]
            kept = zip(make[name], folders, seeds, strict=True)
            make[name] = [keeping(one, folder, [*about, name, question.seed, seed]) for one, folder, seed in kept]
    found = {name: _Found() for name in question.tasks}
    shown: dict[str, list[tuple[list[Clip], Mapping[str, Clip]]]] = {name: [] for name in question.tasks}
    for start in range(0, count, AT_ONCE):
        places = order[start : start + AT_ONCE]
        truths = [data.video(index) for index in places]
        remembered = completer.remember(truths) if completer.remember else [None] * len(truths)
        for name in question.tasks:
            made = zip(*(one(places) for one in make[name]), strict=True)
            for index, truth, several, ceiling in zip(places, truths, made, remembered, strict=True):
                known, raw = known_of(name, index), several[0]
                rivals = baselines(truth, known, scene)
                found[name].add(truth, known, raw, ceiling, rivals)
                if len(several) > 1:
                    found[name].add_several(truth, known, several)
                if len(shown[name]) < SHOWN:
                    beside = [_hidden(truth, known), _pasted(truth, known, raw), truth, *([] if ceiling is None else [ceiling])]
                    shown[name].append((beside, rivals))
        said("completing", min(start + AT_ONCE, count), count)
    report = _report(completer, data, question, order, found, camera)
    columns, sheets = ("given", "result", "truth", *(("compressor",) if completer.remember else ())), {}
    for name, rows in shown.items():
        best = found[name].nearest
        sheets[name] = ((*columns, best), [[*clips, rivals[best]] for clips, rivals in rows])
    return CompletionCard(report, sheets)


def refuse_unfit(completer: Completer, data: Dataset) -> None:
    """Raise `EvaluationError` for clips of another shape than a system's, or too short or small to be judged."""
    if data.shape != completer.shape:
        raise EvaluationError(
            f"{completer.name} has clips of {completer.shape} and {data.path} of {data.shape} (frames x height x width); judge "
            "with data prepared with the same --frames and --size"
        )
    if data.shape.frames < MINIMUM_FRAMES:
        raise EvaluationError(
            f"clips of {data.shape.frames} frames have nothing between two ends; give {MINIMUM_FRAMES} or more"
        )
    refuse_small(data.shape.height, data.shape.width)


def _hidden(clip: Clip, known: Known) -> Clip:
    return np.where(known[..., None], clip, np.uint8(HIDDEN))


def _checked(completer: Completer, made: Sequence[Clip]) -> Sequence[Clip]:
    wanted = (completer.shape.frames, completer.shape.height, completer.shape.width, 3)
    if wrong := next((clip.shape for clip in made if clip.shape != wanted), None):
        raise EvaluationError(f"{completer.name} made clips of {'x'.join(map(str, wrong[:3]))} of those of {completer.shape}")
    return made


# --- Numbers ------------------------------------------------------------------------------------------------------------------

BEST, MEAN = "best", "mean"  # of several completions
MEASURES: Mapping[str, tuple[str, Callable[[Planes, Planes, Region], float]]] = {
    "psnr": ("dB", lambda *sides: _mean(psnr(*sides).clamp_max(CEILING))),
    "psnr of all at once": ("dB", lambda *sides: _psnr_of_all(*sides)),
    "ssim": ("", lambda *sides: _mean(ssim(*sides))),
}
"""Name -> its unit, and a number of a clip's frames: true ones, made ones, and the places that count."""


class _Found:
    """Numbers of one task, as clips come.

    Attributes:
        hidden: measure -> version -> a mean over the hidden part of every clip.
        known: the same over the known part, of the result before pasting and of the compressor's.
        several: measure -> the best of several completions, or the mean of all -> a number of every clip.
        shares: of the pixels that are hidden.
        motion: true and made change of the hidden part from frame to frame, in levels.
        seams: true and made difference of neighbours across the border of what is known.
    """

    def __init__(self) -> None:
        self.hidden: dict[str, dict[str, list[float]]] = {name: {} for name in MEASURES}
        self.known: dict[str, dict[str, list[float]]] = {name: {} for name in MEASURES}
        self.several: dict[str, dict[str, list[float]]] = {name: {BEST: [], MEAN: []} for name in MEASURES}
        self.shares: list[float] = []
        self.motion: list[tuple[float, float]] = []
        self.seams: list[tuple[float, float]] = []

    @property
    def rivals(self) -> list[str]:
        """Names of the baselines."""
        return [name for name in self.hidden["psnr"] if name not in ("made", "ceiling")]

    @property
    def nearest(self) -> str:
        """The baseline that is nearest so far, by PSNR."""
        return max(self.rivals, key=lambda name: float(np.mean(self.hidden["psnr"][name])))

    def add(self, truth: Clip, known: Known, raw: Clip, ceiling: Clip | None, rivals: Mapping[str, Clip]) -> None:
        """Measure one clip."""
        made, true = _pasted(truth, known, raw), planes(truth)
        seen = torch.from_numpy(known)
        versions = {"made": made, **({} if ceiling is None else {"ceiling": _pasted(truth, known, ceiling)}), **rivals}
        remembered = {"made": raw, **({} if ceiling is None else {"ceiling": ceiling})}
        for sides, region, numbers in ((versions, ~seen, self.hidden), (remembered, seen, self.known)):
            frames = region.any(dim=2).any(dim=1)
            for name, clip in sides.items():
                other = planes(clip)[frames]
                for measure, (_, between) in MEASURES.items():
                    numbers[measure].setdefault(name, []).append(between(true[frames], other, region[frames]))
        self.shares.append(float((~known).mean()))
        self.motion.append((_motion(truth, known), _motion(made, known)))
        self.seams.append((_seam(truth, known), _seam(made, known)))

    def add_several(self, truth: Clip, known: Known, several: Sequence[Clip]) -> None:
        """Measure the best of several completions of one clip, by each measure, and the mean of them all."""
        mean = np.rint(np.mean(several, axis=0)).astype(np.uint8)
        region, true = torch.from_numpy(~known), planes(truth)
        frames = region.any(dim=2).any(dim=1)
        versions = [planes(_pasted(truth, known, clip))[frames] for clip in (mean, *several)]
        for measure, (_, between) in MEASURES.items():
            of_mean, *of_each = (between(true[frames], one, region[frames]) for one in versions)
            self.several[measure][MEAN].append(of_mean)
            self.several[measure][BEST].append(max(of_each))


def _mean(frames: Float64[torch.Tensor, "T"]) -> float:
    """Return the mean over the frames that have a number; NaN where none has."""
    there = frames[~frames.isnan()]
    return float(there.mean()) if len(there) else float("nan")


def _psnr_of_all(truth: Planes, made: Planes, region: Region) -> float:
    """Return the PSNR of all places of a clip together, in which exact frames weigh no more than others."""
    if not region.any():
        return float("nan")
    errors = (truth - made).square().movedim(1, -1)[region]
    return min(float(10 * torch.log10(PEAK**2 / errors.mean())), CEILING)


def _motion(clip: Clip, known: Known) -> float:
    hidden = ~known[1:] | ~known[:-1]
    return float(np.abs(np.diff(clip.astype(np.float32), axis=0)).mean(axis=3)[hidden].mean())


def _seam(clip: Clip, known: Known) -> float:
    """Return the mean difference of neighbours of which one is known, in time where there are such, else in space."""
    levels = clip.astype(np.float32)
    for axes in ((0,), (1, 2)):
        across = [np.abs(np.diff(levels, axis=axis)).mean(axis=3)[np.diff(known, axis=axis)] for axis in axes]
        if sum(map(len, across)):
            return float(np.concatenate(across).mean())
    return float("nan")


def _still(clips: Sequence[Clip]) -> UInt8[np.ndarray, "H W 3"]:
    video = (torch.from_numpy(np.array(clip)).permute(3, 0, 1, 2)[None].div(127.5).sub(1) for clip in clips)
    return still_picture(video).add(1).mul(127.5).round().byte().permute(1, 2, 0).cpu().numpy()


def _camera(scene: UInt8[np.ndarray, "H W 3"], clips: Sequence[Clip], training: int) -> dict[str, Any]:
    """Tell whether the camera stands still and looks at one place, without which a still picture is no background."""
    spread = [np.array(clip[:: (len(clip) - 1) // 2]) for clip in clips]  # far apart in time: a slow pan is seen too
    flicker = float(np.median(torch.cat([changes(torch.from_numpy(clip)[None])[1] for clip in spread]).numpy()))
    apart = [np.median(np.abs(np.median(clip, axis=0) - scene.astype(np.float64)).max(axis=2)) for clip in clips]
    distance = float(np.median(apart))
    return {
        "training clips": training,
        "change of the stiller half in half a clip, levels": flicker,
        "stands still": flicker <= LEVELS,
        "from the still picture of the training clips, levels": distance,
        "looks at one place": distance <= ONE_PLACE,
    }


# --- The report ---------------------------------------------------------------------------------------------------------------


def _report(
    completer: Completer,
    data: Dataset,
    question: CompletionQuestion,
    order: Sequence[int],
    found: Mapping[str, _Found],
    camera: Mapping[str, Any] | None,
) -> dict[str, Any]:
    report: dict[str, Any] = {
        "kinema": kinema.__version__,
        "judged": {"name": completer.name, **completer.about, "clips": f"{len(order)} of {len(data)}, seed {question.seed}"},
        "against": {"name": data.path.resolve().name},
        "protocol": {
            "version": PROTOCOL_VERSION,
            "kind": KIND,
            "real data": data.fingerprint,
            "split": data.split or "all",
            "clips": len(order),
            "tasks": ", ".join(found),
            "told beside the known pixels": completer.condition,
            "frames": data.shape.frames,
            "height": data.shape.height,
            "width": data.shape.width,
            "fps": data.info.fps,
            "psnr": f"of hidden pixels, mean over frames that hide some, equal ones count as {CEILING:g} dB",
            "psnr of all at once": "of the mean squared error of all hidden pixels of a clip",
            "ssim": f"Gaussian {WINDOW}x{WINDOW}, sigma {SIGMA}, C1 {C1:g}, C2 {C2:g}, around hidden pixels, known ones pasted",
            "seed": question.seed,
            "seeds": "of a clip: its place in the split after the seed",
            **({"completions of each clip": question.completions} if question.completions > 1 else {}),
        },
        "scores": {name: _scores(TASKS[name].given, one) for name, one in found.items()},
        "motion": {name: _moves(one) for name, one in found.items()},
        "clips": {
            f"{name} {part}{measure}": [value if np.isfinite(value) else None for value in numbers[measure]["made"]]
            for name, one in found.items()
            for part, numbers in (("", one.hidden), ("known ", one.known))
            for measure in MEASURES
        },
    }
    if camera is not None:
        report["camera"] = dict(camera)
    report["warnings"] = _warnings(report, completer, camera)
    return report


def _scores(given: str, found: _Found) -> dict[str, Any]:
    """Return what a card says of one task."""
    score: dict[str, Any] = {"given": given, "hidden": float(np.mean(found.shares))}
    for measure, (unit, _) in MEASURES.items():
        values = {name: np.array(numbers) for name, numbers in found.hidden[measure].items()}
        best = max(found.rivals, key=lambda name: float(values[name].mean()))
        score[measure] = {
            "unit": unit,
            "better": "higher",
            **_three(values["made"]),
            "compressor": float(values["ceiling"].mean()) if "ceiling" in values else None,
            "beside": {name: float(values[name].mean()) for name in found.rivals},
            "nearest of them": best,
            "gain over it": _three(values["made"] - values[best]),
            "known, before pasting": _three(np.array(found.known[measure]["made"])),
            "known, of the compressor": _value(found.known[measure].get("ceiling")),
        }
        for kind, numbers in found.several[measure].items():
            if numbers:
                several = np.array(numbers)
                score[measure][f"{kind} of several"] = {**_three(several), "gain": _three(several - values[best])}
    return score


def _three(values: Float64[np.ndarray, "N"]) -> dict[str, float | None]:
    if np.isnan(values).any():  # windows of SSIM that fit nowhere, in every clip alike
        return {"value": None, "low": None, "high": None}
    return dict(zip(("value", "low", "high"), bootstrapped(values), strict=True))


def _value(values: Sequence[float] | None) -> float | None:
    return None if values is None or bool(np.isnan(values).any()) else float(np.mean(values))


def _moves(found: _Found) -> dict[str, float]:
    """Return what moves where something is hidden, and how what was made hangs together with what was given."""
    motion, seams = np.array(found.motion), np.array(found.seams)
    return {
        "motion": float(motion[:, 1].mean()),
        "motion of real clips": float(motion[:, 0].mean()),
        "motion against real": float(motion[:, 1].mean() / max(float(motion[:, 0].mean()), 1e-6)),
        "still clips": float((motion[:, 1] < 0.1 * np.median(motion[:, 0])).mean()),
        "seam against real": float(seams[:, 1].mean() / max(float(seams[:, 0].mean()), 1e-6)),
    }


def _warnings(report: Mapping[str, Any], completer: Completer, camera: Mapping[str, Any] | None) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    said = []
    for name, score in report["scores"].items():
        nearer: dict[str, list[str]] = {}
        for measure in MEASURES:
            if (score[measure]["gain over it"]["high"] or 0) < 0:
                nearer.setdefault(score[measure]["nearest of them"], []).append(measure)
        said += [f"{name}: {rival} is nearer to the truth by {' and '.join(by)}." for rival, by in nearer.items()]
    if completer.remember is None:
        said.append("The system has no compressor, so that there is no ceiling but the truth itself.")
    if hidden := [name for name in BOXES if name in report["scores"]]:
        said.append(
            f"{' and '.join(hidden)}: what is hidden is never seen in its clip, so that a {MEDIAN} has no meaning; the {SCENE} "
            "stands for it."
        )
    if camera is None:
        said.append("The dataset has no training clips, so that there is no still picture of them.")
    elif not camera["stands still"]:
        change = camera["change of the stiller half in half a clip, levels"]
        said.append(
            f"The camera moves: the stiller half of the picture changes by {change:.1f} levels in half a clip. The "
            "still picture of the training clips is no background here, and a median over time a poor one."
        )
    elif not camera["looks at one place"]:
        apart = camera["from the still picture of the training clips, levels"]
        said.append(
            f"These clips were not filmed where the training clips were: their medians lie {apart:.0f} levels from the still "
            "picture of the training clips, which is no background here."
        )
    return said
