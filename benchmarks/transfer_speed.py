"""Frames per second of ``kinema transfer`` from poses, beside the networks alone.

``python benchmarks/transfer_speed.py`` prints one JSON line. The target is an untrained ``dance`` of a preset at some size, for
speed does not depend on weights. Detection is not part of it; drawing, normalising, smoothing, encoding and writing are.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kinema.cli import main as kinema
from kinema.cli.trained import Trained
from kinema.core.types import Batch
from kinema.data.motions import sample_motion
from kinema.data.performers import Placement, render, sample_identity, sample_stage
from kinema.pose.files import write_poses
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18
from kinema.systems.dance import Dance
from kinema.training.checkpoint import save_checkpoint

FPS = 25.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    config = replace(Dance.presets[arguments.preset].config, height=arguments.size, width=arguments.size)
    rng = np.random.default_rng(0)
    motion = sample_motion("dance", arguments.frames, FPS, rng)
    film = render(motion, sample_identity("somebody", rng), sample_stage(rng), Placement(), size=arguments.size)
    poses = Poses(film.pose[:, None], COCO_18, arguments.size, arguments.size, FPS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_poses(folder / "poses.npz", poses)
        system = Dance(config)
        with torch.no_grad():
            seen = Batch(torch.zeros(1, 3, len(poses), *system.frame_shape), pose=torch.from_numpy(poses.filled()[None]))
            system.fit_statistics([seen])
        save_checkpoint(folder / "run.safetensors", system, stage="benchmark", dataset={"fps": FPS})
        words = [
            "--poses",
            folder / "poses.npz",
            "--target",
            folder / "run.safetensors",
            "--out",
            folder / "out.mp4",
            "--normalise",
            "none",
        ]
        began = time.perf_counter()
        status = kinema(["transfer", *map(str, words), "--device", arguments.device])
        whole = time.perf_counter() - began
        if status:
            raise SystemExit(status)
        trained = Trained(str(folder / "run.safetensors"), "transfer", arguments.device)
        began = time.perf_counter()
        for _ in trained.perform(poses.filled(), 16):
            pass
        networks = time.perf_counter() - began
    report = {
        "benchmark": "transfer_speed",
        "preset": arguments.preset,
        "size": arguments.size,
        "frames": arguments.frames,
        "device": str(trained.device),
        "threads": torch.get_num_threads(),
        "transfer_fps": round(arguments.frames / whole, 2),
        "networks_fps": round(arguments.frames / networks, 2),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
