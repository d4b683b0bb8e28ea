"""Speed of the latent video transformer on a processor: a training step of either stage against the same step in plain fp32.

Preset `laptop`. The reference is the same trainer, networks and losses in fp32 and contiguous memory, with torch's own
attention, depthwise convolution and Muon, and it encodes its clips in every step of the transformer. Both sides take turns
(A B A B ...), so that other load on the machine falls on both; medians are compared, of time on the clock and of processor time
(which other load disturbs less).

    python benchmarks/dit_step.py --threads 1

Prints one JSON line. Target: ratio of a step of the transformer at least 1.8.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Muon

from kinema.core.muon import BatchedMuon
from kinema.core.types import Batch
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.training import TrainConfig, Trainer

CLASSES = 8
BUDGET: dict[str, Any] = {"clip_gradients": 1.0, "ema_samples": 2000.0}


class Neighbours(nn.Conv3d):
    """torch's own depthwise convolution, on tokens."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what tokens take from their neighbours."""
        return super().forward(input.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


def plain(system: LatentVideoDiT) -> LatentVideoDiT:
    """Put torch's own convolutions in place of the written ones."""
    width = system.config.hidden
    for block in system.transformer.blocks:
        neighbours = Neighbours(width, width, 3, padding=1, groups=width)
        nn.init.zeros_(neighbours.weight)
        block.neighbours = neighbours
    return system


def alone(trainer: Trainer) -> Trainer:
    """Let Muon move one matrix after the other, as torch's does."""
    for optimizer in (optimizer for turn in trainer.turns for optimizer in turn.optimizers):
        if isinstance(optimizer, BatchedMuon):
            optimizer.step = partial(Muon.step, optimizer)
    return trainer


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return seconds on the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def compared(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the medians of both and their ratio."""
    for work in (ours, theirs, ours, theirs):
        work()
    times = [[timed(work) for work in (ours, theirs)] for _ in range(rounds)]
    medians = [[statistics.median(one[side][kind] for one in times) for kind in (0, 1)] for side in (0, 1)]
    return {
        "step_s": medians[0][0],
        "plain_step_s": medians[1][0],
        "ratio": medians[1][0] / medians[0][0],
        "processor_ratio": medians[1][1] / medians[0][1],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of the latent video transformer.")
    parser.add_argument("--size", type=int, default=32, help="of a frame in pixels")
    parser.add_argument("--batch", type=int, default=16, help="clips of a step")
    parser.add_argument("--rounds", type=int, default=9, help="steps of either side that are timed")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = replace(
        LatentVideoDiT.presets["laptop"].config, height=options.size, width=options.size, condition="label", classes=CLASSES
    )
    batch = Batch(torch.rand(options.batch, 3, 16, options.size, options.size) * 2 - 1, torch.arange(options.batch) % CLASSES)
    numbers: dict[str, dict[str, float]] = {}
    for stage in ("compressor", "transformer"):
        system = LatentVideoDiT(config)
        cached = batch if stage == "compressor" else replace(batch, latent=system.encode(batch.video).detach())
        ours = Trainer(system, stage, TrainConfig(precision="bf16", **BUDGET))
        reference = TrainConfig(precision="fp32", channels_last=False, **BUDGET)
        theirs = alone(Trainer(plain(LatentVideoDiT(config)), stage, reference))
        numbers[stage] = compared(lambda: ours.step(cached), lambda: theirs.step(batch), options.rounds)  # noqa: B023
    rounded = {stage: {name: round(value, 3) for name, value in found.items()} for stage, found in numbers.items()}
    about = {"size": options.size, "batch": options.batch, "threads": options.threads}
    print(json.dumps({"benchmark": "dit_step", **about, **rounded}))


if __name__ == "__main__":
    main()
