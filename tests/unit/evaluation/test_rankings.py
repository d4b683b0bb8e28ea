"""Average ranks by hand; concordance and Friedman's test against published worked values and scipy."""

import numpy as np
import pytest
from scipy.stats import friedmanchisquare, spearmanr

from kinema.evaluation.study.design import Plan
from kinema.evaluation.study.folder import Study
from kinema.evaluation.study.rankings import friedman, kendall_w, rank_systems
from kinema.evaluation.study.store import Vote
from unit.evaluation.small_study import by_favourites, ranked, small_study

PROJECTS = ["1 3 4 5 2 8 6 7 10 9", "2 1 4 5 6 3 8 7 10 9", "3 2 1 5 7 4 6 8 9 10", "4 2 3 1 6 7 5 9 8 10"]
"""Ten projects ranked by four judges: a textbook's worked example, S = 1048."""


def table(lines: list[str]) -> np.ndarray:
    return np.array([line.split() for line in lines], np.float64)


def test_kendall_s_w_is_the_published_one() -> None:
    """ProofWiki, Kendall's Coefficient of Concordance, Arbitrary Example 1: four judges, three competitors, 1/16."""
    assert kendall_w(table(["1 3 2", "1 2 3", "2 3 1", "3 1 2"])) == pytest.approx(1 / 16)
    assert kendall_w(table(PROJECTS)) == pytest.approx(12 * 1048 / (4**2 * (10**3 - 10)))


def test_kendall_s_w_is_the_mean_rank_correlation_rescaled() -> None:
    """Kendall, Rank correlation methods, 1948: the mean Spearman correlation is (m W - 1) / (m - 1)."""
    rng = np.random.default_rng(0)
    ranks = np.array([rng.permutation(6) + 1.0 for _ in range(5)])
    correlations = spearmanr(ranks, axis=1).statistic[np.triu_indices(5, 1)]
    assert (5 * kendall_w(ranks) - 1) / 4 == pytest.approx(correlations.mean())


def test_concordance_is_one_for_one_order_and_zero_for_equal_sums() -> None:
    assert kendall_w(table(["1 2 3"] * 4)) == pytest.approx(1)
    assert kendall_w(table(["1 2 3", "2 3 1", "3 1 2"])) == pytest.approx(0)


def test_friedman_s_test_is_scipy_s() -> None:
    found = friedman(table(PROJECTS))
    independent = friedmanchisquare(*table(PROJECTS).T)
    assert found is not None
    assert (found.statistic, found.p_value) == pytest.approx((independent.statistic, independent.pvalue))
    assert found.statistic == pytest.approx(4 * 9 * kendall_w(table(PROJECTS)))
    assert found.raters == 4


def test_friedman_s_test_needs_two_raters_who_tell_systems_apart() -> None:
    assert friedman(table(["1 2 3"])) is None
    assert friedman(table(["2 2 2", "2 2 2"])) is None


def comparisons(study: Study, rater: int, favourites: list[str]) -> list[Vote]:
    counted = {trial.id for trial in study.of_kind("comparison")}
    return [vote for vote in by_favourites(study, rater, favourites) if vote.trial in counted]


def test_average_ranks_by_hand() -> None:
    study = small_study(Plan(kind="ranking", trials=1, noise=0, repeats=0, practice=0), systems=("a", "b", "c"))
    orders = [["a", "b", "c"], ["a", "c", "b"], ["b", "a", "c"]]
    found = rank_systems(study, [vote for rater, order in enumerate(orders, 1) for vote in comparisons(study, rater, order)])
    assert [row.system for row in found.systems] == ["a", "b", "c"]
    assert [row.mean for row in found.systems] == pytest.approx([4 / 3, 2, 8 / 3])
    assert [row.deviation for row in found.systems] == pytest.approx([3**-0.5, 1, 3**-0.5])
    assert found.concordance is not None
    assert found.concordance.value == pytest.approx(12 * (4 + 0 + 4) / (9 * 24))
    assert (found.concordance.chance, found.concordance.trials) == (pytest.approx(1 / 3), 1)
    assert found.friedman is not None
    assert found.friedman.raters == 3


def test_ranks_per_category_and_of_one_rater() -> None:
    study = small_study(Plan(kind="ranking", trials=4, noise=0, repeats=0, practice=0), categories=("golf", "beach", "baby"))
    golf = {trial.id for trial in study.of_kind("comparison") if study.category(trial) == "golf"}
    beach = {trial.id for trial in study.of_kind("comparison") if study.category(trial) == "beach"}
    votes = [vote for vote in comparisons(study, 1, ["one", "two", "real"]) if vote.trial in golf]
    votes += [vote for vote in comparisons(study, 1, ["real", "two", "one"]) if vote.trial in beach]
    found = rank_systems(study, votes)
    one = next(row for row in found.systems if row.system == "one")
    assert one.categories == {"golf": 1, "beach": 3, "baby": None}
    assert found.concordance is None
    assert found.friedman is None


def test_who_guesses_agrees_as_much_as_chance_and_finds_no_difference() -> None:
    study = small_study(Plan(kind="ranking", trials=100, noise=0, repeats=0, practice=0))
    rng = np.random.default_rng(1)
    votes = [ranked(study, rater, trial.id, rng.permutation(3).tolist()) for rater in range(1, 6) for trial in study.trials]
    found = rank_systems(study, votes)
    assert found.concordance is not None
    assert found.concordance.chance == pytest.approx(0.2)
    assert found.concordance.value == pytest.approx(0.2, abs=0.05)
    assert found.friedman is not None
    assert found.friedman.p_value > 0.05
