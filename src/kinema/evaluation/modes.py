"""Many futures shown as a few: those that move most, in groups.

References:
    Walker et al., "The Pose Knows", ICCV 2017, and its release: of 800 futures the tenth with the largest motion is kept, and
    k-means with k = 5 over their trajectories, every number divided by its spread, gives the modes that are shown. Here the
    motion is the length of all displacements as one vector (the release multiplies the lengths of its two features), and the
    largest mode comes first (the release overwrites the first with the largest).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from kinema.core.errors import EvaluationError

Samples = Float[np.ndarray, "S T J 2"]


@dataclass(frozen=True)
class Modes:
    """Groups of futures, the largest first.

    Attributes:
        centres: mean future of every group.
        shares: how many of the grouped futures it has, of 1.
        nearest: the future that is nearest to the centre, as a position in the samples.
        groups: group of every sample; -1 for those that were not grouped.
    """

    centres: Float[np.ndarray, "K T J 2"]
    shares: Float[np.ndarray, "K"]
    nearest: Int[np.ndarray, "K"]
    groups: Int[np.ndarray, "S"]


def moving_most(samples: Samples, start: Float[np.ndarray, "J 2"], share: float) -> Int[np.ndarray, "N"]:
    """Return which samples move most, in their order.

    Args:
        samples: futures.
        start: the pose before them.
        share: of the samples that is kept, above 0 and at most 1; at least one is.
    """
    first = np.broadcast_to(start, (len(samples), 1, *start.shape))
    steps = np.diff(np.concatenate([first, samples], axis=1), axis=1)
    motion = np.sqrt(np.square(steps).sum(axis=(1, 2, 3)))
    kept = max(1, round(share * len(samples)))
    return np.sort(np.argsort(-motion, kind="stable")[:kept])


def find_modes(samples: Samples, start: Float[np.ndarray, "J 2"], count: int, keep: float = 1.0, seed: int = 0) -> Modes:
    """Group futures by k-means over trajectories whose every number has the spread 1.

    Args:
        samples: futures; a joint that is missing stands still in all of them.
        start: the pose before them.
        count: groups, fewer where there are fewer different futures.
        keep: share of the futures that is grouped: those that move most.
        seed: of the first guess.

    Raises:
        EvaluationError: for no future, no group or a share out of range.
    """
    from sklearn.cluster import KMeans  # imports much

    if not len(samples) or count < 1 or not 0 < keep <= 1:
        raise EvaluationError(
            f"{len(samples)} futures, {count} modes and a share of {keep:g}: give 1 or more of either and a share up to 1"
        )
    kept = moving_most(samples, start, keep)
    flat = samples[kept].reshape(len(kept), -1).astype(np.float64)
    spread = flat.std(axis=0)
    scaled = (flat - flat.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0)
    count = min(count, len(np.unique(scaled.round(9), axis=0)))
    means = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    labels = means.fit_predict(scaled)
    sizes = np.bincount(labels, minlength=count)
    order = np.argsort(-sizes, kind="stable")
    rank = np.argsort(order, kind="stable")
    groups = np.full(len(samples), -1)
    groups[kept] = rank[labels]
    centres = np.stack([samples[groups == mode].mean(axis=0) for mode in range(count)])
    distance = np.square(scaled[:, None] - means.cluster_centers_[order]).sum(axis=2)
    return Modes(centres, sizes[order] / len(kept), kept[distance.argmin(axis=0)], groups)
