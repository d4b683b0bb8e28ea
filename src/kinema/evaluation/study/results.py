r"""What the answers say: preferences with intervals, abilities, agreement, and the same without careless raters.

| quantity | definition |
|---|---|
| percent preferred | of a pair's answers; interval of Wilson (1927), two-sided exact binomial test against one half |
| mean | over categories, unweighted, as in Table 1 of the VGAN paper |
| ability | Bradley and Terry (1952): $P(i \succ j) = 1 / (1 + e^{\beta_j - \beta_i})$, maximum likelihood, $\sum \beta = 0$ |
| agreement | Krippendorff's alpha for nominal data, which allows for raters who did not answer everything; chance by pair |
| static-frame control | how often a clip's first frame was preferred over the moving clip; VGAN paper, Section 3.2 |

Chance is counted for each pair of systems by itself: over all pairs the answers have no common meaning, and alpha would depend
on the order in which systems were named. A ranking counts as an answer about each of its pairs; `rankings` has what only
rankings have. Intervals and tests take answers as independent, which answers of one rater are not quite.
"""

import csv
import itertools
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from jaxtyping import Float, Float64
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import order_for
from kinema.evaluation.study.folder import NOISE, ExclusionRules, Study, StudyClip
from kinema.evaluation.study.rankings import Ranks, rank_systems
from kinema.evaluation.study.store import Vote


@dataclass(frozen=True)
class Preference:
    """How often one system was preferred over another.

    Attributes:
        wins: answers for it.
        total: answers.
        low: lower end of the 95 % interval, as a share.
        high: upper end of the interval.
        p_value: of the exact two-sided binomial test against one half.
    """

    wins: int
    total: int
    low: float
    high: float
    p_value: float

    @property
    def percent(self) -> float:
        """Percentage of answers for it."""
        return 100 * self.wins / self.total


@dataclass(frozen=True)
class Row:
    """A row of the table: one system over another.

    Attributes:
        system: of which the percentage is.
        other: over which it is preferred.
        categories: category -> preference; None where nobody answered.
        pooled: over all answers.
    """

    system: str
    other: str
    categories: Mapping[str, Preference | None]
    pooled: Preference | None

    @property
    def mean(self) -> float | None:
        """Unweighted mean of the categories' percentages, as the paper's; None where a category has no answer."""
        percents = [preference.percent for preference in self.categories.values() if preference]
        return fmean(percents) if len(percents) == len(self.categories) else None


@dataclass(frozen=True)
class Ability:
    """A system's ability with its standard error, in log-odds; abilities sum to zero."""

    system: str
    value: float
    error: float


@dataclass(frozen=True)
class RaterReport:
    """What the exclusion rules look at.

    Attributes:
        rater: number.
        answered: share of the rater's trials but practice.
        noise_refused: share of trials with noise in which noise was put last; None where none was answered.
        repeats_agreed: share of pairs of clips in repeated comparisons that were ordered the same way; None where none was
            answered twice.
        median_seconds: of the answers that count.
        left: share of answers that put the clip at the left end first.
        broken: rules that the rater broke, in words; empty for one who is kept.
    """

    rater: int
    answered: float
    noise_refused: float | None
    repeats_agreed: float | None
    median_seconds: float
    left: float
    broken: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """What a set of raters said.

    Attributes:
        raters: how many.
        answers: how many count: comparisons, neither practice nor catch trials.
        rows: one per pair of systems.
        abilities: best first; None where they have no finite estimate.
        agreement: Krippendorff's alpha of which of two clips is better; None where no trial has two answers.
        agreed: share of pairs of answers to one trial that agree, over its pairs of clips; None as above.
        ranks: of a ranking; None for pairs.
        stills: system -> how often its frozen clips were preferred over its moving ones; only of systems that were asked about.
    """

    raters: int
    answers: int
    rows: tuple[Row, ...]
    abilities: tuple[Ability, ...] | None
    agreement: float | None
    agreed: float | None
    ranks: Ranks | None
    stills: Mapping[str, Preference]


def prefer(wins: int, total: int) -> Preference:
    """Return a preference with its Wilson interval at 95 % and exact test.

    References:
        Wilson, Probable inference, the law of succession, and statistical inference, 1927.
    """
    test = binomtest(wins, total, 0.5)
    interval = test.proportion_ci(0.95, method="wilson")
    return Preference(wins, total, float(interval.low), float(interval.high), float(test.pvalue))


def bradley_terry(wins: Float[np.ndarray, "N N"]) -> tuple[Float64[np.ndarray, "N"], Float64[np.ndarray, "N"]] | None:
    """Return abilities that sum to zero, and their standard errors; None where there is no finite maximum.

    Args:
        wins: entry (i, j) says how often i was preferred over j.

    There is a maximum if and only if the systems cannot be divided into two sets of which one never lost to the other (Ford
    1957): if the graph of wins is strongly connected. Errors are from the pseudo-inverse of the Fisher information, which is
    the inverse under the constraint.

    References:
        Bradley and Terry, Rank analysis of incomplete block designs, 1952.
    """
    if connected_components(wins > 0, directed=True, connection="strong")[0] > 1:
        return None
    wins = wins.astype(np.float64)
    games = wins + wins.T

    def cost(ability: np.ndarray) -> tuple[float, np.ndarray]:
        difference = ability[:, None] - ability[None, :]
        expected = games / (1 + np.exp(-difference))
        # The last term chooses among abilities that differ by a constant, which the likelihood cannot.
        value = (wins * np.logaddexp(0, -difference)).sum() + ability.sum() ** 2 / 2
        return float(value), (expected - wins).sum(axis=1) + ability.sum()

    ability = minimize(cost, np.zeros(len(wins)), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    ability -= ability.mean()
    probability = 1 / (1 + np.exp(ability[None, :] - ability[:, None]))
    weights = games * probability * (1 - probability)
    information = np.diag(weights.sum(axis=1)) - weights
    return ability, np.sqrt(np.diag(np.linalg.pinv(information, hermitian=True)))


def krippendorff_alpha(*groups: Sequence[Sequence[Hashable]]) -> float | None:
    """Return Krippendorff's alpha for nominal data: 1 is full agreement, 0 what chance gives.

    Args:
        groups: each the answers to every thing that was judged, in any number; those with fewer than two do not count. How
            often chance disagrees is found for each group by itself, so that answers of two groups need not mean the same.

    Returns:
        None where no unit has two answers; 1 where all answers are alike, for there is nothing to disagree about.

    References:
        Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section C.
    """
    counted = [counts for units in groups if (counts := [Counter(unit) for unit in units if len(unit) > 1])]
    if not counted:
        return None
    observed = expected = 0.0
    for counts in counted:
        total = sum(counts, Counter[Hashable]())
        observed += sum(_disagreeing(count) for count in counts)
        expected += _disagreeing(total)
    return 1.0 if expected == 0 else 1 - observed / expected


def _disagreeing(answers: Counter[Hashable]) -> float:
    """Return how many of some answers disagree with another one of them that is drawn at random, on average."""
    number = answers.total()
    return (number**2 - sum(times * times for times in answers.values())) / (number - 1)


def judge_raters(study: Study, votes: Sequence[Vote]) -> list[RaterReport]:
    """Hold every rater who answered against the exclusion rules of the study."""
    by_rater: dict[int, list[Vote]] = defaultdict(list)
    for vote in votes:
        by_rater[vote.rater].append(vote)
    return [_judge(study, rater, given) for rater, given in sorted(by_rater.items())]


def count(study: Study, votes: Sequence[Vote]) -> Results:
    """Count answers.

    Args:
        study: that they answer.
        votes: of the raters who count; practice and catch trials among them are left out.
    """
    clips = {clip.file: clip for clip in study.clips}
    counted = {trial.id for trial in study.of_kind("comparison")}
    answers = [vote for vote in votes if vote.trial in counted]
    wins: Counter[tuple[str, str, str]] = Counter()
    units: dict[frozenset[str], dict[tuple[str, frozenset[str]], list[str]]] = defaultdict(lambda: defaultdict(list))
    for vote in answers:
        for better, worse in itertools.combinations(vote.ranked, 2):
            winner, loser = clips[better], clips[worse]
            wins[winner.system, loser.system, winner.category] += 1
            units[frozenset((winner.system, loser.system))][vote.trial, frozenset((better, worse))].append(winner.system)
    groups = [list(given.values()) for given in units.values()]
    return Results(
        raters=len({vote.rater for vote in votes}),
        answers=len(answers),
        rows=tuple(_row(study, wins, *pair) for pair in study.pairs()),
        abilities=_abilities(study, wins),
        agreement=krippendorff_alpha(*groups),
        agreed=_agreed([unit for group in groups for unit in group]),
        ranks=rank_systems(study, answers) if study.kind == "ranking" and answers else None,
        stills=_stills(study, votes, clips),
    )


def with_and_without(study: Study, votes: Sequence[Vote]) -> tuple[Results, Results | None, list[RaterReport]]:
    """Return the results of everybody, those without excluded raters, and what is known about the raters.

    The second is None where everybody is excluded.

    Raises:
        EvaluationError: nobody has answered a trial that counts.
    """
    everybody = count(study, votes)
    if not everybody.answers:
        raise EvaluationError("nobody has answered a trial that counts yet")
    raters = judge_raters(study, votes)
    kept = {report.rater for report in raters if not report.broken}
    careful = count(study, [vote for vote in votes if vote.rater in kept])
    return everybody, careful if careful.answers else None, raters


def write_csv(path: Path, study: Study, votes: Sequence[Vote]) -> None:
    """Write a line per answer, practice and catch trials included; raters are numbers.

    Clips stand in the order in which they were shown, `shown_1` at the left; `rank_1` is the system of the best, `frozen` the
    places of clips that stood still, `excluded` the rules that the rater broke.

    Raises:
        MediaError: the file cannot be written.
    """
    from kinema.data.encode import beside

    most = range(max(len(trial.clips) for trial in study.trials))
    of_clips = [f"{name}_{number + 1}" for name in ("shown", "rank", "clip") for number in most]
    clips = {clip.file: clip for clip in study.clips}
    trials = {trial.id: trial for trial in study.trials}
    excluded = {report.rater: "; ".join(report.broken) for report in judge_raters(study, votes)}
    with beside(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        asked = ("rater", "position", "trial", "kind", "category")
        writer.writerow((*asked, *of_clips, "frozen", "milliseconds", "at", "excluded"))
        for vote in votes:
            trial = trials[vote.trial]
            blank = [""] * (len(most) - len(vote.clips))
            shown = [clips[name].system for name in vote.clips]
            ranked = [clips[name].system for name in vote.ranked]
            frozen = " ".join(str(place + 1) for place, name in enumerate(vote.clips) if clips[name].still)
            asked = (vote.rater, vote.position, vote.trial, trial.kind, study.category(trial))
            answer = (*shown, *blank, *ranked, *blank, *vote.clips, *blank, frozen)
            writer.writerow((*asked, *answer, vote.milliseconds, vote.at, excluded[vote.rater]))


def _row(study: Study, wins: Mapping[tuple[str, str, str], int], one: str, other: str) -> Row:
    def of(categories: Sequence[str]) -> Preference | None:
        won = sum(wins.get((one, other, category), 0) for category in categories)
        lost = sum(wins.get((other, one, category), 0) for category in categories)
        return prefer(won, won + lost) if won + lost else None

    return Row(one, other, {category: of([category]) for category in study.categories}, of(study.categories))


def _abilities(study: Study, wins: Mapping[tuple[str, str, str], int]) -> tuple[Ability, ...] | None:
    table = np.zeros((len(study.systems), len(study.systems)))
    for (one, other, _), number in wins.items():
        table[study.systems.index(one), study.systems.index(other)] += number
    found = bradley_terry(table)
    if found is None:
        return None
    abilities = [Ability(name, float(v), float(e)) for name, v, e in zip(study.systems, *found, strict=True)]
    return tuple(sorted(abilities, key=lambda ability: -ability.value))


def _stills(study: Study, votes: Sequence[Vote], clips: Mapping[str, StudyClip]) -> dict[str, Preference]:
    asked = {trial.id for trial in study.of_kind("still")}
    preferred = [clips[vote.ranked[0]] for vote in votes if vote.trial in asked]
    totals = Counter(clip.system for clip in preferred)
    frozen = Counter(clip.system for clip in preferred if clip.still)
    return {system: prefer(frozen[system], totals[system]) for system in study.systems if totals[system]}


def _agreed(units: Sequence[Sequence[str]]) -> float | None:
    pairs = [one == other for unit in units for one, other in itertools.combinations(unit, 2)]
    return fmean(pairs) if pairs else None


def _judge(study: Study, rater: int, given: Sequence[Vote]) -> RaterReport:
    votes = {vote.trial: vote for vote in given}
    asked = [trial for trial, _ in order_for(study, rater) if trial.kind != "practice"]
    counting = [votes[trial.id] for trial in asked if trial.id in votes]
    noise = {clip.file for clip in study.clips if clip.system == NOISE}
    refused = [votes[t.id].ranked[-1] in noise for t in asked if t.kind == "noise" and t.id in votes]
    agreed = [
        alike
        for trial in asked
        if trial.id in votes and trial.repeats in votes
        for alike in _ordered_alike(votes[trial.id].ranked, votes[trial.repeats].ranked)
    ]
    measured = {
        "answered": len(counting) / len(asked),
        "noise_refused": fmean(refused) if refused else None,
        "repeats_agreed": fmean(agreed) if agreed else None,
        "median_seconds": median(vote.milliseconds for vote in counting) / 1000 if counting else 0.0,
    }
    left = fmean(vote.ranking[0] == 0 for vote in counting) if counting else 0.0
    return RaterReport(rater, left=left, broken=_broken(study.exclusion, measured), **measured)


def _ordered_alike(ranked: Sequence[str], again: Sequence[str]) -> list[bool]:
    """Tell for every pair of clips in one ranking whether the other orders it the same way."""
    return [again.index(better) < again.index(worse) for better, worse in itertools.combinations(ranked, 2)]


def _broken(rules: ExclusionRules, measured: Mapping[str, float | None]) -> tuple[str, ...]:
    said = {
        "answered": "answered {:.0%} of the trials, rule: {:.0%}",
        "noise_refused": "put noise last in {:.0%} of the trials with noise, rule: {:.0%}",
        "repeats_agreed": "ordered {:.0%} of the repeated pairs of clips the same way, rule: {:.0%}",
        "median_seconds": "took {:.2f} s for half of the answers, rule: {:.2f} s",
    }
    return tuple(
        words.format(value, getattr(rules, name))
        for name, words in said.items()
        if (value := measured[name]) is not None and value < getattr(rules, name)
    )
