"""Units whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.evaluation.layers import Layer, ReceptiveField, layers_of
from kinema.evaluation.units import (
    AT_ONCE,
    Activity,
    Question,
    chance_share,
    chosen_units,
    concentration,
    discrepancy,
    enlarged,
    half_extent,
    look,
    measure_activity,
    most_frequent,
    movement,
    patches,
    receptive_field,
    selectivity,
    settle,
    top_clips,
    usual_occlusions,
)
from small_watchers import Watching, WatchingConfig, bright_square

SHAPE = (8, 32, 32)
SIDE = 6


def quiet(what: str, done: int, total: int) -> None:
    pass


def clip_with_square(frame: int, top: int, left: int, level: int = 255) -> np.ndarray:
    """A black clip with a square of 6 pixels in 6 frames."""
    clip = np.zeros((*SHAPE, 3), np.uint8)
    clip[frame : frame + SIDE, top : top + SIDE, left : left + SIDE] = level
    return clip


PLACES = [(0, 5, 7), (1, 13, 21), (2, 21, 9)]
CLIPS = [np.zeros((*SHAPE, 3), np.uint8)] * 9 + [
    clip_with_square(*place, level) for place, level in zip(PLACES, (250, 200, 150), strict=True)
]


def read(numbers):
    return [CLIPS[number] for number in numbers]


def second_layer(rank: int) -> Layer:
    return layers_of(Watching(bright_square(rank)))[1]


def centre_of(lit: np.ndarray) -> np.ndarray:
    return np.argwhere(lit).mean(axis=0)


def seen(layer: Layer, unit: int = 0):
    activity = measure_activity(layer, read, range(len(CLIPS)), 0.02, quiet)
    return look(layer, read, activity, range(len(CLIPS)), Question((unit,), top=3, occlusions=0), quiet)[0]


@pytest.mark.parametrize("rank", [2, 3])
def test_the_top_clips_are_those_with_the_brightest_squares(rank: int) -> None:
    view = seen(second_layer(rank))
    wanted = [9] if rank == 2 else [9, 10, 11]  # of a picture, only the first frame counts, where one square is
    assert view.clips[: len(wanted)] == wanted
    assert view.highest == sorted(view.highest, reverse=True)


def distance(layer: Layer) -> float:
    """Largest distance along an axis between the middles of the squares and of the lit regions."""
    view = seen(layer)
    middles = [np.array(place) + (SIDE - 1) / 2 for place in PLACES]
    pairs = zip(view.regions, middles, strict=True) if layer.moving else [(view.regions[0], middles[0] * (0, 1, 1))]
    return max(float(np.abs(centre_of(lit) - middle)[1:].max()) for lit, middle in pairs)


@pytest.mark.parametrize("rank", [2, 3])
def test_the_lit_region_is_where_the_square_is(rank: int) -> None:
    """Within half a step of the map; when the map is brought back a step too far to either side, it is not."""
    layer = second_layer(rank)
    field, step = layer.field, layer.field.stride[0]
    assert distance(layer) <= step / 2
    for shift in (step, -step):
        moved = replace(layer, field=replace(field, start=tuple(start + shift for start in field.start)))
        assert distance(moved) > step / 2


def test_maps_are_brought_back_between_the_centres() -> None:
    """By hand: the second layer sees pixels -3 to 6 first, of centre 1.5, then 5.5; pixels beside a centre have its value."""
    layer = layers_of(Watching(bright_square(2), WatchingConfig(1, 8, 12)))[1]
    found = enlarged(layer, np.array([[0.0, 3, 3], [6, 9, 9]]), (8, 12))
    assert np.allclose(found[0], [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3])
    assert np.allclose(found[:, 0], [0, 0, 0, 2, 4, 6, 6, 6])
    assert np.allclose(found[3, 3], 3)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize(("unit", "middle"), [(0, 4.5), (4, 2.5)])
def test_a_receptive_field_is_smaller_than_the_kernels_allow(rank: int, unit: int, middle: float) -> None:
    """4 of 10 along every axis, in the middle of the box or 2 before it: see `bright_square`."""
    layer = second_layer(rank)
    white = np.full((16, 32, 32, 3), 255, np.uint8)
    field = receptive_field(
        layer, unit, [(white, place[-rank:]) for place in ((2, 4, 3), (1, 2, 5))], Question(occlusions=1500)
    )
    assert layer.field.extent == (10,) * rank
    assert field.patch == (1,) * rank
    assert field.extent == (4,) * rank
    assert np.argwhere(field.change > 0).mean(axis=0).tolist() == [middle] * rank
    assert field.clips == 2


def test_receptive_fields_at_the_border_are_put_in_their_place() -> None:
    """What lies beyond the clip is not seen in one clip and is in the other; averaged, the field is where it was."""
    white = np.full((16, 32, 32, 3), 255, np.uint8)
    layer = second_layer(2)
    alone, both = (
        receptive_field(layer, 4, tops, Question()) for tops in ([(white, (4, 3))], [(white, (0, 0)), (white, (4, 3))])
    )
    assert np.allclose(both.change[3:, 3:], alone.change[3:, 3:], rtol=0.5)
    assert np.allclose(both.change[:3], alone.change[:3])


def test_patches_give_the_changes_of_the_whole_clip() -> None:
    """Computing only what a position can see gives what occluding the whole clip gives, in the middle and at the borders."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv3d(3, 4, 4, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Conv3d(4, 5, 3, stride=2, padding=1))
    layer = layers_of(Watching(network))[1]
    clip = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    patch, stride = (3, 5, 4), (2, 2, 3)
    for place in ((0, 0, 0), (1, 4, 3), (1, 7, 7)):
        inside, change = discrepancy(layer, 2, clip, place, patch, stride, None)
        box = [(max(low, 0), min(high, side)) for (low, high), side in zip(layer.field.box(place), SHAPE, strict=True)]
        video = layer.view(torch.from_numpy(clip)[None])
        total, count = np.zeros(SHAPE), np.zeros(SHAPE)
        with torch.inference_mode():
            whole = layer.steps(video)[(0, 2, *place)]
            starts = [range(low + s - p, high, s) for (low, high), p, s in zip(box, patch, stride, strict=True)]
            for corner in ((t, y, x) for t in starts[0] for y in starts[1] for x in starts[2]):
                hole = tuple(slice(max(0, c), c + p) for c, p in zip(corner, patch, strict=True))
                altered = video.clone()
                altered[(slice(None), slice(None), *hole)] = 0
                total[hole] += abs(float(layer.steps(altered)[(0, 2, *place)] - whole))
                count[hole] += 1
        part = tuple(slice(low, high) for low, high in box)
        assert change.max() > 0
        assert np.allclose(change, total[part] / count[part], atol=1e-6)
        assert [s.stop - s.start for s in inside] == [high - low for low, high in box]


def test_grey_patches_do_not_show_on_grey_and_noise_does() -> None:
    layer = second_layer(2)
    grey = np.full((*SHAPE, 3), 128, np.uint8)
    fields = [receptive_field(layer, 0, [(grey, (4, 4))], Question(occluder=kind)) for kind in ("grey", "noise")]
    assert fields[0].change.max() < 0.01 < fields[1].change.max()
    again = receptive_field(layer, 0, [(grey, (4, 4))], Question(occluder="noise"))
    assert np.array_equal(fields[1].change, again.change)
    other = receptive_field(layer, 0, [(grey, (4, 4))], Question(occluder="noise", seed=1))
    assert not np.array_equal(fields[1].change, other.change)


@pytest.mark.parametrize("most", [27, 100, 512, 5000])
def test_patches_are_as_small_as_their_number_allows(most: int) -> None:
    layer = second_layer(3)
    patch, stride = patches(layer, SHAPE, most)
    count = np.prod([len(range(s - p, min(e, w), s)) for p, s, e, w in zip(patch, stride, (10,) * 3, SHAPE, strict=True)])
    assert count <= most
    assert stride == tuple(max(1, side // 2) for side in patch)
    assert all(np.array(patch) >= patches(layer, SHAPE, most + 2000)[0])


def test_patches_are_fewer_where_much_is_seen_at_once() -> None:
    """By hand, for VGAN at 32x64x64: the third layer sees 22 x 22 x 22 of it, the fourth 32 x 46 x 46, more than half."""
    third, fourth = (replace(second_layer(3), field=ReceptiveField((side,) * 3, (1,) * 3, (0,) * 3)) for side in (22, 46))
    assert usual_occlusions(third, ClipShape(32, 64, 64)) == 512
    assert usual_occlusions(fourth, ClipShape(32, 64, 64)) == int(64 / (46 / 64) ** 2) == 123


def test_peaks_and_thresholds_are_those_of_all_activations() -> None:
    torch.manual_seed(0)
    layer = layers_of(Watching(nn.Sequential(nn.Conv3d(3, 3, 4, stride=2, padding=1))))[0]
    clips = np.random.default_rng(1).integers(0, 256, (AT_ONCE + 3, *SHAPE, 3), dtype=np.uint8)
    order = list(range(len(clips)))[::-1]
    activity = measure_activity(layer, lambda numbers: [clips[n] for n in numbers], order, 0.01, quiet)
    with torch.inference_mode():
        maps = layer.steps(layer.view(torch.from_numpy(clips[order]))).flatten(2).numpy()
    assert np.allclose(activity.highest, maps.max(axis=2))
    assert np.array_equal(activity.place, maps.argmax(axis=2))
    assert np.allclose(activity.lowest, maps.min(axis=(0, 2)))
    for unit in range(3):
        every = np.sort(maps[:, unit].ravel())[::-1]
        assert np.isclose(activity.threshold[unit], every[int(np.ceil(0.01 * every.size)) - 1])


def test_dead_and_silent_units_are_told_apart() -> None:
    activity = measure_activity(second_layer(3), read, range(len(CLIPS)), 0.01, quiet)
    assert activity.dead.tolist() == [False, True, False, False, False]
    assert activity.silent.tolist() == [False, False, True, False, False]
    assert 1 not in chosen_units(activity, Question())
    assert chosen_units(activity, Question())[0] == 0  # answers to three of twelve clips
    assert chosen_units(activity, Question((3, 1, 0))) == [0, 1, 3]  # a dead one only where asked for
    with pytest.raises(EvaluationError, match="the layer has no unit 5; its units are 0 to 4"):
        chosen_units(activity, Question((0, 5)))


def test_a_unit_that_is_zero_nearly_always_lights_no_more_than_its_answer() -> None:
    """Its threshold is zero, which everything reaches."""
    layer = second_layer(3)
    activity = measure_activity(layer, read, range(len(CLIPS)), 0.5, quiet)
    assert activity.threshold[0] == activity.lowest[0] == 0
    view = look(layer, read, activity, range(len(CLIPS)), Question((0,), top=4, occlusions=0), quiet)[0]
    assert 0 < view.regions[0].mean() < 0.5
    assert view.regions[3].sum() == 0  # a black clip


def test_selectivity_by_hand() -> None:
    answers = np.array([[1, 2, 0, 3, -1], [0, 2, 0, 1, -1], [0, 2, 0, 0, -1], [0, 2, 0, 0, -1]], np.float32)
    # The fourth: mean 1, mean square 2.5, so (1 - 0.4) / (1 - 1/4).
    assert np.allclose(selectivity(answers), [1, 0, 0, 0.8, 0])


def test_top_clips_are_of_different_origins() -> None:
    answers = np.array([3.0, 9, 8, 8, 7, 1])
    assert top_clips(answers, "abcdef", 3) == [1, 2, 3]
    assert top_clips(answers, "aabbcc", 3) == [1, 2, 4]
    assert top_clips(answers, "aaaaaa", 3) == [1]


def test_labels_against_chance() -> None:
    assert most_frequent(["b", "a", "b", "a", "c"]) == ("a", 0.4)
    labels, origins = ["x", "y"] * 50, range(100)
    # Two draws of two labels are alike half of the time (49/99 exactly): the mean share is 3/4.
    assert chance_share(labels, origins, 2, seed=0) == pytest.approx(0.5 + 0.5 * 49 / 99, abs=0.04)
    assert chance_share(["x"] * 9, range(9), 3, seed=0) == 1


def test_half_of_the_peak_by_hand() -> None:
    change = np.zeros((5, 7))
    assert half_extent(change) == (0, 0)
    change[2, 1:6] = (0.4, 0.5, 1, 0.5, 0.49)
    assert half_extent(change) == (1, 3)


def test_concentration_and_movement_by_hand() -> None:
    clip = np.zeros((3, 2, 2, 3), np.uint8)
    clip[1:, 0, 0] = 90
    moves = movement(clip)
    assert moves[0, 0, 0] == moves[1, 0, 0] == 90
    assert moves.sum() == 180
    lit = np.zeros((3, 2, 2), bool)
    lit[1, 0] = True  # a pixel that moves by 90 and one that does not, where the mean over 12 is 15
    assert concentration([lit], [moves]) == pytest.approx(3)
    assert concentration([lit & False], [moves]) is None
    assert concentration([lit], [moves * 0]) is None


def test_an_untrained_network_gets_the_statistics_of_the_clips() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    layer = layers_of(Watching(network))[0]
    settle(layer, read, range(len(CLIPS)), quiet)
    answers = layer.steps[0](layer.view(torch.from_numpy(np.stack(CLIPS)))).mean(dim=(0, 2, 3))
    assert torch.allclose(layer.steps[1].running_mean, answers, rtol=0.01)
    assert layer.steps[1].momentum == 0.1
    assert not layer.steps.training


def test_activity_of_one_clip_has_a_selectivity() -> None:
    assert np.isfinite(selectivity(np.ones((1, 3), np.float32))).all()
    nothing = Activity(np.zeros((1, 2), np.float32), np.zeros((1, 2), np.int64), *np.zeros((2, 2), np.float32))
    assert nothing.dead.all()
