"""From scores to probabilities, and whether the probabilities are right.

References:
    Platt, "Probabilistic Outputs for Support Vector Machines", in Advances in Large Margin Classifiers, 1999, for `platt`;
    Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015, for the expected
    calibration error; Wilson, "Probable inference, the law of succession, and statistical inference", 1927, for the intervals;
    Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005, Section 2.2, for `as_extreme`.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import binomtest, rankdata

from kinema.core.seeds import numpy_generator

BINS = 10
REPLICATES = 2000

Scores = Float[np.ndarray, "N"]
Truth = Bool[np.ndarray, "N"]


@dataclass(frozen=True)
class Rate:
    """How often something happened: `count` of `total`, with Wilson's 95 % interval of the share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The count over the total."""
        return self.count / self.total

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return asdict(self) | {"share": self.share}


@dataclass(frozen=True)
class Bin:
    """Cases whose probability lies in one of the equal parts of [0, 1], as they would be at even odds.

    Attributes:
        mean: of their probabilities.
        share: of true ones.
        low: lower end of its 95 % interval.
        high: upper end of it.
        weight: share of all cases.
        count: cases that there are.
    """

    mean: float
    share: float
    low: float
    high: float
    weight: float
    count: int


def wilson(count: int, total: int) -> Rate:
    """Return a rate with its interval; the cases are taken as independent."""
    interval = binomtest(count, total).proportion_ci(0.95, method="wilson")
    return Rate(count, total, float(interval.low), float(interval.high))


def platt(scores: Scores, truth: Truth) -> tuple[float, float]:
    """Fit slope and intercept with which ``sigmoid(slope * score + intercept)`` is the probability of being true.

    Both classes count alike, however many cases they have, so that the probability is that of even odds. Targets are Platt's,
    (n + 1)/(n + 2) and 1/(n + 2) for a class of n cases, without which cases that are told apart without fault would ask for an
    infinite slope. A score never speaks against what it stands for: the slope is 0 or more.

    Args:
        scores: higher where true is more likely.
        truth: with cases of both kinds.
    """
    counts = np.where(truth, truth.sum(), (~truth).sum())
    targets = np.where(truth, (counts + 1) / (counts + 2), 1 / (counts + 2))
    weights = 0.5 / counts
    centre, width = float(scores.mean()), float(scores.std()) or 1.0
    unit = (scores - centre) / width

    def loss(line: Float[np.ndarray, "2"]) -> tuple[float, Float[np.ndarray, "2"]]:
        odds = line[0] * unit + line[1]
        slack = weights * (expit(odds) - targets)
        return float((weights * (np.logaddexp(0, odds) - targets * odds)).sum()), np.array([(slack * unit).sum(), slack.sum()])

    slope, intercept = minimize(
        loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)], options={"ftol": 1e-14}
    ).x
    return float(slope / width), float(intercept - slope * centre / width)


def as_extreme(score: float, untrue: Scores) -> float:
    """Return how often an untrue case scores at least as high: at most so often, whatever scores are distributed like.

    The case and the untrue ones must be alike but for what is asked. Of n untrue ones the least that can be said is 1/(n + 1).

    Args:
        score: higher where true is more likely.
        untrue: scores of cases that are known not to be true.
    """
    return float((1 + (untrue >= score).sum()) / (len(untrue) + 1))


def reliability(probabilities: Scores, truth: Truth) -> list[Bin]:
    """Return what is in each tenth of [0, 1] that holds a case; both classes count alike, as in `platt`.

    Args:
        probabilities: of being true, at even odds.
        truth: with cases of both kinds.
    """
    weights, surplus = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum()), truth.sum() / (~truth).sum()
    place = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    found = []
    for number in sorted(set(place.tolist())):
        inside = place == number
        true = wilson(int(truth[inside].sum()), int(inside.sum()))
        share, low, high = (float(one / (one + (1 - one) * surplus)) for one in (true.share, true.low, true.high))
        mean = float(np.average(probabilities[inside], weights=weights[inside]))
        found.append(Bin(mean, share, low, high, float(weights[inside].sum()), true.total))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the expected calibration error: how far mean probability and share of true ones lie apart, over all cases."""
    return sum(part.weight * abs(part.mean - part.share) for part in bins)


def area_under_roc(scores: Scores, truth: Truth) -> float:
    """Return the probability that a true case has the higher score of a true and an untrue one, ties counted half."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    return float((rankdata(scores)[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def area_interval(scores: Scores, truth: Truth, groups: Sequence[str]) -> tuple[float, float] | None:
    """Return the 95 % interval of the area over resampled groups, or None where they say nothing: under three, or no error.

    Args:
        scores: of the cases.
        truth: of the cases.
        groups: of the cases; those of one are drawn together.
    """
    names = sorted(set(groups))
    if len(names) < 3 or area_under_roc(scores, truth) in (0, 1):
        return None
    members = [np.flatnonzero(np.array(groups) == name) for name in names]
    generator, found = numpy_generator(len(names), 21), list[float]()
    for _ in range(REPLICATES):
        rows = np.concatenate([members[place] for place in generator.integers(len(names), size=len(names))])
        if truth[rows].any() and not truth[rows].all():
            found.append(area_under_roc(scores[rows], truth[rows]))
    low, high = np.quantile(found, (0.025, 0.975)).tolist()
    return low, high
