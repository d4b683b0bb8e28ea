r"""Measures of poses: how near two pose sequences are, and how near and how different many forecasts of one future are.

A pose array ends in J joints of (x, y, confidence); a joint is there where its confidence is above 0, and the coordinates of
one that is not there enter nothing. Arrays of samples carry (x, y) alone, with the mask of the truth beside them: a forecast
says where every joint is.

Where many joints are one vector (APD, ADE, FDE, the error of best of n), a missing joint counts as the mean of the others, so
that clips with and without it may stand in one mean.

References:
    AKD and MKR: Siarohin et al., "First Order Motion Model for Image Animation", NeurIPS 2019. OKS: the COCO keypoint
    challenge. Best of n: Walker et al., "The Pose Knows", ICCV 2017. APD, ADE, FDE, MMADE, MMFDE: Yuan and Kitani, "DLow",
    ECCV 2020, as its release computes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from kinema.core.errors import EvaluationError
from kinema.pose.sequence import velocity
from kinema.pose.skeleton import Skeleton

Pose = Float[np.ndarray, "*frames J 3"]
Samples = Float[np.ndarray, "S T J 2"]
Future = Float[np.ndarray, "T J 2"]
Mask = Bool[np.ndarray, "T J"]

_SIDED = {
    "Eye": 0.025,
    "Ear": 0.035,
    "Shoulder": 0.079,
    "Elbow": 0.072,
    "Wrist": 0.062,
    "Hip": 0.107,
    "Knee": 0.087,
    "Ankle": 0.089,
}
SIGMAS = MappingProxyType({"Nose": 0.026, **{f"{side}{name}": sigma for name, sigma in _SIDED.items() for side in "LR"}})
"""Spread of people's own marks by name of the joint, of COCO's 17; other joints have none and stay out of OKS."""


@dataclass(frozen=True)
class Nearness:
    """How near joints are to the true ones.

    Attributes:
        distance: mean in pixels, see `pose_distance`; None where no joint is in both.
        missing: share of the true joints that are not made, see `missing_keypoint_rate`.
        right: share of the true joints that a made one is near to, see `correct_keypoints`.
    """

    distance: float | None
    missing: float
    right: float


class Steps(NamedTuple):
    """How far a joint moves from frame to frame, mean in pixels: what trembles moves further than the truth, and otherwise."""

    made: float
    truth: float
    apart: float


@dataclass(frozen=True)
class Comparison:
    """How near poses are to the true ones.

    Attributes:
        all: over all true joints.
        joints: by the name of the joint; those that the truth never has are left out.
        coordinate: see `average_keypoint_distance`, in pixels.
        similarity: see `object_keypoint_similarity`, mean over poses; None where the truth has no joint of COCO.
        steps: see `compare_steps`.
    """

    all: Nearness
    joints: dict[str, Nearness]
    coordinate: float
    similarity: float | None
    steps: Steps | None


def compare_poses(made: Pose, truth: Pose, skeleton: Skeleton, share: float = 0.2, begins: Sequence[int] = (0,)) -> Comparison:
    """Measure poses against the true ones in every way of this module.

    Args:
        made: poses of one person, frame by frame.
        truth: the true ones; a joint without confidence is not asked for.
        skeleton: of both.
        share: of the longer edge of the box around a pose's true joints, within which a joint is right.
        begins: first frames of clips, over whose borders nothing moves.

    Raises:
        EvaluationError: when no joint is in both.
    """
    reach = share * sizes(truth)

    def near(columns: slice) -> Nearness:
        one, other = made[..., columns, :], truth[..., columns, :]
        both = (_present(one) & _present(other)).any()
        distance = pose_distance(one, other) if both else None
        return Nearness(distance, missing_keypoint_rate(one, other), correct_keypoints(one, other, reach))

    coordinate = average_keypoint_distance(made, truth)
    known = _present(truth).reshape(-1, len(skeleton)).any(axis=0)
    joints = {joint: near(slice(place, place + 1)) for place, joint in enumerate(skeleton.joints) if known[place]}
    similarity = object_keypoint_similarity(made, truth, skeleton)
    counted = similarity[~np.isnan(similarity)]
    mean = float(counted.mean()) if counted.size else None
    return Comparison(near(slice(None)), joints, coordinate, mean, compare_steps(made, truth, begins))


def compare_steps(
    made: Float[np.ndarray, "T J 3"], truth: Float[np.ndarray, "T J 3"], begins: Sequence[int] = (0,)
) -> Steps | None:
    """Return how far joints move in a frame and how far apart the moves are, where both know them; None where they never do.

    Args:
        made: poses of one person, frame by frame.
        truth: the true ones.
        begins: first frames of clips, to which no step leads.
    """
    one, other = velocity(made), velocity(truth)
    both = _present(one) & _present(other)
    both[[begin - 1 for begin in begins if begin > 0]] = False
    if not both.any():
        return None
    lengths = (np.linalg.norm(moves[..., :2][both], axis=-1).mean() for moves in (one, other, one - other))
    return Steps(*map(float, lengths))


def pose_distance(made: Pose, truth: Pose) -> float:
    """Return the mean distance of joints that both poses have, in pixels.

    Raises:
        EvaluationError: when no joint is in both.
    """
    both = _shared(made, truth)
    return float(np.linalg.norm((made - truth)[..., :2][both], axis=-1).mean())


def average_keypoint_distance(made: Pose, truth: Pose) -> float:
    """Return the mean absolute difference of a coordinate of joints that both poses have (AKD), in pixels.

    Raises:
        EvaluationError: when no joint is in both.
    """
    both = _shared(made, truth)
    return float(np.abs((made - truth)[..., :2][both]).mean())


def missing_keypoint_rate(made: Pose, truth: Pose) -> float:
    """Return the share of true joints that the made pose lacks (MKR).

    Raises:
        EvaluationError: when the truth has no joint.
    """
    there = _present(truth)
    if not there.any():
        raise EvaluationError("the true poses have no joint, so that none can be missing; give poses with confidence above 0")
    return float((there & ~_present(made)).sum() / there.sum())


def correct_keypoints(made: Pose, truth: Pose, reach: Float[np.ndarray, "*frames"] | float) -> float:
    """Return the share of true joints that a made joint is near to (PCK); a joint that is not made is not near.

    Args:
        made: poses.
        truth: the true ones.
        reach: pixels within which a joint is right, for every pose or for each (such as 0.2 `sizes`).

    Raises:
        EvaluationError: when the truth has no joint.
    """
    there = _present(truth)
    if not there.any():
        raise EvaluationError("the true poses have no joint, so that none can be right; give poses with confidence above 0")
    distance = np.linalg.norm((made - truth)[..., :2], axis=-1)
    near = _present(made) & (distance <= np.broadcast_to(reach, there.shape[:-1])[..., None])
    return float((near & there).sum() / there.sum())


def object_keypoint_similarity(
    made: Pose, truth: Pose, skeleton: Skeleton, area: Float[np.ndarray, "*frames"] | None = None
) -> Float[np.ndarray, "*frames"]:
    r"""Return $\sum_j \exp(-d_j^2 / 2 A k_j^2) / J$ over the true joints, with $k = 2 \sigma$ (OKS), for every pose.

    Args:
        made: poses; a joint that is not made counts as 0.
        truth: the true ones; NaN is returned for a pose without a joint of COCO.
        skeleton: names of the joints, by which the sigmas are found.
        area: of the person in square pixels. COCO takes its outline; without one, the box around its joints is taken.
    """
    names = [joint for joint in skeleton.joints if joint in SIGMAS]
    columns = [skeleton.index(joint) for joint in names]
    made, truth = made[..., columns, :], truth[..., columns, :]
    spread = 2 * np.array([SIGMAS[joint] for joint in names])
    there = _present(truth)
    room = np.maximum(np.prod(_box(truth), axis=-1) if area is None else area, 1.0)
    squared = np.square((made - truth)[..., :2]).sum(axis=-1)
    like = np.exp(-squared / (2 * room[..., None] * spread**2))
    counted = there.sum(axis=-1)
    total = np.where(there & _present(made), like, 0).sum(axis=-1)
    return np.where(counted > 0, total / np.maximum(counted, 1), np.nan)


def sizes(poses: Pose) -> Float[np.ndarray, "*frames"]:
    """Return the longer edge of the box around the joints of every pose, in pixels; 0 where there is no joint."""
    return _box(poses).max(axis=-1)


def limb_lengths(poses: Float[np.ndarray, "*frames J 2"], skeleton: Skeleton) -> Float[np.ndarray, "*frames E"]:
    """Return the length of every limb in every pose."""
    edges = np.array(skeleton.edges).reshape(-1, 2)
    return np.linalg.norm(poses[..., edges[:, 0], :] - poses[..., edges[:, 1], :], axis=-1)


def limb_variation(poses: Float[np.ndarray, "*many T J 2"], mask: Bool[np.ndarray, "J"], skeleton: Skeleton) -> float:
    """Return how much limbs change their length over time: standard deviation by mean, over limbs and sequences.

    In a picture also a rigid limb changes its length, when it turns towards the camera: compare with that of the truth.

    Args:
        poses: sequences in pixels.
        mask: joints that are there all the time.
        skeleton: limbs.

    Raises:
        EvaluationError: when no limb is there.
    """
    edges = [edge for edge in skeleton.edges if mask[list(edge)].all()]
    if not edges:
        raise EvaluationError(f"no limb of the skeleton {skeleton.name} has both its joints, so that none has a length")
    lengths = limb_lengths(poses, Skeleton(skeleton.name, skeleton.joints, tuple(edges)))
    return float((lengths.std(axis=-2) / np.maximum(lengths.mean(axis=-2), 1e-6)).mean())


# Many forecasts of one future


def best_of(errors: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "... S"]:
    """Return the least of the first n errors, for n from 1: the order of the samples is that in which they were drawn."""
    return np.minimum.accumulate(errors, axis=-1)


def displacement_errors(
    steps: Float[np.ndarray, "S K J 2"], truth: Float[np.ndarray, "K J 2"], mask: Bool[np.ndarray, "K J"]
) -> Float[np.ndarray, "S"]:
    """Return the summed squared error of every sample's displacements, as The Pose Knows counts it.

    Args:
        steps: how far every joint moves in every step, for S samples, in whatever units (the authors' are normalised).
        truth: how far it moved.
        mask: joints that were seen at both ends of a step.

    Raises:
        EvaluationError: when the truth has no joint.

    References:
        The authors' evaluation: minimum over samples, no root taken, no filter and no clusters.
    """
    weight = _share(mask)
    return weight * (np.square(steps - truth).sum(axis=-1) * mask).sum(axis=(1, 2))


def position_errors(samples: Samples, truth: Future, mask: Mask) -> Float[np.ndarray, "S"]:
    """Return the mean distance of the joints of every sample from the true ones, over joints and time.

    Raises:
        EvaluationError: when the truth has no joint.
    """
    _share(mask)
    return (np.linalg.norm(samples - truth, axis=-1) * mask).sum(axis=(1, 2)) / mask.sum()


def average_pairwise_distance(samples: Samples, present: Bool[np.ndarray, "J"]) -> float:
    """Return the mean distance of two samples, each one vector (APD); 0 for a single sample.

    Args:
        samples: of one past.
        present: joints that its last pose has.
    """
    if len(samples) < 2:
        return 0.0
    flat = samples[:, :, present].reshape(len(samples), -1).astype(np.float64) * _share(present[None]) ** 0.5
    between = [np.linalg.norm(flat[place + 1 :] - row, axis=1) for place, row in enumerate(flat[:-1])]
    return float(np.concatenate(between).mean())


def average_displacement_error(samples: Samples, truth: Future, mask: Mask) -> float:
    """Return the least over samples of the mean over time of the distance of poses, each one vector (ADE).

    Raises:
        EvaluationError: when the truth has no joint.
    """
    return float(_distances(samples, truth, mask).mean(axis=1).min())


def final_displacement_error(samples: Samples, truth: Future, mask: Mask) -> float:
    """Return the least over samples of the distance of the last poses, each one vector (FDE).

    Raises:
        EvaluationError: when the last true pose has no joint.
    """
    return float(_distances(samples[:, -1:], truth[-1:], mask[-1:]).min())


def multimodal_errors(samples: Samples, futures: Sequence[Future], masks: Sequence[Mask]) -> tuple[float, float]:
    """Return ADE and FDE averaged over all futures that follow a like past (MMADE, MMFDE).

    Args:
        samples: of one past.
        futures: what followed the pasts that are alike (see `alike`), the past's own among them.
        masks: joints of each.

    Raises:
        EvaluationError: when there is no future, or one has no joint.
    """
    if not futures:
        raise EvaluationError("there is no true future to compare the samples with; a past has at least its own")
    pairs = list(zip(futures, masks, strict=True))
    average = [average_displacement_error(samples, *pair) for pair in pairs]
    final = [final_displacement_error(samples, *pair) for pair in pairs]
    return float(np.mean(average)), float(np.mean(final))


def alike(starts: Float[np.ndarray, "N J 2"], masks: Bool[np.ndarray, "N J"], threshold: float = 0.5) -> list[list[int]]:
    """Return, for every pose, which poses are nearer than a threshold, as vectors; itself among them.

    Args:
        starts: last seen poses, in the units of the threshold.
        masks: joints that are there; two poses are compared over those that both have.
        threshold: DLow's is 0.5, of metres of a root-relative pose in space.
    """
    found = []
    for one, mask in zip(starts, masks, strict=True):
        both = masks & mask
        squared = (np.square(starts - one).sum(axis=-1) * both).sum(axis=1)
        counted = both.sum(axis=1)
        distance = np.sqrt(squared * starts.shape[1] / np.maximum(counted, 1))
        found.append(np.flatnonzero((distance < threshold) & (counted > 0)).tolist())
    return found


def _distances(samples: Samples, truth: Future, mask: Mask) -> Float[np.ndarray, "S T"]:
    """Return the distance of poses as vectors; frames without a joint are left out."""
    seen = mask.any(axis=1)
    if not seen.any():
        raise EvaluationError("a true future has no joint, so that nothing can be far from it; leave such clips out")
    squared = (np.square(samples - truth).sum(axis=-1) * mask)[:, seen].sum(axis=2)
    return np.sqrt(squared * mask.shape[1] / mask[seen].sum(axis=1))


def _share(mask: Bool[np.ndarray, "K J"]) -> float:
    """Return by what a sum over joints that are there is multiplied to be one over all."""
    if not mask.any():
        raise EvaluationError("a true future has no joint, so that nothing can be far from it; leave such clips out")
    return mask.size / int(mask.sum())


def _present(poses: Pose) -> Bool[np.ndarray, "*frames J"]:
    return poses[..., 2] > 0


def _shared(made: Pose, truth: Pose) -> Bool[np.ndarray, "*frames J"]:
    both = _present(made) & _present(truth)
    if not both.any():
        raise EvaluationError("no joint is in both the made and the true poses, so that they have no distance")
    return both


def _box(poses: Pose) -> Float[np.ndarray, "*frames 2"]:
    there = _present(poses)[..., None]
    low = np.where(there, poses[..., :2], np.inf).min(axis=-2)
    high = np.where(there, poses[..., :2], -np.inf).max(axis=-2)
    return np.where(there.any(axis=-2), high - low, 0.0)
