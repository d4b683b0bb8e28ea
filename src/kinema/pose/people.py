"""Who is who: following people from frame to frame, and choosing one.

Detectors and OpenPose's files list the people of every frame in any order (`UNORDERED` in `Poses.extra`). `follow` finds, by
the overlap of their boxes, who of one frame is who of the next, and gives everybody a column of `Poses.points` and a number in
`Poses.people`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int64

from kinema.core.errors import ConfigError, DataError
from kinema.pose.filters import clips
from kinema.pose.sequence import UNORDERED, Parts, Poses


@dataclass(frozen=True)
class Followed:
    """Poses in which every column is one person, and what happened on the way.

    Attributes:
        poses: with the people's numbers.
        nobody: frames without anyone.
        changes: frames, but the first of a clip, in which somebody appears under a new number: a new person, or one whom the
            detector lost for too long.
        dropped: detections of people who were seen too briefly to count.
    """

    poses: Poses
    nobody: tuple[int, ...]
    changes: tuple[int, ...]
    dropped: int


def boxes(poses: Poses) -> Float32[np.ndarray, "T P 4"]:
    """Return left, top, right and bottom of the found body joints; NaN for who is not there."""
    there = poses.present.any(axis=-1)
    found = np.full((*there.shape, 4), np.nan, np.float32)
    if there.any():
        points = poses.points[there][..., :2]
        found[there] = np.concatenate([np.nanmin(points, axis=1), np.nanmax(points, axis=1)], axis=-1)
    return found


def areas(poses: Poses) -> Float32[np.ndarray, "T P"]:
    """Return the area of every box in square pixels; 0 for who is not there."""
    found = np.nan_to_num(boxes(poses), nan=0.0)
    return (found[..., 2] - found[..., 0]) * (found[..., 3] - found[..., 1])


def overlap(one: Float32[np.ndarray, "N 4"], other: Float32[np.ndarray, "M 4"]) -> Float32[np.ndarray, "N M"]:
    """Return intersection over union of every pair of boxes."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    sizes = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(axis=-1) for each in (one, other)]
    return (shared / np.maximum(sizes[0][:, None] + sizes[1][None] - shared, 1e-9)).astype(np.float32)


def absent_frames(poses: Poses) -> tuple[int, ...]:
    """Return the frames in which there is nobody."""
    return tuple(int(time) for time in np.nonzero(~poses.present.any(axis=(1, 2)))[0])


def follow(poses: Poses, least_overlap: float = 0.3, patience: float = 1.0, least_frames: int = 5) -> Followed:
    """Find who of one frame is who of the next.

    The boxes of one frame go to the people known so far such that the sum of overlaps (intersection over union) is largest,
    those not seen of late counting less; who overlaps with nobody is new. Somebody seen from the side has a narrow box, which a
    step takes away from itself: it counts as half as wide as it is high. Nobody is followed across the border of a clip.

    Args:
        poses: people in any order, another in every frame if need be.
        least_overlap: of two boxes of one person, from 0 to 1.
        patience: seconds after which somebody who is not seen is gone.
        least_frames: of a person; who is seen in fewer is dropped (all are kept in films that are not longer).

    Raises:
        ConfigError: for a setting out of range.
        DataError: when there is no person in any frame.
    """
    if not 0 < least_overlap < 1 or patience <= 0 or least_frames < 1:
        raise ConfigError("following wants an overlap between 0 and 1, patience above 0 seconds and at least 1 frame")
    if not poses.present.any():
        raise DataError(f"no person is in any of the {len(poses)} frames")
    owner, births = _assign(poses, least_overlap, max(round(patience * poses.fps), 1))
    seen = np.bincount(owner[owner >= 0], minlength=len(births))
    firsts = {first for first, _ in clips(poses)}
    if poses.points.shape[1] == 1:  # never two at once: taken for one person, who may have been away or have jumped
        changes = tuple(birth for birth in births if birth not in firsts)
        return Followed(_ordered(poses, poses.extra), absent_frames(poses), changes, 0)
    stay = seen >= (least_frames if len(poses) > least_frames else 1)
    if not stay.any():
        stay = seen == seen.max()
    numbers = np.where(stay, np.cumsum(stay) - 1, -1)
    owner = np.where(owner >= 0, numbers[owner], -1)
    changes = {birth for birth, stays in zip(births, stay, strict=True) if stays and birth not in firsts}
    followed = _rearranged(poses, owner, int(stay.sum()))
    return Followed(followed, absent_frames(followed), tuple(sorted(changes)), int(seen[~stay].sum()))


def _assign(poses: Poses, least_overlap: float, patience: int) -> tuple[Int64[np.ndarray, "T P"], list[int]]:
    """Return the person of every detection, -1 where there is none, and the frame in which every person was first seen."""
    from scipy.optimize import linear_sum_assignment

    found = _widened(boxes(poses))
    there = ~np.isnan(found[..., 0])
    owner = np.full(there.shape, -1, np.int64)
    births: list[int] = []
    known: dict[int, tuple[int, Float32[np.ndarray, "4"]]] = {}
    starts = {first for first, _ in clips(poses)}
    for time in range(len(poses)):
        known = {} if time in starts else {id_: last for id_, last in known.items() if time - last[0] <= patience}
        slots = np.nonzero(there[time])[0]
        ids = list(known)
        if ids and len(slots):
            shared = overlap(np.stack([known[id_][1] for id_ in ids]), found[time, slots])
            recent = np.array([1 - (time - known[id_][0]) / (2 * patience) for id_ in ids])
            for row, column in zip(*linear_sum_assignment(-shared * recent[:, None]), strict=True):
                if shared[row, column] >= least_overlap:
                    owner[time, slots[column]] = ids[row]
        for slot in slots:
            if owner[time, slot] < 0:
                owner[time, slot] = len(births)
                births.append(time)
            known[int(owner[time, slot])] = (time, found[time, slot])
    return owner, births


def _widened(found: Float32[np.ndarray, "T P 4"]) -> Float32[np.ndarray, "T P 4"]:
    """Return boxes no side of which is less than half of the other."""
    middle, sides = (found[..., :2] + found[..., 2:]) / 2, found[..., 2:] - found[..., :2]
    half = np.maximum(sides, sides[..., ::-1] / 2) / 2
    return np.concatenate([middle - half, middle + half], axis=-1)


def _rearranged(poses: Poses, owner: Int64[np.ndarray, "T P"], people: int) -> Poses:
    """Return the poses with every detection in the column of its person; fields of files go with them."""
    times, slots = np.nonzero(owner >= 0)
    columns = owner[times, slots]

    def moved(part: Float32[np.ndarray, "T P *rest"]) -> Float32[np.ndarray, "T people *rest"]:
        target = np.zeros((len(part), people, *part.shape[2:]), np.float32)
        target[times, columns] = part[times, slots]
        return target

    parts = {name: moved(part) for name in Parts if (part := getattr(poses, name)) is not None}
    extra = poses.extra
    if extra and (fields := extra.get("person_fields")):
        moving = {(str(time), str(poses.people[slot])): str(owner[time, slot]) for time, slot in np.argwhere(owner >= 0)}
        extra = {
            **extra,
            "person_fields": {
                time: {moving[time, id_]: own for id_, own in each.items() if (time, id_) in moving}
                for time, each in fields.items()
            },
        }
    return _ordered(replace(poses, **parts, people=tuple(range(people))), extra)


def _ordered(poses: Poses, extra: dict[str, Any] | None) -> Poses:
    return replace(poses, extra=extra and {name: value for name, value in extra.items() if name != UNORDERED})


def are_unordered(poses: Poses) -> bool:
    """Whether the people of every frame are in an order of their own, so that they must be followed first."""
    return bool((poses.extra or {}).get(UNORDERED))


@dataclass(frozen=True)
class Choice:
    """One person out of several.

    Attributes:
        poses: of that person alone.
        sentence: who was taken and how to take another; empty where there was nobody else.
    """

    poses: Poses
    sentence: str


def choose(poses: Poses, who: str = "largest") -> Choice:
    """Take one person.

    Args:
        poses: people with numbers, as `follow` returns them.
        who: "largest": the largest box, summed over the frames; "X,Y": whose box is nearest to that pixel in the first frame
            with anybody; or the number of a person.

    Raises:
        ConfigError: when it is none of these.
        DataError: when there is no such person, or nobody at all.
    """
    if not poses.present.any():
        raise DataError(f"no person is in any of the {len(poses)} frames")
    index = _index(poses, who)
    seen = poses.present.any(axis=-1).sum(axis=0)
    others = [f"{id_} ({seen[place]} frames)" for place, id_ in enumerate(poses.people) if place != index]
    sentence = (
        f"{len(poses.people)} people: took {poses.people[index]} ({who}, in {seen[index]} of {len(poses)} frames); the others "
        f"are {', '.join(others)}; choose with --person NUMBER, --person X,Y (pixel of the first frame) or --person largest"
    )
    return Choice(poses.person(index), sentence if others else "")


def _index(poses: Poses, who: str) -> int:
    if who == "largest":
        return int(areas(poses).sum(axis=0, dtype=np.float64).argmax())
    if who.isdecimal():
        if int(who) not in poses.people:
            raise DataError(f"there is no person {who}; there are {', '.join(map(str, poses.people))}")
        return poses.people.index(int(who))
    if (pixel := _pixel(who)) is None:
        raise ConfigError(f"--person {who!r} is none of: largest, the number of a person, a pixel such as 320,200")
    x, y = pixel
    if not (-1 < x < poses.width and -1 < y < poses.height):
        raise DataError(f"--person {who} lies outside of the frames, which are {poses.width}x{poses.height}")
    there: Bool[np.ndarray, "T P"] = poses.present.any(axis=-1)
    first = int(there.any(axis=1).argmax())
    left, top, right, bottom = np.moveaxis(boxes(poses)[first], -1, 0)
    outside = np.hypot(np.maximum(np.maximum(left - x, x - right), 0), np.maximum(np.maximum(top - y, y - bottom), 0))
    # Of those whose box holds the pixel, whose middle is nearest.
    middle = np.hypot((left + right) / 2 - x, (top + bottom) / 2 - y)
    return int(np.nanargmin(outside + 1e-3 * middle))


def _pixel(who: str) -> tuple[float, float] | None:
    try:
        x, y = map(float, who.split(","))
    except ValueError:
        return None
    return (x, y) if np.isfinite([x, y]).all() else None


def is_choice(who: str) -> bool:
    """Whether `take` understands a choice; whether there is such a person is another matter."""
    return who in ("all", "largest") or who.isdecimal() or _pixel(who) is not None


def told_apart(poses: Poses) -> tuple[Poses, tuple[str, ...]]:
    """Follow people where that is still to be done.

    Returns:
        The poses, every column one person, and who came and went.

    Raises:
        DataError: when there is nobody to be followed.
    """
    if not are_unordered(poses):
        return poses, ()
    followed = follow(poses)
    notes: list[str] = []
    if followed.changes:
        notes.append(f"somebody appears anew, or far from where they were, in {frame_list(followed.changes)}")
    if followed.dropped:
        notes.append(f"dropped {followed.dropped} detections of people who were seen only briefly")
    return followed.poses, tuple(notes)


def chosen(poses: Poses, who: str) -> Choice:
    """Take one person as `choose` does, or "all": then the sentence says who there is, where there are several."""
    if who != "all":
        return choose(poses, who)
    columns = zip(poses.people, poses.present.any(axis=-1).T, strict=True)
    seen = [f"{id_} in {frame_list(np.flatnonzero(there).tolist(), most=4)}" for id_, there in columns]
    sentence = f"{len(seen)} people: {'; '.join(seen)}" if len(seen) > 1 else ""
    return Choice(poses, sentence)


def take(poses: Poses, who: str = "largest") -> tuple[Poses, tuple[str, ...]]:
    """Follow people where that is still to be done, and take one of them, or all.

    Args:
        poses: as read or detected.
        who: as for `choose`, or "all".

    Returns:
        The poses, and what a user should know: who was taken, who came and went, frames without a person.

    Raises:
        ConfigError: for a choice that is none.
        DataError: when there is no such person, or nobody at all.
    """
    poses, notes = told_apart(poses)
    choice = chosen(poses, who)
    absent = absent_frames(choice.poses)
    nobody = f"no person in {frame_list(absent)}" if absent else ""
    return choice.poses, (*notes, *(note for note in (choice.sentence, nobody) if note))


def frame_list(frames: Sequence[int], most: int = 8) -> str:
    """Return frame numbers as ranges, such as ``12 frames (3-9, 40, 61-64)``; after `most` ranges only that there are more."""
    ranges: list[list[int]] = []
    for frame in frames:
        if ranges and ranges[-1][1] == frame - 1:
            ranges[-1][1] = frame
        else:
            ranges.append([frame, frame])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:most]]
    more = ", ..." if len(ranges) > most else ""
    return f"{len(frames)} frame{'s' * (len(frames) != 1)} ({', '.join(shown)}{more})"
