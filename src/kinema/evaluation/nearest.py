"""Pasting the training frame with the nearest pose: what a motion transfer that has learnt anything must beat."""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from kinema.core.errors import EvaluationError
from kinema.data.dataset import ClipRecord, Dataset
from kinema.pose.skeleton import Skeleton, find_skeleton

SHARED = 0.5  # of the joints of the wanted pose that a frame must have to be compared
AT_ONCE = 64  # poses compared with all frames at a time


class NearestFrames:
    """The frames of a dataset, found by their poses.

    The distance of two poses is the mean over the joints that both have, in pixels, and then over body, face and each hand, so
    that the many points of a face do not decide alone. A part that is wanted and that a frame lacks counts as far away as the
    farthest one.

    Args:
        data: clips with poses.

    Attributes:
        poses: of all frames, in order.

    Raises:
        EvaluationError: when the clips carry no poses.
    """

    def __init__(self, data: Dataset) -> None:
        if "pose" not in data.arrays:
            raise EvaluationError(f"the clips of {data.path} carry no poses; prepare them with --pose")
        self._data = data
        self._parts = _parts(find_skeleton(data.info.skeleton or ""))
        clips = [np.asarray(data.array(index, "pose"), np.float32) for index in range(len(data))]
        self._clip = np.repeat(np.arange(len(clips)), [len(clip) for clip in clips])
        self._frame = np.concatenate([np.arange(len(clip)) for clip in clips])
        self.poses: Float32[np.ndarray, "N J 3"] = np.concatenate(clips)

    def __len__(self) -> int:
        return len(self.poses)

    def find(self, poses: Float[np.ndarray, "T J 3"], without: ClipRecord | None = None) -> Int64[np.ndarray, "T"]:
        """Return the number of the nearest frame for every pose; for a pose without joints, the first frame.

        Args:
            poses: that are wanted.
            without: leave out clips that share frames with this one, whose poses they are: it is nearest to itself.

        Raises:
            EvaluationError: when that leaves none.
        """
        numbers = np.flatnonzero(self._sharing_none(without)[self._clip])
        if not len(numbers):
            name = without.key if without else ""
            raise EvaluationError(f"every training clip of {self._data.path} shares frames with {name}; give more footage")
        parts = (poses[start : start + AT_ONCE] for start in range(0, len(poses), AT_ONCE))
        return numbers[np.concatenate([self._distances(part, self.poses[numbers]).argmin(axis=1) for part in parts])]

    def paste(self, poses: Float[np.ndarray, "T J 3"], without: ClipRecord | None = None) -> UInt8[np.ndarray, "T H W 3"]:
        """Return the nearest frame for every pose, see `find`."""
        numbers = self.find(poses, without)
        return np.stack([self._data.video(int(self._clip[n]), int(self._frame[n]), 1)[0] for n in numbers])

    def _sharing_none(self, clip: ClipRecord | None) -> Bool[np.ndarray, "N"]:
        """Tell which clips share no frame with one."""
        records, frames = map(self._data.record, range(len(self._data))), self._data.shape.frames
        return np.array([clip is None or not record.shares_frames(clip, frames) for record in records])

    def _distances(self, poses: Float[np.ndarray, "T J 3"], frames: Float[np.ndarray, "N J 3"]) -> Float[np.ndarray, "T N"]:
        body, *others = (_apart(poses, frames, part) for part in self._parts)
        for other in others:
            farthest = np.where(np.isfinite(other), other, 0).max(axis=1, keepdims=True)
            body = body + np.where(np.isfinite(other), other, farthest)
        return body


def _apart(poses: Float[np.ndarray, "T J 3"], frames: Float[np.ndarray, "N J 3"], part: slice) -> Float[np.ndarray, "T N"]:
    """Return the mean distance of the joints of a part; infinite where a frame lacks too many of them."""
    sums = np.zeros((len(poses), len(frames)), np.float32)
    both = np.zeros_like(sums)
    for joint in range(*part.indices(poses.shape[1])):  # joint by joint: all at once would not fit into memory
        wanted, have = poses[:, None, joint], frames[None, :, joint]
        shared = (wanted[..., 2] > 0) & (have[..., 2] > 0)
        apart = np.hypot(wanted[..., 0] - have[..., 0], wanted[..., 1] - have[..., 1])
        sums += np.where(shared, apart, 0)
        both += shared
    enough = both >= np.maximum(1, SHARED * (poses[:, part, 2] > 0).sum(axis=1))[:, None]
    return np.where(enough, sums / np.maximum(both, 1), np.inf)


def _parts(skeleton: Skeleton) -> list[slice]:
    """Return where body, face and each hand are in the order of a layout."""
    pieces = dict(skeleton.pieces)
    if hands := pieces.pop("hands", None):
        middle = (hands.start + hands.stop) // 2
        return [*pieces.values(), slice(hands.start, middle), slice(middle, hands.stop)]
    return list(pieces.values())
