from collections import Counter
from fractions import Fraction

import av
import av.filter
import cv2
import numpy as np
import pytest

from kinema.data.encode import write_video
from kinema.data.media import Frame, contain, read_frames
from kinema.data.shots import LOOK_SIZE, _Meter, number_shots


def panning_shot(seed, frames, height=48, width=64):
    wide = np.random.default_rng(seed).integers(0, 255, (height // 8, width // 2, 3), np.uint8)
    wide = cv2.resize(wide, (4 * width, height))
    return [np.ascontiguousarray(wide[:, 2 * t : 2 * t + width]) for t in range(frames)]


@pytest.fixture
def three_shots():
    return panning_shot(0, 12) + panning_shot(1, 9) + panning_shot(2, 15)


def as_frames(images):
    return [Frame(t / 25, image) for t, image in enumerate(images)]


def lengths(frames, threshold=10.0):
    """Return how many frames each shot has."""
    return list(Counter(shot for shot, _ in number_shots(frames, threshold)).values())


def test_shots_begin_where_the_picture_changes_at_once(three_shots):
    assert lengths(as_frames(three_shots)) == [12, 9, 15]


def test_shots_of_a_compressed_file(tmp_path, three_shots):
    write_video(tmp_path / "clip.mp4", np.stack(three_shots), 25)
    assert lengths(read_frames(tmp_path / "clip.mp4", resize=contain(LOOK_SIZE, LOOK_SIZE))) == [12, 9, 15]


def test_large_frames_are_thinned_to_the_same_shots(three_shots):
    large = [image.repeat(8, axis=0).repeat(8, axis=1) for image in three_shots]
    assert lengths(as_frames(large)) == lengths(as_frames(three_shots))


def test_zero_looks_for_no_cuts_and_no_frames_have_no_shots(three_shots):
    assert lengths(as_frames(three_shots), threshold=0) == [36]
    assert lengths(as_frames([])) == []


def test_frames_pass_through_untouched_as_they_come(three_shots):
    frames = as_frames(three_shots)
    numbered = number_shots(iter(frames))
    assert next(numbered)[1] is frames[0]
    assert [number for number, _ in numbered] == [0] * 11 + [1] * 9 + [2] * 15


@pytest.mark.parametrize("size", [(16, 8), (16, 21), (40, 60), (400, 330)])
def test_the_threshold_is_in_percent_of_the_range(size):
    images = [np.full((*size, 3), grey, np.uint8) for grey in (100, 100, 100, 130, 130, 130)]  # a step of 30 / 256: 11.7 %
    assert len(lengths(as_frames(images), threshold=11.5)) == 2
    assert len(lengths(as_frames(images), threshold=12.0)) == 1


def test_scores_are_those_of_ffmpeg(three_shots):
    graph = av.filter.Graph()
    source = graph.add_buffer(width=64, height=48, format=av.VideoFormat("rgb24"), time_base=Fraction(1, 25))
    detector, sink = graph.add("scdet"), graph.add("buffersink")
    source.link_to(detector)
    detector.link_to(sink)
    graph.configure()
    meter = _Meter(three_shots[0])
    for t, image in enumerate(three_shots):
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.pts, frame.time_base = t, Fraction(1, 25)
        graph.push(frame)
        assert meter.score(image) == pytest.approx(float(graph.pull().metadata["lavfi.scd.score"]), abs=6e-4)
