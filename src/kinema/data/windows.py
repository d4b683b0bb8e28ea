"""Clips longer than a system's window: windows that overlap, each conditioned on what the ones before it filled in."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import UInt8

from kinema.core.errors import ConfigError
from kinema.data.masks import Known

Clip = UInt8[np.ndarray, "T H W 3"]
Fill = Callable[[Clip, Known, int], Clip]
"""(clip of one window, what of it is known, number of the window) -> the clip with everything filled in."""


def windows(frames: int, window: int, overlap: int, *, backward: bool = False) -> list[range]:
    """Return spans that cover all frames in the order in which they are filled in.

    Each has `window` frames, but the only one of a clip that is shorter. Neighbours share `overlap` frames; the last span ends
    with the clip, and shares as many as are left over.

    Args:
        frames: of the whole clip.
        window: frames that are filled in at once.
        overlap: frames that a span shares with the one before it at least.
        backward: begin at the end.

    Raises:
        ConfigError: for an overlap that leaves nothing new.
    """
    if not 0 <= overlap < window:
        raise ConfigError(f"{overlap} frames of a window of {window} would be known before; take 0 to {window - 1}")
    if frames <= window:
        return [range(frames)]
    spans = [range(start, start + window) for start in (*range(0, frames - window, window - overlap), frames - window)]
    return [range(frames - span.stop, frames - span.start) for span in spans] if backward else spans


def complete(video: Clip, known: Known, spans: Sequence[range], window: int, fill: Fill, *, backward: bool = False) -> Clip:
    """Fill in what is unknown, span by span; what is known comes back untouched.

    A span shorter than the window is completed with unknown frames, which are filled in and dropped: a system works at the
    length that it was trained with.

    Args:
        video: unknown pixels may hold anything.
        known: what of it is known.
        spans: of `windows`.
        window: frames that `fill` takes.
        fill: is called for the spans that hold anything unknown.
        backward: unknown frames are put before a short span, not after it.
    """
    filled, done = video.copy(), known.copy()
    for number, span in enumerate(spans):
        there = slice(span.start, span.stop)
        if done[there].all():
            continue
        missing = window - len(span)
        padding = ((missing, 0) if backward else (0, missing), (0, 0), (0, 0))
        made = fill(np.pad(filled[there], (*padding, (0, 0))), np.pad(done[there], padding), number)
        kept = made[missing:] if backward else made[: len(span)]
        filled[there] = np.where(done[there, ..., None], filled[there], kept)
        done[there] = True
    return filled
