"""Small studies for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from kinema.evaluation.study.design import Material, Plan, design
from kinema.evaluation.study.folder import Study, write_study
from kinema.evaluation.study.store import Vote

Side = Literal["left", "right"]


def materials(
    systems: tuple[str, ...] = ("one", "two", "real"), categories: tuple[str, ...] = ("",), clips: int = 5
) -> list[Material]:
    """Clips of flat grey whose level is the number of the clip."""

    def clip(number: int) -> np.ndarray:
        return np.full((4, 16, 16, 3), number, np.uint8)

    keys = [(system, category) for system in systems for category in categories]
    return [
        Material(system, category, "made", [clip(place * clips + number) for number in range(clips)], 8.0)
        for place, (system, category) in enumerate(keys)
    ]


def small_study(plan: Plan | None = None, **wanted: tuple[str, ...]) -> Study:
    return design(materials(**wanted), plan or Plan(trials=12, noise=4, repeats=4, practice=2))[0]


def written(folder: Path, plan: Plan | None = None, systems: tuple[str, ...] = ("one", "two")) -> Study:
    study, videos = design(materials(systems), plan or Plan(trials=4, noise=1, repeats=1, practice=1))
    write_study(folder, study, videos)
    return study


def vote(study: Study, rater: int, trial_id: str, side: Side, milliseconds: int = 2000) -> Vote:
    """An answer to a trial of two clips in its designed places."""
    return ranked(study, rater, trial_id, (0, 1) if side == "left" else (1, 0), milliseconds)


def ranked(study: Study, rater: int, trial_id: str, ranking: Sequence[int], milliseconds: int = 2000) -> Vote:
    """An answer to a trial in its designed places."""
    trial = study.trial(trial_id)
    assert trial is not None
    files = tuple(study.clips[index].file for index in trial.clips)
    return Vote(rater, trial_id, 0, files, tuple(ranking), milliseconds, "2026-01-01T00:00:00.000+00:00")


def by_favourites(study: Study, rater: int, favourites: Sequence[str]) -> list[Vote]:
    """The answers of a rater who orders systems always alike."""
    votes = []
    for trial in study.trials:
        places = {study.clips[index].system: place for place, index in enumerate(trial.clips)}
        order = [places[system] for system in favourites if system in places]
        votes.append(ranked(study, rater, trial.id, order))
    return votes


def side_of(study: Study, trial_id: str, system: str) -> Side:
    trial = study.trial(trial_id)
    assert trial is not None
    return "left" if study.clips[trial.clips[0]].system == system else "right"
