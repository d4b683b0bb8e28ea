import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.pose.skeleton import (
    BLAZEPOSE_33,
    BODY_25,
    COCO_17,
    COCO_18,
    EDN_23,
    FACE_70,
    HAND_21,
    PENN_13,
    SKELETONS,
    Skeleton,
    anonymous,
    converter,
    find_skeleton,
)

# Published tables (skeletons.md, section 2): a tuple is a mean, nothing is missing.
TABLES = [
    (COCO_18, COCO_17, [0, (5, 6), 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]),
    (COCO_18, BLAZEPOSE_33, [0, (11, 12), 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7]),
    (COCO_18, BODY_25, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]),
    (COCO_17, BODY_25, [0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11]),
    (COCO_17, COCO_18, [0, 15, 14, 17, 16, 5, 2, 6, 3, 7, 4, 11, 8, 12, 9, 13, 10]),
    (COCO_17, BLAZEPOSE_33, [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]),
    (
        BODY_25,
        COCO_17,
        [0, (5, 6), 6, 8, 10, 5, 7, 9, (11, 12), 12, 14, 16, 11, 13, 15, 2, 1, 4, 3, (), (), (), (), (), ()],
    ),
    (
        BODY_25,
        BLAZEPOSE_33,
        [0, (11, 12), 12, 14, 16, 11, 13, 15, (23, 24), 24, 26, 28, 23, 25, 27, 5, 2, 8, 7, 31, (), 29, 32, (), 30],
    ),
    (EDN_23, BODY_25, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22, 23, 12, 13, 14, 19, 20, 0, 15, 17, 16, 18]),
]
FLIPS = {
    COCO_17: [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15],
    BODY_25: [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17, 22, 23, 24, 19, 20, 21],
    BLAZEPOSE_33: [0, 4, 5, 6, 1, 2, 3, *(k + 1 if k % 2 else k - 1 for k in range(7, 33))],
    EDN_23: [0, 4, 5, 6, 1, 2, 3, 7, 13, 14, 15, 16, 17, 8, 9, 10, 11, 12, 18, 21, 22, 19, 20],
    HAND_21: list(range(21)),
    anonymous(5): [0, 1, 2, 3, 4],
}


@pytest.mark.parametrize(("target", "source", "table"), TABLES, ids=lambda value: getattr(value, "name", ""))
def test_conversions_are_the_published_tables(target: Skeleton, source: Skeleton, table: list[object]) -> None:
    found = [parents[0] if len(parents) == 1 else parents for parents in converter(source, target).parents]
    assert [sorted(p) if isinstance(p, tuple) else p for p in found] == [
        sorted(p) if isinstance(p, tuple) else p for p in table
    ]


@pytest.mark.parametrize("skeleton", FLIPS, ids=lambda skeleton: skeleton.name)
def test_flips_are_the_published_permutations(skeleton: Skeleton) -> None:
    assert list(skeleton.flip) == FLIPS[skeleton]


def test_a_mean_takes_the_lower_confidence_and_misses_with_a_parent() -> None:
    pose = np.zeros((2, 17, 3), np.float32)
    pose[:, 5], pose[:, 6] = (10, 20, 0.9), (30, 40, 0.4)
    pose[1, 6] = (np.nan, np.nan, 0)
    neck = converter(COCO_17, COCO_18)(pose)[:, COCO_18.index("Neck")]
    np.testing.assert_allclose(neck[0], (20, 30, 0.4))
    assert neck[1, 2] == 0


def test_a_conversion_says_what_it_drops_and_what_stays_missing() -> None:
    conversion = converter(BLAZEPOSE_33, BODY_25)
    assert conversion.missing == ("LSmallToe", "RSmallToe")
    assert {"LPinky", "RThumb", "LMouth"} < set(conversion.dropped)
    assert converter(COCO_18, COCO_18).dropped == ()


def test_a_head_stands_for_a_nose_only_when_asked_for() -> None:
    assert converter(PENN_13, COCO_17).parents[0] == ()
    assert converter(PENN_13, COCO_17, rough=True).parents[0] == (0,)


def test_skeletons_without_a_common_joint_are_refused() -> None:
    with pytest.raises(DataError, match="no joint of skeleton coco-18 can be had from anonymous-4"):
        converter(find_skeleton("anonymous-4"), COCO_18)


def test_an_unknown_skeleton_is_named_with_the_nearest() -> None:
    with pytest.raises(DataError, match="no skeleton 'coco18'; did you mean 'coco-18'"):
        find_skeleton("coco18")


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


def test_a_mirrored_face_swaps_the_published_points() -> None:
    """Mirrored pairs of the 68 landmarks as face alignment papers list them, and the pupils."""
    pairs = [*zip(range(8), range(16, 8, -1), strict=True), *zip(range(17, 22), range(26, 21, -1), strict=True)]
    pairs += [(31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52)]
    pairs += [(59, 55), (58, 56), (60, 64), (61, 63), (67, 65), (68, 69)]
    expected = list(range(70))
    for right, left in pairs:
        expected[right], expected[left] = left, right
    assert list(FACE_70.flip) == expected


def test_a_body_may_have_a_face_and_hands_behind_it() -> None:
    skeleton = find_skeleton("coco-18+face+hands")
    assert (len(skeleton), skeleton.parts, skeleton.body) == (18 + 70 + 42, ("face", "hands"), COCO_18)
    assert {name: (piece.start, piece.stop) for name, piece in skeleton.pieces.items()} == {
        **{"body": (0, 18), "face": (18, 88), "hands": (88, 130)}
    }
    assert len(set(skeleton.joints)) == 130
    left, right = skeleton.index("LHandWrist"), skeleton.index("RHandWrist")
    assert (left, right) == (88, 109)
    assert skeleton.flip[left : left + 21] == tuple(range(right, right + 21))
    assert (left, left + 1) in skeleton.edges
    assert not converter(find_skeleton("blazepose-33+face+hands"), skeleton).missing
    assert COCO_18.parts == ()
    assert COCO_18.body is COCO_18


@pytest.mark.parametrize("name", ["coco-18+feet", "coco-18+hands+face", "coco-18+", "coco-18+face+face"])
def test_parts_that_there_are_not_are_refused(name: str) -> None:
    with pytest.raises(DataError, match=r"names the parts .*; accepted: face, hands, face\+hands"):
        find_skeleton(name)
