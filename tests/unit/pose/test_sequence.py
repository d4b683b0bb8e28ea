import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.pose.sequence import Poses, concatenate, integrate, velocity
from kinema.pose.skeleton import BODY_25, COCO_17, COCO_18, find_skeleton


def some(frames: int = 6, people: int = 1, *, missing: bool = True, **fields: object) -> Poses:
    rng = np.random.default_rng(0)
    points = rng.uniform(1, 40, (frames, people, 18, 3)).astype(np.float32)
    points[..., 2] = rng.uniform(0.2, 1, points.shape[:-1])
    if missing and frames > 2:
        points[2, 0, 4] = 0
    return Poses(points, COCO_18, **{"width": 64, "height": 48, "fps": 25.0, **fields})


def same(one: np.ndarray, other: np.ndarray) -> None:
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_what_is_missing_is_marked_and_leaves_as_zero() -> None:
    poses = some()
    assert not poses.present[2, 0, 4]
    assert poses.present.sum() == 6 * 18 - 1
    assert np.isnan(poses.points[2, 0, 4, :2]).all()
    assert (poses.filled()[2, 4] == 0).all()


def test_a_coordinate_that_is_no_number_is_missing_even_with_confidence() -> None:
    points = np.ones((1, 1, 18, 3), np.float32)
    points[0, 0, 3, 0] = np.inf
    assert Poses(points, COCO_18, 4, 4, 25).points[0, 0, 3, 2] == 0


def test_zero_is_a_place_like_any_other() -> None:
    points = np.zeros((1, 1, 18, 3), np.float32)
    points[..., 2] = 1
    assert Poses(points, COCO_18, 4, 4, 25).present.all()


def test_resizing_keeps_pixel_centres() -> None:
    points = np.zeros((1, 1, 18, 3), np.float32)
    points[..., 2] = 1
    points[..., :2] = 7.5  # the middle of 16 pixels
    same(Poses(points, COCO_18, 16, 16, 25).resized(32, 8).points[0, 0, 0, :2], [15.5, 3.5])


def test_resizing_and_cropping_undo() -> None:
    poses = some()
    same(poses.resized(128, 30).resized(64, 48).points, poses.points)
    same(poses.cropped(5, -3, 50, 60).cropped(-5, 3, 64, 48).points, poses.points)


def test_mirroring_swaps_sides_and_undoes_itself() -> None:
    poses = some()
    right, left = COCO_18.index("RWrist"), COCO_18.index("LWrist")
    mirrored = poses.mirrored()
    same(mirrored.points[..., left, 0], 63 - poses.points[..., right, 0])
    same(mirrored.mirrored().points, poses.points)


def test_a_homography_per_frame_moves_that_frame() -> None:
    poses = some(missing=False)
    homographies = np.stack([np.array([[1, 0, step], [0, 1, -step], [0, 0, 1.0]]) for step in range(6)])
    moved = poses.warped(homographies).points - poses.points
    same(moved[..., 0], np.arange(6)[:, None, None] * np.ones((6, 1, 18)))
    same(poses.warped(homographies).warped(np.linalg.inv(homographies)).points, poses.points)


def test_hands_and_faces_move_with_the_body() -> None:
    hands = np.ones((6, 1, 2, 21, 3), np.float32)
    face = np.full((6, 1, 70, 3), 2, np.float32)
    poses = some(hands=hands, face=face).cropped(1, 2, 10, 10)
    same(poses.hands[0, 0, 0, 0], [0, -1, 1])
    same(poses.face[0, 0, 0], [1, 0, 2])


def test_hands_change_sides_in_a_mirror() -> None:
    hands = np.ones((6, 1, 2, 21, 3), np.float32)
    hands[:, :, 1, :, 0] = 10
    same(some(hands=hands).mirrored().hands[0, 0, 0, 0], [53, 1, 1])


def test_velocity_and_integration_are_inverses() -> None:
    poses = some(missing=False)
    steps = velocity(poses.points)
    same(steps[..., :2], np.diff(poses.points[..., :2], axis=0))
    same(integrate(poses.points[0], steps)[..., :2], poses.points[..., :2])


def test_a_step_is_missing_where_an_end_is() -> None:
    steps = velocity(some().points)
    assert (steps[1:3, 0, 4, 2] == 0).all()
    assert (steps[[0, 3, 4], 0, 4, 2] > 0).all()


def test_joining_keeps_the_borders() -> None:
    together = concatenate([some(4), some(6), some(2)])
    assert together.begins == (0, 4, 10)
    assert together.window(3, 11).begins == (0, 1, 7)


def test_clips_that_differ_are_not_joined() -> None:
    with pytest.raises(DataError, match="differ in fps"):
        concatenate([some(), some(fps=30.0)])


def test_a_person_is_taken_out_with_the_name() -> None:
    poses = some(people=3)
    alone = poses.person(2)
    assert alone.people == (2,)
    same(alone.points[:, 0], poses.points[:, 2])


def test_conversion_keeps_the_rest() -> None:
    points = np.ones((2, 1, 25, 3), np.float32)
    converted = Poses(points, BODY_25, 8, 8, 25).converted(COCO_17)
    assert converted.skeleton is COCO_17
    assert converted.points.shape == (2, 1, 17, 3)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"fps": 0.0}, "at 0 fps: sizes must be positive, a rate 0.001 to 1000"),
        ({"begins": (1,)}, "begin at"),
        ({"begins": (0, 99)}, "frames begin at"),
        ({"face": np.ones((2, 1, 70, 3), np.float32)}, "face points have"),
    ],
)
def test_nonsense_is_refused(fields: dict, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        some(**fields)


def test_joints_of_another_skeleton_are_refused() -> None:
    with pytest.raises(DataError, match=r"skeleton coco-18 wants \(T, P, 18, 3\)"):
        Poses(np.ones((2, 1, 25, 3), np.float32), COCO_18, 8, 8, 25)


def whole_body(frames: int = 3) -> np.ndarray:
    """Point j of 130 is at (j, 2 j)."""
    points = np.ones((frames, 1, 130, 3), np.float32)
    points[..., 0], points[..., 1] = np.arange(130), 2 * np.arange(130)
    return points


def test_a_layout_with_parts_is_taken_apart_and_put_together_again() -> None:
    points = whole_body()
    points[1, 0, 88:109, 2] = 0
    poses = Poses(points, find_skeleton("coco-18+face+hands"), 200, 300, 25)
    assert (poses.skeleton, poses.layout.name) == (COCO_18, "coco-18+face+hands")
    assert poses.face is not None
    assert poses.hands is not None
    same(poses.face[0, 0, 0], [18, 36, 1])
    same(poses.hands[0, 0, 1, 0], [109, 218, 1])
    assert {name: seen[:, 0].tolist() for name, seen in poses.shown.items()} == {
        **{"face": [True] * 3, "left hand": [True, False, True], "right hand": [True] * 3}
    }
    assert (poses.filled()[1, 88:109] == 0).all()
    same(poses.filled()[[0, 2]], points[[0, 2], 0])


def test_conversion_leaves_out_parts_and_says_which_are_lacking() -> None:
    poses = Poses(whole_body(), find_skeleton("coco-18+face+hands"), 200, 300, 25)
    hands = find_skeleton("coco-17+hands")
    converted = poses.converted(hands)
    assert (converted.skeleton, converted.face, converted.lacking(hands)) == (COCO_17, None, [])
    same(converted.hands, poses.hands)
    assert poses.converted(COCO_18).lacking(find_skeleton("coco-18+face+hands")) == ["face", "hands"]


def test_a_face_in_a_mirror_changes_sides() -> None:
    poses = Poses(whole_body()[:, :, :88], find_skeleton("coco-18+face"), 200, 300, 25)
    mirrored = poses.mirrored()
    assert mirrored.face is not None
    same(mirrored.face[0, 0, 69], [199 - (18 + 68), 2 * (18 + 68), 1])  # the left pupil is where the right one was
    same(mirrored.mirrored().face, poses.face)
