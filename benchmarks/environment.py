"""Speed and memory of training steps in the environment that `kinema` gives itself, against others.

`kinema` starts with mimalloc and lets threads that wait sleep after `kinema.cli.SPINS` looks for work; the others have glibc's
malloc, or threads that sleep sooner, or as late as GNU's OpenMP lets them.

    python benchmarks/environment.py
    python benchmarks/environment.py --turns 9

Every turn starts a process in each, which plays steps of the dance (128 pixels), the video transformer (16x32x32) and VGAN
(`laptop`) on all cores. Prints one JSON line: milliseconds of a step, medians over the turns of medians within one, how many
times as long as with `kinema`, and the largest memory of a process in MiB. Nothing else should run on the machine.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from dataclasses import replace
from functools import partial

import torch

from clock import timed
from dance_step import poses
from kinema.cli import SPINS
from kinema.cli.allocator import installed_mimalloc, prefer_mimalloc
from kinema.core.types import Batch
from kinema.systems.dance import Dance
from kinema.systems.latent_video_dit import LatentVideoDiT
from kinema.systems.vgan import VGAN
from kinema.training import TrainConfig, Trainer

ENVIRONMENTS: dict[str, dict[str, str]] = {
    "kinema": {"GOMP_SPINCOUNT": SPINS},
    "glibc": {"GOMP_SPINCOUNT": SPINS, "LD_PRELOAD": ""},
    "10,000 looks": {"GOMP_SPINCOUNT": "10000"},
    "300,000 looks": {"GOMP_SPINCOUNT": "300000"},
}
STEPS = {"dance": 30, "latent-video-dit": 50, "vgan": 12}


def trainer_of(name: str) -> tuple[Trainer, Batch]:
    """Return a trainer and what it is shown."""
    config = TrainConfig(precision="bf16", ema_samples=2000.0)
    if name == "dance":
        dance = replace(Dance.presets["laptop"].config, height=128, width=128)
        video = torch.rand(4, 3, dance.chain, 128, 128) * 2 - 1
        return Trainer(Dance(dance), "global", config), Batch(video, pose=poses(4, dance.chain, 128))
    if name == "vgan":
        vgan = VGAN(VGAN.presets["laptop"].config)
        shape = vgan.clip_shape
        stage = next(name for name, players in vgan.stages().items() if isinstance(players, tuple))
        return Trainer(vgan, stage, config), Batch(torch.rand(16, 3, shape.frames, shape.height, shape.width) * 2 - 1)
    classes = 8
    system = LatentVideoDiT(replace(LatentVideoDiT.presets["laptop"].config, condition="label", classes=classes))
    batch = Batch(torch.rand(16, 3, 16, 32, 32) * 2 - 1, torch.arange(16) % classes)
    return Trainer(system, "transformer", config), replace(batch, latent=system.encode(batch.video).detach())


def measure() -> dict[str, float]:
    """Return milliseconds of a step of every system, and the memory of this process."""
    found = {}
    for name, steps in STEPS.items():
        trainer, batch = trainer_of(name)
        seconds = [timed(partial(trainer.step, batch), torch.device("cpu"))[0] for _ in range(steps + 5)][5:]
        found[name] = 1000 * statistics.median(seconds)
        del trainer, batch
    return found | {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def turn(environment: dict[str, str]) -> dict[str, float]:
    """Measure in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "GOMP_SPINCOUNT")}
    command = [sys.executable, __file__, "--measure"]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Take turns and print."""
    parser = argparse.ArgumentParser(description="Speed of training in several environments.")
    parser.add_argument("--turns", type=int, default=5, help="processes in each")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        prefer_mimalloc()
        print(json.dumps(measure()))
        return
    if installed_mimalloc() is None:
        raise SystemExit("cmeel-mimalloc is not installed: pip install -c constraints.txt cmeel-mimalloc")
    turns = [{name: turn(environment) for name, environment in ENVIRONMENTS.items()} for _ in range(options.turns)]
    medians = {
        name: {key: statistics.median(one[name][key] for one in turns) for key in (*STEPS, "memory")} for name in ENVIRONMENTS
    }
    ratios = {
        name: {key: round(found[key] / medians["kinema"][key], 3) for key in STEPS}
        for name, found in medians.items()
        if name != "kinema"
    }
    rounded = {name: {key: round(value, 1) for key, value in found.items()} for name, found in medians.items()}
    about = {"benchmark": "environment", "threads": torch.get_num_threads(), "turns": options.turns}
    print(json.dumps({**about, **rounded, "ratio": ratios}))


if __name__ == "__main__":
    main()
