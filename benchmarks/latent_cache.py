"""Speed of a training step on latents that are kept, against one that encodes its clips itself, in one run.

The same trainer, system, clips and batch on both sides, timed in turns (A B A B ...), so that other load on the machine falls
on both; the medians are compared, of time on the clock and of processor time. Reading the batch counts on both sides. The
encoding that comes once before is timed too, and said as the number of steps after which it has paid.

    python benchmarks/latent_cache.py DATA --system latent-video-dit --preset laptop
    python benchmarks/latent_cache.py              # a stand-in: the convolutional VAE and transformer of 64 tokens

Prints one JSON line. Target: ratio at least 1.2.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from kinema.core.config import Config
from kinema.core.system import Fit, Objective, Paper, Player, Preset, Stage, System, adam
from kinema.core.types import Batch, ClipShape, Video
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.data.loader import Clips, Loader
from kinema.systems import SYSTEMS
from kinema.training import TrainConfig, Trainer
from kinema.training.latents import keep_latents


@dataclass(frozen=True)
class StandInConfig(Config):
    """Settings of the stand-in."""

    width: int = 128
    """Of the transformer."""


class StandIn(System[StandInConfig]):
    """Encoder and transformer in the sizes of a small latent video transformer: 16x32x32, 8x8x8 latents, 64 tokens."""

    name = "stand-in"
    paper = Paper("Benchmark", "kinema", "none", 2026)
    config_class = StandInConfig
    presets: ClassVar[Mapping[str, Preset[Any]]] = {"tiny": Preset("The only one.", StandInConfig())}

    def __init__(self, config: StandInConfig) -> None:
        super().__init__(config)
        convolutions: list[nn.Module] = []
        for _ in range(4):
            convolutions += [nn.GroupNorm(8, 64), nn.SiLU(), nn.Conv3d(64, 64, 3, padding=1)]
        self.encoder = nn.Sequential(nn.Conv3d(96, 64, 1), *convolutions, nn.Conv3d(64, 8, 1))
        layer = nn.TransformerEncoderLayer(config.width, 4, 4 * config.width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.into, self.out = nn.Linear(64, config.width), nn.Linear(config.width, 64)
        self.transformer = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)

    @property
    def clip_shape(self) -> ClipShape:
        """Shape of a clip."""
        return ClipShape(16, 32, 32)

    def stages(self) -> Mapping[str, Stage]:
        """Return the one stage; the encoder is frozen as it was made."""
        moves = (self.into, self.transformer, self.out)
        return {"transformer": (Player("transformer", moves, self.objective, adam(1e-3)),)}

    def latents(self, stage: str) -> Callable[[Video], Tensor]:
        """Return the encoder."""
        return self.encode

    def encode(self, video: Video) -> Tensor:
        """Fold space and time into channels and convolve."""
        return self.encoder(rearrange(video, "b c (t i) (h j) (w k) -> b (c i j k) t h w", i=2, j=4, k=4))

    def objective(self, batch: Batch) -> Objective:
        """Predict the velocity of a straight path from the latents to noise."""
        clean = self.encode(batch.video) if batch.latent is None else batch.latent
        noise, moment = torch.randn_like(clean), torch.rand(len(clean), 1, 1, 1, 1, device=clean.device)
        tokens = rearrange(clean + moment * (noise - clean), "b c (t i) (h j) (w k) -> b (t h w) (c i j k)", i=2, j=2, k=2)
        found = self.out(self.transformer(self.into(tokens)))
        aim = rearrange(noise - clean, "b c (t i) (h j) (w k) -> b (t h w) (c i j k)", i=2, j=2, k=2)
        return Objective({"flow": (found - aim).square().mean()})

    def sampling_pass(self, batch: Batch) -> None:
        """Nothing here has batch norm."""


def noise_clips(folder: Path, clips: int) -> Path:
    """Write clips of noise, for speed does not depend on what they show."""
    videos = np.random.default_rng(0).integers(0, 256, (clips, 16, 32, 32, 3), dtype=np.uint8)
    made = (Clip(ClipRecord(f"{i:05d}", "noise", 0, 25.0), video) for i, video in enumerate(videos))
    write_shard(folder / shard_name(0), made)
    write_info(folder, DatasetInfo(16, 32, 32, fps=25.0, shards=(shard_name(0),), kept=clips))
    return folder


def stage_with_latents(system: System[Any]) -> str:
    """Return the first stage that trains on latents."""
    names = (name for name, stage in system.stages().items() if not isinstance(stage, Fit))
    return next(name for name in names if system.latents(name) is not None)


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds that work took, on the clock and of processors."""
    began, busy = time.perf_counter(), time.process_time()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began, time.process_time() - busy


def step(trainer: Trainer, batches: Iterator[Clips]) -> None:
    """Read a batch and train on it."""
    trainer.step(next(batches).to_batch(trainer.device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="a prepared dataset; default: noise")
    parser.add_argument("--system", help="default: the stand-in")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--clips", type=int, default=256, help="of noise")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=3, help="rounds that are not counted")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, load = torch.device(arguments.device), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as scratch:
        dataset = Dataset(arguments.data or noise_clips(Path(scratch) / "data", arguments.clips))
        kind = SYSTEMS[arguments.system] if arguments.system else StandIn
        config = kind.presets[arguments.preset].config if arguments.system else StandInConfig()
        system = kind(config.for_labels(dataset.info.labels))
        for stage in system.stages().values():
            if isinstance(stage, Fit):
                stage.run(
                    clips.to_batch() for clips in islice(Loader(dataset, arguments.batch, fields=system.needs).epoch(), 4)
                )
        trainer = Trainer(system, stage_with_latents(system), TrainConfig(), device)
        plain, cached = (
            Loader(dataset, arguments.batch, frames=system.clip_shape.frames, fields=system.needs) for _ in range(2)
        )
        said: list[str] = []
        encoding = timed(lambda: keep_latents(trainer, cached, Path(scratch) / "latents", said.append), device)
        sides = {"encoding": iter(plain), "kept": iter(cached)}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for turn in range(arguments.warmup + arguments.rounds):
            for name, batches in sides.items():
                taken = timed(lambda batches=batches: step(trainer, batches), device)
                if turn >= arguments.warmup:
                    seconds[name].append(taken)
        medians = {name: middle(values) for name, values in seconds.items()}
    (without, without_busy), (kept, kept_busy) = medians["encoding"], medians["kept"]
    report = {
        "benchmark": "latent_cache",
        "system": f"{arguments.system} {arguments.preset}" if arguments.system else "stand-in",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {arguments.threads} threads",
        "load_before": round(load, 2),
        "batch": arguments.batch,
        "ratio": round(without / kept, 2),
        "ratio_of_processor_time": round(without_busy / kept_busy, 2),
        "target": 1.2,
        "seconds": {"encoding": round(without, 4), "kept": round(kept, 4)},
        "encoding_once": {"clips": len(dataset), "seconds": round(encoding[0], 2), "said": said[0]},
        "pays_after_steps": round(encoding[1] / max(1e-9, without_busy - kept_busy)),
    }
    print(json.dumps(report))


def middle(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the medians of both kinds of time."""
    return statistics.median(wall for wall, _ in values), statistics.median(busy for _, busy in values)


if __name__ == "__main__":
    main()
