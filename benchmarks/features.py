"""Speed of feature extraction against the network alone, and of the distances between sets of features.

The reference is the bare forward pass on pixels that lie in memory, resized, scaled and in the batches that kinema makes;
kinema reads as many clips from a dataset, prepares them and measures their motion too. Both sides are timed in turns
(A B A B ...), so that other load falls on both, in processor seconds on a CPU (which load stretches less than the clock) and in
seconds on a GPU; medians are compared. The weights of i3d and inception are random here: speed does not depend on them.

    python benchmarks/features.py                           # the packaged network, 32 clips of 16x64x64
    python benchmarks/features.py --features i3d --clips 4 --rounds 3
    python benchmarks/features.py --features none           # the distances alone

Prints one JSON line. Targets: extraction at least 0.9 of the network's own speed; both distances of 10,000 x 1,280 features in
under 10 seconds on two cores.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.evaluation import features, i3d, inception
from kinema.evaluation.frechet import frechet_distance, kernel_distance
from kinema.evaluation.measures import AT_ONCE, measure_all
from kinema.evaluation.network import FeatureNetwork

VECTORS, SIZE = 10_000, 1280


def write_noise(folder: Path, clips: int, frames: int, size: int) -> Dataset:
    """Write a dataset of one shard of noise."""
    noise = np.random.default_rng(0)

    def clip(number: int) -> Clip:
        video = noise.integers(0, 256, (frames, size, size, 3), dtype=np.uint8)
        return Clip(ClipRecord(f"{number:06d}", "noise", 0, 25.0), video)

    write_shard(folder / shard_name(0), map(clip, range(clips)))
    write_info(folder, DatasetInfo(frames, size, size, 25.0, (shard_name(0),), clips))
    return Dataset(folder)


def open_network(name: str, device: torch.device, folder: Path) -> FeatureNetwork:
    """Open a network by name, with random weights where it has none of its own."""
    made = {i3d.NAME: i3d.InceptionI3d, inception.NAME: inception.InceptionV3}
    if name not in made:
        return features.open_features(name, device)
    torch.save(made[name]().state_dict(), folder / "weights.pt")
    return features.open_features(name, device, weights=folder / "weights.pt")


def bare(name: str, network: Any, frames: int) -> tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...], int]:
    """Return the forward pass of the network alone, the shape of one of its samples, and samples at once."""
    inner = network._network
    if name == i3d.NAME:
        return inner, (3, frames, i3d.VIEW, i3d.VIEW), max(1, i3d.FRAMES_AT_ONCE // frames)
    if name == inception.NAME:
        return inner, (3, inception.VIEW, inception.VIEW), inception.FRAMES_AT_ONCE
    return (
        lambda pixels: inner.extract_features(pixels).mean(dim=(2, 3)),
        (3, features.VIEW, features.VIEW),
        features.FRAMES_AT_ONCE,
    )


def seconds(work: Callable[[], Any], device: torch.device) -> float:
    """Time some work: processor seconds on a CPU, seconds on a GPU."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    began = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def extraction(arguments: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Time both sides in turns."""
    name, frames, clips = arguments.features, arguments.frames, arguments.clips
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_noise(Path(folder), clips, frames, arguments.size)
        network = open_network(name, device, Path(folder))
        forward, shape, at_once = bare(name, network, frames)
        per_clip = 1 if name == i3d.NAME else frames
        # As kinema splits them: AT_ONCE clips come together and are divided further.
        together = min(AT_ONCE, clips) * per_clip
        batches = [torch.randn(min(at_once, together - first), *shape, device=device) for first in range(0, together, at_once)]
        if len(shape) == 3:
            batches = [batch.contiguous(memory_format=torch.channels_last) for batch in batches]

        def alone() -> None:
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                for _ in range(clips // min(AT_ONCE, clips)):
                    for batch in batches:
                        forward(batch).cpu()

        def read(indices: Sequence[int]) -> list[np.ndarray]:
            return [dataset.video(index) for index in indices]

        sides = {"network": alone, "kinema": lambda: measure_all(read, range(clips), network)}
        spent: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(arguments.rounds + 1):  # the first warms caches and memory
            for side, work in sides.items():
                measured = seconds(work, device)
                if turn:
                    spent[side].append(measured)
    medians = {side: statistics.median(values) for side, values in spent.items()}
    return {
        "features": name,
        "clips": f"{clips}x{frames}x{arguments.size}x{arguments.size}",
        "seconds": {side: round(value, 3) for side, value in medians.items()},
        "rounds": {side: [round(value, 3) for value in values] for side, values in spent.items()},
        "ratio": round(medians["network"] / medians["kinema"], 3),
        "target_ratio": 0.9,
    }


def distances(threads: int) -> dict[str, Any]:
    """Time both distances once, by the clock and in processor seconds per thread."""
    generator = np.random.default_rng(0)
    real, fake = (generator.standard_normal((VECTORS, SIZE)).astype(np.float32) for _ in range(2))
    found: dict[str, Any] = {}
    for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
        wall, processor = time.perf_counter(), time.process_time()
        distance(real, fake)
        found[f"{name}_seconds"] = round(time.perf_counter() - wall, 2)
        found[f"{name}_processor_seconds"] = round(time.process_time() - processor, 2)
    return {"vectors": f"{VECTORS}x{SIZE}", "threads": threads, **found, "target_seconds": 10}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default=features.PACKAGED, help=f"{features.PACKAGED}, i3d, inception or none")
    parser.add_argument("--clips", type=int, default=32, help="a multiple of 8, or fewer than 8")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    report: dict[str, Any] = {"benchmark": "features", "load_before": round(os.getloadavg()[0], 2), "device": device.type}
    if arguments.features == "none":
        report |= distances(torch.get_num_threads())
    else:
        report |= extraction(arguments, device)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
