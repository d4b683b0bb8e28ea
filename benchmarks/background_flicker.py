"""How much does the background of generated clips flicker, where nothing moves in real ones?

``python benchmarks/background_flicker.py DATA RUN [RUN ...]`` prints one JSON line.

Still places are the quarter of the picture with the smallest mean temporal deviation over all real clips. Flicker is the root
mean square difference of consecutive frames there, on the 0-255 scale; the real clips' own flicker stands beside it.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

import kinema
from kinema.core.tasks import Generates
from kinema.data.dataset import Dataset

STILL_SHARE = 0.25


def frame_differences(video: Float[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "H W"]:
    """Return the mean squared difference of consecutive frames at every place."""
    return np.square(np.diff(video, axis=0)).mean(axis=(0, 3))


def still_places(data: Dataset) -> Bool[np.ndarray, "H W"]:
    deviation = np.mean([data.video(i).astype(np.float32).std(axis=0).mean(axis=-1) for i in range(len(data))], axis=0)
    return deviation <= np.quantile(deviation, STILL_SHARE)


def generated(run: str, count: int) -> list[Float[np.ndarray, "T H W 3"]]:
    system = kinema.load(run)
    if not isinstance(system, Generates):
        raise SystemExit(f"{run} holds {system.name}, which cannot generate")
    with torch.no_grad():
        clips = torch.cat([system.generate(range(first, first + 16)) for first in range(0, count, 16)])
    return list(((clips + 1) * 127.5).permute(0, 2, 3, 4, 1).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--clips", type=int, default=256, help="generated clips per run")
    arguments = parser.parse_args()
    data = Dataset(arguments.data)
    still = still_places(data)

    def flicker(videos) -> dict[str, float]:
        differences = [frame_differences(video) for video in videos]
        return {
            "still": round(float(np.mean([d[still].mean() for d in differences]) ** 0.5), 3),
            "elsewhere": round(float(np.mean([d[~still].mean() for d in differences]) ** 0.5), 3),
        }

    real = flicker(data.video(i).astype(np.float32) for i in range(len(data)))
    made = {run: flicker(generated(run, arguments.clips)) for run in arguments.runs}
    print(json.dumps({"benchmark": "background_flicker", "clips": arguments.clips, "real": real, **made}))


if __name__ == "__main__":
    main()
