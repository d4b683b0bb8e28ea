"""A film of seventeen moving dots and the network that finds them: real detection in milliseconds, with a known answer."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from kinema.data.encode import write_video
from small_onnx import MEAN, picture

WIDTH, HEIGHT, RADIUS = 180, 144, 12


def points(frames: int) -> np.ndarray:
    """Where the dots are: T 17 2, in pixels."""
    cells = np.random.default_rng(1).permutation(20)[:17]
    start = np.stack([cells % 4 + 0.5, cells // 4 + 0.5], axis=1) * (28, 26) + (30, 8)
    time = np.arange(frames)
    return start[None] + np.stack([20 * np.sin(time / 9), 4 * np.cos(time / 7)], axis=1)[:, None]


def write_film(path: Path, frames: int, *, empty: Iterable[int] = (), fps: float = 25) -> Path:
    """Write the film; frames that are empty show nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = np.stack([picture(place, WIDTH, HEIGHT, radius=RADIUS) for place in points(frames)])
    images[list(empty)] = MEAN.round().astype(np.uint8)
    write_video(path, images, fps)
    return path
