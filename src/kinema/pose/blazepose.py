"""MediaPipe Pose: BlazePose's 33 landmarks of the one most prominent person, tracked through a film.

Licence of the package and of the model in it: Apache-2.0.

References:
    Bazarevsky et al., "BlazePose: On-device Real-time Body Pose Tracking", 2020.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from kinema.core.errors import ConfigError
from kinema.pose.detect import Box, Picture, visible
from kinema.pose.skeleton import BLAZEPOSE_33

MODELS = ("pose_landmark_lite.tflite", "pose_landmark_full.tflite", "pose_landmark_heavy.tflite")
"""By complexity; the package holds the second."""
SERVER = "https://storage.googleapis.com/mediapipe-assets"


class BlazePose:
    """The ``mediapipe`` detector; see `kinema.pose.detect.open_detector` for the arguments.

    Raises:
        ConfigError: no MediaPipe, or no model of that complexity.
    """

    name = "mediapipe"
    skeleton = BLAZEPOSE_33

    def __init__(self, still: bool, complexity: int, view: Box | None, least_confidence: float) -> None:
        self._package = _package()
        self.version = self._package.__version__
        require_model(Path(self._package.__file__).parent, complexity)
        self._options = {"static_image_mode": still, "model_complexity": complexity}
        self._view, self._least = view, least_confidence
        self._found_anybody, self._kept = False, None

    def detect(self, frames: Iterable[Picture]) -> Iterator[Float32[np.ndarray, "P 33 3"]]:
        """Yield one person or none per frame; see `kinema.pose.detect.PoseDetector`."""
        network = self._kept
        try:
            for frame in frames:
                left, top, part = _part(frame, self._view)
                # What it writes on starting, and on the first person of all, cannot be switched off otherwise.
                with _silence(network is None or not self._found_anybody):
                    network = network or self._open()
                    found = network.process(part).pose_landmarks
                if found is None:
                    yield np.empty((0, len(BLAZEPOSE_33), 3), np.float32)
                    continue
                self._found_anybody = True
                marks = np.array([(mark.x, mark.y, mark.visibility) for mark in found.landmark], np.float64)
                height, width = part.shape[:2]
                marks[:, :2] = marks[:, :2] * (width, height) - 0.5
                points = visible(marks, width, height, self._least)
                points[:, :2] += (left, top)
                yield points[None]
        finally:
            if network is not None and network is not self._kept:
                network.close()

    def _open(self) -> Any:
        """Open the network; one for single frames remembers nothing, so that it serves all of them."""
        network = import_module("mediapipe.python.solutions.pose").Pose(**self._options)
        if self._options["static_image_mode"]:
            self._kept = network
        return network


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
