"""Speed of `kinema prepare` without stabilising, against decoding alone, and from one worker to two.

Decoding alone is PyAV's plain loop over the same files, one thread, without converting the pictures; a second loop also makes
RGB arrays of them in full size, by one reformatter per file. All sides are timed in turns (A B A B ...), on the clock and in
processor time with that of their workers; the medians are compared. Rates per core are in processor time, which does not mind
other load. Scaling is clock time of one worker over that of two, their start included, and wants an idle machine; beside it
stands what processor time allows: that of one worker over that of the parent and half of its two workers'.

    python benchmarks/prepare.py                                  # 8 made-up videos, four times: 640x360, 600 frames
    python benchmarks/prepare.py --footage FOLDER --repeats 5     # your own

Prints one JSON line. Targets: at least 0.7 of the frame rate per core, scaling at least 1.7.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from kinema.data.cutting import PrepareSettings
from kinema.data.encode import write_video
from kinema.data.prepare import prepare
from kinema.data.sources import find_sources

COPIES = 4  # of every made-up video, so that the work is long against the start of the workers


def write_footage(folder: Path, videos: int, frames: int, width: int, height: int) -> None:
    """Write videos of things that move in front of a textured wall, with the noise of a camera."""
    for number in range(videos):
        rng = np.random.default_rng(number)
        wall = cv2.resize(rng.integers(60, 200, (height // 16, width // 16, 3), dtype=np.uint8), (width, height))
        noise = rng.normal(0, 2, (8, height, width, 3)).astype(np.float32)
        video = np.empty((frames, height, width, 3), np.uint8)
        for t in range(frames):
            picture = wall.copy()
            for thing in range(4):
                phase = t * (0.01 + 0.01 * thing) + thing + number
                x, y = width * (0.5 + 0.4 * np.sin(phase)), height * (0.5 + 0.3 * np.cos(1.7 * phase))
                colour = (60 * thing, 200, 255 - 50 * thing)
                cv2.circle(picture, (int(x), int(y)), height // 8, colour, -1, cv2.LINE_AA)
            video[t] = np.clip(picture + noise[t % 8], 0, 255)
        write_video(folder / f"{number}.mp4", video, 25)
        for copy in range(1, COPIES):
            (folder / f"{number}.{copy}.mp4").hardlink_to(folder / f"{number}.mp4")


def decode(files: list[str], *, to_rgb: bool) -> int:
    """Decode all files and return the number of frames."""
    frames = 0
    for file in files:
        reformatter = VideoReformatter()  # one for all pictures of a file; `to_ndarray` would set one up for each
        with av.open(file) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            for frame in container.decode(stream):
                if to_rgb:
                    reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                frames += 1
    return frames


@dataclass(frozen=True)
class Seconds:
    """What one call took: on the clock, of this process, of the processes that it began and ended."""

    clock: float
    own: float
    workers: float


def now() -> Seconds:
    """Read all clocks."""
    workers = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Seconds(time.perf_counter(), time.process_time(), workers.ru_utime + workers.ru_stime)


def timed(function: Callable[[], object]) -> Seconds:
    """Time one call."""
    began = now()
    function()
    ended = now()
    return Seconds(ended.clock - began.clock, ended.own - began.own, ended.workers - began.workers)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--footage", type=Path, help="folder of videos instead of made-up ones")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", default="640x360", help="of made-up videos")
    parser.add_argument("--frames", type=int, default=600, help="of each made-up video")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        footage = options.footage or Path(temporary) / "footage"
        if options.footage is None:
            footage.mkdir()
            width, height = (int(side) for side in options.size.split("x"))
            write_footage(footage, 8, options.frames, width, height)
        files = [source.path for source in find_sources([footage]).sources]
        out = Path(temporary) / "data"
        settings = PrepareSettings(stabilise="off", duplicates=-1)

        def run(workers: int) -> None:
            prepare([footage], out, settings, workers=workers, overwrite=True)

        frames = decode(files, to_rgb=False)  # also warms the page cache
        sides: dict[str, Callable[[], object]] = {
            "decode": lambda: decode(files, to_rgb=False),
            "rgb": lambda: decode(files, to_rgb=True),
            "one": lambda: run(1),
            "two": lambda: run(2),
        }
        times: dict[str, list[Seconds]] = {name: [] for name in sides}
        for _ in range(options.repeats):
            for name, side in sides.items():
                times[name].append(timed(side))
    clock = {name: statistics.median(taken.clock for taken in values) for name, values in times.items()}
    busy = {name: statistics.median(taken.own for taken in values) for name, values in times.items()}
    workers = statistics.median(taken.workers for taken in times["two"])
    ratio, scaling = busy["decode"] / busy["one"], clock["one"] / clock["two"]
    result = {
        "benchmark": "prepare",
        "footage": str(options.footage.name if options.footage else options.size),
        "frames": frames,
        "decode_frames_per_core_second": round(frames / busy["decode"]),
        "decode_to_rgb_frames_per_core_second": round(frames / busy["rgb"]),
        "prepare_frames_per_core_second": round(frames / busy["one"]),
        "ratio": round(ratio, 3),
        "ratio_to_rgb": round(busy["rgb"] / busy["one"], 3),
        "seconds_one_worker": round(clock["one"], 2),
        "seconds_two_workers": round(clock["two"], 2),
        "processor_seconds_one_worker": round(busy["one"], 2),
        "processor_seconds_two_workers": round(busy["two"] + workers, 2),
        "scaling": round(scaling, 2),
        "scaling_of_processor_time": round(busy["one"] / (busy["two"] + workers / 2), 2),
        "load": round(os.getloadavg()[0], 1),
        "passes": ratio >= 0.7 and scaling >= 1.7,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
