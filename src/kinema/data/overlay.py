"""Films with the poses of their people drawn on, to look at; of several, each with their number."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import MediaError
from kinema.data.film import film
from kinema.data.media import probe, resample
from kinema.data.sources import Source, open_source
from kinema.data.tags import drawn_tags
from kinema.pose.detect import has_trunk
from kinema.pose.draw import STYLES, draw
from kinema.pose.files import read_poses
from kinema.pose.people import boxes
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import HEAD

STYLE = STYLES["openpose"]
DRAWN_AT_ONCE = 16  # frames
EDGE = 3  # pixels of the red edge of a frame without a person
FONT = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True)
class Overlay:
    """A film to be drawn on, as it travels to a worker.

    Attributes:
        source: the footage.
        poses: file with its poses.
        out: film to write.
        fps: of a folder of frames.
    """

    source: Source
    poses: Path
    out: Path
    fps: float | None = None


def write_overlay(job: Overlay) -> None:
    """Write one film.

    Raises:
        DataError: the poses are not of this footage.
        MediaError: the film cannot be written.
    """
    job.out.parent.mkdir(parents=True, exist_ok=True)
    poses = read_poses(job.poses)
    there = has_trunk(poses.points, poses.skeleton).any(axis=1)
    width, height = poses.width + poses.width % 2, poses.height + poses.height % 2
    below = probe(job.source.path).metadata if job.source.kind == "video" else None
    tags = drawn_tags(f"poses in {job.source.name}", below)
    with film(job.out, width, height, poses.fps, metadata=tags) as made:
        for first, images in _chunks(job):
            window = poses.window(first, first + len(images))
            for number, image in enumerate(draw(window, STYLE, over=images[: len(window)]), first):
                if len(poses.people) > 1:
                    _name(image, poses.window(number, number + 1))
                made.add(_even(image if there[number] else _edged(image)))


def _chunks(job: Overlay) -> Iterator[tuple[int, UInt8[np.ndarray, "T H W 3"]]]:
    """Yield frames in small numbers with the number of their first, up to where the source is damaged."""
    first = 0
    with suppress(MediaError):
        frames = resample(open_source(job.source, strip=None, fps=job.fps, resize=None), None)
        while images := list(islice(frames, DRAWN_AT_ONCE)):
            yield first, np.stack(images)
            first += len(images)


def _name(image: UInt8[np.ndarray, "H W 3"], poses: Poses) -> None:
    """Write everybody's number above their head, white on black, for ``--person`` takes numbers."""
    scale = max(len(image) / 500, 0.4)
    outline, stroke = max(round(6 * scale), 4), max(round(2 * scale), 1)
    head = [poses.skeleton.index(joint) for joint in HEAD if joint in poses.skeleton.joints]
    for number, points, (left, top, right, _) in zip(poses.people, poses.points[0], boxes(poses)[0], strict=True):
        if not np.isnan(left):
            seen = points[head][points[head, 2] > 0]
            middle = seen[:, 0].mean() if len(seen) else (left + right) / 2  # an arm held out moves the box, not the head
            (width, _), _ = cv2.getTextSize(str(number), FONT, scale, stroke)
            at = round(middle - width / 2), round(max(top - 25 * scale, 25 * scale))
            for colour, thickness in (((0, 0, 0), outline), ((255, 255, 255), stroke)):
                cv2.putText(image, str(number), at, FONT, scale, colour, thickness, cv2.LINE_AA)


def _even(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Repeat the last row and column where a side is odd, which the format cannot have."""
    return np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")


def _edged(image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    edged = image.copy()
    edged[:EDGE] = edged[-EDGE:] = (255, 0, 0)
    edged[:, :EDGE] = edged[:, -EDGE:] = (255, 0, 0)
    return edged
