"""Probabilities out of scores; values by hand, by scikit-learn, or published ones."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from kinema.evaluation.calibration import (
    area_interval,
    area_under_roc,
    as_extreme,
    calibration_error,
    platt,
    reliability,
    wilson,
)


def test_wilson_s_interval():
    rate = wilson(0, 72)
    assert (rate.share, rate.low) == (0, 0)
    assert rate.high == pytest.approx(3.8415 / (72 + 3.8415), abs=1e-4)  # z^2 / (n + z^2) where nothing happened
    half = wilson(5, 10)
    assert (half.low + half.high) / 2 == pytest.approx(0.5)
    assert half.low == pytest.approx(0.2366, abs=1e-4)
    assert half.as_json()["share"] == 0.5


def test_platt_s_line_is_exact_where_scores_have_two_values():
    """True cases aim at 5/6, untrue ones at 1/6; where the score is 1, three meet one: (3 * 5/6 + 1/6) / 4 = 2/3 are true."""
    scores = np.array([1.0, 1, 1, 0, 1, 0, 0, 0])
    truth = np.array([True] * 4 + [False] * 4)
    slope, intercept = platt(scores, truth)
    assert slope == pytest.approx(2 * np.log(2), rel=1e-4)
    assert intercept == pytest.approx(-np.log(2), rel=1e-4)


def test_how_often_an_untrue_case_is_as_extreme():
    untrue = np.array([1.0, 2, 3, 4])
    assert [as_extreme(score, untrue) for score in (5.0, 4.0, 2.5, 0.0)] == [0.2, 0.4, 0.6, 1.0]  # ties speak against it
    generator, limit = np.random.default_rng(0), 0.05
    cases = generator.exponential(size=(4000, 20))  # any distribution, the last of each row being asked about
    alarms = np.mean([as_extreme(float(row[-1]), row[:-1]) <= limit for row in cases])
    assert alarms == pytest.approx(limit, abs=0.012)


def test_both_classes_count_alike():
    """A hundred more real cases alike do not make everything more likely to be real."""
    generator = np.random.default_rng(0)
    fake, real = generator.normal(1, 1, 400), generator.normal(-1, 1, 400)
    even = platt(np.r_[fake, real], np.r_[np.ones(400, bool), np.zeros(400, bool)])
    many = platt(np.r_[fake, np.tile(real, 5)], np.r_[np.ones(400, bool), np.zeros(2000, bool)])
    assert even == pytest.approx(many, abs=0.05)
    assert even[0] == pytest.approx(2, abs=0.3)  # log-odds of two normal densities one apart from zero: 2x
    assert even[1] == pytest.approx(0, abs=0.2)


def test_cases_that_are_told_apart_without_fault_make_no_infinite_slope():
    slope, intercept = platt(np.array([-2.0, -1, 1, 2]), np.array([False, False, True, True]))
    assert 0 < slope < 10
    assert expit(slope * 2 + intercept) < 0.95


def test_a_score_never_speaks_against_what_it_stands_for():
    slope, intercept = platt(np.array([-2.0, -1, 1, 2]), np.array([True, True, False, False]))
    assert slope == 0
    assert expit(intercept) == pytest.approx(0.5)


def test_reliability_and_its_error():
    probabilities = np.array([0.05, 0.05, 0.62, 0.68, 1.0])
    truth = np.array([False, True, True, False, True])
    bins = reliability(np.append(probabilities, 1.0), np.append(truth, False))
    found = [(round(part.mean, 2), part.share, part.count) for part in bins]
    assert found == [(0.05, 0.5, 2), (0.65, 0.5, 2), (1.0, 0.5, 2)]
    assert calibration_error(bins) == pytest.approx((0.45 + 0.15 + 0.5) / 3)


def test_reliability_is_that_of_even_odds_like_the_probabilities():
    """Eleven of twelve cases are true; the probabilities are right at even odds, and of raw shares they would be off by 0.3."""
    generator = np.random.default_rng(0)
    truth = np.arange(12_000) % 12 > 0
    scores = generator.normal(np.where(truth, 0.5, -0.5), 1.0)  # the log-odds at even odds are the score itself
    bins = reliability(expit(scores), truth)
    assert calibration_error(bins) < 0.03
    assert sum(part.weight for part in bins) == pytest.approx(1)
    assert all(part.low <= part.share <= part.high for part in bins)


def test_the_area_is_scikit_learn_s():
    generator = np.random.default_rng(1)
    truth = generator.random(200) < 0.3
    scores = np.round(generator.normal(truth, 1), 1)  # with ties
    assert area_under_roc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
    groups = [f"g{number % 10}" for number in range(200)]
    interval = area_interval(scores, truth, groups)
    assert interval is not None
    assert interval[0] < area_under_roc(scores, truth) < interval[1]
    assert area_interval(scores, truth, ["one", "two"] * 100) is None
    assert area_interval(truth.astype(float), truth, groups) is None  # resampling no errors finds none
