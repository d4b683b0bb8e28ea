"""A system whose every number is known: it fills what is unknown with the mean of what is known, and remembers it.

It stands for systems that diffuse and complete where a test is about the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kinema.core.config import Config
from kinema.core.errors import ConfigError
from kinema.core.sampling import Sampling
from kinema.core.seeds import normal_codes
from kinema.core.system import Objective, Paper, Player, Preset, System, adam
from kinema.core.types import Batch, ClipShape, Labels, Video
from kinema.training.checkpoint import save_checkpoint

LABELS = ("bow", "walk", "wave")
LABEL_STEP = 0.25  # brightness of a class


@dataclass(frozen=True)
class FillingConfig(Config):
    """How it fills."""

    frames: int = 8
    height: int = 16
    width: int = 16
    noise: float = 0.05
    reads_text: bool = False


class Filling(System[FillingConfig]):
    """Fills with the mean of the known pixels, the brightness of the class and the seed's noise."""

    name = "filling"
    paper = Paper("Filling", "Nobody", "nowhere", 2026)
    config_class = FillingConfig
    presets: ClassVar = {"tiny": Preset("For tests.", FillingConfig())}
    footprint = (4, 8, 8)
    calls: ClassVar[list[dict[str, Any]]] = []

    def __init__(self, config: FillingConfig) -> None:
        super().__init__(config)
        self.level = nn.Parameter(torch.zeros(()))

    @property
    def clip_shape(self) -> ClipShape:
        return ClipShape(self.config.frames, self.config.height, self.config.width)

    @property
    def sampling(self) -> Sampling:
        return Sampling(steps=12)

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label", "caption") if self.config.reads_text else ("label",)

    def stages(self) -> dict[str, tuple[Player, ...]]:
        def objective(batch: Batch) -> Objective:
            return Objective({"error": (batch.video.mean() - self.level).square()})

        return {"filling": (Player("filler", (self,), objective, adam(1e-3)),)}

    def sampling_memory(self, shape: ClipShape, batch: int) -> int:
        return 1000 * batch * shape.frames * shape.height * shape.width

    def generate(self, seeds: Sequence[int], *, label: Labels | None = None) -> Video:
        return self.diffuse(seeds, label=label)

    def diffuse(
        self,
        seeds: Sequence[int],
        *,
        shape: ClipShape | None = None,
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
    ) -> Video:
        shape = shape or self.clip_shape
        empty = torch.zeros(len(seeds), 3, shape.frames, shape.height, shape.width)
        return self.inpaint(empty, empty[:, :1], seeds=seeds, label=label, caption=caption, sampling=sampling)

    def trajectory(self, seeds: Sequence[int], moments: int, **asked: Any) -> Sequence[Video]:
        clean, noise = self.diffuse(seeds, **asked), normal_codes(seeds, 3, *self._sides)
        return [(1 - share) * noise + share * clean for share in torch.linspace(0, 1, moments)]

    def noised(self, video: Video, moments: int, *, seed: int) -> Sequence[Video]:
        noise = normal_codes([seed] * len(video), *video.shape[1:])
        return [(1 - share) * video + share * noise for share in torch.linspace(0, 1, moments)]

    def inpaint(
        self,
        video: Video,
        known: Float[Tensor, "B 1 T H W"],
        *,
        seeds: Sequence[int],
        label: Labels | None = None,
        caption: Sequence[str] | None = None,
        sampling: Sampling | None = None,
        paste: bool = True,
    ) -> Video:
        if any(side % multiple for side, multiple in zip(video.shape[2:], self.footprint, strict=True)):
            raise ConfigError(f"a clip of {tuple(video.shape[2:])} is no multiple of 4x8x8")
        self.calls.append(
            {"shape": tuple(video.shape), "seeds": list(seeds), "known": known.mean((1, 3, 4)).tolist(), "label": label}
            | {"caption": caption, "sampling": sampling}
        )
        mean = (known * video).sum((1, 2, 3, 4)) / (3 * known.sum((1, 2, 3, 4))).clamp_min(1)
        if label is not None:
            mean = mean + LABEL_STEP * label
        filled = mean.reshape(-1, 1, 1, 1, 1) + self.config.noise * normal_codes(seeds, *video.shape[1:])
        return known * video + (1 - known) * filled if paste else filled

    @property
    def _sides(self) -> tuple[int, int, int]:
        return self.config.frames, self.config.height, self.config.width


def write_run(folder: Path, data: Path | None = None, **settings: Any) -> Path:
    """Write a run of the system, as if trained on clips of three classes at 12 frames per second."""
    folder.mkdir(parents=True)
    about = {"fps": 12.0, "labels": list(LABELS), **({"path": str(data)} if data else {})}
    config = replace(FillingConfig(), **settings)
    save_checkpoint(folder / "checkpoint.safetensors", Filling(config), stage="filling", dataset=about)
    return folder
