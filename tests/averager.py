"""A system of two stages that shows what a run does for a frozen compressor: its code is the mean colour of every cell.

A code that does not belong to its clip is visible at once: the second stage measures the largest difference between the codes
that it is given and those of its own clips.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from kinema.core.config import Config
from kinema.core.seeds import draw_rows
from kinema.core.system import Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Scalar, Video


@dataclass(frozen=True)
class AveragerConfig(Config):
    """Settings of the averager."""

    frames: int = 4
    """Frames of a clip."""
    size: int = 16
    """Height and width."""
    width: int = 8
    """Channels between."""
    condition: Literal["none", "label", "caption"] = "none"
    """What the second stage is told."""
    classes: int = 0
    """Classes, where labels are the condition."""
    rate: float = 1e-3
    """Adam's step size."""

    def for_labels(self, labels: Sequence[str]) -> "AveragerConfig":
        return replace(self, classes=len(labels)) if self.condition == "label" else self


class Averager(System[AveragerConfig]):
    """Encodes cells of 4 x 4 pixels, then learns to undo noise on the codes."""

    name = "averager"
    paper = Paper("Means", "Nobody", "Tests", 2026)
    config_class = AveragerConfig
    presets: ClassVar[Mapping[str, Preset[Any]]] = {
        "tiny": Preset("For tests.", AveragerConfig(), {"batch_size": 4, "steps": 8})
    }

    def __init__(self, config: AveragerConfig) -> None:
        super().__init__(config)
        self.encoder = nn.Conv3d(3, 3, (1, 4, 4), (1, 4, 4))
        self.register_buffer("scale", torch.full((3, 1, 1, 1), 2.0))
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))
        self.denoiser = nn.Sequential(nn.Conv3d(3, config.width, 3, padding=1), nn.SiLU(), nn.Conv3d(config.width, 3, 1))
        with torch.no_grad():
            self.encoder.weight.copy_(torch.eye(3)[:, :, None, None, None] / 16)
        if config.condition != "none":
            self.needs = frozenset({"video", config.condition})

    @property
    def clip_shape(self) -> ClipShape:
        return ClipShape(self.config.frames, self.config.size, self.config.size)

    def stages(self) -> dict[str, Stage]:
        learner = adam(self.config.rate)
        return {
            "compressor": (Player("compressor", (self.encoder,), self.compression, learner),),
            "denoiser": (Player("denoiser", (self.denoiser,), self.denoising, learner),),
        }

    def encode(self, video: Video) -> Tensor:
        return self.encoder(video).float() * self.scale

    def latents(self, stage: str) -> Callable[[Video], Tensor] | None:
        return self.encode if stage == "denoiser" else None

    def compression(self, batch: Batch) -> Objective:
        means = nn.functional.avg_pool3d(batch.video, (1, 4, 4))
        return Objective({"error": (self.encoder(batch.video) - means).abs().mean()})

    def denoising(self, batch: Batch) -> Objective:
        self.turns += 1
        own = self.encode(batch.video)
        code = own if batch.latent is None else batch.latent
        metrics = {
            "cached": torch.tensor(float(batch.latent is not None)),
            "mismatch": (own - code).abs().max(),
        }
        return Objective({"error": self.denoising_error(code)}, metrics)

    def denoising_error(self, code: Tensor) -> Tensor:
        noise = draw_rows(lambda rows: torch.randn(rows, *code.shape[1:]), len(code)).to(code)
        return (self.denoiser(code + noise) - code).square().mean()

    def validate(self, batch: Batch, stage: str) -> dict[str, Scalar]:
        if stage == "compressor":
            return {"error": self.compression(batch).total}
        return {"error": self.denoising_error(self.encode(batch.video))}

    def reconstruct(self, video: Video) -> Video:
        code = self.encode(video) / self.scale
        return code.repeat_interleave(4, 3).repeat_interleave(4, 4).clamp(-1, 1)

    def sampling_pass(self, batch: Batch) -> None:
        self.denoiser(self.encode(batch.video))
