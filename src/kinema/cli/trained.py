"""A trained system behind the sampling verbs: pixels in, pixels out. Imported when a verb starts to work: it needs torch."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from kinema.core.errors import CheckpointError, EvaluationError
from kinema.core.system import System
from kinema.core.tasks import abilities
from kinema.core.types import Video
from kinema.evaluation.clips import PIXELS, Source, open_clips
from kinema.systems import SYSTEMS
from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX, load_checkpoint, resolve
from kinema.training.distributed import choose_device
from kinema.training.sheets import to_pixels

USUAL_FPS = 25.0  # of a checkpoint that does not say how fast its clips run

Clips = UInt8[np.ndarray, "B T H W 3"]


class Trained:
    """A system out of a checkpoint, on its device.

    Args:
        run: run directory, checkpoint file or ``zoo:NAME``.
        ability: what is wanted of it, one of `kinema.core.tasks.PROTOCOLS`.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        CheckpointError: when there is no such checkpoint, or its system lacks the ability.
        TrainingError: for a device that is not there.
    """

    def __init__(self, run: str, ability: str, device: str = "auto") -> None:
        self.device = choose_device(device)
        checkpoint = load_checkpoint(resolve(run))
        self.system: Any = checkpoint.system.to(self.device)
        self.metadata = checkpoint.metadata
        self.name = run.removeprefix(ZOO_PREFIX) if run.startswith(ZOO_PREFIX) else Path(run).resolve().stem
        refuse_unable(checkpoint.system, ability)

    @property
    def fps(self) -> float:
        """Frames per second of the clips it was trained on."""
        return float(self.metadata.dataset.get("fps") or USUAL_FPS)

    @torch.inference_mode()
    def generate(self, seeds: Sequence[int], labels: Sequence[int] | None = None) -> Clips:
        """Return a clip per seed, of the classes that are asked for."""
        wanted = {} if labels is None else {"label": torch.tensor(labels, device=self.device)}
        return to_pixels(self.system.generate(seeds, **wanted))

    @torch.inference_mode()
    def streams(self, seeds: Sequence[int]) -> tuple[Mapping[str, Clips], Tensor]:
        """Return the streams by name, and the least, mean and greatest value of the mask of every clip, shape (B, 3)."""
        streams = self.system.streams(seeds)
        mask = (streams["mask"].float() + 1).div(2).flatten(1) if "mask" in streams else torch.zeros(len(seeds), 1)
        ranges = torch.stack([mask.amin(dim=1), mask.mean(dim=1), mask.amax(dim=1)], dim=1)
        return {name: to_pixels(video) for name, video in streams.items()}, ranges

    @torch.inference_mode()
    def interpolate(self, start: int, end: int, steps: int) -> Clips:
        """Return clips that lead from one seed to another."""
        return to_pixels(self.system.interpolate(start, end, steps))

    @torch.inference_mode()
    def predict(self, past: UInt8[np.ndarray, "B past H W 3"], seeds: Sequence[int]) -> Clips:
        """Return the future of every past."""
        return to_pixels(self.system.predict(self._video(past), seeds=seeds))

    @torch.inference_mode()
    def reconstruct(self, clips: Clips) -> Clips:
        """Return the clips as the system remembers them."""
        return to_pixels(self.system.reconstruct(self._video(clips)))

    def _video(self, clips: Clips) -> Video:
        return torch.from_numpy(clips).to(self.device).permute(0, 4, 1, 2, 3).div(127.5).sub_(1)


def refuse_unable(system: System[Any], ability: str) -> None:
    """Raise `CheckpointError` naming the systems that have an ability, where `system` lacks it."""
    if ability not in abilities(system):
        able = [name for name, other in SYSTEMS.items() if ability in abilities(other)]
        verb = "show streams" if ability == "streams" else ability
        raise CheckpointError(f"{system.name} cannot {verb}; systems that can: {', '.join(able) or 'none'}")


def open_source(name: str, device: str = "auto") -> Source:
    """Return the clips to be judged that a name stands for.

    Args:
        name: run directory, checkpoint file or ``zoo:NAME``, which make clips out of seeds; or a dataset, a folder of clip
            files or an ``.npy``, which hold them.
        device: where a system makes them.

    Raises:
        EvaluationError: when there is no such thing, or it holds no clips.
        CheckpointError: for a damaged checkpoint, or a system that does not generate.
    """
    path = Path(name)
    if name.startswith(ZOO_PREFIX) or path.suffix == ".safetensors" or (path / CHECKPOINT_NAME).exists():
        return _system_source(name, device)
    if not path.exists():
        raise EvaluationError(f"{path} does not exist; give a run, a checkpoint file, zoo:NAME, a dataset or a folder of clips")
    return open_clips(path)


def _system_source(name: str, device: str) -> Source:
    trained = Trained(name, "generate", device)
    metadata, fps = trained.metadata, trained.metadata.dataset.get("fps")
    about = {
        "system": metadata.system,
        "stage": metadata.stage,
        "steps": metadata.steps,
        "checkpoint sha256": hashlib.sha256(resolve(name).read_bytes()).hexdigest(),
    }
    rate = float(fps) if fps else None
    source = Source(name, metadata.clip, rate, PIXELS, None, lambda seeds: list(trained.generate(seeds)), about)
    if "label" not in trained.system.needs:
        return source
    labels = tuple(metadata.dataset.get("labels", ()))
    return replace(source, by_label=lambda seeds, labels: list(trained.generate(seeds, labels)), labels=labels)
