"""Top-down networks in ONNX files, such as RTMPose's, which see the part of the frame in which the person is.

The file's one input is RGB, 1 x 3 x H x W with a fixed H and W, each channel less `MEAN` and divided by `DEVIATION`; larger
batches are not used. Its outputs are either

- ``simcc_x`` and ``simcc_y``, 1 x 17 x (s W) and 1 x 17 x (s H): scores of every place along each axis, s places per pixel; or
- one array of heatmaps, 1 x 17 x h x w.

The box of the first frame is the one that is given, else the whole frame; then it is the one around the joints of the frame
before, as long as enough of them are found.

References:
    Jiang et al., "RTMPose: Real-Time Multi-Person Pose Estimation based on MMPose", 2023; Li et al., "SimCC", ECCV 2022.
    Box padding, normalisation and decoding as in OpenMMLab's `topdown_transforms` and `simcc_label` (Apache-2.0).
"""

import hashlib
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32

from kinema.core.errors import ConfigError
from kinema.pose.detect import Box, Picture, require_inside, visible
from kinema.pose.skeleton import COCO_17

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
"""Of ImageNet's pixels, red, green and blue, 0 to 255."""
PADDING = 1.25  # a box is made larger by this before its part is cut out
FEWEST = 4  # joints that make a person


class TopDown:
    """The ``FILE.onnx`` detector; see `kinema.pose.detect.open_detector` for the arguments.

    Raises:
        ConfigError: no onnxruntime, no such file, or one that holds another kind of network.
    """

    skeleton = COCO_17

    def __init__(self, path: Path, still: bool, view: Box | None, least_confidence: float) -> None:
        self.name, self.version = path.name, _fingerprint(path)
        self._session = _session(path)
        self._input, self.width, self.height = _input(self._session, path)
        self._outputs = _outputs(self._session, path)
        self._still, self._view, self._least = still, view, least_confidence

    def detect(self, frames: Iterable[Picture]) -> Iterator[Float32[np.ndarray, "P 17 3"]]:
        """Yield one person or none per frame; see `kinema.pose.detect.PoseDetector`."""
        box = self._view
        for frame in frames:
            if self._view is not None:
                require_inside(frame, self._view)
            height, width = frame.shape[:2]
            points = visible(self._find(frame, box or (-0.5, -0.5, width, height)), width, height, self._least)
            found = points[points[:, 2] > 0, :2]
            if len(found) < FEWEST:
                box = self._view
                yield np.empty((0, len(COCO_17), 3), np.float32)
                continue
            if not self._still:
                corner, size = found.min(axis=0), np.ptp(found, axis=0)
                box = (*corner.tolist(), *np.maximum(size, 1).tolist())
            yield points[None]

    def _find(self, frame: Picture, box: Box) -> Float[np.ndarray, "17 3"]:
        """Return joints in pixels of the frame, however unsure."""
        left, top, scale = self._window(box)
        # From pixels of the input to pixels of the frame; both count from the centre of the first one.
        place = np.array([[scale, 0, left], [0, scale, top]])
        size = (self.width, self.height)
        part = cv2.warpAffine(frame, place, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        pixels = ((part - MEAN) / DEVIATION).transpose(2, 0, 1)[None]
        outputs = self._session.run(self._outputs, {self._input: np.ascontiguousarray(pixels, np.float32)})
        points = decode_heatmaps(outputs[0][0], size) if len(outputs) == 1 else decode_axes(outputs[0][0], outputs[1][0], size)
        points[:, :2] = points[:, :2] * scale + (left, top)
        return points

    def _window(self, box: Box) -> tuple[float, float, float]:
        """Return the corner of the part of the frame that the network sees, and frame pixels per input pixel."""
        scale = max(box[2] / self.width, box[3] / self.height) * PADDING
        middle = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
        left, top = middle - np.array([self.width - 1, self.height - 1]) / 2 * scale
        return float(left), float(top), scale


def decode_axes(
    along_x: Float32[np.ndarray, "J X"], along_y: Float32[np.ndarray, "J Y"], size: tuple[int, int]
) -> Float[np.ndarray, "J 3"]:
    """Find every joint's place from its scores along each axis; its confidence is the lower of both peaks, at most 1.

    Args:
        along_x: scores of places from left to right.
        along_y: scores of places from top to bottom.
        size: width and height of the input.
    """
    places = np.stack(
        [along_x.argmax(axis=1) * size[0] / along_x.shape[1], along_y.argmax(axis=1) * size[1] / along_y.shape[1]], axis=1
    )
    peaks = np.minimum(along_x.max(axis=1), along_y.max(axis=1))
    return np.column_stack([places, peaks.clip(0, 1)])


def decode_heatmaps(maps: Float32[np.ndarray, "J h w"], size: tuple[int, int]) -> Float[np.ndarray, "J 3"]:
    """Find the peak of every heatmap, moved by a quarter towards its higher neighbour; its confidence is its height, at most 1.

    Args:
        maps: one per joint.
        size: width and height of the input.
    """
    joints, height, width = maps.shape
    peaks = maps.reshape(joints, -1).argmax(axis=1)
    rows, columns = np.divmod(peaks, width)
    number = np.arange(joints)
    across = maps[number, rows, np.minimum(columns + 1, width - 1)] - maps[number, rows, np.maximum(columns - 1, 0)]
    down = maps[number, np.minimum(rows + 1, height - 1), columns] - maps[number, np.maximum(rows - 1, 0), columns]
    across[(columns == 0) | (columns == width - 1)] = 0  # a peak at the rim has one neighbour, which tells nothing
    down[(rows == 0) | (rows == height - 1)] = 0
    places = np.stack([columns + 0.25 * np.sign(across), rows + 0.25 * np.sign(down)], axis=1)
    return np.column_stack([places * (size[0] / width, size[1] / height), maps[number, rows, columns].clip(0, 1)])


def _fingerprint(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"the pose model {path} cannot be read ({error.strerror}); give an ONNX file such as RTMPose's from OpenMMLab's "
            f"model zoo, or --detector mediapipe"
        ) from None


def _session(path: Path) -> Any:
    if find_spec("onnxruntime") is None:
        raise ConfigError(f"{path} needs onnxruntime, which is not installed; pip install 'kinema[pose]'")
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # one process per core
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each of the many things that can be wrong
        raise ConfigError(f"{path} is no network that onnxruntime runs: {' '.join(str(error).split())[:200]}") from None


def _input(session: Any, path: Path) -> tuple[str, int, int]:
    inputs = session.get_inputs()
    shape = inputs[0].shape
    fixed = len(inputs) == 1 and len(shape) == 4 and shape[1] == 3 and all(isinstance(side, int) for side in shape[2:])
    if not fixed:
        raise ConfigError(
            f"{path} takes {', '.join(str(entry.shape) for entry in inputs)}; a pose network must take one picture, "
            f"1 x 3 x height x width of a fixed size"
        )
    return inputs[0].name, shape[3], shape[2]


def _outputs(session: Any, path: Path) -> list[str]:
    shapes = {entry.name: entry.shape for entry in session.get_outputs()}
    kinds = (["simcc_x", "simcc_y"], 3), ([*shapes][:1], 4)
    for names, dimensions in kinds:
        if all(name in shapes and len(shapes[name]) == dimensions and shapes[name][1] == len(COCO_17) for name in names):
            return names
    raise ConfigError(
        f"{path} gives {', '.join(f'{name} {shape}' for name, shape in shapes.items())}; a pose network must give simcc_x and "
        f"simcc_y of 1 x 17 x places, or heatmaps of 1 x 17 x height x width"
    )
