"""Divisions without leaks, and the labelled part of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.evaluation.labelled import described, divide, open_labelled, portion
from labelled_dataset import write_labelled
from small_dataset import write_dataset


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled(tmp_path_factory.mktemp("people") / "data", groups=("anna", "bert", "cleo", "dora", "egon"))


def test_whole_groups_are_held_out_and_seeds_take_turns(people: Path) -> None:
    clips, held = open_labelled(people), []
    for seed in range(5):
        division = divide(clips, seed, held_out=0.3)
        training, test = ({clips.groups[index] for index in part} for part in (division.training, division.test))
        assert not training & test
        assert len(test) == 2
        assert len(division.training) + len(division.test) == len(clips.labels)
        held.append(test)
    assert set.union(*held[:3]) == {"anna", "bert", "cleo", "dora", "egon"}
    assert divide(clips, 0).about == f"groups {', '.join(sorted(held[0]))}"


def test_within_holds_out_the_end_of_every_video_without_shared_frames(tmp_path: Path) -> None:
    clips = open_labelled(write_labelled(tmp_path, per_video=10, stride=2))  # clips of 8 frames: each shares some with 3 others
    division = divide(clips, 0, held_out=0.3, within=True)
    assert division.about == "the end of every video"
    for video in set(clips.videos):
        training, test = (
            [clips.firsts[i] for i in part if clips.videos[i] == video] for part in (division.training, division.test)
        )
        assert test == [14, 16, 18]
        assert training == [0, 2, 4, 6]  # the last one ends with frame 13
    assert division.left_out == 3 * 6
    assert divide(clips, 1, held_out=0.3, within=True) == division


def test_a_clip_that_was_made_up_is_a_video_of_its_own(tmp_path: Path) -> None:
    """Performers are all of one source and begin at frame 0: as one video they had one accuracy per video, and no interval."""
    clips = open_labelled(write_labelled(tmp_path, stride=0))
    assert len(set(clips.videos)) == len(clips.videos) == 24
    assert set(clips.groups) == {"anna", "bert", "cleo"}


def test_the_split_of_the_dataset_is_kept(tmp_path: Path) -> None:
    clips = open_labelled(write_labelled(tmp_path, splits={"cleo": "test"}))
    for seed in range(2):
        division = divide(clips, seed)
        assert {clips.groups[index] for index in division.test} == {"cleo"}
        assert division.about == "the dataset's own test split"


def test_within_sets_a_test_split_of_other_groups_aside(tmp_path: Path) -> None:
    """A split by whole films: the end of every film is tested, of those that were held out too."""
    clips = open_labelled(write_labelled(tmp_path, splits={"cleo": "test"}))
    division = divide(clips, 0, within=True)
    assert division.about == "the end of every video"
    assert {clips.videos[index] for index in division.test} == set(clips.videos)


def test_classes_without_a_clip_to_test_on_are_named(tmp_path: Path) -> None:
    clips = open_labelled(write_labelled(tmp_path, splits={"cleo": "test"}))
    division = divide(clips, 0)
    whole = described(clips, division)
    assert whole == f"the dataset's own test split, {len(division.test)} clips of 2 videos"
    one = replace(division, test=tuple(index for index in division.test if clips.labels[index] == 0))
    assert described(clips, one).endswith(f"clips of 1 video; 1 of 2 classes have no clip there ({clips.classes[1]})")


def test_a_group_in_both_splits_is_refused_unless_within(tmp_path: Path) -> None:
    write_dataset(tmp_path, 20, test_every=4)  # one source, so one group
    clips = open_labelled(tmp_path)
    with pytest.raises(
        EvaluationError, match=r"the group 'hall.mp4' of .* is in both splits: who is recognised may be the group"
    ):
        divide(clips, 0)
    assert len(divide(clips, 0, within=True).test) == 5


def test_portions_are_nested_and_stratified_and_whole_videos_first(people: Path) -> None:
    clips = open_labelled(people)
    training = divide(clips, 0).training
    before = set(training)
    for fraction, per_class in ((1.0, 12), (0.5, 6), (0.25, 3), (0.125, 2), (1 / 16, 1)):
        chosen = portion(clips, training, fraction, seed=3)
        assert set(chosen) <= before
        assert np.bincount(clips.labels[list(chosen)]).tolist() == [per_class, per_class]
        before = set(chosen)
        if fraction == 0.5:  # of three videos of four clips: one whole, one half, its beginning
            for label in range(2):
                videos = [clips.videos[index] for index in chosen if clips.labels[index] == label]
                assert sorted(videos.count(name) for name in set(videos)) == [2, 4]
                half = next(name for name in set(videos) if videos.count(name) == 2)
                assert [clips.firsts[index] for index in chosen if clips.videos[index] == half] == [0, 8]
    spread = portion(clips, training, 0.25, 3, spread=True)
    assert np.bincount(clips.labels[list(spread)]).tolist() == [3, 3]
    assert len({clips.videos[index] for index in spread}) > len({clips.videos[i] for i in portion(clips, training, 0.25, 3)})
    assert set(portion(clips, training, 0.125, 3, spread=True)) <= set(spread)
    others = {portion(clips, training, 0.25, seed) for seed in range(8)}
    assert len(others) > 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"unlabelled": True}, r"has clips without a label; prepare it with --labels"),
        ({"labels": ("left",)}, r"has the one class 'left'; to recognise means to tell two classes or more apart"),
        (
            {"per_video": {"left": 4, "right": 1}, "groups": ("anna",)},
            r"the class 'right' of .* has 1 clip; a class needs one to train on and one to test on",
        ),
    ],
)
def test_labels_that_cannot_be_learned_are_refused(tmp_path: Path, settings: dict, sentence: str) -> None:
    write_labelled(tmp_path, **settings)
    with pytest.raises(EvaluationError, match=sentence):
        open_labelled(tmp_path)


def test_footage_of_one_group_asks_for_within(tmp_path: Path) -> None:
    clips = open_labelled(write_labelled(tmp_path, groups=("anna",)))
    with pytest.raises(
        EvaluationError, match=r"all clips of .* are of one group, 'anna': none can be held out; ask for --within"
    ):
        divide(clips, 0)
    assert len(divide(clips, 0, within=True).test) == 2


def test_videos_of_one_clip_have_no_end_to_hold_out(tmp_path: Path) -> None:
    clips = open_labelled(write_labelled(tmp_path, per_video=1))
    with pytest.raises(EvaluationError, match=r"every video of .* is a single clip"):
        divide(clips, 0, within=True)


def test_a_class_without_a_training_clip_is_named(tmp_path: Path) -> None:
    write_labelled(tmp_path, per_video={"left": 4, "right": 0}, groups=("anna",))
    both = write_labelled(tmp_path / "more", per_video=2, splits={"anna": "test", "bert": "test", "cleo": "test"})
    clips = open_labelled(both)
    assert set(clips.splits) == {"test"}  # one split alone is no division: groups are held out
    assert divide(clips, 0).about.startswith("group ")
