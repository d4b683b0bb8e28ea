"""Drawings of poses: one renderer for training, for driving, for figures and for overlays.

A network that was trained on drawings of one style reads no other: most reports of noisy transfers come from a second renderer.
So there is one, its settings are a `DrawStyle` that goes into the checkpoint, and `refuse_other_style` compares. Widths are
given for a canvas of a reference size and scale with the frame, but never below what a small frame can show. Every limb, joint
and dot is a polygon with sub-pixel corners, painted in order: limbs first, joints over them.

A colour belongs to the name of a joint, not to its number: a pose and its conversion to another layout look alike.
"""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from kinema.core.config import Config, differences
from kinema.core.errors import ConfigError, DataError
from kinema.pose.sequence import Poses, divided
from kinema.pose.skeleton import COCO_18, HAND_21, Skeleton

Palette = Literal["sides", "hues"]
Colour = tuple[int, int, int]
Frames = UInt8[np.ndarray, "T H W 3"]

FACE_DOTS = (27, 30, 8, 0, 16, 33, 68, 69)
"""Bridge and tip of the nose, chin, both ends of the jaw, under the nose, both pupils: those of Everybody Dance Now."""


@dataclass(frozen=True)
class DrawStyle(Config):
    """How poses are drawn; a checkpoint stores it.

    References:
        Everybody Dance Now's release (`edn`), OpenPose and ControlNet (`openpose`), The Pose Knows' release (`pose-knows`),
        MimicMotion's release (`confidence`).
    """

    background: Colour = (255, 255, 255)
    """Red, green and blue of the empty canvas, from 0 to 255."""
    palette: Palette = "sides"
    """sides: warm for the right, cool for the left, green between, a limb like its first joint; hues: saturated hues 20
    degrees apart in the order of COCO-18."""
    limb: Literal["ellipse", "line"] = "ellipse"
    """Shape of a limb: widest in its middle, or as wide everywhere."""
    reference: int = 1080
    """Shorter side of the canvas, in pixels, for which the widths hold."""
    half_width: float = 4.0
    """Half the width of a limb, in pixels of the reference canvas."""
    radius: float = 8.0
    """Of a joint, in pixels of the reference canvas."""
    limb_alpha: float = 0.6
    """How far a limb covers what is under it, from 0 to 1."""
    joint_alpha: float = 0.6
    """How far a joint covers what is under it, from 0 to 1."""
    threshold: float = 0.0
    """Joints of this confidence or less are not drawn; a limb needs both of its joints."""
    dims: bool = False
    """Multiply colours by the confidence; a limb's is the product of its joints'."""
    body: bool = True
    """Draw the body."""
    face: bool = True
    """Draw the face, where the poses have one."""
    hands: bool = True
    """Draw the hands, where the poses have them."""
    face_dots: tuple[int, ...] = FACE_DOTS
    """Which of the face's 70 points are drawn."""
    face_radius: float = 4.0
    """Of a dot of the face, in pixels of the reference canvas."""
    face_colour: Colour = (0, 0, 0)
    """Red, green and blue of the face's dots."""
    face_threshold: float = 0.2
    """Mean confidence of the face's points from which on the face is drawn."""
    hand_half_width: float = 2.0
    """Half the width of a finger, in pixels of the reference canvas."""
    hand_radius: float = 3.0
    """Of a finger's joint, in pixels of the reference canvas."""
    hand_threshold: float = 0.05
    """Points of the hands of this confidence or less are not drawn."""

    def check(self) -> None:
        """Refuse what cannot be drawn."""
        self.at_least(1, "reference")
        for name in ("half_width", "radius", "face_radius", "hand_half_width", "hand_radius"):
            self.require(0 < getattr(self, name) < np.inf, name, "more than 0")
        for name in ("limb_alpha", "joint_alpha"):
            self.require(0 < getattr(self, name) <= 1, name, "more than 0 and at most 1")
        for name in ("threshold", "face_threshold", "hand_threshold"):
            self.require(0 <= getattr(self, name) < 1, name, "at least 0 and less than 1")
        for name in ("background", "face_colour"):
            self.require(all(0 <= part <= 255 for part in getattr(self, name)), name, "three numbers from 0 to 255")
        self.require(all(0 <= dot < 70 for dot in self.face_dots), "face_dots", "numbers from 0 to 69")


_ON_BLACK = DrawStyle(
    background=(0, 0, 0),
    palette="hues",
    reference=512,
    half_width=4.0,
    radius=4.0,
    joint_alpha=1.0,
    face_dots=tuple(range(70)),
    face_radius=2.0,
    face_colour=(255, 255, 255),
    hand_half_width=1.5,
    hand_radius=2.5,
)
STYLES: Mapping[str, DrawStyle] = {
    "edn": DrawStyle(),
    "openpose": _ON_BLACK,
    "pose-knows": replace(
        _ON_BLACK, limb="line", reference=64, half_width=1.5, radius=1.0, limb_alpha=1.0, threshold=0.1, face=False, hands=False
    ),
    "confidence": replace(_ON_BLACK, threshold=0.3, dims=True),
}
"""Name -> settings."""

MAPS = ("gaussian", "sticks")
"""What `kinema.pose.maps.show` draws."""


def refuse_other_style(trained: DrawStyle, asked: DrawStyle) -> None:
    """Refuse to draw otherwise than a checkpoint's training did.

    Args:
        trained: style that the checkpoint stores.
        asked: style that somebody wants to feed it.

    Raises:
        ConfigError: when they differ, with every difference.
    """
    if changed := differences(trained, asked):
        raise ConfigError(
            f"the checkpoint was trained on poses drawn in another style ({'; '.join(changed)}); draw with the checkpoint's own"
        )


# --- Drawing ------------------------------------------------------------------------------------------------------------------


def draw(poses: Poses, style: DrawStyle, *, over: UInt8[np.ndarray, "T H W 3"] | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw everybody in a sequence of poses, the first person first.

    Args:
        poses: what is drawn; the frames have their size.
        style: how it is drawn.
        over: frames to draw on, instead of the style's background; they stay as they are.

    Raises:
        DataError: when `over` has another size or number of frames than the poses.
    """
    shape = (len(poses), poses.height, poses.width, 3)
    if over is not None and over.shape != shape:
        raise DataError(
            f"{len(over)} frames of {over.shape[2]}x{over.shape[1]} cannot carry {len(poses)} poses "
            f"of {poses.width}x{poses.height}; resize the poses or cut the frames first"
        )
    canvas = _empty(shape, style) if over is None else over.copy()
    for person in range(poses.points.shape[1]):
        face = None if poses.face is None else poses.face[:, person]
        hands = None if poses.hands is None else poses.hands[:, person]
        _paint(canvas, _person(poses.points[:, person], poses.skeleton, style, _scale(shape, style), face, hands))
    return canvas


def draw_points(
    points: Float[np.ndarray, "T J 3"],
    skeleton: Skeleton,
    width: int,
    height: int,
    style: DrawStyle,
    *,
    face: Float[np.ndarray, "T 70 3"] | None = None,
    hands: Float[np.ndarray, "T 2 21 3"] | None = None,
) -> UInt8[np.ndarray, "T H W 3"]:
    """Draw one person.

    Args:
        points: joints per frame; confidence 0 is missing, whatever the coordinates say.
        skeleton: names of the joints; face and hands of a layout that has them are drawn as such.
        width: of the frames, in pixels.
        height: of the frames, in pixels.
        style: how it is drawn.
        face: OpenPose's 70 points per frame.
        hands: 21 points of the left and of the right hand.

    Raises:
        DataError: when the points are of another skeleton.
    """
    if points.shape[1] != len(skeleton):
        raise DataError(f"there are {points.shape[1]} joints; the skeleton {skeleton.name} has {len(skeleton)}")
    if skeleton.parts:
        points, face, hands = divided(points, skeleton)
    shape = (len(points), height, width, 3)
    canvas = _empty(shape, style)
    _paint(canvas, _person(points, skeleton.body, style, _scale(shape, style), face, hands))
    return canvas


def _empty(shape: tuple[int, ...], style: DrawStyle) -> Frames:
    return np.broadcast_to(np.array(style.background, np.uint8), shape).copy()


def _scale(shape: tuple[int, ...], style: DrawStyle) -> float:
    return min(shape[1:3]) / style.reference


# --- A person as shapes -------------------------------------------------------------------------------------------------------

LEAST_HALF_WIDTH = 0.8
"""Half a limb's least width in pixels: thinner ones fade away."""
LEAST_RADIUS = 1.1
"""Of a joint, in pixels."""
LEAST_DOT = 0.8
"""Radius of a dot of a face, in pixels."""
LEAST_FINGER = 0.7
"""Half a finger's least width and the radius of its joints, in pixels: fingers of a small hand lie a pixel or two apart."""


@dataclass(frozen=True)
class _Shapes:
    """Polygons of one kind in every frame.

    Attributes:
        corners: in pixels.
        visible: which are painted.
        colours: red, green and blue from 0 to 255.
        alpha: how far they cover what is under them.
    """

    corners: Float[np.ndarray, "T N V 2"]
    visible: Bool[np.ndarray, "T N"]
    colours: Float[np.ndarray, "T N 3"]
    alpha: float


def _person(
    points: Float[np.ndarray, "T J 3"],
    skeleton: Skeleton,
    style: DrawStyle,
    scale: float,
    face: Float[np.ndarray, "T 70 3"] | None,
    hands: Float[np.ndarray, "T 2 21 3"] | None,
) -> list[_Shapes]:
    shapes = []
    if style.body:
        colours = joint_colours(skeleton, style.palette), limb_colours(skeleton, style.palette)
        half_width, radius = max(style.half_width * scale, LEAST_HALF_WIDTH), max(style.radius * scale, LEAST_RADIUS)
        shapes += _figure(points, skeleton, colours, half_width, radius, style.threshold, style)
    if style.hands and hands is not None:
        half_width = max(style.hand_half_width * scale, LEAST_FINGER)
        radius = max(style.hand_radius * scale, LEAST_FINGER)
        for side, name in enumerate("LR"):
            colours = hand_colours(name, style.palette)
            shapes += _figure(hands[:, side], HAND_21, colours, half_width, radius, style.hand_threshold, style)
    if style.face and style.face_dots and face is not None:
        shapes.append(_face(face, max(style.face_radius * scale, LEAST_DOT), style))
    return shapes


def _figure(
    points: Float[np.ndarray, "T J 3"],
    skeleton: Skeleton,
    colours: tuple[Sequence[Colour], Sequence[Colour]],
    half_width: float,
    radius: float,
    threshold: float,
    style: DrawStyle,
) -> list[_Shapes]:
    places, confidence = _places(points)
    visible = confidence > threshold
    shapes = []
    if skeleton.edges:
        first, second = np.array(skeleton.edges).T
        corners = _limbs(places[:, first], places[:, second], half_width, style.limb)
        strength = confidence[:, first] * confidence[:, second]
        seen = visible[:, first] & visible[:, second]
        shapes.append(_Shapes(corners, seen, _dimmed(colours[1], strength, style), style.limb_alpha))
    shapes.append(_Shapes(_discs(places, radius), visible, _dimmed(colours[0], confidence, style), style.joint_alpha))
    return shapes


def _face(face: Float[np.ndarray, "T 70 3"], radius: float, style: DrawStyle) -> _Shapes:
    places, confidence = _places(face)
    dots = list(style.face_dots)
    visible = (confidence[:, dots] > 0) & (confidence.mean(axis=1, keepdims=True) >= style.face_threshold)
    colours = np.broadcast_to(np.array(style.face_colour, np.float32), (*visible.shape, 3))
    return _Shapes(_discs(places[:, dots], radius), visible, colours, 1.0)


FAR = 30000.0
"""Coordinates beyond this many pixels are pulled in: the rasteriser counts in 32 bits."""


def _places(points: Float[np.ndarray, "T N 3"]) -> tuple[Float[np.ndarray, "T N 2"], Float[np.ndarray, "T N"]]:
    """Separate coordinates and confidence; points that are missing get coordinates that do no harm."""
    found = np.isfinite(points).all(axis=-1) & (points[..., 2] > 0)
    places = np.clip(np.where(found[..., None], points[..., :2], 0), -FAR, FAR).astype(np.float32)
    return places, np.where(found, points[..., 2], 0).astype(np.float32)


def _dimmed(colours: Sequence[Colour], confidence: Float[np.ndarray, "T N"], style: DrawStyle) -> Float[np.ndarray, "T N 3"]:
    full = np.array(colours, np.float32)
    if style.dims:
        return full * np.clip(confidence, 0, 1)[..., None]
    return np.broadcast_to(full, (*confidence.shape, 3))


CORNERS = 20
"""Of the polygon that stands for a disc, an ellipse or a line with round ends."""
SPREAD = 0.65
"""Pixels by which OpenCV's anti-aliasing widens a filled polygon on every side (measured); shapes are made narrower by them."""
_TURN = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False, dtype=np.float32) + np.float32(np.pi / CORNERS)
_COS, _SIN = np.cos(_TURN), np.sin(_TURN)


def _discs(places: Float[np.ndarray, "T N 2"], radius: float) -> Float[np.ndarray, "T N V 2"]:
    return places[..., None, :] + np.float32(max(radius - SPREAD, 0.05)) * np.stack([_COS, _SIN], axis=-1)


def _limbs(
    first: Float[np.ndarray, "T N 2"], second: Float[np.ndarray, "T N 2"], half_width: float, shape: str
) -> Float[np.ndarray, "T N V 2"]:
    middle, half = (first + second)[..., None, :] / 2, (second - first)[..., None, :] / 2
    length = np.linalg.norm(half, axis=-1, keepdims=True)
    along = np.where(length > 1e-6, half / np.maximum(length, 1e-6), np.array([1, 0], np.float32))
    across = along[..., ::-1] * np.array([-1, 1], np.float32)
    width = np.float32(max(half_width - SPREAD, 0.05))
    cos, sin = _COS[:, None], _SIN[:, None]
    if shape == "ellipse":
        return middle + cos * np.maximum(length - SPREAD, width) * along + sin * width * across
    return middle + (np.sign(cos) * length + cos * width) * along + sin * width * across


# --- Painting -----------------------------------------------------------------------------------------------------------------

FRACTION_BITS = 8


def _paint(canvas: Frames, groups: Sequence[_Shapes]) -> None:
    for group in groups:
        _paint_group(canvas, group)


def _paint_group(canvas: Frames, group: _Shapes) -> None:
    """Paint shapes onto frames; where they are half covering, only the part of the frame around a shape is blended."""
    height, width = canvas.shape[1:3]
    where = np.argwhere(group.visible)
    if not len(where):
        return
    corners = group.corners[group.visible]
    low = np.floor(corners.min(axis=1)).astype(np.int32) - 2
    high = np.ceil(corners.max(axis=1)).astype(np.int32) + 3
    low, high = np.maximum(low, 0), np.minimum(high, (width, height))
    inside = (low < high).all(axis=1)
    where, corners, low, high = where[inside], corners[inside], low[inside], high[inside]
    colours = group.colours[group.visible][inside].tolist()
    if group.alpha < 1:
        corners = corners - low[:, None]
    polygons = np.rint(corners * (1 << FRACTION_BITS)).astype(np.int32)
    boxes = np.concatenate([low, high], axis=1).tolist()
    for (frame, _), polygon, (left, top, right, bottom), colour in zip(where.tolist(), polygons, boxes, colours, strict=True):
        if group.alpha < 1:
            under = canvas[frame, top:bottom, left:right]
            covered = under.copy()
            cv2.fillConvexPoly(covered, polygon, colour, cv2.LINE_AA, FRACTION_BITS)
            cv2.addWeighted(covered, group.alpha, under, 1 - group.alpha, 0, dst=under)
        else:
            cv2.fillConvexPoly(canvas[frame], polygon, colour, cv2.LINE_AA, FRACTION_BITS)


# --- Colours ------------------------------------------------------------------------------------------------------------------

_NEAR = {
    **{"Head": "Nose", "MidHip": "Nose", "Mouth": "Eye", "EyeInner": "Eye", "EyeOuter": "Eye"},
    **{"Pinky": "Wrist", "Index": "Wrist", "Thumb": "Wrist"},
    **{"BigToe": "Ankle", "SmallToe": "Ankle", "Heel": "Ankle", "FootIndex": "Ankle"},
}
"""Joint without a side in its name -> the one of COCO-18 whose colour it takes."""
_SHADES = {"Shoulder": 0, "Elbow": 1, "Wrist": 2, "Hip": 3, "Knee": 4, "Ankle": 5, "Eye": 6, "Ear": 7}
_WARM, _COOL, _MIDDLE = (25, 5, 335, 40, 15, 345, 320, 305), (196, 215, 240, 184, 205, 228, 255, 270), 130
"""Hues in degrees, per shade."""


def joint_colours(skeleton: Skeleton, palette: Palette) -> tuple[Colour, ...]:
    """Return red, green and blue of every joint; points without names share the colour circle."""
    return tuple(_colour(_hue(joint, skeleton, palette), palette) for joint in skeleton.joints)


def limb_colours(skeleton: Skeleton, palette: Palette) -> tuple[Colour, ...]:
    """Return red, green and blue of every limb; one that joins the right and the left is of neither's colour."""
    names = [(skeleton.joints[first], skeleton.joints[second]) for first, second in skeleton.edges]
    return tuple(_colour(_limb_hue(*pair, skeleton, palette), palette) for pair in names)


FINGERS_APART = 22  # degrees of hue: as many as keep the thumb of one hand from the little finger of the other


def hand_colours(side: str, palette: Palette) -> tuple[tuple[Colour, ...], tuple[Colour, ...]]:
    """Return the colours of a hand's points and of its bones: one per finger, around the wrist's, on their side of the circle.

    Args:
        side: L or R.
        palette: rule for the body.
    """
    wrist = _hue(f"{side}Wrist", COCO_18, palette)
    turns = [0, *(FINGERS_APART * (finger - 2) for finger in range(5) for _ in range(4))]
    joints = tuple(_colour(wrist + turn, palette) for turn in turns)
    return joints, tuple(joints[end] for _, end in HAND_21.edges)


def _side(joint: str) -> tuple[str, str]:
    """Split a name into R, L or nothing and the rest."""
    sided = len(joint) > 1 and joint[0] in "RL" and joint[1].isupper()
    return (joint[0], joint[1:]) if sided else ("", joint)


def _hue(joint: str, skeleton: Skeleton, palette: Palette) -> float:
    side, part = _side(joint)
    part = _NEAR.get(part, part)
    if side + part not in COCO_18.joints:
        return 360 * skeleton.index(joint) / len(skeleton)
    if palette == "hues":
        return 20 * COCO_18.index(side + part)
    return _MIDDLE if not side else (_WARM if side == "R" else _COOL)[_SHADES[part]]


def _limb_hue(first: str, second: str, skeleton: Skeleton, palette: Palette) -> float:
    sides = _side(first)[0] + _side(second)[0]
    if sides in ("RL", "LR"):
        return _hue("Neck", COCO_18, palette)
    if palette == "sides":
        return _hue(first, skeleton, palette)
    if (first, second) in _NUMBERED:
        return 20 * _NUMBERED[first, second]
    return _hue(first if _side(first)[0] or not sides else second, skeleton, palette)


_NUMBERED = {(COCO_18.joints[first], COCO_18.joints[second]): number for number, (first, second) in enumerate(COCO_18.edges)}


def _colour(hue: float, palette: Palette) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, 1, 1)
    if palette == "sides":  # on white, full yellow, green and cyan would vanish
        dark = min(0.85, 0.45 / (0.21 * red + 0.72 * green + 0.07 * blue))
        red, green, blue = dark * red, dark * green, dark * blue
    return round(255 * red), round(255 * green), round(255 * blue)
