import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.pose.skeleton import COCO_18, SKELETONS


def test_coco_18_is_openposes_order() -> None:
    assert len(COCO_18) == 18
    assert [COCO_18.index(joint) for joint in ("Nose", "Neck", "RWrist", "LHip", "LEar")] == [0, 1, 4, 11, 17]
    limbs = "1-2 1-5 2-3 3-4 5-6 6-7 1-8 8-9 9-10 1-11 11-12 12-13 1-0 0-14 14-16 0-15 15-17"
    assert " ".join(f"{a}-{b}" for a, b in COCO_18.edges) == limbs
    assert SKELETONS["coco-18"] is COCO_18


def test_flip_is_the_published_permutation() -> None:
    assert COCO_18.flip == (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)


def test_mirroring_moves_and_renames_and_undoes_itself() -> None:
    pose = np.random.default_rng(0).uniform(0, 64, (5, 18, 3))
    mirrored = COCO_18.mirrored(pose, 64)
    right, left = COCO_18.index("RWrist"), COCO_18.index("LWrist")
    np.testing.assert_allclose(mirrored[:, left, 0], 63 - pose[:, right, 0])
    np.testing.assert_array_equal(mirrored[:, left, 1:], pose[:, right, 1:])
    np.testing.assert_allclose(COCO_18.mirrored(mirrored, 64), pose)


def test_an_unknown_joint_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match="no joint 'RWirst'; did you mean 'RWrist'"):
        COCO_18.index("RWirst")
