"""Films of any length: frames one by one, each at its own time, beside the sound of another film.

Memory does not grow with length. The file is written beside its final name and renamed when the block succeeds. Sound is
copied packet by packet where the container holds its codec and encoded anew where not; it ends where the pictures end.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import av.error
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream
from jaxtyping import UInt8

from kinema.core.errors import MediaError
from kinema.data.encode import CODECS, beside, exact_rate
from kinema.data.media import opened, reason

FILM_SUFFIXES = (".mp4", ".webm")
SOUND_CODECS = {
    ".mp4": ("aac", frozenset({"aac", "mp3", "ac3", "eac3", "alac"})),
    ".webm": ("libopus", frozenset({"opus", "vorbis"})),
}
"""Suffix -> codec for sound that must be encoded anew, and the codecs that may be copied."""
PIECE = 1024  # samples that are encoded at a time
OPUS_RATE = 48_000
TICKS = 10_000  # per second at least: how finely times are kept


class Film:
    """A film that is being written; made by `film`.

    Attributes:
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        fps: nominal frames per second.
        frames: pictures so far.
    """

    def __init__(self, container: OutputContainer, stream: VideoStream, fps: Fraction, sound: "_Sound | None") -> None:
        self._container, self._stream, self._sound = container, stream, sound
        self.width, self.height, self.fps = stream.width, stream.height, fps
        self._interval = 1 / fps
        self._tick = Fraction(1, fps.numerator * -(-TICKS // fps.numerator))
        self._last = -1
        self.frames = 0

    @property
    def sound(self) -> str:
        """What became of the sound, in words."""
        return self._sound.words if self._sound else "no sound"

    def add(self, image: UInt8[np.ndarray, "H W 3"], time: float | Fraction | None = None) -> None:
        """Show the next picture.

        Args:
            image: RGB, of the film's size.
            time: seconds at which it appears; None for one interval after another from 0.

        Raises:
            MediaError: for another size, or a time not after the last picture's.
        """
        if image.shape[:2] != (self._stream.height, self._stream.width):
            raise MediaError(
                f"a film of {self._stream.width}x{self._stream.height} cannot take a picture of "
                f"{image.shape[1]}x{image.shape[0]}"
            )
        moment = self.frames * self._interval if time is None else Fraction(time)
        stamp = round(moment / self._tick)
        if stamp <= self._last:
            raise MediaError(
                f"picture {self.frames} of a film cannot appear at {float(moment):.4f} s, before the last one ends"
            )
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        picture.pts, picture.time_base, picture.duration = stamp, self._tick, round(self._interval / self._tick)
        self._container.mux(self._stream.encode(picture))
        self._last, self.frames = stamp, self.frames + 1
        if self._sound:
            self._sound.play_until(float(moment + self._interval))

    def finish(self) -> None:
        """Write what the encoders still hold."""
        self._container.mux(self._stream.encode(None))
        if self._sound:
            self._sound.finish()


@contextmanager
def film(
    path: str | Path,
    width: int,
    height: int,
    fps: Fraction | float,
    *,
    metadata: Mapping[str, str] | None = None,
    sound: Path | None = None,
    start: float = 0.0,
) -> Iterator[Film]:
    """Write a film frame by frame, whole or not at all.

    Args:
        path: the file to make, ``.mp4`` (H.264) or ``.webm`` (VP9).
        width: pixels; even for ``.mp4``.
        height: pixels; even for ``.mp4``.
        fps: nominal frames per second; exact, as 30000/1001 is.
        metadata: text tags.
        sound: film whose sound is played; one without sound is legal.
        start: second of that film at which this one begins.

    Yields:
        The film; `Film.add` shows its next picture.

    Raises:
        MediaError: another suffix, an odd size for mp4, no picture at all, or the file cannot be written.
    """
    path, rate = Path(path), exact_rate(fps)
    suffix = path.suffix.lower()
    if suffix not in FILM_SUFFIXES:
        raise MediaError(f"{path} ends in {suffix or 'no suffix'!r}; films are written as {' or '.join(FILM_SUFFIXES)}")
    if suffix == ".mp4" and (width % 2 or height % 2):
        raise MediaError(f"{path}: {width}x{height} frames; .mp4 needs an even width and height, .webm takes any")
    codec, options = CODECS[suffix]
    flags = {"movflags": "+faststart+use_metadata_tags"} if suffix == ".mp4" else {}
    with beside(path) as temporary, ExitStack() as stack:
        container = stack.enter_context(av.open(str(temporary), "w", format=suffix[1:], options=flags))
        container.metadata.update(metadata or {})
        stream = cast(VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.colorspace = stream.color_primaries = stream.color_trc = 6  # SMPTE 170M, what swscale converts with
        found = _Sound(stack.enter_context(opened(sound)), container, suffix, start) if sound else None
        made = Film(container, stream, rate, found)
        stream.codec_context.time_base = made._tick
        yield made
        if made.frames == 0:
            raise MediaError(f"{path}: a film needs at least one frame")
        made.finish()


class _Sound:
    """Sound on its way from one film to another, as far as the pictures have come.

    Attributes:
        words: what became of it.
    """

    def __init__(self, source: InputContainer, target: OutputContainer, suffix: str, start: float) -> None:
        self._target, self._start = target, start
        self._pieces: Iterator[av.Packet | av.AudioFrame] = iter(())
        self._held: av.Packet | av.AudioFrame | None = None
        self._encoder: AudioStream | None = None
        self.words = "the source has no sound"
        if not source.streams.audio:
            return
        given, pictures = source.streams.audio[0], source.streams.video
        origin = float((pictures[0].start_time or 0) * (pictures[0].time_base or 1)) if pictures else 0.0
        self._begin = origin + start
        if start > 1:
            source.seek(int((self._begin - 1) / (given.time_base or 1)), stream=given)
        codec, (encoder, copied) = given.codec_context.codec.canonical_name, SOUND_CODECS[suffix]  # mp3, whoever decodes it
        if codec in copied:
            self.words = f"sound copied ({codec})"
            self._pieces = self._packets(source, given, target.add_stream_from_template(given))
            return
        layout = {1: "mono", 2: "stereo"}.get(given.codec_context.channels, given.codec_context.layout)
        rate = OPUS_RATE if encoder == "libopus" else given.codec_context.sample_rate
        self._encoder = cast(AudioStream, target.add_stream(encoder, rate=rate, layout=layout))
        self.words = f"sound encoded anew ({codec} as {encoder})"
        self._pieces = self._decoded(source, given, self._encoder.codec_context)

    def play_until(self, end: float) -> None:
        """Send the sound that begins before `end` seconds of the new film."""
        try:
            while (piece := self._held or next(self._pieces, None)) is not None:
                self._held = piece
                if float((piece.pts or 0) * (piece.time_base or 1)) >= end:
                    return
                self._held = None
                if isinstance(piece, av.Packet):
                    self._target.mux(piece)
                elif self._encoder:
                    self._target.mux(self._encoder.encode(piece))
        except av.error.FFmpegError as error:
            self._pieces = iter(())
            self.words += f", which breaks off before {end:.1f} s ({reason(error)})"

    def finish(self) -> None:
        """Send what the encoder still holds."""
        if self._encoder:
            self._target.mux(self._encoder.encode(None))

    def _packets(self, source: InputContainer, given: AudioStream, stream: AudioStream) -> Iterator[av.Packet]:
        """Yield packets of the new film: with times from its beginning on."""
        for packet in source.demux(given):
            if not packet.size or packet.pts is None or packet.time_base is None:
                continue
            shift = round(self._begin / packet.time_base)
            # What players skip before the beginning of a whole film stays; a part begins with the packet under way.
            if self._start and packet.pts + (packet.duration or 0) <= shift:
                continue
            packet.pts, packet.dts = packet.pts - shift, (packet.pts if packet.dts is None else packet.dts) - shift
            packet.stream = stream
            yield packet

    def _decoded(self, source: InputContainer, given: AudioStream, encoder: av.AudioCodecContext) -> Iterator[av.AudioFrame]:
        """Yield short pieces of sound as the encoder wants them, with times from the beginning of the new film on."""
        resampler = av.AudioResampler(encoder.format, encoder.layout, encoder.sample_rate, frame_size=PIECE)
        samples = None
        for packet in source.demux(given):
            decoded = given.codec_context.decode(packet if packet.size else None)
            for heard in (*decoded, None) if not packet.size else decoded:
                if heard is not None and samples is None:
                    begin = float((heard.pts or 0) * (heard.time_base or 1)) - self._begin
                    samples = round(begin * encoder.sample_rate)  # sound that sets in late stays late
                for piece in resampler.resample(heard):
                    piece.pts, piece.time_base = samples or 0, Fraction(1, encoder.sample_rate)
                    samples = piece.pts + piece.samples
                    if samples > 0:
                        yield piece
