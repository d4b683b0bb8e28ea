"""Numbers on films to look at."""

import numpy as np

from kinema.data.overlay import _name
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_18


def test_a_number_stands_above_the_head_and_not_above_the_middle_of_a_held_out_arm() -> None:
    points = np.full((1, 1, 18, 3), 0.9, np.float32)
    points[0, 0, :, :2] = np.linspace((40, 60), (40, 150), 18)
    points[0, 0, COCO_18.index("LWrist"), :2] = 180, 80
    for joint in ("Nose", "REye", "LEye", "REar", "LEar"):
        points[0, 0, COCO_18.index(joint), :2] = 40, 55
    image = np.full((160, 240, 3), 128, np.uint8)
    _name(image, Poses(points, COCO_18, 240, 160, 25.0))
    rows, columns = np.nonzero((image != 128).any(axis=2))
    assert columns.min() < 40 < columns.max() < 60  # the box's middle is at 110
    assert rows.max() < 55
    assert image.min() < 30
    assert image.max() > 220
