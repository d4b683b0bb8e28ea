"""Statistics against published worked values; exclusion; the table."""

import csv
import itertools
from collections import Counter
from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import Plan, order_for
from kinema.evaluation.study.folder import Study
from kinema.evaluation.study.results import (
    bradley_terry,
    count,
    judge_raters,
    krippendorff_alpha,
    prefer,
    with_and_without,
    write_csv,
)
from kinema.evaluation.study.store import Vote
from unit.evaluation.small_study import by_favourites, ranked, side_of, small_study, vote


@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_s_interval_is_newcombe_s(wins: int, total: int, low: float, high: float) -> None:
    """Newcombe, Two-sided confidence intervals for the single proportion, 1998, Table I, method 3."""
    found = prefer(wins, total)
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)


def test_the_binomial_test_is_exact() -> None:
    assert prefer(9, 10).p_value == pytest.approx(2 * (comb(10, 9) + comb(10, 10)) / 2**10)
    assert prefer(5, 10).p_value == pytest.approx(1)
    assert prefer(9, 10).percent == 90


BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ],
    np.float64,
)
"""Milwaukee, Detroit, Toronto, New York, Boston, Cleveland, Baltimore; Agresti, Categorical Data Analysis, section 10.6."""


def test_bradley_and_terry_s_abilities_are_agresti_s() -> None:
    """Published relative to Baltimore."""
    found = bradley_terry(BASEBALL)
    assert found is not None
    ability, error = found
    assert ability - ability[-1] == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0], abs=0.006)
    assert ability.sum() == pytest.approx(0, abs=1e-9)
    assert (error > 0).all()


def test_errors_of_abilities_are_those_of_an_independent_computation() -> None:
    """Two systems: the difference is the log-odds, with variance 1/w + 1/l; each ability is half of it, up to the sign."""
    found = bradley_terry(np.array([[0, 30], [10, 0]], np.float64))
    assert found is not None
    assert found[0] == pytest.approx(np.array([0.5, -0.5]) * np.log(3), abs=1e-6)
    assert found[1] == pytest.approx(0.5 * np.sqrt(1 / 30 + 1 / 10), rel=1e-5)


def test_abilities_need_that_everybody_lost_once() -> None:
    assert bradley_terry(np.array([[0, 5], [0, 0]], np.float64)) is None
    assert bradley_terry(np.zeros((2, 2))) is None


def test_krippendorff_s_alpha_is_the_published_one() -> None:
    """Krippendorff, Computing Krippendorff's alpha-reliability, 2011, section C: four observers, twelve units, 0.743."""
    observers = ["1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."]
    units = [[value for value in unit if value != "."] for unit in zip(*(line.split() for line in observers), strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_where_there_is_nothing_to_compare() -> None:
    assert krippendorff_alpha([[1], [0]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) == 1


@pytest.mark.parametrize("systems", [("a", "b", "c"), ("c", "a", "b")])
def test_agreement_does_not_depend_on_the_order_of_names(systems: tuple[str, ...]) -> None:
    """a over b over c in eight of nine answers, by chance: no agreement. Of all pairs at once it was -0.11 and 0.57."""
    study = small_study(Plan(trials=30, noise=0, repeats=0, practice=0), systems=systems)
    seen, votes = Counter[frozenset[str]](), list[Vote]()
    for rater, trial in itertools.product(range(8), study.trials):
        names = [study.clips[index].system for index in trial.clips]
        seen[frozenset(names)] += 1
        better = max(names) if seen[frozenset(names)] % 9 == 0 else min(names)
        votes.append(vote(study, rater, trial.id, "left" if names[0] == better else "right"))
    assert count(study, votes).agreement == pytest.approx(0, abs=0.1)


def careful(study: Study, rater: int, favourite: str) -> list[Vote]:
    """A rater who refuses noise, agrees with themselves and prefers one system, else the first."""
    asked = {trial.id for trial, _ in order_for(study, rater)}
    others = [system for system in study.systems if system != favourite]
    return [given for given in by_favourites(study, rater, [favourite, *others, "noise"]) if given.trial in asked]


def test_answers_are_counted() -> None:
    study = small_study()
    found = count(study, careful(study, 1, "real") + careful(study, 2, "real"))
    assert (found.raters, found.answers) == (2, 24)
    rows = {(row.system, row.other): row.pooled for row in found.rows}
    assert list(rows) == [("one", "two"), ("one", "real"), ("two", "real")]
    preference = rows["one", "real"]
    assert preference is not None
    assert (preference.wins, preference.total) == (0, 8)
    assert (found.agreement, found.agreed) == (1, 1)
    assert found.abilities is None  # real never lost


def test_the_mean_is_over_categories_unweighted() -> None:
    study = small_study(Plan(trials=4, noise=0, repeats=0, practice=0), systems=("a", "b"), categories=("golf", "beach"))
    golf = [trial for trial in study.trials if study.category(trial) == "golf"]
    beach = [trial for trial in study.trials if study.category(trial) == "beach"]
    votes = [vote(study, rater, golf[0].id, side_of(study, golf[0].id, "a")) for rater in (1, 2, 3)]
    votes.append(vote(study, 1, beach[0].id, side_of(study, beach[0].id, "b")))
    row = count(study, votes).rows[0]
    assert row.mean == 50
    assert row.pooled is not None
    assert row.pooled.percent == 75
    assert count(study, votes[:3]).rows[0].mean is None


def test_careless_raters_are_excluded_and_the_reason_is_said() -> None:
    study = small_study()
    one_key = [vote(study, 2, trial.id, "left") for trial in study.trials]
    quick = [replace(given, milliseconds=90) for given in careful(study, 3, "real")]
    early = careful(study, 4, "real")[:6]
    everybody, kept, raters = with_and_without(study, [*careful(study, 1, "real"), *one_key, *quick, *early])
    assert [bool(report.broken) for report in raters] == [False, True, True, True]
    assert raters[1].repeats_agreed == 0
    assert raters[1].noise_refused == 0.5
    assert raters[1].left == 1
    assert "0.09 s" in raters[2].broken[0]
    assert "of the trials, rule: 50%" in raters[3].broken[0]
    assert everybody.raters == 4
    assert kept is not None
    assert kept.raters == 1


def test_nobody_left_and_nobody_there() -> None:
    study = small_study()
    assert with_and_without(study, [vote(study, 1, trial.id, "left") for trial in study.trials])[1] is None
    with pytest.raises(EvaluationError, match="nobody has answered"):
        with_and_without(study, [])
    with pytest.raises(EvaluationError, match="nobody has answered"):
        with_and_without(study, careful(study, 1, "real")[:2])  # practice


def test_a_rule_without_trials_does_not_apply() -> None:
    study = small_study(Plan(trials=6, noise=0, repeats=0, practice=0))
    assert judge_raters(study, careful(study, 1, "real"))[0].broken == ()


def test_chance_gives_no_agreement() -> None:
    study = small_study(Plan(trials=300, noise=0, repeats=0, practice=0))
    sides = np.random.default_rng(0).integers(0, 2, (4, 300))
    votes = [
        vote(study, rater + 1, trial.id, "left" if sides[rater, number] else "right")
        for (number, trial), rater in itertools.product(enumerate(study.trials), range(4))
    ]
    found = count(study, votes)
    assert found.agreement == pytest.approx(0, abs=0.06)
    assert found.agreed == pytest.approx(0.5, abs=0.03)


def test_the_table_holds_every_answer(tmp_path: Path) -> None:
    study = small_study()
    votes = careful(study, 1, "real")
    write_csv(tmp_path / "answers.csv", study, votes)
    with (tmp_path / "answers.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(votes)
    assert {line["kind"] for line in lines} == {"practice", "comparison", "noise", "repeat"}
    assert all({line["shown_1"], line["shown_2"]} == {line["rank_1"], line["rank_2"]} for line in lines)
    assert all(line["rank_2"] == "noise" for line in lines if line["kind"] == "noise")


def test_the_table_of_a_ranking_tells_noise_and_still_clips(tmp_path: Path) -> None:
    study = small_study(Plan(kind="ranking", trials=3, noise=1, repeats=1, practice=0, still=1))
    votes = by_favourites(study, 1, ["real", "two", "one", "noise"])
    write_csv(tmp_path / "answers.csv", study, [given for given in votes if len(given.ranking) > 1])
    with (tmp_path / "answers.csv").open() as file:
        lines = list(csv.DictReader(file))
    by_kind = {line["kind"]: line for line in lines}
    assert [by_kind["comparison"][f"rank_{rank}"] for rank in (1, 2, 3)] == ["real", "two", "one"]
    assert by_kind["noise"]["rank_3"] == "noise"
    assert {len([cell for name, cell in line.items() if name.startswith("clip_") and cell]) for line in lines} == {3}


def test_a_first_frame_preferred_over_its_clip_is_counted(tmp_path: Path) -> None:
    study = small_study(Plan(trials=3, noise=0, repeats=0, practice=0, still=6))
    stills = study.of_kind("still")
    moving = [next(place for place, index in enumerate(t.clips) if not study.clips[index].still) for t in stills]
    first = study.clips[stills[0].clips[0]].system
    votes = [
        ranked(study, rater, trial.id, (1 - place, place) if rater == 1 else (place, 1 - place))
        for trial, place in zip(stills, moving, strict=True)
        for rater in (1, 2, 3)
    ]
    found = count(study, [*votes, *careful_pairs(study)]).stills
    assert {system: (said.wins, said.total) for system, said in found.items()} == dict.fromkeys(study.systems, (2, 6))
    assert found[first].low == pytest.approx(prefer(2, 6).low)
    write_csv(tmp_path / "answers.csv", study, votes)
    with (tmp_path / "answers.csv").open() as file:
        assert {(line["kind"], line["frozen"]) for line in csv.DictReader(file)} == {("still", "1"), ("still", "2")}


def careful_pairs(study: Study) -> list[Vote]:
    """Answers to the comparisons alone."""
    return [vote(study, 1, trial.id, "left") for trial in study.of_kind("comparison")]


def test_a_ranking_is_an_answer_about_each_of_its_pairs() -> None:
    study = small_study(Plan(kind="ranking", trials=3, noise=3, repeats=1, practice=0))
    votes = careful(study, 1, "two") + careful(study, 2, "real")
    found = count(study, votes)
    assert (found.raters, found.answers) == (2, 6)
    rows = {(row.system, row.other): row.pooled for row in found.rows}
    assert {pair: (p.wins, p.total) for pair, p in rows.items() if p} == {
        ("one", "two"): (3, 6),  # two, one, real of the first rater; real, one, two of the second
        ("one", "real"): (3, 6),
        ("two", "real"): (3, 6),
    }
    assert found.agreed == 0
    assert found.ranks is not None
    assert {row.system: row.mean for row in found.ranks.systems} == {"one": 2, "two": 2, "real": 2}
    assert count(small_study(), careful(small_study(), 1, "real")).ranks is None


def test_careless_rankers_are_excluded() -> None:
    study = small_study(Plan(kind="ranking", trials=6, noise=3, repeats=3, practice=1))
    assert study.exclusion.median_seconds == 0.8  # two choices
    by_place = [
        replace(ranked(study, 2, trial.id, (0, 1, 2)), clips=tuple(study.clips[index].file for index in clips))
        for trial, clips in order_for(study, 2)
    ]
    half = careful(study, 3, "real")
    half = [given if number % 2 else replace(given, milliseconds=700) for number, given in enumerate(half)]
    quick = [replace(given, milliseconds=700) for given in careful(study, 4, "real")]
    raters = with_and_without(study, [*careful(study, 1, "real"), *by_place, *half, *quick])[2]
    assert [bool(report.broken) for report in raters] == [False, True, False, True]
    assert (raters[0].noise_refused, raters[0].repeats_agreed, raters[0].answered) == (1, 1, 1)
    assert (raters[1].repeats_agreed, raters[1].left) == (0, 1)
    assert raters[1].noise_refused == pytest.approx(1 / 3)
    assert "0.70 s for half of the answers, rule: 0.80 s" in raters[3].broken[0]


def test_a_share_of_a_pool_is_answered_in_full() -> None:
    study = small_study(Plan(trials=4, pool=24, noise=1, repeats=1, practice=1))
    votes = careful(study, 2, "real")
    assert len(votes) == 7
    assert judge_raters(study, votes)[0].answered == 1
    assert judge_raters(study, votes)[0].repeats_agreed == 1
