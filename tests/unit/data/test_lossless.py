import hashlib
import io
import subprocess
import sys

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from footage import make_frames
from kinema.core.errors import MediaError
from kinema.core.shape import ClipShape
from kinema.data import lossless
from kinema.data.lossless import KEY_FRAMES, decode_clip, encode_clip
from small_dataset import make_video

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 35), st.integers(1, 35))


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(0, 5), st.data())
def test_every_pixel_comes_back_at_any_size_and_from_any_window(
    shape: tuple[int, int, int], seed: int, data: st.DataObject
) -> None:
    video = make_video(seed, *shape)
    video[shape[0] // 2 :] = video[shape[0] // 2]  # half moves, half stands still
    payload = encode_clip(video, 29.97)
    np.testing.assert_array_equal(decode_clip(payload, ClipShape(*shape)), video)
    first = data.draw(st.integers(0, shape[0] - 1))
    frames = data.draw(st.integers(1, shape[0] - first))
    np.testing.assert_array_equal(decode_clip(payload, ClipShape(*shape), first, frames), video[first : first + frames])


def test_all_colours_survive() -> None:
    """Not a matter of course: the way over YUV of eight bits loses most of them."""
    values = np.arange(0, 256, 5, dtype=np.uint8)
    video = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1)
    np.testing.assert_array_equal(decode_clip(encode_clip(video, 25), ClipShape(*video.shape[:3])), video)


def test_a_window_decodes_from_the_key_frame_before_it() -> None:
    """Damage before that key frame does no harm, nor damage after the window."""
    video = make_frames(100)
    payload = encode_clip(video, 25)[: -lossless.SEAL_BYTES]  # without the checksum, which would see it
    with av.open(io.BytesIO(payload)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    assert max(np.diff([*keys, 100])) <= KEY_FRAMES
    first, last = keys[3] + 2, keys[5] - 1
    damaged = bytearray(payload)
    for number in (0, keys[3] - 1, last + 2):
        start, size = packets[number].pos, packets[number].size
        assert start is not None
        damaged[start : start + size] = bytes(size)
    window = decode_clip(bytes(damaged), ClipShape(100, 32, 48), first, last - first)
    np.testing.assert_array_equal(window, video[first:last])
    with pytest.raises(MediaError):
        decode_clip(bytes(damaged), ClipShape(100, 32, 48))


def test_what_stands_still_costs_little() -> None:
    assert len(encode_clip(make_frames(64, width=96, height=64), 25)) < 0.1 * 64 * 96 * 64 * 3


def test_another_process_writes_the_same_bytes() -> None:
    script = (
        "import hashlib; from footage import make_frames; from kinema.data.lossless import encode_clip;"
        "print(hashlib.sha256(encode_clip(make_frames(20), 29.97)).hexdigest())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd="tests", capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hashlib.sha256(encode_clip(make_frames(20), 29.97)).hexdigest()


def test_no_wrong_bit_and_no_missing_end_goes_unseen() -> None:
    video = make_frames(20, width=32)
    payload, shape = encode_clip(video, 25), ClipShape(20, 32, 32)
    generator = np.random.default_rng(0)
    for place in generator.integers(len(payload) - 12, size=100):
        damaged = bytearray(payload)
        damaged[place] ^= 1 << int(generator.integers(8))
        with pytest.raises(MediaError):
            decode_clip(bytes(damaged), shape)
    for length in range(0, len(payload) - 500, 97):
        with pytest.raises(MediaError):
            decode_clip(payload[:length], shape)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (ClipShape(19, 32, 48), "it holds 20 frames and not 19"),
        (ClipShape(21, 32, 48), "it holds 20 frames and not 21"),
        (ClipShape(20, 32, 32), "its frames are 32x48 and not 32x32"),
    ],
)
def test_a_clip_of_another_shape_is_refused(shape: ClipShape, sentence: str) -> None:
    with pytest.raises(MediaError, match=sentence):
        decode_clip(encode_clip(make_frames(20), 25), shape)


def test_without_the_encoder_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lossless, "ENCODER", "libx999")
    with pytest.raises(MediaError, match="has no encoder libx999; store pixels instead"):
        encode_clip(make_frames(2), 25)
    monkeypatch.undo()
    with pytest.raises(MediaError, match="4x32x48 at nan frames per second cannot be encoded"):
        encode_clip(make_frames(4), float("nan"))
