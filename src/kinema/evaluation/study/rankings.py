r"""Rankings: average ranks, how far raters agree, and whether systems differ at all.

| quantity | definition |
|---|---|
| average rank ± SD | mean and standard deviation (n - 1) of a system's ranks over all answers; 1 is best |
| agreement | Kendall's $W = 12 S / (m^2 (n^3 - n))$, $S$ the squared deviations of the rank sums; mean over trials |
| difference | Friedman's test with a block per rater, the rater's mean ranks: answers of one rater are not independent |

W of m raters who answer by chance is 1/m on average, not 0: that number stands beside it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np
from jaxtyping import Float
from scipy.stats import friedmanchisquare

from kinema.evaluation.study.folder import Study
from kinema.evaluation.study.store import Vote


@dataclass(frozen=True)
class AverageRank:
    """Where a system stands on average; 1 is best.

    Attributes:
        system: its name.
        mean: over all answers.
        deviation: standard deviation over answers; None for a single one.
        categories: category -> mean; None where nobody answered.
    """

    system: str
    mean: float
    deviation: float | None
    categories: Mapping[str, float | None]


@dataclass(frozen=True)
class Concordance:
    """How far raters who saw the same clips ranked them alike.

    Attributes:
        value: Kendall's W, mean over trials; 1 is full agreement.
        chance: what it is on average when everybody guesses.
        trials: how many have two answers or more.
    """

    value: float
    chance: float
    trials: int


@dataclass(frozen=True)
class Friedman:
    """Friedman's test of no difference between systems.

    Attributes:
        statistic: chi-square with one degree of freedom less than there are systems.
        p_value: of its asymptotic distribution, rough for few raters.
        raters: how many blocks.
    """

    statistic: float
    p_value: float
    raters: int


@dataclass(frozen=True)
class Ranks:
    """What rankings say.

    Attributes:
        systems: best first.
        concordance: None where no trial has two answers.
        friedman: None for a single rater, or where every rater ranked all systems alike on average.
    """

    systems: tuple[AverageRank, ...]
    concordance: Concordance | None
    friedman: Friedman | None


def rank_systems(study: Study, votes: Sequence[Vote]) -> Ranks:
    """Rank the systems of a study.

    Args:
        study: a ranking.
        votes: answers to its comparisons, one at least.

    References:
        Kim et al., Unsupervised Keypoint Learning for Guiding Class-Conditional Video Prediction, 2019, Table 3.
    """
    clips = {clip.file: clip for clip in study.clips}
    by_category: dict[str, list[dict[str, int]]] = defaultdict(list)
    by_rater: dict[int, list[dict[str, int]]] = defaultdict(list)
    by_trial: dict[str, list[dict[str, int]]] = defaultdict(list)
    for vote in votes:
        ranks = {clips[name].system: rank for rank, name in enumerate(vote.ranked, 1)}
        by_category[clips[vote.clips[0]].category].append(ranks)
        by_rater[vote.rater].append(ranks)
        by_trial[vote.trial].append(ranks)
    every = [ranks for given in by_category.values() for ranks in given]
    rows = [
        AverageRank(
            system,
            fmean(ranks[system] for ranks in every),
            stdev(ranks[system] for ranks in every) if len(every) > 1 else None,
            {c: _mean(by_category.get(c, ()), system) for c in study.categories},
        )
        for system in study.systems
    ]
    shared = [_table(study, given) for given in by_trial.values() if len(given) > 1]
    blocks = np.array([_table(study, given).mean(axis=0) for given in by_rater.values()])
    return Ranks(tuple(sorted(rows, key=lambda row: row.mean)), _concordance(shared), friedman(blocks))


def kendall_w(ranks: Float[np.ndarray, "M N"]) -> float:
    """Return Kendall's coefficient of concordance: 1 where all M rankings of N things are alike, 0 where rank sums are equal.

    References:
        Kendall and Babington Smith, The problem of m rankings, 1939. W is Friedman's statistic over M (N - 1).
    """
    raters, things = ranks.shape
    return float(friedmanchisquare(*ranks.T).statistic) / (raters * (things - 1))


def friedman(ranks: Float[np.ndarray, "M N"]) -> Friedman | None:
    """Test whether N systems differ, ranked by M raters; None for one rater, or where nobody told them apart.

    References:
        Friedman, The use of ranks to avoid the assumption of normality implicit in the analysis of variance, 1937.
    """
    if len(ranks) < 2 or (ranks == ranks[:, :1]).all():
        return None
    found = friedmanchisquare(*ranks.T)
    return Friedman(float(found.statistic), float(found.pvalue), len(ranks))


def _concordance(shared: Sequence[np.ndarray]) -> Concordance | None:
    if not shared:
        return None
    return Concordance(fmean(map(kendall_w, shared)), fmean(1 / len(ranks) for ranks in shared), len(shared))


def _table(study: Study, given: Sequence[Mapping[str, int]]) -> Float[np.ndarray, "M N"]:
    return np.array([[ranks[system] for system in study.systems] for ranks in given], np.float64)


def _mean(given: Sequence[Mapping[str, int]], system: str) -> float | None:
    return fmean(ranks[system] for ranks in given) if given else None
