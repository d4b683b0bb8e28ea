"""What every feature network offers, and how one reaches another process."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, ClassVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Clips = UInt8[Tensor, "B T H W 3"]
Vectors = Float[Tensor, "B D"] | Float[Tensor, "B T D"]


def exact_convolutions() -> AbstractContextManager[None]:
    """Within this context a GPU does not round what it multiplies to ten bits (TF32): a protocol says float32."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


class FeatureNetwork(ABC):
    """Describes clips by vectors.

    Args:
        recipe: the arguments of the class. A network is pickled as them and opened again where it arrives, once per process:
            a task then weighs a few bytes, and a TorchScript program cannot be pickled at all.

    Attributes:
        id: name that stands beside every number.
        sha256: digest of the weights.
        preprocessing: what happens to pixels before the network, in words.
        names: distance -> what the literature calls it on this network; others are called ``distance[id]``.
        notes: what a reader of the numbers has to know about the network.
    """

    id: str
    sha256: str
    preprocessing: str
    names: ClassVar[Mapping[str, str]] = {}
    notes: Sequence[str] = ()

    def __init__(self, *recipe: Any) -> None:
        self._recipe = recipe

    @abstractmethod
    def __call__(self, clips: Clips) -> Vectors:
        """Return one vector per clip, or one per frame of every clip, on the CPU."""

    def name_of(self, distance: str) -> str:
        """Return what a distance of these features is called."""
        return self.names.get(distance, f"{distance}[{self.id}]")

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (type(self), *self._recipe)


@lru_cache(maxsize=1)
def _opened(kind: type[FeatureNetwork], *recipe: Any) -> FeatureNetwork:
    return kind(*recipe)
