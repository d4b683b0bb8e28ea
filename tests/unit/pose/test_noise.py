import numpy as np

from kinema.pose.noise import DetectorNoise, detect
from kinema.pose.skeleton import COCO_18


def truth(frames: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(10, 50, (frames, 18, 2)), np.ones((frames, 18, 1))], axis=2).astype(np.float32)


def test_without_faults_positions_stay() -> None:
    pose = truth(6)
    seen = detect(pose, COCO_18, DetectorNoise().scaled(0.0), np.random.default_rng(1))
    np.testing.assert_array_equal(seen[..., :2], pose[..., :2])
    assert ((seen[..., 2] > 0) & (seen[..., 2] <= 1)).all()


def test_share_of_missing_joints_is_as_asked() -> None:
    noise = DetectorNoise(jitter=0.0, dropout=0.1, burst=3.0, swap=0.0)
    seen = detect(truth(4000), COCO_18, noise, np.random.default_rng(2))
    missing = seen[..., 2] == 0
    assert abs(missing.mean() - 0.1) < 0.01
    assert (seen[missing] == 0).all()
    runs = (missing[1:] & missing[:-1]).sum() / missing[:-1].sum()
    assert runs > 0.6  # bursts: after a missing frame another one is likely


def test_a_swap_exchanges_all_sides_of_a_frame() -> None:
    pose = truth(4)
    seen = detect(pose, COCO_18, DetectorNoise(jitter=0.0, dropout=0.0, swap=1.0), np.random.default_rng(3))
    np.testing.assert_array_equal(seen[..., :2], pose[:, COCO_18.flip, :2])


def test_what_was_missing_stays_missing() -> None:
    pose = truth(4)
    pose[1, 5] = 0
    seen = detect(pose, COCO_18, DetectorNoise(swap=0.0), np.random.default_rng(4))
    assert (seen[1, 5] == 0).all()
