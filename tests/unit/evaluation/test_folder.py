"""A study folder: read as it was written; damaged ones are refused."""

import json
from pathlib import Path

import pytest

from kinema.core.errors import EvaluationError
from kinema.data.media import probe, read_video
from kinema.evaluation.study.design import Plan, design
from kinema.evaluation.study.folder import read_study, write_study
from unit.evaluation.small_study import materials, written


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


def test_a_ranking_is_read_as_it_was_written(tmp_path: Path) -> None:
    study = written(tmp_path, Plan(kind="ranking", trials=2, pool=6, noise=1, repeats=1, still=1), ("one", "two", "real"))
    assert read_study(tmp_path) == study
    frozen = next(clip for clip in study.clips if clip.still)
    assert probe(tmp_path / "clips" / frozen.file).frames == 4


def test_a_taken_folder_is_kept(tmp_path: Path) -> None:
    study, videos = design(materials(), Plan(trials=3, noise=0, repeats=0, practice=0))
    (tmp_path / "mine").touch()
    with pytest.raises(EvaluationError, match="never overwritten"):
        write_study(tmp_path, study, videos)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format_version": 1}, "format version 1; this kinema reads version 2"),
        ({"trials": []}, "has no trials"),
        ({"question": 3}, "damaged: question"),
        ({"colour": "red"}, "damaged: colour"),
        ({"clips": []}, "a clip that the study does not have"),
        ({"comparisons": 5}, "promises every rater 5 comparisons and 1 repetitions out of 4"),
        ({"repeats": 5}, "promises every rater 4 comparisons and 5 repetitions"),
    ],
)
def test_a_damaged_study_is_refused(tmp_path: Path, change: dict, said: str) -> None:
    written(tmp_path)
    path = tmp_path / "study.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(EvaluationError, match=said):
        read_study(tmp_path)


@pytest.mark.parametrize(
    ("kind", "change", "said"),
    [
        ("comparison", {"clips": [0]}, "has nothing to compare"),
        ("comparison", {"clips": [0, 0]}, "shows a clip twice"),
        ("comparison", {"id": "ff"}, "repeats one that the study does not have"),
        ("repeat", {"kind": "still"}, "lacks its repetition"),
    ],
)
def test_a_damaged_trial_is_refused(tmp_path: Path, kind: str, change: dict, said: str) -> None:
    written(tmp_path)
    path = tmp_path / "study.json"
    content = json.loads(path.read_text())
    trial = next(trial for trial in content["trials"] if trial["kind"] == kind)
    trial.update(change)
    path.write_text(json.dumps(content))
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
