"""Parts of a frame that a viewer looks at: the body and the face, found by the pose.

References:
    Chan, Ginosar, Zhou and Efros, "Everybody Dance Now", ICCV 2019 (arXiv 1808.07371), evaluation: distances on the crop of the
    body and of the face. The sizes of the crops are a choice: the face's is a quarter of the frame's height, as the face
    network of the paper sees it (128 pixels of 512).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

from kinema.pose.skeleton import Skeleton

LEAST = 16  # pixels of a side: SSIM's window fits with room
MARGIN = 0.1  # of the body's larger side, on every side: joints lie inside the body
HEADROOM = 0.1  # more of it above: the highest joint of most layouts is an eye
FACE_SHARE = 0.25

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; the last two are outside."""
Region = Callable[[Float[np.ndarray, "J 3"], Skeleton, int, int], Box | None]


def body_box(points: Float[np.ndarray, "J 3"], skeleton: Skeleton, width: int, height: int) -> Box | None:
    """Return the box around the joints that were found, with a margin; None where fewer than three were.

    Args:
        points: joints, confidence 0 is missing.
        skeleton: their layout.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    found = points[points[:, 2] > 0, :2]
    if len(found) < 3:
        return None
    (left, top), (right, bottom) = found.min(axis=0), found.max(axis=0)
    margin = MARGIN * max(right - left, bottom - top)
    top -= HEADROOM * (bottom - top)
    return _inside(left - margin, top - margin, right + margin, bottom + margin, width, height)


def face_box(points: Float[np.ndarray, "J 3"], skeleton: Skeleton, width: int, height: int) -> Box | None:
    """Return the box around the nose, else between the ears, else around the one that is seen; None where neither is."""
    centre = _face_centre(points, skeleton)
    if centre is None:
        return None
    half = max(round(FACE_SHARE * height), LEAST) / 2
    return _inside(centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half, width, height)


REGIONS: Mapping[str, Region] = {"body": body_box, "face": face_box}


def _face_centre(points: Float[np.ndarray, "J 3"], skeleton: Skeleton) -> Float[np.ndarray, "2"] | None:
    found = {
        joint: points[skeleton.index(joint), :2]
        for joint in ("Nose", "REar", "LEar")
        if joint in skeleton.joints and points[skeleton.index(joint), 2] > 0
    }
    if "Nose" in found:
        return found["Nose"]
    return np.mean(list(found.values()), axis=0) if found else None


def _inside(left: float, top: float, right: float, bottom: float, width: int, height: int) -> Box:
    """Round a box, grow it to `LEAST` and push it into the frame."""
    (low_x, high_x), (low_y, high_y) = _span(left, right, width), _span(top, bottom, height)
    return low_x, low_y, high_x, high_y


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """Return whole ends of a stretch inside 0 to `length`; one that is cut by the frame keeps at least `LEAST` of it."""
    least = min(LEAST, length)
    first, last = max(0, int(np.floor(low))), min(length, int(np.ceil(high)))
    if last - first < least:
        first = int(np.clip(round((low + high) / 2 - least / 2), 0, length - least))
        last = first + least
    return first, last
