"""Drawing of procedural people: bodies with clothes, hair and a face, anti-aliased, each frame on its own small tile.

Everything is a convex outline: a limb is the hull of two discs, drawn dark and then a little lighter and smaller towards the
light; parts are drawn far to near. Tiles are painted finer than the picture and averaged down, which also gives opacity.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Int32, UInt8

from kinema.data.stages import Stage
from kinema.pose.kinematics import Body, Performance

Colour = tuple[int, int, int]
_FINER = 3  # a tile is painted this much finer than the picture
_SHIFT = 4  # fractional bits of OpenCV's coordinates
_CAP = np.linspace(0, 1, 7)  # where on a rounded end the corners of an outline lie
_UMBRA, _PENUMBRA = 88, 44  # opacity of the shadow


@dataclass(frozen=True)
class Identity:
    """Somebody: a body and its looks.

    Attributes:
        name: who; clips of one person share it.
        body: proportions.
        skin: colour.
        hair: colour.
        hair_style: "short", "long", "bun", "cap" or "bald".
        shirt: colour.
        shirt_name: colour of the shirt in words, for captions.
        long_sleeves: does the shirt cover the forearms.
        stripe: colour of a stripe across the shirt, if there is one.
        trousers: colour.
        shorts: are the shins bare.
        shoes: colour.
    """

    name: str
    body: Body
    skin: Colour
    hair: Colour
    hair_style: str
    shirt: Colour
    shirt_name: str
    long_sleeves: bool
    stripe: Colour | None
    trousers: Colour
    shorts: bool
    shoes: Colour


@dataclass(frozen=True)
class Tiles:
    """A figure, one tile per frame.

    Attributes:
        layers: colour multiplied by opacity, and opacity.
        corners: x and y of each tile's first pixel in the picture.
    """

    layers: UInt8[np.ndarray, "T h w 4"]
    corners: Int32[np.ndarray, "T 2"]


@dataclass(frozen=True)
class _Limb:
    """A stretch of the body: from one point to another, a radius at each, in metres."""

    part: str
    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class View:
    """A stage filmed at some size.

    Attributes:
        stage: camera.
        size: edge of the picture in pixels.
        shake: movement of the picture per frame, pixels right and down.
    """

    stage: Stage
    size: int
    shake: Float[np.ndarray, "T 2"]

    def project(self, points: Float[np.ndarray, "T *n 3"]) -> Float[np.ndarray, "T *n 2"]:
        """Return where points appear, in pixels."""
        shake = self.shake.reshape(len(self.shake), *[1] * (points.ndim - 2), 2)
        return self.stage.project(points, self.size) + shake

    def scale(self, depth: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return pixels per metre at a distance."""
        return self.stage.focal * self.size / depth


def draw_figure(performance: Performance, identity: Identity, view: View) -> Tiles:
    """Draw somebody as the camera sees them, with a soft shadow on the floor.

    Args:
        performance: points in world axes, metres; the camera is at the origin of x and depth.
        identity: looks.
        view: camera.
    """
    limbs = _limbs(performance, identity)
    starts, ends = np.stack([it.start for it in limbs], axis=1), np.stack([it.end for it in limbs], axis=1)
    first, last = view.project(starts), view.project(ends)
    radii = np.array([it.radii for it in limbs]) * view.scale(np.stack([starts[..., 2], ends[..., 2]], axis=-1))
    dark = _capsules(first, last, radii)
    towards_light = 0.24 * radii.mean(axis=-1)[..., None] * np.array([-0.6, -0.8])
    light = _capsules(first + towards_light, last + towards_light, 0.7 * radii)
    shadow = _shadow(performance, view)
    head = _Head(performance, identity, view)

    everything = np.concatenate([dark.reshape(len(dark), -1, 2), shadow.reshape(len(dark), -1, 2), head.extent], axis=1)
    corners, shape = _tiling(everything, view.size)
    origin = corners[:, None, None]
    dark, light, shadow = _fixed(dark, origin), _fixed(light, origin), _fixed(shadow, origin)
    head.place(corners[:, None])

    parts: dict[str, list[tuple[int, Colour]]] = {}
    for k, limb in enumerate(limbs):
        parts.setdefault(limb.part, []).append((k, limb.colour))
    canvas = np.zeros((len(dark), shape[0] * _FINER, shape[1] * _FINER, 4), np.uint8)
    order = _far_to_near(performance)
    for t, image in enumerate(canvas):
        cv2.fillConvexPoly(image, shadow[t, 0], (0, 0, 0, _PENUMBRA), cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(image, shadow[t, 1], (0, 0, 0, _UMBRA), cv2.LINE_8, _SHIFT)
        head.draw_behind(image, t)
        for part in order[t]:
            if part == "head":
                head.draw(image, t)
            elif part == "torso":
                _draw_torso(image, dark[t], light[t], parts, identity)
            else:
                _draw_limbs(image, dark[t], light[t], parts[part])
    tall = canvas.reshape(-1, canvas.shape[2], 4)
    tiles = cv2.resize(tall, (shape[1], len(canvas) * shape[0]), interpolation=cv2.INTER_AREA)
    return Tiles(tiles.reshape(len(canvas), *shape, 4), corners)


def _limbs(performance: Performance, identity: Identity) -> list[_Limb]:
    """List every stretch of the body but the head, in drawing order within its part."""
    joint = performance.joints.transpose(1, 0, 2)
    hands, toes = performance.hands.transpose(1, 0, 2), performance.toes.transpose(1, 0, 2)
    who, thick = identity, identity.body.build * identity.body.height
    sleeve = who.shirt if who.long_sleeves else who.skin
    limbs = []
    for k, side in enumerate(("right", "left")):
        shoulder, elbow, wrist = joint[2 + 3 * k : 5 + 3 * k]
        hip, knee, ankle = joint[8 + 3 * k : 11 + 3 * k]
        sock = who.skin if who.shorts else who.trousers
        limbs += [
            _Limb(f"{side} leg", knee, ankle, (0.034 * thick, 0.024 * thick), sock),
            _Limb(f"{side} leg", ankle, toes[k], (0.027 * thick, 0.021 * thick), who.shoes),
            _Limb(f"{side} leg", hip, knee, (0.053 * thick, 0.036 * thick), who.trousers),
            _Limb(f"{side} arm", wrist, hands[k], (0.021 * thick, 0.023 * thick), who.skin),
            _Limb(f"{side} arm", elbow, wrist, (0.027 * thick, 0.021 * thick), sleeve),
            _Limb(f"{side} arm", shoulder, elbow, (0.037 * thick, 0.029 * thick), who.shirt),
        ]
    neck, waist = joint[1], (joint[8] + joint[11]) / 2
    limbs.append(_Limb("neck", neck, performance.head, (0.033 * thick, 0.033 * thick), who.skin))
    for side, shoulder, hip in (("right", joint[2], joint[8]), ("left", joint[5], joint[11])):
        chest, belt = (
            neck + 0.72 * (shoulder - neck) + 0.06 * (waist - neck),
            waist + 1.05 * (hip - waist) + 0.08 * (neck - waist),
        )
        limbs.append(_Limb("torso", chest, belt, (0.048 * thick, 0.05 * thick), who.shirt))
        limbs.append(
            _Limb(
                f"{side} stripe", 0.6 * chest + 0.4 * belt, 0.6 * chest + 0.4 * belt, (0.036 * thick, 0.036 * thick), who.shirt
            )
        )
    return limbs


def _capsules(
    first: Float[np.ndarray, "T N 2"], last: Float[np.ndarray, "T N 2"], radii: Float[np.ndarray, "T N 2"]
) -> Float[np.ndarray, "T N V 2"]:
    """Return the outlines of the hulls of pairs of discs."""
    along = last - first
    length = np.hypot(along[..., 0], along[..., 1])
    direction = np.arctan2(along[..., 1], along[..., 0])
    tangent = np.arccos(np.clip((radii[..., 0] - radii[..., 1]) / np.maximum(length, 1e-9), -0.99, 0.99))
    back = (direction + tangent)[..., None] + (2 * np.pi - 2 * tangent)[..., None] * _CAP
    front = (direction - tangent)[..., None] + (2 * tangent)[..., None] * _CAP
    ends = []
    for centre, radius, angle in ((first, radii[..., 0], back), (last, radii[..., 1], front)):
        rim = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
        ends.append(centre[..., None, :] + radius[..., None, None] * rim)
    return np.concatenate(ends, axis=-2)


def _shadow(performance: Performance, view: View) -> Float[np.ndarray, "T 2 V 2"]:
    """Return the outlines of penumbra and umbra around the feet on the floor; a jump makes them smaller."""
    feet = performance.joints[:, (10, 13)]
    above = feet[..., 1] - feet[..., 1].min()
    weight = np.exp(-4 * above)
    middle = (feet * weight[..., None]).sum(axis=1) / weight.sum(axis=1, keepdims=True)
    height = above.min(axis=1)
    apart = np.abs(feet[:, 0, 0] - feet[:, 1, 0]) / 2 * np.sqrt(weight.prod(axis=1))
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    outlines = []
    for wide in (0.34, 0.24):
        reach = (wide + apart) / (1 + 2 * height)
        x = middle[:, :1] + reach[:, None] * np.cos(angle) + 0.05
        z = middle[:, 2:] + (0.75 * wide / (1 + 2 * height))[:, None] * np.sin(angle)
        outlines.append(view.project(np.stack([x, np.zeros_like(x), z], axis=-1)))
    return np.stack(outlines, axis=1)


def _tiling(points: Float[np.ndarray, "T N 2"], size: int) -> tuple[Int32[np.ndarray, "T 2"], tuple[int, int]]:
    """Return where each frame's tile begins, and the common height and width of the tiles, within the picture."""
    low, high = np.floor(points.min(axis=1)) - 1, np.ceil(points.max(axis=1)) + 2
    wide, high = (int(it) for it in np.clip((high - low).max(axis=0), 1, size))
    corners = np.clip(low, 0, [size - wide, size - high]).astype(np.int32)
    return corners, (high, wide)


def _fixed(points: Float[np.ndarray, "*n 2"], corner: Int32[np.ndarray, "*m 2"]) -> Int32[np.ndarray, "*n 2"]:
    """Convert picture coordinates to OpenCV's fixed-point coordinates on a tile."""
    fine = (points - corner + 0.5) * _FINER - 0.5
    return np.clip(np.rint(fine * 2**_SHIFT), -(2**20), 2**20).astype(np.int32, order="C")


def _far_to_near(performance: Performance) -> list[tuple[str, ...]]:
    """Return the drawing order of parts per frame."""
    depth = performance.joints[..., 2]
    trunk = depth[:, (1, 8, 11)].mean(axis=1)
    right_leg_first = depth[:, (9, 10)].mean(axis=1) >= depth[:, (12, 13)].mean(axis=1)
    right, left = depth[:, (3, 4)].mean(axis=1), depth[:, (6, 7)].mean(axis=1)
    head_first = performance.head[:, 2] > trunk + 0.25  # somebody who bends away
    orders = []
    for t in range(len(depth)):
        legs = ["right leg", "left leg"] if right_leg_first[t] else ["left leg", "right leg"]
        arms = sorted([(-right[t], "right arm"), (-left[t], "left arm")])
        behind = [name for d, name in arms if -d > trunk[t] + 0.03]
        before = [name for d, name in arms if -d <= trunk[t] + 0.03]
        middle = ["head", "torso"] if head_first[t] else ["torso", "head"]
        orders.append((*behind, *legs, *middle, *before))
    return orders


@lru_cache(maxsize=4096)
def _shaded(colour: Colour, amount: float) -> tuple[int, int, int, int]:
    r, g, b = (min(int(channel * amount) + 4 * (amount > 1), 255) for channel in colour)
    return r, g, b, 255


_DARK, _LIGHT = 0.74, 1.04


def _draw_limbs(image: np.ndarray, dark: np.ndarray, light: np.ndarray, limbs: Sequence[tuple[int, Colour]]) -> None:
    for k, colour in limbs:
        cv2.fillConvexPoly(image, dark[k], _shaded(colour, _DARK), cv2.LINE_8, _SHIFT)
        cv2.fillConvexPoly(image, light[k], _shaded(colour, _LIGHT), cv2.LINE_8, _SHIFT)


def _draw_torso(
    image: np.ndarray, dark: np.ndarray, light: np.ndarray, parts: dict[str, list[tuple[int, Colour]]], who: Identity
) -> None:
    """Draw shoulders to hips as one hull, the neck before it and a stripe upon it."""
    flanks = [k for k, _ in parts["torso"]]
    _draw_limbs(image, dark, light, parts["neck"])
    for outlines, amount in ((dark, _DARK), (light, _LIGHT)):
        hull = cv2.convexHull(outlines[flanks].reshape(-1, 2))
        cv2.fillConvexPoly(image, hull, _shaded(who.shirt, amount), cv2.LINE_8, _SHIFT)
    if who.stripe is not None:
        ends = [parts[f"{side} stripe"][0][0] for side in ("right", "left")]
        hull = cv2.convexHull(light[ends].reshape(-1, 2))
        cv2.fillConvexPoly(image, hull, _shaded(who.stripe, 1.0), cv2.LINE_8, _SHIFT)


class _Head:
    """Head, hair and face of a figure: a ball with things upon it, as the camera sees them."""

    def __init__(self, performance: Performance, identity: Identity, view: View) -> None:
        self.who = identity
        radius = identity.body.head * identity.body.height
        self.centre = view.project(performance.head)
        self.radius = radius * view.scale(performance.head[:, 2])
        self.axes = performance.head_axes
        self.facing = -self.axes[:, 2, 2]
        self.extent = self.centre[:, None] + 1.9 * self.radius[:, None, None] * np.array([[-1, -1], [1, 1]])
        up, forward = self.axes[:, :, 1], self.axes[:, :, 2]
        self.outlines = {
            "skull": self._disc(0 * up, 1.0),
            "hair": self._disc(0.1 * up - 0.06 * forward, 1.06),
            "face": self._cap((0, -0.38, 0.93), np.radians(70)),
            "dome": self._cap((0, 0.96, -0.22), np.radians(76), 1.1),
            "peak": self._strip([(-0.4, 0.42, 1.12), (0.4, 0.42, 1.12)], 0.2),
            "bun": self._disc(0.85 * up - 0.75 * forward, 0.48),
            "locks": self._strip([(0, 0.1, -0.25), (0, -1.15, -0.42)], 0.86),
            "mouth": self._strip([(-0.24, -0.46, 0.84), (0.24, -0.46, 0.84)], 0.085),
            "nose": self._strip([(0, -0.06, 1.0), (0, -0.14, 1.03)], 0.1),
        }
        spots = {"mouth": (0, -0.46, 0.84), "nose": (0, 0, 1)}
        for side, way in (("right", -1), ("left", 1)):
            spots[f"{side} eye"], spots[f"{side} ear"] = (way * 0.37, 0.1, 0.92), (way, -0.06, -0.05)
            self.outlines |= {
                f"{side} eye": self._cap(spots[f"{side} eye"], 0.165),
                f"{side} glint": self._cap((way * 0.37 - 0.05, 0.16, 0.92), 0.065),
                f"{side} brow": self._strip([(way * 0.52, 0.4, 0.76), (way * 0.22, 0.42, 0.88)], 0.06),
                f"{side} ear": self._disc(self.axes @ np.array(spots[f"{side} ear"]), 0.18),
            }
        self.seen = {name: -(self.axes @ np.array(spot))[:, 2] for name, spot in spots.items()}

    def place(self, corner: Int32[np.ndarray, "T 1 2"]) -> None:
        """Convert the outlines to tile coordinates."""
        self.outlines = {name: _fixed(outline, corner) for name, outline in self.outlines.items()}

    def draw_behind(self, image: np.ndarray, t: int) -> None:
        """Draw the long hair of a head that faces the camera, before anything else."""
        if self.who.hair_style == "long" and self.facing[t] > -0.2:
            self._fill(image, t, "locks", self.who.hair, 0.72)

    def draw(self, image: np.ndarray, t: int) -> None:
        """Draw the head."""
        who, style, facing = self.who, self.who.hair_style, self.facing[t]
        ears = ("right ear", "left ear") if style != "long" else ()
        for ear in ears:
            self._fill(image, t, ear, who.skin, 0.86)
        if style == "bun" and facing > -0.3:
            self._fill(image, t, "bun", who.hair, 0.85)
        if style == "bald":
            self._fill(image, t, "skull", who.skin, 1.0)
        else:
            self._fill(image, t, "hair", who.hair, 0.9)
        if facing > -0.42:
            self._fill(image, t, "face", who.skin, 1.0)
        for ear in ears:
            if self.seen[ear][t] > 0.3:
                self._fill(image, t, ear, who.skin, 0.86)
        self._draw_face(image, t)
        if style == "cap":
            if facing > 0:
                self._fill(image, t, "peak", who.trousers, 0.7)
            self._fill(image, t, "dome", who.trousers, 1.0)
        if style == "long" and facing <= -0.2:
            self._fill(image, t, "locks", who.hair, 0.84)
        if style == "bun" and facing <= -0.3:
            self._fill(image, t, "bun", who.hair, 0.72)

    def _draw_face(self, image: np.ndarray, t: int) -> None:
        for side in ("right", "left"):
            if self.seen[f"{side} eye"][t] > 0.12:
                self._fill(image, t, f"{side} eye", (36, 28, 30), 1.0)
                self._fill(image, t, f"{side} glint", (232, 232, 236), 1.0)
            if self.seen[f"{side} eye"][t] > 0.45:
                self._fill(image, t, f"{side} brow", self.who.hair, 0.7)
        if self.seen["mouth"][t] > 0.2:
            self._fill(image, t, "mouth", (150, 52, 52), 1.0)
        if self.seen["nose"][t] > -0.2:
            self._fill(image, t, "nose", self.who.skin, 0.8)

    def _fill(self, image: np.ndarray, t: int, name: str, colour: Colour, amount: float) -> None:
        cv2.fillConvexPoly(image, self.outlines[name][t], _shaded(colour, amount), cv2.LINE_8, _SHIFT)

    def _flat(self, offset: Float[np.ndarray, "*n T 3"]) -> Float[np.ndarray, "*n T 2"]:
        """Project offsets from the centre of the head, in radii."""
        return self.centre + self.radius[:, None] * offset[..., :2] * np.array([1, -1])

    def _disc(self, offset: Float[np.ndarray, "T 3"], reach: float) -> Float[np.ndarray, "T V 2"]:
        angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        rim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return self._flat(offset)[:, None] + reach * self.radius[:, None, None] * rim

    def _strip(self, spots: Sequence[tuple[float, float, float]], reach: float) -> Float[np.ndarray, "T V 2"]:
        """Return a thick line between two spots given as (left, up, forward)."""
        ends = [self._flat(self.axes @ np.array(spot))[:, None] for spot in spots]
        return _capsules(ends[0], ends[1], np.repeat(reach * self.radius[:, None, None], 2, axis=2))[:, 0]

    def _cap(self, spot: tuple[float, float, float], reach: float, radius: float = 1.0) -> Float[np.ndarray, "T V 2"]:
        """Return the outline of what lies on the ball within an angle of a spot; what is round the back moves to the rim."""
        middle = self.axes @ (np.array(spot) / np.linalg.norm(spot))
        side = np.cross(middle, np.array([0.12, 0.57, 0.81]))
        side /= np.linalg.norm(side, axis=1, keepdims=True)
        angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)[:, None, None]
        rim = np.cos(reach) * middle + np.sin(reach) * (np.cos(angle) * side + np.sin(angle) * np.cross(middle, side))
        flat = np.maximum(np.linalg.norm(rim[..., :2], axis=-1, keepdims=True), 1e-6)
        rim[..., :2] /= np.where(rim[..., 2:] > 0, flat, 1)  # away from the camera is positive
        return self._flat(radius * rim).transpose(1, 0, 2)
