"""Tensors and batches that every layer agrees on.

Letters: B batch, C channels, T frames, H height, W width, Z code. Pixels are float in [-1, 1].
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kinema.core.shape import ClipShape as ClipShape

Video = Float[Tensor, "B C T H W"]
Image = Float[Tensor, "B C H W"]
Code = Float[Tensor, "B Z"]
Labels = Int[Tensor, "B"]
Scalar = Float[Tensor, ""]


@dataclass(frozen=True)
class Batch:
    """One training batch; a system's `needs` names the fields that must be present.

    Attributes:
        video: clips in [-1, 1].
        label: class index per clip.
        pose: joints per frame, (x, y, confidence) in pixels.
        mask: foreground in [0, 1].
        caption: one sentence per clip.
        latent: what a frozen compressor makes of the clips, computed once for all (see `System.latents`).
    """

    video: Video
    label: Labels | None = None
    pose: Float[Tensor, "B T J 3"] | None = None
    mask: Float[Tensor, "B 1 T H W"] | None = None
    caption: tuple[str, ...] | None = None
    latent: Float[Tensor, "B Z t h w"] | None = None

    def __len__(self) -> int:
        return len(self.video)

    @property
    def carries(self) -> frozenset[str]:
        """Names of the fields that are present."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with every tensor on `device`."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if isinstance(v, Tensor)})
