"""Driving poses: gaps bridged or held, layouts refused, frames cut as datasets are."""

from dataclasses import replace

import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.pose.driving import Driving, Sideways, as_prepared, bridged, drive, hold, within
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import COCO_17, COCO_18, PENN_13, find_skeleton


def moving(frames: int, fps: float = 10) -> Poses:
    """Everybody's joint j is at (10 t + j, j)."""
    points = np.ones((frames, 1, 18, 3), np.float32)
    points[..., 0] = 10 * np.arange(frames)[:, None, None] + np.arange(18)
    points[..., 1] = np.arange(18)
    return Poses(points, COCO_18, 640, 480, fps)


def gone(poses: Poses, *frames: int) -> Poses:
    points = poses.points.copy()
    points[list(frames), ..., 2] = 0
    return Poses(points, poses.skeleton, poses.width, poses.height, poses.fps)


def test_short_gaps_are_bridged_and_long_ones_held() -> None:
    assert bridged(10) == 2
    driven = drive(gone(moving(12), 0, 3, 4, 7, 8, 9), COCO_18, lambda poses: poses, smooth="none")
    assert driven.absent == (0, 3, 4, 7, 8, 9)
    x = driven.poses.points[:, 0, 0, 0]
    np.testing.assert_allclose(x, [10, 10, 20, 30, 40, 50, 60, 60, 60, 60, 100, 110])
    assert driven.window(3, 8).absent == (0, 1, 4)
    assert len(driven.window(3, 8).poses) == 5


def test_whom_the_detector_turned_over_counts_as_nobody() -> None:
    poses = moving(40, fps=30)
    upright = 60 * np.isin(COCO_18.joints, ("RHip", "LHip"))
    poses.points[..., 1] = upright
    poses.points[20:30, 0, :, 1] = -upright
    driven = drive(gone(poses, 35), COCO_18, lambda found: found, smooth="none")
    assert driven.flipped == tuple(range(20, 30))
    assert driven.absent == (*range(20, 30), 35)
    assert driven.window(25, 40).flipped == tuple(range(5))
    np.testing.assert_allclose(driven.poses.points[20:30, 0], np.broadcast_to(poses.points[19, 0], (10, 18, 3)))


def test_a_joint_that_is_missing_for_long_stays_missing() -> None:
    poses = moving(12)
    poses.points[4:9, 0, 7] = (np.nan, np.nan, 0)
    driven = drive(poses, COCO_18, lambda found: found, smooth="none").poses
    assert not driven.present[4:9, 0, 7].any()
    assert driven.present[:, 0, 6].all()


def test_smoothing_comes_after_normalisation() -> None:
    """A normaliser that spoils one frame is smoothed away; one frame of it before smoothing would have stayed."""

    def spoil(poses: Poses) -> Poses:
        points = poses.points.copy()
        points[5, ..., 0] += 1000
        return Poses(points, poses.skeleton, poses.width, poses.height, poses.fps)

    x = drive(moving(11), COCO_18, spoil, smooth="median", window=3).poses.points[:, 0, 0, 0]
    assert x.max() <= 100


def test_layouts_are_converted_or_refused() -> None:
    converted = drive(moving(3).converted(COCO_17), COCO_18, lambda poses: poses, smooth="none").poses
    assert converted.skeleton == COCO_18
    assert converted.present.all()
    with pytest.raises(DataError, match=r"poses of skeleton penn-13 have no Nose, .*detector of the target's dataset"):
        drive(moving(3).converted(PENN_13, rough=True), COCO_18, lambda poses: poses)


def test_nobody_at_all() -> None:
    with pytest.raises(DataError, match="no person is in any of the 3 frames"):
        drive(gone(moving(3), 0, 1, 2), COCO_18, lambda poses: poses)
    with pytest.raises(DataError, match="no person is left in any of the 3 frames after smoothing"):
        hold(gone(moving(3), 0, 1, 2))


def test_frames_are_cut_as_datasets_are() -> None:
    """640x480 covers 64x64 as 85x64, of which 10 columns on the left go."""
    poses = as_prepared(moving(31), 64, 64)
    assert (poses.width, poses.height) == (64, 64)
    x, y = poses.points[30, 0, 9, :2]
    assert x == pytest.approx((309 + 0.5) * 85 / 640 - 0.5 - 10, abs=1e-4)
    assert y == pytest.approx((9 + 0.5) * 64 / 480 - 0.5, abs=1e-4)
    assert not poses.present[0, 0, 0]  # where it was is cut off, and the drawings of training have no such joint


def test_letterboxed_frames_keep_all_between_borders() -> None:
    """640x480 fits into 64x64 as 64x48, below 8 black rows."""
    poses = as_prepared(moving(1), 64, 64, "letterbox")
    x, y = poses.points[0, 0, 9, :2]
    assert x == pytest.approx((9 + 0.5) / 10 - 0.5, abs=1e-4)
    assert y == pytest.approx((9 + 0.5) / 10 - 0.5 + 8, abs=1e-4)
    assert poses.present.all()


def test_hands_are_driven_where_the_target_has_them_and_missing_where_the_source_has_none() -> None:
    """They pass the same normaliser and the same filter as the body: a wrist and the hand's own end in one place."""
    with_hands = find_skeleton("coco-18+hands")
    body = moving(9)
    wrists = [[COCO_18.index("LWrist")] * 21, [COCO_18.index("RWrist")] * 21]
    source = replace(body, hands=body.points[:, :, wrists], face=body.points[:, :, [0] * 70])

    def halved(poses: Poses) -> Poses:
        return poses.mapped(lambda points: points / 2 + 7)

    driven = drive(source, with_hands, halved).poses
    assert driven.face is None
    assert driven.hands is not None
    np.testing.assert_allclose(driven.hands[:, :, :, 5], driven.points[:, :, [row[0] for row in wrists]], rtol=1e-6)
    assert driven.filled().shape == (9, 18 + 42, 3)
    without = drive(body, with_hands, halved).poses
    assert without.filled().shape == (9, 18 + 42, 3)
    assert not without.filled()[:, 18:].any()
    assert drive(source, COCO_18, halved).poses.filled().shape == (9, 18, 3)


def walker(middle: np.ndarray, width: int = 100) -> Poses:
    """Somebody 20 pixels wide whose hips' middle is at given places, with wrists 30 pixels away."""
    beside = np.zeros(18)
    for side, names in ((-10, ("RShoulder", "RHip", "RAnkle")), (10, ("LShoulder", "LHip", "LAnkle"))):
        beside[[COCO_18.index(name) for name in names]] = side
    beside[COCO_18.index("RWrist")], beside[COCO_18.index("LWrist")] = -30, 30
    points = np.ones((len(middle), 1, 18, 3), np.float32)
    points[..., 0] = middle[:, None, None] + beside
    points[..., 1] = np.arange(18)
    return Poses(points, COCO_18, width, 50, 10)


def test_who_leaves_the_picture_is_seen_and_arms_do_not_count() -> None:
    assert Driving(walker(np.array([10.0, 50.0, 89.0])), ()).cut_off == ()
    assert Driving(walker(np.array([9.0, 50.0, 89.5])), ()).cut_off == (0, 2)


def test_a_way_to_the_sides_is_shifted_before_it_is_narrowed() -> None:
    """Shifted alone, feet that stand stay where they are."""
    beside, wide = walker(np.linspace(-40, 20, 201)), walker(np.linspace(-40, 160, 201))
    way = within(beside)
    assert way.share == 1
    assert Driving(way.place(beside), ()).cut_off == ()
    way = within(wide)
    room = 100 - 1 - 2 * 3 - 20  # a margin of 3 and the half of a body, on both sides
    assert way.share == pytest.approx(room / (0.96 * 200), rel=0.01)
    moved = way.place(wide)
    assert Driving(moved, ()).cut_off == ()
    np.testing.assert_allclose(np.diff(moved.points[:, 0, 1, 0]), way.share, rtol=1e-3)
    assert Driving(wide, ()).moved(way).poses.points.tolist() == moved.points.tolist()


def test_bodies_keep_their_shape_and_who_is_in_view_stays() -> None:
    wide = walker(np.linspace(-40, 160, 51))
    moved = within(wide).place(wide)
    offsets = wide.points[..., 0] - wide.points[:, :, :1, 0]
    np.testing.assert_allclose(moved.points[..., 0] - moved.points[:, :, :1, 0], offsets, atol=1e-4)
    assert within(walker(np.linspace(40, 60, 51))) == Sideways(1.0, 0.0)


def test_a_body_wider_than_the_picture_stands_in_its_middle() -> None:
    moved = within(huge := walker(np.linspace(-40, 160, 51), width=12)).place(huge)
    np.testing.assert_allclose(moved.points[:, 0, COCO_18.index("Neck"), 0], 5.5, atol=0.01)


def test_a_frame_without_hips_does_not_jump() -> None:
    """The middle of what is there, or of the frames around, stands in."""
    wide = walker(np.linspace(-40, 160, 51))
    way, whole = within(wide), within(wide).place(wide)
    for there in (("Neck",), ("RWrist",)):
        part = walker(np.linspace(-40, 160, 51))
        part.points[25, 0, [joint not in there for joint in COCO_18.joints], 2] = 0
        moved = way.place(part).points[25, 0, COCO_18.index(there[0]), 0]
        assert moved == pytest.approx(whole.points[25, 0, COCO_18.index(there[0]), 0], abs=0.01)


def test_points_without_names_stay_in_view_as_a_whole() -> None:
    skeleton = find_skeleton("anonymous-4")
    points = np.ones((21, 1, 4, 3), np.float32)
    points[..., 0] = np.linspace(-40, 160, 21)[:, None, None] + np.arange(4)
    poses = Poses(points, skeleton, 100, 50, 10)
    assert len(Driving(poses, ()).cut_off) > 8
    moved = within(poses).place(poses)
    assert len(Driving(moved, ()).cut_off) <= 1
