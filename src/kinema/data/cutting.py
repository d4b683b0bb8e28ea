"""From one source to clips: shot boundaries, stabilising, frame rate, windows, size, refusals, scene filter.

The frames of a source pass through as a stream, so that memory holds one window, however long the footage is. Every frame ends
in a clip or in a refusal.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from itertools import chain, count, groupby, islice
from operator import itemgetter
from typing import Any, Literal

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from kinema.core.config import Config, from_mapping
from kinema.core.errors import MediaError
from kinema.data.dataset import Clip, ClipRecord
from kinema.data.looks import Look
from kinema.data.media import Frame, Resize, cover, displayed, scaled_to
from kinema.data.plan import Job, Made, Refusal, motion
from kinema.data.posed import Pose, Poser, in_clip, moved, open_poser, placed, share_with_person, shares_with_parts
from kinema.data.scene import VIEW, SceneFilter, open_scene_filter
from kinema.data.shots import LOOK_SIZE, number_shots
from kinema.data.smoothed import SmoothedPoses
from kinema.data.sources import STILL_FPS, Source, open_source
from kinema.data.stabilise import Segment, camera_moves, stabilise

BLACK_LEVEL = 32  # brightest grey level of a black pixel, about that of FFmpeg's blackdetect


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
    """Who or where it is, so that no group is in both splits: folder, parent2, name, prefix, take (its name up to the last
    '_', for UCF101's groups), source, or a table with a column group."""
    split: float = 0.0
    """Share of the footage that goes into the test split."""
    split_by: Literal["group", "time"] = "group"
    """group: whole groups (whole sources where there are none). time: the end of every source, for footage of one camera."""
    split_files: tuple[str, ...] = ()
    """Published lists to split by instead, such as UCF101's trainlist01.txt testlist01.txt classInd.txt: lines 'path' or
    'path number'. What they do not name is refused."""
    stabilise: Literal["auto", "on", "off"] = "auto"
    """Register every frame to the first of its clip. auto: only footage whose camera moves."""
    cut: float = 10.0
    """A new shot begins where FFmpeg's scene score, 0 to 100, reaches this; 0 looks for none."""
    black: float = 0.98
    """Refuse clips in which every frame has at least this share of black pixels."""
    frozen: float = 1.0
    """Refuse clips in which no part of the picture, of 16 x 16, ever differs from the first frame by more grey levels."""
    min_motion: float = 0.0
    """Refuse clips whose neighbouring frames differ by less than this many grey levels on average."""
    duplicates: float = 8.0
    """Refuse a clip that nowhere differs from an earlier one by more than this many grey levels, in a picture of 16 x 16 cells,
    nor by more than half of what changes within it; 0 refuses exact copies only, a negative number nothing."""
    scene: tuple[str, ...] = ()
    """Keep clips that show one of these classes, each NAME or NAME=PROBABILITY."""
    scene_model: str = "imagenet"
    """What recognises the classes: imagenet (a packaged network with the 1000 class names of ILSVRC-2012), a .pt2 or
    TorchScript file (RGB in [0, 1], N 3 224 224, to logits or probabilities), or MODULE:CALLABLE (uint8 N H W 3 to a mapping
    of names to probabilities)."""
    scene_names: str | None = None
    """Text file with the class names of such a file, one per line; otherwise they are numbers."""
    scene_threshold: float = 0.3
    """Least mean probability over the clip's frames, for classes that name none."""
    scene_frames: int = 4
    """Evenly spaced frames per clip that are recognised."""
    pose: str | None = None
    """Store the joints of one person beside the pixels. mediapipe, or the ONNX file of a top-down network such as RTMPose,
    finds them in the frames as they are, before these are cropped and scaled. A folder or .npz that kinema pose detect made of
    the same sources, or a folder with a folder of OpenPose's files per source, holds them already."""
    person: str | None = None
    """Whose joints. Of poses that were found before: largest (default), the number of a person, or X,Y, a pixel of the first
    frame with anybody. With a detector, which follows one person: LEFT,TOP,WIDTH,HEIGHT, where they are."""
    pose_skeleton: str = "coco-18"
    """Layout of the joints: coco-18, coco-17, body-25, edn-23, blazepose-33 or penn-13, each also with +face, +hands or
    +face+hands behind it, such as coco-18+face+hands, which mediapipe finds."""
    pose_version: str | None = None
    """Refuse another version of MediaPipe than this, or an ONNX file with another SHA-256; filled in by itself."""
    pose_smooth: float = 0.0
    """Seconds over which joints are smoothed (a local polynomial), once points that jump away and come back are dropped and
    gaps as long are filled; 0: as found. 0.3 suits forecasting from a detector's joints, which tremble."""
    min_pose: float = 0.5
    """Refuse clips in which a person (two of shoulders and hips) is found in a smaller share of the frames."""
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
        self.require(not self.split_files or self.split == 0, "split", "0 where --split-files says what is held out")
        self.require(self.split_by == "group" or self.split > 0, "split_by", "group where --split holds nothing out")
        defaults = {field.name: field.default for field in fields(self)}
        for name in () if self.scene else ("scene_model", "scene_names", "scene_threshold", "scene_frames"):
            self.require(getattr(self, name) == defaults[name], name, "left out where --scene asks for no class")
        self.require(0 <= self.cut <= 100, "cut", "from 0 to 100")
        self.require(0 < self.black <= 1, "black", "above 0 and at most 1")
        self.require(-1 <= self.frozen <= 255, "frozen", "from 0 to 255, or -1 to keep frozen clips")
        self.require(0 <= self.min_motion <= 255, "min_motion", "from 0 to 255")
        self.require(self.scene_frames >= 1, "scene_frames", "at least 1")
        self.require(0 <= self.scene_threshold <= 1, "scene_threshold", "from 0 to 1")
        self.require(0 <= self.min_pose <= 1, "min_pose", "from 0 to 1")
        self.require(self.person is None or self.pose is not None, "person", "left out without --pose")
        self.require(0 <= self.pose_smooth <= 5, "pose_smooth", "from 0 to 5 seconds")
        self.require(self.pose_smooth == 0 or self.pose is not None, "pose_smooth", "left out without --pose")


@dataclass
class Window:
    """Frames that become a clip unless they are refused.

    Attributes:
        first: index of the first frame in the source, at the rate of the clips.
        video: pixels, in the size of the clips.
        views: larger pictures for the scene filter.
        pose: joints per frame, in pixels of the clip; 0, 0, 0 where one is missing.
        extra: what was measured.
    """

    first: int
    video: UInt8[np.ndarray, "T H W 3"]
    views: UInt8[np.ndarray, "N V V 3"] | None
    pose: Float32[np.ndarray, "T J 3"] | None = None
    extra: dict[str, Any] = field(default_factory=dict)


def cut_footage(job: Job) -> Iterator[Made]:
    """Cut the clips of one task; see `kinema.data.plan.Maker`."""
    settings = from_mapping(PrepareSettings, job.settings)
    scenes, poser = scene_filter(settings), kept_poser(settings)
    for number, item in enumerate(job.items, job.first):
        yield from Cutter(Source(**item), number, settings, scenes, poser).cut()


def scene_filter(settings: PrepareSettings) -> SceneFilter | None:
    """Open the scene filter that the settings ask for, if they do."""
    if not settings.scene:
        return None
    return open_scene_filter(settings.scene_model, settings.scene, settings.scene_threshold, settings.scene_names)


def poser_of(settings: PrepareSettings) -> Poser | None:
    """Open what knows the joints, if the settings ask for any."""
    if settings.pose is None:
        return None
    poser = open_poser(settings.pose, settings.pose_skeleton, settings.pose_version, settings.person)
    return SmoothedPoses(poser, settings.pose_smooth, settings.fps) if settings.pose_smooth else poser


kept_poser = lru_cache(maxsize=1)(poser_of)
"""For workers, which open a detector once and not once per task."""


def unreadable(source: Source, damage: MediaError, frames: int = 0) -> Refusal:
    """Refuse a source that cannot be read, or not to its end."""
    detail = {"error": str(damage), "frames": frames}
    return Refusal(source.name, "truncated" if frames or source.start else "unreadable", detail=detail)


class Cutter:
    """Cuts one source into clips and refusals, which together hold each of its frames.

    Args:
        source: the footage.
        number: of the source, for the keys of its clips.
        settings: how to cut.
        scenes: decides by what is to be seen.
        poser: knows the joints of the person.
    """

    def __init__(
        self,
        source: Source,
        number: int,
        settings: PrepareSettings,
        scenes: SceneFilter | None = None,
        poser: Poser | None = None,
    ) -> None:
        self.source, self.number, self.settings, self.scenes, self.poser = source, number, settings, scenes, poser
        self.rate = settings.fps or STILL_FPS
        self.frames_read = 0
        self.damage: MediaError | None = None
        self.first_frames: Counter[int] = Counter()  # of its clips
        self.looks: list[Look] = []  # for other people

    def cut(self) -> Iterator[Made]:
        """Yield clips and refusals in the order of the footage, then the looks for other people.

        Raises:
            MediaError: with `strict`, when the source cannot be read to its end.
        """
        for shot, steady in self._shots():
            for result in self._windows(shot, steady):
                yield result if isinstance(result, Refusal) else self._judged(result)
        if self.damage is not None:
            if self.settings.strict:
                raise self.damage
            yield unreadable(self.source, self.damage, self.frames_read)
        elif self.frames_read == 0 and self.source.start == 0:
            yield Refusal(self.source.name, "empty", detail={"error": f"{self.source.path} holds no frames"})
        yield from self.looks

    def _shots(self) -> Iterator[tuple[Iterator[Frame], bool]]:
        """Yield every shot, and whether it is to be stabilised."""
        mode = self.settings.stabilise
        if mode != "auto":
            full_size = mode == "on" or self._wants_full_size
            numbered = number_shots(self._read(None if full_size else self._resize), self.settings.cut)
            for _, shot in groupby(numbered, key=itemgetter(0)):
                yield (frame for _, frame in shot), mode == "on"
            return
        looked = self._look_ahead()
        any_moves = any(moves for _, moves in looked)
        frames = self._read(None if any_moves or self._wants_full_size else self._resize)
        for length, moves in looked:
            yield islice(frames, length), moves

    def _look_ahead(self) -> list[tuple[int, bool]]:
        """Return the number of frames of every shot and whether the camera moves in it.

        That is seen only over a whole shot, so that this is a second decoding, of small pictures.
        """
        looked = []
        for _, shot in groupby(number_shots(self._read(cover(LOOK_SIZE, LOOK_SIZE)), self.settings.cut), key=itemgetter(0)):
            length = count()
            moves = camera_moves(frame.image for (_, frame), _ in zip(shot, length, strict=False))
            looked.append((next(length), bool(moves)))
        return looked

    def _read(self, resize: Resize | None) -> Iterator[Frame]:
        """Read the frames up to the end or to where the source is damaged."""
        self.frames_read = 0
        try:
            for frame in open_source(self.source, strip=self.settings.strip_shape, fps=self.settings.fps, resize=resize):
                if self.frames_read == 0 and self.settings.fps is None and frame.interval:
                    self.rate = 1 / frame.interval
                self.frames_read += 1
                yield frame
        except MediaError as error:
            self.damage = error

    @property
    def _wants_full_size(self) -> bool:
        return self.scenes is not None or self.poser is not None

    @property
    def _resize(self) -> Resize:
        return scaled_to(self.settings.fit, *self.settings.shape)

    def _windows(self, frames: Iterator[Frame], steady: bool) -> Iterator[Window | Refusal]:
        """Cut one shot into windows; what is left over at its end is refused.

        Args:
            frames: of the shot.
            steady: stabilise every window.
        """
        settings = self.settings
        start = next(frames)
        offset = round(start.time * self.rate)
        pending: list[_Posed] = []
        taken = used = skip = 0  # frames of the shot so far; up to the end of what is in a clip or refused; to pass over
        unsteady: Segment | None = None  # the first of the segments since the last clip that were too short to be one
        begun, cut_any = 0, False
        for posed in self._posed(displayed(chain([start], frames), settings.fps)):
            taken += 1
            if skip:
                skip -= 1
                used = taken
                continue
            pending.append(posed)
            if len(pending) < settings.frames:
                continue
            segment = next(stabilise(image for image, _ in pending)) if steady else None
            if segment is not None and segment.rejection is not None:
                # The next clip begins at the frame that failed, so that no frame is lost that could still be used.
                unsteady, begun = (segment, used) if unsteady is None else (unsteady, begun)
                used = max(used, taken - len(pending) + len(segment.frames))
                del pending[: len(segment.frames)]
                continue
            if unsteady is not None:
                yield self._unsteady(offset + begun, offset + taken - settings.frames - 1, unsteady)
                unsteady = None
            cut_any, used = True, taken
            yield self._window(offset + taken - settings.frames, pending if segment is None else _steadied(segment, pending))
            del pending[: settings.step]
            skip = max(0, settings.step - settings.frames)
        if unsteady is not None:
            yield self._unsteady(offset + begun, offset + used - 1, unsteady)
        if taken > used:
            detail = {"frames": taken - used, "needed": settings.frames}
            yield Refusal(self.source.name, "rest" if cut_any else "short", offset + used, offset + taken - 1, detail)

    def _posed(self, frames: Iterator[Frame]) -> Iterator["_Posed"]:
        """Yield the images of a shot with the joints in each, where these are wanted."""
        if self.poser is None:
            return ((frame.image, None) for frame in frames)
        return ((frame.image, pose) for frame, pose in self.poser(self.source, frames, self.looks.append))

    def _window(self, first: int, posed: Sequence["_Posed"]) -> Window:
        """Scale images to the size of the clips, and some to the size that the scene filter wants."""
        images = [image for image, _ in posed]
        video = fitted(images, *self.settings.shape, self._resize)
        window = Window(first, video, None)
        if self.poser is not None:
            size = images[0].shape[1], images[0].shape[0]
            poses = [pose for _, pose in posed if pose is not None]
            window.pose = in_clip(poses, size, self.settings.shape, self._resize)
        if self.scenes is not None:
            chosen = np.linspace(0, len(images) - 1, self.settings.scene_frames).round().astype(int)
            window.views = fitted([images[t] for t in chosen], VIEW, VIEW, cover(VIEW, VIEW))
        return window

    def _unsteady(self, first: int, last: int, segment: Segment) -> Refusal:
        rejection = segment.rejection
        detail = {} if rejection is None else {"gate": rejection.gate, "value": rejection.value, "limit": rejection.limit}
        video = fitted(list(segment.frames), *self.settings.shape, self._resize)
        return Refusal(self.source.name, "unsteady", first, last, detail, video)

    def _judged(self, window: Window) -> Clip | Refusal:
        """Measure a window, and refuse it where it is black, frozen, too still or of another scene."""
        settings, last = self.settings, window.first + len(window.video) - 1
        change, moved = largest_change(window.video), motion(window.video)
        window.extra["motion"] = moved

        def refuse(reason: str, **detail: Any) -> Refusal:
            return Refusal(self.source.name, reason, window.first, last, detail, window.video)

        if self._split(window) is None:
            return refuse("border", limit=self.source.border)
        if all(darkness(frame) >= settings.black for frame in window.video):
            share = min(darkness(frame) for frame in window.video)
            return refuse("black", share=round(share, 4), limit=settings.black)
        if len(window.video) > 1 and change <= settings.frozen:
            return refuse("frozen", change=change, limit=settings.frozen)
        if moved < settings.min_motion:
            return refuse("still", motion=moved, limit=settings.min_motion)
        if self.poser is not None and window.pose is not None:
            window.extra["pose"] = share = share_with_person(window.pose, self.poser.skeleton)
            if share < settings.min_pose:
                return refuse("no person", share=share, limit=settings.min_pose)
            window.extra |= shares_with_parts(window.pose, self.poser.skeleton)
        if self.scenes is not None and window.views is not None:
            window.extra["scene"] = scores = self.scenes.scores(window.views)
            if not self.scenes.accepts(scores):
                return refuse("scene", **scores)
        return Clip(self._record(window), window.video, pose=window.pose)

    def _record(self, window: Window) -> ClipRecord:
        source = self.source
        word = re.sub(r"[^A-Za-z0-9]+", "-", source.name.rpartition(".")[0] or source.name).strip("-")[-40:]
        # At a low rate the last picture of a shot and the first of the next may have one number.
        again = self.first_frames[window.first]
        self.first_frames[window.first] += 1
        return ClipRecord(
            key=f"{self.number:06d}_{word}_{window.first:07d}" + (f"-{again}" if again else ""),
            source=source.name,
            first_frame=window.first,
            fps=self.rate,
            label=source.label,
            caption=source.caption,
            group=source.group,
            split=self._split(window) or "train",
            extra=window.extra,
        )

    def _split(self, window: Window) -> Literal["train", "test"] | None:
        """Return where a clip goes; None for one that holds frames of both splits."""
        border = self.source.border
        if border is None:
            return self.source.split
        if window.first >= border * self.rate:
            return "test"
        return "train" if window.first + len(window.video) <= border * self.rate else None


_Posed = tuple[UInt8[np.ndarray, "_ _ 3"], Pose | None]
"""An image and, where they are wanted, the joints of the person in it."""


def _steadied(segment: Segment, pending: Sequence[_Posed]) -> list[_Posed]:
    """Return stabilised images with the poses of the images as they were, each moved as its own image was."""
    poses = (pose if pose is None else moved(pose, by) for (_, pose), by in zip(pending, segment.transforms, strict=False))
    return list(zip(segment.frames, poses, strict=True))


def fitted(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], width: int, height: int, resize: Resize
) -> UInt8[np.ndarray, "T H W 3"]:
    """Put images of one size into the middle of black pictures, scaled unless they are as large as they should be already."""
    have = images[0].shape[1], images[0].shape[0]
    want, (left, top) = placed(have, (width, height), resize)
    if want != have:
        method = cv2.INTER_AREA if want[0] < have[0] else cv2.INTER_CUBIC
        images = [cv2.resize(image, want, interpolation=method) for image in images]
    inside = slice(max(0, top), max(0, top) + height), slice(max(0, left), max(0, left) + width)
    outside = slice(max(0, -top), max(0, -top) + want[1]), slice(max(0, -left), max(0, -left) + want[0])
    pictures = np.zeros((len(images), height, width, 3), np.uint8)
    for picture, image in zip(pictures, images, strict=True):
        picture[outside] = image[inside]
    return pictures


def darkness(frame: UInt8[np.ndarray, "H W 3"]) -> float:
    """Return the share of pixels that are black."""
    return float(np.mean(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) <= BLACK_LEVEL))


def largest_change(video: UInt8[np.ndarray, "T H W 3"]) -> float:
    """Return by how much any part of the picture ever differs from the first frame, in grey levels.

    The parts are 16 x 16 cells, or fewer so that each has 4 x 4 pixels: a small thing that moves shows in its cell, where the
    mean over all of the picture would lose it, and the noise of single pixels does not.
    """
    height, width = (max(1, min(16, side // 4)) for side in video.shape[1:3])
    cells = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in video]).astype(np.int16)
    return float(np.abs(cells - cells[0]).max())


def _pair(size: str) -> tuple[int, int]:
    """Read a width and a height from ``64`` or ``96x64``."""
    width, _, height = size.partition("x")
    return int(width), int(height or width)
