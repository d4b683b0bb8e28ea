"""Errors: one sentence that says what was wrong and what would be right."""

import difflib
from collections.abc import Iterable


class KinemaError(Exception):
    """Base of every error that a user can cause; the command line prints its message and exits with status 2."""


class ConfigError(KinemaError):
    """A setting that does not exist or has a value outside its range."""


class DataError(KinemaError):
    """Footage, a label file or a prepared dataset that cannot be used."""


class MediaError(DataError):
    """A file that cannot be decoded or encoded as video or images."""


class CheckpointError(KinemaError):
    """A checkpoint or run directory that is missing, damaged, too new or of another kind."""


class NotFiniteWeightsError(CheckpointError):
    """Weights or statistics of a system that are NaN or infinite, and are not written."""


class TrainingError(KinemaError):
    """A training run that cannot start or cannot go on."""


class EvaluationError(KinemaError):
    """Clips that cannot be judged, reports that cannot be compared, or a study that cannot be made."""


def accepted(value: str, choices: Iterable[str]) -> str:
    """Describe the accepted values for a wrong one, naming the nearest first.

    Args:
        value: what the user wrote.
        choices: every value that would have been right.
    """
    names = sorted(choices)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}accepted: {', '.join(names) if names else 'none'}"
