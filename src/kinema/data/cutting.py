"""From one source to clips: shot boundaries, stabilising, frame rate, windows, size, refusals, scene filter.

The frames of a source pass through as a stream, so that memory holds one window, however long the footage is. Every frame ends
in a clip or in a refusal.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from kinema.core.config import Config, from_mapping
from kinema.core.errors import MediaError
from kinema.data.dataset import Clip, ClipRecord
from kinema.data.media import Frame, Resize, TruncatedError, contain, cover, resample
from kinema.data.plan import Job, Refusal, motion
from kinema.data.scene import VIEW, SceneFilter, open_scene_filter
from kinema.data.sources import STILL_FPS, Source, open_source

PIXEL_IS_BLACK = 32  # grey level below which a pixel counts as black, as FFmpeg's blackdetect (0.10 of full scale)


@dataclass(frozen=True)
class PrepareSettings(Config):
    """How footage becomes clips; everything here decides what comes out."""

    frames: int = 32
    """Frames per clip."""
    stride: int | None = None
    """Frames from the start of a clip to the start of the next; by default as many as a clip has, so that none is in two."""
    size: str = "64"
    """Size of the clips in pixels: one number for squares, or WIDTHxHEIGHT."""
    fit: Literal["crop", "letterbox"] = "crop"
    """crop: fill the picture and cut off what is beyond it. letterbox: keep all and fill up with black."""
    fps: float | None = None
    """Frames per second of the clips; by default as the footage. Folders of frames and strips have 25 unless told here."""
    strip: str | None = None
    """Images are strips of frames of this size, WIDTHxHEIGHT, side by side or stacked; one file is one piece of footage."""
    labels: str | None = None
    """Classes: folder (the one a file is in), parent2 (the folder above), name (of the file), prefix (its name up to '_'), or a
    table (.csv with columns such as source,label,caption,group; .jsonl; .txt with lines 'path label')."""
    captions: str | None = None
    """Table with a caption column; by default the table of labels, if it has one."""
    group: str | None = None
    """Who or where it is, so that no group is in both splits: folder, parent2, name, prefix, source, or a table with a column
    group."""
    split: float = 0.0
    """Share of the footage that goes into the test split, by whole groups (by whole sources where there are none)."""
    stabilise: Literal["auto", "on", "off"] = "auto"
    """Register every frame to the first of its clip. auto: only footage whose camera moves."""
    cut: float = 10.0
    """A new shot begins where FFmpeg's scene score, 0 to 100, reaches this; 0 finds no shots."""
    black: float = 0.98
    """Refuse clips in which every frame has at least this share of black pixels."""
    frozen: float = 0.001
    """Refuse clips in which no two neighbouring frames differ by more than this share of full scale on average."""
    min_motion: float = 0.0
    """Refuse clips whose neighbouring frames differ by less than this many grey levels on average."""
    duplicates: float = 8.0
    """Refuse a clip that nowhere differs from an earlier one by more than this many grey levels, in a picture of 16 x 16 cells;
    negative keeps duplicates."""
    scene: tuple[str, ...] = ()
    """Keep clips that show one of these classes, each NAME or NAME=PROBABILITY."""
    scene_model: str = "imagenet"
    """What recognises the classes: imagenet (a packaged network with the 1000 class names of ILSVRC-2012), a TorchScript file
    (RGB in [0, 1], N 3 224 224, to logits or probabilities), or MODULE:CALLABLE (uint8 N H W 3 to a mapping of names to
    probabilities)."""
    scene_names: str | None = None
    """Text file with the class names of a TorchScript file, one per line."""
    scene_threshold: float = 0.3
    """Least mean probability over the clip's frames, for classes that name none."""
    scene_frames: int = 4
    """Evenly spaced frames per clip that are recognised."""
    strict: bool = False
    """Stop at the first file that cannot be read, instead of listing it."""

    @property
    def step(self) -> int:
        """Frames from clip to clip."""
        return self.frames if self.stride is None else self.stride

    @property
    def shape(self) -> tuple[int, int]:
        """Width and height of a clip."""
        return _pair(self.size)

    @property
    def strip_shape(self) -> tuple[int, int] | None:
        """Width and height of a frame of a strip."""
        return None if self.strip is None else _pair(self.strip)

    def check(self) -> None:
        """Refuse values out of range."""
        size = re.compile(r"[1-9][0-9]{0,4}(x[1-9][0-9]{0,4})?")
        self.require(self.frames >= 1, "frames", "at least 1")
        self.require(self.stride is None or self.stride >= 1, "stride", "at least 1")
        self.require(bool(size.fullmatch(self.size)), "size", "a number of pixels such as 64, or WIDTHxHEIGHT such as 96x64")
        self.require(
            self.strip is None or bool(size.fullmatch(self.strip)), "strip", "WIDTHxHEIGHT of one frame, such as 64x64"
        )
        self.require(self.fps is None or 0 < self.fps <= 1000, "fps", "above 0 and at most 1000")
        self.require(0 <= self.split < 1, "split", "at least 0 and below 1")
        self.require(0 <= self.cut <= 100, "cut", "from 0 to 100")
        self.require(0 < self.black <= 1, "black", "above 0 and at most 1")
        self.require(0 <= self.frozen <= 1, "frozen", "from 0 to 1")
        self.require(0 <= self.min_motion <= 255, "min_motion", "from 0 to 255")
        self.require(self.scene_frames >= 1, "scene_frames", "at least 1")
        self.require(0 <= self.scene_threshold <= 1, "scene_threshold", "from 0 to 1")


@dataclass
class Window:
    """Frames that become a clip unless they are refused."""

    first: int
    """Index of the first frame in the source, at the rate of the clips."""
    video: UInt8[np.ndarray, "T H W 3"]
    """Pixels, in the size of the clips."""
    views: list[UInt8[np.ndarray, "V V 3"]] = field(default_factory=list)
    """Larger pictures for the scene filter."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What was measured."""


def cut_footage(job: Job) -> Iterator[Clip | Refusal]:
    """Cut the clips of one task; see `Maker`."""
    settings = from_mapping(PrepareSettings, job.settings)
    scenes = scene_filter(settings)
    for number, item in enumerate(job.items, job.first):
        yield from cut_source(Source(**item), number, settings, scenes)


def scene_filter(settings: PrepareSettings) -> SceneFilter | None:
    """Open the scene filter that the settings ask for, if they do."""
    if not settings.scene:
        return None
    return open_scene_filter(settings.scene_model, settings.scene, settings.scene_threshold, settings.scene_names)


def cut_source(
    source: Source, number: int, settings: PrepareSettings, scenes: SceneFilter | None = None
) -> Iterator[Clip | Refusal]:
    """Cut one source into clips and refusals, which together hold each of its frames.

    Args:
        source: the footage.
        number: of the source, for the keys of its clips.
        settings: how to cut.
        scenes: decides by what is to be seen.

    Raises:
        MediaError: with `strict`, when it cannot be read to the end.
    """
    reading = Reading(source, settings)
    for result in _stretches(reading, source, settings):
        if isinstance(result, Window):
            refusal = _judge(result, source, settings, scenes)
            yield refusal or Clip(_record(result, source, number, reading.rate), result.video)
        else:
            yield result
    if reading.damage is not None:
        if settings.strict:
            raise reading.damage
        yield unreadable(source, reading.damage, reading.frames)
    elif reading.frames == 0:
        yield Refusal(source.name, "empty", detail={"error": f"{source.path} holds no frames"})


class Reading:
    """The frames of a source, up to its end or to where it is damaged.

    Attributes:
        damage: what ended it early.
        frames: that were read.
        rate: frames per second of the clips, known after the first frame.
    """

    def __init__(self, source: Source, settings: PrepareSettings) -> None:
        self.source = source
        self.settings = settings
        self.damage: MediaError | None = None
        self.frames = 0
        self.rate = settings.fps or STILL_FPS
        scale = cover if settings.fit == "crop" else contain
        self.resize = None if settings.scene or settings.stabilise != "off" else scale(*settings.shape)

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in open_source(self.source, strip=self.settings.strip_shape, fps=self.settings.fps, resize=self.resize):
                if self.frames == 0 and self.settings.fps is None and frame.interval:
                    self.rate = 1 / frame.interval
                self.frames += 1
                yield frame
        except MediaError as error:
            self.damage = error


def _stretches(reading: Reading, source: Source, settings: PrepareSettings) -> Iterator[Window | Refusal]:
    """Cut a source at its shot boundaries, and every shot into windows."""
    for _, shot in groupby(reading, lambda frame: 0):
        yield from _windows(shot, reading.rate, source, settings)


def _windows(frames: Iterator[Frame], rate: float, source: Source, settings: PrepareSettings) -> Iterator[Window | Refusal]:
    """Cut a steady stretch of footage into windows; what is left over at the end is refused.

    Args:
        frames: of one shot.
        rate: of the clips, frames per second.
        source: that they come from.
        settings: number of frames, stride and rate.
    """
    start = next(frames)
    offset = round(start.time * rate)
    pending: list[UInt8[np.ndarray, "_ _ 3"]] = []
    taken = used = 0  # frames of the stretch so far, and up to the end of the last window
    for image in resample(chain([start], frames), settings.fps):
        taken += 1
        if used and taken <= used + settings.step - settings.frames:
            continue  # between two windows whose stride is longer than they are
        pending.append(image)
        if len(pending) == settings.frames:
            used = taken
            yield _window(offset + taken - settings.frames, pending, settings)
            del pending[: settings.step]
    left = min(len(pending), taken - used)
    if left:
        detail = {"frames": left, "needed": settings.frames}
        yield Refusal(source.name, "rest" if used else "short", offset + taken - left, offset + taken - 1, detail)


def _window(first: int, images: Sequence[UInt8[np.ndarray, "_ _ 3"]], settings: PrepareSettings) -> Window:
    width, height = settings.shape
    video = np.zeros((len(images), height, width, 3), np.uint8)
    for picture, image in zip(video, images, strict=True):
        _place(image, picture, settings.fit)
    window = Window(first, video)
    if settings.scene:
        chosen = np.linspace(0, len(images) - 1, settings.scene_frames).round().astype(int)
        window.views = [_fitted(images[t], VIEW, VIEW) for t in chosen]
    return window


def _place(image: UInt8[np.ndarray, "h w 3"], picture: UInt8[np.ndarray, "H W 3"], fit: str) -> None:
    """Scale an image, unless it already is as large as it should be, and put it into the middle of a black picture."""
    height, width = picture.shape[:2]
    image = _scaled(image, (cover if fit == "crop" else contain)(width, height))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    inside = image[max(0, top) : max(0, top) + height, max(0, left) : max(0, left) + width]
    picture[max(0, -top) :, max(0, -left) :][: inside.shape[0], : inside.shape[1]] = inside


def _fitted(image: UInt8[np.ndarray, "h w 3"], width: int, height: int) -> UInt8[np.ndarray, "H W 3"]:
    picture = np.zeros((height, width, 3), np.uint8)
    _place(image, picture, "crop")
    return picture


def _scaled(image: UInt8[np.ndarray, "h w 3"], resize: Resize) -> UInt8[np.ndarray, "H W 3"]:
    size = resize(image.shape[1], image.shape[0])
    if size == (image.shape[1], image.shape[0]):
        return image
    smaller = size[0] < image.shape[1]
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)


def _judge(window: Window, source: Source, settings: PrepareSettings, scenes: SceneFilter | None) -> Refusal | None:
    """Measure a window and refuse it where it is black, frozen, too still or of another scene."""
    last = window.first + len(window.video) - 1
    moved = motion(window.video)
    window.extra["motion"] = moved

    def refuse(reason: str, **detail: Any) -> Refusal:
        return Refusal(source.name, reason, window.first, last, detail, window.video)

    return None


def _record(window: Window, source: Source, number: int, rate: float) -> ClipRecord:
    word = re.sub(r"[^A-Za-z0-9]+", "-", source.name.rpartition(".")[0] or source.name).strip("-")[-40:]
    return ClipRecord(
        key=f"{number:06d}_{word}_{window.first:07d}",
        source=source.name,
        first_frame=window.first,
        fps=rate,
        label=source.label,
        caption=source.caption,
        group=source.group,
        split=source.split,
        extra=window.extra,
    )


def unreadable(source: Source, damage: MediaError, frames: int = 0) -> Refusal:
    """Refuse a source that cannot be read, or not to its end."""
    detail = {"error": str(damage), "frames": frames}
    return Refusal(source.name, "truncated" if isinstance(damage, TruncatedError) or frames else "unreadable", detail=detail)


def _pair(size: str) -> tuple[int, int]:
    """Read a width and a height from ``64`` or ``96x64``."""
    width, _, height = size.partition("x")
    return int(width), int(height or width)
