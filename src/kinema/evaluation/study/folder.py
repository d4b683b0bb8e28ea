"""A study as it lies in its folder.

| file | holds |
|---|---|
| ``study.json`` | what is asked, the systems, the clips and the trials; text and rules may be edited until the first answer |
| ``clips/ID.mp4`` | every clip through one encoder, under a random name: neither name, date nor tags tell the system |
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import UInt8
from pydantic import ConfigDict, TypeAdapter, ValidationError

from kinema.core.errors import EvaluationError

FORMAT_VERSION = 2
STUDY_NAME = "study.json"
CLIPS_NAME = "clips"
NOISE = "noise"
"""System of the clips that nobody should prefer."""
WHOLE = ""
"""Category of a study without categories."""

StudyKind = Literal["pair", "ranking"]
TrialKind = Literal["practice", "comparison", "noise", "repeat", "still"]
Video = UInt8[np.ndarray, "T H W 3"]

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class StudyClip:
    """A clip of the study."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    file: str
    """Name in the folder of clips."""
    system: str
    """Who made it, or `NOISE`."""
    category: str
    """Its category, or `WHOLE`."""
    number: int
    """Its place among the clips that the system brought."""
    still: bool = False
    """Whether it shows its first frame all the time."""


@dataclass(frozen=True)
class Trial:
    """Clips beside each other."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    """Random name, which tells a rater nothing."""
    kind: TrialKind
    """What it is for: getting used to it, the comparison itself, noise among clips, a comparison once more with its places
    reversed, a clip against its own first frame."""
    clips: tuple[int, ...]
    """Indices of clips, from left to right before they are turned for a rater."""
    repeats: str | None = None
    """Id of the trial that it repeats."""


@dataclass(frozen=True)
class ExclusionRules:
    """When a rater is left out, stated before anybody has answered; a rule for trials that the study lacks never applies."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    noise_refused: float = 0.75
    """Least share of trials with noise in which the rater put the noise last."""
    repeats_agreed: float = 0.25
    """Least share of pairs of clips, over repeated comparisons, that the rater ordered the same way: who guesses has 0.5, who
    always answers by place 0."""
    median_seconds: float = 0.4
    """Least median time to an answer."""
    answered: float = 0.5
    """Least share of their trials that the rater answered."""


@dataclass(frozen=True)
class Study:
    """Everything about a study except the answers; the file ``study.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    """Names the study in the raters' browsers."""
    kind: StudyKind
    """Whether two clips meet or one of every system."""
    title: str
    """Heading of the pages."""
    question: str
    """Asked in every trial."""
    instructions: str
    """Shown before the first trial."""
    consent: str
    """What a rater agrees to."""
    seed: int
    """Of pairs, sides, order and names."""
    frames: int
    """Frames of every clip."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float
    """Frames per second."""
    systems: tuple[str, ...]
    """In the order of the results."""
    categories: tuple[str, ...]
    """In the order of the results; one `WHOLE` where there are none."""
    origins: dict[str, str]
    """System, with its category where there is one -> where its clips come from."""
    clips: tuple[StudyClip, ...]
    """Trials name them by their place here."""
    trials: tuple[Trial, ...]
    """Practice first."""
    comparisons: int
    """How many of the comparisons a rater gets."""
    repeats: int
    """How many of these once more."""
    exclusion: ExclusionRules = field(default_factory=ExclusionRules)
    """Who is left out of the second table of results."""
    format_version: int = FORMAT_VERSION
    """Of this file."""

    def trial(self, name: str) -> Trial | None:
        """Return the trial of an id, or None."""
        return next((trial for trial in self.trials if trial.id == name), None)

    def pairs(self) -> list[tuple[str, str]]:
        """Return every pair of systems, in the order of the results."""
        return list(itertools.combinations(self.systems, 2))

    def of_kind(self, *kinds: TrialKind) -> list[Trial]:
        """Return the trials of some kinds."""
        return [trial for trial in self.trials if trial.kind in kinds]

    def category(self, trial: Trial) -> str:
        """Return the category of a trial's clips, of which noise has none."""
        return next(clip.category for clip in map(self.clips.__getitem__, trial.clips) if clip.system != NOISE)


_STUDY = TypeAdapter(Study)


def write_study(folder: Path, study: Study, videos: Sequence[Video]) -> None:
    """Write a study folder; ``study.json`` last, so that a folder without it is unfinished.

    Args:
        folder: to be made; must not exist or be empty.
        study: as `design` made it.
        videos: its clips, in order.

    Raises:
        EvaluationError: the folder holds something.
        MediaError: a clip cannot be written.
    """
    from kinema.data.encode import beside, write_video

    refuse_taken(folder)
    (folder / CLIPS_NAME).mkdir(parents=True, exist_ok=True)
    files = {clip.file: video for clip, video in zip(study.clips, videos, strict=True)}
    for name in sorted(files):  # in the order of random names: neither times nor tags of files may tell systems apart
        write_video(folder / CLIPS_NAME / name, files[name], study.fps)
    with beside(folder / STUDY_NAME) as temporary:
        temporary.write_bytes(_STUDY.dump_json(study, indent=2) + b"\n")


def refuse_taken(folder: Path) -> None:
    """Raise `EvaluationError` where a study folder exists and is not empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise EvaluationError(f"{folder} exists and is not empty; give another --out: a study is never overwritten")


def read_study(folder: Path) -> Study:
    """Read ``study.json``.

    Raises:
        EvaluationError: when there is none, or it is damaged, of another version, without trials, or names a clip that is
            missing.
    """
    path = folder / STUDY_NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise EvaluationError(
            f"{folder} has no {STUDY_NAME}; make a study with `kinema study create ... --out STUDY`"
        ) from None
    try:
        version = json.loads(text)["format_version"]
    except (ValueError, TypeError, KeyError):
        raise EvaluationError(f"{path} is damaged: it is no JSON object with a format_version") from None
    if version != FORMAT_VERSION:
        raise EvaluationError(f"{path} has format version {version}; this kinema reads version {FORMAT_VERSION}")
    try:
        study = _STUDY.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise EvaluationError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check(path, study)
    return study


def digest(study: Study) -> str:
    """Return the SHA-256 of everything in a study that an answer depends on."""
    return hashlib.sha256(_STUDY.dump_json(study)).hexdigest()


def _check(path: Path, study: Study) -> None:
    comparisons = study.of_kind("comparison")
    if not comparisons:
        raise EvaluationError(f"{path} has no trials; make the study again")
    if not study.repeats <= study.comparisons <= len(comparisons):
        raise EvaluationError(
            f"{path} promises every rater {study.comparisons} comparisons and {study.repeats} repetitions out of "
            f"{len(comparisons)} comparisons; make the study again"
        )
    ids = [trial.id for trial in study.trials]
    if len(set(ids)) < len(ids):
        raise EvaluationError(f"{path} has two trials with the id {Counter(ids).most_common(1)[0][0]!r}")
    known = range(len(study.clips))
    if wrong := next((trial for trial in study.trials if not set(trial.clips) <= set(known)), None):
        raise EvaluationError(f"{path}: trial {wrong.id} names a clip that the study does not have")
    if wrong := next((trial for trial in study.trials if len(set(trial.clips)) < max(2, len(trial.clips))), None):
        raise EvaluationError(f"{path}: trial {wrong.id} has nothing to compare, or shows a clip twice")
    if wrong := next((t for t in study.of_kind("repeat") if t.repeats not in ids), None):
        raise EvaluationError(f"{path}: trial {wrong.id} repeats one that the study does not have")
    repeated = {trial.repeats for trial in study.of_kind("repeat")}
    if study.repeats and (wrong := next((trial for trial in comparisons if trial.id not in repeated), None)):
        raise EvaluationError(f"{path}: trial {wrong.id} lacks its repetition; make the study again")
    for clip in study.clips:
        if Path(clip.file).name != clip.file or not (path.parent / CLIPS_NAME / clip.file).is_file():
            raise EvaluationError(f"{path} names the clip {clip.file!r}, which is not in {path.parent / CLIPS_NAME}")
