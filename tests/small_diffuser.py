"""A hand-made system that diffuses, inpaints and has a compressor: what it makes is known. `install` puts it into SYSTEMS."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from einops import repeat
from torch import Tensor, nn

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.seeds import normal_codes
from kinema.core.system import Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Labels, Video
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import save_checkpoint

NAME = "small-diffuser"


@dataclass(frozen=True)
class SmallDiffuserConfig(Config):
    """What it is told."""

    conditions: tuple[str, ...] = ()
    """Of label, caption."""
    frames: int = 8
    """Of a clip."""
    size: int = 16
    """Of a frame."""


class SmallDiffuser(System[SmallDiffuserConfig]):
    """Makes clips of one grey: 0.1 for every step of sampling, and the class, or the number at the end of the caption, on top.

    It fills what is hidden with the mean of what is known, and its compressor makes everything a little darker.
    """

    name = NAME
    paper = Paper("None", "Nobody", "nowhere", 2026)
    config_class = SmallDiffuserConfig
    presets: ClassVar = {"tiny": Preset("For tests.", SmallDiffuserConfig(), {"batch_size": 4})}

    def __init__(self, config: SmallDiffuserConfig) -> None:
        super().__init__(config)
        self.compressor, self.denoiser = nn.Linear(1, 1), nn.Linear(3, 3)
        nn.init.constant_(self.compressor.weight, 0.9)
        nn.init.zeros_(self.compressor.bias)

    @property
    def clip_shape(self) -> ClipShape:
        return ClipShape(self.config.frames, self.config.size, self.config.size)

    def stages(self) -> dict[str, Stage]:
        def squared(module: nn.Module, width: int):
            return lambda batch: Objective({"squared": module(torch.ones(len(batch), width)).square().mean()})

        return {
            "compressor": (Player("compressor", (self.compressor,), squared(self.compressor, 1), adam(1e-4)),),
            "denoiser": (Player("denoiser", (self.denoiser,), squared(self.denoiser, 3), adam(1e-4)),),
        }

    def sampling_pass(self, batch: Batch) -> None:
        self.denoiser(torch.ones(1, 3))

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=2)

    @property
    def footprint(self) -> tuple[int, int, int]:
        return (1, 1, 1)

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.config.conditions

    def _asked(self, label: Labels | None, caption: Sequence[str] | None, rows: int) -> Tensor:
        for name, value in (("label", label), ("caption", caption)):
            if value is not None and name not in self.conditions:
                raise ConfigError(f"it knows no {name}")
        if caption is not None:
            return torch.tensor([float(sentence.split()[-1]) for sentence in caption])
        return torch.zeros(rows) if label is None else label.float()

    def diffuse(
        self,
        seeds: Sequence[int],
        *,
        shape: ClipShape | None = None,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Video:
        noise = normal_codes(seeds, 3, 8, 16, 16) * 0.01 + self.denoiser(torch.ones(3)).sum() * 0
        grey = 0.1 * (sampling or self.sampling).steps + self._asked(label, caption, len(seeds)) / 100
        return (noise + repeat(grey, "b -> b 1 1 1 1")).clamp(-1, 1)

    def trajectory(self, seeds: Sequence[int], moments: int, **asked: Any) -> Sequence[Video]:
        return [self.diffuse(seeds, **asked)] * moments

    def noised(self, video: Video, moments: int, *, seed: int) -> Sequence[Video]:
        return [video] * moments

    def inpaint(
        self,
        video: Video,
        known: Tensor,
        *,
        seeds: Sequence[int],
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        paste: bool = True,
    ) -> Video:
        mean = (video * known).sum(dim=(2, 3, 4), keepdim=True) / known.sum(dim=(2, 3, 4), keepdim=True)
        asked = repeat(self._asked(label, caption, len(video)), "b -> b 1 1 1 1")
        made = torch.where(known.bool(), self.reconstruct(video), mean + asked / 100)
        return torch.where(known.bool(), video, made) if paste else made

    def reconstruct(self, video: Video) -> Video:
        return self.compressor(video[..., None])[..., 0]


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it into the table of systems for a test."""
    monkeypatch.setitem(SYSTEMS, NAME, SmallDiffuser)


def save(folder: Path, conditions: tuple[str, ...] = (), **dataset: object) -> Path:
    """Write a run of it."""
    folder.mkdir()
    torch.manual_seed(0)
    system = SmallDiffuser(SmallDiffuserConfig(conditions))
    save_checkpoint(folder / "checkpoint.safetensors", system, stage="denoiser", dataset={"fps": 25.0, **dataset})
    return folder
