"""Beginning a run with the weights of another one: transfer learning, where there is little footage.

Whatever has the same name and shape in both is taken over. What has not, such as a table of other classes, begins anew and is
named; statistics of the footage are measured again by the stages that fit them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from kinema.core.errors import TrainingError
from kinema.core.system import System
from kinema.training.checkpoint import load_checkpoint, resolve

NAMED = 5  # weights that begin anew, in a sentence


@dataclass(frozen=True)
class Start:
    """What a run has begun with.

    Attributes:
        about: the checkpoint, its stage and steps, and what it was trained on, as JSON values.
        taken: numbers taken over.
        anew: names of the parameters that begin anew.
    """

    about: Mapping[str, Any]
    taken: int
    anew: tuple[str, ...]

    def in_words(self, fps: float | None) -> str:
        """Say it in one line, with the rates where this run's footage has another one."""
        words = f"begins with {self.taken:,} weights of {self.about['checkpoint']}, {self.about['steps']:,} steps"
        if self.anew:
            more = f" and {len(self.anew) - NAMED} more" if len(self.anew) > NAMED else ""
            words += f"; begin anew: {', '.join(self.anew[:NAMED])}{more}"
        seen = self.about["dataset"].get("fps")
        if seen and fps and seen != fps:
            words += f"; they learnt motion at {seen:g} frames per second, and these clips have {fps:g}"
        return words


def take_over(system: System[Any], source: str) -> Start:
    """Give a new system the weights of a trained one.

    Args:
        system: changed in place.
        source: a run, a checkpoint file or ``zoo:NAME``, of the same kind of system.

    Raises:
        CheckpointError: for a file that is missing, damaged or of another system.
        TrainingError: when fewer than half of the weights would be taken over.
    """
    file = resolve(source)
    trained, metadata = (given := load_checkpoint(file, system_name=system.name)).system, given.metadata
    own, theirs = system.state_dict(), trained.state_dict()
    fitting = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
    parameters = {name: parameter.numel() for name, parameter in system.named_parameters()}
    anew = tuple(name for name in parameters if name not in fitting)
    taken = sum(size for name, size in parameters.items() if name in fitting)
    if 2 * taken < sum(parameters.values()):
        raise TrainingError(
            f"{source} fits {taken:,} of {sum(parameters.values()):,} weights of {system.name} with these settings, "
            f"not {_example(own, theirs, anew)}; leave out the settings that change its networks"
        )
    system.load_state_dict({**own, **fitting})
    system.begin_anew()
    about = {"checkpoint": str(Path(file).absolute()), "stage": metadata.stage, "steps": metadata.steps}
    return Start({**about, "dataset": dict(metadata.dataset)}, taken, anew)


def _example(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], anew: tuple[str, ...]) -> str:
    """Name the largest weight that does not fit, with both shapes."""
    name = max(anew, key=lambda one: own[one].numel())
    has = f"it has {tuple(theirs[name].shape)}" if name in theirs else "it has none"
    return f"{name!r} of shape {tuple(own[name].shape)} ({has})"
