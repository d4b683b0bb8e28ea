"""Forward kinematics: a body and its joint angles over time become joints in space.

Body axes are (left, up, forward), world axes (right in the picture, up, away from the camera), in metres; the floor is
at height 0.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import cos, sin

SIDES = ("right", "left")
TRUNK = ("yaw", "lean", "roll", "nod", "turn", "tilt")
ARM = ("shoulder_abduction", "shoulder_flexion", "elbow_abduction", "elbow_flexion")
LEG = ("hip_abduction", "hip_flexion", "knee")
ANGLES = TRUNK + tuple(f"{side}_{name}" for side in SIDES for name in ARM + LEG)
"""Joint angles in radians: `yaw` turns the body to its left (0 faces the camera), `lean` and `nod` bend torso and head forward,
`roll` and `tilt` to the left, `turn` the head to its left; abduction raises a limb sideways, flexion forward, the knee bends
back. Elbow angles add to those of the shoulder."""

Points = Float[np.ndarray, "T 3"]
Axes = Float[np.ndarray, "T 3 3"]


@dataclass(frozen=True)
class Body:
    """Proportions of a body; lengths of bones in body heights.

    Attributes:
        height: metres.
        build: thickness of limbs, 1 is average.
        shoulders: half the distance between the shoulders.
        hips: half the distance between the hips.
        trunk: hips to shoulders.
        thigh: hip to knee.
        shin: knee to ankle.
        upper_arm: shoulder to elbow.
        forearm: elbow to wrist.
        head: radius of the head.
    """

    height: float = 1.7
    build: float = 1.0
    shoulders: float = 0.105
    hips: float = 0.055
    trunk: float = 0.295
    thigh: float = 0.235
    shin: float = 0.235
    upper_arm: float = 0.165
    forearm: float = 0.15
    head: float = 0.078

    @property
    def ankle(self) -> float:
        """Height of a standing ankle above the floor, in metres."""
        return 0.045 * self.height


@dataclass(frozen=True)
class Performance:
    """A body in motion; points in metres, world axes, the path's middle at the origin.

    Attributes:
        joints: the joints of COCO-18.
        hands: finger tips, right and left.
        toes: right and left.
        head: centre of the head.
        head_axes: left, up and forward of the head (columns).
        yaw: where the hips face, radians.
    """

    joints: Float[np.ndarray, "T 18 3"]
    hands: Float[np.ndarray, "T 2 3"]
    toes: Float[np.ndarray, "T 2 3"]
    head: Points
    head_axes: Axes
    yaw: Float[np.ndarray, "T"]


def perform(angles: Float[np.ndarray, "T 20"], lift: Float[np.ndarray, "T"], body: Body) -> Performance:
    """Move a body through joint angles.

    The lower foot stands on the floor, `lift` above it, and does not slide: this gives the path of the hips.

    Args:
        angles: radians, columns as in `ANGLES`.
        lift: height of the lower foot above the floor in body heights; where it is positive nobody stands.
        body: who moves.
    """
    angle = dict(zip(ANGLES, angles.T, strict=True))
    size = body.height
    hips = _turn(angle["yaw"], world=True)
    torso = hips @ _bend(angle["lean"], angle["roll"])
    skull = torso @ _turn(angle["turn"]) @ _bend(angle["nod"], angle["tilt"])
    left, up = torso[:, :, 0], torso[:, :, 1]
    neck = size * body.trunk * up

    legs, arms, toes, tips = [], [], [], []
    for side, way in zip(SIDES, (-1, 1), strict=True):
        spread, forward = angle[f"{side}_hip_abduction"], angle[f"{side}_hip_flexion"]
        below = forward - angle[f"{side}_knee"]
        hip = way * size * body.hips * hips[:, :, 0]
        knee = hip + size * body.thigh * _limb(hips, way, spread, forward)
        ankle = knee + size * body.shin * _limb(hips, way, spread, below)
        legs += [hip, knee, ankle]
        toes.append(0.092 * size * _foot(hips, way, below))
        spread, forward = angle[f"{side}_shoulder_abduction"], angle[f"{side}_shoulder_flexion"]
        shoulder = neck + way * size * body.shoulders * left
        elbow = shoulder + size * body.upper_arm * _limb(torso, way, spread, forward)
        along = _limb(torso, way, spread + angle[f"{side}_elbow_abduction"], forward + angle[f"{side}_elbow_flexion"])
        wrist = elbow + size * body.forearm * along
        arms += [shoulder, elbow, wrist]
        tips.append(wrist + 0.058 * size * along)

    centre = neck + size * (0.045 * up + (body.head + 0.005) * skull[:, :, 1] + 0.008 * skull[:, :, 2])
    face = centre[:, None] + size * body.head * FACE @ skull.transpose(0, 2, 1)
    path = _path(legs[2], legs[5], size * lift, body.ankle)
    toes = [ankle + toe for ankle, toe in zip((legs[2], legs[5]), toes, strict=True)]
    joints = np.concatenate([face[:, :1], np.stack([neck, *arms, *legs], axis=1), face[:, 1:]], axis=1)
    return Performance(
        joints + path[:, None],
        np.stack(tips, axis=1) + path[:, None],
        np.stack(toes, axis=1) + path[:, None],
        centre + path,
        skull,
        angle["yaw"],
    )


FACE = np.array([[0, -0.08, 0.99], [-0.37, 0.12, 0.92], [0.37, 0.12, 0.92], [-0.97, 0.0, -0.08], [0.97, 0.0, -0.08]])
"""Nose, right eye, left eye, right ear, left ear on a head of radius 1: (left, up, forward)."""


def _turn(angle: Float[np.ndarray, "T"], world: bool = False) -> Axes:
    """Rotate about the upright axis to the left; `world` goes on to world axes, where forward at 0 is towards the camera."""
    c, s, zero, one = cos(angle), sin(angle), np.zeros_like(angle), np.ones_like(angle)
    depth = -1 if world else 1
    return np.stack([c, zero, s, zero, one, zero, -depth * s, zero, depth * c], axis=1).reshape(-1, 3, 3)


def _bend(forward: Float[np.ndarray, "T"], left: Float[np.ndarray, "T"]) -> Axes:
    """Bend forward and to the left: columns are where left, up and forward go."""
    cp, sp, cr, sr, zero = cos(forward), sin(forward), cos(left), sin(left), np.zeros_like(forward)
    return np.stack([cr, sr * cp, -sr * sp, -sr, cr * cp, -cr * sp, zero, sp, cp], axis=1).reshape(-1, 3, 3)


def _limb(axes: Axes, way: int, abduction: Float[np.ndarray, "T"], flexion: Float[np.ndarray, "T"]) -> Points:
    """Return the direction of a limb that hangs down at angles 0; `way` is -1 on the right, 1 on the left."""
    local = np.stack([way * sin(abduction) * cos(flexion), -cos(abduction) * cos(flexion), sin(flexion)], axis=1)
    return np.einsum("tij,tj->ti", axes, local)


def _foot(axes: Axes, way: int, shin: Float[np.ndarray, "T"]) -> Points:
    """Return the direction from ankle to toes: down to the floor, and with the shin where that is bent back."""
    pitch = np.clip(-shin - 0.45, 0, None) + 0.3
    local = np.stack([way * 0.25 * cos(pitch), -sin(pitch), cos(pitch)], axis=1)
    return np.einsum("tij,tj->ti", axes, local)


def _path(right: Points, left: Points, lift: Float[np.ndarray, "T"], ankle: float) -> Points:
    """Return the path of the hips on which the lower ankle stands still, unless both are in the air."""
    standing = np.where((left[:, 1] < right[:, 1] - 1e-6)[:, None], left, right)
    before = np.where((left[1:, 1] < right[1:, 1] - 1e-6)[:, None], left[:-1], right[:-1])
    steps = before - standing[1:]
    steps[(lift[1:] > 0) | (lift[:-1] > 0)] = 0
    path = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    path -= (path.min(axis=0) + path.max(axis=0)) / 2
    path[:, 1] = ankle + lift - standing[:, 1]
    return path
