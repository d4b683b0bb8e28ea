"""Motions of procedural people: joint angles over time.

A `Motion` knows nothing of the body: `kinema.pose.kinematics.perform` moves any body with the same angles. Feet never slide: a
move in place keeps the standing legs parallel or mirrored, and whatever else happens, happens to a leg in the air.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import cos, pi, radians, sin

from kinema.core.errors import ConfigError, accepted
from kinema.pose.kinematics import ANGLES, ARM, SIDES

Curve = Float[np.ndarray, "T"]
Angles = dict[str, Curve]
Number = float | int


@dataclass(frozen=True)
class Motion:
    """What somebody does, for any body.

    Attributes:
        action: one of `ACTIONS`.
        speed: 1 is the action's natural speed.
        angles: radians, columns as in `ANGLES`.
        lift: height of the lower foot above the floor in body heights; where it is positive nobody stands.
    """

    action: str
    speed: float
    angles: Float[np.ndarray, "T 20"]
    lift: Curve

    def angle(self, name: str) -> Curve:
        """Return one joint angle over time, by its name in `ANGLES`."""
        return self.angles[:, ANGLES.index(name)]


@dataclass(frozen=True)
class Style:
    """How far a performance strays from the textbook.

    Attributes:
        rng: source of all choices.
        freedom: 0 (textbook) to 1.
    """

    rng: np.random.Generator
    freedom: float

    def around(self, centre: Number, spread: Number) -> float:
        """Draw a value from centre - spread to centre + spread, narrowed by `freedom`."""
        return centre + self.freedom * spread * float(self.rng.uniform(-1, 1))

    def angle(self, centre: Number, spread: Number) -> float:
        """Draw an angle given in degrees and return it in radians."""
        return float(radians(self.around(centre, spread)))

    def sign(self) -> int:
        """Draw -1 or 1."""
        return int(self.rng.choice((-1, 1)))

    def side(self) -> tuple[str, str]:
        """Draw one side of the body and return it with the other."""
        return ("right", "left") if self.rng.random() < 0.5 else ("left", "right")

    def phase(self) -> float:
        """Draw where a repeating motion starts, from 0 to 1."""
        return float(self.rng.random())


def ease(x: Curve) -> Curve:
    """Lead from 0 to 1 without a jerk."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def bump(phase: Curve, start: Number, end: Number) -> Curve:
    """Rise from 0 at `start` to 1 and fall back to 0 at `end`."""
    return sin(pi * np.clip((phase - start) / (end - start), 0, 1)) ** 2


def keyed(phase: Curve, *keys: tuple[Number, Number]) -> Curve:
    """Interpolate smoothly between (phase, degrees) keys, the first at phase 0, and back to it at 1; in radians."""
    times = np.array([key[0] for key in keys] + [1.0])
    values = radians([key[1] for key in keys] + [keys[0][1]])
    k = np.searchsorted(times, phase, side="right").clip(1, len(keys)) - 1
    return values[k] + (values[k + 1] - values[k]) * ease((phase - times[k]) / (times[k + 1] - times[k]))


def standing(frames: int) -> Angles:
    """Return the angles of somebody who stands at ease."""
    angles = {name: np.zeros(frames) for name in ANGLES}
    for side in SIDES:
        angles[f"{side}_shoulder_abduction"] += radians(9)
        angles[f"{side}_elbow_flexion"] += radians(12)
        angles[f"{side}_hip_abduction"] += radians(4)
    return angles


def crouch(angles: Angles, knee: Curve) -> None:
    """Bend both knees by `knee` with the feet where they are: thighs forward, shins back, legs spread as wide as before."""
    for side in SIDES:
        spread = sin(angles[f"{side}_hip_abduction"]) / cos(knee / 2)
        angles[f"{side}_hip_abduction"] = np.arcsin(np.clip(spread, -1, 1))
        angles[f"{side}_hip_flexion"] += knee / 2
        angles[f"{side}_knee"] += knee


def sway(angles: Angles, angle: Curve) -> None:
    """Shift the hips to the left over both feet: the legs stay parallel, so the feet stay where they are."""
    angles["right_hip_abduction"] += angle
    angles["left_hip_abduction"] -= angle
    angles["roll"] -= angle


def walk(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Walk across the picture, and back if there is time; straight stance legs move the hips at constant speed."""
    way, leg = style.sign() * style.angle(88, 30), time / 2.6
    turned = np.where(leg < 1, 1, ease(4 * (leg % 1)))
    angles["yaw"] += way * np.where(leg.astype(int) % 2 == 0, 1, -1) * (2 * turned - 1)
    _stride(time, angles, style)
    return None


def _stride(time: Curve, angles: Angles, style: Style) -> None:
    """Move legs and arms as somebody who walks where they face."""
    angles["lean"] += style.angle(4, 4)
    phase = time / 1.3 + style.phase()
    stride, fold, swing, bent = (style.angle(*it) for it in ((20, 4), (62, 12), (26, 14), (16, 14)))
    for side, offset in zip(SIDES, (0.0, 0.5), strict=True):
        p = (phase + offset) % 1
        reach = np.where(p < 0.5, 1 - 4 * p, -cos(2 * pi * p - pi))
        folded = bump(p, 0.5, 1)
        angles[f"{side}_hip_abduction"][:] = radians(2)
        angles[f"{side}_hip_flexion"] += np.arcsin(sin(stride) * reach) + 0.42 * fold * folded
        angles[f"{side}_knee"] += fold * folded
        angles[f"{side}_shoulder_flexion"] -= swing * cos(2 * pi * p)
        angles[f"{side}_elbow_flexion"] += bent + 0.25 * swing * (1 - cos(2 * pi * p))


def wave(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Stand and wave with one arm."""
    angles["yaw"] += style.angle(0, 35)
    arm, _ = style.side()
    swing = sin(2 * pi * (time * style.around(1.5, 0.4) + style.phase()))
    angles[f"{arm}_shoulder_abduction"][:] = style.angle(112, 18) + radians(7) * swing
    angles[f"{arm}_elbow_abduction"] += style.angle(56, 12) + style.angle(32, 10) * swing
    angles[f"{arm}_elbow_flexion"][:] = 0
    sway(angles, radians(style.around(1.5, 1.5)) * sin(2 * pi * (time / 1.9 + style.phase())))
    angles["tilt"] += style.angle(4, 4) * swing
    return None


def squat(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Bend the knees deep and rise again, the arms stretched forward for balance."""
    angles["yaw"] += style.sign() * style.angle(50, 35)
    for side in SIDES:
        angles[f"{side}_hip_abduction"] += radians(5)
    depth = (1 - cos(2 * pi * (time / 1.8 + style.phase()))) / 2
    knee = style.angle(112, 14) * depth
    crouch(angles, knee)
    angles["lean"] += style.angle(32, 8) * depth
    for side in SIDES:
        angles[f"{side}_hip_flexion"] += 0.14 * knee
        angles[f"{side}_shoulder_flexion"] += style.angle(96, 12) * depth
        angles[f"{side}_elbow_flexion"] *= 1 - depth
    return None


def jumping_jack(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Jump, legs apart and hands over the head, and back; the feet move in the air only."""
    angles["yaw"] += style.angle(0, 30)
    half = 2 * (time / 1.15 + style.phase())
    stroke = half % 1  # 0.0 to 0.3 on the floor, then in the air
    flight = np.clip((stroke - 0.3) / 0.7, 0, 1)
    opening = half % 2 < 1
    spread = np.where(opening, ease(flight), 1 - ease(flight))
    raised = style.angle(158, 10)
    for side in SIDES:
        angles[f"{side}_hip_abduction"] += style.angle(19, 4) * spread
        angles[f"{side}_shoulder_abduction"] += raised * spread
        angles[f"{side}_elbow_flexion"] *= 1 - spread
        angles[f"{side}_elbow_abduction"] += radians(12) * sin(pi * spread)
    crouch(angles, style.angle(30, 10) * bump(stroke, 0, 0.3))
    return style.around(0.055, 0.02) * 4 * flight * (1 - flight)


def kick(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Draw one leg back and kick forward, standing on the other."""
    angles["yaw"] += style.sign() * style.angle(75, 25)
    p = (time / 1.6 + style.phase()) % 1
    leg, other = style.side()
    high = style.around(78, 16)
    angles[f"{leg}_hip_flexion"] += keyed(p, (0, 0), (0.12, 0), (0.3, -24), (0.46, high), (0.56, high), (0.85, 0))
    angles[f"{leg}_knee"] += keyed(p, (0, 0), (0.12, 0), (0.3, 78), (0.46, 6), (0.56, 8), (0.7, 50), (0.85, 0))
    angles["lean"] += keyed(p, (0, 2), (0.3, 8), (0.46, -16), (0.56, -16), (0.85, 2))
    for arm, way in ((leg, -1), (other, 1)):
        angles[f"{arm}_shoulder_flexion"] += way * keyed(p, (0, 0), (0.3, -28), (0.46, 48), (0.56, 48), (0.85, 0))
        angles[f"{arm}_shoulder_abduction"] += keyed(p, (0, 4), (0.4, 22), (0.85, 4))
        angles[f"{arm}_elbow_flexion"] += style.angle(28, 14)
    return None


def bow(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Bend forward from the hips and rise again."""
    angles["yaw"] += style.sign() * style.angle(68, 22)
    p = (time / 2.1 + style.phase()) % 1
    bent = keyed(p, (0, 0), (0.1, 0), (0.42, style.around(72, 14)), (0.6, style.around(72, 14)), (0.9, 0))
    angles["lean"] += bent
    angles["nod"] += 0.3 * bent
    arm, other = style.side()
    for side in SIDES:
        angles[f"{side}_hip_flexion"] += 0.13 * bent
        angles[f"{side}_shoulder_flexion"] += 0.75 * bent
    if style.rng.random() < 0.5 * style.freedom:  # one hand on the belly
        angles[f"{arm}_shoulder_flexion"] -= 0.4 * bent
        angles[f"{arm}_elbow_flexion"] += 0.9 * bent
        angles[f"{other}_shoulder_flexion"] -= 1.1 * bent
    return None


def _round(turns: Curve) -> Curve:
    """Turn in four steps per turn; the turning rests when one foot takes over from the other, so that neither slides."""
    return 2 * pi * turns - sin(8 * pi * turns) / 4


def spin(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Turn round and round with the arms out, stepping from foot to foot."""
    turns = time / 1.9 + style.phase()
    angles["yaw"] += style.sign() * _round(turns)
    open_arms, lifted = style.angle(72, 22), style.angle(12, 10)
    for side, offset in zip(SIDES, (0.0, 0.5), strict=True):
        up = bump((2 * turns + offset) % 1, 0, 0.5)
        angles[f"{side}_shoulder_abduction"] += open_arms + lifted * sin(2 * pi * turns)
        angles[f"{side}_knee"] += radians(36) * up
        angles[f"{side}_hip_flexion"] += radians(20) * up
    return None


# What feet do in a dance: each move takes one phase from 0 to 1 and starts and ends in the stance of `standing`.


def _bounce(p: Curve, angles: Angles, style: Style) -> Curve:
    crouch(angles, style.angle(40, 14) * (bump(p, 0, 0.5) + bump(p, 0.5, 1)))
    return np.zeros_like(p)


def _hips(p: Curve, angles: Angles, style: Style) -> Curve:
    sway(angles, style.sign() * style.angle(8, 3) * sin(2 * pi * p))
    return np.zeros_like(p)


def _side_step(p: Curve, angles: Angles, style: Style) -> Curve:
    there, half = p < 0.5, 2 * p % 1
    wide = style.angle(12, 4) * (ease(2 * half) - ease(2 * half - 1))
    for side, leads in zip(style.side(), (there, ~there), strict=True):
        lifted = np.where(leads, bump(half, 0, 0.5), bump(half, 0.5, 1))
        angles[f"{side}_hip_abduction"] += wide
        angles[f"{side}_hip_flexion"] += radians(22) * lifted
        angles[f"{side}_knee"] += radians(46) * lifted
    return np.zeros_like(p)


def _knee_up(p: Curve, angles: Angles, style: Style) -> Curve:
    high = style.angle(76, 16)
    for side, lifted in zip(style.side(), (bump(p, 0, 0.5), bump(p, 0.5, 1)), strict=True):
        angles[f"{side}_hip_flexion"] += high * lifted
        angles[f"{side}_knee"] += 1.2 * high * lifted
    return np.zeros_like(p)


def _side_kick(p: Curve, angles: Angles, style: Style) -> Curve:
    for side, lifted in zip(style.side(), (bump(p, 0, 0.5), bump(p, 0.5, 1)), strict=True):
        angles[f"{side}_hip_abduction"] += style.angle(38, 12) * lifted
        angles[f"{side}_knee"] += radians(14) * lifted
    return np.zeros_like(p)


def _hop(p: Curve, angles: Angles, style: Style) -> Curve:
    flight = np.clip((p - 0.3) / 0.4, 0, 1)
    crouch(angles, style.angle(52, 10) * (bump(p, 0, 0.3) + bump(p, 0.7, 1)))
    return style.around(0.07, 0.03) * 4 * flight * (1 - flight)


def _turn_round(p: Curve, angles: Angles, style: Style) -> Curve:
    angles["yaw"] += style.sign() * _round(p)
    for side, lifted in zip(SIDES, (bump(2 * p % 1, 0, 0.5), bump(2 * p % 1, 0.5, 1)), strict=True):
        angles[f"{side}_knee"] += radians(36) * lifted
        angles[f"{side}_hip_flexion"] += radians(20) * lifted
    return np.zeros_like(p)


_STEPS = (_bounce, _hips, _side_step, _knee_up, _side_kick, _hop, _turn_round)
# Where hands go in a dance, in degrees: shoulder abduction and flexion, elbow abduction and flexion.
_ARMS = ((10, 0, 0, 14), (52, -12, -92, 0), (90, 0, 0, 0), (164, 0, 0, 0), (132, 0, 0, 0), (90, 0, 84, 0), (24, 62, 0, 66))


def dance(time: Curve, angles: Angles, style: Style) -> Curve | None:
    """Dance: a step of the feet every two beats, a pose of the arms every beat, for as long as it takes."""
    beat = style.around(0.55, 0.08)
    angles["yaw"] += style.angle(0, 30)
    lift = np.zeros_like(time)
    start, way = -2 * beat * style.phase(), style.sign()
    while start < time[-1]:
        step = _STEPS[int(style.rng.integers(len(_STEPS)))]
        length = (4 if step in (_side_step, _turn_round) else 2) * beat
        now = (time >= start) & (time < start + length)
        part = {name: curve[now] for name, curve in angles.items()}
        lift[now] = step((time[now] - start) / length, part, style)
        for name, curve in part.items():
            angles[name][now] = curve
        start += length
    arms: dict[str, list[tuple[int, ...]]] = {side: [] for side in SIDES}
    for _ in range(int((time[-1] - time[0]) / beat) + 3):
        pair = style.rng.integers(len(_ARMS), size=2)
        if style.rng.random() < 0.6:
            pair[1] = pair[0]
        for side, pose in zip(SIDES, pair, strict=True):
            arms[side].append(_ARMS[pose])
    beats = time / beat + style.phase()
    k, within = beats.astype(int), ease(1.4 * (beats % 1))[:, None]
    for side in SIDES:
        keys = radians(arms[side])
        for name, curve in zip(ARM, (keys[k] + (keys[k + 1] - keys[k]) * within).T, strict=True):
            angles[f"{side}_{name}"][:] = curve
    groove = sin(pi * beats)
    angles["nod"] += radians(6) * groove**2
    angles["roll"] += way * style.angle(5, 4) * groove
    angles["tilt"] -= way * style.angle(6, 4) * groove
    return lift


@dataclass(frozen=True)
class Action:
    """A kind of motion.

    Attributes:
        verb: third person, for captions.
        curves: fills the joint angles for times in seconds and returns the lift, if anybody jumps.
    """

    verb: str
    curves: Callable[[Curve, Angles, Style], Curve | None]


ACTIONS = {
    "walk": Action("walks", walk),
    "wave": Action("waves", wave),
    "squat": Action("squats", squat),
    "jumping_jack": Action("does jumping jacks", jumping_jack),
    "kick": Action("kicks", kick),
    "bow": Action("bows", bow),
    "spin": Action("spins", spin),
    "dance": Action("dances", dance),
}


def sample_motion(action: str, frames: int, fps: float, rng: np.random.Generator, freedom: float = 1.0) -> Motion:
    """Draw one performance of an action.

    Args:
        action: one of `ACTIONS`.
        frames: length, any; a dance goes on as long as needed.
        fps: frames per second.
        rng: source of style, speed and phase.
        freedom: 0 (textbook) to 1 (every style and view).

    Raises:
        ConfigError: for an unknown action.
    """
    if action not in ACTIONS:
        raise ConfigError(f"there is no action {action!r}; {accepted(action, ACTIONS)}")
    speed = _speed(rng)
    angles = standing(frames)
    lift = ACTIONS[action].curves(np.arange(frames) * speed / fps, angles, Style(rng, freedom))
    table = np.stack([angles[name] for name in ANGLES], axis=1)
    return Motion(action, speed, table, np.zeros(frames) if lift is None else lift)


def _speed(rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(0.7), np.log(1.45))))


# One past, several futures


PASTS = ("walk", "stand")
"""What people do before the fork."""
FUTURES = {
    "go_on": "goes on",
    "stop": "stops",
    "turn_back": "turns back",
    "kick": "kicks",
    "wave": "waves",
    "squat": "squats",
    "bow": "bows",
}
"""What may follow, with the verb of a caption."""
CHANGE = 0.4  # seconds from what was done to what follows
TURN = 0.8  # seconds of turning back


class _FromRest(Style):
    """A style whose repeating motions start at their beginning, as somebody does who stood or walked before."""

    def phase(self) -> float:
        """Return the beginning."""
        return 0.0


@dataclass(frozen=True)
class Fork:
    """A past that several futures may follow.

    Attributes:
        past: one of `PASTS`.
        speed: 1 is the natural speed.
        times: of the frames in seconds of natural speed.
        fork: frames of the past; up to there, all futures are the same to the bit.
        angles: what happens where nothing changes.
    """

    past: str
    speed: float
    times: Curve
    fork: int
    angles: Angles

    def follow(self, future: str, rng: np.random.Generator, freedom: float = 1.0) -> Motion:
        """Return the past with one of the futures.

        Args:
            future: one of `FUTURES`.
            rng: source of the style of what follows.
            freedom: 0 (textbook) to 1.

        Raises:
            ConfigError: for an unknown future.
        """
        if future not in FUTURES:
            raise ConfigError(f"there is no future {future!r}; {accepted(future, FUTURES)}")
        since = self.times - self.times[self.fork - 1]
        angles = dict(self.angles)
        if future == "turn_back":
            yaw = angles["yaw"]
            angles["yaw"] = yaw - np.sign(yaw) * pi * ease(since / TURN)
        elif future != "go_on":
            changed = standing(len(self.times))
            if future in ACTIONS:
                ACTIONS[future].curves(np.maximum(since, 0), changed, _FromRest(rng, freedom))
            changed["yaw"] = angles["yaw"]
            done = ease(since / CHANGE)
            angles = {name: curve + done * (changed[name] - curve) for name, curve in angles.items()}
        table = np.stack([angles[name] for name in ANGLES], axis=1)
        return Motion(future, self.speed, table, np.zeros(len(self.times)))


def sample_fork(past: str, frames: int, fork: int, fps: float, rng: np.random.Generator, freedom: float = 1.0) -> Fork:
    """Draw a past.

    Args:
        past: one of `PASTS`.
        frames: of past and future together.
        fork: of the past, at least 1.
        fps: frames per second.
        rng: source of heading, style, speed and phase.
        freedom: 0 (textbook) to 1.

    Raises:
        ConfigError: for an unknown past, or a fork out of range.
    """
    if past not in PASTS:
        raise ConfigError(f"there is no past {past!r}; {accepted(past, PASTS)}")
    if not 1 <= fork < frames:
        raise ConfigError(f"fork {fork} of {frames} frames leaves no past or no future; it must be from 1 to {frames - 1}")
    speed, style = _speed(rng), Style(rng, freedom)
    times, angles = np.arange(frames) * speed / fps, standing(frames)
    if past == "walk":
        angles["yaw"] += style.sign() * style.angle(80, 15)
        _stride(times, angles, style)
    else:
        angles["yaw"] += style.sign() * style.angle(50, 30)
        sway(angles, radians(style.around(1.5, 1.5)) * sin(2 * pi * (times / 1.9 + style.phase())))
    return Fork(past, speed, times, fork, angles)
