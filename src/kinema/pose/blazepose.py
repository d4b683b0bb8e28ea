"""MediaPipe Pose: BlazePose's 33 landmarks of the most prominent people, each tracked through a film.

With face or hands, MediaPipe Holistic: the same body, and one network per face and hand that looks where the body has them. It
gives 21 points a hand in OpenPose's order, and a mesh of 478 points of the face, of which those of `MESH` stand for OpenPose's
70. It says of a face or hand as a whole whether it is there, so that each of their points has confidence 1 or is missing.

The network sees one person, the most prominent one. For several, further trackers look at the frame with those painted over
whom others found, so that each keeps to one person. MediaPipe's own way (``num_poses`` of its newer graph, with the same
networks) found the smaller of two people in 1 of 100 frames of real footage in which this found them in 91.

Once it has taken raised arms for legs, it follows somebody upside down. Where hips are above shoulders a second network looks
at the frame without knowing those before; if that sees them upright, and more surely, it is right, and the first starts anew.

Licence of the package and of the model in it: Apache-2.0.

References:
    Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", 2020. Zhang et al., "MediaPipe Hands", 2020.
    Kartynnik et al., "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs", 2019 (the mesh).
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from kinema.core.errors import ConfigError
from kinema.pose.detect import Box, Picture, painted_over, require_inside, visible
from kinema.pose.sequence import mark_missing
from kinema.pose.skeleton import BLAZEPOSE_33, HAND_21, Skeleton, trunk, whole

MODELS = ("pose_landmark_lite.tflite", "pose_landmark_full.tflite", "pose_landmark_heavy.tflite")
"""By complexity; the package holds the second."""
MESH = (
    *(127, 234, 93, 132, 172, 136, 149, 176, 152, 400, 378, 365, 397, 361, 323, 454, 356),  # jaw
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),  # brows
    *(6, 197, 5, 4, 98, 97, 2, 326, 327),  # nose
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),  # eyes
    *(61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181),  # lips, outside
    *(78, 81, 13, 311, 308, 402, 14, 178),  # lips, inside
    *(468, 473),  # pupils
)
"""Per point of OpenPose's face, the point of MediaPipe's mesh that is nearest to its place."""
REVISION = 1
"""Of what this module makes of MediaPipe's answers; part of the version."""
SERVER = "https://storage.googleapis.com/mediapipe-assets"


class BlazePose:
    """The ``mediapipe`` detector; see `kinema.pose.detect.open_detector` for the arguments.

    Raises:
        ConfigError: no MediaPipe, or no model of that complexity.
    """

    name = "mediapipe"

    def __init__(
        self,
        still: bool,
        complexity: int,
        view: Box | None,
        least_confidence: float,
        people: int = 1,
        parts: Sequence[str] = (),
    ) -> None:
        self._package = _package()
        self.version = f"{self._package.__version__}+{REVISION}"
        require_model(Path(self._package.__file__).parent, complexity)
        self.skeleton = whole(BLAZEPOSE_33, parts)
        self._options = {"static_image_mode": still, "model_complexity": complexity}
        self._view, self._least, self._most = view, least_confidence, people
        self._found_anybody = False
        self._kept: list[_Tracker] = []
        self._stills: list[_Tracker] = []  # one at most, once it is needed

    def detect(self, frames: Iterable[Picture]) -> Iterator[Float32[np.ndarray, "P J 3"]]:
        """Yield at most as many people per frame as were asked for; see `kinema.pose.detect.PoseDetector`."""
        trackers = self._kept if self._options["static_image_mode"] else []  # those for single frames remember nothing
        try:
            for frame in frames:
                left, top, part = _part(frame, self._view)
                people = self._people_in(part, trackers)
                people[..., :2] += (left, top)
                yield people
        finally:
            if trackers is not self._kept:
                for tracker in (*trackers, *self._stills):
                    tracker.network.close()
                self._stills.clear()

    def _people_in(self, part: Picture, trackers: list["_Tracker"]) -> Float32[np.ndarray, "P J 3"]:
        """Return who is in a picture; trackers are added where they are needed for the first time.

        Those that have somebody go first, so that nobody takes their person from them. Then one that has nobody looks for whom
        they left; where it finds nobody, another would not either.
        """
        people: list[Float32[np.ndarray, "J 3"]] = []
        following, idle = [one for one in trackers if one.somebody], [one for one in trackers if not one.somebody]
        while len(people) < self._most:
            if following:
                tracker, searches = following.pop(0), False
            elif idle or len(trackers) < self._most:
                tracker, searches = (idle.pop(0) if idle else self._opened(trackers, self._options["static_image_mode"])), True
            else:
                break
            points = self._upright(part, tracker, self._find(part, tracker))
            if points is not None:
                people.append(points)
                part = painted_over(part, points) if len(people) < self._most else part
            elif searches:
                break
        return np.array(people, np.float32).reshape(-1, len(self.skeleton), 3)

    def _upright(
        self, part: Picture, tracker: "_Tracker", points: Float32[np.ndarray, "J 3"] | None
    ) -> Float32[np.ndarray, "J 3"] | None:
        """Return whom a tracker finds, or who is there at second sight; it then forgets whom it followed."""
        if points is None or self._options["static_image_mode"] or not is_upside_down(points, self.skeleton):
            return points
        again = self._find(part, self._stills[0] if self._stills else self._opened(self._stills, still=True))
        if again is None or is_upside_down(again, self.skeleton) or self._sureness(again) <= self._sureness(points):
            return points
        with _silence(True):
            tracker.network.reset()
        tracker.fresh = True
        return again

    def _sureness(self, points: Float32[np.ndarray, "J 3"]) -> float:
        return float(points[: len(BLAZEPOSE_33), 2].mean())

    def _opened(self, trackers: list["_Tracker"], still: bool) -> "_Tracker":
        with _silence(True):
            options = self._options | {"static_image_mode": still}
            if self.skeleton.parts:
                kind, options = "Holistic", options | {"refine_face_landmarks": "face" in self.skeleton.parts}
            else:
                kind = "Pose"
            solution = import_module(f"mediapipe.python.solutions.{kind.lower()}")
            trackers.append(_Tracker(getattr(solution, kind)(**options)))
        return trackers[-1]

    def _find(self, part: Picture, tracker: "_Tracker") -> Float32[np.ndarray, "J 3"] | None:
        """Return whom a tracker finds, in pixels of the picture."""
        # What it writes on starting, and on the first person of all, cannot be switched off otherwise.
        with _silence(tracker.fresh or not self._found_anybody):
            found = tracker.network.process(part)
        body = found.pose_landmarks
        tracker.fresh, tracker.somebody = False, body is not None
        if body is None:
            return None
        self._found_anybody = True
        marks = [(mark.x, mark.y, mark.visibility) for mark in body.landmark]
        if "face" in self.skeleton.parts:
            mesh = _places(found.face_landmarks, max(MESH) + 1)
            marks += [mesh[number] for number in MESH]
        if "hands" in self.skeleton.parts:
            marks += _places(found.left_hand_landmarks, len(HAND_21)) + _places(found.right_hand_landmarks, len(HAND_21))
        points = np.array(marks, np.float64)
        height, width = part.shape[:2]
        points[:, :2] = points[:, :2] * (width, height) - 0.5
        points = visible(points, width, height, self._least)
        return own_hands(points, self.skeleton) if "hands" in self.skeleton.parts else points


def is_upside_down(points: Float32[np.ndarray, "J 3"], skeleton: Skeleton) -> bool:
    """Tell whether somebody's hips are above their shoulders."""
    return bool(trunk(points, skeleton)[1] < 0)


STRAY, TWIN = 0.5, 0.1
"""Shares of a hand's length: from how far from its arm's wrist on a hand is on the other arm, if it is twice as near to that
one's; and up to what mean distance of their points two hands are one."""


def own_hands(points: Float32[np.ndarray, "J 3"], skeleton: Skeleton) -> Float32[np.ndarray, "J 3"]:
    """Return the points without hands that are those of the other arm.

    Where one hand lies on the other, MediaPipe's two networks often see the same one, which would then be drawn twice.

    Args:
        points: of one person; missing is confidence 0.
        skeleton: a layout with hands.
    """
    arms = points[[skeleton.index(joint) for joint in ("LWrist", "RWrist")]]
    piece = skeleton.pieces["hands"]
    hands = points[piece].reshape(2, len(HAND_21), 3)
    if (arms[:, 2] == 0).any():
        return points
    shown = hands[..., 2] > 0
    reach = np.where(shown, np.linalg.norm(hands[..., :2] - hands[:, :1, :2], axis=2), 0).max(axis=1)
    own, other = (np.linalg.norm(hands[:, 0, :2] - wrists[:, :2], axis=1) for wrists in (arms, arms[::-1]))
    both = shown.all(axis=0)
    apart = np.linalg.norm(hands[0, both, :2] - hands[1, both, :2], axis=1)
    twin = both[0] and apart.mean() < TWIN * reach.min()
    strays = shown[:, 0] & (((own > STRAY * reach) & (other < own / 2)) | (twin & (own > own[::-1])))
    kept = points.copy()
    kept[piece] = mark_missing(np.where(strays[:, None, None], 0, hands)).reshape(-1, 3)
    return kept


def _places(found: Any, count: int) -> list[tuple[float, float, float]]:
    """Return the points of a face or a hand, relative to the picture; all missing where there is none."""
    return [(mark.x, mark.y, 1.0) for mark in found.landmark] if found else [(0.0, 0.0, 0.0)] * count


@dataclass
class _Tracker:
    """One of MediaPipe's networks.

    Attributes:
        network: the network.
        somebody: whether it found somebody in the last frame, whom it looks for in the next.
        fresh: it has not seen a frame yet.
    """

    network: Any
    somebody: bool = False
    fresh: bool = True


def _package() -> Any:
    if find_spec("mediapipe") is None:
        raise ConfigError("MediaPipe is not installed; pip install 'kinema[pose]', or give --detector FILE.onnx")
    return import_module("mediapipe")


def require_model(package: Path, complexity: int) -> None:
    """Refuse a complexity whose model is not there, which MediaPipe would otherwise fetch from the network unasked.

    Args:
        package: folder of MediaPipe.
        complexity: of the network, 0 to 2.

    Raises:
        ConfigError: saying where to get it.
    """
    if complexity not in range(len(MODELS)):
        raise ConfigError(f"complexity is {complexity}; MediaPipe has 0, 1 and 2")
    model = package / "modules" / "pose_landmark" / MODELS[complexity]
    if not model.is_file():
        raise ConfigError(
            f"MediaPipe's model of complexity {complexity} is not in its package; "
            f"put {SERVER}/{model.name} into {model.parent}, or take complexity 1"
        )


def _part(frame: Picture, view: Box | None) -> tuple[int, int, UInt8[np.ndarray, "h w 3"]]:
    """Cut the view out of a frame; also return the corner at which it begins."""
    if view is None:
        return 0, 0, np.ascontiguousarray(frame)
    require_inside(frame, view)
    height, width = frame.shape[:2]
    left, top = (min(max(0, round(corner)), side - 1) for corner, side in zip(view[:2], (width, height), strict=True))
    right, bottom = max(left + 1, round(view[0] + view[2])), max(top + 1, round(view[1] + view[3]))
    return left, top, np.ascontiguousarray(frame[top:bottom, left:right])


@contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    """Send what C++ writes to the process's standard error nowhere; errors still come as exceptions."""
    if not quiet:
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
