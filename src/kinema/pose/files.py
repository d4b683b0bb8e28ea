"""Pose files: one .npz that holds everything, or a folder of OpenPose's JSON, one file per frame.

OpenPose's files know neither the size of the frames nor their rate: both come as arguments, or from the file `poses.json` that
`write_poses` puts beside them. Its layout is told by the number of body joints: 18 is COCO, 25 is BODY_25, and 23 is read as
Everybody Dance Now's own order (`EDN_23`), in which that paper's data came; OpenPose's experimental BODY_23 cannot be told
from it and is not read.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from kinema.core.arrays import read_arrays
from kinema.core.errors import DataError
from kinema.pose.sequence import UNORDERED, Poses
from kinema.pose.skeleton import BODY_25, COCO_18, EDN_23, SKELETONS, Skeleton, find_skeleton

NPZ_VERSION = 1
SIDE_VERSION = 1
SIDE_FILE = "poses.json"
"""Beside OpenPose's files: size, rate and what else they do not say."""

SUFFIX = "_keypoints.json"
LAYOUTS: Mapping[int, Skeleton] = {18: COCO_18, 23: EDN_23, 25: BODY_25}
"""Body joints per person in an OpenPose file -> their layout."""

BODY = "pose_keypoints_2d"
FACE = "face_keypoints_2d"
HANDS = ("hand_left_keypoints_2d", "hand_right_keypoints_2d")
KNOWN = (BODY, FACE, *HANDS, "person_id")
LARGEST = 1e30
"""What no coordinate is beyond: such numbers are no pixels, and some are none that an array holds."""
NO_FOLDERS = (".json", ".npy", ".csv", ".yml", ".yaml", ".pkl", ".txt", ".mp4")
"""Endings that nobody gives a folder: such a path is a mistake."""


def read_poses(
    path: Path | str,
    *,
    width: int | None = None,
    height: int | None = None,
    fps: float | None = None,
    frames: int | None = None,
) -> Poses:
    """Read poses from an .npz, or from a folder of OpenPose's ``*_keypoints.json``.

    People of an OpenPose file without ids are in the file's order, which may change from frame to frame:
    `kinema.pose.people.follow` tells them apart.

    Args:
        path: file or folder.
        width: of the frames, for OpenPose files without a side file.
        height: of the frames, likewise.
        fps: frames per second, likewise.
        frames: of the film that the poses are of, where it is known: files that begin with a later number than the first,
            and end within the film, are then of those frames. Else the first file is frame 0.

    Raises:
        DataError: when the files are damaged or of another kind, or size or rate are not known.
    """
    path = Path(path)
    if path.is_dir():
        return _read_openpose(path, width, height, fps, frames)
    if not path.exists():
        raise DataError(f"{path} does not exist; poses are read from an .npz or a folder of *{SUFFIX} files")
    if path.suffix.lower() != ".npz":
        raise DataError(f"{path} is no pose file; poses are read from an .npz or a folder of *{SUFFIX} files")
    return _read_npz(path)


def write_poses(path: Path | str, poses: Poses, *, overwrite: bool = False) -> None:
    """Write poses: a path that ends in .npz is one file, any other a folder of OpenPose's JSON with a side file.

    Both are made beside the path and renamed, so that a stop at any moment leaves nothing half written.

    Args:
        path: file or folder.
        poses: what to write.
        overwrite: replace what exists; a folder only when it holds nothing but poses.

    Raises:
        DataError: when it exists, cannot be written, or the layout is none of OpenPose's.
    """
    path = Path(path)
    if path.suffix.lower() in NO_FOLDERS:
        raise DataError(f"poses cannot be written to {path}; name an .npz file or a folder for OpenPose's files")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; name another place, or ask to overwrite it")
    if path.suffix.lower() == ".npz":
        if path.is_dir():
            raise DataError(f"{path} is a folder, which is not replaced by a file; name another place")
        _put(path, lambda beside: _write_npz(beside, poses))
    else:
        _refuse_foreign(path)
        _put(path, lambda beside: _write_openpose(beside, poses))


def missing_frames(poses: Poses) -> list[int]:
    """Return the numbers of the frames for which an OpenPose folder had no file; they hold nobody."""
    return list((poses.extra or {}).get("missing_frames", []))


# --- One file -----------------------------------------------------------------------------------------------------------------


def _write_npz(path: Path, poses: Poses) -> None:
    arrays = {
        "format_version": np.array(NPZ_VERSION),
        "points": _zeros_for_missing(poses.points),
        "skeleton": np.array(poses.skeleton.name),
        "joints": np.array(poses.skeleton.joints),
        "edges": np.array(poses.skeleton.edges, np.int64).reshape(-1, 2),
        "size": np.array([poses.width, poses.height]),
        "fps": np.array(float(poses.fps)),
        "people": np.array(poses.people, np.int64),
        "begins": np.array(poses.begins, np.int64),
    }
    for name in ("face", "hands"):
        if (part := getattr(poses, name)) is not None:
            arrays[name] = _zeros_for_missing(part)
    if poses.extra is not None:
        arrays["extra"] = np.array(json.dumps(poses.extra))
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def _read_npz(path: Path) -> Poses:
    found = read_arrays(path)
    if "format_version" not in found or "points" not in found:
        raise DataError(f"{path} holds no poses of kinema but {', '.join(sorted(found)) or 'nothing'}")
    try:
        if (version := int(found["format_version"])) > NPZ_VERSION:
            raise DataError(f"{path} has version {version} of the pose format; this kinema reads up to {NPZ_VERSION}")
        return Poses(
            found["points"].astype(np.float32),
            _skeleton(str(found["skeleton"]), found["joints"], found["edges"]),
            width=int(found["size"][0]),
            height=int(found["size"][1]),
            fps=float(found["fps"]),
            people=tuple(found["people"].tolist()),
            begins=tuple(found["begins"].tolist()),
            extra=json.loads(str(found["extra"])) if "extra" in found else None,
            **{name: found[name].astype(np.float32) for name in ("face", "hands") if name in found},
        )
    except (KeyError, ValueError, IndexError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _skeleton(name: str, joints: np.ndarray, edges: np.ndarray) -> Skeleton:
    """Return the stored skeleton; a known name with other joints is of another kinema and keeps its own."""
    names = tuple(str(joint) for joint in joints)
    if name in SKELETONS and SKELETONS[name].joints == names:
        return SKELETONS[name]
    if edges.size and not (edges.min() >= 0 and edges.max() < len(names)):
        raise ValueError(f"an edge of joints {edges.min()} to {edges.max()}, of which there are {len(names)}")
    return Skeleton(name, names, tuple((int(first), int(second)) for first, second in edges))


# --- OpenPose -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """What `poses.json` says; None where there is no such file."""

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    first: int | None = None
    frames: int | None = None
    skeleton: Skeleton | None = None
    people: tuple[int, ...] = ()
    begins: tuple[int, ...] = (0,)


def _read_openpose(folder: Path, width: int | None, height: int | None, fps: float | None, film: int | None) -> Poses:
    files = _numbered(folder)
    side = _read_side(folder / SIDE_FILE)
    first = _first(files, film) if side.first is None else min(side.first, *files)
    last = max(files) if side.frames is None else max(first + side.frames - 1, *files)
    if last - first > 1000 + 100 * len(files):
        raise DataError(f"{folder} has {len(files)} files for frames {first} to {last}; the numbers are no frame numbers")
    frames = [_read_frame(files[number]) if number in files else {"people": []} for number in range(first, last + 1)]
    skeleton = _layout(folder, frames, files, first) or side.skeleton
    if skeleton is None:
        raise DataError(f"no person is in any of the {len(files)} files of {folder}")
    width, height, fps = side.width or width, side.height or height, side.fps or fps
    if width is None or height is None or fps is None:
        raise DataError(
            f"OpenPose's files in {folder} say neither the size of the frames nor their rate, and there is no {SIDE_FILE}: "
            "give width, height and frames per second (kinema pose convert: --from-size and --from-fps)"
        )
    ids, named = _identities(frames, side)
    points, face, hands = _arrays(frames, ids, skeleton)
    _refuse_relative(folder, points, max(width, height))
    gone = sorted(set(range(first, last + 1)) - set(files))
    return Poses(
        points,
        skeleton,
        width,
        height,
        fps,
        face=face,
        hands=hands,
        people=ids,
        begins=side.begins,
        extra={**_besides(frames, ids, first, gone), **({} if named else {UNORDERED: True})},
    )


def _first(files: Mapping[int, Path], film: int | None) -> int:
    """Return the number of frame 0: the least one, or the film's first where the numbers are of a later part of its frames."""
    if film is None or min(files) < 2 or max(files) > film:
        return min(files)
    return int(max(files) == film)  # counted from 1, or from 0


def _numbered(folder: Path) -> dict[int, Path]:
    """Return frame number -> file of a folder."""
    files: dict[int, Path] = {}
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        numbers = re.findall(r"\d+", file.name.removesuffix(SUFFIX))
        if not numbers:
            raise DataError(f"{file} has no frame number before {SUFFIX}")
        number = int(numbers[-1])
        if number in files:
            raise DataError(f"{files[number]} and {file.name} are both of frame {number}; one folder holds one film")
        files[number] = file
    if not files:
        old = "; OpenPose's older YML files are not read" if any(folder.glob("*.y*ml")) else ""
        raise DataError(f"{folder} holds no *{SUFFIX} files{old}")
    return files


def _read_frame(file: Path) -> dict[str, Any]:
    """Read one file and check that it is OpenPose's.

    Raises:
        DataError: when it is not.
    """
    try:
        frame = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is no JSON: {error}") from None
    people = frame.get("people") if isinstance(frame, dict) else None
    if not isinstance(people, list) or not all(isinstance(person, dict) and BODY in person for person in people):
        raise DataError(f"{file} is JSON, but not OpenPose's: it wants a list 'people', each with {BODY!r}")
    for person in people:
        for name, joints in ((BODY, tuple(LAYOUTS)), (FACE, (70,)), *((hand, (21,)) for hand in HANDS)):
            _check_numbers(file, name, person.get(name) or [], joints)
    return frame


def _check_numbers(file: Path, name: str, numbers: Any, joints: tuple[int, ...]) -> None:
    numeric = isinstance(numbers, list) and all(isinstance(value, int | float) for value in numbers)
    if not numeric or any(LARGEST < abs(value) < math.inf for value in numbers):
        raise DataError(f"{file}: {name} is no list of numbers x, y, confidence, x, ...")
    if numbers and len(numbers) not in [3 * count for count in joints]:
        wanted = " or ".join(str(3 * count) for count in joints)
        raise DataError(f"{file}: {name} has {len(numbers)} numbers; OpenPose writes {wanted}")


def _layout(folder: Path, frames: list[dict[str, Any]], files: Mapping[int, Path], first: int) -> Skeleton | None:
    """Return the layout of all people, or None when there is nobody.

    Raises:
        DataError: when it changes from one to another.
    """
    found: Skeleton | None = None
    for number, frame in enumerate(frames, first):
        for person in frame["people"]:
            if not person[BODY]:
                continue
            layout = LAYOUTS[len(person[BODY]) // 3]
            if found not in (None, layout):
                raise DataError(
                    f"{files[number]} has {len(layout)} body joints and files before it in {folder} have {len(found)}; "
                    "one folder holds one layout"
                )
            found = layout
    return found


def _identities(frames: list[dict[str, Any]], side: _Side) -> tuple[tuple[int, ...], bool]:
    """Return who is in the film, and whether these are the files' own ids (every person has one) or places in their lists."""
    named = [[_person_id(person) for person in frame["people"]] for frame in frames]
    if all(id_ is not None for ids in named for id_ in ids) and all(len(set(ids)) == len(ids) for ids in named):
        seen = {id_ for ids in named for id_ in ids if id_ is not None}
        return (*side.people, *sorted(seen - set(side.people))) or (0,), True
    most = max(map(len, named), default=0)
    return tuple(range(max(most, 1))), False


def _person_id(person: dict[str, Any]) -> int | None:
    """Return OpenPose's id of a tracked person; it writes [-1] for those that it did not track."""
    id_ = person.get("person_id")
    id_ = id_[0] if isinstance(id_, list) and len(id_) == 1 else id_
    return id_ if isinstance(id_, int) and id_ >= 0 else None


def _places(frame: dict[str, Any], ids: tuple[int, ...]) -> list[int]:
    """Return the index of every person of a frame among all: by id, else by place in the list."""
    named = [_person_id(person) for person in frame["people"]]
    if all(id_ in ids for id_ in named) and len(set(named)) == len(named):
        return [ids.index(id_) for id_ in named if id_ is not None]
    return list(range(len(named)))


def _arrays(
    frames: list[dict[str, Any]], ids: tuple[int, ...], skeleton: Skeleton
) -> tuple[Float32[np.ndarray, "T P J 3"], Float32[np.ndarray, "T P 70 3"] | None, Float32[np.ndarray, "T P 2 21 3"] | None]:
    shape = (len(frames), len(ids))
    points = np.zeros((*shape, len(skeleton), 3), np.float32)
    face, hands = np.zeros((*shape, 70, 3), np.float32), np.zeros((*shape, 2, 21, 3), np.float32)
    for time, frame in enumerate(frames):
        for place, person in zip(_places(frame, ids), frame["people"], strict=True):
            parts = ((BODY, points[time, place]), (FACE, face[time, place]), *zip(HANDS, hands[time, place], strict=True))
            for name, part in parts:
                if numbers := person.get(name):
                    part[:] = np.array(numbers, np.float32).reshape(-1, 3)
    listed = {name for frame in frames for person in frame["people"] for name in (FACE, *HANDS) if person.get(name)}
    return points, face if FACE in listed else None, hands if listed & {*HANDS} else None


def _refuse_relative(folder: Path, points: Float32[np.ndarray, "T P J 3"], side: int) -> None:
    found = points[points[..., 2] > 0][:, :2]
    if side > 2 and len(found) and np.abs(found).max() <= 1:
        raise DataError(
            f"all coordinates in {folder} lie between -1 and 1: they are relative to the frame; "
            "let OpenPose write pixels (--keypoint_scale 0)"
        )


def _besides(frames: list[dict[str, Any]], ids: tuple[int, ...], first: int, gone: list[int]) -> dict[str, Any]:
    """Return what the files say that `Poses` has no field for, so that writing them again loses nothing."""
    fields: dict[str, Any] = {}
    people: dict[str, Any] = {}
    for time, frame in enumerate(frames):
        if own := {name: value for name, value in frame.items() if name != "people"}:
            fields[str(time)] = own
        for place, person in zip(_places(frame, ids), frame["people"], strict=True):
            if own := {name: value for name, value in person.items() if name not in KNOWN}:
                people.setdefault(str(time), {})[str(ids[place])] = own
    extra: dict[str, Any] = {"first_frame": first, "length": len(frames)}
    if gone:
        extra["missing_frames"] = gone
    return {**extra, **({"frame_fields": fields} if fields else {}), **({"person_fields": people} if people else {})}


def _write_openpose(folder: Path, poses: Poses) -> None:
    if LAYOUTS.get(len(poses.skeleton)) != poses.skeleton:
        names = ", ".join(skeleton.name for skeleton in LAYOUTS.values())
        raise DataError(f"OpenPose's files know no skeleton {poses.skeleton.name}; convert to {names}, or write an .npz")
    extra = poses.extra or {}
    # Fields of single frames are kept only while the frames are the same: of a part nobody knows which frames they were.
    same = extra.get("length") == len(poses)
    fields, people = (extra.get(name, {}) if same else {} for name in ("frame_fields", "person_fields"))
    first = extra.get("first_frame", 0) if same else 0
    named = not extra.get(UNORDERED)
    folder.mkdir()
    for time in range(len(poses)):
        besides = people.get(str(time), {})
        written = [
            {**({"person_id": [id_]} if named else {}), **_numbers(poses, time, place), **besides.get(str(id_), {})}
            for place, id_ in enumerate(poses.people)
            if _is_there(poses, time, place)
        ]
        frame = {**fields.get(str(time), {}), "people": written}
        (folder / f"{first + time:012d}{SUFFIX}").write_text(json.dumps(frame), encoding="utf-8")
    side = {
        "format_version": SIDE_VERSION,
        "width": poses.width,
        "height": poses.height,
        "fps": poses.fps,
        "first_frame": first,
        "frames": len(poses),
        "skeleton": poses.skeleton.name,
        "people": list(poses.people),
        "begins": list(poses.begins),
    }
    (folder / SIDE_FILE).write_text(json.dumps(side, indent=1), encoding="utf-8")


def _is_there(poses: Poses, time: int, place: int) -> bool:
    parts = (poses.points, poses.face, poses.hands)
    return any((part[time, place, ..., 2] > 0).any() for part in parts if part is not None)


def _numbers(poses: Poses, time: int, place: int) -> dict[str, list[float]]:
    def flat(part: Float32[np.ndarray, "*points 3"] | None) -> list[float]:
        return [] if part is None else [float(str(value)) for value in _zeros_for_missing(part).ravel()]  # the shortest

    hands = (None, None) if poses.hands is None else poses.hands[time, place]
    face = None if poses.face is None else poses.face[time, place]
    return {BODY: flat(poses.points[time, place]), FACE: flat(face), **dict(zip(HANDS, map(flat, hands), strict=True))}


def _read_side(file: Path) -> _Side:
    if not file.exists():
        return _Side()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["format_version"] > SIDE_VERSION:
            raise DataError(f"{file} has version {found['format_version']}; this kinema reads up to {SIDE_VERSION}")
        return _Side(
            width=int(found["width"]),
            height=int(found["height"]),
            fps=float(found["fps"]),
            first=int(found["first_frame"]),
            frames=int(found["frames"]),
            skeleton=find_skeleton(found["skeleton"]),
            people=tuple(map(int, found["people"])),
            begins=tuple(map(int, found["begins"])),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{file} is damaged ({error}); delete it and give size and rate yourself") from None


# --- Writing ------------------------------------------------------------------------------------------------------------------


def _zeros_for_missing(part: Float32[np.ndarray, "*points 3"]) -> Float32[np.ndarray, "*points 3"]:
    return np.nan_to_num(part, nan=0.0)


def _refuse_foreign(folder: Path) -> None:
    """Refuse to replace a folder in which there is anything but poses."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise DataError(f"{folder} is a file; OpenPose's files want a folder")
    foreign = next((entry.name for entry in folder.iterdir() if not _is_ours(entry)), None)
    if foreign:
        raise DataError(f"{folder} also holds {foreign!r}; it is not replaced, name another folder")


def _is_ours(entry: Path) -> bool:
    return entry.is_file() and (entry.name == SIDE_FILE or entry.name.endswith(SUFFIX))


def _put(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` make a file or folder beside `path`, then rename it into place; of a link, where it leads to."""
    path = path.resolve()
    beside, old = (path.with_name(f"{path.name}.{kind}-{os.getpid()}") for kind in ("tmp", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        if path.is_dir():  # a folder cannot be renamed onto another one
            path.rename(old)
        beside.replace(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise DataError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        for rest in (beside, old):
            if rest.is_dir():
                shutil.rmtree(rest)
            else:
                rest.unlink(missing_ok=True)
