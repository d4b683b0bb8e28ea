"""Size and reading time of a dataset's clips as pixels and as lossless video, the two ways in which a shard holds them.

    kinema prepare FOLDER --size 128 --storage pixels --out data/pixels
    python benchmarks/storage.py data/pixels

Encodes clips at even distances, checks that they come back to the bit, and times both ways in turns (A B A B ...), in processor
seconds of one core and from a warm page cache. Prints one JSON line.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from kinema.data.dataset import Clip, Dataset, shard_name, write_info, write_shard


def seconds(read: Callable[[int], np.ndarray], clips: int) -> float:
    """Return the processor seconds in which all clips are read and copied."""
    began = time.process_time()
    for index in range(clips):
        np.array(read(index))
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--window", type=int, default=16, help="frames of a window from the middle")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    whole = Dataset(arguments.data)
    chosen = np.unique(np.linspace(0, len(whole) - 1, arguments.clips).round().astype(int)).tolist()
    clips = [Clip(whole.record(index), whole.video(index)) for index in chosen]
    bytes_of, encoding, sides = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for way in ("pixels", "encoded"):
            place = Path(folder) / way
            began = time.process_time()
            write_shard(place / shard_name(0), clips, encoded=way == "encoded")
            encoding[way] = time.process_time() - began
            write_info(place, replace(whole.info, shards=(shard_name(0),), kept=len(clips)))
            bytes_of[way], sides[way] = (place / shard_name(0)).stat().st_size, Dataset(place)
        assert all(np.array_equal(sides["encoded"].video(i), clip.video) for i, clip in enumerate(clips))
        first = (whole.info.frames - arguments.window) // 2
        spent: dict[tuple[str, str], list[float]] = {(way, what): [] for way in sides for what in ("clip", "window")}
        for _ in range(arguments.rounds):
            for way, data in sides.items():
                spent[way, "clip"].append(seconds(data.video, len(clips)))
                spent[way, "window"].append(seconds(lambda i, data=data: data.video(i, first, arguments.window), len(clips)))
    report = {
        "benchmark": "storage",
        "data": str(arguments.data),
        "shape": str(whole.shape),
        "clips": len(clips),
        "load": round(os.getloadavg()[0], 2),
        "mebibytes_per_clip": {way: round(size / len(clips) / 2**20, 3) for way, size in bytes_of.items()},
        "times_smaller": round(bytes_of["pixels"] / bytes_of["encoded"], 2),
        "write_milliseconds_per_clip": {way: round(took / len(clips) * 1e3, 2) for way, took in encoding.items()},
    }
    for what in ("clip", "window"):
        report[f"read_milliseconds_per_{what}"] = {
            way: round(statistics.median(spent[way, what]) / len(clips) * 1e3, 2) for way in sides
        }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
