"""Clips as video that loses nothing: how a shard holds clips that are too long or too large to be kept as pixels.

H.264 of RGB with quantiser 0: every pixel comes out as it went in, at any size, odd ones too. What stands still costs next to
nothing. A key frame at least every `KEY_FRAMES` frames lets a window be read from the middle.
"""

import io
import zlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from typing import cast

import av
import av.error
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from jaxtyping import UInt8

from kinema.core.errors import MediaError
from kinema.core.shape import ClipShape
from kinema.data.media import reason

ENCODER = "libx264rgb"
KEY_FRAMES = 16
SEAL, SEAL_BYTES = b"free", 12  # a box that readers of MP4 pass over
# fastdecode and no B-frames, because a clip is written once and read in every epoch; measured in docs/data.md.
OPTIONS = {"qp": "0", "preset": "veryfast", "tune": "fastdecode", "bf": "0", "g": str(KEY_FRAMES)}


def encode_clip(video: UInt8[np.ndarray, "T H W 3"], fps: float) -> bytes:
    """Return a clip as the bytes of an MP4; the same clip makes the same bytes.

    Args:
        video: RGB.
        fps: frames per second, for players; nothing is timed by it here.

    Raises:
        MediaError: this PyAV comes without the encoder, or the encoder refuses the clip.
    """
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            rate = Fraction(fps).limit_denominator(1001)
            stream = cast(VideoStream, container.add_stream(ENCODER, rate=rate, options=OPTIONS))
            stream.height, stream.width = video.shape[1:3]
            stream.pix_fmt = "rgb24"
            stream.codec_context.thread_count = 1  # one process per core; and the bytes would depend on the number
            for image in video:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
            container.mux(stream.encode(None))
    except UnknownCodecError:
        raise MediaError(f"this PyAV has no encoder {ENCODER}; store pixels instead (--storage pixels)") from None
    except (av.error.FFmpegError, ValueError) as error:
        shape = ClipShape(*video.shape[:3])
        raise MediaError(f"{shape} at {fps} frames per second cannot be encoded ({reason(error)})") from None
    return _sealed(file.getvalue())


def decode_clip(payload: bytes, shape: ClipShape, first: int = 0, frames: int | None = None) -> UInt8[np.ndarray, "T H W 3"]:
    """Return a window of an MP4, decoding from the key frame before it.

    Args:
        payload: the bytes of the file.
        shape: what the whole clip must be.
        first: first frame of the window.
        frames: length of the window; None goes on to the end.

    Raises:
        MediaError: the bytes are damaged, or a clip of another shape.
    """
    if payload[-8:-4] == SEAL and _sealed(payload[:-SEAL_BYTES]) != payload:
        raise MediaError("its checksum is not the written one")
    video = np.empty((shape.frames - first if frames is None else frames, shape.height, shape.width, 3), np.uint8)
    painter, count = VideoReformatter(), 0
    try:
        for image in islice(_pictures(payload, shape.frames, first), len(video)):
            if (image.height, image.width) != video.shape[1:3]:
                raise MediaError(f"its frames are {image.height}x{image.width} and not {shape.height}x{shape.width}")
            video[count] = painter.reformat(image, format="rgb24", threads=1).to_ndarray()
            count += 1
    except (av.error.FFmpegError, IndexError) as error:  # the latter from PyAV, where damage made new streams appear
        raise MediaError(reason(error)) from None
    if count < len(video):
        raise MediaError(f"frame {first + count} does not decode")
    return video


def _sealed(payload: bytes) -> bytes:
    """Append the checksum of a file as a box at its end: H.264 has none, and most damaged bits would decode to something."""
    return payload + SEAL_BYTES.to_bytes(4, "big") + SEAL + zlib.crc32(payload).to_bytes(4, "big")


def _pictures(payload: bytes, frames: int, first: int) -> Iterator[av.VideoFrame]:
    """Yield pictures in presentation order from frame `first` on."""
    with av.open(io.BytesIO(payload), "r", format="mp4") as container:
        stream = next(iter(container.streams.video), None)
        decoder = None if stream is None else stream.codec_context
        if decoder is None:  # damage to the header made it a stream of an unknown codec
            raise MediaError("it holds no video stream")
        decoder.options = {"err_detect": "+explode"}  # otherwise damaged pictures are painted over and come out as good
        decoder.thread_count, decoder.thread_type = 1, "NONE"
        packets = [(packet.pts, packet) for packet in container.demux(stream) if packet.size and packet.pts is not None]
        if len(packets) != frames:
            raise MediaError(f"it holds {len(packets)} frames and not {frames}")
        start = sorted(time for time, _ in packets)[first]
        entry = max((i for i, (time, packet) in enumerate(packets) if packet.is_keyframe and time <= start), default=0)
        for packet in (*(packet for _, packet in packets[entry:]), None):
            yield from (picture for picture in decoder.decode(packet) if picture.pts is not None and picture.pts >= start)
