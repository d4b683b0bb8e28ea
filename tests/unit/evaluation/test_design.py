"""Which clips meet: balance, names that tell nothing, order; and bad studies."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.data.media import probe, read_video
from kinema.evaluation.study.design import NOISE, Material, Plan, Study, design, order_for, read_study, write_study
from unit.evaluation.small_study import materials, small_study, written


def systems_of(study: Study, trial_index: int) -> tuple[str, str]:
    trial = study.trials[trial_index]
    return study.clips[trial.left].system, study.clips[trial.right].system


def test_pairs_and_sides_are_balanced() -> None:
    study = small_study(Plan(pairs=24, noise=0, repeats=0, practice=0))
    sides = Counter(systems_of(study, index) for index in range(len(study.trials)))
    assert set(sides.values()) == {4}  # 24 trials, 3 pairs of systems, 2 sides
    assert len(sides) == 6


def test_an_uneven_number_is_spread_as_evenly_as_it_can_be() -> None:
    study = small_study(Plan(pairs=25, noise=0, repeats=0, practice=0))
    pairs = Counter(frozenset(systems_of(study, index)) for index in range(len(study.trials)))
    assert sorted(pairs.values()) == [8, 8, 9]


def test_clips_meet_only_their_category_and_are_used_evenly() -> None:
    study = small_study(Plan(pairs=20, noise=0, repeats=0, practice=0), systems=("one", "two"), categories=("golf", "beach"))
    for trial in study.trials:
        assert study.clips[trial.left].category == study.clips[trial.right].category
    used = Counter(index for trial in study.trials for index in (trial.left, trial.right))
    assert set(used.values()) == {2}  # 40 places, 20 clips


def test_catch_trials() -> None:
    study = small_study()
    noise = study.of_kind(NOISE)
    assert len(noise) == 4
    assert sum(study.clips[trial.left].system == NOISE for trial in noise) == 2
    for repeat in study.of_kind("repeat"):
        original = study.trial(repeat.repeats or "")
        assert original is not None
        assert (original.left, original.right) == (repeat.right, repeat.left)
    assert NOISE in {study.clips[trial.left].system for trial in study.trials[:1]} | {systems_of(study, 0)[1]}


def test_the_seed_decides_everything() -> None:
    assert small_study() == small_study()
    assert small_study() != small_study(Plan(pairs=12, seed=1))


def test_names_cannot_be_computed_from_the_seed_alone() -> None:
    """A rater who has kinema and guesses the seed must not be able to list whose clip is whose."""
    other = materials()
    other[0] = replace(other[0], clips=[clip + 1 for clip in other[0].clips])
    plan = Plan(pairs=12)
    one, two = design(materials(), plan)[0], design(other, plan)[0]
    assert not {clip.file for clip in one.clips} & {clip.file for clip in two.clips}
    assert not {trial.id for trial in one.trials} & {trial.id for trial in two.trials}


@pytest.mark.parametrize("rater", range(1, 9))
def test_a_repetition_comes_after_its_pair_and_practice_first(rater: int) -> None:
    study = small_study()
    order = [trial for trial, _ in order_for(study, rater)]
    assert sorted(trial.id for trial in order) == sorted(trial.id for trial in study.trials)
    assert [trial.kind for trial in order[:2]] == ["practice", "practice"]
    place = {trial.id: number for number, trial in enumerate(order)}
    for trial in study.of_kind("repeat"):
        assert place[trial.id] > place[trial.repeats or ""] + 1 or place[trial.id] == len(order) - 1


def test_raters_have_orders_of_their_own_and_opposite_sides() -> None:
    study = small_study()
    one, two, three = (order_for(study, rater) for rater in (1, 2, 3))
    assert [trial.id for trial, _ in one] != [trial.id for trial, _ in two]
    assert [exchanged for _, exchanged in one] == [not exchanged for _, exchanged in two]
    assert one[0][1] == three[0][1]
    assert order_for(study, 1) == one


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = written(tmp_path / "study")
    assert read_study(tmp_path / "study") == study
    files = sorted(path.name for path in (tmp_path / "study" / "clips").iterdir())
    assert files == sorted(clip.file for clip in study.clips)
    info = probe(tmp_path / "study" / "clips" / files[0])
    assert (info.frames, info.width, info.height, info.fps) == (4, 16, 16, 8)
    assert "kinema" not in str(info.metadata)  # tags would tell what is generated


def test_files_hold_the_clips_that_they_are_said_to_hold(tmp_path: Path) -> None:
    study = written(tmp_path)
    levels = {("one", 0): 0, ("two", 0): 5}
    for clip in study.clips:
        if (clip.system, clip.number) in levels:
            pixels = read_video(tmp_path / "clips" / clip.file)[0]
            assert abs(float(pixels.mean()) - levels[clip.system, clip.number]) < 3


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
        (materials(categories=("a", "b"))[:-1], Plan(), "the same categories"),
        (materials(), Plan(pairs=2), "too few"),
    ],
)
def test_what_makes_no_study_is_refused(given: list[Material], plan: Plan, said: str) -> None:
    with pytest.raises(EvaluationError, match=said):
        design(given, plan)


def test_a_taken_folder_is_kept(tmp_path: Path) -> None:
    study, videos = design(materials(), Plan(pairs=3, noise=0, repeats=0, practice=0))
    (tmp_path / "mine").touch()
    with pytest.raises(EvaluationError, match="never overwritten"):
        write_study(tmp_path, study, videos)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 9}, "format version 9"),
        ({"trials": []}, "has no trials"),
        ({"question": 3}, "damaged: question"),
        ({"colour": "red"}, "damaged: colour"),
        ({"clips": []}, "a clip that the study does not have"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    written(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EvaluationError, match=said):
        read_study(tmp_path)


def test_a_missing_clip_is_named(tmp_path: Path) -> None:
    study = written(tmp_path)
    (tmp_path / "clips" / study.clips[0].file).unlink()
    with pytest.raises(EvaluationError, match=study.clips[0].file):
        read_study(tmp_path)


def test_a_folder_without_a_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="kinema study create"):
        read_study(tmp_path)
