"""Procedural people: little films in which everything is known, made without a download.

A film is a `Motion` performed by an `Identity` on a `Stage`: the same motion with another identity is the exact truth of a
motion transfer. Clip i depends on (seed, i) alone.

The mask is the opacity of the foreground: 255 on the body, fractions on its edges, and the opacity of its shadow (at most
about a third) on the floor. So ``video = colour * mask + background * (1 - mask)`` everywhere, the video *is* the background
wherever the mask is 0, and ``mask > 127`` is the silhouette without the shadow.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

from kinema.core.config import Config
from kinema.core.errors import ConfigError, accepted
from kinema.data.dataset import Clip, ClipRecord
from kinema.data.figures import Colour, Identity, View, draw_figure
from kinema.data.motions import ACTIONS, FUTURES, PASTS, Fork, Motion, sample_fork, sample_motion
from kinema.data.stages import SCENES, Stage, backdrop
from kinema.pose.kinematics import Body, Performance, perform
from kinema.pose.noise import DetectorNoise, detect
from kinema.pose.skeleton import COCO_18

Variety = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class PerformersSettings(Config):
    """What `kinema prepare performers` makes."""

    clips: int = 2000
    """Number of clips."""
    frames: int = 32
    """Frames per clip."""
    size: int = 64
    """Height and width in pixels; people look best at 64 or more."""
    fps: float = 16.0
    """Frames per second: how fast everybody moves from frame to frame."""
    variety: Variety = "low"
    """low: one stage, four people, near the middle. medium: four stages, twelve people. high: everything drawn anew."""
    people: tuple[str, ...] = ()
    """Who performs, by name: ada, ben, cleo, dan and, at medium variety, eight more. Empty: everybody. Datasets that differ in
    nothing else hold the same motions."""
    actions: tuple[str, ...] = tuple(ACTIONS)
    """What people do; the label of a clip."""
    seed: int = 0
    """Another seed gives other people, stages and motions."""
    jitter: float = 0.0
    """Shaking of the camera: standard deviation in pixels; 0 is a camera that stands still."""
    pose_noise: float = 0.0
    """Faults of a pose detector in the stored poses: 0 exact, 1 usual (jitter, drop-outs, left and right swapped)."""
    fork: tuple[str, ...] = ()
    """One past and several futures, such as go_on stop turn_back kick wave squat bow: everybody does --fork-past up to frame
    --fork-frame, then one of these, which becomes the label; --actions are not used."""
    fork_odds: tuple[float, ...] = ()
    """How likely each of --fork is, in any unit; without it all are equally likely."""
    fork_past: Literal["walk", "stand"] = "walk"
    """What everybody does before the fork."""
    fork_frame: int = 0
    """Frames of the past; 0 is half of the clip."""

    def check(self) -> None:
        """Refuse values out of range."""
        for field, least in (("clips", 1), ("frames", 1), ("size", 16), ("seed", 0)):
            self.require(getattr(self, field) >= least, field, f"at least {least}")
        self.require(0 < self.fps <= 240, "fps", "above 0 and at most 240")
        self.require(0 <= self.jitter <= self.size / 8, "jitter", f"from 0 to {self.size / 8:g} (an eighth of the size)")
        self.require(0 <= self.pose_noise <= 10, "pose_noise", "from 0 to 10")
        for action in self.actions:
            if action not in ACTIONS:
                raise ConfigError(f"performers have no action {action!r}; {accepted(action, ACTIONS)}")
        known = _NAMES[: _CAST[self.variety][0]] if self.variety in _CAST else ()
        self.require(not self.people or bool(known), "people", "empty at high variety, where everybody is drawn anew")
        for person in self.people:
            if person not in known:
                raise ConfigError(f"nobody of {self.variety} variety is called {person!r}; {accepted(person, known)}")
        self.require(len(self.actions) > 0, "actions", f"at least one of {', '.join(ACTIONS)}")
        self.require(len(set(self.actions)) == len(self.actions), "actions", "different from each other")
        self._check_fork()

    def _check_fork(self) -> None:
        for future in self.fork:
            if future not in FUTURES:
                raise ConfigError(f"performers have no future {future!r}; {accepted(future, FUTURES)}")
        self.require(len(set(self.fork)) == len(self.fork), "fork", "different from each other")
        self.require(len(self.fork) != 1, "fork", "two futures or more, or none")
        self.require(self.fork_past in PASTS, "fork_past", f"one of {', '.join(PASTS)}")
        odds = self.fork_odds
        self.require(len(odds) in (0, len(self.fork)), "fork_odds", f"one number for each of the {len(self.fork)} of fork")
        self.require(all(0 < one < float("inf") for one in odds), "fork_odds", "above 0")
        if self.fork:
            self.require(0 <= self.fork_frame < self.frames, "fork_frame", f"from 1 to {self.frames - 1}, or 0 for half")
            self.require(self.frames >= 2, "frames", "at least 2, for a past and a future")

    @property
    def past(self) -> int:
        """Frames before the fork."""
        return self.fork_frame or self.frames // 2

    @property
    def odds(self) -> dict[str, float]:
        """Probability of every future."""
        odds = self.fork_odds or (1.0,) * len(self.fork)
        return {future: share / sum(odds) for future, share in zip(self.fork, odds, strict=True)}


@dataclass(frozen=True)
class Placement:
    """Where somebody performs.

    Attributes:
        x: metres to the right of the middle of the picture.
        depth: metres from the camera.
    """

    x: float = 0.0
    depth: float = 6.0


@dataclass(frozen=True)
class Film:
    """A rendered performance.

    Attributes:
        video: pixels.
        pose: joints of COCO-18 in pixels; confidence 0 outside the picture, else 1.
        mask: opacity of the foreground.
        background: the empty stage (with the camera at rest).
    """

    video: UInt8[np.ndarray, "T H W 3"]
    pose: Float32[np.ndarray, "T 18 3"]
    mask: UInt8[np.ndarray, "T H W"]
    background: UInt8[np.ndarray, "H W 3"]


def render(
    motion: Motion,
    identity: Identity,
    stage: Stage,
    placement: Placement = Placement(),
    *,
    size: int = 64,
    shake: Float[np.ndarray, "T 2"] | None = None,
) -> Film:
    """Film somebody; an exact function of its arguments.

    Args:
        motion: what they do.
        identity: who they are.
        stage: scene and camera.
        placement: where they do it.
        size: edge of the picture in pixels.
        shake: movement of the whole picture per frame in pixels (right, down), for a camera that is held by hand.
    """
    performance = _moved(perform(motion.angles, motion.lift, identity.body), placement)
    shake = np.zeros((len(motion.lift), 2)) if shake is None else shake
    view = View(stage, size, shake)
    tiles = draw_figure(performance, identity, view)
    video = _behind(view)
    mask = np.zeros(video.shape[:3], np.uint8)
    height, width = tiles.layers.shape[1:3]
    rows = tiles.corners[:, 1, None] + np.arange(height)
    columns = tiles.corners[:, 0, None] + np.arange(width)
    where = np.arange(len(video))[:, None, None], rows[:, :, None], columns[:, None, :]
    colour, opacity = tiles.layers[..., :3], tiles.layers[..., 3]
    behind = video[where] * (255 - opacity[..., None]).astype(np.uint16)
    video[where] = np.minimum((behind + 127) // 255 + colour, 255)
    mask[where] = opacity
    return Film(video, _seen(performance, view), mask, backdrop(stage, size))


def _seen(performance: Performance, view: View) -> Float32[np.ndarray, "T 18 3"]:
    """Return where the joints are in the picture; confidence 0 outside of it."""
    pose = view.project(performance.joints)
    inside = ((pose > -0.5) & (pose < view.size - 0.5)).all(axis=-1, keepdims=True)
    return np.concatenate([pose, inside], axis=-1).astype(np.float32)


def _moved(performance: Performance, placement: Placement) -> Performance:
    where = np.array([placement.x, 0, placement.depth])
    fields = ("joints", "hands", "toes", "head")
    return replace(performance, **{name: getattr(performance, name) + where for name in fields})


def _behind(view: View) -> UInt8[np.ndarray, "T H W 3"]:
    """Return the empty stage per frame, moved with the camera and mirrored at its edges."""
    still = backdrop(view.stage, view.size)
    if not view.shake.any():
        return np.repeat(still[None], len(view.shake), axis=0)
    moves = [np.array([[1, 0, dx], [0, 1, dy]]) for dx, dy in view.shake]
    shape = (view.size, view.size)
    return np.stack([cv2.warpAffine(still, move, shape, borderMode=cv2.BORDER_REFLECT_101) for move in moves])


# Casting: who plays where.

_SHIRTS: dict[str, Colour] = {
    "red": (206, 50, 46),
    "blue": (46, 92, 196),
    "yellow": (236, 192, 48),
    "green": (52, 150, 76),
    "white": (236, 234, 228),
    "purple": (132, 66, 168),
    "orange": (238, 128, 36),
    "black": (48, 46, 52),
    "pink": (232, 122, 160),
    "turquoise": (40, 170, 170),
    "grey": (136, 138, 144),
    "brown": (130, 86, 56),
}
_TROUSERS = ((44, 58, 102), (40, 40, 46), (84, 70, 58), (112, 116, 126), (62, 88, 132), (176, 152, 112), (58, 80, 60))
_SKINS = ((246, 208, 178), (228, 178, 140), (198, 142, 104), (150, 102, 72), (104, 70, 52))
_HAIRS = ((40, 30, 26), (78, 50, 32), (128, 84, 44), (206, 166, 92), (152, 70, 36), (150, 148, 146))
_SHOES = ((40, 38, 42), (226, 224, 220), (120, 72, 44), (170, 44, 44))
_STYLES = ("short", "long", "bun", "cap", "bald")
_NAMES = ("ada", "ben", "cleo", "dan", "eva", "finn", "gil", "hana", "ivo", "june", "kofi", "lina")
_FREEDOM: dict[Variety, float] = {"low": 0.3, "medium": 0.65, "high": 1.0}
_CAST: dict[Variety, tuple[int, int]] = {"low": (4, 1), "medium": (len(_NAMES), 4)}  # people, stages


def sample_identity(name: str, rng: np.random.Generator, shirt: str | None = None) -> Identity:
    """Draw somebody's body and looks.

    Args:
        name: what to call them.
        rng: source of randomness.
        shirt: colour of the shirt in words; drawn when absent.
    """
    shirt = shirt or str(rng.choice(list(_SHIRTS)))
    usual = Body()

    def vary(share: float) -> float:
        return float(rng.uniform(1 - share, 1 + share))

    legs, arms = vary(0.05), vary(0.06)
    body = Body(
        height=1.7 * vary(0.07),
        build=float(rng.uniform(0.9, 1.28)),
        shoulders=usual.shoulders * vary(0.12),
        hips=usual.hips * vary(0.1),
        trunk=usual.trunk * vary(0.04),
        thigh=usual.thigh * legs,
        shin=usual.shin * legs,
        upper_arm=usual.upper_arm * arms,
        forearm=usual.forearm * arms,
        head=usual.head * vary(0.07),
    )
    return Identity(
        name,
        body,
        skin=_tint(rng, _SKINS),
        hair=_tint(rng, _HAIRS),
        hair_style=str(rng.choice(_STYLES, p=(0.42, 0.26, 0.12, 0.12, 0.08))),
        shirt=_tint(rng, (_SHIRTS[shirt],)),
        shirt_name=shirt,
        long_sleeves=bool(rng.random() < 0.4),
        stripe=_tint(rng, tuple(_SHIRTS.values())) if rng.random() < 0.3 else None,
        trousers=_tint(rng, _TROUSERS),
        shorts=bool(rng.random() < 0.25),
        shoes=_tint(rng, _SHOES),
    )


def _tint(rng: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    base = np.array(colours[int(rng.integers(len(colours)))]) + rng.uniform(-8, 8, 3)
    red, green, blue = (int(channel) for channel in np.clip(base, 0, 255))
    return red, green, blue


def sample_stage(rng: np.random.Generator, freedom: float = 1.0, scene: str | None = None) -> Stage:
    """Draw a scene, unless one of `SCENES` is given, and the camera before it."""
    scene = scene or str(rng.choice(list(SCENES)))
    horizon, focal = 0.42 + freedom * rng.uniform(-0.05, 0.05), 2.2 + freedom * rng.uniform(-0.15, 0.15)
    # The camera's height puts the feet of somebody at 6 m near the lower edge, whatever the horizon.
    return Stage(scene, int(rng.integers(2**31)), float(horizon), float((0.926 - horizon) * 6 / focal), float(focal))


def place(motion: Motion, identity: Identity, stage: Stage, rng: np.random.Generator, freedom: float = 1.0) -> Placement:
    """Draw where somebody performs, so that the whole performance is in the picture where that is possible."""
    depth = 6.05 + freedom * float(rng.uniform(0, 1.1))
    performance = perform(motion.angles, motion.lift, identity.body)
    across = performance.joints[..., 0]
    room = 0.47 * depth / stage.focal
    low, high = float(across.min()), float(across.max())
    free = max(room - (high - low) / 2, 0.0)
    return Placement(freedom * free * float(rng.uniform(-1, 1)) - (low + high) / 2, depth)


@lru_cache(maxsize=8)
def cast(seed: int, variety: Variety) -> tuple[tuple[Identity, ...], tuple[Stage, ...]]:
    """Return the people and stages that all clips of a seed share; none for high variety, which draws them per clip."""
    if variety not in _CAST:
        return (), ()
    people, stages = _CAST[variety]
    rng = np.random.default_rng([seed, 0])
    shirts = list(_SHIRTS)
    actors = [sample_identity(name, rng, shirts[k]) for k, name in enumerate(_NAMES[:people])]
    return tuple(actors), tuple(sample_stage(rng, _FREEDOM[variety], scene) for scene in list(SCENES)[:stages])


def caption(motion: Motion, identity: Identity, past: str | None = None) -> str:
    """Say in a sentence what a film shows."""
    article = "an" if identity.shirt_name[0] in "aeiou" else "a"
    if past:
        does = f"{'walks' if past == 'walk' else 'stands'}, then {FUTURES[motion.action]}"
        return f"a person in {article} {identity.shirt_name} shirt {does}"
    pace = " slowly" if motion.speed < 0.85 else " quickly" if motion.speed > 1.2 else ""
    return f"a person in {article} {identity.shirt_name} shirt {ACTIONS[motion.action].verb}{pace}"


def render_clip(index: int, settings: PerformersSettings) -> Clip:
    """Make clip `index`: a function of the index and the settings alone.

    Args:
        index: number of the clip, from 0.
        settings: what to make.
    """
    if settings.fork:
        return _forked_clip(index, _drawn_future(index, settings), settings)
    rng = np.random.default_rng([settings.seed, 1, index])
    freedom = _FREEDOM[settings.variety]
    action = settings.actions[int(rng.integers(len(settings.actions)))]
    identity, stage = _chosen(index, settings, rng)
    motion = sample_motion(action, settings.frames, settings.fps, rng, freedom)
    placement = place(motion, identity, stage, rng, freedom)
    film = render(motion, identity, stage, placement, size=settings.size, shake=_shake(settings, rng))
    pose = _detected(film.pose, settings, rng)
    record = ClipRecord(
        key=f"{index:06d}",
        source="performers",
        first_frame=0,
        fps=settings.fps,
        label=action,
        caption=caption(motion, identity),
        group=identity.name,
        extra={"speed": round(motion.speed, 3), "scene": stage.scene},
    )
    return Clip(record, film.video, pose, film.mask, film.background)


def render_futures(index: int, settings: PerformersSettings) -> dict[str, Clip]:
    """Make clip `index` once with every future: one past, to the pixel, and after the fork all that might have happened.

    Args:
        index: number of the clip, from 0.
        settings: what to make, with a fork.

    Raises:
        ConfigError: for settings without a fork.
    """
    settings.require(bool(settings.fork), "fork", "two futures or more, for a past has no other futures without it")
    return {future: _forked_clip(index, future, settings) for future in settings.fork}


def pose_futures(index: int, settings: PerformersSettings) -> dict[str, Float32[np.ndarray, "T 18 3"]]:
    """Return the exact poses of `render_futures`, without drawing anybody.

    Args:
        index: number of the clip, from 0.
        settings: what to make, with a fork.
    """
    found = {}
    for future in settings.fork:
        scene = _forked_scene(index, future, settings)
        performance = _moved(perform(scene.motion.angles, scene.motion.lift, scene.identity.body), scene.placement)
        shake = np.zeros((settings.frames, 2)) if scene.shake is None else scene.shake
        found[future] = _seen(performance, View(scene.stage, settings.size, shake))
    return found


@dataclass(frozen=True)
class _Scene:
    """Everything that decides how a forked clip looks."""

    motion: Motion
    identity: Identity
    stage: Stage
    placement: Placement
    shake: Float[np.ndarray, "T 2"] | None
    rng: np.random.Generator


def _drawn_future(index: int, settings: PerformersSettings) -> str:
    """Draw what follows; the past does not depend on it."""
    rng = np.random.default_rng([settings.seed, 2, index])
    return settings.fork[int(rng.choice(len(settings.fork), p=list(settings.odds.values())))]


def _forked_scene(index: int, future: str, settings: PerformersSettings) -> _Scene:
    rng = np.random.default_rng([settings.seed, 1, index])
    freedom = _FREEDOM[settings.variety]
    identity, stage = _chosen(index, settings, rng)
    fork = sample_fork(settings.fork_past, settings.frames, settings.past, settings.fps, rng, freedom)
    motion = fork.follow(future, np.random.default_rng([settings.seed, 3, index]), freedom)
    placement = _from_one_place(fork, motion, identity, stage, rng, freedom)
    return _Scene(motion, identity, stage, placement, _shake(settings, rng), rng)


def _forked_clip(index: int, future: str, settings: PerformersSettings) -> Clip:
    scene = _forked_scene(index, future, settings)
    motion, identity, stage = scene.motion, scene.identity, scene.stage
    film = render(motion, identity, stage, scene.placement, size=settings.size, shake=scene.shake)
    record = ClipRecord(
        key=f"{index:06d}",
        source="performers",
        first_frame=0,
        fps=settings.fps,
        label=future,
        caption=caption(motion, identity, settings.fork_past),
        group=identity.name,
        extra={"speed": round(motion.speed, 3), "scene": stage.scene, "future": future, "fork": settings.past},
    )
    return Clip(record, film.video, _detected(film.pose, settings, scene.rng), film.mask, film.background)


def _from_one_place(
    fork: Fork, motion: Motion, identity: Identity, stage: Stage, rng: np.random.Generator, freedom: float
) -> Placement:
    """Draw where somebody goes on from a fork without a change, and return where another future begins at that place."""
    same = fork.follow("go_on", rng, freedom)
    placement = place(same, identity, stage, rng, freedom)
    usual, other = (perform(one.angles, one.lift, identity.body).joints[0, 1] for one in (same, motion))
    return Placement(placement.x + float(usual[0] - other[0]), placement.depth + float(usual[2] - other[2]))


def _chosen(index: int, settings: PerformersSettings, rng: np.random.Generator) -> tuple[Identity, Stage]:
    people, stages = cast(settings.seed, settings.variety)
    playing = [one for one in people if one.name in settings.people] or people
    identity = playing[int(rng.integers(len(people))) % len(playing)] if people else sample_identity(f"person-{index:06d}", rng)
    return identity, stages[int(rng.integers(len(stages)))] if stages else sample_stage(rng)


def _detected(pose: Float32[np.ndarray, "T 18 3"], settings: PerformersSettings, rng: np.random.Generator) -> np.ndarray:
    """Return the poses as a detector would have found them, where the settings ask for its faults."""
    if settings.pose_noise == 0:
        return pose
    return detect(pose, COCO_18, DetectorNoise().scaled(settings.pose_noise), rng)


def _shake(settings: PerformersSettings, rng: np.random.Generator) -> Float[np.ndarray, "T 2"] | None:
    """Draw a smooth random movement of the camera."""
    if settings.jitter == 0:
        return None
    steps = rng.normal(size=(settings.frames, 2))
    for t in range(1, settings.frames):
        steps[t] = 0.8 * steps[t - 1] + 0.6 * steps[t]
    return settings.jitter * steps
