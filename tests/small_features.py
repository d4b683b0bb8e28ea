"""Feature networks of one's own, as a user would write them."""

import torch
from torch import Tensor, nn


class Colours(nn.Module):
    """Mean colour, and how much it changes: six numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(1))

    def forward(self, video: Tensor) -> Tensor:
        colours = video.mean(dim=(3, 4))
        return torch.cat([colours.mean(dim=2), colours.diff(dim=2).abs().mean(dim=2)], dim=1)


class Wrong(nn.Module):
    """Returns no vector per clip."""

    def forward(self, video: Tensor) -> Tensor:
        return video


ready = Colours()
number = 3
