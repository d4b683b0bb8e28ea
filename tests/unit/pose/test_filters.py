from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import savgol_filter

from kinema.core.errors import ConfigError
from kinema.data.media import Frame, resample
from kinema.data.motions import sample_motion
from kinema.data.performers import sample_identity
from kinema.data.stages import Stage
from kinema.pose import filters
from kinema.pose.kinematics import perform
from kinema.pose.noise import DetectorNoise, detect
from kinema.pose.sequence import Poses, concatenate
from kinema.pose.skeleton import COCO_18, anonymous

Filter = Callable[[Poses], Poses]

KEEPING: list[Filter] = [
    filters.fill_gaps,
    filters.drop_outliers,
    filters.drop_flips,
    filters.median,
    filters.exponential,
    filters.savitzky_golay,
    filters.one_euro,
]
SMOOTHING: list[Filter] = [*KEEPING[3:], filters.block_mean]


def wave(frames: int = 30, *, noise: float = 0.5, parts: bool = True) -> Poses:
    rng = np.random.default_rng(0)
    points = np.ones((frames, 2, 18, 3), np.float32)
    points[..., 0] = 100 + 30 * np.sin(np.arange(frames) / 5)[:, None, None] + np.arange(18)
    points[..., 1] = 80 + np.arange(frames)[:, None, None]
    points[..., :2] += rng.normal(0, noise, points[..., :2].shape)
    points[..., 2] = 0.75
    more = {"face": points[:, :, [0] * 70], "hands": points[:, :, [[4] * 21, [7] * 21]]} if parts else {}
    return Poses(points, COCO_18, 320, 240, 25.0, **more)


def holes(poses: Poses, frames: list[int], joint: int = 4) -> Poses:
    points = poses.points.copy()
    points[frames, 0, joint] = 0
    return replace(poses, points=points)


def constant() -> Poses:
    return replace(concatenate([wave(24).window(0, 1)] * 24), begins=(0,))


@pytest.mark.parametrize("smooth", [*KEEPING, filters.block_mean])
def test_what_does_not_move_is_left_alone(smooth: Filter) -> None:
    poses = holes(constant(), [9, 10, 11])
    after = smooth(poses)
    for name in ("points", "face", "hands"):
        part = getattr(after, name)
        expected = np.broadcast_to(getattr(poses, name)[:1], part.shape)
        found = part[..., 2] > 0
        np.testing.assert_allclose(part[found], expected[found], atol=1e-4)


@pytest.mark.parametrize("smooth", KEEPING)
def test_length_is_kept(smooth: Filter) -> None:
    assert len(smooth(wave(11))) == 11


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_body_face_and_hands_are_smoothed_alike(smooth: Filter) -> None:
    after = smooth(wave())
    assert after.face is not None
    assert after.hands is not None
    np.testing.assert_allclose(after.face[:, :, 5], after.points[:, :, 0], rtol=1e-6)
    np.testing.assert_allclose(after.hands[:, :, 1, 9], after.points[:, :, 7], rtol=1e-6)
    assert np.abs(after.points[:5, ..., :2] - wave().points[:5, ..., :2]).max() > 0.1


@pytest.mark.parametrize("smooth", [*SMOOTHING, filters.drop_outliers, filters.fill_gaps])
def test_clips_do_not_see_one_another(smooth: Filter) -> None:
    one, other = holes(wave(12), [10, 11]), wave(8, noise=2).mapped(lambda points: points + 100)
    together, apart = smooth(concatenate([one, other])), concatenate([smooth(one), smooth(other)])
    np.testing.assert_array_equal(together.points, apart.points)
    assert together.begins == apart.begins
    assert together.fps == apart.fps


@pytest.mark.parametrize("smooth", [filters.median, filters.savitzky_golay, filters.fill_gaps])
def test_symmetric_filters_look_the_same_backwards(smooth: Filter) -> None:
    poses = holes(wave(parts=False), [3, 4, 20])
    backwards = replace(poses, points=poses.points[::-1].copy())
    np.testing.assert_allclose(smooth(backwards).points[::-1], smooth(poses).points, rtol=1e-5)


@pytest.mark.parametrize("smooth", SMOOTHING)
def test_missing_points_never_pull_a_value(smooth: Filter) -> None:
    poses = constant()
    points = poses.points.copy()
    points[[5, 6], 0, 4] = (9000, 9000, 0)
    after = smooth(replace(poses, points=points))
    found = after.points[..., 2] > 0
    np.testing.assert_allclose(after.points[found], np.broadcast_to(poses.points[:1], after.points.shape)[found], atol=1e-4)


# --- Gaps


def test_a_gap_is_bridged_by_a_straight_line_with_the_lower_confidence() -> None:
    poses = holes(wave(parts=False), [10, 11])
    poses.points[9, 0, 4], poses.points[12, 0, 4] = (10, 20, 0.9), (40, 50, 0.3)
    filled = filters.fill_gaps(poses, 2)
    np.testing.assert_allclose(filled.points[10:12, 0, 4], [[20, 30, 0.3], [30, 40, 0.3]], rtol=1e-6)
    assert np.argwhere(filters.filled_points(poses, filled)).tolist() == [[10, 0, 4], [11, 0, 4]]


def test_long_gaps_and_ends_stay_missing() -> None:
    poses = holes(wave(), [0, 1, 10, 11, 12, 29])
    assert not filters.filled_points(poses, filters.fill_gaps(poses, 2)).any()
    assert filters.filled_points(poses, filters.fill_gaps(poses, 3)).sum() == 3


# --- Outliers


def test_a_spike_becomes_missing_and_nothing_else_does() -> None:
    poses = wave(60)
    poses.points[[20, 21, 40], 0, 4, 0] += 150
    after = filters.drop_outliers(poses)
    assert np.argwhere(poses.present & ~after.present).tolist() == [[20, 0, 4], [21, 0, 4], [40, 0, 4]]


@pytest.mark.parametrize("frames", [1, 2])
def test_where_no_step_is_known_nothing_is_an_outlier(frames: int) -> None:
    assert filters.drop_outliers(wave(frames)).present.all()


def test_a_move_that_lasts_stays() -> None:
    poses = wave(60)
    poses.points[20:, 0, 4, 0] += 150
    assert filters.drop_outliers(poses).present.all()


# --- Upside down


def turning(angles: list[float], fps: float = 30.0, length: float | list[float] = 60.0) -> Poses:
    """Two people with face and hands; the second one's trunk is turned by angles (0 upright), the first one's never."""
    poses = wave(len(angles), noise=0.0)
    for person, turns in enumerate(([0.0] * len(angles), angles)):
        way = np.stack([np.sin(np.radians(turns)), np.cos(np.radians(turns))], axis=-1) * np.reshape(length, (-1, 1)) / 2
        for names, sign in ((("RShoulder", "LShoulder"), -1), (("RHip", "LHip"), 1)):
            poses.points[:, person, [COCO_18.index(name) for name in names], :2] = (160 + sign * way)[:, None]
    return replace(poses, fps=fps)


@pytest.mark.parametrize(
    "angles", [[5] * 9 + [176] * 4 + [170] + [4] * 9, [0] * 8 + [90, 170, 178] + [3] * 9, [175] * 7 + [0] * 8]
)
def test_whom_a_detector_turns_over_is_missing_for_as_long(angles: list[float]) -> None:
    poses = turning(angles)
    after = filters.drop_flips(poses)
    down = np.array(angles) > 90
    assert filters.flips(poses).tolist() == [[False, bad] for bad in down]
    for part in (after.points, after.face, after.hands):
        assert part is not None
        assert (part[~down, 1, ..., 2] > 0).all()
        assert (part[down, 1, ..., 2] == 0).all()
        assert (part[:, 0, ..., 2] > 0).all()


@pytest.mark.parametrize(
    "poses",
    [
        turning([20 * frame for frame in range(19)]),  # a cartwheel in 0.6 seconds
        turning([0] * 5 + [178] * 31 + [0] * 5),  # a second and more
        turning([0] * 5 + [178] * 4 + [0] * 5, fps=12),  # too slow to know
        turning([0] * 8 + [178] * 4 + [0] * 8, length=[60] * 7 + [9] * 6 + [60] * 7),  # somebody bows towards the camera
        replace(turning([0] * 8 + [178] * 8), begins=(0, 8)),  # another clip
    ],
)
def test_who_turns_over_by_themselves_stays(poses: Poses) -> None:
    assert filters.drop_flips(poses).present.all()


def test_points_without_names_have_no_trunk() -> None:
    poses = turning([0] * 5 + [178] * 4 + [0] * 5)
    assert filters.flips(poses).any()
    assert not filters.flips(replace(poses, skeleton=anonymous(18))).any()


# --- Smoothing


def test_one_spike_in_seven_is_removed_by_the_median_and_not_by_the_mean() -> None:
    poses = constant()
    usual = float(poses.points[0, 0, 4, 0])
    poses.points[10, 0, 4, 0] += 70
    assert filters.median(poses).points[10, 0, 4, 0] == pytest.approx(usual)
    assert filters.block_mean(poses, 7).points[1, 0, 4, 0] == pytest.approx(usual + 10, abs=1e-3)


def test_the_median_of_found_frames_by_hand() -> None:
    poses = holes(constant(), [7, 8, 9])
    poses.points[[4, 5, 6, 10], 0, 4, 0] = [1, 2, 9, 5]
    after = filters.median(poses).points[7, 0, 4]  # frames 4 to 10: four found of seven
    np.testing.assert_allclose(after, [3.5, poses.points[0, 0, 4, 1], 0.75], rtol=1e-6)


def test_the_median_lets_a_point_go_that_is_missing_in_most_of_the_window() -> None:
    after = filters.median(holes(constant(), [6, 7, 8, 9]))
    assert after.present[:, 0, 4].tolist() == [not 6 <= time <= 9 for time in range(24)]


def test_a_block_mean_by_hand() -> None:
    poses = holes(wave(parts=False, frames=11), [5])
    after = filters.block_mean(poses, 4)
    assert (len(after), after.fps) == (2, 6.25)
    np.testing.assert_allclose(after.points[0, 1], poses.points[:4, 1].mean(axis=0), rtol=1e-6)
    assert not after.present[1, 0, 4]
    assert after.present.sum() == 2 * 2 * 18 - 1


def test_clips_without_a_block_vanish() -> None:
    after = filters.block_mean(concatenate([wave(5), wave(3), wave(9)]), 4)
    assert (len(after), after.begins) == (3, (0, 1))
    with pytest.raises(ConfigError, match="no clip has the 4 frames"):
        filters.block_mean(wave(3), 4)


def test_the_moving_average_by_hand() -> None:
    poses = holes(constant(), [2])
    poses.points[:4, 0, 4, 0] = [10, 20, np.nan, 30]
    after = filters.exponential(poses).points[:4, 0, 4, 0]
    np.testing.assert_allclose(after, [10, 12.5, np.nan, 16.875])


def test_savitzky_golay_is_scipys_on_whole_tracks_and_never_crosses_a_gap() -> None:
    poses = holes(wave(), [13])
    after = filters.savitzky_golay(poses, 7, 2)
    np.testing.assert_allclose(after.points[:, 0, 3, 0], savgol_filter(poses.points[:, 0, 3, 0], 7, 2), rtol=1e-5)
    np.testing.assert_allclose(after.points[:13, 0, 4, 0], savgol_filter(poses.points[:13, 0, 4, 0], 7, 2), rtol=1e-5)
    assert not after.present[13, 0, 4]


def test_savitzky_golay_fits_short_runs_with_what_they_have() -> None:
    poses = holes(wave(), [5, 10, 13, 15])
    after = filters.savitzky_golay(poses, 7, 2).points[:, 0, 4, 0]
    found = poses.points[:, 0, 4, 0]
    np.testing.assert_allclose(after[:5], savgol_filter(found[:5], 5, 2), rtol=1e-5)
    np.testing.assert_allclose(after[6:10], savgol_filter(found[6:10], 3, 2), rtol=1e-5)
    np.testing.assert_array_equal(after[[11, 12, 14]], found[[11, 12, 14]])
    np.testing.assert_allclose(after[16:], savgol_filter(found[16:], 7, 2), rtol=1e-5)


def test_one_euro_by_hand() -> None:
    poses = constant()
    poses.points[0, 0, 4, 0], poses.points[1, 0, 4, 0] = 0, 10
    fps, cutoff, beta = 25, 2.0, 0.1
    speed = 10 * fps / (1 + fps / (2 * np.pi))
    alpha = 1 / (1 + fps / (2 * np.pi * (cutoff + beta * speed)))
    after = filters.one_euro(poses, cutoff, beta * poses.height).points[:2, 0, 4, 0]
    np.testing.assert_allclose(after, [0, 10 * alpha], rtol=1e-6)


def test_one_euro_calms_what_rests_and_follows_what_moves() -> None:
    rng = np.random.default_rng(0)
    rest = constant()
    noisy = rest.mapped(lambda points: points + rng.normal(0, 1, points.shape))
    assert np.abs(filters.one_euro(noisy).points - rest.points)[10:].mean() < 0.7 * np.abs(noisy.points - rest.points).mean()
    fast = wave(60, noise=0).mapped(lambda points: points * 20)
    slow, quick = (np.abs(filters.one_euro(fast, beta=beta).points - fast.points).mean() for beta in (0.0, 12.0))
    assert quick < slow / 3


# --- What a detector does to somebody who dances

Chain = list[Filter]


@pytest.mark.parametrize("size", [128, 512])
@pytest.mark.parametrize(
    ("chain", "share"),
    [
        ([filters.drop_outliers], 0.95),
        ([filters.drop_outliers, filters.fill_gaps, filters.median], 0.8),
        ([filters.drop_outliers, filters.fill_gaps, filters.savitzky_golay], 0.75),
        ([filters.drop_outliers, filters.fill_gaps, filters.one_euro], 0.95),
    ],
)
def test_filters_bring_a_noisy_dance_nearer_to_the_truth(chain: Chain, share: float, size: int) -> None:
    rng = np.random.default_rng(0)
    motion = sample_motion("dance", 300, 25.0, rng, 0.5)
    joints = perform(motion.angles, motion.lift, sample_identity("ada", rng).body).joints + np.array([0, 0, 6.0])
    where = Stage("room", 1).project(joints, size)
    truth = np.concatenate([where, np.ones_like(where[..., :1])], axis=-1).astype(np.float32)
    seen = Poses(detect(truth, COCO_18, DetectorNoise(), rng)[:, None], COCO_18, size, size, 25.0)
    after = seen
    for step in chain:
        after = step(after)

    def error(poses: Poses) -> float:
        apart = np.linalg.norm(poses.points[:, 0, :, :2] - truth[..., :2], axis=-1)
        return float(apart[poses.present[:, 0]].mean())

    assert error(after) < share * error(seen)
    assert filters.fill_gaps not in chain or (~after.present).mean() < 0.3 * (~seen.present).mean()


# --- Rate


def test_half_the_rate_is_every_other_frame_and_twice_has_the_middles() -> None:
    poses = wave(9)
    half, twice = filters.retimed(poses, 12.5), filters.retimed(poses, 50)
    np.testing.assert_allclose(half.points, poses.points[::2], rtol=1e-6)
    assert (len(half), half.fps, len(twice), twice.fps) == (5, 12.5, 18, 50)
    np.testing.assert_allclose(twice.points[1:-1:2], (poses.points[:-1] + poses.points[1:]) / 2, rtol=1e-5)
    np.testing.assert_allclose(filters.retimed(twice, 25).points, poses.points, rtol=1e-6)


@pytest.mark.parametrize("fps", [10.0, 12.0, 12.5, 15.0, 20.0, 24.0, 30.0, 50.0, 29.97])
def test_there_are_as_many_frames_as_a_film_of_that_rate_has(fps: float) -> None:
    film = (Frame(number / 25, np.zeros((1, 1, 3), np.uint8), 1 / 25) for number in range(40))
    assert len(filters.retimed(wave(40), fps)) == len(list(resample(film, fps)))


def test_a_point_between_a_found_and_a_missing_one_is_missing() -> None:
    twice = filters.retimed(holes(wave(), [10]), 50)
    assert np.argwhere(~twice.present[:, 0, 4])[:, 0].tolist() == [19, 20, 21]


def test_clips_are_retimed_each() -> None:
    twice = filters.retimed(concatenate([wave(5), wave(4)]), 50)
    assert (len(twice), twice.begins) == (18, (0, 10))


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda poses: filters.fill_gaps(poses, 0), "gap of 0"),
        (lambda poses: filters.median(poses, 4), "window of 4 frames has no middle"),
        (lambda poses: filters.savitzky_golay(poses, 5, 5), "order 5"),
        (lambda poses: filters.exponential(poses, 0), "alpha is 0"),
        (lambda poses: filters.one_euro(poses, 0), "above 0 Hz"),
        (lambda poses: filters.one_euro(poses, 1, -1), "beta is -1"),
        (lambda poses: filters.block_mean(poses, 0), "block of 0"),
        (lambda poses: filters.drop_outliers(poses, 1), "factor of 1"),
        (lambda poses: filters.drop_outliers(poses, longest=0), "0 frames of outliers"),
        (lambda poses: filters.retimed(poses, 0), "rate of 0"),
    ],
)
def test_settings_out_of_range_are_refused(wrong: Filter, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        wrong(wave(5))
