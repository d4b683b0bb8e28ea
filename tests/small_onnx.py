"""A pose network as an ONNX file, written byte by byte: it finds seventeen dots by their colours.

The package onnx is not needed for that: a file is nested fields of protocol buffers (onnx.proto), and two of their four kinds.
"""

import struct
from pathlib import Path

import numpy as np

MEAN, DEVIATION = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
STRENGTH = 1.8


def directions() -> np.ndarray:
    """Seventeen directions of unit length, well apart and all away from black, which is what lies outside of a frame."""
    number = np.arange(17) + 0.5
    polar, azimuth = np.arccos(1 - number / 17), np.pi * (1 + 5**0.5) * number
    half = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], axis=1)
    axes = np.array([[1, -1, 0], [1, 1, -2], [1, 1, 1]])
    return half @ (axes / np.linalg.norm(axes, axis=1, keepdims=True))


def colours() -> np.ndarray:
    """The colour to which joint j answers most."""
    return (MEAN + STRENGTH * directions() * DEVIATION).round().astype(np.uint8)


def picture(points: np.ndarray, width: int, height: int, radius: float = 5) -> np.ndarray:
    """Draw a soft dot of its colour for every joint, on the mean of all pixels."""
    image = np.tile(MEAN, (height, width, 1))
    rows, columns = np.mgrid[:height, :width]
    for (x, y), colour in zip(points, colours(), strict=True):
        opacity = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (radius / 2) ** 2))[..., None]
        image += opacity * (colour - MEAN)
    return image.clip(0, 255).round().astype(np.uint8)


def write_network(path: Path, *, width: int = 96, height: int = 128, axes: bool = True, joints: int = 17) -> Path:
    """Write a network with SimCC outputs of one place per pixel, or with heatmaps of half the size."""
    kernel, stride = (5, 1) if axes else (2, 2)
    weights = np.repeat(directions()[:joints] / STRENGTH * 1.4, kernel * kernel).reshape(joints, 3, kernel, kernel) / kernel**2
    padding = kernel // 2 if axes else 0
    conv = _node("Conv", ["input", "weights"], "maps", kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[padding] * 4)
    nodes, outputs = [conv], [("maps", [1, joints, height // stride, width // stride])]
    if axes:
        nodes += [
            _node("ReduceMax", ["maps"], "simcc_x", axes=[2], keepdims=0),
            _node("ReduceMax", ["maps"], "simcc_y", axes=[3], keepdims=0),
        ]
        outputs = [("simcc_x", [1, joints, width]), ("simcc_y", [1, joints, height])]
    tensor = b"".join(_number(1, side) for side in weights.shape) + _number(2, 1) + _bytes(8, b"weights")
    tensor += _bytes(9, weights.astype("<f4").tobytes())
    graph = b"".join(_bytes(1, node) for node in nodes) + _bytes(2, b"dots") + _bytes(5, tensor)
    graph += _bytes(11, _value("input", [1, 3, height, width])) + b"".join(_bytes(12, _value(*output)) for output in outputs)
    path.write_bytes(_number(1, 8) + _bytes(7, graph) + _bytes(8, _number(2, 13)))
    return path


def _node(kind: str, inputs: list[str], output: str, **attributes: list[int] | int) -> bytes:
    node = b"".join(_bytes(1, name.encode()) for name in inputs) + _bytes(2, output.encode()) + _bytes(4, kind.encode())
    for name, value in attributes.items():
        if isinstance(value, int):
            body = _number(3, value) + _number(20, 2)
        else:
            body = b"".join(_number(8, entry) for entry in value) + _number(20, 7)
        node += _bytes(5, _bytes(1, name.encode()) + body)
    return node


def _value(name: str, shape: list[int]) -> bytes:
    sides = b"".join(_bytes(1, _number(1, side)) for side in shape)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, sides)))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + struct.pack("B", value & 127 | 128), value >> 7
    return out + struct.pack("B", value)
