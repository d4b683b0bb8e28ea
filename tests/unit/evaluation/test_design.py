"""Which clips meet: balance over trials and over raters, names that tell nothing, order; and what makes no study."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import REPEAT_GAP, Material, Plan, design, order_for
from kinema.evaluation.study.folder import NOISE, Study
from unit.evaluation.small_study import materials, small_study

BARE = Plan(noise=0, repeats=0, practice=0)
FOUR = ("one", "two", "three", "real")


def systems_of(study: Study, clips: Iterable[int]) -> tuple[str, ...]:
    return tuple(study.clips[index].system for index in clips)


def test_pairs_and_sides_are_balanced() -> None:
    study = small_study(replace(BARE, trials=24))
    sides = Counter(systems_of(study, trial.clips) for trial in study.trials)
    assert set(sides.values()) == {4}  # 24 trials, 3 pairs of systems, 2 sides
    assert len(sides) == 6


def test_an_uneven_number_is_spread_as_evenly_as_it_can_be() -> None:
    study = small_study(replace(BARE, trials=25))
    pairs = Counter(frozenset(systems_of(study, trial.clips)) for trial in study.trials)
    assert sorted(pairs.values()) == [8, 8, 9]


@pytest.mark.parametrize("kind", ["pair", "ranking"])
def test_clips_meet_only_their_category_and_are_used_evenly(kind: str) -> None:
    plan = replace(BARE, kind=kind, trials=30 if kind == "pair" else 10)
    study = small_study(plan, categories=("golf", "beach"))
    for trial in study.trials:
        assert len({study.clips[index].category for index in trial.clips}) == 1
    used = Counter(index for trial in study.trials for index in trial.clips)
    assert set(used.values()) == {2 if kind == "pair" else 1}  # 60 or 30 places, 30 clips


def test_a_ranking_shows_every_system_once_and_at_every_place_equally_often() -> None:
    study = small_study(replace(BARE, kind="ranking", trials=16), systems=FOUR)
    places = Counter(place for trial in study.trials for place in enumerate(systems_of(study, trial.clips)))
    assert len(places) == 4 * 4
    assert set(places.values()) == {4}  # 16 trials, 4 places
    neighbours = {pair for trial in study.trials for pair in pairwise(systems_of(study, trial.clips))}
    assert len(neighbours) > 8  # turning one order alone would give 4


def test_matched_clips_are_of_one_item() -> None:
    plan = Plan(kind="ranking", trials=10, noise=3, repeats=2, matched=True)
    study = small_study(plan, systems=FOUR)
    for trial in study.trials:
        assert len({study.clips[index].number for index in trial.clips if study.clips[index].system != NOISE}) == 1
    used = Counter(study.clips[trial.clips[0]].number for trial in study.of_kind("comparison"))
    assert set(used.values()) == {2}  # 10 trials, 5 items
    free = small_study(replace(plan, matched=False), systems=FOUR)
    assert any(len({study.clips[index].number for index in trial.clips}) > 1 for trial in free.of_kind("comparison"))


@pytest.mark.parametrize("kind", ["pair", "ranking"])
def test_catch_trials(kind: str) -> None:
    study = small_study(Plan(kind=kind, trials=12, noise=4, repeats=4, practice=2), systems=FOUR)
    size = 2 if kind == "pair" else 4
    noise = study.of_kind("noise")
    assert [systems_of(study, trial.clips).index(NOISE) for trial in noise] == [number % size for number in range(4)]
    assert {len(set(systems_of(study, trial.clips))) for trial in noise} == {size}
    assert (
        len({frozenset(systems_of(study, trial.clips)) for trial in noise}) == 4
    )  # every system meets it, or makes room for it
    for repeat in study.of_kind("repeat"):
        original = study.trial(repeat.repeats or "")
        assert original is not None
        assert original.clips == repeat.clips[::-1]
    assert NOISE in systems_of(study, study.trials[0].clips)


def test_a_still_clip_is_the_first_frame_of_the_clip_beside_it() -> None:
    rng = np.random.default_rng(0)
    moving = [
        Material(name, "", "made", [rng.integers(0, 256, (4, 16, 16, 3), np.uint8) for _ in range(3)], 8.0) for name in FOUR
    ]
    study, pixels = design(moving, replace(BARE, trials=6, still=4))
    assert {study.clips[trial.clips[0]].system for trial in study.of_kind("still")} == set(FOUR)
    for trial in study.of_kind("still"):
        one, other = trial.clips if study.clips[trial.clips[1]].still else trial.clips[::-1]
        assert study.clips[one] == replace(study.clips[other], file=study.clips[one].file, still=False)
        assert (pixels[other] == pixels[one][0]).all()
        assert pixels[other].shape == pixels[one].shape
        assert not (pixels[one] == pixels[one][0]).all()


def test_the_seed_decides_everything() -> None:
    assert small_study() == small_study()
    assert small_study() != small_study(Plan(trials=12, seed=1))


def test_names_cannot_be_computed_from_the_seed_alone() -> None:
    """A rater who has kinema and guesses the seed must not be able to list whose clip is whose."""
    other = materials()
    other[0] = replace(other[0], clips=[clip + 1 for clip in other[0].clips])
    plan = Plan(trials=12)
    one, two = design(materials(), plan)[0], design(other, plan)[0]
    assert not {clip.file for clip in one.clips} & {clip.file for clip in two.clips}
    assert not {trial.id for trial in one.trials} & {trial.id for trial in two.trials}


@pytest.mark.parametrize("rater", range(1, 9))
@pytest.mark.parametrize("pool", [None, 30])
def test_a_repetition_comes_after_its_comparison_and_practice_first(rater: int, pool: int | None) -> None:
    study = small_study(Plan(trials=12, pool=pool, noise=4, repeats=4, practice=2))
    order = [trial for trial, _ in order_for(study, rater)]
    assert Counter(trial.kind for trial in order) == {"practice": 2, "comparison": 12, "noise": 4, "repeat": 4}
    assert [trial.kind for trial in order[:2]] == ["practice", "practice"]
    place = {trial.id: number for number, trial in enumerate(order)}
    assert len(place) == len(order)
    for trial in order:
        if trial.kind == "repeat":
            assert place[trial.id] > place[trial.repeats or ""] + REPEAT_GAP


def test_raters_have_orders_of_their_own_and_opposite_sides() -> None:
    study = small_study()
    one, two, three = (order_for(study, rater) for rater in (1, 2, 3))
    assert [trial.id for trial, _ in one] != [trial.id for trial, _ in two]
    first, second, third = ({trial.id: clips for trial, clips in order} for order in (one, two, three))
    both = first.keys() & second.keys()
    assert len(both) > 12
    assert all(first[name] == second[name][::-1] for name in both)
    assert all(first[name] == third[name] for name in first.keys() & third.keys())
    assert order_for(study, 1) == one


@pytest.mark.parametrize("kind", ["pair", "ranking"])
def test_a_repetition_reverses_the_places_that_the_rater_saw(kind: str) -> None:
    """Else who always answers by place would agree with themselves."""
    study = small_study(Plan(kind=kind, trials=6, pool=9, repeats=6), systems=FOUR[1:])
    for rater in range(1, 6):
        shown = {trial.id: clips for trial, clips in order_for(study, rater)}
        repeats = [trial for trial in study.of_kind("repeat") if trial.id in shown]
        assert len(repeats) == 6
        assert all(shown[trial.id] == shown[trial.repeats or ""][::-1] for trial in repeats)


@pytest.mark.parametrize(("kind", "trials", "pool"), [("pair", 10, 24), ("pair", 4, 12), ("pair", 12, 12), ("ranking", 5, 16)])
def test_subsets_are_balanced_over_raters(kind: str, trials: int, pool: int) -> None:
    """After any number of raters comparisons, and their places, have been shown equally often, up to one."""
    study = small_study(replace(BARE, kind=kind, trials=trials, pool=pool), systems=FOUR)
    shown: Counter[str] = Counter()
    placed: dict[int, Counter[str]] = {place: Counter() for place in range(4 if kind == "ranking" else 2)}
    for rater in range(1, 40):
        order = order_for(study, rater)
        assert len({trial.id for trial, _ in order}) == trials
        for trial, clips in order:
            shown[trial.id] += 1
            for place, index in enumerate(clips):
                placed[place][f"{trial.id} {index}"] += 1
        counts = [shown[trial.id] for trial in study.trials]
        assert max(counts) - min(counts) <= 1
    for trial in study.trials:
        for index in trial.clips:
            counts = [placed[place][f"{trial.id} {index}"] for place in placed]
            assert max(counts) - min(counts) <= 1
    per_rater = Counter(frozenset(systems_of(study, clips)) for _, clips in order_for(study, 7))
    assert kind == "ranking" or max(per_rater.values()) - min(per_rater.values()) <= 1


def test_raters_of_a_subset_see_other_subsets() -> None:
    study = small_study(replace(BARE, trials=8, pool=24))
    one, two, four = ({trial.id for trial, _ in order_for(study, rater)} for rater in (1, 2, 4))
    assert not one & two
    assert one == four


def clip(frames: int = 4, size: int = 16) -> np.ndarray:
    return np.zeros((frames, size, size, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "plan", "said"),
    [
        ([Material("one", "", "x", [clip()], 8.0)], Plan(), "at least two systems"),
        ([Material("one", "", "x", [clip()], 8.0), Material("two", "", "x", [clip(5)], 8.0)], Plan(), "--frames"),
        ([Material("one", "", "x", [clip()], 8.0), Material("two", "", "x", [clip(4, 18)], 8.0)], Plan(), "18x18"),
        ([Material("one", "", "x", [clip()], 8.0), Material("two", "", "x", [clip()], 25.0)], Plan(), "frames per second"),
        ([Material("one", "", "x", [clip()], 8.0), Material("two", "", "x", [], 8.0)], Plan(), "has no clips"),
        ([Material("one", "", "x", [clip()], 8.0)] * 2, Plan(), "given twice"),
        ([Material("one", "", "x", [clip()], 8.0), Material(NOISE, "", "x", [clip()], 8.0)], Plan(), "'noise'"),
        (
            [Material(name, "a", "x", [clip(), clip() + level], 8.0) for name, level in (("one", 1), ("two", 2), ("three", 1))],
            Plan(),
            "'one/a' and 'three/a' have the very same clips, so that nobody can prefer either",
        ),
        (materials(categories=("a", "b"))[:-1], Plan(), "the same categories"),
        (materials(), Plan(trials=2, repeats=0), "2 trials are too few for 3 pairs of systems and categories; raise --trials"),
        (materials(), Plan(trials=2, pool=2, repeats=0), "share more with --pool"),
        (materials(), Plan(trials=9, pool=6), "a pool of 6 trials is too small for 9 per rater"),
        (materials(), Plan(trials=3, repeats=4), "3 comparisons cannot give 4 repetitions"),
        (materials(("one", "two")), Plan(kind="ranking"), "a ranking is of 3 to 8 systems, not 2; --kind pair"),
        (materials(tuple("abcdefghi")), Plan(kind="ranking"), "a ranking is of 3 to 8 systems, not 9"),
        (materials()[:2] + materials(clips=4)[2:], Plan(matched=True), "one 5, two 5, real 4"),
    ],
)
def test_what_makes_no_study_is_refused(given: list[Material], plan: Plan, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        design(given, plan)
