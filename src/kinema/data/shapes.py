"""Shape Motion: one coloured shape on black, moving up or to the left on a smooth random path.

Re-made from measurements of the set released with MoCoGAN (Tulyakov et al., CVPR 2018): content is shape, size and colour,
motion is one of two classes. Clip i depends on (seed, i) alone.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8

from kinema.core.config import Config
from kinema.data.dataset import Clip, ClipRecord

LABELS = ("vertical", "horizontal")
"""Class 0 moves from bottom to top, class 1 from right to left."""

CIRCLE_AREA = {8: 47, 10: 79, 12: 111, 14: 151}
"""Width of the box in pixels -> pixels of the circle in it, as measured; a square fills its box."""


@dataclass(frozen=True)
class ShapesSettings(Config):
    """What `kinema prepare shapes` makes; the defaults are those of the released set."""

    clips: int = 4000
    """Number of clips."""
    frames: int = 32
    """Frames per clip; the path is as long whatever their number."""
    size: int = 64
    """Height and width in pixels."""
    fps: float = 16.0
    """Frames per second, for playing."""
    seed: int = 0
    """Another seed gives other clips."""

    def check(self) -> None:
        """Refuse values out of range."""
        for field, least in (("clips", 1), ("frames", 2), ("size", 20), ("seed", 0)):
            self.require(getattr(self, field) >= least, field, f"at least {least}")
        self.require(0 < self.fps <= 240, "fps", "above 0 and at most 240")


def bezier(points: Float[np.ndarray, "5 2"], frames: int) -> Float[np.ndarray, "T 2"]:
    """Return a Bezier curve of degree 4 at evenly spaced times from 0 to 1."""
    t = np.linspace(0, 1, frames)[:, None]
    weights = np.array([1, 4, 6, 4, 1]) * t ** np.arange(5) * (1 - t) ** np.arange(4, -1, -1)
    return weights @ points


def sample_path(label: int, width: int, settings: ShapesSettings, rng: np.random.Generator) -> Float[np.ndarray, "T 2"]:
    """Draw the path of the middle of a box, (x, y) in pixels before rounding.

    The main axis leads from one end of the picture to the other; the other axis ends where it begins; what is left of the five
    control points is uniform.

    Args:
        label: 0 vertical, 1 horizontal.
        width: of the box.
        settings: size and number of frames.
        rng: source of randomness.
    """
    first, last = width / 2 + 0.5, settings.size - 2.5 - width / 2
    points = rng.uniform(first, last, (5, 2))
    points[-1] = points[0]
    main = 1 if label == 0 else 0
    points[0, main], points[-1, main] = last, first
    return bezier(points, settings.frames)


@lru_cache
def stencil(shape: str, width: int) -> Bool[np.ndarray, "w w"]:
    """Return the pixels of a shape in its box: a full square, or the circle's pixels, which are those nearest to the middle."""
    if shape == "square":
        return np.ones((width, width), bool)
    y, x = np.indices((width, width)) - (width - 1) / 2
    nearest = np.argsort(x**2 + y**2, axis=None, kind="stable")[: CIRCLE_AREA[width]]
    inside = np.zeros(width * width, bool)
    inside[nearest] = True
    return inside.reshape(width, width)


def render_clip(index: int, settings: ShapesSettings) -> Clip:
    """Make clip `index`: a function of the index and the settings alone.

    Args:
        index: number of the clip, from 0.
        settings: what to make.
    """
    rng = np.random.default_rng([settings.seed, 2, index])
    label = int(rng.integers(2))
    shape = ("circle", "square")[int(rng.integers(2))]
    width = int(rng.choice(list(CIRCLE_AREA)))
    colour: UInt8[np.ndarray, "3"] = rng.integers(0, 256, 3, dtype=np.uint8)
    corners = np.rint(sample_path(label, width, settings, rng) - (width - 1) / 2).astype(int)
    video = np.zeros((settings.frames, settings.size, settings.size, 3), np.uint8)
    mask = np.zeros(video.shape[:3], np.uint8)
    inside = stencil(shape, width)
    for frame, opacity, (x, y) in zip(video, mask, corners, strict=True):
        frame[y : y + width, x : x + width][inside] = colour
        opacity[y : y + width, x : x + width][inside] = 255
    red, green, blue = (int(channel) for channel in colour)
    record = ClipRecord(
        key=f"{index:06d}",
        source="shapes",
        first_frame=0,
        fps=settings.fps,
        label=LABELS[label],
        caption=f"a {'small' if width < 11 else 'large'} {shape} moves {('up', 'left')[label]}",
        extra={"shape": shape, "width": width, "colour": [red, green, blue]},
    )
    return Clip(record, video, None, mask, video[0] * 0)
