"""Distances between two sets of feature vectors, how far they spread, and the floor that real clips themselves reach.

References:
    `frechet_distance`: Dowson and Landau, "The Frechet Distance between Multivariate Normal Distributions", 1982; on features
    of a network: Heusel et al., NeurIPS 2017 (arXiv 1706.08500), eq. (6); of clips: Unterthiner et al., arXiv 1812.01717, 2018.
    `kernel_distance`: Binkowski et al., ICLR 2018 (arXiv 1801.01401), polynomial kernel of degree 3; the unbiased estimate:
    Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, eq. (3).
    `bootstrap`: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993; the centring is a choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from kinema.core.errors import EvaluationError
from kinema.core.seeds import numpy_generator

# The kernel distance of more clips is a mean over subsets; Binkowski et al. draw 100 of them, for 10 times the time.
SUBSET, SUBSETS = 1000, 10
HALVINGS = 5

# A vector per clip, or several, which are samples by themselves but drawn together. Their size is checked with a sentence.
Features = Float[np.ndarray, "_ ... _"]
Distance = Callable[[Features, Features], float]


@dataclass(frozen=True)
class Interval:
    """Where 95 % of resampled distances lie.

    Attributes:
        low: their 2.5 % quantile.
        high: their 97.5 % quantile.
        replicates: how many there were.
    """

    low: float
    high: float
    replicates: int


@dataclass(frozen=True)
class Floor:
    """What real clips score against other real clips.

    Attributes:
        mean: over several random halvings.
        low: least.
        high: greatest.
        count: clips in each half; where it is below the number that was judged, the floor is biased upwards.
    """

    mean: float
    low: float
    high: float
    count: int


def frechet_distance(real: Features, fake: Features) -> float:
    r"""Return the squared Frechet distance of the normal distributions with the means and covariances of two sets.

    $\lVert m_1-m_2\rVert^2 + \mathrm{Tr}\,(C_1 + C_2 - 2 (C_1 C_2)^{1/2})$. With any $R_i^T R_i = C_i$ the trace of the root is
    the sum of the singular values of $R_1 R_2^T$: no root of a product that is not symmetric, and no square of a small number.
    With fewer vectors than dimensions, $R_i$ is the centred set itself and nothing is ill-conditioned; otherwise it is the
    symmetric root by eigen-decomposition.

    Args:
        real: at least two vectors.
        fake: the same, any number of at least two.

    Raises:
        EvaluationError: for fewer than two vectors, other dimensions, or numbers that are not finite.
    """
    real, fake = _checked(real, fake)
    return _distance(real.mean(axis=0) - fake.mean(axis=0), _root(real), _root(fake))


def kernel_distance(real: Features, fake: Features, *, subset: int = SUBSET, subsets: int = SUBSETS) -> float:
    r"""Return the unbiased squared maximum mean discrepancy under $k(x, y) = (x \cdot y / D + 1)^3$; it may be below zero.

    Args:
        real: one vector per clip, at least two.
        fake: the same.
        subset: of larger sets, so many vectors are drawn at a time.
        subsets: how often; the result is the mean.

    Raises:
        EvaluationError: as `frechet_distance`.
    """
    real, fake = _checked(real, fake)
    if max(len(real), len(fake)) <= subset:
        return _discrepancy(real, fake)
    draws = [numpy_generator(0, number) for number in range(subsets)]
    return float(np.mean([_discrepancy(_some(real, subset, draw), _some(fake, subset, draw)) for draw in draws]))


def bootstrap(distance: Distance, real: Features, fake: Features, *, replicates: int, seed: int) -> Interval:
    """Resample the clips of both sets with replacement and return where the distance lies, centred at that of the sets.

    A resampled set holds clips twice, which makes its distance larger by about the bias that the distance has itself; so the
    replicates are moved until their mean is the estimate. The interval says how far the number would spread with other clips,
    not how biased it is: that is what the floor shows.

    Args:
        distance: of two sets.
        real: one vector per clip.
        fake: the same.
        replicates: how often to resample, at least 2.
        seed: of the resampling.
    """
    estimate = distance(real, fake)
    found = np.empty(replicates)
    for number in range(replicates):
        draw = numpy_generator(seed, 1, number)
        found[number] = distance(real[draw.integers(0, len(real), len(real))], fake[draw.integers(0, len(fake), len(fake))])
    low, high = np.quantile(found - found.mean(), [0.025, 0.975]) + estimate
    return Interval(float(low), float(high), replicates)


def floor(distance: Distance, real: Features, count: int, *, seed: int, halvings: int = HALVINGS) -> Floor:
    """Return the distance between disjoint sets of real clips, over several random halvings.

    Args:
        distance: of two sets.
        real: one vector per real clip, at least four.
        count: clips wanted in each half; where there are fewer than twice as many, all are used.
        seed: of the halvings.
        halvings: how many.
    """
    size = min(count, len(real) // 2)
    found = []
    for number in range(halvings):
        order = numpy_generator(seed, 2, number).permutation(len(real))
        found.append(distance(real[order[:size]], real[order[size : 2 * size]]))
    return Floor(float(np.mean(found)), float(min(found)), float(max(found)), size)


def _distance(offset: Float64[np.ndarray, "D"], root: Float64[np.ndarray, "_ D"], other: Float64[np.ndarray, "_ D"]) -> float:
    shared = np.linalg.svd(root @ other.T, compute_uv=False).sum()
    distance = offset @ offset + np.square(root).sum() + np.square(other).sum() - 2 * shared
    return max(0.0, float(distance))  # rounding alone makes it negative


def _root(vectors: Float64[np.ndarray, "N D"]) -> Float64[np.ndarray, "_ D"]:
    """Return R with R^T R the covariance of the vectors (with N - 1 in the denominator)."""
    centred = (vectors - vectors.mean(axis=0)) / np.sqrt(len(vectors) - 1)
    if len(vectors) <= vectors.shape[1]:
        return centred
    variances, directions = np.linalg.eigh(centred.T @ centred)
    return (directions * np.sqrt(variances.clip(min=0))) @ directions.T


def _discrepancy(real: Float64[np.ndarray, "N D"], fake: Float64[np.ndarray, "M D"]) -> float:
    size = real.shape[1]
    among_real, among_fake, between = ((a @ b.T / size + 1) ** 3 for a, b in ((real, real), (fake, fake), (real, fake)))
    pairs = [(kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in (among_real, among_fake)]
    return float(sum(pairs) - 2 * between.mean())


def _some(vectors: Float64[np.ndarray, "N D"], count: int, draw: np.random.Generator) -> Float64[np.ndarray, "_ D"]:
    return vectors[draw.choice(len(vectors), min(count, len(vectors)), replace=False)]


def _checked(real: Features, fake: Features) -> tuple[Float64[np.ndarray, "N D"], Float64[np.ndarray, "M D"]]:
    real, fake = (vectors.reshape(-1, vectors.shape[-1]) for vectors in (real, fake))
    if real.shape[1] != fake.shape[1]:
        raise EvaluationError(f"features of {real.shape[1]} and {fake.shape[1]} dimensions cannot be compared; use one network")
    for vectors in (real, fake):
        if len(vectors) < 2:
            raise EvaluationError(f"a distribution cannot be measured on {len(vectors)} clips; give at least 2")
        if not np.isfinite(vectors).all():
            raise EvaluationError("the feature network returned numbers that are not finite; look for broken clips")
    return real.astype(np.float64), fake.astype(np.float64)
