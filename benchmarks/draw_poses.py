"""Frames of drawn poses per second on one core; prints one JSON line.

The reference in the same run draws the same limbs and joints with Pillow, without anti-aliasing or blending.

    python benchmarks/draw_poses.py --frames 3200 --size 64
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import tyro
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from kinema.core.errors import ConfigError, accepted
from kinema.data.performers import PerformersSettings, render_clip
from kinema.pose.draw import STYLES, DrawStyle, draw_points, joint_colours, limb_colours
from kinema.pose.skeleton import COCO_18


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    frames: int = 3200
    """Frames per measurement."""
    size: int = 64
    """Height and width in pixels."""
    style: str = "edn"
    """Style of the drawing."""


def plainly(points: Float[np.ndarray, "T J 3"], size: int, style: DrawStyle) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw with Pillow, one frame at a time."""
    joints, limbs = joint_colours(COCO_18, style.palette), limb_colours(COCO_18, style.palette)
    width = max(round(2 * style.half_width * size / style.reference), 1)
    radius = max(style.radius * size / style.reference, 1)
    frames = []
    for pose in points:
        image = Image.new("RGB", (size, size), style.background)
        pen = ImageDraw.Draw(image)
        for (first, second), colour in zip(COCO_18.edges, limbs, strict=True):
            if pose[first, 2] > style.threshold and pose[second, 2] > style.threshold:
                pen.line((*pose[first, :2], *pose[second, :2]), fill=colour, width=width)
        for (x, y, confidence), colour in zip(pose, joints, strict=True):
            if confidence > style.threshold:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        frames.append(np.asarray(image))
    return np.stack(frames)


def seconds(job: Callable[[], object]) -> float:
    """Return the processor's seconds of the better of three runs."""
    taken = []
    for _ in range(3):
        begin = time.process_time()
        job()
        taken.append(time.process_time() - begin)
    return min(taken)


def main(arguments: Arguments) -> None:
    cv2.setNumThreads(1)
    if arguments.style not in STYLES:
        raise ConfigError(f"there is no style {arguments.style!r}; {accepted(arguments.style, STYLES)}")
    style, size = STYLES[arguments.style], arguments.size
    settings = PerformersSettings(clips=8, size=64)
    poses = np.concatenate([np.asarray(render_clip(index, settings).pose, np.float32) for index in range(settings.clips)])
    poses[..., :2] = (poses[..., :2] + 0.5) * (size / settings.size) - 0.5
    points = np.resize(poses, (arguments.frames, *poses.shape[1:]))
    ours = seconds(lambda: draw_points(points, COCO_18, size, size, style))
    reference = seconds(lambda: plainly(points, size, style))
    numbers = {
        "benchmark": "draw_poses",
        "style": arguments.style,
        "size": size,
        "frames_per_cpu_second": round(arguments.frames / ours),
        "pillow_frames_per_cpu_second": round(arguments.frames / reference),
        "times_pillow": round(reference / ours, 2),
    }
    print(json.dumps(numbers))


if __name__ == "__main__":
    main(tyro.cli(Arguments))
