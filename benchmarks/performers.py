"""Clips of procedural people per second, on one core and on every core; prints one JSON line.

The reference in the same run is a plain uint8 copy of the same clips: what writing the pixels costs at least.

    python benchmarks/performers.py --clips 200 --size 64
"""

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import cv2
import tyro

from kinema.data.performers import PerformersSettings, Variety, render_clip


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    clips: int = 200
    """Clips per measurement."""
    size: int = 64
    """Height and width in pixels."""
    variety: Variety = "low"
    """As in `kinema prepare performers`."""


def many(settings: PerformersSettings, start: int, stop: int) -> float:
    """Render a range of clips and return the processor's seconds."""
    cv2.setNumThreads(1)
    render_clip(start, settings)
    begin = time.process_time()
    for index in range(start, stop):
        render_clip(index, settings)
    return time.process_time() - begin


def main(arguments: Arguments) -> None:
    settings = PerformersSettings(clips=arguments.clips, size=arguments.size, variety=arguments.variety)
    alone = many(settings, 0, arguments.clips)
    forked = many(replace(settings, fork=("go_on", "turn_back", "kick", "squat")), 0, arguments.clips)
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(workers) as pool:
        list(pool.map(many, *zip(*[(settings, 0, 2)] * workers, strict=True)))  # start the workers
        begin = time.perf_counter()
        for job in [pool.submit(many, settings, k * arguments.clips, (k + 1) * arguments.clips) for k in range(workers)]:
            job.result()
        together = time.perf_counter() - begin
    video = render_clip(0, settings).video
    begin = time.process_time()
    for _ in range(arguments.clips):
        video.copy()
    copying = time.process_time() - begin
    numbers = {
        "benchmark": "performers",
        "clip": f"{settings.frames}x{settings.size}x{settings.size}",
        "variety": settings.variety,
        "clips_per_cpu_second": round(arguments.clips / alone, 1),
        "forked_clips_per_cpu_second": round(arguments.clips / forked, 1),
        "clips_per_second_all_cores": round(workers * arguments.clips / together, 1),
        "cores": workers,
        "copies_per_second": round(arguments.clips / max(copying, 1e-9)),
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
