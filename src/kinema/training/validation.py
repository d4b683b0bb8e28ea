"""Numbers about held-out clips, taken with the weights that sample."""

from collections.abc import Iterator
from typing import Any

import torch

from kinema.core.system import System
from kinema.core.tasks import Validates
from kinema.core.types import Batch
from kinema.data.dataset import Dataset
from kinema.data.loader import Loader
from kinema.training.health import COMPARED, PORTION, evenly_spread
from kinema.training.trainer import borrowed_generators, check_batch, fresh_random_state, set_random_state


class Validation:
    """Takes the same measurements on the same clips with the same noise at every look.

    Args:
        held_out: clips that are not trained on; up to `COMPARED` of them are used, those that a `Watch` looks at.
        system: which measures, and says what it needs.
        seed: of the noise.
        device: where to measure.

    Raises:
        DataError: when a held-out clip lacks poses or masks that the system needs.
        TrainingError: when it lacks anything else.
    """

    def __init__(self, held_out: Dataset, system: System[Any], seed: int, device: torch.device) -> None:
        self.seed, self.device = seed, device
        clips = held_out.subset(evenly_spread(len(held_out), COMPARED))
        size, frames = min(PORTION, len(clips)), system.clip_shape.frames
        self._loader = Loader(clips, size, frames=frames, fields=system.needs)
        for batch in self._batches():
            check_batch(batch, system)  # now, and not at the first look

    @torch.no_grad()
    def measure(self, sampler: System[Any], stage: str) -> dict[str, float]:
        """Return means over the clips as ``validation/name``; none where the system measures nothing in this stage."""
        if not isinstance(sampler, Validates):
            return {}
        sums: dict[str, float] = {}
        clips = 0
        with borrowed_generators(self.device):
            set_random_state(fresh_random_state(self.seed, "validation", self.device), self.device)
            for batch in self._batches():
                clips += len(batch)
                for name, value in sampler.validate(batch, stage).items():
                    sums[name] = sums.get(name, 0.0) + len(batch) * float(value)
        return {f"validation/{name}": total / clips for name, total in sums.items()}

    def _batches(self) -> Iterator[Batch]:
        return (clips.to_batch(self.device) for clips in self._loader.epoch())
