"""Forecasts of poses beside what happened: best of n, diversity, and on forked performers whether all that may follow is there.

A joint is judged where it was found in the current pose and in the true future. Four things forecast beside the system: the
current pose that stays, the current velocity that goes on, the system's own forecast without chance, the mean of its samples.

References:
    Best of n: Walker et al., "The Pose Knows", ICCV 2017: minimum over the first n samples of the summed squared error of
    displacements, coordinates divided by the longer side of the frame. APD, ADE, FDE, MMADE and MMFDE: Yuan and Kitani, "DLow",
    ECCV 2020; here in the picture, relative to the middle of the current pose, in heights of the person.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

import kinema
from kinema.core.config import from_mapping
from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.data.performers import PerformersSettings, pose_futures
from kinema.evaluation.clips import MINIMUM_CLIPS, Clip, chosen_clips
from kinema.evaluation.measures import drawn
from kinema.evaluation.paired import interval
from kinema.evaluation.posewise import (
    alike,
    average_displacement_error,
    average_pairwise_distance,
    best_of,
    displacement_errors,
    final_displacement_error,
    limb_variation,
    multimodal_errors,
    position_errors,
    sizes,
)
from kinema.evaluation.unfinished import keeping
from kinema.pose.skeleton import find_skeleton

PROTOCOL_VERSION = 1
KIND = "forecasts"
AT_ONCE = 8
SHOWN = 6
ALIKE = 0.5  # DLow's threshold
STILL, STEADY, TYPICAL, MEAN = "current pose stays", "current velocity goes on", "code 0", "mean of the samples"

Poses = Float32[np.ndarray, "B T J 3"]
Futures = Callable[[Sequence[int]], list[np.ndarray]]
"""Indices of clips -> forecasts of each."""
Said = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Forecaster:
    """What forecasts.

    Attributes:
        name: of the run.
        shape: of the clips whose past it takes.
        past: frames of the past.
        future: frames of the future.
        step: frames of one displacement of the model.
        skeleton: layout of the joints.
        forecast: past clips and poses, a seed of each, how many -> futures of each.
        typical: past clips and poses -> one future of each without chance; None where the system has none.
        about: what else is known of it, as JSON values.
        fps: frames per second of the clips that it learnt from; None where that is not known.
        confidence: of which a joint counts as found; one of less is missing to the system, and is not judged.
    """

    name: str
    shape: ClipShape
    past: int
    future: int
    step: int
    skeleton: str
    forecast: Callable[[Sequence[Clip], Poses, Sequence[int], int], Float32[np.ndarray, "B N T J 3"]]
    typical: Callable[[Sequence[Clip], Poses], Poses] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    fps: float | None = None
    confidence: float = 0.0

    def seen(self, poses: Float[np.ndarray, "*many J 3"]) -> Bool[np.ndarray, "*many J"]:
        """Return which joints count as found."""
        return (poses[..., 2] > 0) & (poses[..., 2] >= self.confidence)


@dataclass(frozen=True)
class ForecastQuestion:
    """What is asked.

    Attributes:
        count: clips; None takes the usual number, see `chosen_clips`.
        seed: of the drawing of clips; clip i gets the seed of its place in the data after this one.
        samples: futures of each clip.
    """

    count: int | None = None
    seed: int = 0
    samples: int = 50


@dataclass(frozen=True)
class Case:
    """A past, what followed, and what was forecast.

    Attributes:
        key: of the clip.
        truth: joints of the future, in pixels.
        mask: which of them are judged.
        current: pose before it.
        before: the pose before that.
        present: joints that the current pose has.
        samples: forecasts.
        typical: forecast without chance, where there is one.
        height: of the person, in pixels.
        known: everything that might have followed: name -> joints, where that is known.
    """

    key: str
    truth: Float[np.ndarray, "T J 2"]
    mask: Bool[np.ndarray, "T J"]
    current: Float[np.ndarray, "J 2"]
    before: Float[np.ndarray, "J 2"]
    present: Bool[np.ndarray, "J"]
    samples: Float[np.ndarray, "S T J 2"]
    typical: Float[np.ndarray, "T J 2"] | None
    height: float
    known: Mapping[str, Float[np.ndarray, "T J 2"]] = field(default_factory=dict)

    @property
    def rivals(self) -> dict[str, Float[np.ndarray, "T J 2"]]:
        """Return the forecasts that the samples have to beat, by name."""
        time = np.arange(1, len(self.truth) + 1)[:, None, None]
        found = {
            STILL: np.broadcast_to(self.current, self.truth.shape),
            STEADY: self.current + time * (self.current - self.before),
        }
        if self.typical is not None:
            found[TYPICAL] = self.typical
        return found | {MEAN: self.samples.mean(axis=0)}

    def steps(self, futures: Float[np.ndarray, "*many T J 2"], frames: int) -> Float[np.ndarray, "*many K J 2"]:
        """Return the displacements over every so many frames."""
        borders = futures[..., frames - 1 :: frames, :, :]
        first = np.broadcast_to(self.current, (*borders.shape[:-3], 1, *self.current.shape))
        return np.diff(np.concatenate([first, borders], axis=-3), axis=-3)

    def moving(self, frames: int) -> Bool[np.ndarray, "K J"]:
        """Return which joints are judged at both ends of the displacements over every so many frames."""
        ends = self.mask[frames - 1 :: frames]
        return ends & np.concatenate([self.present[None], ends[:-1]])

    def relative(self, poses: Float[np.ndarray, "*many J 2"]) -> Float[np.ndarray, "*many J 2"]:
        """Return poses relative to the middle of the current one, in heights of the person; joints that it lacks are at 0."""
        return (poses - self.current[self.present].mean(axis=0)) / self.height * self.present[:, None]


@dataclass(frozen=True)
class ForecastCard:
    """The answer.

    Attributes:
        report: JSON values; what ``report.json`` holds.
        shown: cases from the best to the worst, evenly spread.
        skeleton: layout of their joints.
    """

    report: dict[str, Any]
    shown: list[Case]
    skeleton: str


def judge_forecasts(
    forecaster: Forecaster,
    data: Dataset,
    question: ForecastQuestion,
    said: Said = lambda what, done, total: None,
    unfinished: Path | None = None,
) -> ForecastCard:
    """Measure forecasts of clips of a dataset.

    Args:
        forecaster: what forecasts.
        data: clips with poses.
        question: how many, which.
        said: called with what is being done, and how much of it.
        unfinished: folder that keeps forecasts, so that the same question goes on where it was stopped; only for forecasters
            whose `about` says all that decides about them.

    Raises:
        DataError: for clips without poses.
        EvaluationError: for clips of another shape, skeleton or length, or too few.
    """
    refuse_unfit(forecaster, data)
    count = chosen_clips(data, question.count, "forecast")
    order = drawn(count, len(data), question.seed)
    forks, futures = fork_settings(data), _futures(forecaster, data, question)
    if unfinished:
        about = [kinema.__version__, dict(forecaster.about), data.fingerprint, data.split, question.seed, question.samples]
        futures = {name: keeping(one, unfinished / name, [*about, name]) for name, one in futures.items()}
    cases: list[Case] = []
    left_out = 0
    for start in range(0, count, AT_ONCE):
        found = _cases(forecaster, data, order[start : start + AT_ONCE], futures, forks)
        left_out += len(order[start : start + AT_ONCE]) - len(found)
        cases += found
        said("forecasting", min(start + AT_ONCE, count), count)
    if len(cases) < MINIMUM_CLIPS:
        raise EvaluationError(
            f"of {count} clips of {data.path} only {len(cases)} have a joint in the current pose that the last one has too; "
            f"at least {MINIMUM_CLIPS} are needed"
        )
    report = _report(forecaster, data, question, cases, left_out, forks)
    return ForecastCard(report, _shown(cases), forecaster.skeleton)


def refuse_unfit(forecaster: Forecaster, data: Dataset) -> None:
    """Raise `EvaluationError` (`DataError` without poses) where a dataset's clips are not what a system forecasts from."""
    data.require("pose")
    if data.info.skeleton != forecaster.skeleton:
        raise EvaluationError(
            f"{data.path} has poses of {data.info.skeleton} and {forecaster.name} forecasts {forecaster.skeleton}; "
            "prepare the data with poses of that skeleton"
        )
    here, there = data.shape, forecaster.shape
    if (here.height, here.width) != (there.height, there.width):
        raise EvaluationError(
            f"{data.path} has clips of {here} and {forecaster.name} takes {there} (frames x height x width); prepare the data "
            f"with --size {there.height}"
        )
    if forecaster.fps is not None and abs(forecaster.fps - data.info.fps) > 0.01 * data.info.fps:
        raise EvaluationError(
            f"{data.path} has {data.info.fps:g} frames per second and {forecaster.name} forecasts {forecaster.fps:g}; prepare "
            f"the data with --fps {forecaster.fps:g}"
        )
    if here.frames < forecaster.past + forecaster.future:
        raise EvaluationError(
            f"{data.path} has clips of {here.frames} frames; {forecaster.name} forecasts {forecaster.future} from "
            f"{forecaster.past}, so that clips need {forecaster.past + forecaster.future}"
        )


def fork_settings(data: Dataset) -> PerformersSettings | None:
    """Return what made a dataset of forked performers, whose futures are all known; None for any other."""
    values = dict(data.info.settings)
    if values.pop("kind", None) != "performers" or not values.get("fork"):
        return None
    values.pop("split", None)
    return from_mapping(PerformersSettings, {**values, "pose_noise": 0.0})


def _futures(forecaster: Forecaster, data: Dataset, question: ForecastQuestion) -> dict[str, Futures]:
    """Return what forecasts clips of a dataset: many futures of each, and one without chance where the system has that."""

    def given(indices: Sequence[int]) -> tuple[list[Clip], Poses]:
        poses = [np.array(data.array(index, "pose"), np.float32)[: forecaster.past] for index in indices]
        return [data.video(index, 0, forecaster.past) for index in indices], np.stack(poses)

    def samples(indices: Sequence[int]) -> list[np.ndarray]:
        return list(forecaster.forecast(*given(indices), [question.seed + index for index in indices], question.samples))

    found: dict[str, Futures] = {"samples": samples}
    if typical := forecaster.typical:
        found["typical"] = lambda indices: list(typical(*given(indices)))
    return found


def _cases(
    forecaster: Forecaster,
    data: Dataset,
    indices: Sequence[int],
    futures: Mapping[str, Futures],
    forks: PerformersSettings | None,
) -> list[Case]:
    past, stop = forecaster.past, forecaster.past + forecaster.future
    every = np.stack([np.array(data.array(index, "pose"), np.float32)[:stop] for index in indices])
    made = futures["samples"](indices)
    typical = futures["typical"](indices) if "typical" in futures else [None] * len(indices)
    cases = []
    for index, poses, samples, one in zip(indices, every, made, typical, strict=True):
        present = forecaster.seen(poses[past - 1])
        mask = forecaster.seen(poses[past:]) & present
        if not mask.any() or not mask[-1].any():
            continue
        before = poses[max(past - 2, 0)]
        both = present & forecaster.seen(before)
        key = data.record(index).key
        known = {} if forks is None else pose_futures(int(key), forks)
        cases.append(
            Case(
                key=key,
                truth=poses[past:, :, :2].astype(np.float64),
                mask=mask,
                current=poses[past - 1, :, :2].astype(np.float64),
                before=np.where(both[:, None], before[:, :2], poses[past - 1, :, :2]).astype(np.float64),
                present=present,
                samples=samples[..., :2].astype(np.float64),
                typical=None if one is None else one[..., :2].astype(np.float64),
                height=max(float(sizes(poses[:past]).max()), 1.0),
                known={name: one[past:stop, :, :2].astype(np.float64) for name, one in known.items()},
            )
        )
    return cases


def _report(
    forecaster: Forecaster,
    data: Dataset,
    question: ForecastQuestion,
    cases: Sequence[Case],
    left_out: int,
    forks: PerformersSettings | None,
) -> dict[str, Any]:
    scale = 1 / max(data.shape.height, data.shape.width)
    displacement, distance = _curves(cases, forecaster.step, scale), _curves(cases, None, 1.0)
    report: dict[str, Any] = {
        "kinema": kinema.__version__,
        "judged": {"name": forecaster.name, **forecaster.about, "clips": f"{len(cases)} of {len(data)}, seed {question.seed}"},
        "against": {"name": data.path.resolve().name},
        "protocol": {
            "version": PROTOCOL_VERSION,
            "kind": KIND,
            "real data": data.fingerprint,
            "split": data.split or "all",
            "clips": len(cases),
            "clips without joints, left out": left_out,
            "given frames": forecaster.past,
            "frames": forecaster.future,
            "frames of a displacement": forecaster.step,
            "height": data.shape.height,
            "width": data.shape.width,
            "fps": data.info.fps,
            "skeleton": forecaster.skeleton,
            "samples": question.samples,
            "seed": question.seed,
            "displacement error": "sum of squares over joints, steps, x, y; coordinates divided by the longer side; no root",
            "APD, ADE, FDE": "as DLow, relative to the middle of the current pose, in heights (longest edge) of the person",
            "alike pasts": f"current poses nearer than {ALIKE:g} heights as vectors",
        },
        "scores": _scores(cases),
        "best of": {"displacement error": displacement, "distance of a joint, pixels": distance},
        "limbs": _limbs(cases, forecaster.skeleton),
        "motion": _motion(cases),
    }
    if forks is not None:
        report["modes"] = _modes(cases, forks)
    report["warnings"] = _warnings(report, forecaster, forks)
    return report


def _curves(cases: Sequence[Case], step: int | None, scale: float) -> dict[str, Any]:
    """Return the best of n and its rivals: of displacements over so many frames, or of joints in pixels."""

    def errors(case: Case, futures: Float[np.ndarray, "S T J 2"]) -> Float[np.ndarray, "S"]:
        if step is None:
            return position_errors(futures, case.truth, case.mask)
        both = case.moving(step)
        if not both.any():
            return np.full(len(futures), np.nan)
        return displacement_errors(case.steps(futures, step) * scale, case.steps(case.truth, step) * scale, both)

    curves = np.stack([best_of(errors(case, case.samples)) for case in cases])
    rivals = {name: [float(errors(case, case.rivals[name][None])[0]) for case in cases] for name in cases[0].rivals}
    known = np.isfinite(curves[:, 0])
    value, low, high = np.array([interval(column) for column in curves[known].T]).T
    return {
        "value": value.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "beside": {name: float(np.array(values)[known].mean()) for name, values in rivals.items()},
    }


def _scores(cases: Sequence[Case]) -> dict[str, Any]:
    starts = np.stack([case.relative(case.current) for case in cases])
    groups = alike(starts, np.stack([case.present for case in cases]), ALIKE)
    found: dict[str, list[float]] = {name: [] for name in ("APD", "ADE", "FDE", "MMADE", "MMFDE")}
    beside: dict[str, dict[str, list[float]]] = {name: {} for name in found}
    for case, group in zip(cases, groups, strict=True):
        truth = case.relative(case.truth)
        others = [(cases[other].relative(cases[other].truth), cases[other].mask & case.present) for other in group]
        others = [(future, mask) for future, mask in others if mask[-1].any()]
        for name, futures in {"": case.samples, **{name: one[None] for name, one in case.rivals.items()}}.items():
            samples = case.relative(futures)
            average, final = multimodal_errors(samples, [one for one, _ in others], [mask for _, mask in others])
            numbers = {
                "APD": average_pairwise_distance(samples, case.present),
                "ADE": average_displacement_error(samples, truth, case.mask),
                "FDE": final_displacement_error(samples, truth, case.mask),
                "MMADE": average,
                "MMFDE": final,
            }
            for measure, number in numbers.items():
                (beside[measure].setdefault(name, []) if name else found[measure]).append(number)
    scores = {}
    for name, values in found.items():
        value, low, high = interval(np.array(values))
        scores[name] = {
            "unit": "heights",
            "better": "higher" if name == "APD" else "lower",
            "value": value,
            "low": low,
            "high": high,
            "beside": {rival: float(np.mean(numbers)) for rival, numbers in beside[name].items()},
        }
    scores["MMADE"]["alike pasts of a clip"] = float(np.mean([len(group) for group in groups]))
    return scores


def _limbs(cases: Sequence[Case], layout: str) -> dict[str, Any]:
    """Return how much limbs change their length from the current pose on, in the truth and in the forecasts."""
    skeleton, made, true, rivals = find_skeleton(layout), [], [], {}
    for case in cases:
        always = case.mask.all(axis=0)
        if not any(always[list(edge)].all() for edge in skeleton.edges):
            continue
        made.append(limb_variation(_from(case, case.samples), always, skeleton))
        true.append(limb_variation(_from(case, case.truth[None]), always, skeleton))
        for name, one in case.rivals.items():
            rivals.setdefault(name, []).append(limb_variation(_from(case, one[None]), always, skeleton))
    if not made:
        return {"clips": 0}
    return {
        "clips": len(made),
        "variation": float(np.mean(made)),
        "variation of the truth": float(np.mean(true)),
        "beside": {name: float(np.mean(values)) for name, values in rivals.items()},
    }


def _from(case: Case, futures: Float[np.ndarray, "S T J 2"]) -> Float[np.ndarray, "S U J 2"]:
    first = np.broadcast_to(case.current, (len(futures), 1, *case.current.shape))
    return np.concatenate([first, futures], axis=1)


def _motion(cases: Sequence[Case]) -> dict[str, float]:
    """Return how far a joint moves per frame, in pixels."""

    def moved(case: Case, futures: Float[np.ndarray, "S T J 2"]) -> float:
        return float(np.linalg.norm(case.steps(futures, 1), axis=-1)[:, case.moving(1)].mean())

    moving = [case for case in cases if case.moving(1).any()]
    made = float(np.mean([moved(case, case.samples) for case in moving]))
    real = float(np.mean([moved(case, case.truth[None]) for case in moving]))
    return {"motion": made, "motion of real clips": real, "motion against real": made / max(real, 1e-9)}


def _modes(cases: Sequence[Case], forks: PerformersSettings) -> dict[str, Any]:
    """Return which of the known futures were imagined, and how often.

    A sample belongs to the known future that is nearest. It hits it when it is nearer than half the way from there to the next
    known future: something between two futures hits neither.
    """
    odds = forks.odds
    names = list(odds)
    share, hit, rival_hits = np.zeros(len(names)), np.zeros(len(names)), {}
    apart, hitting, samples = [], [], len(cases[0].samples)
    for case in cases:
        futures = np.stack([case.known[name] for name in names])
        nearest, hits = _belongs(case.samples, futures, case.present)
        shares = np.bincount(nearest, minlength=len(names)) / samples
        apart.append(np.abs(shares - list(odds.values())).sum() / 2)
        share += shares / len(cases)
        hitting.append(float(hits.mean()))
        hit += (np.bincount(nearest[hits], minlength=len(names)) > 0) / len(cases)
        for name, one in case.rivals.items():
            rival_hits.setdefault(name, []).append(float(_belongs(one[None], futures, case.present)[1].sum()) / len(names))
    likely = np.array(list(odds.values()))
    return {
        "fork": forks.past,
        "futures": {
            name: {"odds": float(odds[name]), "share of samples": float(share[k]), "hit in clips": float(hit[k])}
            for k, name in enumerate(names)
        },
        "coverage": float(hit.mean()),
        "coverage of samples with the known odds": float((1 - (1 - likely) ** samples).mean()),
        "samples that hit one": float(np.mean(hitting)),
        "coverage beside": {name: float(np.mean(values)) for name, values in rival_hits.items()},
        "shares from odds, mean over clips": float(np.mean(apart)),
        "shares from odds, all clips": float(np.abs(share - likely).sum() / 2),
    }


def _belongs(
    samples: Float[np.ndarray, "S T J 2"], futures: Float[np.ndarray, "K T J 2"], present: Bool[np.ndarray, "J"]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest known future of every sample, and whether it is a hit; distances are means over joints and frames."""

    def distances(one: Float[np.ndarray, "S T J 2"]) -> Float[np.ndarray, "S K"]:
        return np.stack([np.linalg.norm(one - future, axis=-1)[..., present].mean(axis=(1, 2)) for future in futures], axis=1)

    between = distances(futures)
    np.fill_diagonal(between, np.inf)
    found = distances(samples)
    nearest = found.argmin(axis=1)
    return nearest, found.min(axis=1) < between.min(axis=1)[nearest] / 2


def _warnings(report: Mapping[str, Any], forecaster: Forecaster, forks: PerformersSettings | None) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    said = []
    curve = report["best of"]["displacement error"]
    if len(curve["value"]) > 1 and curve["value"][-1] > 0.98 * curve["value"][0]:
        said.append("The best of n hardly falls with n: the samples are nearly one and the same future.")
    beaten = [name for name in (STILL, STEADY) if curve["beside"][name] <= curve["value"][0]]
    if beaten:
        said.append(f"A single sample is no nearer to the truth than {' or '.join(beaten)}, by the error of displacements.")
    unseen = [name for name in (STILL, STEADY, TYPICAL) if curve["beside"].get(name, np.inf) <= curve["value"][-1]]
    if unseen:
        said.append(f"Even the best of {len(curve['value'])} samples is no nearer than {' or '.join(unseen)}.")
    limbs = report["limbs"]
    if limbs["clips"] and limbs["variation"] > 2 * max(limbs["variation of the truth"], 0.01):
        said.append("Limbs change their length more than twice as much as the true ones.")
    if report["motion"]["motion against real"] < 0.25:
        said.append("The forecasts hardly move.")
    if forks is not None and forks.past != forecaster.past:
        more = "the past shows what follows" if forks.past < forecaster.past else "the future begins with the past's own motion"
        said.append(
            f"The fork is at frame {forks.past} and the past has {forecaster.past}: {more}; prepare the data with "
            f"--fork-frame {forecaster.past} for shares that can be compared with the odds."
        )
    return said


def _shown(cases: Sequence[Case]) -> list[Case]:
    """Return cases from the best to the worst by the best of their samples, evenly spread."""
    quality = [float(position_errors(case.samples, case.truth, case.mask).min() / case.height) for case in cases]
    ranks = np.argsort(quality)[np.linspace(0, len(cases) - 1, min(SHOWN, len(cases))).round().astype(int)]
    return [cases[rank] for rank in ranks]
