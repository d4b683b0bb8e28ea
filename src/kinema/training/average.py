"""Averaged weights for sampling, and the batch-norm statistics that they need of their own."""

import copy
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kinema.core.system import System
from kinema.core.types import Batch


class Average:
    """A copy of a system that holds the exponential moving average of its weights, in float32.

    Args:
        system: its `averaged` modules are averaged; everything else is copied by `copy_rest`.
    """

    def __init__(self, system: System[Any]) -> None:
        self._source = system
        self.system = copy.deepcopy(system).eval().requires_grad_(False)
        averaged = {id(parameter) for module in system.averaged() for parameter in module.parameters()}
        pairs = list(zip(self.system.parameters(), system.parameters(), strict=True))
        for mine, _ in pairs:
            mine.data = mine.data.float()
        self._averages = [mine.data for mine, theirs in pairs if id(theirs) in averaged]
        self._weights = [theirs.data for _, theirs in pairs if id(theirs) in averaged]
        self._copied = [(mine.data, theirs.data) for mine, theirs in pairs if id(theirs) not in averaged]

    def update(self, decay: float) -> None:
        """Move the averages towards the weights."""
        get_ema_multi_avg_fn(decay)(self._averages, self._weights, 0)

    def copy_rest(self) -> None:
        """Copy what is not averaged."""
        for mine, theirs in self._copied:
            mine.copy_(theirs)
        for mine, theirs in zip(self.system.buffers(), self._source.buffers(), strict=True):
            mine.copy_(theirs)


def estimate_batch_norm(system: System[Any], batches: Iterable[Batch]) -> None:
    """Re-estimate the batch-norm statistics of a system's averaged modules as plain means over `batches`."""
    norms = [
        norm
        for module in system.averaged()
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats
    ]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for batch in batches:
        system.sampling_pass(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    system.eval()
