"""Whatever is completed: every frame is filled in once, and what is known stays as it was."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.shape import ClipShape
from kinema.data.fitting import fitting, working_size
from kinema.data.windows import complete, windows

SIDES = st.integers(1, 40)


@given(st.integers(1, 60), st.integers(1, 12), st.data(), st.booleans())
def test_windows_cover_every_frame_and_begin_where_something_is_known(
    frames: int, window: int, data: st.DataObject, backward: bool
) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    spans = windows(frames, window, overlap, backward=backward)
    assert all(len(span) == min(window, frames) for span in spans)
    assert spans[-1 if backward else 0].start == 0
    seen = set(spans[0])
    for span in spans[1:]:
        new = set(span) - seen
        assert new
        assert len(seen & set(span)) >= overlap
        assert (max(new) < min(seen)) if backward else (min(new) > max(seen))
        seen |= new
    assert seen == set(range(frames))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 9), st.data(), st.booleans())
def test_known_pixels_stay_and_unknown_ones_are_filled_in_once(
    frames: int, window: int, data: st.DataObject, backward: bool
) -> None:
    overlap = data.draw(st.integers(0, window - 1))
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    video = generator.integers(0, 256, (frames, 3, 4, 3), np.uint8)
    known = generator.random((frames, 3, 4)) < data.draw(st.sampled_from([0, 0.3, 0.9, 1]))
    calls = []

    def fill(clip: np.ndarray, given: np.ndarray, number: int) -> np.ndarray:
        assert clip.shape == (window, 3, 4, 3)
        assert not given.all()
        calls.append((number, given))
        return np.full_like(clip, 200 + number % 50)  # whatever is known too

    spans = windows(frames, window, overlap, backward=backward)
    made = complete(video, known, spans, window, fill, backward=backward)
    np.testing.assert_array_equal(made[known], video[known])
    first = {frame: number for number, span in reversed(list(enumerate(spans))) for frame in span}
    numbers = np.array([first[frame] for frame in range(frames)])[:, None, None]
    np.testing.assert_array_equal(made[~known], np.broadcast_to(200 + numbers % 50, known.shape)[~known][:, None].repeat(3, 1))
    for number, given_known in calls:
        for place, frame in enumerate(spans[number], (window - len(spans[number])) if backward else 0):
            assert given_known[place].all() == (known[frame].all() or first[frame] < number)


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["crop", "letterbox"]), st.integers(0, 2**32))
def test_a_system_learns_nothing_of_what_is_hidden(width: int, height: int, wide: int, tall: int, fit: str, seed: int) -> None:
    """Fails when hidden pixels are told by INTER_NEAREST alone."""
    generator = np.random.default_rng(seed)
    way = fitting((width, height), (wide, tall), fit)  # pyright: ignore[reportArgumentType]
    known = generator.random((height, width)) < 0.8
    image = generator.integers(0, 256, (height, width, 3), np.uint8)
    other = np.where(known[..., None], image, 255 - image)
    given_known = way.known_inward(known)
    assert given_known.shape == (tall, wide)
    assert way.inward(image).shape == (tall, wide, 3)
    np.testing.assert_array_equal(way.inward(image)[given_known], way.inward(other)[given_known])
    assert way.known_inward(np.ones_like(known)).all()
    assert way.outward(way.inward(image)).shape == way.cut(image).shape
    if fit == "letterbox":
        assert way.cut(image).shape == image.shape


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 4), st.integers(1, 8), st.integers(1, 8))
def test_the_working_size_is_of_the_footprint_and_of_the_training_size_for_its_own_aspect(
    width: int, height: int, scale: int, high: int, wide: int
) -> None:
    footprint = (4, 8, 16)
    trained = ClipShape(16, 8 * high, 16 * wide)
    found = working_size((width, height), trained, footprint)
    assert found[0] % 16 == 0
    assert found[1] % 8 == 0
    assert working_size((trained.width * scale, trained.height * scale), trained, footprint) == (trained.width, trained.height)
