"""Speed of Everybody Dance Now: a training step against the same step in plain fp32, and generation.

Preset `laptop` (or ``--preset``) at 128 pixels, stage "global". The reference is the same trainer, networks and losses in fp32
and contiguous memory, with torch's own instance norm, reflection padding and convolutions. Each side has a process of its own,
ours as `kinema` starts, the reference as Python does; they take turns (A B A B ...), so that other load falls on both.
Medians are compared, of time on the clock and of processor time (which other load disturbs less). `ratio_of_arithmetic`
compares with a reference that has our allocator as well, and as many processes: with ``--processes`` ours trains in several
that share threads and pairs, as torchrun starts them, and the reference in one.

    python benchmarks/dance_step.py --threads 2
    python benchmarks/dance_step.py --threads 2 --processes 2
    python benchmarks/dance_step.py --preset small-gpu --device cuda --size 512

Prints one JSON line. Targets on two cores: ratio at least 1.8, generation at least 8 frames per second.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from clock import compared, name_of, serve, timed
from kinema.core.types import Batch
from kinema.nn.convolution import TransposedImages
from kinema.nn.resnet import InstanceNorm, NarrowConvolution, OpeningConvolution, Overlay, ReflectionPad
from kinema.systems.dance import Dance
from kinema.training import TrainConfig, Trainer, distributed

FRAMES = 24  # of a generated film


class TorchInstanceNorm(nn.Module):
    """torch's own, for any number of channels."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the normalised features."""
        return nn.functional.instance_norm(features)


def plain(system: Dance) -> Dance:
    """Put torch's own modules in place of the written ones."""
    for module in list(system.modules()):
        if isinstance(module, Overlay):
            module.forward = partial(composed, module)
        for name, part in list(module.named_children()):
            if isinstance(part, InstanceNorm):
                setattr(module, name, TorchInstanceNorm())
            elif isinstance(part, ReflectionPad):
                setattr(module, name, nn.ReflectionPad2d(part.reach))
            elif isinstance(part, TransposedImages):
                setattr(module, name, nn.ConvTranspose2d(part.in_channels, part.out_channels, 3, 2, 1, 1))
            elif isinstance(part, (NarrowConvolution, OpeningConvolution)):
                setattr(module, name, nn.Conv2d(part.in_channels, part.out_channels, part.kernel_size[0]))
    return system


def composed(overlay: Overlay, numbers: Tensor) -> Tensor:
    """Return what an overlay does, as it is written in a formula."""
    mask, generated = torch.sigmoid(numbers[:, 3:]), torch.tanh(numbers[:, :3])
    return mask * generated + (1 - mask) * overlay.background


def poses(rows: int, frames: int, side: int) -> Tensor:
    """Return joints at random places."""
    return torch.rand(rows, frames, 18, 3) * torch.tensor([side, side, 1.0])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Speed of Everybody Dance Now.")
    parser.add_argument("--preset", choices=list(Dance.presets), default="laptop", help="other settings of the dance")
    parser.add_argument("--size", type=int, default=128, help="of a frame in pixels")
    parser.add_argument("--batch", type=int, default=4, help="pairs of a step")
    parser.add_argument("--rounds", type=int, default=11, help="steps of either side that are timed")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--processes", type=int, default=1, help="that share the threads and the pairs of our step")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads // int(os.environ.get("WORLD_SIZE", "1")))
    torch.manual_seed(0)
    device = torch.device(options.device)
    config = replace(Dance.presets[options.preset].config, height=options.size, width=options.size)

    def build() -> Callable[[], object]:
        pairs = options.batch // distributed.processes()
        video = torch.rand(pairs, 3, config.chain, options.size, options.size, device=device) * 2 - 1
        batch = Batch(video, pose=poses(pairs, config.chain, options.size).to(device))
        if options.side == "ours":
            trainer = Trainer(Dance(config), "global", TrainConfig(precision="bf16"), device)
        else:
            trainer = Trainer(plain(Dance(config)), "global", TrainConfig(precision="fp32", channels_last=False), device)
        return partial(trainer.step, batch)

    if options.side:
        serve(build, device)
        return
    numbers = compared(__file__, sys.argv[1:], "ours", "plain", options.rounds, device, options.processes)

    dance = Dance(config).to(device).eval()
    film = poses(1, FRAMES, options.size).to(device)

    def generate() -> None:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            dance.transfer(film)

    generate()
    made = min(timed(generate, device) for _ in range(3))
    numbers |= {"frames_per_s": FRAMES / made[0], "frames_per_processor_s": FRAMES / made[1]}
    about = {"benchmark": "dance_step", "preset": options.preset, "size": options.size, "batch": options.batch}
    numbers = {name: round(value, 3) for name, value in numbers.items()}
    print(json.dumps({**about, "device": name_of(device), **numbers}))


if __name__ == "__main__":
    main()
