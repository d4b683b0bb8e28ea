"""Pose detection: our frames per second beside MediaPipe's own, or how accurate it is; prints one JSON line.

The rate: a film passes through `kinema.data.detection` (decode, find, convert, look for somebody else, write) and, in turns,
through the loop of MediaPipe's documentation (OpenCV decodes, MediaPipe finds); processor's seconds, the median of each.

    python benchmarks/detect_poses.py --frames 240 --rounds 3
    python benchmarks/detect_poses.py --video dancer.mp4
    python benchmarks/detect_poses.py --accuracy /data/05_pose --part lsp_test --images 500

The accuracy: PCK, the share of joints that are found within 0.2 of the torso, from left shoulder to right hip, of where they
are, on pictures from Leeds Sports Poses (Johnson and Everingham, 2010 and 2011). ``joints.json`` holds, per picture, fourteen
x, y, visible. A picture in which nobody is found counts as fourteen wrong joints. The top of the head is left out, for no
detector here gives it; the neck is the middle of the shoulders. Every picture is looked at by itself.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import tyro
from jaxtyping import Float

from kinema.core.errors import DataError
from kinema.data.detection import DetectSettings, Film, detect_part, divide, finish, settled
from kinema.data.encode import write_video
from kinema.data.media import read_image
from kinema.data.performers import PerformersSettings, render_clip
from kinema.data.sources import find_sources, measure
from kinema.pose.detect import collect, open_detector
from kinema.pose.skeleton import COCO_18

LEEDS = (
    *("RAnkle", "RKnee", "RHip", "LHip", "LKnee", "LAnkle", "RWrist", "RElbow", "RShoulder", "LShoulder", "LElbow", "LWrist"),
    *("Neck", "HeadTop"),
)
"""Joints of a picture, in the order of the file."""
SHARE_OF_TORSO = 0.2


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    video: Path | None = None
    """Film for the rate; by default a performer of 256 x 256 pixels."""
    frames: int = 240
    """Frames of that performer."""
    rounds: int = 3
    """Turns of each."""
    accuracy: Path | None = None
    """Folder with joints.json and pictures: measure accuracy instead."""
    part: str = "lsp_test"
    """Pictures whose names begin so."""
    images: int = 500
    """Pictures, evenly chosen."""
    detector: str = "mediapipe"
    """For accuracy: mediapipe or FILE.onnx."""
    confidence: float = 0.0
    """For accuracy: joints of which the detector is less sure count as wrong."""


def rate(options: Arguments) -> dict[str, object]:
    """Measure both pipelines in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        video = options.video or _performer(Path(scratch) / "film.mp4", options.frames)
        _pipeline(video, Path(scratch))  # imports what is imported once
        ours, bare = [], []
        for _ in range(options.rounds):
            ours.append(_processor_seconds(lambda: _pipeline(video, Path(scratch))))
            bare.append(_processor_seconds(lambda: _bare(video)))
        frames = _bare(video)
    mine, theirs = (round(frames / statistics.median(seconds), 2) for seconds in (ours, bare))
    return {"frames": frames, "kinema_fps": mine, "bare_fps": theirs, "ratio": round(mine / theirs, 3)}


def accuracy(options: Arguments, folder: Path) -> dict[str, object]:
    """Measure how many joints are found where they are."""
    names, truth = _pictures(folder, options.part, options.images)
    detector = open_detector(options.detector, still=True, least_confidence=options.confidence)
    found = []
    for name in names:  # pictures may differ in size, frames of a film may not
        people = next(iter(detector.detect([read_image(folder / name)])))[:1]
        found.append(collect([people], detector.skeleton, COCO_18)[0, 0])
    points = np.stack(found)
    nobody = (points[..., 2] == 0).all(axis=1)
    torso = np.linalg.norm(truth[:, LEEDS.index("LShoulder"), :2] - truth[:, LEEDS.index("RHip"), :2], axis=1)
    right: dict[str, list[bool]] = {}
    swapped = same_sides = 0
    for number, joint in enumerate(LEEDS[:-1]):
        ours = points[:, COCO_18.index(joint)]
        near = _near(ours, truth[:, number], torso)
        counted = truth[:, number, 2] > 0
        right[joint] = near[counted].tolist()
        if joint[0] in "RL" and joint != "Neck":
            other = points[:, COCO_18.flip[COCO_18.index(joint)]]
            swapped += int((~near & _near(other, truth[:, number], torso) & counted).sum())
            same_sides += int(counted.sum())
    there = {joint: _share(near, nobody, truth[:, LEEDS.index(joint), 2] > 0) for joint, near in right.items()}
    return {
        "detector": f"{detector.name} {detector.version}",
        "pictures": len(names),
        "nobody_found": int(nobody.sum()),
        "pck": {joint: round(float(np.mean(near)), 3) for joint, near in right.items()},
        "mean_pck": round(statistics.mean(float(np.mean(near)) for near in right.values()), 3),
        "mean_pck_where_somebody_was_found": round(statistics.mean(there.values()), 3),
        "wrong_but_right_for_the_other_side": round(swapped / max(1, same_sides), 3),
    }


def _near(
    points: Float[np.ndarray, "N 3"], truth: Float[np.ndarray, "N 3"], torso: Float[np.ndarray, "N"]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    distance = np.linalg.norm(points[:, :2] - truth[:, :2], axis=1)
    return (points[:, 2] > 0) & (distance <= SHARE_OF_TORSO * torso)


def _share(near: list[bool], nobody: np.ndarray, counted: np.ndarray) -> float:
    """Return the share of right joints among the pictures in which somebody was found."""
    return float(np.mean(np.array(near)[~nobody[counted]]))


def _pictures(folder: Path, part: str, count: int) -> tuple[list[str], Float[np.ndarray, "N 14 3"]]:
    """Return names and joints; the last of x, y, counts is 0 where a joint is not labelled, or its picture has no torso."""
    if not (folder / "joints.json").exists():
        raise DataError(f"{folder} has no joints.json; give the folder with the pictures of Leeds Sports Poses")
    labels: Mapping[str, list[list[float]]] = json.loads((folder / "joints.json").read_text())
    names = sorted(name for name in labels if name.startswith(part))
    if not names:
        raise DataError(f"{folder}/joints.json names no picture that begins with {part!r}")
    joints = np.array([labels[name] for name in names])
    # In the first set invisible joints are labelled, too; in the extended set they lie outside of the picture.
    labelled = (joints[..., :2] >= 0).all(axis=-1) & (joints[..., :2] < 128).all(axis=-1)
    joints[..., 2] = labelled
    whole = labelled[:, [LEEDS.index("LShoulder"), LEEDS.index("RHip")]].all(axis=1)
    chosen = np.flatnonzero(whole)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(count, len(chosen))).round().astype(int)]
    return [names[number] for number in chosen], joints[chosen]


def _performer(path: Path, frames: int) -> Path:
    clip = render_clip(3, PerformersSettings(frames=frames, size=256))
    write_video(path, clip.video, 25)
    return path


def _pipeline(video: Path, scratch: Path) -> None:
    settings = settled(DetectSettings())
    film = Film(measure(find_sources([video]).sources[0], None), scratch / "poses.npz")
    parts = divide(film, settings)
    for part in parts:
        detect_part(part)
    finish(film, settings, parts)


def _bare(video: Path) -> int:
    """Do what the documentation of MediaPipe does; return the number of frames."""
    network = import_module("mediapipe.python.solutions.pose").Pose()
    film, frames = cv2.VideoCapture(str(video)), 0
    while True:
        read, image = film.read()
        if not read:
            break
        network.process(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        frames += 1
    network.close()
    return frames


def _processor_seconds(job: Callable[[], object]) -> float:
    began = time.process_time()
    job()
    return time.process_time() - began


def main() -> None:
    options = tyro.cli(Arguments)
    cv2.setNumThreads(1)
    measured = accuracy(options, options.accuracy) if options.accuracy else rate(options)
    shown = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(replace(options)).items()}
    print(json.dumps(shown | measured))


if __name__ == "__main__":
    main()
