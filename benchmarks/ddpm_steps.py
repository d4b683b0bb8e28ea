"""How much do few steps cost: DDIM at 20 steps beside DDIM at 200 from the same seeds, and as a floor, between other seeds.

``python benchmarks/ddpm_steps.py RUN`` samples a trained diffusion and prints one JSON line: root mean squares of the
difference, in [-1, 1], their PSNR and the seconds a clip takes.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from kinema.core.sampling import Sampling
from kinema.core.tasks import Diffuses
from kinema.core.types import Video
from kinema.training import load


def distance(one: Video, other: Video) -> dict[str, float]:
    """Return root mean square and PSNR of the difference of clips in [-1, 1]."""
    rms = (one - other).square().mean().sqrt().item()
    return {"rms": round(rms, 4), "psnr": round(20 * math.log10(2 / max(rms, 1e-6)), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a trained diffusion")
    parser.add_argument("--count", type=int, default=16, help="clips to sample")
    parser.add_argument("--few", type=int, default=20)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    system = load(arguments.run).to(arguments.device).eval()
    if not isinstance(system, Diffuses):
        parser.error(f"{arguments.run} is a run of {system.name}, which does not diffuse; name one that does, such as of ddpm")
    made, seconds = {}, {}
    for steps in (arguments.few, arguments.many):
        began = time.perf_counter()
        made[steps] = system.diffuse(range(arguments.count), sampling=Sampling(sampler="ddim", steps=steps)).float().cpu()
        seconds[steps] = round((time.perf_counter() - began) / arguments.count, 3)
    few, many = made[arguments.few], made[arguments.many]
    line = {
        "benchmark": "ddpm_steps",
        "steps": [arguments.few, arguments.many],
        "count": arguments.count,
        "same_seeds": distance(few, many),
        "other_seeds": distance(many, many.roll(1, 0)),
        "seconds_per_clip": list(seconds.values()),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
