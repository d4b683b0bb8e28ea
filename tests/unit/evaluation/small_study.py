"""Small studies for tests."""

from pathlib import Path

import numpy as np

from kinema.evaluation.study.design import Material, Plan, Study, design, write_study
from kinema.evaluation.study.store import Side, Vote


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
    return design(materials(**wanted), plan or Plan(pairs=12, noise=4, repeats=4, practice=2))[0]


def written(folder: Path, plan: Plan | None = None) -> Study:
    study, videos = design(materials(("one", "two")), plan or Plan(pairs=4, noise=1, repeats=1, practice=1))
    write_study(folder, study, videos)
    return study


def vote(study: Study, rater: int, trial_id: str, side: Side, milliseconds: int = 2000) -> Vote:
    """An answer to a trial in its designed sides."""
    trial = study.trial(trial_id)
    assert trial is not None
    left, right = study.clips[trial.left].file, study.clips[trial.right].file
    return Vote(rater, trial_id, 0, left, right, side, milliseconds, "2026-01-01T00:00:00.000+00:00")


def side_of(study: Study, trial_id: str, system: str) -> Side:
    trial = study.trial(trial_id)
    assert trial is not None
    return "left" if study.clips[trial.left].system == system else "right"
