"""Decoding: frames by their timestamps, every failure one sentence.

Reading goes through FFmpeg (PyAV) and, for GIF, WebP, APNG and still images, Pillow. What is read is what a viewer sees:
rotation and mirroring from the display matrix applied, pixels square, alpha composited on black, deep colour reduced to
eight bits, every frame in the size of the first.
"""

import math
import statistics
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from kinema.core.errors import MediaError
from kinema.data.fitting import Fit

ANIMATION_SUFFIXES = frozenset({".gif", ".apng"})
VIDEO_SUFFIXES = ANIMATION_SUFFIXES | {
    *(".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".f4v", ".flv", ".mkv", ".webm", ".ogv", ".avi", ".wmv", ".asf"),
    *(".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".mxf", ".dv", ".y4m"),
}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})

STANDARD_RATES = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (5, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
)
PROBED_PACKETS = 256

Resize = Callable[[int, int], tuple[int, int]]
"""Displayed (width, height) -> wanted (width, height), both in pixels."""


class TruncatedError(MediaError):
    """A file that breaks off or is damaged in the middle.

    Attributes:
        frames_read: frames that came out before the damage.
    """

    def __init__(self, message: str, frames_read: int) -> None:
        super().__init__(message)
        self.frames_read = frames_read

    def __reduce__(self) -> tuple[type["TruncatedError"], tuple[str, int]]:
        return type(self), (str(self), self.frames_read)


class _DamageError(Exception):
    """Damage that FFmpeg reports by a flag, or only by falling short, instead of by an error."""


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about its first video stream."""

    path: Path
    """The file."""
    width: int
    """Displayed width in square pixels, after rotation."""
    height: int
    """Displayed height in square pixels, after rotation."""
    fps: Fraction | None
    """Nominal frames per second: the average rate, or for a variable rate the rate of the median interval."""
    frames: int | None
    """Number of frames as declared or estimated; exact only when the file is read."""
    rotation: int
    """Degrees (0, 90, 180, 270) that the stored picture is turned counterclockwise for display."""
    duration: float | None
    """Seconds."""
    codec: str
    """FFmpeg's or Pillow's name of the format."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Text tags of the file."""


@dataclass(frozen=True)
class Frame:
    """One decoded picture."""

    time: float
    """Seconds since the first frame."""
    image: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    interval: float | None = None
    """Seconds that a frame of this file nominally lasts; None where no rate is known."""


@dataclass(frozen=True)
class _Layout:
    """How stored pictures become displayed ones: scaled to `width` x `height` as stored, then transposed, then mirrored."""

    width: int
    height: int
    transposed: bool
    mirrored_x: bool
    mirrored_y: bool

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height on display."""
        return (self.height, self.width) if self.transposed else (self.width, self.height)

    @property
    def rotation(self) -> int:
        """Degrees counterclockwise, as in `MediaInfo.rotation`; mirroring aside."""
        if self.transposed:
            return 90 if self.mirrored_y else 270
        return 180 if self.mirrored_x and self.mirrored_y else 0

    def resized(self, resize: Resize | None) -> "_Layout":
        """Return the layout whose displayed size is what `resize` asks for."""
        if resize is None:
            return self
        width, height = resize(*self.displayed)
        stored = (height, width) if self.transposed else (width, height)
        return _Layout(*stored, self.transposed, self.mirrored_x, self.mirrored_y)

    def turn(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Transpose and mirror a scaled picture."""
        turned = image.transpose(1, 0, 2) if self.transposed else image
        return np.ascontiguousarray(turned[:: -1 if self.mirrored_y else 1, :: -1 if self.mirrored_x else 1])


def cover(width: int, height: int) -> Resize:
    """Scale so that a picture just covers `width` x `height` (for a centre crop)."""
    return _Scaling(width, height, max)


def contain(width: int, height: int) -> Resize:
    """Scale so that a picture just fits into `width` x `height` (for a letterbox)."""
    return _Scaling(width, height, min)


def scaled_to(fit: Fit, width: int, height: int) -> Resize:
    """Scale as a dataset of this `fit` was scaled: to cover the frame, or to fit into it."""
    return (cover if fit == "crop" else contain)(width, height)


@dataclass(frozen=True)
class _Scaling:
    width: int
    height: int
    choose: Callable[[float, float], float]

    def __call__(self, width: int, height: int) -> tuple[int, int]:
        scale = self.choose(self.width / width, self.height / height)
        return max(1, round(width * scale)), max(1, round(height * scale))


def probe(path: str | Path) -> MediaInfo:
    """Look at a file and decode its first frame.

    Raises:
        MediaError: the file is missing, empty, unreadable, no video, holds only sound, or its first frame does not decode.
    """
    path = Path(path)
    _refuse_unreadable(path)
    if _is_for_pillow(path):
        return _probe_animation(path)
    with opened(path) as container:
        stream = _video_stream(container, path)
        first, times = _first_picture(container, stream, path)
        layout = _layout(first, stream, path)
        fps = _nominal_rate(stream, times)
        duration = _duration(container, stream)
        estimate = round(duration * fps) if duration and fps else None
        return MediaInfo(
            path=path,
            width=layout.displayed[0],
            height=layout.displayed[1],
            fps=fps,
            frames=stream.frames or estimate,
            rotation=layout.rotation,
            duration=duration,
            codec=stream.codec_context.name,
            metadata={key.lower(): value for key, value in container.metadata.items()},
        )


def read_frames(
    path: str | Path | MediaInfo,
    *,
    resize: Resize | None = None,
    threads: int = 1,
    start: float = 0.0,
    stop: float | None = None,
) -> Iterator[Frame]:
    """Decode a video, animation or image frame by frame, in presentation order.

    Args:
        path: the file, or what `probe` said about it, which saves looking twice.
        resize: wanted size from the displayed size, for example `cover(64, 64)`; done while converting to RGB, which costs
            far less than converting first. Default: as displayed.
        threads: decoder threads; leave 1 where every core already has its process.
        start: seconds; of a long video, decode from the key frame before this and begin with the first frame not before it.
        stop: seconds; end before the first frame that is not before this. Only for videos, as `start`.

    Raises:
        MediaError: at once when nothing can be read, as in `probe`.
        TruncatedError: after the frames before the damage, when the file breaks in the middle.
    """
    info = path if isinstance(path, MediaInfo) else probe(path)
    interval = float(1 / info.fps) if info.fps else None
    if _is_for_pillow(info.path):
        return _read_animation(info.path, resize, interval)
    return _read_video(info.path, resize, interval, threads, start, math.inf if stop is None else stop)


def read_video(path: str | Path) -> tuple[UInt8[np.ndarray, "T H W 3"], float]:
    """Read a whole clip at its nominal frame rate; a still image is one frame at one frame per second."""
    frames = list(read_frames(path))
    images = list(resample(iter(frames), None))
    interval = frames[0].interval
    return np.stack(images), 1 / interval if interval else 1.0


def resample(frames: Iterator[Frame], fps: float | None) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Put frames on a constant rate: each grid point shows the frame on display nearest to it in time.

    Args:
        frames: in presentation order.
        fps: grid points per second. None keeps the native rate: a constant rate passes through frame by frame, and a variable
            one is put on its nominal grid (long intervals repeat the frame, short ones drop it).
    """
    return (frame.image for frame in displayed(frames, fps))


def displayed(frames: Iterator[Frame], fps: float | None) -> Iterator[Frame]:
    """Yield, for each point of a constant rate, the frame on display; see `resample`."""
    following = next(frames, None)
    if following is None:
        return
    interval = 1 / fps if fps else following.interval
    due = following.time
    while following is not None:
        frame, following = following, next(frames, None)
        if interval is None:
            yield frame
            continue
        if fps is None and abs(frame.time - due) < interval / 10:
            due = frame.time  # an imprecise nominal rate must not repeat or drop a frame of constant-rate footage
        if following is None:  # the last frame is on display for as long as any; a quarter forgives rounded times
            end = frame.time + (frame.interval or interval) - interval / 4
        else:
            end = (frame.time + following.time) / 2
        while due < end - 1e-9:
            yield frame
            due += interval


def read_image(path: str | Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read a still image as RGB: orientation tag applied, alpha composited on black, 16 bits reduced to 8.

    Raises:
        MediaError: the file is missing, unreadable, or no image.
    """
    path = Path(path)
    _refuse_unreadable(path)
    with _pillow_errors(path), Image.open(path) as image:
        return _on_black(ImageOps.exif_transpose(image))


# --- FFmpeg ---------------------------------------------------------------------------------------------------------------


def _is_for_pillow(path: Path) -> bool:
    return path.suffix.lower() in ANIMATION_SUFFIXES | IMAGE_SUFFIXES


def _refuse_unreadable(path: Path) -> None:
    if not path.exists():
        raise MediaError(f"{path} does not exist; give a video or an image")
    if path.is_dir():
        raise MediaError(f"{path} is a folder; give a video or an image")
    if path.stat().st_size == 0:
        raise MediaError(f"{path} is empty (0 bytes); give a video or an image")


@contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a file for FFmpeg; raises `MediaError` for one that it does not read."""
    # `file:` and the whitelist keep FFmpeg from reading a name as a pattern or a playlist as an order to fetch other files.
    try:
        container = av.open(f"file:{path}", options={"protocol_whitelist": "file", "pattern_type": "none"})
    except av.error.FFmpegError as error:
        raise MediaError(f"{path} is not a video that FFmpeg reads ({reason(error)})") from None
    with container:
        yield container


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    moving = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
    if container.format.name == "tty" or not container.streams:
        raise MediaError(f"{path} is not a video")
    if not moving:
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
        raise MediaError(f"{path} holds no video stream, only {' and '.join(kinds)}; give a file with pictures")
    return moving[0]


def _decoder(stream: VideoStream, threads: int) -> av.VideoCodecContext:
    """Return the stream's decoder, strict about damage; for VP8 and VP9 with alpha the one decoder that reads alpha."""
    decoder = stream.codec_context
    if stream.metadata.get("alpha_mode") == "1" and decoder.name in ("vp8", "vp9"):
        decoder = av.CodecContext.create("libvpx" if decoder.name == "vp8" else "libvpx-vp9", "r")
    decoder.options = {"err_detect": "+explode"}  # otherwise damaged pictures are painted over and come out as good
    decoder.thread_count = threads
    decoder.thread_type = "AUTO" if threads > 1 else "NONE"
    return decoder


def _decoded(container: InputContainer, stream: VideoStream, decoder: av.VideoCodecContext) -> Iterator[av.VideoFrame]:
    """Yield pictures in presentation order.

    Raises:
        _DamageError, av.error.FFmpegError: at the first damaged packet; whatever came before is out by then.
    """
    for packet in _packets(container, stream):
        if packet.is_corrupt:
            raise _DamageError("the data breaks off in the middle of a frame")
        yield from decoder.decode(packet if packet.size else None)


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    try:
        yield from container.demux(stream)
    except IndexError:  # PyAV 18 fails at the end of a file in which damage made new streams appear
        raise _DamageError("it holds streams that it does not declare") from None


def _first_picture(container: InputContainer, stream: VideoStream, path: Path) -> tuple[av.VideoFrame, list[float]]:
    """Decode the first picture, and collect the presentation times (seconds) of the first packets."""
    packets = islice(_packets(container, stream), PROBED_PACKETS)
    decoder, picture, times = _decoder(stream, 1), None, []
    try:
        for packet in packets:
            if picture is None:
                picture = next(iter(decoder.decode(packet if packet.size else None)), None)
            if packet.pts is not None and packet.time_base:
                times.append(float(packet.pts * packet.time_base))
    except (av.error.FFmpegError, _DamageError) as error:
        if picture is None:
            raise MediaError(f"{path} cannot be decoded ({reason(error)})") from None
    if picture is None:
        raise MediaError(f"{path} holds no picture that decodes; give a video with at least one frame")
    return picture, sorted(times)


def _read_video(
    path: Path, resize: Resize | None, interval: float | None, threads: int, start: float, stop: float
) -> Iterator[Frame]:
    with opened(path) as container:
        stream = _video_stream(container, path)
        time_base = float(stream.time_base or 1)
        step = interval or 0.04
        painter = None
        origin, time, lasting, read = 0.0, -step, step, 0
        try:
            if start > 0:
                layout, origin, target = _entrance(path, start, step)
                painter = _Painter(layout.resized(resize))
                if target is not None:
                    container.seek(target, stream=stream)
            for picture in _decoded(container, stream, _decoder(stream, threads)):
                if painter is None:
                    painter = _Painter(_layout(picture, stream, path).resized(resize))
                    origin = (picture.pts or 0) * time_base
                stamp = time + step if picture.pts is None else picture.pts * time_base - origin
                time = stamp if stamp > time else time + step  # stamps of broken muxers stand still or run back
                lasting = (picture.duration or 0) * time_base or step
                if time >= stop:
                    return
                if time >= start:
                    yield Frame(time, painter.paint(picture), interval)
                    read += 1
            _refuse_shortfall(stream, origin + time + lasting, step)
        except (av.error.FFmpegError, _DamageError) as error:
            raise TruncatedError(f"{path} is damaged after frame {read} ({reason(error)})", read) from None


def _entrance(path: Path, start: float, step: float) -> tuple[_Layout, float, int | None]:
    """Find a key frame from which every picture from `start` on comes out.

    Returns:
        The layout of the first picture, its time in seconds, and where to seek; None where seeking cannot be trusted.
    """
    with opened(path) as container:
        stream = _video_stream(container, path)
        first, _ = _first_picture(container, stream, path)
        layout, origin = _layout(first, stream, path), float((first.pts or 0) * (stream.time_base or 1))
    with opened(path) as container, suppress(av.error.FFmpegError, _DamageError):
        stream = _video_stream(container, path)
        time_base = float(stream.time_base or 1)
        # One second earlier: pictures that are shown just after a key frame may need the one before it.
        target = int((origin + max(0.0, start - 1)) / time_base)
        container.seek(target, stream=stream)
        landed = next(_decoded(container, stream, _decoder(stream, 1)), None)
        if landed is not None and landed.pts is not None and landed.pts * time_base <= origin + start + step / 2:
            return layout, origin, target
    return layout, origin, None


def _refuse_shortfall(stream: VideoStream, end: float, step: float) -> None:
    """Raise `_DamageError` when a Matroska file ends before its declared duration; FFmpeg does not report its cut-off end."""
    hours, minutes, seconds = (stream.metadata.get("DURATION") or "0:0:0").split(":")
    declared = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    if declared - end > 2 * step:
        raise _DamageError(f"it ends at {end:.2f} s and declares {declared:.2f} s")


class _Painter:
    """Turns decoded pictures into displayed RGB of one size."""

    def __init__(self, layout: _Layout) -> None:
        self.layout = layout
        # Each keeps its own swscale context; shared, they would be set up anew for every picture.
        self.shrink, self.convert = VideoReformatter(), VideoReformatter()

    def paint(self, picture: av.VideoFrame) -> UInt8[np.ndarray, "H W 3"]:
        width, height = self.layout.width, self.layout.height
        kind = _pixel_kind(picture.format.name)
        if kind == "yuv" and width < picture.width:
            # swscale shrinks planes about three times as fast as it shrinks on the way to RGB (measured).
            picture = self.shrink.reformat(picture, width, height, "yuv422p", interpolation=Interpolation.AREA, threads=1)
        smooth = Interpolation.AREA if width < picture.width else Interpolation.BICUBIC
        target = "rgba" if kind == "alpha" else "rgb24"
        pixels = self.convert.reformat(picture, width, height, target, interpolation=smooth, threads=1).to_ndarray()
        return self.layout.turn(_composite(pixels) if kind == "alpha" else pixels)


@cache
def _pixel_kind(format_name: str) -> Literal["alpha", "yuv", "rgb"]:
    pixels = av.VideoFormat(format_name)
    if any(component.is_alpha for component in pixels.components):
        return "alpha"
    return "rgb" if pixels.is_rgb or len(pixels.components) < 3 else "yuv"


def _layout(picture: av.VideoFrame, stream: VideoStream, path: Path) -> _Layout:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = max(1, round(picture.width * aspect))
    matrix = picture.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return _Layout(width, picture.height, transposed=False, mirrored_x=False, mirrored_y=False)
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5]  # a stored point (p, q) is displayed at (a p + c q, b p + d q)
    if not ((a == d == 0) or (b == c == 0)):
        raise MediaError(f"{path} is displayed turned by {picture.rotation} degrees; only quarter turns can be read")
    if a == 0:
        return _Layout(width, picture.height, transposed=True, mirrored_x=bool(c < 0), mirrored_y=bool(b < 0))
    return _Layout(width, picture.height, transposed=False, mirrored_x=bool(a < 0), mirrored_y=bool(d < 0))


def _nominal_rate(stream: VideoStream, times: Sequence[float]) -> Fraction | None:
    """Return the average rate if most frames follow it, else the rate of the median interval, snapped to a usual one."""
    average = stream.average_rate or stream.guessed_rate or None
    intervals = [b - a for a, b in pairwise(times) if b > a]
    if not intervals:
        return average
    median = 1 / statistics.median(intervals)
    if average and abs(median / float(average) - 1) < 0.1:
        return _usual_rate(float(average), tolerance=0.0003)
    return _usual_rate(median)


def _usual_rate(rate: float, tolerance: float = 0.02) -> Fraction:
    """Return the nearest standard rate within the relative tolerance, else the rate itself."""
    nearest = min(STANDARD_RATES, key=lambda usual: abs(usual / rate - 1))
    return nearest if abs(nearest / rate - 1) < tolerance else Fraction(rate).limit_denominator(1001)


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


# --- Pillow ---------------------------------------------------------------------------------------------------------------


@contextmanager
def _pillow_errors(path: Path, frames_read: int = 0) -> Iterator[None]:
    # Pillow reports damage as OSError, SyntaxError ("broken PNG file"), EOFError, ValueError or struct.error by format.
    try:
        yield
    except UnidentifiedImageError:
        raise MediaError(f"{path} is not an image that Pillow reads") from None
    except Image.DecompressionBombError as error:
        raise MediaError(f"{path} is too large an image: {error}") from None
    except (OSError, SyntaxError, EOFError, ValueError, struct.error) as error:
        if frames_read:
            raise TruncatedError(f"{path} is damaged after frame {frames_read} ({reason(error)})", frames_read) from None
        raise MediaError(f"{path} cannot be decoded ({reason(error)})") from None


def _probe_animation(path: Path) -> MediaInfo:
    with _pillow_errors(path), Image.open(path) as image:
        shown = [_milliseconds(image, number) for number in range(_pictures(image))]
        rate = _animation_rate(shown)
        frames = sum(_repeats(ms, rate) for ms in shown)
        width, height = ImageOps.exif_transpose(image).size
        return MediaInfo(
            path=path,
            width=width,
            height=height,
            fps=rate,
            frames=frames,
            rotation=0,
            duration=float(frames / rate) if rate else None,
            codec=(image.format or path.suffix[1:]).lower(),
            metadata=_image_text(image),
        )


def _read_animation(path: Path, resize: Resize | None, interval: float | None) -> Iterator[Frame]:
    """Yield every picture of an animation as often as it lasts; encoders merge equal frames into one long one."""
    read = 0
    with _pillow_errors(path), Image.open(path) as image:
        pictures = _pictures(image)
        rate = Fraction(1 / interval).limit_denominator(1001) if interval else None
        size = ImageOps.exif_transpose(image).size
        wanted = resize(*size) if resize else size
        for number in range(pictures):
            with _pillow_errors(path, read):
                milliseconds = _milliseconds(image, number)
                picture = _on_black(ImageOps.exif_transpose(image), wanted)
            for _ in range(_repeats(milliseconds, rate)):
                yield Frame(read * (interval or 0.0), picture, interval)
                read += 1


def _pictures(image: Image.Image) -> int:
    return getattr(image, "n_frames", 1)


def _milliseconds(image: Image.Image, number: int) -> float:
    """Seek to a picture and return how long it is shown; 100 ms where the file says 0 or 10, as browsers do."""
    image.seek(number)
    image.load()
    milliseconds = float(image.info.get("duration", 0))
    return milliseconds if milliseconds > 10 else 100.0


def _animation_rate(shown: Sequence[float]) -> Fraction | None:
    """Return the rate of the shortest pictures, longer ones being merged repeats; None for a still image."""
    if len(shown) < 2:
        return None
    single = [ms for ms in shown if ms < 1.5 * min(shown)]
    return _usual_rate(1000 / statistics.mean(single))


def _repeats(milliseconds: float, rate: Fraction | None) -> int:
    return max(1, round(milliseconds / 1000 * rate)) if rate else 1


def _on_black(image: Image.Image, size: tuple[int, int] | None = None) -> UInt8[np.ndarray, "H W 3"]:
    if image.mode.startswith("I") or image.mode == "F":  # Pillow clips instead of scaling deep grey
        grey = np.asarray(image, np.float64) / (
            257.0 if image.mode.startswith("I;16") or np.asarray(image).max() > 255 else 1.0
        )
        image = Image.fromarray(grey.clip(0, 255).round().astype(np.uint8))
    opaque = image.mode in ("RGB", "L") and "transparency" not in image.info
    pixels = image.convert("RGB" if opaque else "RGBA")
    if size is not None and size != pixels.size:
        pixels = pixels.resize(size, Image.Resampling.BOX if size[0] < pixels.width else Image.Resampling.BICUBIC)
    return np.array(pixels) if opaque else _composite(np.asarray(pixels))


def _image_text(image: Image.Image) -> dict[str, str]:
    """Return what `kinema.data.encode` wrote."""
    if image.format == "PNG":
        return dict(getattr(image, "text", {}))
    lines = image.info.get("comment", b"").decode(errors="replace") or image.getexif().get(ExifTags.Base.ImageDescription, "")
    return dict(line.split(": ", 1) for line in str(lines).splitlines() if ": " in line)


def _composite(pixels: UInt8[np.ndarray, "H W 4"]) -> UInt8[np.ndarray, "H W 3"]:
    """Lay RGBA on black, rounding to nearest."""
    colour, alpha = pixels[..., :3].astype(np.uint16), pixels[..., 3:]
    return ((colour * alpha + 127) // 255).astype(np.uint8)


def reason(error: Exception) -> str:
    """Say in a few words why a library failed."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
