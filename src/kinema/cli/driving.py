"""Where driving poses come from: a pose file, or a detector that looks at the source's frames."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8

from kinema.core.errors import ConfigError, DataError
from kinema.data.media import MediaInfo, contain, read_frames, resample
from kinema.pose.detect import PoseDetector, collect, next_look, open_detector, paired, somebody_else
from kinema.pose.files import read_poses
from kinema.pose.found_by import noted
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import Skeleton, converter

STILL_FPS = 25.0  # of a still image, whose one pose needs some rate
TOLERANCE = 0.02  # of the frames of a file by which its poses may be more or fewer: containers only estimate their number

Picture = UInt8[np.ndarray, "H W 3"]
Said = Callable[[str, int, int], None]


def source_fps(info: MediaInfo) -> float:
    """Return frames per second of a source."""
    return float(info.fps) if info.fps else STILL_FPS


def source_frames(info: MediaInfo, first: int, count: int | None, tall: int | None = None) -> Iterator[Picture]:
    """Yield the frames of a source on its nominal rate, as pose files number them.

    Args:
        info: the source.
        first: number of the first frame.
        count: how many; None for all.
        tall: height to which they are scaled; None leaves them as they are.
    """
    resize = contain(1 << 16, tall) if tall else None
    return islice(resample(read_frames(info, resize=resize), None), first, None if count is None else first + count)


def detected(
    info: MediaInfo, detector: PoseDetector, still: PoseDetector, first: int, count: int | None, said: Said
) -> tuple[Poses, dict[int, bool]]:
    """Find the people in the frames of a source.

    Args:
        info: the source.
        detector: finds the people.
        still: the same for single frames, which looks for somebody else now and then.
        first: number of the first frame.
        count: how many; None for all.
        said: told of the progress.

    Returns:
        Poses, and frame looked at -> whether somebody else is in it.

    Raises:
        DataError: when there are no such frames.
    """
    total = count or max(1, (info.frames or 1) - first)
    people: list[Float32[np.ndarray, "P J 3"]] = []
    looks: dict[int, bool] = {}
    for image, found in paired(detector, source_frames(info, first, count), lambda image: image):
        if len(found) and len(people) >= next_look(len(looks)):
            looks[first + len(people)] = somebody_else(still, image, found)
        people.append(found)
        said("looking for people", len(people), max(total, len(people)))
    if not people:
        raise DataError(f"{info.path} has no frame {first}; it has about {info.frames or 1}")
    points = collect(people, detector.skeleton, detector.skeleton)
    extra = noted(detector) | ({UNORDERED: True} if points.shape[1] > 1 else {})
    return Poses(points, detector.skeleton, info.width, info.height, source_fps(info), extra=extra), looks


def read_driving(path: Path, info: MediaInfo | None) -> Poses:
    """Read the poses of a source, or poses without one.

    Raises:
        DataError: for damaged poses, or those of another film.
    """
    if info is None:
        return read_poses(path)
    poses = read_poses(path, width=info.width, height=info.height, fps=source_fps(info), frames=info.frames)
    if abs(poses.width * info.height - poses.height * info.width) > TOLERANCE * poses.width * info.height:
        raise DataError(
            f"{path} holds poses of frames of {poses.width}x{poses.height} and {info.path} has {info.width}x{info.height}; "
            "give the poses of this film"
        )
    frames = info.frames or 1
    if not _as_many(len(poses), frames):
        frames = sum(1 for _ in source_frames(info, 0, None, 16))  # films of a variable rate have more or fewer than they say
    if not _as_many(len(poses), frames):
        raise DataError(f"{path} holds {len(poses)} frames of poses and {info.path} has {frames}; give the poses of this film")
    return poses


def _as_many(poses: int, frames: int) -> bool:
    return abs(poses - frames) <= max(2, TOLERANCE * frames)


def joints_found(name: str, skeleton: Skeleton) -> Callable[[UInt8[np.ndarray, "T H W 3"]], Float32[np.ndarray, "T J 3"]]:
    """Return what finds the pose of the largest person in every frame of a clip, in a layout; nobody is (0, 0, 0).

    Raises:
        ConfigError: when there is no such detector, or it cannot give a joint of the layout.
    """
    detector = open_detector(name, parts=skeleton.parts)
    conversion = converter(detector.skeleton, skeleton)
    if conversion.missing:
        raise ConfigError(f"{name} finds no {', '.join(conversion.missing)}, which the poses of {skeleton.name} have")

    def find(clip: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "T J 3"]:
        found = np.zeros((len(clip), len(skeleton), 3), np.float32)
        for place, people in zip(found, detector.detect(iter(clip)), strict=True):
            if len(people):
                place[:] = np.nan_to_num(conversion(people[largest(people)]), nan=0.0)
        return found

    return find


def largest(people: Float32[np.ndarray, "P J 3"]) -> int:
    """Return who has the largest box."""
    sizes = []
    for points in people:
        found = points[points[:, 2] > 0, :2]
        sizes.append(float(np.prod(np.ptp(found, axis=0))) if len(found) else 0.0)
    return int(np.argmax(sizes))
