"""What normalisers need to know of a person: where the feet are, how tall somebody is there, where the joints usually are.

Coordinates are pixels of the person's own frames.

References:
    Chan et al., Everybody Dance Now, ICCV 2019, section 3.2 (global pose normalisation), with the corrections that the
    docstrings name.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from kinema.core.errors import ConfigError, DataError
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import Skeleton, converter

TORSO = Skeleton(
    "torso",
    (
        *("Nose", "Neck", "RShoulder", "LShoulder", "RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle"),
        *("REye", "LEye", "REar", "LEar"),
    ),
    (),
)
"""The joints that place a person: all of COCO-18 but elbows and wrists."""

PERCENTILE = 99.0
"""In place of the release's maxima: a reflection on the floor in a few frames moved the nearest foot by 53 pixels."""
ALPHA = 0.5
STILL = 0.06
"""Somebody whose feet stay within this share of their height does not move in depth, but shuffles or hops; their size then
changes by no more than about this share."""
SAMPLES = 500
_DECIMALS = 4  # of a pixel, as stored


@dataclass(frozen=True)
class Floor:
    """Where somebody's feet are, and how tall they are there.

    Attributes:
        standing: frames that show a head and both ankles; the rest is over these.
        close: y of the lower ankle when nearest to the camera (a high percentile).
        far: y of the lower ankle when furthest away.
        foot: median y of the lower ankle.
        moves: whether the way from far to close is one, and no more than shuffling.
        middle: median x of the middle of the hips, else of the ankles.
        profile: y of the lower ankle and height (head to middle of the ankles) of up to 500 frames, in order of y.
    """

    standing: int
    close: float
    far: float
    foot: float
    moves: bool
    middle: float
    profile: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class BodyStatistics:
    """What a normaliser needs to know of one side; small, and JSON.

    Attributes:
        skeleton: name of the layout.
        width: of the frames in pixels.
        height: of the frames in pixels.
        frames: of the poses.
        floor: None when no frame shows a head and both ankles.
        places: median x, y of every joint of `TORSO`, None where it is never seen.
        start: x, y, confidence of the joints of `skeleton` in the frame that is most like the median pose.
    """

    skeleton: str
    width: int
    height: int
    frames: int
    floor: Floor | None
    places: tuple[tuple[float, float] | None, ...]
    start: tuple[tuple[float, float, float], ...]

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "BodyStatistics":
        """Rebuild from JSON values.

        Raises:
            DataError: when fields are missing or of another kind.
        """
        try:
            floor = values["floor"]
            if floor is not None:
                profile = tuple((float(foot), float(height)) for foot, height in floor["profile"])
                floor = Floor(**{**floor, "profile": profile})
            return cls(
                skeleton=str(values["skeleton"]),
                width=int(values["width"]),
                height=int(values["height"]),
                frames=int(values["frames"]),
                floor=floor,
                places=tuple(place and (float(place[0]), float(place[1])) for place in values["places"]),
                start=tuple((float(x), float(y), float(sure)) for x, y, sure in values["start"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"stored body statistics are damaged: {error!r}") from None


def measure(poses: Poses, *, alpha: float = ALPHA, percentile: float = PERCENTILE) -> BodyStatistics:
    """Reduce the poses of one person to what normalisers need; the order of frames does not matter.

    The furthest foot is the least y with 0 < median - y < alpha (close - median), as in the release; `alpha` bounds what an
    outlier can do at that end.

    Args:
        poses: of one person, in the frames of source or target.
        alpha: share of the way from median to nearest foot that the furthest may lie beyond the median.
        percentile: of feet and heights that counts as their maximum, from 50 to 100.

    Raises:
        ConfigError: for settings out of range.
        DataError: when there are several people, or nobody.

    References:
        Everybody Dance Now, section 3.2; its release takes maxima and random frames.
    """
    if not 0 < alpha <= 1 or not 50 <= percentile <= 100:
        raise ConfigError(f"alpha {alpha:g} and percentile {percentile:g} must be above 0 to 1, and 50 to 100")
    if poses.points.shape[1] != 1:
        raise DataError(f"a normaliser is fitted to one person and there are {poses.points.shape[1]}; choose one first")
    if not poses.present.any():
        raise DataError(f"no person is in any of the {len(poses)} frames; there is nothing to normalise")
    body = torso(poses)[:, 0]
    return BodyStatistics(
        skeleton=poses.skeleton.name,
        width=poses.width,
        height=poses.height,
        frames=len(poses),
        floor=_floor(body, poses.height, alpha, percentile),
        places=_places(body),
        start=_start(poses),
    )


def torso(poses: Poses) -> Float64[np.ndarray, "T P 14 3"]:
    """Return the poses as joints of `TORSO`; of learned points, which have no names, all are missing."""
    if not set(TORSO.joints) & set(poses.skeleton.joints):
        return np.zeros((*poses.points.shape[:2], len(TORSO), 3))
    return converter(poses.skeleton, TORSO, rough=True)(poses.points.astype(np.float64))


def _floor(body: Float64[np.ndarray, "T 14 3"], edge: int, alpha: float, percentile: float) -> Floor | None:
    feet, heights = lower_foot(body), _heights(body)
    # A detector guesses ankles below the picture's edge when it does not see them.
    standing = np.isfinite(heights) & (feet < edge)
    if not standing.any():
        return None
    foot, height = feet[standing], heights[standing]
    close, usual = float(np.percentile(foot, percentile)), float(np.median(foot))
    behind = usual - foot
    reached = foot[(behind > 0) & (behind < alpha * (close - usual))]
    far = float(reached.min()) if len(reached) else close
    order = np.lexsort((height, foot))
    chosen = order[evenly_spread(len(order))]
    return Floor(
        standing=int(standing.sum()),
        close=round(close, _DECIMALS),
        far=round(far, _DECIMALS),
        foot=round(usual, _DECIMALS),
        moves=bool(close - far > STILL * np.median(height)),
        middle=round(float(np.median(middles(body)[standing])), _DECIMALS),
        profile=tuple((round(float(foot[i]), _DECIMALS), round(float(height[i]), _DECIMALS)) for i in chosen),
    )


def evenly_spread(count: int) -> Int64[np.ndarray, "_"]:
    """Return up to `SAMPLES` evenly spaced indices below `count`, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(SAMPLES, count)).round().astype(np.int64))


def _joint(body: Float64[np.ndarray, "*frames 14 3"], name: str) -> Float64[np.ndarray, "*frames 2"]:
    """Return x and y of a joint; NaN where it is missing."""
    point = body[..., TORSO.index(name), :]
    return np.where(point[..., 2:] > 0, point[..., :2], np.nan)


def lower_foot(body: Float64[np.ndarray, "*frames 14 3"]) -> Float64[np.ndarray, "*frames"]:
    """Return y of the lower of both ankles; NaN where one is missing."""
    return np.maximum(_joint(body, "LAnkle")[..., 1], _joint(body, "RAnkle")[..., 1])


def _heights(body: Float64[np.ndarray, "T 14 3"]) -> Float64[np.ndarray, "T"]:
    """Return the distance from the head (nose, else the middle of the ears) to the middle of the ankles."""
    nose, ears = _joint(body, "Nose"), (_joint(body, "LEar") + _joint(body, "REar")) / 2
    head = np.where(np.isnan(nose), ears, nose)
    return np.linalg.norm(head - (_joint(body, "LAnkle") + _joint(body, "RAnkle")) / 2, axis=-1)


def middles(body: Float64[np.ndarray, "T 14 3"]) -> Float64[np.ndarray, "T"]:
    """Return x of the middle of the hips, else of the ankles; NaN where both are missing."""
    hips, ankles = ((_joint(body, f"L{name}") + _joint(body, f"R{name}"))[..., 0] / 2 for name in ("Hip", "Ankle"))
    return np.where(np.isnan(hips), ankles, hips)


def _places(body: Float64[np.ndarray, "T 14 3"]) -> tuple[tuple[float, float] | None, ...]:
    places: list[tuple[float, float] | None] = []
    for joint in range(len(TORSO)):
        found = body[body[:, joint, 2] > 0, joint, :2]
        x, y = np.median(found, axis=0).round(_DECIMALS).tolist() if len(found) else (0.0, 0.0)
        places.append((x, y) if len(found) else None)
    return tuple(places)


def _start(poses: Poses) -> tuple[tuple[float, float, float], ...]:
    """Return the pose that is nearest to the median pose, of the frames that show the most joints."""
    points, present = poses.points[:, 0].astype(np.float64), poses.present[:, 0]
    fullest = np.nonzero(present.sum(axis=1) == present.sum(axis=1).max())[0]
    usual = np.array([np.median(points[there, joint, :2], axis=0) for joint, there in enumerate(present.T) if there.any()])
    ever = present.any(axis=0)
    apart = np.where(present[fullest][:, ever], np.linalg.norm(points[fullest][:, ever, :2] - usual, axis=-1), 0).sum(axis=1)
    pose = np.nan_to_num(points[fullest[apart.argmin()]], nan=0.0).round(_DECIMALS)
    return tuple((float(x), float(y), float(sure)) for x, y, sure in pose)
