"""Parts of a frame that a viewer looks at: the body, the face and the hands, found by the pose.

References:
    Chan, Ginosar, Zhou and Efros, "Everybody Dance Now", ICCV 2019 (arXiv 1808.07371), evaluation: distances on the crop of the
    body and of the face; crops of hands are ours. The sizes of the crops are a choice: the face's is a quarter of the frame's
    height, as the face network of the paper sees it (128 pixels of 512).
"""

import numpy as np
from jaxtyping import Float

from kinema.pose.skeleton import FACE_PLACES, Skeleton

LEAST = 16  # pixels of a side: SSIM's window fits with room
MARGIN = 0.1  # of the body's larger side, on every side: joints lie inside the body
HEADROOM = 0.1  # more of it above: the highest joint of most layouts is an eye
FACE_SHARE = 0.25
HAND_MARGIN = 0.2  # of a hand's larger side, on every side: its joints lie inside, too

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; the last two are outside."""


def boxes(points: Float[np.ndarray, "J 3"], skeleton: Skeleton, width: int, height: int) -> dict[str, list[Box]]:
    """Return the boxes of body, face and, where the layout has them, hands; those of what is not seen are left out.

    Args:
        points: joints, confidence 0 is missing.
        skeleton: their layout.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
    """
    body = body_box(points[skeleton.pieces["body"]], width, height)
    found = {"body": [body], "face": [face_box(points, skeleton, width, height)]}
    if "hands" in skeleton.parts:
        found["hands"] = [hand_box(hand, width, height) for hand in points[skeleton.pieces["hands"]].reshape(2, -1, 3)]
    return {name: [box for box in some if box is not None] for name, some in found.items()}


def body_box(points: Float[np.ndarray, "J 3"], width: int, height: int) -> Box | None:
    """Return the box around the joints of a body that were found, with a margin; None where fewer than three were."""
    return _around(points, MARGIN, HEADROOM, width, height)


def hand_box(points: Float[np.ndarray, "21 3"], width: int, height: int) -> Box | None:
    """Return the box around the points of a hand that were found, with a margin; None where fewer than three were."""
    return _around(points, HAND_MARGIN, 0, width, height)


def _around(points: Float[np.ndarray, "N 3"], margin: float, headroom: float, width: int, height: int) -> Box | None:
    found = points[points[:, 2] > 0, :2]
    if len(found) < 3:
        return None
    (left, top), (right, bottom) = found.min(axis=0), found.max(axis=0)
    more = margin * max(right - left, bottom - top)
    top -= headroom * (bottom - top)
    return _inside(left - more, top - more, right + more, bottom + more, width, height)


def face_box(points: Float[np.ndarray, "J 3"], skeleton: Skeleton, width: int, height: int) -> Box | None:
    """Return the box around the face's place, the nose if it is seen; None where there is none."""
    centre = _face_centre(points, skeleton)
    if centre is None:
        return None
    half = max(round(FACE_SHARE * height), LEAST) / 2
    return _inside(centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half, width, height)


def _face_centre(points: Float[np.ndarray, "J 3"], skeleton: Skeleton) -> Float[np.ndarray, "2"] | None:
    for joints in FACE_PLACES:
        if set(joints) <= set(skeleton.joints):
            found = points[[skeleton.index(joint) for joint in joints]]
            if (found[:, 2] > 0).all():
                return found[:, :2].mean(axis=0)
    return None


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
