"""Made-up footage with sound for tests: silence, and a tone that sets in at a known second."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from footage import make_frames

RATE = 44_100


def write_sounding(
    path: Path, frames: int, fps: int = 25, *, tone_from: float = 0.5, codec: str = "aac", size: int = 32
) -> Path:
    """Write a film of `frames` pictures whose sound is silent, then 880 Hz from `tone_from` seconds on."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=fps)
        pictures.width = pictures.height = size
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream(codec, rate=RATE, layout="mono")
        for image in make_frames(frames, width=size, height=size):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(pictures.encode(None))
        time = np.arange(int(frames / fps * RATE)) / RATE
        wave = np.where(time >= tone_from, 0.5 * np.sin(2 * np.pi * 880 * time), 0)
        heard = av.AudioFrame.from_ndarray((wave * 32767).astype(np.int16)[None], format="s16", layout="mono")
        heard.sample_rate, heard.pts, heard.time_base = RATE, 0, Fraction(1, RATE)
        container.mux(sound.encode(heard))
        container.mux(sound.encode(None))
    return path


def heard(path: Path) -> tuple[float | None, float]:
    """Return the second at which the tone sets in (None in silence), and the seconds that the sound lasts."""
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return None, 0.0
        stream = container.streams.audio[0]
        onset, end = None, 0.0
        for frame in container.decode(stream):
            begin = float(frame.pts * frame.time_base)
            wave = np.abs(frame.to_ndarray().astype(np.float64)).reshape(len(frame.layout.channels), -1)[0]
            wave = wave / 32768 if "s16" in frame.format.name else wave
            loud = np.flatnonzero(wave > 0.1)
            if onset is None and len(loud):
                onset = begin + loud[0] / frame.sample_rate
            end = begin + frame.samples / frame.sample_rate
        return onset, end
