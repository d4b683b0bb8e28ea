"""Normalisers: move a source's poses to where the target would stand, at the target's size.

Source and target are each reduced to `BodyStatistics`, so that a trained system stores those of its target and a transfer needs
the run and the source's poses only. `fit` compares the two and returns a `Normaliser`, which maps body, face and hands alike.
Global normalisation keeps the *source's* proportions: nobody's legs become longer than their arms.

Coordinates are pixels of each side's own frames; the frames may differ in size.

References:
    Chan et al., Everybody Dance Now, ICCV 2019, section 3.2 (global pose normalisation), with the corrections that the
    docstrings name. Siarohin et al., First Order Motion Model, NeurIPS 2019 (relative motion).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float64

from kinema.core.errors import ConfigError, DataError, accepted
from kinema.pose.filters import clips
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import PENN_13, Skeleton, converter, find_skeleton
from kinema.pose.stature import PERCENTILE, BodyStatistics, Floor, evenly_spread, lower_foot, measure, torso

Mode = Literal["none", "affine", "depth", "relative", "code"]
MODES: Mapping[str, str] = {
    "none": "poses as they are, fitted into the target's frame",
    "affine": "one scale and shift for the whole film",
    "depth": "feet on the target's floor and the size that belongs there, frame by frame",
    "relative": "the target's own pose, moved as the source moves",
}
"""What a user can choose -> one line about it. (`fit` also knows "code", the release of Everybody Dance Now with its error.)"""

BAND = 0.05
FEWEST = 0.02
"""Share of the frames from which a height is taken: of very few, all may show a crouch."""
CLIP = (-0.2, 1.2)

# --- Rules --------------------------------------------------------------------------------------------------------------------

Move = Callable[[Float[np.ndarray, "T P *points 2"]], Float[np.ndarray, "T P *points 2"]]


@dataclass(frozen=True)
class Affine:
    """One scale and shift: x' = scale x + right, y' = scale y + down."""

    scale: float
    right: float
    down: float

    def place(self, poses: Poses) -> Poses:
        """Return the poses moved."""
        shift = np.array([self.right, self.down])
        return poses.mapped(lambda points: self.scale * points + shift)


@dataclass(frozen=True)
class Depth:
    """Size and floor line that belong to where the source's foot is.

    With a the lower ankle's y and u = (a - source_far) / (source_close - source_far):
    b = target_far + u (target_close - target_far) is where the foot must stand and
    c = scale_far + u (scale_close - scale_far) the scale, u clipped to [-0.2, 1.2] in c alone.
    Then x' = target_middle + c (x - source_middle) and y' = b + c (y - a): the foot stands on b exactly.

    Attributes:
        source_close: the source's nearest foot, y.
        source_far: its furthest.
        source_middle: x that becomes `target_middle`.
        source_foot: its median foot, for clips that never show both ankles.
        target_close: the target's nearest foot.
        target_far: its furthest.
        target_middle: where the target stands, x.
        scale_close: of a source at its nearest.
        scale_far: of a source at its furthest.
        first_foot: the release's form p' = c p + (1 - c) q + (0, b - a) with q fixed at the first frame's foot, by which the
            foot lands (1 - c)(a_1 - a) beside b.
    """

    source_close: float
    source_far: float
    source_middle: float
    source_foot: float
    target_close: float
    target_far: float
    target_middle: float
    scale_close: float
    scale_far: float
    first_foot: bool = False

    def at(self, foot: Float[np.ndarray, "*frames"]) -> tuple[Float64[np.ndarray, "*frames"], Float64[np.ndarray, "*frames"]]:
        """Return where the foot must stand, and the scale.

        Args:
            foot: y of the source's lower ankle.
        """
        along = (np.asarray(foot, np.float64) - self.source_far) / (self.source_close - self.source_far)
        stand = self.target_far + along * (self.target_close - self.target_far)
        return stand, self.scale_far + np.clip(along, *CLIP) * (self.scale_close - self.scale_far)

    def place(self, poses: Poses) -> Poses:
        """Return the poses moved; a frame without both ankles takes the foot of the frame before it."""
        foot = self.feet(poses)
        stand, scale = self.at(foot)
        anchor = np.broadcast_to(foot[:1], foot.shape) if self.first_foot else foot
        shift = stand - foot if self.first_foot else stand - anchor

        def move(points: Float[np.ndarray, "T P *points 2"]) -> Float[np.ndarray, "T P *points 2"]:
            each = (..., *(None,) * (points.ndim - 3))
            x = self.target_middle + scale[each] * (points[..., 0] - self.source_middle)
            y = anchor[each] + scale[each] * (points[..., 1] - anchor[each]) + shift[each]
            return np.stack([x, y], axis=-1)

        return poses.mapped(move)

    def feet(self, poses: Poses) -> Float64[np.ndarray, "T P"]:
        """Return the lower ankle's y per frame, gaps held; a clip that never shows it has the source's median."""
        foot = lower_foot(torso(poses))
        for first, stop in clips(poses):
            foot[first:stop] = _held(foot[first:stop])
        return np.where(np.isnan(foot), self.source_foot, foot)


def _held(values: Float64[np.ndarray, "T P"]) -> Float64[np.ndarray, "T P"]:
    """Return the values with gaps filled by what was before them, at the beginning by what comes first."""
    known = np.isfinite(values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(values))[:, None], -1), axis=0)
    return np.take_along_axis(values, np.where(last < 0, known.argmax(axis=0), last), axis=0)


@dataclass(frozen=True)
class Relative:
    """The target's pose moved as the source moves from its start: p' = target + scale (p - start), joint by joint.

    Joints that the start lacks and a frame too, such as legs below the picture's edge, stand still where the target has them. A
    joint that the target's pose lacks, and points of faces and hands, move with the nose, the wrist or the mean of all joints.

    Attributes:
        scale: root of the ratio of both poses' convex areas.
        start: the source's start, x, y, confidence per joint of its skeleton.
        target: the target's pose, likewise.
        skeleton: name of the source's layout.
    """

    scale: float
    start: tuple[tuple[float, float, float], ...]
    target: tuple[tuple[float, float, float], ...]
    skeleton: str

    def place(self, poses: Poses) -> Poses:
        """Return the poses moved.

        Raises:
            DataError: when they are of another skeleton than those that this was fitted to.
        """
        if poses.skeleton.name != self.skeleton:
            raise DataError(f"the normaliser was fitted to poses of {self.skeleton}; these are of {poses.skeleton.name}")
        start, target = np.array(self.start), np.array(self.target)
        both = (start[:, 2] > 0) & (target[:, 2] > 0)
        shifts = target[:, :2] - self.scale * start[:, :2]
        shifts[~both] = shifts[both].mean(axis=0)

        def of(joint: str) -> Float64[np.ndarray, "2"]:
            known = joint in poses.skeleton.joints
            return shifts[poses.skeleton.index(joint)] if known else shifts[both].mean(axis=0)

        wrists = np.stack([of("LWrist"), of("RWrist")])[:, None]
        parts = {"points": shifts, "face": of("Nose"), "hands": wrists}
        moved = {
            name: np.concatenate([self.scale * part[..., :2] + parts[name], part[..., 2:]], axis=-1).astype(np.float32)
            for name in parts
            if (part := getattr(poses, name)) is not None
        }
        lacking = ~poses.present & self.still() & poses.present.any(axis=-1, keepdims=True)
        moved["points"] = np.where(lacking[..., None], target.astype(np.float32), moved["points"])
        return replace(poses, **moved)

    def still(self) -> Bool[np.ndarray, "J"]:
        """Return which joints the target has and the source's start lacks."""
        return (np.array(self.start)[:, 2] <= 0) & (np.array(self.target)[:, 2] > 0)


RULES: Mapping[str, type[Affine] | type[Depth] | type[Relative]] = {
    "none": Affine,
    "affine": Affine,
    "depth": Depth,
    "code": Depth,
    "relative": Relative,
}


@dataclass(frozen=True)
class Normaliser:
    """A source's poses in, poses in the target's frame out.

    Attributes:
        mode: what is done, which may be another mode than was asked for.
        rule: with what numbers.
        source_size: width and height of the frames that it takes.
        target_size: of those that it gives.
        notes: what a user should know: a mode that was not possible, and its limits.
    """

    mode: Mode
    rule: Affine | Depth | Relative
    source_size: tuple[int, int]
    target_size: tuple[int, int]
    notes: tuple[str, ...] = ()

    def __call__(self, poses: Poses) -> Poses:
        """Return the poses in the target's frame.

        Raises:
            DataError: when they are of frames of another size than those that this was fitted to.
        """
        if (poses.width, poses.height) != self.source_size:
            raise DataError(
                f"the normaliser was fitted to frames of {self.source_size[0]}x{self.source_size[1]}; "
                f"these poses are of {poses.width}x{poses.height}, resize them first"
            )
        return replace(self.rule.place(poses), width=self.target_size[0], height=self.target_size[1])

    def to_mapping(self) -> dict[str, Any]:
        """Return JSON values."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Normaliser":
        """Rebuild from JSON values.

        Raises:
            DataError: for an unknown mode, or fields that are missing or of another kind.
        """
        try:
            rule = RULES[values["mode"]]
            given = {field.name: values["rule"][field.name] for field in fields(rule)}
            for name in ("start", "target"):
                if name in given:
                    given[name] = tuple((float(x), float(y), float(sure)) for x, y, sure in given[name])
            sizes = ((int(width), int(height)) for width, height in (values["source_size"], values["target_size"]))
            return cls(values["mode"], rule(**given), *sizes, notes=tuple(values["notes"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a stored normaliser is damaged: {error!r}") from None


# --- Fitting ------------------------------------------------------------------------------------------------------------------


def fit(source: Poses, target: BodyStatistics, mode: Mode | str = "depth") -> Normaliser:
    """Find how to move a source's poses to where the target would stand.

    Args:
        source: poses of one person.
        target: of the person who shall do it.
        mode: one of `MODES`; depth becomes affine, with a note, where somebody does not move in depth.

    Raises:
        ConfigError: for an unknown mode.
        DataError: when source or target lack what the mode stands on, such as feet.
    """
    if mode not in RULES:
        raise ConfigError(f"there is no normaliser {mode!r}; {accepted(mode, MODES)}")
    own = measure(source)
    sizes = ((own.width, own.height), (target.width, target.height))
    if mode == "none":
        return Normaliser("none", _fitted(own, target), *sizes)
    if mode == "affine":
        return Normaliser("affine", _affine(own, target), *sizes)
    if mode == "relative":
        rule = _relative(source, target)
        return Normaliser("relative", rule, *sizes, notes=_still(rule, source.skeleton))
    rule, notes = _depth(own, target)
    if rule is None:
        return Normaliser("affine", _affine(own, target), *sizes, notes=notes)
    if mode == "code":
        middle = target.width / 2
        rule = replace(rule, first_foot=True, source_middle=middle, target_middle=middle)
        return Normaliser("code", rule, *sizes, notes=notes)
    return Normaliser("depth", rule, *sizes, notes=notes)


def _unit(source: BodyStatistics, target: BodyStatistics) -> float:
    """Return the scale that fits the source's frame into the target's."""
    return min(target.width / source.width, target.height / source.height)


def _fitted(source: BodyStatistics, target: BodyStatistics) -> Affine:
    """Return the map of one frame into the other, borders even on both sides; nothing at all for equal frames."""
    scale = _unit(source, target)
    right, down = (
        (to - 1) / 2 - scale * (of - 1) / 2 for of, to in ((source.width, target.width), (source.height, target.height))
    )
    return Affine(scale, right, down)


def _affine(source: BodyStatistics, target: BodyStatistics) -> Affine:
    """Fit y' = a y + b by least squares over the joints of `TORSO`, and x' = a x + c by the mean offset.

    Over median places of the joints on both sides, not over all frames against one pose: with motion in the source, the latter
    shrinks people (regression dilution), and a source that is the target would not stay what it is. In pixels one scale for
    both axes is MimicMotion's correction of its relative coordinates for the two aspect ratios.
    """
    pairs = [(one, other) for one, other in zip(source.places, target.places, strict=True) if one and other]
    if len(pairs) < 2:
        raise DataError(
            f"source and target share {len(pairs)} of the joints that place a person (head, shoulders, hips, legs); "
            "two are needed: choose the normaliser relative or none"
        )
    own, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    spread = own[:, 1] - own[:, 1].mean()
    scale = float(spread @ theirs[:, 1] / (spread @ spread)) if np.ptp(own[:, 1]) > 0 else 0.0
    if scale <= 0:
        raise DataError("source and target do not stand the same way up, so no scale fits; choose the normaliser relative")
    right, down = (theirs.mean(axis=0) - scale * own.mean(axis=0)).tolist()
    return Affine(scale, right, down)


def _depth(source: BodyStatistics, target: BodyStatistics) -> tuple[Depth | None, tuple[str, ...]]:
    """Fit the close/far interpolation; None, with the reason, where the source does not move in depth.

    A target that stays at one distance has an interval without length: whoever comes nearer stays on its line, at its size.
    """
    own, theirs = floor_of("source", source), floor_of("target", target)
    if not own.moves:
        return None, ("the source does not move towards or away from the camera: normaliser affine in place of depth",)
    close, far = (theirs.close, theirs.far) if theirs.moves else (theirs.foot, theirs.foot)
    length = (own.close - own.far) * _unit(source, target)
    if length < close - far:  # who hardly moves in depth is not made to cross the whole stage
        centre = (close + far) / 2
        close, far = centre + length / 2, centre - length / 2
    heights = _extremes(own, own.close, own.far), _extremes(theirs, close, far) if theirs.moves else _usual(theirs)
    if heights[0] is None or heights[1] is None:
        who = "source" if heights[0] is None else "target"
        return None, (f"the {who} is too rarely at both ends of its way in depth: normaliser affine in place of depth",)
    rule = Depth(
        source_close=own.close,
        source_far=own.far,
        source_middle=own.middle,
        source_foot=own.foot,
        target_close=close,
        target_far=far,
        target_middle=theirs.middle,
        scale_close=heights[1][0] / heights[0][0],
        scale_far=heights[1][1] / heights[0][1],
    )
    return rule, _limits(source, own, target, rule)


def floor_of(who: str, side: BodyStatistics) -> Floor:
    """Return what the normaliser depth stands on.

    Raises:
        DataError: when there is none, naming the normalisers that need none.
    """
    if side.floor is None:
        raise DataError(
            f"no frame of the {who} shows a head and both feet in view, on which the normaliser depth stands; "
            "choose affine or relative"
        )
    return side.floor


def _usual(side: Floor) -> tuple[float, float]:
    """Return the standing height of somebody who stays at one distance, for both ends."""
    height = float(np.percentile([height for _, height in side.profile], PERCENTILE))
    return height, height


def _extremes(side: Floor, close: float, far: float) -> tuple[float, float] | None:
    """Return the standing heights at both ends; None where nobody stands near one of them.

    A height is a high percentile over the frames whose foot is within 5 % of the way of that end; a band with few frames is
    widened. A close height more than 10 % below that of the whole film is of somebody who only crouches there: the latter is
    taken.
    """
    foot, height = np.array(side.profile).T
    found: list[float] = []
    for end in (close, far):
        bands = (np.abs(foot - end) <= BAND * widening * (close - far) for widening in (1, 2, 4, 8, 16))
        enough = max(1, round(FEWEST * len(foot)))
        band: Bool[np.ndarray, "N"] | None = next((band for band in bands if band.sum() >= enough), None)
        if band is None:
            return None
        found.append(float(np.percentile(height[band], PERCENTILE)))
    tallest = float(np.percentile(height, PERCENTILE))
    return (tallest if found[0] < 0.9 * tallest else found[0]), found[1]


def _limits(source: BodyStatistics, floor: Floor, target: BodyStatistics, rule: Depth) -> tuple[str, ...]:
    notes = [
        f"depth: the source's feet from y {rule.source_far:.0f} to {rule.source_close:.0f} stand on the target's floor from "
        f"y {rule.target_far:.0f} to {rule.target_close:.0f}, scaled by {rule.scale_far:.2f} to {rule.scale_close:.2f}; "
        "a jump lifts both feet and is drawn as a step away from the camera"
    ]
    if rule.target_close == rule.target_far:
        notes.append("the target does not move towards or away from the camera: it stays on one line at one size")
    if floor.standing < 0.9 * source.frames:
        notes.append(
            f"only {floor.standing} of {source.frames} frames show a head and both feet; "
            "frames without both ankles keep the place and size of the frame before them"
        )
    if (source.skeleton == PENN_13.name) != (target.skeleton == PENN_13.name):
        notes.append(f"heads of {source.skeleton} and {target.skeleton} are measured at other points: sizes are rough")
    return tuple(notes)


def _relative(source: Poses, target: BodyStatistics) -> Relative:
    """Fit the relative mode: the source's start is its frame that is most like the target's pose."""
    reference = _same_layout(target, source.skeleton)
    wanted = reference[:, 2] > 0
    points = source.points[:, 0].astype(np.float64)
    shared = (source.present[:, 0] & wanted).sum(axis=1)
    if shared.max() < 3:
        raise DataError(
            f"the source shares at most {shared.max()} joints with the target's pose; the normaliser relative wants 3"
        )
    fullest = np.nonzero(shared == shared.max())[0]
    best = min(fullest[evenly_spread(len(fullest))], key=lambda time: _unlikeness(points[time], reference))
    start = np.nan_to_num(points[best], nan=0.0)
    both = wanted & (start[:, 2] > 0)
    scale = float(np.sqrt(_area(reference[both, :2]) / _area(start[both, :2])))
    return Relative(scale, _triples(start), _triples(reference), source.skeleton.name)


def _still(rule: Relative, skeleton: Skeleton) -> tuple[str, ...]:
    names = [joint for joint, still in zip(skeleton.joints, rule.still(), strict=True) if still]
    return (f"where the source does not show {', '.join(names)}, they stand still where the target has them",) if names else ()


def _same_layout(target: BodyStatistics, skeleton: Skeleton) -> Float64[np.ndarray, "J 3"]:
    pose = np.array(target.start)
    return pose if skeleton.name == target.skeleton else converter(find_skeleton(target.skeleton), skeleton)(pose)


def _triples(pose: Float64[np.ndarray, "J 3"]) -> tuple[tuple[float, float, float], ...]:
    return tuple((float(x), float(y), float(sure)) for x, y, sure in pose)


def _unlikeness(pose: Float64[np.ndarray, "J 3"], reference: Float64[np.ndarray, "J 3"]) -> float:
    """Return the squared distance of the joints that both have, centred and scaled to equal area."""
    both = (pose[:, 2] > 0) & (reference[:, 2] > 0)
    one, other = ((points - points.mean(axis=0)) / np.sqrt(_area(points)) for points in (pose[both, :2], reference[both, :2]))
    return float(np.square(one - other).sum())


def _area(points: Float64[np.ndarray, "N 2"]) -> float:
    """Return the area of the convex hull in square pixels."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return float(ConvexHull(points).volume)
    except QhullError:
        raise DataError("the joints of a pose lie on one line, so that it has no size; choose the normaliser affine") from None
