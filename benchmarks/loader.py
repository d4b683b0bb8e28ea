"""Speed of the loader on random clips of 32x64x64 from a warm page cache, and how long a trainer waits for it.

The plain reference reads the same clips from the same shards, members found beforehand, with `tarfile` and `numpy.load`.
Both sides are timed in turns (A B A B ...), so that other load on the machine falls on both; the medians are compared. Then
a stand-in for a trainer takes batches to the device and computes for `--step` milliseconds on each; what it waits for data
is measured.

    python benchmarks/loader.py                 # 2,048 clips, 0.8 GB in a temporary folder
    python benchmarks/loader.py --flip --step 43

Prints one JSON line. Targets: at least 4 GB/s, at least 0.95 of the trainer's time not waiting.
"""

import argparse
import io
import json
import os
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch

from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.data.loader import Loader

FRAMES, HEIGHT, WIDTH = 32, 64, 64
CLIP = FRAMES * HEIGHT * WIDTH * 3
PER_SHARD = 256


def write_noise(folder: Path, clips: int) -> Dataset:
    """Write a dataset of noise; a clip is a window of one random string."""
    noise = np.random.default_rng(0).integers(0, 256, CLIP + clips, dtype=np.uint8)

    def clip(number: int) -> Clip:
        record = ClipRecord(f"{number:06d}", "noise", 0, 25.0)
        return Clip(record, noise[number : number + CLIP].reshape(FRAMES, HEIGHT, WIDTH, 3))

    names = tuple(shard_name(number) for number in range(-(-clips // PER_SHARD)))
    for shard, name in enumerate(names):
        write_shard(folder / name, map(clip, range(shard * PER_SHARD, min(clips, (shard + 1) * PER_SHARD))))
    write_info(folder, DatasetInfo(FRAMES, HEIGHT, WIDTH, 25.0, names, clips))
    return Dataset(folder)


def plain_batches(folder: Path, batch: int) -> Iterator[np.ndarray]:
    """Yield random batches as a short script would read them."""
    generator = np.random.default_rng(0)
    with ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(path)) for path in sorted((folder / "shards").iterdir())]
        videos = [(tar, member) for tar in tars for member in tar.getmembers() if member.name.endswith("video.npy")]
        while True:
            clips = []
            for number in generator.integers(len(videos), size=batch):
                tar, member = videos[number]
                file = tar.extractfile(member)
                clips.append(np.load(io.BytesIO(file.read() if file else b"")))
            yield np.stack(clips)


def gigabytes_per_second(take: Callable[[], int], batches: int) -> float:
    """Time `batches` calls; a call returns its bytes."""
    start = time.perf_counter()
    size = sum(take() for _ in range(batches))
    return size / (time.perf_counter() - start) / 1e9


def waiting(loader: Loader, device: torch.device, step: float, steps: int) -> float:
    """Return the share of its time that a trainer of `step` seconds waits for batches."""
    matrix, product = torch.randn(512, 512), torch.empty(512, 512)
    waited = 0.0
    batches = iter(loader)
    next(batches)
    start = time.perf_counter()
    for _ in range(steps):
        asked = time.perf_counter()
        clips = next(batches)
        waited += time.perf_counter() - asked
        clips.to_batch(device)
        end = time.perf_counter() + step
        while time.perf_counter() < end:
            torch.mm(matrix, matrix, out=product)
    return waited / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=20, help="batches per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flip", action="store_true", help="mirror half of the clips")
    parser.add_argument(
        "--step", type=float, default=43, help="milliseconds of a training step; 43 is 1,500 clips/s at batch 64"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_noise(Path(folder), arguments.clips)
        start = time.perf_counter()
        dataset = Dataset(folder)
        opening = time.perf_counter() - start
        loader = Loader(dataset, arguments.batch, flip=arguments.flip, pin_memory=device.type == "cuda")
        ours, plain = iter(loader), plain_batches(Path(folder), arguments.batch)
        sides = {"kinema": lambda: next(ours).frames.numel(), "plain": lambda: next(plain).nbytes}
        speed: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.rounds + 1):  # the first warms caches and memory
            for name, take in sides.items():
                measured = gigabytes_per_second(take, arguments.batches)
                if turn:
                    speed[name].append(measured)
        share = waiting(loader, device, arguments.step / 1000, arguments.batches)
    medians = {name: statistics.median(values) for name, values in speed.items()}
    report = {
        "benchmark": "loader",
        "clips": arguments.clips,
        "batch": arguments.batch,
        "flip": arguments.flip,
        "load_before": round(load, 2),
        "gigabytes_per_second": {name: round(value, 2) for name, value in medians.items()},
        "rounds": {name: [round(value, 2) for value in values] for name, values in speed.items()},
        "ratio": round(medians["kinema"] / medians["plain"], 1),
        "target_gigabytes_per_second": 4,
        "step_milliseconds": arguments.step,
        "not_waiting": round(1 - share, 4),
        "target_not_waiting": 0.95,
        "opening_microseconds_per_clip": round(opening / arguments.clips * 1e6, 1),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
