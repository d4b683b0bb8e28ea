import numpy as np
import pytest

from kinema.core.errors import EvaluationError
from kinema.evaluation.modes import find_modes, moving_most


def samples(counts: tuple[int, ...], frames: int = 4) -> np.ndarray:
    """Futures of two joints that go to the right, down, left ... in groups of these sizes."""
    rng = np.random.default_rng(0)
    ways = np.array([(1, 0), (0, 1), (-1, 0)])
    time = np.arange(1, frames + 1)[:, None, None]
    made = [
        time * ways[group] + rng.normal(0, 0.02, (frames, 2, 2)) for group, count in enumerate(counts) for _ in range(count)
    ]
    return np.stack(made)


def test_modes_are_the_groups_the_largest_first() -> None:
    found = find_modes(samples((3, 10, 7)), np.zeros((2, 2)), 3)
    assert found.shares.tolist() == [0.5, 0.35, 0.15]
    np.testing.assert_allclose(found.centres[:, -1, 0], [(0, 4), (-4, 0), (4, 0)], atol=0.05)
    assert np.bincount(found.groups).tolist() == [10, 7, 3]
    assert [int(found.groups[nearest]) for nearest in found.nearest] == [0, 1, 2]


def test_a_mean_of_modes_is_no_mode() -> None:
    found = find_modes(samples((6, 6, 6)), np.zeros((2, 2)), 3)
    assert (np.linalg.norm(found.centres[:, -1, 0], axis=-1) > 3.9).all()


def test_what_moves_most_is_kept() -> None:
    still = np.zeros((8, 4, 2, 2))
    both = np.concatenate([still, samples((2, 0, 0))])
    assert moving_most(both, np.zeros((2, 2)), 0.2).tolist() == [8, 9]
    found = find_modes(both, np.zeros((2, 2)), 5, keep=0.2)
    assert (found.groups[:8] == -1).all()
    assert found.shares.sum() == pytest.approx(1)
    assert set(found.nearest) <= {8, 9}


def test_equal_futures_are_one_mode() -> None:
    found = find_modes(np.ones((5, 4, 2, 2)), np.zeros((2, 2)), 3)
    assert found.shares.tolist() == [1.0]
    assert len(find_modes(np.ones((1, 4, 2, 2)), np.zeros((2, 2)), 5).centres) == 1


@pytest.mark.parametrize(("count", "keep"), [(0, 1.0), (2, 0.0), (2, 1.5)])
def test_nonsense_is_refused(count: int, keep: float) -> None:
    with pytest.raises(EvaluationError, match="give 1 or more"):
        find_modes(np.ones((5, 4, 2, 2)), np.zeros((2, 2)), count, keep)
