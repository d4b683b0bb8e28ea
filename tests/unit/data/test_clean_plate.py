"""A clean plate is what stays behind whatever moves; nothing is taken from it where the completion says otherwise."""

import numpy as np
import pytest

from kinema.core.shape import ClipShape
from kinema.data import clean_plate
from kinema.data.clean_plate import LEAST, SIGHTINGS, TIMES, agreeing, grown, may_help, settled
from kinema.data.masks import ends, outside_box

SHAPE = ClipShape(12, 24, 36)
TRACK = [(x, 8, 9, 9) for x in np.linspace(0, 27, 12).tolist()]
WALL = np.random.default_rng(0).integers(60, 200, (24, 36, 3), np.uint8)


def filmed() -> np.ndarray:
    """A wall that shimmers by one level, and in front of it, at times, a white ball."""
    clip = WALL + np.random.default_rng(1).integers(0, 2, (12, 24, 36, 3), np.uint8)
    clip[4:6, 2:6, 20:24] = 255
    return clip


def test_the_wall_is_found_behind_the_mask_and_the_ball() -> None:
    known = outside_box(SHAPE, TRACK)
    clip = np.where(known[..., None], filmed(), np.uint8(255))
    plate = clean_plate.clean_plate(clip, known)
    assert plate.sure.all()
    assert np.abs(plate.picture.astype(int) - WALL).max() <= 1


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_pixels_are_asked_for_in_any_number(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, known = filmed(), outside_box(SHAPE, TRACK)
    whole = clean_plate.clean_plate(clip, known)
    monkeypatch.setattr(clean_plate, "CHUNK", chunk)
    where = np.zeros((24, 36), bool)
    where[3:9, 30:] = True
    part = clean_plate.clean_plate(clip, known, where)
    np.testing.assert_array_equal(part.picture[where], whole.picture[where])
    assert part.sure[where].all()
    assert not part.sure[~where].any()


def test_a_place_counts_that_was_seen_often_and_stays() -> None:
    clip, known = filmed(), outside_box(SHAPE, TRACK)
    moving = np.stack([np.roll(frame, 3 * t, axis=1) for t, frame in enumerate(clip)])
    assert clean_plate.clean_plate(moving, known).sure.mean() < 0.05
    once = known.copy()
    once[SIGHTINGS - 1 :, 10, 10] = False
    assert not clean_plate.clean_plate(clip, once).sure[10, 10]


@pytest.mark.parametrize(("off", "more"), [(0, LEAST - 2), (7, 7 * TIMES - 2)])
def test_the_plate_is_taken_where_the_completion_agrees(off: int, more: int) -> None:
    """The less well a system remembers what it is shown, the farther it may be from the plate."""
    clip, known = filmed(), outside_box(SHAPE, TRACK)
    made = np.where(known[..., None], clip.clip(max=255 - off) + np.uint8(off), clip + np.uint8(more))
    made[3, 10:12, 9:12] = 0  # somebody who stands there just now
    result = settled(made, np.where(known[..., None], clip, np.uint8(128)), known)
    np.testing.assert_array_equal(result[known], made[known])
    assert (result[3, 10:12, 9:12] == 0).all()
    further = settled(np.where(known[..., None], made, made + np.uint8(4)), clip, known)
    assert np.abs(further[~known].astype(int) - made[~known]).min() == 4
    result[3, 10:12, 9:12] = WALL[10:12, 9:12]
    assert np.abs(result[~known].astype(int) - np.broadcast_to(WALL, clip.shape)[~known]).max() <= 1


def test_what_is_predicted_is_left_alone() -> None:
    clip, known = filmed(), ends(SHAPE, 6, 0)
    assert not agreeing(clip, clip, known, clean_plate.clean_plate(clip, known)).any()
    np.testing.assert_array_equal(settled(clip + np.uint8(3), clip, known), clip + np.uint8(3))


def test_a_mask_that_stands_still_has_nothing_behind_it() -> None:
    standing = outside_box(SHAPE, (8, 8, 9, 9))
    assert not may_help(standing)
    assert may_help(outside_box(SHAPE, TRACK))
    clip = filmed()
    np.testing.assert_array_equal(settled(clip, clip, standing), clip)


def test_a_region_grows() -> None:
    where = np.zeros((9, 9), bool)
    where[4, 4] = True
    assert grown(where, 2).sum() == 25
    np.testing.assert_array_equal(grown(where, 0), where)
