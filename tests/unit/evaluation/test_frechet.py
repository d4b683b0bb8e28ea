"""Distances against closed forms and an independent library."""

import numpy as np
import pytest
import scipy.linalg

from kinema.core.errors import EvaluationError
from kinema.evaluation.frechet import bootstrap, floor, frechet_distance, kernel_distance


def normal(count: int, size: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, size)) @ generator.standard_normal((size, size)) / size + generator.random(size)


def by_scipy(real: np.ndarray, fake: np.ndarray) -> float:
    """Heusel et al., eq. (6), as it is usually written."""
    one, other = np.cov(real, rowvar=False), np.cov(fake, rowvar=False)
    root = np.asarray(scipy.linalg.sqrtm(one @ other)).real
    return float(np.square(real.mean(0) - fake.mean(0)).sum() + np.trace(one + other - 2 * root))


def test_well_conditioned_sets_give_the_formula_of_heusel_et_al() -> None:
    real, fake = normal(200, 12, 0), normal(150, 12, 1)
    assert frechet_distance(real, fake) == pytest.approx(by_scipy(real, fake), rel=1e-8)


def test_diagonal_normal_distributions_have_a_closed_form() -> None:
    """Squared distances of the means and of the standard deviations."""
    spread, other = np.array([1.0, 2.0, 0.5]), np.array([3.0, 2.0, 0.0])
    mean, other_mean = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    both_ways = np.concatenate([np.eye(3), -np.eye(3)]) * np.sqrt(5 / 2)  # six vectors of covariance 1
    found = frechet_distance(mean + both_ways * spread, other_mean + both_ways * other)
    assert found == pytest.approx(np.square(mean - other_mean).sum() + np.square(spread - other).sum())


def test_fewer_clips_than_dimensions_are_sound() -> None:
    """One direction each: covariances of rank one whose root is known. 20 clips in 500 dimensions give 0 for equal sets."""
    line = np.linspace(-1, 1, 9)[:, None]
    along, across = line * np.eye(50)[0], line * np.eye(50)[1]
    variance = line.var(ddof=1)
    assert frechet_distance(along, across) == pytest.approx(2 * variance, rel=1e-12)
    assert frechet_distance(along, 3 * along) == pytest.approx(4 * variance, rel=1e-12)
    few = normal(20, 500, 4)
    assert frechet_distance(few, few[::-1]) == pytest.approx(0, abs=1e-9 * np.square(few).sum())


def test_the_distance_is_symmetric_and_large_offsets_do_no_harm() -> None:
    real, fake = normal(30, 40, 5), normal(25, 40, 6)
    assert frechet_distance(real, fake) == pytest.approx(frechet_distance(fake, real), rel=1e-10)
    assert frechet_distance(real + 1000, fake + 1000) == pytest.approx(frechet_distance(real, fake), rel=1e-6)


def test_the_kernel_distance_by_hand() -> None:
    """x . y / D + 1 to the third: among 0 and 1 it is 1, among 2 and 0 it is 1, between them 1, 1, 27 and 1."""
    real, fake = np.array([[0.0], [1.0]]), np.array([[2.0], [0.0]])
    assert kernel_distance(real, fake) == pytest.approx(1 + 1 - 2 * (1 + 1 + 27 + 1) / 4)


def test_the_kernel_distance_has_no_bias() -> None:
    """Over many small sets of one distribution its mean is 0 within its standard error; Frechet's is far above."""
    generator = np.random.default_rng(0)
    pairs = generator.standard_normal((400, 2, 10, 6))
    kernel = np.array([kernel_distance(*pair) for pair in pairs])
    assert abs(kernel.mean()) < 3 * kernel.std() / 20
    assert np.mean([frechet_distance(*pair) for pair in pairs]) > 1


def test_large_sets_are_compared_in_subsets() -> None:
    real, fake = normal(300, 5, 7), normal(280, 5, 8)
    whole = kernel_distance(real, fake)
    assert kernel_distance(real, fake, subset=100, subsets=60) == pytest.approx(whole, rel=0.1)


def test_the_bootstrap_covers_what_other_sets_give() -> None:
    """95 % intervals of one pair of sets against the spread of the distance over fresh pairs."""

    def pair(seed: int) -> tuple[np.ndarray, np.ndarray]:
        generator = np.random.default_rng(seed)
        return generator.standard_normal((100, 3)), generator.standard_normal((100, 3)) + 1

    interval = bootstrap(frechet_distance, *pair(0), replicates=200, seed=0)
    fresh = [frechet_distance(*pair(seed)) for seed in range(1, 200)]
    assert interval.low < frechet_distance(*pair(0)) < interval.high
    assert interval.high - interval.low == pytest.approx(np.ptp(np.quantile(fresh, [0.025, 0.975])), rel=0.35)
    assert interval == bootstrap(frechet_distance, *pair(0), replicates=200, seed=0)


def test_the_floor_takes_disjoint_halves_and_says_how_large_they_are() -> None:
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def spy(one: np.ndarray, other: np.ndarray) -> float:
        seen.append((one, other))
        return frechet_distance(one, other)

    real = normal(50, 4, 9)
    found = floor(spy, real, 20, seed=0)
    assert found.count == 20
    assert found.low <= found.mean <= found.high
    assert len(seen) == 5
    for one, other in seen:
        assert len(one) == len(other) == 20
        assert not {tuple(row) for row in one} & {tuple(row) for row in other}
    assert floor(frechet_distance, real, 40, seed=0).count == 25


@pytest.mark.parametrize(
    ("real", "fake", "sentence"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "on 1 clips; give at least 2"),
        (np.zeros((4, 3)), np.full((4, 3), np.nan), "not finite"),
        (np.zeros((4, 3)), np.zeros((4, 2)), "features of 3 and 2 dimensions"),
    ],
)
def test_what_cannot_be_measured_is_refused(real: np.ndarray, fake: np.ndarray, sentence: str) -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(EvaluationError, match=sentence):
            distance(real, fake)


def test_frames_are_samples_that_are_drawn_with_their_clip() -> None:
    """A set of clips by frames is the set of all frames; what is drawn and halved are clips."""
    real, fake = normal(60, 5, 10).reshape(20, 3, 5), normal(45, 5, 11).reshape(15, 3, 5)
    for distance in (frechet_distance, kernel_distance):
        assert distance(real, fake) == pytest.approx(distance(real.reshape(60, 5), fake.reshape(45, 5)), rel=1e-12)
    alike = np.repeat(np.arange(20.0), 3)[:, None].reshape(20, 3, 1)
    seen: list[np.ndarray] = []
    floor(lambda one, other: seen.extend((one, other)) or 0.0, alike, 10, seed=0)
    bootstrap(lambda one, other: seen.extend((one, other)) or 0.0, alike, alike, replicates=2, seed=0)
    assert len(seen) == 2 * 5 + 2 * 3
    assert all(set_.shape[1:] == (3, 1) and (set_ == set_[:, :1]).all() for set_ in seen)
