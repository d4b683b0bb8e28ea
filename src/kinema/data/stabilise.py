"""Stabilising: every frame of a segment is laid on its first one by a similarity that must pass six gates.

VGAN assumes a static background, so a moving camera has to be taken out first (Vondrick et al., 2016, Section 3.1: SIFT,
RANSAC, missing pixels filled from previous frames, segments with a large re-projection error ignored). A model fitted
without gates locks on the moving foreground where the background has little texture, and makes footage far worse than doing
nothing; with the gates such segments are refused by name.

Footage from a tripod needs none of this, and much of it (a hand in front of a wall) has too little texture to pass.
`camera_moves` tells the two apart.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8

from kinema.core.config import Config

GATES = ("matches", "inliers", "inlier_ratio", "error", "scale", "hull")
MATCHED_AT_ONCE = 1024
"""Descriptors of a frame compared in one product, which bounds the memory of frames with many."""

Frame = UInt8[np.ndarray, "H W 3"]
Similarity = Float64[np.ndarray, "2 3"]


@dataclass(frozen=True)
class StabiliseSettings(Config):
    """Gates of the stabiliser; all of them must hold for a frame to be kept."""

    minimum_matches: int = 15
    """Matches that pass the ratio test, at least."""
    minimum_inliers: int = 15
    """Matches that agree with the fitted similarity, at least."""
    minimum_inlier_ratio: float = 0.5
    """Inliers among the matches, at least; in [0, 1]."""
    maximum_error: float = 1.5
    """Mean re-projection error of the inliers, at most; in pixels."""
    maximum_scale: float = 1.25
    """Zoom between the two frames, at most; its inverse at least."""
    minimum_hull: float = 0.15
    """Area of the convex hull of the inliers, at least; as a share of the frame. What refuses a foreground that passes for
    the background."""
    minimum_coverage: float = 0.5
    """A segment ends when the warped frame covers less of its centre square; 0: when it covers nothing."""
    longest: int | None = None
    """Frames after which a new segment starts, with a new first frame to lay the others on; none: no limit."""
    gates: tuple[str, ...] = GATES
    """Gates in force; leave one out to see what it is for."""

    def check(self) -> None:
        """Refuse values that no frame, or every frame, would pass."""
        self.require(self.minimum_matches >= 2, "minimum_matches", "at least 2")
        self.require(self.minimum_inliers >= 2, "minimum_inliers", "at least 2")
        for name in ("minimum_inlier_ratio", "minimum_hull", "minimum_coverage"):
            self.require(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        self.require(self.maximum_error > 0, "maximum_error", "above 0")
        self.require(self.maximum_scale > 1, "maximum_scale", "above 1")
        self.require(self.longest is None or self.longest >= 1, "longest", "at least 1 or none")
        self.require(set(self.gates) <= set(GATES), "gates", f"some of {', '.join(GATES)}")


@dataclass(frozen=True)
class Rejection:
    """Why a segment ended."""

    frame: int
    """The offending frame, counted from the first frame given; it begins the next segment."""
    gate: str
    """A name of `GATES`, or "coverage"."""
    value: float
    """What was measured."""
    limit: float
    """What the gate asks for."""

    def __str__(self) -> str:
        return f"frame {self.frame}: {self.gate.replace('_', ' ')} {self.value:.3g}, limit {self.limit:.3g}"


@dataclass(frozen=True)
class Segment:
    """Consecutive frames, each laid on the first."""

    first: int
    """Position of the first frame among the frames given."""
    frames: UInt8[np.ndarray, "T h w 3"]
    """Stabilised frames, finished if `stabilise` was told how."""
    transforms: Float64[np.ndarray, "T 2 3"]
    """Similarity from every frame to the first, in pixels of the frames given; the first is the identity."""
    rejection: Rejection | None
    """Why the segment ended; None: the frames or `longest` ended it."""


def stabilise(
    frames: Iterable[Frame], settings: StabiliseSettings | None = None, finish: Callable[[Frame], Frame] | None = None
) -> Iterator[Segment]:
    """Cut footage of one shot into stabilised segments; every frame given ends up in exactly one.

    Args:
        frames: of one size, in order, without cuts.
        settings: gates; default: those of the specification.
        finish: applied to every stabilised frame, for example shrinking, so that long segments need little memory.
    """
    settings = settings or StabiliseSettings()
    finder = _Finder()
    anchor: _Anchor | None = None
    position = -1
    for position, frame in enumerate(frames):
        features = finder.find(frame)
        if anchor is not None:
            rejection = anchor.add(frame, features, position)
            if rejection is None and len(anchor.kept) != settings.longest:
                continue
            if rejection is None:
                yield anchor.segment(None)
                anchor = None
                continue
            yield anchor.segment(rejection)
        anchor = _Anchor(frame, features, position, settings, finish or _untouched)
        if settings.longest == 1:
            yield anchor.segment(None)
            anchor = None
    if anchor is not None:
        yield anchor.segment(None)


class _Anchor:
    """A segment in the making: its first frame, the frame before, and the mosaic that fills missing borders."""

    def __init__(
        self,
        frame: Frame,
        features: "_Features",
        position: int,
        settings: StabiliseSettings,
        finish: Callable[[Frame], Frame],
    ) -> None:
        self.settings, self.finish, self.position = settings, finish, position
        self.first = self.previous = features
        self.to_first = [np.eye(2, 3)]
        self.mosaic = frame
        self.kept = [finish(frame)]

    def add(self, frame: Frame, features: "_Features", position: int) -> Rejection | None:
        """Lay a frame on the first one, or say why not."""
        transform, failure = _fit(self.first, features, self.settings)
        if failure and len(self.kept) > 1:
            transform, failure = _fit(self.previous, features, self.settings)
            transform = compose(self.to_first[-1], transform)
        if failure:
            return Rejection(position, *failure)
        stabilised, valid = _warp(frame, transform, self.mosaic)
        coverage = float(_centre_square(valid).mean())
        if coverage < self.settings.minimum_coverage or coverage == 0:
            return Rejection(position, "coverage", coverage, self.settings.minimum_coverage)
        self.mosaic, self.previous = stabilised, features
        self.to_first.append(transform)
        self.kept.append(self.finish(stabilised))
        return None

    def segment(self, rejection: Rejection | None) -> Segment:
        return Segment(self.position, np.stack(self.kept), np.stack(self.to_first), rejection)


@dataclass(frozen=True)
class _Features:
    points: Float32[np.ndarray, "N 2"]
    descriptors: Float32[np.ndarray, "N 128"]
    area: int


class _Finder:
    """SIFT (Lowe, 2004) on full-resolution frames."""

    def __init__(self) -> None:
        self.sift = cv2.SIFT.create()

    def find(self, frame: Frame) -> _Features:
        return self.find_grey(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))

    def find_grey(self, grey: UInt8[np.ndarray, "H W"]) -> _Features:
        keypoints, descriptors = self.sift.detectAndCompute(grey, np.full_like(grey, 255))
        points = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
        descriptors = descriptors if keypoints else np.empty((0, 128), np.float32)
        return _Features(points, descriptors, grey.size)


def _match(reference: _Features, moving: _Features) -> tuple[Float32[np.ndarray, "N 2"], Float32[np.ndarray, "N 2"]]:
    """Pair points whose nearest descriptor is clearly nearer than the second (ratio test, 0.7).

    Every descriptor is compared with every other. SIFT's are 128 whole numbers up to 255, so that all sums stay below 2**24,
    where float32 holds them exactly: the matches are the same whatever order a processor adds in. The specification's random
    kd-trees depend on what the process has drawn before, and up to a few thousand points they are slower.
    """
    if min(len(reference.points), len(moving.points)) < 2:
        return reference.points[:0], moving.points[:0]
    nearest, clear = [], []
    lengths = np.square(reference.descriptors).sum(axis=1)
    for first in range(0, len(moving.points), MATCHED_AT_ONCE):
        block = moving.descriptors[first : first + MATCHED_AT_ONCE]
        distances = np.square(block).sum(axis=1, keepdims=True) - 2 * (block @ reference.descriptors.T) + lengths  # squared
        best = distances.argmin(axis=1, keepdims=True)
        smallest = np.take_along_axis(distances, best, axis=1)
        np.put_along_axis(distances, best, np.inf, axis=1)
        nearest.append(best[:, 0])
        clear.append(smallest[:, 0] < 0.7**2 * distances.min(axis=1))
    kept = np.concatenate(clear)
    return reference.points[np.concatenate(nearest)[kept]], moving.points[kept]


def _fit(
    reference: _Features, moving: _Features, settings: StabiliseSettings
) -> tuple[Similarity, tuple[str, float, float] | None]:
    """Fit the similarity from `moving` to `reference`; also return the first gate that fails, its value and its limit."""
    target, source = _match(reference, moving)
    identity = np.eye(2, 3)
    if "matches" in settings.gates and len(source) < settings.minimum_matches:
        return identity, ("matches", len(source), settings.minimum_matches)
    if len(source) < 2:
        return identity, ("matches", len(source), 2)  # two points determine a similarity: no gate to switch off
    model, chosen = cv2.estimateAffinePartial2D(
        source, target, method=cv2.RANSAC, ransacReprojThreshold=3.0, maxIters=4000, confidence=0.999
    )
    if model is None or not chosen.any():
        return identity, ("inliers", 0, settings.minimum_inliers)
    inside = chosen.ravel().astype(bool)
    errors = np.linalg.norm(source[inside] @ model[:, :2].T + model[:, 2] - target[inside], axis=1)
    scale = math.hypot(model[0, 0], model[1, 0])
    hull = cv2.contourArea(cv2.convexHull(target[inside])) / reference.area
    too_small = scale < 1 / settings.maximum_scale
    failures = (
        ("inliers", int(inside.sum()), settings.minimum_inliers, inside.sum() < settings.minimum_inliers),
        ("inlier_ratio", inside.mean(), settings.minimum_inlier_ratio, inside.mean() < settings.minimum_inlier_ratio),
        ("error", errors.mean(), settings.maximum_error, errors.mean() > settings.maximum_error),
        (
            "scale",
            scale,
            1 / settings.maximum_scale if too_small else settings.maximum_scale,
            too_small or scale > settings.maximum_scale,
        ),
        ("hull", hull, settings.minimum_hull, hull < settings.minimum_hull),
    )
    failed = ((name, float(value), float(limit)) for name, value, limit, fails in failures if fails and name in settings.gates)
    return model, next(failed, None)


def compose(outer: Similarity, inner: Similarity) -> Similarity:
    """Return the transform that applies `inner` first, then `outer`."""
    return np.hstack([outer[:, :2] @ inner[:, :2], outer[:, :2] @ inner[:, 2:] + outer[:, 2:]])


def invert(transform: Similarity) -> Similarity:
    """Return the transform that undoes `transform`."""
    return cv2.invertAffineTransform(transform)


def _warp(frame: Frame, transform: Similarity, mosaic: Frame) -> tuple[Frame, Bool[np.ndarray, "H W"]]:
    """Warp a frame onto the mosaic; also return where it is valid (5x5 eroded: interpolation at its rim takes from outside)."""
    height, width = frame.shape[:2]
    warped = cv2.warpAffine(frame, transform, (width, height), flags=cv2.INTER_LINEAR)
    mask = cv2.warpAffine(np.ones((height, width), np.uint8), transform, (width, height), flags=cv2.INTER_NEAREST)
    valid = cv2.erode(mask, np.ones((5, 5), np.uint8)).astype(bool)
    return np.where(valid[..., None], warped, mosaic), valid


def _centre_square(image: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "S S"]:
    side = min(image.shape)
    top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
    return image[top : top + side, left : left + side]


def _untouched(frame: Frame) -> Frame:
    return frame


# --- Is there anything to stabilise? ---------------------------------------------------------------------------------------

WINDOW = 32
"""Frames compared with one reference frame."""
STRIDE = 4
"""Every this many frames of a window are compared."""
BLOCKS = 10
"""Blocks per side of the frame."""


@dataclass(frozen=True)
class CameraMotion:
    """What `camera_moves` saw."""

    moves: bool
    """True: the footage wants stabilising."""
    windows: int
    """Windows looked at."""
    moving: int
    """Windows in which the whole picture moves as a camera would move it."""
    unexplained: int
    """Windows in which the whole picture moves otherwise: clouds or water, or a camera that walks through a deep scene."""

    def __bool__(self) -> bool:
        return self.moves


def camera_moves(frames: Iterable[Frame]) -> CameraMotion:
    """Tell a moving camera from one that stands still, in about 1 ms for every fourth frame.

    A window moves when in most of its frames (a) hardly any textured block of the picture stayed where it was in the first
    frame, (b) blocks at all four sides of the picture changed, and for most of those frames (c) a similarity that passes the
    stabiliser's gates puts a quarter of the textured blocks back in place. Each excuses still cameras that the others would
    misjudge: (a) traffic at every side, (b) a hand that fills half the picture before a plain wall, (c) clouds and water.
    The camera moves when at least a quarter of the windows do.

    What carries no evidence is left alone: a moving camera whose only texture is the subject, or which sees nothing but
    clouds, is judged still. Changes of brightness don't matter: blocks are compared without anything coarser than about
    8 pixels, at a working size of 160.

    Args:
        frames: one shot, at any size. Decoding with ``resize`` to a short side of 160 loses nothing.
    """
    windows = moving = unexplained = 0
    finder = _Finder()
    stream = iter(frames)
    while window := [_Look.at(frame) for frame in islice(islice(stream, WINDOW), 0, None, STRIDE)]:
        reference, *others = window
        windows += bool(others)
        moved = [look for look in others if _whole_picture_moved(reference.texture, look.texture)]
        if 2 * len(moved) <= len(others):
            continue
        known = finder.find_grey(reference.grey)
        explained = sum(_camera_explains(reference, known, look, finder.find_grey(look.grey)) for look in moved)
        moving += 2 * explained >= len(moved)
        unexplained += 2 * explained < len(moved)
    return CameraMotion(moving > 0 and moving * 4 >= windows, windows, moving, unexplained)


@dataclass(frozen=True)
class _Look:
    """A frame at the working size: grey, and band-passed (fine noise and coarse shading removed)."""

    grey: UInt8[np.ndarray, "h w"]
    texture: Float32[np.ndarray, "h w"]

    @classmethod
    def at(cls, frame: Frame) -> "_Look":
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        scale = 160 / min(grey.shape)
        if scale < 1:
            size = (round(grey.shape[1] * scale), round(grey.shape[0] * scale))
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        exact = grey.astype(np.float32)
        return cls(grey, cv2.GaussianBlur(exact, (0, 0), 1.0) - cv2.GaussianBlur(exact, (0, 0), 8.0))


def _whole_picture_moved(reference: Float32[np.ndarray, "h w"], other: Float32[np.ndarray, "h w"]) -> bool:
    """Judge (a) and (b) of `camera_moves` for one pair of frames."""
    stirred = (_block_means((reference - other) ** 2) > 3.0**2) & ~_unmoved(reference, other, 0.25)
    sides = (stirred[0], stirred[-1], stirred[:, 0], stirred[:, -1])
    return _still_share(reference, other, 0.25) < 0.1 and all(side.any() for side in sides)


def _camera_explains(reference: _Look, known: "_Features", other: _Look, features: "_Features") -> bool:
    """Judge (c) of `camera_moves`: lay a frame on the reference as the stabiliser would, and see what falls into place."""
    transform, failure = _fit(known, features, StabiliseSettings())
    if failure:
        return False
    size = reference.texture.shape[::-1]
    warped = cv2.warpAffine(other.texture, transform, size)
    inside = cv2.warpAffine(np.ones_like(reference.grey), transform, size) > 0
    return _still_share(reference.texture, np.where(inside, warped, reference.texture), 0.5) >= 0.25


def _still_share(reference: Float32[np.ndarray, "h w"], other: Float32[np.ndarray, "h w"], pixels: float) -> float:
    """Return the share of textured blocks that moved by less than so many pixels; 1 where next to nothing is textured."""
    across, down = _gradients(reference)
    xx, yy, xy = _block_means(across * across), _block_means(down * down), _block_means(across * down)
    textured = (xx + yy) / 2 - np.sqrt(((xx - yy) / 2) ** 2 + xy**2) > 2.0**2  # also in the direction that has least
    return float(_unmoved(reference, other, pixels)[textured].mean()) if textured.sum() >= 5 else 1.0


def _unmoved(
    reference: Float32[np.ndarray, "h w"], other: Float32[np.ndarray, "h w"], pixels: float
) -> Bool[np.ndarray, "n n"]:
    """Find blocks that moved by less: one that moves by d changes by about d times its gradient, so the ratio bounds d."""
    across, down = _gradients(reference)
    return _block_means((reference - other) ** 2) < pixels**2 * _block_means(across**2 + down**2) / 2


def _gradients(image: Float32[np.ndarray, "h w"]) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    return cv2.Sobel(image, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=1 / 8)


def _block_means(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "n n"]:
    return cv2.resize(values, (BLOCKS, BLOCKS), interpolation=cv2.INTER_AREA)
