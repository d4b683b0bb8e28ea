"""Preparing never loses or invents a frame."""

from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.errors import MediaError
from kinema.data import cutting
from kinema.data.cutting import Cutter, PrepareSettings
from kinema.data.dataset import Clip
from kinema.data.labels import split_by_group
from kinema.data.media import Frame
from kinema.data.prepare import divide
from kinema.data.sources import Source


def frames_of(shots: list[int], damaged: bool) -> Iterator[Frame]:
    """Frames that show their number in their colours; neighbouring shots are bright and dark in turn."""
    number = 0
    for shot, length in enumerate(shots):
        for _ in range(length):
            image = np.full((8, 8, 3), 40 + 150 * (shot % 2), np.uint8)
            image[:4, :4] += np.uint8(number % 7 * 8)
            image[0, 0] = number // 256, number % 256, 0
            yield Frame(number / 25, image, 1 / 25)
            number += 1
    if damaged:
        raise MediaError("it breaks off")


def number_of(frame: np.ndarray) -> int:
    return int(frame[0, 0, 0]) * 256 + int(frame[0, 0, 1])


@settings(deadline=None, max_examples=25)
@given(
    shots=st.lists(st.integers(2, 40), min_size=1, max_size=4),
    frames=st.integers(1, 12),
    stride=st.none() | st.integers(1, 20),
    damaged=st.booleans(),
)
def test_every_frame_is_in_clips_or_in_one_refusal(shots: list[int], frames: int, stride: int | None, damaged: bool) -> None:
    chosen = PrepareSettings(frames=frames, stride=stride, size="8", stabilise="off", frozen=-1)

    def read(*arguments: Any, **options: Any) -> Iterator[Frame]:
        return frames_of(shots, damaged)

    with patch.object(cutting, "open_source", read):
        results = list(Cutter(Source("a.mp4", "/a.mp4", "video", 1), 0, chosen).cut())
    clips = [result for result in results if isinstance(result, Clip)]
    refused = [result for result in results if not isinstance(result, Clip) and result.first is not None]
    for clip in clips:
        first = clip.record.first_frame
        assert [number_of(frame) for frame in clip.video] == list(range(first, first + frames))
    in_clips = Counter(first + t for first in (clip.record.first_frame for clip in clips) for t in range(frames))
    in_refusals = Counter(n for r in refused for n in range(r.first or 0, (r.last or 0) + 1))
    total = sum(shots)
    assert not in_clips.keys() & in_refusals.keys()
    assert all(count == 1 for count in in_refusals.values())
    assert max([*in_clips, *in_refusals]) < total
    starts = np.cumsum([0, *shots])
    step = stride or frames
    assert all(
        first >= s and first + frames <= e for first in (c.record.first_frame for c in clips) for s, e in shot_of(first, starts)
    )
    if step <= frames:
        assert in_clips.keys() | in_refusals.keys() == set(range(total))
    assert len(clips) == sum(max(0, (length - frames) // step + 1) for length in shots if length >= frames)
    assert any("error" in r.detail for r in results if not isinstance(r, Clip)) == damaged


def shot_of(frame: int, starts: np.ndarray) -> list[tuple[int, int]]:
    shot = int(np.searchsorted(starts, frame, side="right")) - 1
    return [(int(starts[shot]), int(starts[shot + 1]))]


@settings(deadline=None)
@given(st.lists(st.floats(1e-4, 100), max_size=200), st.floats(0, 2**31))
def test_tasks_hold_every_item_once(costs: list[float], size: float) -> None:
    items = [number for first, stop in divide(costs, [size] * len(costs)) for number in range(first, stop)]
    assert items == list(range(len(costs)))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 6)), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_no_group_is_in_both_splits_and_no_split_is_empty(sources: list[tuple[int, int]], share: float) -> None:
    if len({group for _, group in sources}) < 2:
        return
    named = [Source(f"{n}.mp4", f"/{n}.mp4", "video", 1, frames=k, group=str(g)) for n, (k, g) in enumerate(sources)]
    divided = split_by_group(named, share)
    splits = {source.group: source.split for source in divided}
    assert all(source.split == splits[source.group] for source in divided)
    assert set(splits.values()) == {"train", "test"}
