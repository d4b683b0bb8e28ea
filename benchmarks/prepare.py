"""Speed of `kinema prepare` without stabilising, against decoding alone, and from one worker to two.

Decoding alone is PyAV's plain loop over the same files, one thread, without converting the pictures; a second loop also makes
RGB arrays of them, as everybody must who wants to see something. Both sides are timed in turns (A B A B ...) in processor time,
which is the frame rate per core and does not mind other load; the medians are compared. Scaling is wall-clock time of one
worker over that of two, their start included, and wants an idle machine.

    python benchmarks/prepare.py                                  # 8 made-up videos, four times: 640x360, 600 frames
    python benchmarks/prepare.py --footage FOLDER --repeats 5     # your own

Prints one JSON line. Targets: at least 0.7 of the frame rate per core, scaling at least 1.7.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

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
        with av.open(file) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.codec_context.thread_type = "NONE"
            for frame in container.decode(stream):
                if to_rgb:
                    frame.to_ndarray(format="rgb24")
                frames += 1
    return frames


def seconds(function: Callable[[], object], clock: Callable[[], float]) -> float:
    """Time one call."""
    began = clock()
    function()
    return clock() - began


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
        times: dict[str, list[float]] = {"decode": [], "rgb": [], "prepare": [], "one": [], "two": []}
        for _ in range(options.repeats):
            times["decode"].append(seconds(lambda: decode(files, to_rgb=False), time.process_time))
            times["rgb"].append(seconds(lambda: decode(files, to_rgb=True), time.process_time))
            times["prepare"].append(seconds(lambda: run(1), time.process_time))
            times["one"].append(seconds(lambda: run(1), time.perf_counter))
            times["two"].append(seconds(lambda: run(2), time.perf_counter))
        median = {name: statistics.median(values) for name, values in times.items()}
    ratio, scaling = median["decode"] / median["prepare"], median["one"] / median["two"]
    result = {
        "benchmark": "prepare",
        "footage": str(options.footage.name if options.footage else options.size),
        "frames": frames,
        "decode_frames_per_core_second": round(frames / median["decode"]),
        "decode_to_rgb_frames_per_core_second": round(frames / median["rgb"]),
        "prepare_frames_per_core_second": round(frames / median["prepare"]),
        "ratio": round(ratio, 3),
        "ratio_to_rgb": round(median["rgb"] / median["prepare"], 3),
        "seconds_one_worker": round(median["one"], 2),
        "seconds_two_workers": round(median["two"], 2),
        "scaling": round(scaling, 2),
        "load": round(os.getloadavg()[0], 1),
        "passes": ratio >= 0.7 and scaling >= 1.7,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
