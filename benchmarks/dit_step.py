"""Speed of the latent video transformer: a training step of either stage against the same step in plain fp32.

Preset `laptop` unless said. The reference is the same trainer, networks and losses in fp32 and contiguous memory, with torch's
own attention, norms, depthwise convolution and Muon, and it encodes its clips in every step of the transformer. Each side has a
process of its own, ours as `kinema` starts, the reference as Python does; they take turns (A B A B ...), so that other load on
the machine falls on both. Medians are compared, of time on the clock and of processor time (which other load disturbs less).
`ratio_of_arithmetic` compares with a reference that has our allocator as well.

    python benchmarks/dit_step.py --threads 1
    python benchmarks/dit_step.py --device cuda --preset small-gpu --batch 64

Prints one JSON line; on a GPU with the share of a large bf16 product's speed that the operations of ours reach. Target: ratio
of a step of the transformer at least 1.8; `ratio_of_arithmetic` is the stricter reading.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torch.optim import Muon
from torch.utils.flop_counter import FlopCounterMode

from clock import compared, matmul_tflops, name_of, serve
from kinema.core.muon import BatchedMuon
from kinema.core.types import Batch
from kinema.systems.latent_video_dit import LatentVideoDiT, LatentVideoDiTConfig
from kinema.training import TrainConfig, Trainer

CLASSES = 8
BUDGET: dict[str, Any] = {"clip_gradients": 1.0, "ema_samples": 2000.0}


class Neighbours(nn.Conv3d):
    """torch's own depthwise convolution, on tokens."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what tokens take from their neighbours."""
        return super().forward(input.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)


class Modulated(nn.Module):
    """torch's own norm, scaled and shifted."""

    def forward(self, tokens: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Return the modulated tokens."""
        return torch.addcmul(shift, layer_norm(tokens, tokens.shape[-1:], eps=1e-6), 1 + scale)


def plain(system: LatentVideoDiT) -> LatentVideoDiT:
    """Put torch's own convolutions and norms in place of the written ones."""
    width = system.config.hidden
    system.transformer.norm = Modulated()  # pyright: ignore[reportAttributeAccessIssue]
    for block in system.transformer.blocks:
        block.norm = Modulated()
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


def trained(config: LatentVideoDiTConfig, stage: str, side: str, batch: Batch) -> tuple[Trainer, Batch]:
    """Return the trainer of a side and the batch that it is shown."""
    if side == "plain":
        reference = TrainConfig(precision="fp32", channels_last=False, **BUDGET)
        return alone(Trainer(plain(LatentVideoDiT(config)), stage, reference, batch.video.device)), batch
    system = LatentVideoDiT(config).to(batch.video.device)
    cached = batch if stage == "compressor" else replace(batch, latent=system.encode(batch.video).detach())
    return Trainer(system, stage, TrainConfig(precision="bf16", **BUDGET), batch.video.device), cached


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of the latent video transformer.")
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--size", type=int, help="of a frame in pixels; default: the preset's")
    parser.add_argument("--batch", type=int, default=16, help="clips of a step")
    parser.add_argument("--rounds", type=int, default=15, help="steps of either side that are timed")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = replace(LatentVideoDiT.presets[options.preset].config, condition="label", classes=CLASSES)
    size = options.size or config.height
    config = replace(config, height=size, width=size)

    def build(stage: str, side: str) -> Callable[[], object]:
        video = torch.rand(options.batch, 3, config.frames, size, size, device=device) * 2 - 1
        trainer, shown = trained(config, stage, side, Batch(video, torch.arange(options.batch, device=device) % CLASSES))
        return partial(trainer.step, shown)

    if options.side:
        serve(partial(build, *options.side.split("/")), device)
        return
    numbers: dict[str, dict[str, float]] = {}
    for stage in ("compressor", "transformer"):
        numbers[stage] = compared(__file__, sys.argv[1:], f"{stage}/ours", f"{stage}/plain", options.rounds, device)
        if device.type == "cuda":
            with FlopCounterMode(display=False) as counter:
                build(stage, "ours")()
            numbers[stage]["tflops"] = counter.get_total_flops() / numbers[stage]["step_s"] / 1e12
            numbers[stage]["share_of_matmul"] = numbers[stage]["tflops"] / matmul_tflops(device)
    rounded = {stage: {name: round(value, 3) for name, value in found.items()} for stage, found in numbers.items()}
    about = {"preset": options.preset, "size": size, "batch": options.batch, "device": name_of(device)}
    print(json.dumps({"benchmark": "dit_step", **about, **rounded}))


if __name__ == "__main__":
    main()
