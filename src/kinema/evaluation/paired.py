"""Clips beside the truth: predictions of held-out clips, reconstructions, or two sets of clips that belong together.

A score is a mean over the frames that were to be made, then over clips, with a 95 % interval over clips; the curve is the mean
over clips at every frame. Beside each stand two still pictures: the given frame, repeated, and the mean of the true clip over
time, which no still picture beats by squared error. A video that does not beat them has only learnt what stands still.

References:
    Best of n: Denton and Fergus, "Stochastic Video Generation with a Learned Prior", ICML 2018 (arXiv 1802.07687), Section 5:
    the nearest of n futures, by each measure apart. Interval of a mean: Student, 1908. Limits and thresholds are a choice.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

import kinema
from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.evaluation.clips import PIXELS, Clip, Source
from kinema.evaluation.measures import drawn, refuse_short
from kinema.evaluation.pixels import (
    C1,
    C2,
    SIGMA,
    WINDOW,
    Planes,
    Scores,
    ms_ssim,
    planes,
    psnr,
    refuse_small,
    scales_that_fit,
    smallest_side,
    ssim,
)
from kinema.evaluation.unfinished import Unfinished

PROTOCOL_VERSION = 1
MINIMUM_PAIRS = 8
USUAL_PAIRS = 256
AT_ONCE = 8
CEILING = 100.0  # decibels that equal frames count as: their ratio is infinite, and a mean must not be
SHOWN = 6
RESAMPLES = 9999
REPEATED, MEAN = "repeated frame", "mean frame"  # the two still pictures

Kind = Literal["predictions", "reconstructions", "transfers", "pairs"]
Said = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Pairing:
    """Clips and what they should have been.

    Attributes:
        kind: what was done.
        name: of what made the clips.
        truth_name: of the true ones.
        count: pairs there are.
        shape: of every clip.
        fps: frames per second; None where nothing says it.
        past: frames at the beginning that were given, 0 where none were.
        truth: index -> true clip.
        make: indices and a number -> clips that should be the true ones; systems that imagine several make others of another.
        key: index -> name of a pair.
        storage: how the made clips and the true ones were stored, see `Source`.
        protocol: what else must be equal before two numbers may stand in one table.
        about: what else is known of what made the clips, as JSON values.
        truth_about: the same of the true ones.
    """

    kind: Kind
    name: str
    truth_name: str
    count: int
    shape: ClipShape
    fps: float | None
    past: int
    truth: Callable[[Sequence[int]], list[Clip]]
    make: Callable[[Sequence[int], int], list[Clip]]
    key: Callable[[int], str]
    storage: tuple[str, str] = (PIXELS, PIXELS)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    truth_about: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class PerceptualMeasure(Protocol):
    """See `kinema.evaluation.perceptual`."""

    name: str
    sha256: str

    def describe(self, frames: Planes) -> Any:
        """Return what `between` compares."""
        ...

    def between(self, truth: Any, made: Any) -> Scores:
        """Return a number per frame."""
        ...


@runtime_checkable
class Also(Protocol):
    """Looks at pairs beside the measures of whole frames; see `kinema.evaluation.transfers`."""

    def add(self, index: int, truth: Clip, made: Clip) -> None:
        """Measure a pair: its index, the true clip and the first made one."""
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what was measured so far."""
        ...

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from what `arrays` returned."""
        ...


@dataclass(frozen=True)
class Measure:
    """How near two clips are.

    Attributes:
        name: stands beside the number.
        unit: of it, or nothing.
        higher_is_better: or lower.
        between: of what was described of two clips, frame by frame.
        describe: what is needed of a clip: its planes, unless it is something dear.
    """

    name: str
    unit: str
    higher_is_better: bool
    between: Callable[[Any, Any], Scores]
    describe: Callable[[Planes], Any] = lambda frames: frames


@dataclass(frozen=True)
class PairedQuestion:
    """What is asked.

    Attributes:
        count: pairs; None takes up to `USUAL_PAIRS`.
        seed: of the drawing of pairs, and of the first future; the next has the next.
        draws: futures of each clip, for systems that imagine several.
    """

    count: int | None = None
    seed: int = 0
    draws: int = 8


@dataclass(frozen=True)
class PairedCard:
    """The answer.

    Attributes:
        report: JSON values; what ``report.json`` holds.
        shown: true clip, made clip and words, from the best pair to the worst.
    """

    report: dict[str, Any]
    shown: list[tuple[Clip, Clip, str]]


def measures_for(shape: ClipShape, perceptual: Sequence[PerceptualMeasure]) -> list[Measure]:
    """Return the measures that frames of a shape allow.

    Raises:
        EvaluationError: for frames smaller than SSIM's window.
    """
    refuse_small(shape.height, shape.width)
    found = [Measure("psnr", "dB", True, lambda *pair: psnr(*pair).clamp_max(CEILING)), Measure("ssim", "", True, ssim)]
    if (scales := scales_that_fit(shape.height, shape.width)) > 1:
        name = "ms-ssim" if scales == 5 else f"ms-ssim[{scales} scales]"
        found.append(Measure(name, "", True, partial(ms_ssim, scales=scales)))
    return [*found, *(Measure(one.name, "", False, one.between, one.describe) for one in perceptual)]


def judge_pairs(
    pairing: Pairing,
    question: PairedQuestion,
    perceptual: Sequence[PerceptualMeasure] = (),
    unfinished: Path | None = None,
    said: Said = lambda what, done, total: None,
    also: Also | None = None,
) -> PairedCard:
    """Measure clips against the truth.

    Args:
        pairing: clips and what they should have been.
        question: how many, which.
        perceptual: measures beside PSNR, SSIM and MS-SSIM.
        unfinished: keeps the scores until all are there, so that the same question goes on where it was stopped; only for
            pairings whose `protocol` and `about` say all that decides about the clips.
        said: called with what is being done, and how much of it.
        also: looks at every pair, too; what it measures is kept unfinished with the scores.

    Raises:
        EvaluationError: for clips that are too few, too small or of unequal shapes.
    """
    refuse_short(pairing.shape.frames)
    measures, count = measures_for(pairing.shape, perceptual), chosen_pairs(pairing, question.count)
    order = drawn(count, pairing.count, question.seed)
    found = _Found(measures)
    what = [pairing.kind, pairing.name, dict(pairing.protocol), dict(pairing.about), asdict(question), count]
    what += [measure.name for measure in measures] + [one.sha256 for one in perceptual] + [kinema.__version__]
    kept = Unfinished(unfinished, what) if unfinished else None
    if kept and (arrays := kept.load()):
        found.take(arrays)
        if also:
            also.take(arrays)
    done, futures = len(found), found.versions - 2 if len(found) else _draws(pairing, question)
    for start in range(0, count, AT_ONCE):
        portion = order[start : start + AT_ONCE]
        truths = pairing.truth(portion)
        for truth in truths:
            found.truth.update(truth.tobytes())
        if start < done:
            continue
        made = [_made(pairing, portion, question.seed)]
        if start == 0 and futures > 1 and _all_equal(made[0], _made(pairing, portion, question.seed + 1)):
            futures = 1  # another seed gives the same clip
        made += [_made(pairing, portion, question.seed + draw) for draw in range(1, futures)]
        for index, truth, *versions in zip(portion, truths, *made, strict=True):
            found.add(truth, versions, pairing.past)
            if also:
                also.add(index, truth, versions[0])
            said(pairing.kind, len(found), count)
        if kept:
            kept.save({**(also.arrays() if also else {}), **found.arrays()})
    return _card(pairing, question, found, order, futures, perceptual)


def chosen_pairs(pairing: Pairing, count: int | None) -> int:
    """Return how many pairs are judged.

    Raises:
        EvaluationError: when there are fewer, or fewer than `MINIMUM_PAIRS`.
    """
    there = f"{pairing.truth_name} has {pairing.count} clip{'s' * (pairing.count != 1)} to stand beside {pairing.name}"
    if pairing.count < MINIMUM_PAIRS:
        raise EvaluationError(
            f"{there}; a mean with an interval needs at least {MINIMUM_PAIRS}: hold out more, or prepare more clips of fewer "
            "frames"
        )
    if count is not None and not MINIMUM_PAIRS <= count <= pairing.count:
        what = there if count > pairing.count else f"--count {count} is below the least number of pairs, {MINIMUM_PAIRS}"
        raise EvaluationError(f"{what}; give --count {MINIMUM_PAIRS} to {pairing.count}")
    return min(USUAL_PAIRS, pairing.count) if count is None else count


def pair_sources(made: Source, truth: Source) -> Pairing:
    """Set clips beside those that belong to them: by name where both sides have names, by order where neither has.

    Raises:
        EvaluationError: for unequal shapes, rates, names or numbers of clips.
    """
    refuse_short(truth.shape.frames)
    if made.shape != truth.shape:
        raise EvaluationError(
            f"{made.name} has clips of {made.shape} and {truth.name} of {truth.shape} (frames x height x width); make both "
            "with the same frames and size, for example kinema prepare --frames N --size N"
        )
    if made.fps is not None and truth.fps is not None and abs(made.fps - truth.fps) > 0.01 * truth.fps:
        raise EvaluationError(
            f"{made.name} has {made.fps:g} frames per second and {truth.name} {truth.fps:g}; frames of unequal times do not "
            "belong together"
        )
    if made.names is None or truth.names is None:
        names, place = _by_order(made, truth)
    else:
        names, place = _by_name(made, truth)
    return Pairing(
        kind="pairs",
        name=made.name,
        truth_name=truth.name,
        count=len(names),
        shape=truth.shape,
        fps=truth.fps or made.fps,
        past=0,
        truth=truth.read,
        make=lambda indices, draw: made.read([place[index] for index in indices]),
        key=names.__getitem__,
        storage=(made.storage, truth.storage),
        about=dict(made.about),
        truth_about=dict(truth.about),
    )


def _by_order(made: Source, truth: Source) -> tuple[list[str], Sequence[int]]:
    if made.count != truth.count or truth.count is None:
        raise EvaluationError(
            f"{made.name} has {made.count} clips and {truth.name} {truth.count}; clips without names belong together by their "
            "order, so that there must be as many of either"
        )
    names = truth.names() if truth.names else made.names() if made.names else [f"clip {n}" for n in range(truth.count)]
    return names, range(truth.count)


def _by_name(made: Source, truth: Source) -> tuple[list[str], list[int]]:
    """Return the names of the true clips and where the made ones of these names are."""
    sides = [(source.name, source.names() if source.names else []) for source in (made, truth)]
    for name, names in sides:
        if twice := [one for one, times in Counter(names).items() if times > 1]:
            raise EvaluationError(f"{name} has two clips called {twice[0]!r}; clips belong together by their names")
    only = [sorted(set(names) - set(others)) for names, others in ((sides[0][1], sides[1][1]), (sides[1][1], sides[0][1]))]
    if any(only):
        lacking = [f"only {side[0]} has {_few(names)}" for side, names in zip(sides, only, strict=True) if names]
        raise EvaluationError(
            f"{made.name} and {truth.name} do not hold the same clips: {'; '.join(lacking)}; clips that belong together carry "
            "one name, whatever their suffix"
        )
    places = {name: place for place, name in enumerate(sides[0][1])}
    return sides[1][1], [places[name] for name in sides[1][1]]


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"


class _Found:
    """Scores of clips, as they come.

    Attributes:
        scores: per measure, clips x versions x frames: the futures, then the two still pictures.
        motion: mean absolute difference of consecutive frames, of the true and of the made clip, a row per clip.
        truth: digest of the pixels of the true clips, which must be the same ones before numbers may be compared.
    """

    def __init__(self, measures: Sequence[Measure]) -> None:
        self.measures = measures
        self.scores: dict[str, list[Float64[np.ndarray, "V T"]]] = {measure.name: [] for measure in measures}
        self.motion: list[tuple[float, float]] = []
        self.truth = hashlib.sha256()

    def __len__(self) -> int:
        return len(self.motion)

    @property
    def versions(self) -> int:
        """Futures and still pictures of each clip."""
        return len(self.scores[self.measures[0].name][0])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the scores, to be kept."""
        return {"motion": np.array(self.motion), **{f"scores {name}": np.stack(scores) for name, scores in self.scores.items()}}

    def take(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Go on from scores that were kept."""
        self.scores = {name: list(arrays[f"scores {name}"]) for name in self.scores}
        self.motion = [(float(true), float(made)) for true, made in arrays["motion"]]

    def add(self, truth: Clip, versions: Sequence[Clip], past: int) -> None:
        """Measure the versions of a clip."""
        true = planes(truth)
        stills = [true[max(past, 1) - 1, None], true.mean(dim=0, keepdim=True)]
        every = [*(planes(version) for version in versions), *stills]
        for measure in self.measures:
            wanted = measure.describe(true)
            rows = [measure.between(wanted, measure.describe(one)).numpy() for one in every]
            self.scores[measure.name].append(np.stack(rows))
        start = max(past, 1) - 1  # what moves from the last given frame on
        changes = [float(side[start:].diff(dim=0).abs().mean()) for side in (true, every[0])]
        self.motion.append((changes[0], changes[1]))


def _draws(pairing: Pairing, question: PairedQuestion) -> int:
    return question.draws if pairing.kind == "predictions" else 1


def _made(pairing: Pairing, indices: Sequence[int], draw: int) -> list[Clip]:
    """Return made clips of the right shape."""
    wanted = (pairing.shape.frames, pairing.shape.height, pairing.shape.width, 3)
    clips = pairing.make(indices, draw)
    if wrong := next((clip.shape for clip in clips if clip.shape != wanted), None):
        raise EvaluationError(f"{pairing.name} made clips of {_size(wrong)} and the true ones have {pairing.shape}")
    return clips


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(side) for side in shape[:3])


def _all_equal(some: Sequence[Clip], others: Sequence[Clip]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(some, others, strict=True))


def _card(
    pairing: Pairing,
    question: PairedQuestion,
    found: _Found,
    order: Sequence[int],
    futures: int,
    perceptual: Sequence[PerceptualMeasure],
) -> PairedCard:
    scores = {
        measure.name: _score(measure, np.stack(found.scores[measure.name]), pairing.past, _draws(pairing, question))
        for measure in found.measures
    }
    motion = np.array(found.motion)
    report: dict[str, Any] = {
        "kinema": kinema.__version__,
        "judged": {"name": pairing.name, **pairing.about, "clips": f"{len(order)} of {pairing.count}, seed {question.seed}"},
        "against": {"name": pairing.truth_name, **pairing.truth_about},
        "protocol": _protocol(pairing, question, found, perceptual),
        "scores": scores,
        "motion": {
            "motion": float(motion[:, 1].mean()),
            "motion of real clips": float(motion[:, 0].mean()),
            "motion against real": float(motion[:, 1].mean() / max(float(motion[:, 0].mean()), 1e-6)),
            "still clips": float((motion[:, 1] < 0.1 * np.median(motion[:, 0])).mean()),
        },
        "deterministic": futures < _draws(pairing, question),
    }
    report["warnings"] = _warnings(report, pairing, found)
    return PairedCard(report, _shown(pairing, found, order, question.seed))


def _score(measure: Measure, scores: Float64[np.ndarray, "N V T"], past: int, draws: int) -> dict[str, Any]:
    """Return what a card says of one measure."""
    sign = 1 if measure.higher_is_better else -1
    clips = scores[:, :, past:].mean(axis=2)  # N V: futures, repeated frame, mean frame
    value, low, high = interval(clips[:, 0])
    later = scores[:, :, max(past, 1) :].mean(axis=2)  # the frame that is repeated is not compared with itself
    repeated, gains = later[:, -2], sign * (later[:, 0] - later[:, -2])
    gain, gain_low, gain_high = interval(gains)
    best = sign * np.maximum.accumulate(sign * clips[:, :-2], axis=1).mean(axis=0)
    over_time = np.array([interval(scores[:, 0, frame]) for frame in range(scores.shape[2])]).T
    given = interval(scores[:, 0, :past].mean(axis=1)) if past else None
    return {
        "unit": measure.unit,
        "better": "higher" if measure.higher_is_better else "lower",
        "value": value,
        "low": low,
        "high": high,
        REPEATED: float(repeated.mean()),
        MEAN: float(clips[:, -1].mean()),
        "gain over repeating": {"value": gain, "low": gain_low, "high": gain_high},
        "clips better than repeating": float((gains > 0).mean()),
        "given frames": dict(zip(("value", "low", "high"), given, strict=True)) if given else None,
        "best of": [[n, float(best[min(n, len(best)) - 1])] for n in _powers(draws)],
        "curve": {
            **{name: values.tolist() for name, values in zip(("value", "low", "high"), over_time, strict=True)},
            REPEATED: scores[:, -2].mean(axis=0).tolist(),
            MEAN: scores[:, -1].mean(axis=0).tolist(),
        },
    }


def _powers(most: int) -> list[int]:
    """Return 1, 2, 4, ... up to `most`, and `most`."""
    return sorted({*(1 << bit for bit in range(most.bit_length()) if 1 << bit <= most), most})


def interval(values: Float64[np.ndarray, "N"]) -> tuple[float, float, float]:
    """Return the mean and the 95 % interval of it by Student's t; it takes the clips as independent."""
    from scipy.stats import t  # imports much

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
    mean = float(values.mean())
    return mean, mean - half, mean + half


def bootstrapped(values: Float64[np.ndarray, "N"]) -> tuple[float, float, float]:
    """Return the mean and the 95 % percentile interval of it over resampled clips; it takes the clips as independent."""
    from scipy.stats import bootstrap  # imports much

    mean = float(values.mean())
    if np.ptp(values) == 0:  # no distribution to speak of
        return mean, mean, mean
    found = bootstrap((values,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0))
    return mean, float(found.confidence_interval.low), float(found.confidence_interval.high)


def _protocol(
    pairing: Pairing, question: PairedQuestion, found: _Found, perceptual: Sequence[PerceptualMeasure]
) -> dict[str, Any]:
    """Return everything that must be equal before two numbers may stand in one table."""
    return {
        "version": PROTOCOL_VERSION,
        "kind": pairing.kind,
        **pairing.protocol,
        "pairs": len(found),
        "true clips sha256": found.truth.hexdigest(),
        "frames": pairing.shape.frames,
        "given frames": pairing.past,
        "height": pairing.shape.height,
        "width": pairing.shape.width,
        "fps": pairing.fps,
        "judged storage": pairing.storage[0],
        "real storage": pairing.storage[1],
        "measures": ", ".join(measure.name for measure in found.measures),
        "psnr": f"mean over frames, equal frames count as {CEILING:g} dB",
        "ssim": f"Gaussian {WINDOW}x{WINDOW}, sigma {SIGMA}, C1 {C1:g}, C2 {C2:g}, mean over R, G and B",
        **{f"{one.name} sha256": one.sha256 for one in perceptual},
        "futures": _draws(pairing, question),
        "seed": question.seed,
    }


def _warnings(report: Mapping[str, Any], pairing: Pairing, found: _Found) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    said, motion = [], report["motion"]
    still = "The given frame, repeated," if pairing.past else "The first true frame, repeated,"
    nearer = [name for name, score in report["scores"].items() if score["gain over repeating"]["high"] < 0]
    if nearer:
        said.append(f"{still} is nearer to the truth by {', '.join(nearer)}.")
    if motion["motion against real"] < 0.1:
        said.append("The judged clips are nearly still pictures: on footage that moves little these numbers favour them.")
    if report["deterministic"]:
        said.append("The system is deterministic: another seed gives the same clip, so that its best of n is flat.")
    if equal := float((np.stack(found.scores["psnr"])[:, 0, pairing.past :] >= CEILING).mean()):
        said.append(f"{equal:.1%} of the judged frames equal the true ones and count as {CEILING:g} dB.")
    scales = scales_that_fit(pairing.shape.height, pairing.shape.width)
    if scales < 5:
        other = f"ms-ssim[{scales} scales] is a measure of its own" if scales > 1 else "there is none here"
        said.append(f"MS-SSIM has five scales, which fit into frames of {smallest_side(5)} pixels or more: {other}.")
    if lossy := [storage for storage in pairing.storage if storage != PIXELS]:
        said.append(f"Clips were stored as {' and '.join(lossy)}: encoding alone costs quality.")
    return said


def _shown(pairing: Pairing, found: _Found, order: Sequence[int], seed: int) -> list[tuple[Clip, Clip, str]]:
    """Return pairs from the best to the worst by PSNR, evenly spread."""
    quality = np.stack(found.scores["psnr"])[:, 0, pairing.past :].mean(axis=1)
    ranks = np.argsort(-quality)[np.linspace(0, len(quality) - 1, min(SHOWN, len(quality))).round().astype(int)]
    indices = [order[rank] for rank in ranks]
    words = [f"{pairing.key(index)}: {quality[rank]:.1f} dB" for index, rank in zip(indices, ranks.tolist(), strict=True)]
    return list(zip(pairing.truth(indices), pairing.make(indices, seed), words, strict=True))
