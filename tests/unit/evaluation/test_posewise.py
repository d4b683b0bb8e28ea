import numpy as np
import pytest
from scipy.spatial.distance import pdist

from kinema.core.errors import EvaluationError
from kinema.evaluation.posewise import (
    alike,
    average_displacement_error,
    average_keypoint_distance,
    average_pairwise_distance,
    best_of,
    compare_steps,
    correct_keypoints,
    displacement_errors,
    final_displacement_error,
    limb_variation,
    missing_keypoint_rate,
    multimodal_errors,
    object_keypoint_similarity,
    pose_distance,
    position_errors,
    sizes,
)
from kinema.pose.skeleton import COCO_17, COCO_18, Skeleton

STICK = Skeleton("stick", ("Nose", "Neck"), ((0, 1),))


def pose(*points: tuple[float, float, float]) -> np.ndarray:
    return np.array([points], np.float64)


TRUTH = pose((10, 10, 1), (20, 10, 1), (0, 0, 0))
MADE = pose((13, 14, 1), (0, 0, 0), (50, 50, 1))


def test_distances_are_over_joints_of_both() -> None:
    assert pose_distance(MADE, TRUTH) == 5.0  # 3, 4, 5
    assert average_keypoint_distance(MADE, TRUTH) == 3.5
    assert missing_keypoint_rate(MADE, TRUTH) == 0.5


def test_coordinates_of_missing_joints_are_never_used() -> None:
    wild = MADE.copy()
    wild[0, 1, :2] = np.nan
    assert pose_distance(wild, TRUTH) == 5.0
    assert correct_keypoints(wild, TRUTH, 5.0) == 0.5


def test_what_trembles_moves_further_than_the_truth() -> None:
    truth = np.ones((5, 2, 3))
    truth[:, :, 0] = 3 * np.arange(5)[:, None]  # 3 pixels per frame
    made = truth.copy()
    made[:, :, 1] += 2 * (-1.0) ** np.arange(5)[:, None]  # up and down by 4
    made[2, 1] = (np.nan, np.nan, 0)
    steps = compare_steps(made, truth)
    assert steps is not None
    assert steps == pytest.approx((5.0, 3.0, 4.0))
    assert compare_steps(made[:1], truth[:1]) is None


def test_nothing_in_common_is_refused() -> None:
    nobody = np.zeros((1, 3, 3))
    with pytest.raises(EvaluationError, match="no joint is in both"):
        pose_distance(MADE, nobody)
    with pytest.raises(EvaluationError, match="no joint"):
        missing_keypoint_rate(MADE, nobody)
    with pytest.raises(EvaluationError, match="no joint"):
        correct_keypoints(MADE, nobody, 1.0)


def test_pck_counts_what_is_near_and_made() -> None:
    assert correct_keypoints(MADE, TRUTH, 4.9) == 0.0
    assert correct_keypoints(MADE, TRUTH, np.array([5.0])) == 0.5
    assert sizes(TRUTH).tolist() == [10.0]


def test_oks_by_hand() -> None:
    truth = np.zeros((1, 17, 3))
    truth[0, COCO_17.index("Nose")] = (0, 0, 1)
    truth[0, COCO_17.index("LHip")] = (0, 100, 1)
    made = truth.copy()
    made[0, COCO_17.index("LHip"), 0] = 10
    area = np.array([5000.0])
    wanted = (1 + np.exp(-(10**2) / (2 * 5000 * (2 * 0.107) ** 2))) / 2
    assert object_keypoint_similarity(made, truth, COCO_17, area) == pytest.approx(wanted)
    made[0, COCO_17.index("LHip"), 2] = 0
    assert object_keypoint_similarity(made, truth, COCO_17, area) == pytest.approx(0.5)


def test_oks_finds_sigmas_by_name() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([rng.uniform(0, 100, (1, 18, 2)), np.ones((1, 18, 1))], axis=-1)
    made = truth + np.array([1.0, 1.0, 0.0])
    here = object_keypoint_similarity(made, truth, COCO_18, np.array([900.0]))
    order = [COCO_18.index(name) for name in COCO_17.joints]
    there = object_keypoint_similarity(made[:, order], truth[:, order], COCO_17, np.array([900.0]))
    assert here == pytest.approx(there)  # the neck, which COCO has not, stays out
    assert np.isnan(object_keypoint_similarity(made, truth * 0, COCO_18)).all()


def test_best_of_never_rises() -> None:
    assert best_of(np.array([3.0, 4.0, 1.0, 2.0])).tolist() == [3, 3, 1, 1]


def test_displacement_error_is_summed_and_squared() -> None:
    truth = np.zeros((2, 2, 2))
    steps = np.stack([truth, truth + 1, truth])
    steps[2, 0, 0] = (3, 4)
    everything = np.ones((2, 2), bool)
    assert displacement_errors(steps, truth, everything).tolist() == [0, 8, 25]
    half = everything.copy()
    half[:, 1] = False
    assert displacement_errors(steps, truth, half).tolist() == [0, 8, 50]  # what is missing counts as the mean of the rest
    with pytest.raises(EvaluationError, match="no joint"):
        displacement_errors(steps, truth, ~everything)


def test_position_error_is_a_mean_of_distances() -> None:
    truth = np.zeros((2, 2, 2))
    samples = np.stack([truth + np.array([3.0, 4.0])])
    mask = np.array([[True, False], [True, True]])
    assert position_errors(samples, truth, mask).tolist() == [5.0]


def test_diversity_and_errors_as_dlow_computes_them() -> None:
    rng = np.random.default_rng(1)
    samples, truth = rng.normal(size=(6, 5, 4, 2)), rng.normal(size=(5, 4, 2))
    mask = np.ones((5, 4), bool)
    assert average_pairwise_distance(samples, mask[0]) == pytest.approx(pdist(samples.reshape(6, -1)).mean())
    distance = np.linalg.norm((samples - truth).reshape(6, 5, 8), axis=2)
    assert average_displacement_error(samples, truth, mask) == pytest.approx(distance.mean(axis=1).min())
    assert final_displacement_error(samples, truth, mask) == pytest.approx(distance[:, -1].min())
    other = rng.normal(size=(5, 4, 2))
    average, final = multimodal_errors(samples, [truth, other], [mask, mask])
    assert average == pytest.approx(np.mean([average_displacement_error(samples, one, mask) for one in (truth, other)]))
    assert final == pytest.approx(np.mean([final_displacement_error(samples, one, mask) for one in (truth, other)]))
    assert average_pairwise_distance(samples[:1], mask[0]) == 0.0


def test_missing_joints_do_not_enter_errors() -> None:
    truth = np.zeros((2, 4, 2))
    samples = np.zeros((1, 2, 4, 2))
    samples[..., 0] = 1.0
    mask = np.ones((2, 4), bool)
    full = average_displacement_error(samples, truth, mask)
    assert full == 2.0  # four joints, each 1 away
    mask[:, 3] = False
    samples[:, :, 3] = 1000.0
    assert average_displacement_error(samples, truth, mask) == pytest.approx(full)
    pair = np.concatenate([np.zeros((1, 2, 4, 2)), samples])
    assert average_pairwise_distance(pair, mask[0]) == pytest.approx(8**0.5)  # two frames of four joints, each 1 away
    with pytest.raises(EvaluationError, match="no joint"):
        final_displacement_error(samples, truth, np.zeros((2, 4), bool))
    with pytest.raises(EvaluationError, match="no true future"):
        multimodal_errors(samples, [], [])


def test_alike_pasts_are_nearer_than_the_threshold() -> None:
    starts = np.zeros((3, 4, 2))
    starts[1, :, 0] = 0.2  # 0.4 as a vector
    starts[2, :, 0] = 0.3  # 0.6, and 0.2 from the second
    assert alike(starts, np.ones((3, 4), bool)) == [[0, 1], [0, 1, 2], [1, 2]]
    assert alike(starts, np.array([[True] * 4, [True] * 4, [False] * 4]))[2] == []


def test_rigid_limbs_do_not_vary() -> None:
    time = np.arange(5.0)
    rigid = np.stack([np.stack([time, 0 * time], -1), np.stack([time, 0 * time + 10], -1)], axis=1)
    there = np.array([True, True])
    assert limb_variation(rigid, there, STICK) == pytest.approx(0)
    growing = rigid.copy()
    growing[:, 1, 1] = [8, 9, 10, 11, 12]
    assert limb_variation(growing, there, STICK) == pytest.approx(np.sqrt(2) / 10)
    with pytest.raises(EvaluationError, match="no limb"):
        limb_variation(rigid, np.array([True, False]), STICK)
