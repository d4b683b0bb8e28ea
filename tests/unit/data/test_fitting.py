"""Sizes and places, by hand."""

import numpy as np
import pytest

from kinema.core.shape import ClipShape
from kinema.data.fitting import fitting, working_size

TRAINED, FOOTPRINT = ClipShape(16, 48, 32), (4, 8, 8)


@pytest.mark.parametrize(
    ("source", "working"), [((320, 480), (32, 48)), ((480, 320), (48, 32)), ((64, 64), (40, 40)), ((1000, 10), (392, 8))]
)
def test_the_system_works_near_its_training_area_and_the_footage_s_aspect(
    source: tuple[int, int], working: tuple[int, int]
) -> None:
    assert working_size(source, TRAINED, FOOTPRINT) == working


def test_what_happens_is_said() -> None:
    assert fitting((32, 48), (32, 48), "crop").describe() == "32x48 as it is"
    assert fitting((320, 480), (32, 48), "letterbox").describe() == "320x480 scaled to 32x48"
    assert fitting((320, 240), (32, 32), "letterbox").describe() == "320x240 scaled to 32x24 and letterboxed in 32x32"
    assert fitting((320, 240), (32, 32), "crop").describe() == "of 320x240 the middle 240x240, scaled to 32x32"


def test_a_letterbox_repeats_edges_and_is_cut_off_again() -> None:
    image = np.repeat(np.arange(4, dtype=np.uint8)[:, None, None] * 20, 8, axis=1).repeat(3, axis=2)
    way = fitting((8, 4), (8, 8), "letterbox")
    seen = way.inward(image)
    assert seen[:, 0, 0].tolist() == [0, 0, 0, 20, 40, 60, 60, 60]
    np.testing.assert_array_equal(way.outward(seen), image)
    assert way.known_inward(np.ones((4, 8), bool)).all()


def test_one_hidden_pixel_of_a_large_picture_hides_the_small_one() -> None:
    known = np.ones((1600, 1600), bool)
    known[5, 5] = False
    small = fitting((1600, 1600), (8, 8), "letterbox").known_inward(known)
    assert not small[0, 0]
    assert small.sum() == 63
