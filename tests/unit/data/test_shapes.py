import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.data.shapes import CIRCLE_AREA, LABELS, ShapesSettings, bezier, render_clip, sample_path, stencil

SETTINGS = ShapesSettings()


@pytest.mark.parametrize("width", CIRCLE_AREA)
def test_areas_are_those_of_the_released_set(width: int) -> None:
    circle = stencil("circle", width)
    assert circle.sum() == {8: 47, 10: 79, 12: 111, 14: 151}[width]
    assert circle.any(axis=0).all()  # as wide and as high as its box
    assert circle.any(axis=1).all()
    assert stencil("square", width).sum() == width**2


def test_bezier_is_that_of_scipy() -> None:
    from scipy.interpolate import BPoly

    points = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(bezier(points, 9), BPoly(points[:, None], [0, 1])(np.linspace(0, 1, 9)), atol=1e-12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("width", CIRCLE_AREA)
def test_path_ends_as_measured(label: int, width: int) -> None:
    for seed in range(20):
        path = sample_path(label, width, SETTINGS, np.random.default_rng(seed))
        main, other = (path[:, 1], path[:, 0]) if label == 0 else (path[:, 0], path[:, 1])
        assert main[0] == pytest.approx(61.5 - width / 2)
        assert main[-1] == pytest.approx(width / 2 + 0.5)
        assert other[0] == pytest.approx(other[-1])
        assert path.min() >= width / 2 + 0.5 - 1e-9
        assert path.max() <= 61.5 - width / 2 + 1e-9


def test_clips_hold_one_constant_colour_so_that_acd_is_zero() -> None:
    for index in range(40):
        clip = render_clip(index, SETTINGS)
        assert clip.mask is not None
        shape = clip.mask > 0
        areas = shape.sum(axis=(1, 2))
        assert (areas == areas[0]).all()
        assert (clip.video[~shape] == 0).all()
        colours = np.stack([frame[inside].astype(float).mean(axis=0) for frame, inside in zip(clip.video, shape, strict=True)])
        pairwise = np.linalg.norm(colours[:, None] - colours[None], axis=-1)  # average content distance
        assert pairwise.mean() == 0
        np.testing.assert_array_equal(colours[0], clip.record.extra["colour"])


def test_the_class_can_be_read_off_the_motion_alone() -> None:
    labels = []
    for index in range(120):
        clip = render_clip(index, SETTINGS)
        assert clip.mask is not None
        y, x = (np.array([np.nonzero(inside)[axis].mean() for inside in clip.mask[[0, -1]]]) for axis in (0, 1))
        assert LABELS[int(abs(x[1] - x[0]) > abs(y[1] - y[0]))] == clip.record.label
        labels.append(clip.record.label)
    assert 35 < labels.count("vertical") < 85


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    one, again = render_clip(7, SETTINGS), render_clip(7, ShapesSettings(clips=9))
    np.testing.assert_array_equal(one.video, again.video)
    assert one.record == again.record
    assert (render_clip(7, ShapesSettings(seed=1)).video != one.video).any()


def test_a_picture_without_room_is_refused() -> None:
    with pytest.raises(ConfigError, match="size is 12; it must be at least 20"):
        ShapesSettings(size=12)
