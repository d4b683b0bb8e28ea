"""Stages of procedural people: a camera that stands still and the painted scene that it looks at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from kinema.core.errors import ConfigError

Picture = Float[np.ndarray, "H W 3"]
_FINER = 3  # a scene is painted this much finer than the picture and averaged down


@dataclass(frozen=True)
class Stage:
    """A scene and its pinhole camera, whose picture is square.

    Attributes:
        scene: one of `SCENES`.
        seed: decides colours and details of the scene.
        horizon: height of the horizon in the picture, 0 top to 1 bottom.
        camera_height: metres above the floor.
        focal: focal length in picture widths.
    """

    scene: str
    seed: int
    horizon: float = 0.42
    camera_height: float = 1.38
    focal: float = 2.2

    def project(self, points: Float[np.ndarray, "*n 3"], size: int) -> Float[np.ndarray, "*n 2"]:
        """Project points (right, up, away from the camera, metres) into a picture of `size` pixels.

        Raises:
            ConfigError: a point lies beside or behind the camera.
        """
        depth = points[..., 2]
        if depth.size and depth.min() < 0.5:
            raise ConfigError(f"a point is {depth.min():.2f} m before the camera; people must stay at least 0.5 m away")
        scale = self.focal * size / depth
        x = (size - 1) / 2 + scale * points[..., 0]
        y = self.horizon * size - 0.5 + scale * (self.camera_height - points[..., 1])
        return np.stack([x, y], axis=-1)

    def floor_line(self, depth: float) -> float:
        """Return the height in the picture, 0 to 1, of the floor at a distance in metres."""
        return self.horizon + self.focal * self.camera_height / depth


@lru_cache(maxsize=64)
def backdrop(stage: Stage, size: int) -> UInt8[np.ndarray, "H W 3"]:
    """Paint what the camera sees of an empty stage, `size` pixels high and wide; the picture is read-only."""
    full = size * _FINER
    y, x = np.meshgrid(*2 * [(np.arange(full) + 0.5) / full], indexing="ij", sparse=True)
    rng = np.random.default_rng([stage.seed, 7])
    picture = np.broadcast_to(SCENES[stage.scene](x, y, stage, rng), (full, full, 3))
    grain = cv2.resize(rng.normal(0, 2.2, (full // 2, full // 2)), (full, full), interpolation=cv2.INTER_CUBIC)
    vignette = 1.03 - 0.22 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    picture = (picture + grain[..., None]) * vignette[..., None]
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    painted = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    painted.setflags(write=False)
    return painted


# Painters: x and y run from 0 to 1 across the picture; colours from 0 to 255.


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: int, octaves: int = 3) -> Float[np.ndarray, "H W"]:
    """Smooth noise of about -1 to 1 with `cells` features across the picture, and finer ones."""
    total = np.zeros(shape)
    for octave in range(octaves):
        count = cells * 2**octave
        coarse = rng.uniform(-1, 1, (count + 3, count + 3))
        total += cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC) / 2**octave
    return total / 1.6


def _colour(rng: np.random.Generator, *choices: tuple[int, int, int]) -> Float[np.ndarray, "3"]:
    return np.array(choices[int(rng.integers(len(choices)))]) + rng.uniform(-10, 10, 3)


def _mix(below: Picture, above: np.ndarray, where: np.ndarray) -> Picture:
    return below + (above - below) * np.asarray(where, float)[..., None]


def _box(x: np.ndarray, y: np.ndarray, left: float, top: float, width: float, height: float) -> np.ndarray:
    return (x > left) & (x < left + width) & (y > top) & (y < top + height)


def _floor_depth(y: np.ndarray, stage: Stage) -> np.ndarray:
    """Distance of the floor seen at height y, in metres."""
    return stage.focal * stage.camera_height / np.clip(y - stage.horizon, 1e-3, None)


def _boards(x: np.ndarray, y: np.ndarray, stage: Stage, wood: np.ndarray, rng: np.random.Generator) -> Picture:
    """Floor boards that run away from the camera, each with its own tone."""
    across = (x - 0.5) * _floor_depth(y, stage) / stage.focal / 0.35
    tones = rng.uniform(-12, 12, 64)
    board = np.floor(across).astype(int)
    seam = np.abs(across - np.round(across)) < 0.035
    return wood + (tones[board % 64] - 26.0 * seam)[..., None]


def _room(x: np.ndarray, y: np.ndarray, stage: Stage, rng: np.random.Generator) -> Picture:
    """Paint a wall with a window or a picture, a skirting board and a wooden floor."""
    wall = _colour(rng, (214, 203, 182), (186, 199, 205), (203, 190, 196), (190, 202, 180), (222, 214, 204))
    shape = (y.shape[0], x.shape[1])
    picture = wall + 7 * _noise(rng, shape, 3)[..., None] + (26 * (0.4 - y) + 10 * (0.5 - x))[..., None]
    left, top = float(rng.choice((0.06, 0.66)) + rng.uniform(-0.03, 0.03)), float(rng.uniform(0.1, 0.16))
    wide, high, rim = float(rng.uniform(0.2, 0.27)), float(rng.uniform(0.24, 0.32)), 0.022
    frame = _colour(rng, (240, 238, 232), (112, 82, 58), (70, 66, 66))
    picture = _mix(picture, frame, _box(x, y, left - rim, top - rim, wide + 2 * rim, high + 2 * rim))
    pane = _colour(rng, (150, 188, 222), (196, 150, 108), (120, 148, 132)) + 34 * _noise(rng, shape, 4)[..., None]
    picture = _mix(picture, pane + (70 * (top + 0.1 - y))[..., None], _box(x, y, left, top, wide, high))
    edge = stage.floor_line(8.2)
    picture = _mix(picture, np.array([236, 232, 226.0]), y + 0 * x > edge - 0.03)
    wood = _colour(rng, (152, 112, 76), (124, 92, 68), (172, 138, 100), (120, 112, 106))
    floor = _boards(x, y, stage, wood, rng) + 6 * _noise(rng, shape, 5)[..., None]
    return _mix(picture, floor + (50 * (y - 0.9))[..., None], y + 0 * x > edge)


def _studio(x: np.ndarray, y: np.ndarray, stage: Stage, rng: np.random.Generator) -> Picture:
    """Paint a studio: a lit canvas that curves into the floor."""
    canvas = _colour(rng, (150, 160, 172), (168, 150, 140), (130, 150, 140), (158, 142, 166), (96, 104, 120))
    light = np.exp(-(((x - rng.uniform(0.3, 0.7)) / 0.5) ** 2) - ((y - 0.35) / 0.45) ** 2)
    shape = (y.shape[0], x.shape[1])
    picture = canvas * (0.72 + 0.42 * light)[..., None] + 9 * _noise(rng, shape, 4)[..., None]
    edge = stage.floor_line(8.0)
    fade = np.clip((y - edge + 0.03) / 0.06, 0, 1) + 0 * x
    return _mix(picture, canvas * (0.66 + 0.5 * (y - edge))[..., None] + 4 * _noise(rng, shape, 9)[..., None], fade)


def _bricks(x: np.ndarray, y: np.ndarray, stage: Stage, rng: np.random.Generator) -> Picture:
    """Paint a brick wall and a pavement of slabs."""
    brick = _colour(rng, (160, 88, 70), (176, 120, 92), (132, 122, 116), (190, 176, 158))
    row = np.floor(y / 0.056)
    along = x / 0.125 + 0.5 * (row % 2)
    tones = rng.uniform(-20, 20, (64, 64))
    tone = tones[row.astype(int) % 64, np.floor(along).astype(int) % 64]
    joint = (y / 0.056 % 1 < 0.16) | (along % 1 < 0.07)
    shape = (y.shape[0], x.shape[1])
    picture = _mix(brick + tone[..., None], brick * 0.35 + 108, joint) + 8 * _noise(rng, shape, 6)[..., None]
    edge = stage.floor_line(8.0)
    depth = _floor_depth(y, stage)
    slabs = np.floor((x - 0.5) * depth / stage.focal / 0.8).astype(int) * 7 + np.floor(depth / 0.8).astype(int)
    paving = _colour(rng, (146, 144, 140), (158, 148, 132)) + rng.uniform(-9, 9, 64)[slabs % 64][..., None]
    return _mix(picture, paving + 6 * _noise(rng, shape, 8)[..., None], y + 0 * x > edge)


def _park(x: np.ndarray, y: np.ndarray, stage: Stage, rng: np.random.Generator) -> Picture:
    """Paint a meadow before trees, hills and a sky with clouds."""
    shape = (y.shape[0], x.shape[1])
    sky = _colour(rng, (136, 184, 226), (168, 200, 222), (232, 196, 168))
    picture = sky + (70 * (y - 0.1))[..., None] + 0 * x[..., None]
    clouds = _noise(rng, (shape[0], 3 * shape[1]), 5)[:, : shape[1]]
    picture = _mix(picture, np.array([248, 248, 246.0]), np.clip(1.6 * clouds - 0.3, 0, 0.75))
    for base, tint, rough in ((0.44, (118, 148, 158), 2), (0.53, (84, 128, 92), 5)):
        ridge = base + 0.09 * _noise(rng, (1, shape[1]), rough)
        picture = _mix(picture, _colour(rng, tint) + 14 * _noise(rng, shape, 14)[..., None], y > ridge)
    grass = _colour(rng, (112, 156, 76), (136, 160, 84), (158, 156, 92))
    meadow = grass + (50 * (y - 0.8))[..., None] + 13 * _noise(rng, shape, 16)[..., None]
    return _mix(picture, meadow, y + 0 * x > stage.floor_line(16))


def _beach(x: np.ndarray, y: np.ndarray, stage: Stage, rng: np.random.Generator) -> Picture:
    """Paint sand, a sea with waves and an even sky."""
    shape = (y.shape[0], x.shape[1])
    picture = _colour(rng, (150, 198, 230), (240, 200, 166), (186, 200, 212)) + (60 * (y - 0.2))[..., None] + 0 * x[..., None]
    waves = np.sin(130 * np.sqrt(np.abs(y - stage.horizon)) + 3 * x)
    sea = _colour(rng, (64, 132, 160), (70, 150, 150)) + 9 * waves[..., None] + 10 * _noise(rng, shape, 7)[..., None]
    picture = _mix(picture, sea, y + 0 * x > stage.horizon)
    shore = stage.floor_line(11) + 0.015 * _noise(rng, (1, shape[1]), 5)
    picture = _mix(picture, np.array([236, 240, 236.0]), y > shore - 0.012)
    sand = _colour(rng, (214, 192, 148), (204, 178, 140)) + 9 * _noise(rng, shape, 12)[..., None]
    return _mix(picture, sand + (30 * (y - 0.8))[..., None], y > shore)


SCENES: dict[str, Callable[[np.ndarray, np.ndarray, Stage, np.random.Generator], Picture]] = {
    "room": _room,
    "studio": _studio,
    "bricks": _bricks,
    "park": _park,
    "beach": _beach,
}
