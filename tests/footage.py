"""Made-up footage for tests: every frame tells its number, so that nothing can be lost, repeated or swapped unseen."""

from pathlib import Path

import numpy as np
from PIL import Image

from kinema.data.encode import write_video


def make_frames(frames: int, *, width: int = 48, height: int = 32, seed: int = 0, start: int = 0) -> np.ndarray:
    """A bright square that wanders over a fixed textured background; frame t depends on (seed, start + t) alone."""
    background = np.random.default_rng(seed).integers(60, 140, (4, 6, 3)).astype(np.uint8)
    background = np.asarray(Image.fromarray(background).resize((width, height), Image.Resampling.BILINEAR))
    video = np.repeat(background[None], frames, axis=0).copy()
    for t, frame in enumerate(video, start):
        x, y = (3 * t + 7 * seed) % (width - 8), (2 * t + t * t // 9 + 5 * seed) % (height - 8)
        frame[y : y + 8, x : x + 8] = (250, 240, 200 - 30 * (seed % 6))
    return video


def write_footage(path: Path, frames: int, *, fps: float = 25, seed: int = 0, width: int = 48, height: int = 32) -> Path:
    """Write `make_frames` as a video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, make_frames(frames, width=width, height=height, seed=seed), fps)
    return path


def write_strip(path: Path, video: np.ndarray, *, stacked: bool = False) -> Path:
    """Write a clip as one image, frames side by side or stacked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(list(video), axis=0 if stacked else 1)).save(path)
    return path
