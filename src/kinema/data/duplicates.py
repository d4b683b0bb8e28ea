"""Clips that hardly differ, found by tiny pictures of them."""

import base64
from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import UInt8

SIGNATURE_FRAMES = 3
SIGNATURE_CELLS = 16


def signature(video: UInt8[np.ndarray, "T H W 3"]) -> str:
    """Reduce a clip to tiny grey pictures of its first, middle and last frame, base64."""
    chosen = np.linspace(0, len(video) - 1, SIGNATURE_FRAMES).round().astype(int)
    size = (SIGNATURE_CELLS, SIGNATURE_CELLS)
    grey = [cv2.cvtColor(video[t], cv2.COLOR_RGB2GRAY) for t in chosen]
    tiny = np.stack([cv2.resize(picture, size, interpolation=cv2.INTER_AREA) for picture in grey])
    return base64.b64encode(tiny.tobytes()).decode()


def find_duplicates(clips: Mapping[str, str], limit: float) -> dict[str, tuple[str, int]]:
    """Find clips that hardly differ from an earlier one that is kept.

    With a fixed camera most of the picture is the same in all clips. So what counts is the largest difference of any cell of
    the signatures, not the mean: a small thing that moved elsewhere makes a difference of its own contrast. And it must be at
    most half of what changes within the clip, or else all clips of a thing that hardly moves would be taken for one.

    Args:
        clips: key of a clip -> its signature, in order.
        limit: largest difference of near-duplicates, in grey levels; copies, which do not differ, are always found.

    Returns:
        Key of a duplicate -> key of the earlier clip, and their difference in grey levels.
    """
    from scipy.spatial import KDTree  # here, not above: workers never come here and start faster without

    if not clips:
        return {}
    keys = list(clips)
    signatures = np.stack([np.frombuffer(base64.b64decode(tiny), np.uint8) for tiny in clips.values()])
    pictures = signatures.reshape(len(clips), SIGNATURE_FRAMES, -1).astype(np.int16)
    limits = np.minimum(limit, np.abs(pictures - pictures[:, :1]).max(axis=(1, 2)) / 2)
    # A tree over the cells that vary most finds candidates: within the limit everywhere is within the limit there.
    telling = np.argsort(-signatures.std(axis=0), kind="stable")[:12]
    tree = KDTree(signatures[:, telling].astype(np.float32))
    twins: dict[int, tuple[int, int]] = {}
    for one in range(len(clips)):
        if one in twins:
            continue
        near = [other for other in tree.query_ball_point(signatures[one, telling], limit, p=np.inf) if other > one]
        differences = np.abs(pictures[near] - pictures[one]).max(axis=(1, 2), initial=0)
        for other, difference in zip(near, differences.tolist(), strict=True):
            if difference <= limits[one]:
                twins.setdefault(other, (one, difference))
    return {keys[other]: (keys[one], difference) for other, (one, difference) in sorted(twins.items())}
