"""Poses of clips: joints are known in the frames of the footage and move to where the pixels of the clip went.

They are found while the footage is cut, or were found before: by ``kinema pose detect`` (a .npz beside the name of every
source) or by OpenPose (a folder of ``*_keypoints.json`` under that name).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from kinema.core.errors import ConfigError, DataError
from kinema.data.detection import DetectSettings
from kinema.data.looks import Look
from kinema.data.media import Frame, Resize
from kinema.data.sources import STILL_FPS, Source
from kinema.pose.detect import Box, PoseDetector, collect, has_trunk, next_look, open_detector, paired, somebody_else, visible
from kinema.pose.files import read_poses
from kinema.pose.people import Choice, choose, is_choice, told_apart
from kinema.pose.sequence import Poses, mark_missing
from kinema.pose.skeleton import Skeleton, converter, find_skeleton

Pose = Float32[np.ndarray, "J 3"]
Size = tuple[int, int]
"""Width and height."""
LOST = 1.5  # intervals of recorded poses from the nearest one, beyond which there is none
ASPECT = 0.01  # by which poses and footage may differ, relative: sizes are whole numbers


@runtime_checkable
class Poser(Protocol):
    """Knows the joints of one person in every frame of the footage."""

    @property
    def skeleton(self) -> Skeleton:
        """Joints."""
        ...

    def version(self, sources: Sequence[Source]) -> str:
        """Return what decides the poses of some sources."""
        ...

    def knows(self, source: Source) -> bool:
        """Tell whether there is an answer for a source."""
        ...

    def taken(self, source: Source) -> str:
        """Say who of several people in a measured source is taken; empty where no choice is known."""
        ...

    def __call__(self, source: Source, frames: Iterator[Frame], looked: Callable[[Look], None]) -> Iterator[tuple[Frame, Pose]]:
        """Yield the frames of one shot of a source, each with the joints in it.

        Args:
            source: the footage.
            frames: of the shot.
            looked: told of each look for somebody else, by a poser that does not know who is there.
        """
        ...


def open_poser(where: str, skeleton: str, version: str | None = None, person: str | None = None) -> Poser:
    """Open what knows the joints.

    Args:
        where: name or file of a detector, or a file or folder with poses.
        skeleton: name of the joints that are wanted.
        version: refuse another version of the detector, or of the poses, than this.
        person: of recorded poses, whom of several to take, as for `kinema.pose.people.choose`; the largest unless told. Of a
            detector, LEFT,TOP,WIDTH,HEIGHT, where the one person is; the whole frame unless told.

    Raises:
        ConfigError: a detector that there is not, another version, or a person that means nothing there.
        DataError: an unknown skeleton, or one that the detector cannot give.
    """
    if is_recorded(where):
        if person is not None and (person == "all" or not is_choice(person)):
            raise ConfigError(f"--person {person!r} is none of: largest, the number of a person, a pixel such as 320,200")
        return RecordedPoses(Path(where), find_skeleton(skeleton), person or "largest")
    wanted, view = find_skeleton(skeleton), _view(where, person)
    detector = open_detector(where, version=version, view=view, parts=wanted.parts)
    return DetectedPoses(detector, wanted, open_detector(where, version=version, still=True) if view is None else None)


def is_recorded(where: str) -> bool:
    """Tell whether a name is that of poses, not of a detector."""
    return Path(where).is_dir() or where.lower().endswith(".npz")


def _view(detector: str, person: str | None) -> Box | None:
    try:
        return DetectSettings(person=person).view
    except ConfigError:
        raise ConfigError(
            f"--person {person!r} says nothing to {detector}, which follows one person: give LEFT,TOP,WIDTH,HEIGHT, where they "
            "are; or find several with kinema pose detect --people 2, and give what it wrote as --pose"
        ) from None


@dataclass(frozen=True)
class DetectedPoses:
    """Finds the joints now.

    Attributes:
        detector: finds people; the first of several is taken.
        skeleton: joints that are wanted.
        still: finds people in single frames: it looks for somebody else now and then. None where it is known who is wanted.

    Raises:
        DataError: the detector gives none of the joints that are wanted.
    """

    detector: PoseDetector
    skeleton: Skeleton
    still: PoseDetector | None = None

    def __post_init__(self) -> None:
        converter(self.detector.skeleton, self.skeleton)

    def version(self, sources: Sequence[Source]) -> str:
        """Return the version of the detector."""
        return self.detector.version

    def knows(self, source: Source) -> bool:
        """Return True: whatever can be read can be looked at."""
        return True

    def taken(self, source: Source) -> str:
        """Return nothing: who is there is only seen while the frames are read."""
        return ""

    def __call__(self, source: Source, frames: Iterator[Frame], looked: Callable[[Look], None]) -> Iterator[tuple[Frame, Pose]]:
        """Yield the frames of one shot, each with the joints of one person."""
        looks = 0
        for number, (frame, people) in enumerate(paired(self.detector, frames, lambda frame: frame.image)):
            if self.still is not None and len(people) and number >= next_look(looks):
                looks += 1
                looked(Look(source.name, frame.time, somebody_else(self.still, frame.image, people)))
            yield frame, collect([people[:1]], self.detector.skeleton, self.skeleton)[0, 0]


@dataclass(frozen=True)
class RecordedPoses:
    """Joints that were found before.

    Attributes:
        place: a .npz, for a single source, or a folder that holds, under the name of every source, NAME.npz or a folder NAME
            of OpenPose's files.
        skeleton: joints that are wanted.
        person: whom of several to take.
    """

    place: Path
    skeleton: Skeleton
    person: str = "largest"

    def version(self, sources: Sequence[Source]) -> str:
        """Return a hash of all files of poses.

        Raises:
            ConfigError: one file for several sources.
        """
        if not self.place.is_dir() and len({source.path for source in sources}) > 1:
            raise ConfigError(f"{self.place} holds the poses of one source; give a folder with a file for each of several")
        total = hashlib.sha256()
        for path in sorted({self._file(source) for source in sources}):
            for file in sorted(path.glob("*.json")) if path.is_dir() else [path]:
                total.update(f"{file.name} {hashlib.sha256(_content(file)).hexdigest()} ".encode())
        return total.hexdigest()

    def knows(self, source: Source) -> bool:
        """Tell whether there are poses of that name."""
        return self._file(source).exists()

    def taken(self, source: Source) -> str:
        """Say who of several people is taken, and how to take another.

        Raises:
            DataError: damaged poses, of frames of another shape, or without that person.
        """
        return self._read(source, source.width, source.height)[0].sentence

    def __call__(self, source: Source, frames: Iterator[Frame], looked: Callable[[Look], None]) -> Iterator[tuple[Frame, Pose]]:
        """Yield the frames of one shot, each with the joints that were found in the one nearest in time.

        Where that is further away than poses are from each other, there are none. Frames without a rate of their own are
        counted.
        """
        points, times, reach = np.zeros((0, 0, 3), np.float32), np.zeros(0), 0.0
        for frame in frames:
            if not len(points):
                height, width = frame.image.shape[:2]
                choice, times = self._read(source, width, height)
                points, reach = choice.poses.joined[:, 0], LOST / choice.poses.fps
            if source.fps is None:
                nearest = round(frame.time / frame.interval) if frame.interval else 0
                known = nearest < len(points)
            else:
                nearest = int(np.abs(times - frame.time).argmin())
                known = abs(times[nearest] - frame.time) <= reach
            yield frame, points[nearest] if known else mark_missing(np.zeros(points.shape[1:]))

    def _read(self, source: Source, width: int, height: int) -> tuple[Choice, Float64[np.ndarray, "T"]]:
        return _recorded(self._file(source), self.skeleton, self.person, width, height, source.fps, source.frames)

    def _file(self, source: Source) -> Path:
        if not self.place.is_dir():
            return self.place
        name = source.name if source.kind == "frames" else source.name.rpartition(".")[0] or source.name
        file, folder = self.place / f"{name}.npz", self.place / name
        return folder if folder.is_dir() and not file.exists() else file


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"the poses {file} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=1)  # a source is cut shot by shot
def _recorded(
    path: Path, skeleton: Skeleton, person: str, width: int, height: int, fps: float | None, frames: int | None
) -> tuple[Choice, Float64[np.ndarray, "T"]]:
    """Read the poses of one person, in pixels of the footage, and the time of each in seconds."""
    about = {"width": width, "height": height, "fps": fps or STILL_FPS, "frames": frames} if path.is_dir() else {}
    poses = read_poses(path, **about)
    if not len(poses):
        raise DataError(f"{path} holds no frames; find the poses of this footage with kinema pose detect")
    if abs(poses.width / poses.height / (width / height) - 1) > ASPECT:
        raise DataError(f"{path} holds poses of {poses.width}x{poses.height} frames, and the footage is {width}x{height}")
    if lacking := poses.lacking(skeleton):
        raise DataError(
            f"{path} holds no {' and no '.join(lacking)}; find them with kinema pose detect --skeleton {skeleton.name}, or "
            f"give --pose-skeleton {skeleton.body.name}"
        )
    poses = poses.resized(width, height)  # before the choice, which may be a pixel of the footage
    choice = choose(told_apart(poses)[0], person) if poses.present.any() else Choice(poses, "")
    poses = choice.poses.converted(skeleton)
    times = np.array((poses.extra or {}).get("times", []), np.float64)
    return replace(choice, poses=poses), times if len(times) == len(poses) else np.arange(len(poses)) / poses.fps


def in_clip(poses: Sequence[Pose], have: Size, shape: Size, resize: Resize) -> Float32[np.ndarray, "T J 3"]:
    """Move poses to where the pixels of a clip are; what is beyond its edges is missing, 0, 0, 0.

    Args:
        poses: in pixels of the footage.
        have: size of the footage.
        shape: size of the clip.
        resize: how the footage was scaled before its middle was taken, as in `kinema.data.cutting.fitted`.
    """
    points = np.stack(poses)
    want, corner = placed(have, shape, resize)
    scale = np.array(want) / np.array(have)
    points[..., :2] = (points[..., :2] + 0.5) * scale - 0.5 - np.array(corner)
    return np.nan_to_num(visible(points, *shape), nan=0.0)


def share_with_person(pose: Float32[np.ndarray, "T J 3"], skeleton: Skeleton) -> float:
    """Return the share of frames in which a person is."""
    return round(float(has_trunk(pose, skeleton).mean()), 4)


def shares_with_parts(pose: Float32[np.ndarray, "T J 3"], skeleton: Skeleton) -> dict[str, float]:
    """Return the shares of frames in which the face, the left and the right hand are, for a layout that has them."""
    shown = Poses(pose[:, None], skeleton, 1, 1, 1.0).shown
    return {name: round(float(there.mean()), 4) for name, there in shown.items()}


def placed(have: Size, shape: Size, resize: Resize) -> tuple[Size, tuple[int, int]]:
    """Say how pixels of the footage become those of a clip: the size they are scaled to, and which of them is its first.

    Args:
        have: size of the footage.
        shape: size of the clip, whose middle is that of the scaled footage.
        resize: size of the footage -> size to scale it to.
    """
    want = resize(*have)
    return want, ((want[0] - shape[0]) // 2, (want[1] - shape[1]) // 2)


def moved(pose: Pose, transform: Float64[np.ndarray, "2 3"]) -> Pose:
    """Return the pose of an image that was moved by a transform, in pixels."""
    turned = pose.copy()
    turned[:, :2] = pose[:, :2] @ transform[:, :2].T + transform[:, 2]
    return turned
