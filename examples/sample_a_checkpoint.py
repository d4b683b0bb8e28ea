"""Load a trained system and sample from it: a seed is a clip, and codes between two seeds lead from one to the other.

python examples/sample_a_checkpoint.py runs/mine clips.npy
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

import kinema
from kinema.core.tasks import Generates, Interpolates, abilities
from kinema.training.sheets import to_pixels


@dataclass(frozen=True)
class Options:
    """What to load and where to write."""

    run: tyro.conf.Positional[str]
    out: tyro.conf.Positional[Path]
    count: int = 4


@torch.inference_mode()
def main(options: Options) -> None:
    system = kinema.load(options.run)
    print(f"{system.name} makes clips of {system.clip_shape} and can {', '.join(abilities(system))}")
    if not isinstance(system, Generates):
        raise SystemExit(f"{system.name} does not generate")
    video = system.generate(range(options.count))  # B C T H W in [-1, 1]
    if isinstance(system, Interpolates):
        video = torch.cat([video, system.interpolate(0, 1, steps=4)])
    np.save(options.out, to_pixels(video))  # uint8, B T H W 3


if __name__ == "__main__":
    main(tyro.cli(Options))
