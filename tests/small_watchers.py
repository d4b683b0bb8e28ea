"""Hand-made systems that look at clips: what their units answer to is known."""

from dataclasses import dataclass

import torch
from torch import nn

from kinema.core.config import Config
from kinema.core.system import System
from kinema.core.types import ClipShape


@dataclass(frozen=True)
class WatchingConfig(Config):
    """Shape of the clips."""

    frames: int = 8
    height: int = 32
    width: int = 32


class Watching(System[WatchingConfig]):
    """Holds one network, called watcher."""

    name = "watching"
    config_class = WatchingConfig

    def __init__(self, watcher: nn.Module, config: WatchingConfig | None = None) -> None:
        super().__init__(config or WatchingConfig())
        self.watcher = watcher
        self.eval()

    @property
    def clip_shape(self) -> ClipShape:
        return ClipShape(self.config.frames, self.config.height, self.config.width)


def bright_square(rank: int) -> nn.Sequential:
    """Two strided layers whose units answer to brightness in a part of what their kernels see.

    Only the middle taps of the kernels of 4 weigh: of the 10 elements that the kernels allow along every axis, unit 0 of the
    second layer sees the mean of the middle 4. Unit 1 never changes; unit 2 changes and stays below zero; unit 3 answers to
    darkness. Unit 4 has taps 0 and 1 of the second kernel: 4 elements again, 2 before the middle. Below grey all are blind.
    """
    convolution = nn.Conv3d if rank == 3 else nn.Conv2d
    first, second = convolution(3, 1, 4, stride=2, padding=1), convolution(1, 5, 4, stride=2, padding=1)
    with torch.no_grad():
        for weights in (first.weight, first.bias, second.weight, second.bias):
            weights.zero_()
        middle, before = (slice(None), *[slice(1, 3)] * rank), (slice(None), *[slice(0, 2)] * rank)
        first.weight[0][middle] = 1 / (3 * 2**rank)
        for unit, sign in {0: 1, 2: 1, 3: -1}.items():
            second.weight[unit][middle] = sign / 2**rank
        second.weight[4][before] = 1 / 2**rank
        second.bias[2], second.bias[3] = -3.0, 2.0
    return nn.Sequential(nn.Sequential(first, nn.ReLU(inplace=True)), nn.Sequential(second, nn.LeakyReLU(0.2, inplace=True)))
