"""Motion capture filmed by a drawn camera: clips with exact poses and the stick figure that they draw.

A sequence is cut into windows, and every window is seen from one or more drawn directions. The camera stands still, as far away
as the whole window needs, with the floor near the lower edge.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from kinema.core.config import Config, from_mapping, to_mapping
from kinema.core.errors import DataError, accepted
from kinema.data.dataset import Clip, ClipRecord
from kinema.data.labels import split_by_group
from kinema.data.plan import Job, Plan, Refusal
from kinema.data.prepare import divide
from kinema.data.sources import Source
from kinema.pose.draw import STYLES, draw_points
from kinema.pose.mocap import SUFFIXES, read_capture
from kinema.pose.skeleton import COCO_18

KIND = "mocap"
WINDOW_SECONDS = 1e-2  # rough cost of a clip, for the size of tasks
PERSON = 1.75  # metres, of somebody who fills --fill of the picture's height
LENS = 0.55  # metres by metres: half a picture's width by the distance, of the pinhole camera
FURTHER = 1.05


@dataclass(frozen=True)
class MocapSettings(Config):
    """What `kinema prepare mocap` makes."""

    frames: int = 32
    """Frames per clip."""
    size: int = 64
    """Height and width in pixels."""
    fps: float = 16.0
    """Frames per second of the clips; rotations are interpolated, so that bones stay rigid."""
    step: int = 16
    """Frames from the beginning of one window to that of the next."""
    views: int = 1
    """Directions from which every window is seen, drawn for each."""
    turn: float = 180.0
    """How far a direction may be from the front of the first pose, in degrees either way; 0 is always the front."""
    camera: Literal["orthographic", "pinhole"] = "orthographic"
    """orthographic: the size in the picture does not change with the distance. pinhole: it does."""
    fill: float = 0.75
    """Share of the picture's height that somebody who stands takes; less where the motion needs more room."""
    style: str = "pose-knows"
    """How the stick figure is drawn."""
    seed: int = 0
    """Another seed draws other directions."""
    split: float = 0.2
    """Share of the sequences, by length, that goes into the test split."""

    def check(self) -> None:
        """Refuse values out of range."""
        for field, least in (("frames", 2), ("size", 16), ("step", 1), ("views", 1), ("seed", 0)):
            self.require(getattr(self, field) >= least, field, f"at least {least}")
        self.require(0 < self.fps <= 240, "fps", "above 0 and at most 240")
        self.require(0 <= self.turn <= 180, "turn", "from 0 to 180")
        self.require(0.1 <= self.fill <= 0.9, "fill", "from 0.1 to 0.9")
        self.require(self.style in STYLES, "style", accepted(self.style, STYLES))
        self.require(0 <= self.split < 1, "split", "at least 0 and below 1")


def action(name: str) -> str:
    """Return what a file's name says that somebody does.

    Of CMU's ``walking_extra_walking_13`` (folder, then file) it is the longest end that is also the beginning, without the
    number; DeepMimic's ``humanoid3d_dance_a`` loses the name of the body and the letter of the take.
    """
    words = re.sub(r"^humanoid3d_|_\d+$|_[a-z]$", "", name).split("_")
    ends = [words[-length:] for length in range(len(words) // 2, 0, -1)]
    return "_".join(next((end for end in ends if words[: len(end)] == end), words))


def plan_mocap(paths: Sequence[Path], settings: MocapSettings) -> Plan:
    """Find the sequences and divide them into tasks.

    Args:
        paths: files, or folders that are searched.
        settings: what to make of them.

    Raises:
        DataError: when there are none, two have one name, or all are one group.
    """
    files, ignored = _find(paths)
    refused: list[Refusal] = []
    sources: list[Source] = []
    for file in files:
        try:
            capture = read_capture(file)
        except DataError as error:
            refused.append(Refusal(file.stem, "unreadable", detail={"error": str(error)}))
            continue
        frames = int(capture.seconds * settings.fps + 1e-6) + 1
        if frames < settings.frames:
            refused.append(
                Refusal(file.stem, "too short", detail={"seconds": round(capture.seconds, 2), "wanted frames": settings.frames})
            )
            continue
        size = file.stat().st_size
        label = action(file.stem)
        sources.append(
            Source(file.stem, str(file.resolve()), "video", size, frames=frames, fps=settings.fps, label=label, group=file.stem)
        )
    if not sources:
        why = "; ".join(f"{one.source}: {one.reason}, {one.detail.get('error', one.detail)}" for one in refused[:3])
        raise DataError(f"no sequence can be used ({why})")
    sources = split_by_group(sources, settings.split)
    windows = [_windows(source, settings) * settings.views for source in sources]
    tasks = divide(
        [WINDOW_SECONDS * count for count in windows], [3.0 * settings.frames * settings.size**2 * count for count in windows]
    )
    return Plan(
        kind=KIND,
        settings=to_mapping(settings),
        frames=settings.frames,
        height=settings.size,
        width=settings.size,
        items=[_item(source) for source in sources],
        tasks=tasks,
        costs=[WINDOW_SECONDS * sum(windows[first:stop]) for first, stop in tasks],
        refused=[{"source": one.source, "reason": one.reason, "detail": one.detail} for one in refused],
        ignored=[path.name for path in ignored],
        labels=sorted({source.label for source in sources if source.label}),
        skeleton=COCO_18.name,
    )


def film_captures(job: Job) -> Iterator[Clip | Refusal]:
    """Film the sequences of one task; see `kinema.data.plan.Maker`."""
    settings = from_mapping(MocapSettings, dict(job.settings))
    for item in job.items:
        capture = read_capture(item["path"])
        windows = (item["frames"] - settings.frames) // settings.step + 1
        for window in range(windows):
            first = window * settings.step
            joints = capture.joints(capture.times[0] + (first + np.arange(settings.frames)) / settings.fps)
            for view in range(settings.views):
                rng = np.random.default_rng([settings.seed, *item["name"].encode(), window, view])
                yield _filmed(item, joints, first, view, settings, rng)


def _filmed(
    item: dict, joints: Float[np.ndarray, "T 18 3"], first: int, view: int, settings: MocapSettings, rng: np.random.Generator
) -> Clip:
    angle = float(rng.uniform(-settings.turn, settings.turn))
    points = shoot(turned(joints, np.radians(angle) - facing(joints[0])), settings)
    pose = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=-1).astype(np.float32)
    video = draw_points(pose, COCO_18, settings.size, settings.size, STYLES[settings.style])
    record = ClipRecord(
        key=f"{item['name']}-{first:06d}-{view}"[-80:],
        source=item["name"],
        first_frame=first,
        fps=settings.fps,
        label=item["label"],
        caption=None,
        group=item["name"],
        split=item["split"],
        extra={"degrees": round(angle, 1), "camera": settings.camera},
    )
    return Clip(record, video, pose)


def facing(joints: Float[np.ndarray, "18 3"]) -> float:
    """Return where the shoulders and hips of a pose face, in radians to its left; 0 is the camera."""
    left = np.sum(
        [joints[COCO_18.index(f"L{name}")] - joints[COCO_18.index(f"R{name}")] for name in ("Shoulder", "Hip")], axis=0
    )
    return float(np.arctan2(left[2], left[0]))  # left of somebody who faces the camera is the picture's right


def turned(joints: Float[np.ndarray, "T 18 3"], angle: float) -> Float[np.ndarray, "T 18 3"]:
    """Return the joints turned to their left about the upright axis through the middle of what they pass."""
    middle = (joints.min(axis=(0, 1)) + joints.max(axis=(0, 1))) / 2 * np.array([1, 0, 1])
    cos, sin = np.cos(angle), np.sin(angle)
    return (joints - middle) @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def shoot(joints: Float[np.ndarray, "T 18 3"], settings: MocapSettings) -> Float[np.ndarray, "T 18 2"]:
    """Return the joints in the picture, in pixels, whole and with the floor near the lower edge.

    Args:
        joints: right, up and away from the camera, in metres, around the upright axis.
        settings: camera, size, and how much of the picture somebody fills.
    """
    across, up, away = joints[..., 0], joints[..., 1] - joints[..., 1].min(), joints[..., 2]
    edge = (1 - settings.fill) / 3 * settings.size  # free below the feet
    room = settings.size - 1 - edge
    scale = settings.fill * settings.size / PERSON
    distance = settings.size / (2 * LENS * scale)
    while True:
        far = np.ones_like(away) if settings.camera == "orthographic" else distance / np.maximum(distance + away, 1e-3)
        middle = PERSON / 2 * (settings.camera == "pinhole")  # height of the camera above the lowest joint
        x = (settings.size - 1) / 2 + scale * far * across
        y = room - scale * (middle + far * (up - middle))
        near = settings.camera == "pinhole" and distance + away.min() < 0.5 * distance
        if not near and min(x.min(), y.min()) >= 0 and max(x.max(), y.max()) <= settings.size - 1:
            return np.stack([x, y], axis=-1)
        scale, distance = scale / FURTHER, distance * FURTHER


def _find(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of motion capture and those that are none; a file that is named must be one."""
    if not paths:
        raise DataError(f"prepare mocap wants files ({', '.join(SUFFIXES)}) or folders of them, and none is named")
    files: list[Path] = []
    ignored: list[Path] = []
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist; give files of motion capture ({', '.join(SUFFIXES)}) or folders of them")
        if path.is_file():
            if path.suffix.lower() not in SUFFIXES:
                raise DataError(f"{path} is no motion capture that kinema reads; give {' or '.join(SUFFIXES)}")
            files.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
        files += [file for file in found if file.suffix.lower() in SUFFIXES]
        ignored += [file for file in found if file.suffix.lower() not in SUFFIXES]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))} holds no motion capture; give {' or '.join(SUFFIXES)} files")
    names = [file.stem for file in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(f"two sequences are called {twice!r}; give them to separate datasets or rename one")
    if wrong := next((name for name in names if not re.fullmatch(r"[A-Za-z0-9_-]+", name)), None):
        raise DataError(f"the sequence {wrong!r} must be called by letters, digits, '_' and '-' alone, for its clips' names")
    return files, ignored


def _windows(source: Source, settings: MocapSettings) -> int:
    return ((source.frames or 0) - settings.frames) // settings.step + 1


def _item(source: Source) -> dict[str, object]:
    names = ("name", "path", "bytes", "frames", "label", "split")
    return {name: getattr(source, name) for name in names}
