"""A film of a red and a green person, and the detector that finds them by colour: several people, exactly, in no time."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from kinema.data.encode import write_video
from kinema.pose.skeleton import COCO_18

WIDTH, HEIGHT, TALL = 160, 96, 60
RED, GREEN = 0, 1
SHAPE = np.stack([np.linspace(-8, 8, 18), np.linspace(-TALL / 2, TALL / 2, 18)], axis=1)
"""Of everybody's joints around their middle."""


def middle(who: int, time: int) -> tuple[float, float]:
    """Where a person is: the red one walks to the right, the green one stands."""
    return (30 + time, 48) if who == RED else (130, 50)


def write_film(path: Path, frames: int, *, without: dict[int, Iterable[int]] | None = None) -> Path:
    """Write the film; `without` lists the frames in which a person is away."""
    away = {who: set(times) for who, times in (without or {}).items()}
    images = np.full((frames, HEIGHT, WIDTH, 3), 90, np.uint8)
    for time, image in enumerate(images):
        for who in (RED, GREEN):
            if time not in away.get(who, ()):
                x, y = middle(who, time)
                image[int(y) - 30 : int(y) + 30, int(x) - 8 : int(x) + 8] = (250, 20, 20) if who == RED else (20, 250, 20)
    write_video(path, images, 25)
    return path


class Blobs:
    """Finds at most so many people and lists the last one first in every other frame, as a detector may."""

    name, version, skeleton = "blobs", "1", COCO_18

    def __init__(self, people: int) -> None:
        self.people = people
        self.frames = 0

    def detect(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yield the people of every frame."""
        for number, frame in enumerate(frames):
            self.frames += 1
            found = [where for where in (self._find(frame, who) for who in (RED, GREEN)) if where is not None][: self.people]
            yield np.array(found[:: -1 if number % 2 else 1], np.float32).reshape(-1, 18, 3)

    def _find(self, frame: np.ndarray, who: int) -> np.ndarray | None:
        there = np.argwhere(frame[..., who].astype(int) - frame[..., 1 - who] > 100)
        if len(there) < 100:
            return None
        return np.column_stack([SHAPE + there.mean(axis=0)[::-1], np.full(18, 0.9)])
