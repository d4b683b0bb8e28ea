"""Masks, by hand."""

import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.core.shape import ClipShape
from kinema.data.masks import ends, first_frames, last_frames, outside_box

SHAPE = ClipShape(4, 3, 5)


def test_frames_at_the_ends_are_known() -> None:
    frames = {"first": first_frames(SHAPE, 2), "last": last_frames(SHAPE, 1), "ends": ends(SHAPE), "some": ends(SHAPE, 1, 2)}
    assert {name: known.all((1, 2)).tolist() for name, known in frames.items()} == {
        "first": [True, True, False, False],
        "last": [False, False, False, True],
        "ends": [True, False, False, True],
        "some": [True, False, True, True],
    }
    assert all((known.any((1, 2)) == known.all((1, 2))).all() for known in frames.values())
    assert not first_frames(SHAPE, 0).any()


def test_what_a_box_touches_is_hidden() -> None:
    known = outside_box(SHAPE, (1, 1.5, 2.5, 1))
    expected = np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 0, 0, 1]], bool)
    np.testing.assert_array_equal(known, np.stack([expected] * 4))


def test_a_box_per_frame_may_reach_over_the_edge_or_lie_outside() -> None:
    track = [(-3, -3, 4, 4), (4, 2, 9, 9), (50, 0, 2, 2), (-9, -9, 2, 2)]
    known = outside_box(SHAPE, track)
    assert [(~frame).sum() for frame in known] == [1, 1, 0, 0]
    assert not known[0, 0, 0]
    assert not known[1, 2, 4]


@pytest.mark.parametrize(
    ("box", "sentence"),
    [
        ((9, 0, 2, 2), "the box 9,0,2,2 hides nothing of frames of 5x3"),
        ((0, 0, -1, 2), "0,0,-1,2 is no box"),
        ((0, 0, np.nan, 2), "0,0,nan,2 is no box"),
        ([(0, 0, 1, 1)] * 3, r"boxes of shape \(3, 4\); give x, y, width, height, or one such row for each of the 4 frames"),
        (np.zeros(3), r"boxes of shape \(3,\)"),
    ],
)
def test_boxes_that_cannot_be(box: object, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        outside_box(SHAPE, box)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("first", "last"), [(5, 0), (0, 5), (3, 2), (-1, 2)])
def test_more_frames_than_there_are(first: int, last: int) -> None:
    with pytest.raises(DataError, match="of a clip of 4; take 0 to 4 in all"):
        ends(SHAPE, first, last)
