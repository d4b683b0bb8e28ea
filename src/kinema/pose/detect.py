"""Detectors: frames in, people out. Each is an adapter around a package or a model file, imported when it is opened.

| name | detector | gives |
|---|---|---|
| ``mediapipe`` | MediaPipe, of the ``[pose]`` extra (`kinema.pose.blazepose`) | blazepose-33, face, hands; one person or more |
| ``FILE.onnx`` | a top-down network such as RTMPose (`kinema.pose.topdown`) | coco-17, one person: it sees one crop |

What comes out is in pixels of the frames that went in, pixel centres at integers. A joint is missing, (NaN, NaN, 0), where its
confidence is below `LEAST_CONFIDENCE` or its place is outside the frame: networks also name places for what they cannot see.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from kinema.core.errors import ConfigError, accepted
from kinema.pose.sequence import Points, mark_missing
from kinema.pose.skeleton import Skeleton, converter

LEAST_CONFIDENCE = 0.3
"""Joints below are missing; what OpenMMLab's tools draw from, too."""
FIRST_LOOKS, LOOKED_EVERY = (0, 25, 75), 250
"""Frames before the first looks for somebody else, and between later ones."""
TRUNK = ("RShoulder", "LShoulder", "RHip", "LHip")
TRUNK_JOINTS = 2  # of these make a person: both shoulders of somebody at a table, one side of somebody in profile

Picture = UInt8[np.ndarray, "H W 3"]
Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels."""

_Frame = TypeVar("_Frame")


@runtime_checkable
class PoseDetector(Protocol):
    """Finds people in frames."""

    @property
    def name(self) -> str:
        """What it is, as a person would call it."""
        ...

    @property
    def version(self) -> str:
        """What decides its answers: the version of its package, or the hash of its model."""
        ...

    @property
    def skeleton(self) -> Skeleton:
        """Joints that it names."""
        ...

    def detect(self, frames: Iterable[Picture]) -> Iterator[Float32[np.ndarray, "P J 3"]]:
        """Yield the people of every frame of one shot, as the frames come; nothing is remembered from earlier calls.

        Args:
            frames: RGB, of one size, in order.
        """
        ...


def require_inside(frame: Picture, view: Box) -> None:
    """Refuse a place where the person is to be that lies beyond the frame.

    Raises:
        ConfigError: saying how large the frame is.
    """
    height, width = frame.shape[:2]
    left, top, wide, high = view
    if left >= width or top >= height or left + wide <= 0 or top + high <= 0:
        place = ",".join(f"{value:g}" for value in view)
        raise ConfigError(
            f"--person {place} lies outside of the frames, which are {width}x{height}; give LEFT,TOP,WIDTH,HEIGHT"
        )


def open_detector(
    name: str,
    *,
    version: str | None = None,
    still: bool = False,
    complexity: int = 1,
    view: Box | None = None,
    least_confidence: float = LEAST_CONFIDENCE,
    people: int = 1,
    parts: Sequence[str] = (),
) -> PoseDetector:
    """Open a detector.

    Args:
        name: ``mediapipe``, or the path of an ONNX file.
        version: refuse another version of MediaPipe than this, or a file with another SHA-256.
        still: the frames have nothing to do with one another, so that none tells where to look in the next.
        complexity: of MediaPipe's network, 0 to 2; its package holds that of 1.
        view: where the person is: MediaPipe sees nothing else, a top-down network looks there first.
        least_confidence: joints below are missing; in [0, 1].
        people: how many at most are found in a frame, the most prominent ones, in any order.
        parts: which of face and hands are found besides the body.

    Raises:
        ConfigError: a detector that there is not or that finds only one person or the body alone, another version, or a package
            or file that is missing.
    """
    if name == "mediapipe":
        from kinema.pose.blazepose import BlazePose

        detector: PoseDetector = BlazePose(still, complexity, view, least_confidence, people, parts)
    elif name.lower().endswith(".onnx"):
        from kinema.pose.topdown import TopDown

        if people > 1:
            raise ConfigError(
                f"{name} and {people} people: a top-down network sees one crop, so that it finds one person; give --detector "
                "mediapipe, or --person LEFT,TOP,WIDTH,HEIGHT once for each"
            )
        if parts:
            raise ConfigError(
                f"{name} finds the body alone, and {' and '.join(parts)} are asked for; give --detector mediapipe, or a "
                f"skeleton without +{'+'.join(parts)}"
            )
        detector = TopDown(Path(name), still, view, least_confidence)
    else:
        raise ConfigError(f"there is no pose detector {name!r}; {accepted(name, ['mediapipe', 'FILE.onnx'])}")
    if version not in (None, detector.version):
        raise ConfigError(
            f"{name} is of version {detector.version}, and {version} is asked for; give that one, or begin again without it"
        )
    return detector


def paired(
    detector: PoseDetector, frames: Iterable[_Frame], picture: Callable[[_Frame], Picture]
) -> Iterator[tuple[_Frame, Float32[np.ndarray, "P J 3"]]]:
    """Yield every frame with the people in it; only frames that the detector has not answered yet are held.

    Args:
        detector: finds the people.
        frames: of one shot.
        picture: frame -> its pixels.
    """
    waiting: deque[_Frame] = deque()

    def pictures() -> Iterator[Picture]:
        for frame in frames:
            waiting.append(frame)
            yield picture(frame)

    for people in detector.detect(pictures()):
        yield waiting.popleft(), people


def collect(
    people: Sequence[Float32[np.ndarray, "_ J 3"]], detected: Skeleton, wanted: Skeleton
) -> Float32[np.ndarray, "T P K 3"]:
    """Put the people of every frame into one array; where there are fewer than in another frame the rest is missing.

    Args:
        people: per frame, as a detector gives them.
        detected: skeleton of these.
        wanted: skeleton of the result.
    """
    most = max((len(found) for found in people), default=0)
    points = np.zeros((len(people), max(1, most), len(detected), 3), np.float32)
    for frame, found in zip(points, people, strict=True):
        frame[: len(found)] = found
    return mark_missing(converter(detected, wanted)(points))


def visible(points: Float[np.ndarray, "*frames J 3"], width: float, height: float, least_confidence: float = 0.0) -> Points:
    """Mark as missing what is outside of the frame or not confident enough.

    Args:
        points: in pixels.
        width: of the frame.
        height: of the frame.
        least_confidence: joints below are missing.
    """
    points = np.array(points, np.float32)
    x, y, confidence = np.moveaxis(points, -1, 0)
    with np.errstate(invalid="ignore"):
        inside = (x >= -0.5) & (x < width - 0.5) & (y >= -0.5) & (y < height - 0.5)
    points[~(inside & (confidence >= least_confidence)), 2] = 0
    return mark_missing(points)


def painted_over(image: Picture, person: Float[np.ndarray, "J 3"]) -> Picture:
    """Return a picture without somebody: the mean colour covers the joints and, around them, hair, hands and shoes.

    Args:
        image: the picture.
        person: joints in it, missing ones with confidence 0.
    """
    places = person[person[:, 2] > 0, :2]
    if not len(places):
        return image
    low, high = places.min(axis=0), places.max(axis=0)
    border = 0.2 * (high - low).max()
    (left, top), (right, bottom) = (corner.round().astype(int).clip(0) for corner in (low - border, high + border))
    painted = image.copy()
    painted[top:bottom, left:right] = image.mean(axis=(0, 1)).round()
    return painted


def next_look(looks: int) -> int:
    """Return after how many frames to look for somebody else who did so `looks` times: more often in short films."""
    return FIRST_LOOKS[looks] if looks < len(FIRST_LOOKS) else LOOKED_EVERY * (looks + 1 - len(FIRST_LOOKS))


def somebody_else(still: PoseDetector, image: Picture, found: Float32[np.ndarray, "P J 3"]) -> bool:
    """Tell whether somebody is found when those who were found already are painted over.

    Args:
        still: finds people in single frames.
        image: the frame.
        found: the people in it, at least one.
    """
    for person in found:
        image = painted_over(image, person)
    return bool(has_trunk(next(iter(still.detect([image]))), still.skeleton).any())


def crowd(looks: int, seen: Sequence[str], people: int, ways: str) -> str:
    """Say that somebody else is there; nothing where nobody is.

    Args:
        looks: frames that were looked at.
        seen: where those are in which somebody else was found, such as ``frame 25``.
        people: how many are taken.
        ways: how to choose another.
    """
    if not seen:
        return ""
    most = "who is most prominent was" if people == 1 else f"the {people} most prominent were"
    return f"somebody else is in {len(seen)} of {looks} frames looked at (first: {seen[0]}); {most} taken, {ways}"


def has_trunk(points: Float[np.ndarray, "*frames J 3"], skeleton: Skeleton) -> Bool[np.ndarray, "*frames"]:
    """Tell where a person is there: two of shoulders and hips were found; of unnamed points, any.

    Args:
        points: joints, missing ones with confidence 0.
        skeleton: of these.
    """
    trunk = [skeleton.index(joint) for joint in TRUNK if joint in skeleton.joints]
    found = points[..., 2] > 0
    return found[..., trunk].sum(axis=-1) >= TRUNK_JOINTS if trunk else found.any(axis=-1)
