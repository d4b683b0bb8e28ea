"""What processes that train together tell each other; a system asks, and need not know who trains it.

Each process has its own rows of the global batch. A mean over what only some rows show (visible faces, joints that are there)
is one over all processes only where each counts by how much it has. A process alone is answered by itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

Mean = Callable[[Tensor], Tensor]

# Lists, for torch's compiler reads no context variables.
_means: list[Mean] = []
_standing_in: list[bool] = []


@contextmanager
def answered_by(mean: Mean) -> Iterator[None]:
    """Within this context `mean_over_processes` is what `mean` says."""
    _means.append(mean)
    try:
        yield
    finally:
        _means.pop()


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean over processes of a constant of one shape; all of them must ask, in the same order."""
    return _means[-1](value) if _means else value.detach()


@contextmanager
def standing_in() -> Iterator[None]:
    """Within this context rows count nothing in batch norms: a process that has none passes others, to keep step."""
    _standing_in.append(True)
    try:
        yield
    finally:
        _standing_in.pop()


def stands_in() -> bool:
    """Tell whether this process's rows count nothing in batch norms."""
    return bool(_standing_in)
