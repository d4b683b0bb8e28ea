import json
from dataclasses import replace

import numpy as np
import pytest

from kinema.core.errors import ConfigError, DataError
from kinema.data.motions import sample_motion
from kinema.data.performers import Placement, render, sample_identity
from kinema.data.stages import Stage
from kinema.pose.normalise import MODES, Affine, Depth, Normaliser, Relative, fit
from kinema.pose.sequence import Poses, concatenate
from kinema.pose.skeleton import BODY_25, COCO_17, COCO_18, PENN_13, anonymous
from kinema.pose.stature import TORSO, BodyStatistics, measure

HORIZON, FOCAL, CAMERA, TALL = 300.0, 1000.0, 1.4, 1.6
"""Of a pinhole camera in pixels and metres; TALL is from nose to ankles."""


def standing(
    depths: np.ndarray, x: float = 0, *, horizon: float = HORIZON, focal: float = FOCAL, tall: float = TALL, **fields: object
) -> Poses:
    """Return somebody who stands upright at several depths before a pinhole camera."""
    points = np.ones((len(depths), 1, 18, 3), np.float32)
    size = focal / depths
    feet = horizon + size * CAMERA
    across = np.linspace(-0.2, 0.2, 18)
    up = dict.fromkeys(COCO_18.joints, 0.5 * tall) | {"Nose": tall, "LAnkle": 0.0, "RAnkle": 0.0}
    for joint, name in enumerate(COCO_18.joints):
        points[:, 0, joint, 0] = 960 + size * (x + across[joint] * (name != "Nose"))
        points[:, 0, joint, 1] = feet - size * up[name]
    for name in ("LAnkle", "RAnkle"):
        points[:, 0, COCO_18.index(name), 0] = 960 + size * x
    return Poses(points, COCO_18, **{"width": 1920, "height": 1080, "fps": 25.0, **fields})


def wandering(near: float = 3, far: float = 6, frames: int = 400, **more: object) -> Poses:
    rng = np.random.default_rng(0)
    return standing(rng.uniform(near, far, frames), **more)


def feet(poses: Poses) -> np.ndarray:
    return poses.points[:, 0, [COCO_18.index("LAnkle"), COCO_18.index("RAnkle")], 1].max(axis=1)


def tallness(poses: Poses) -> np.ndarray:
    return feet(poses) - poses.points[:, 0, COCO_18.index("Nose"), 1]


def depth_rule(normaliser: Normaliser) -> Depth:
    assert isinstance(normaliser.rule, Depth), normaliser.notes
    return normaliser.rule


# --- Invariants (specification, section 12)


def test_a_source_that_is_the_target_stays_exactly_where_it_is() -> None:
    poses = wandering()
    rule = depth_rule(fit(poses, measure(poses), "depth"))
    assert (rule.scale_close, rule.scale_far) == (1, 1)
    foot = np.linspace(500, 1000, 40)
    np.testing.assert_allclose(rule.at(foot)[0], foot, atol=1e-9)
    assert (rule.at(foot)[1] == 1).all()


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_leaves_the_target_as_it_is(mode: str) -> None:
    noise = np.random.default_rng(1).normal(0, 3, (400, 1, 18, 2))
    poses = wandering().mapped(lambda points: points + noise)
    same = fit(poses, measure(poses), mode)
    np.testing.assert_allclose(same(poses).points, poses.points, rtol=1e-5)
    assert same.mode == mode


def test_the_foot_lands_where_it_must() -> None:
    source, target = wandering(), wandering(4, 7, focal=1300, horizon=250)
    normaliser = fit(source, measure(target), "depth")
    stand, scale = depth_rule(normaliser).at(feet(source))
    after = normaliser(source)
    np.testing.assert_allclose(feet(after), stand, atol=1e-3)
    np.testing.assert_allclose(tallness(after), scale * tallness(source), rtol=1e-4)


def test_anchored_at_the_first_foot_it_misses_by_what_the_specification_says() -> None:
    source, target = wandering(), wandering(4, 7, focal=1900, horizon=250)
    normaliser = fit(source, measure(target), "code")
    foot = feet(source).astype(np.float64)
    stand, scale = depth_rule(normaliser).at(foot)
    missed = feet(normaliser(source)) - stand
    np.testing.assert_allclose(missed, (1 - scale) * (foot[0] - foot), atol=1e-3)
    assert np.abs(missed).max() > 10  # the test that bites: a normaliser with this error fails the one above


def test_scales_at_both_ends_are_those_of_the_ends() -> None:
    rule = depth_rule(fit(wandering(), measure(wandering(4, 7, focal=1300)), "depth"))
    stand, scale = rule.at(np.array([rule.source_close, rule.source_far]))
    np.testing.assert_allclose(stand, [rule.target_close, rule.target_far])
    np.testing.assert_allclose(scale, [rule.scale_close, rule.scale_far])


def test_beyond_both_ends_the_floor_goes_on_and_the_size_does_not() -> None:
    rule = Depth(200, 100, 0, 150, 400, 200, 0, 2.0, 1.0)
    stand, scale = rule.at(np.array([0.0, 80.0, 220.0, 300.0]))
    np.testing.assert_allclose(stand, [0, 160, 440, 600])
    np.testing.assert_allclose(scale, [0.8, 0.8, 2.2, 2.2])


def test_the_order_of_frames_does_not_matter() -> None:
    poses = wandering()
    shuffled = replace(poses, points=poses.points[np.random.default_rng(3).permutation(len(poses))])
    assert measure(shuffled) == measure(poses)


def test_statistics_and_normalisers_survive_json() -> None:
    source, target = wandering(), measure(wandering(4, 7, focal=1300))
    assert BodyStatistics.from_mapping(json.loads(json.dumps(target.to_mapping()))) == target
    assert len(json.dumps(target.to_mapping())) < 20_000
    for mode in (*MODES, "code"):
        normaliser = fit(source, target, mode)
        again = Normaliser.from_mapping(json.loads(json.dumps(normaliser.to_mapping())))
        assert again == normaliser
        np.testing.assert_array_equal(again(source).points, normaliser(source).points)


def test_stored_things_that_are_damaged_are_refused() -> None:
    with pytest.raises(DataError, match="stored body statistics are damaged"):
        BodyStatistics.from_mapping({"skeleton": "coco-18"})
    for values in ({"mode": "magic"}, {"mode": "depth", "rule": {"source_close": 1}}):
        with pytest.raises(DataError, match="stored normaliser is damaged"):
            Normaliser.from_mapping(values)


# --- What is measured


def test_nearest_furthest_and_heights_by_hand() -> None:
    floor = measure(standing(np.array([4.0, 4.0, 5.0, 5.0, 5.5, 8.0]))).floor
    assert floor is not None
    assert floor.standing == 6
    assert floor.close == pytest.approx(650)  # 300 + 1400 / 4
    assert floor.foot == pytest.approx(580)
    # The median is 580 and close 70 below it: 554.5 is within half of that above, 475 is not.
    assert floor.far == pytest.approx(300 + 1400 / 5.5, abs=1e-3)
    assert floor.middle == pytest.approx(960, abs=15)
    assert floor.profile[-1] == pytest.approx((650, 400), abs=1e-3)


def test_one_frame_in_a_hundred_does_not_move_the_nearest_foot() -> None:
    depths = np.random.default_rng(0).uniform(3, 6, 500)
    clean, dirty = standing(depths), standing(depths)
    dirty.points[:4, 0, COCO_18.index("LAnkle"), 1] = 1070  # the floor mirrors a foot
    one, other = measure(clean).floor, measure(dirty).floor
    assert one is not None
    assert other is not None
    assert abs(one.close - other.close) < 10
    exact = measure(dirty, percentile=100).floor
    assert exact is not None
    assert exact.close - one.close > 250


def test_who_hardly_moves_in_depth_does_not_cross_the_whole_stage() -> None:
    source, target = wandering(4, 4.6), wandering(3, 6)
    rule = depth_rule(fit(source, measure(target), "depth"))
    floor = measure(target).floor
    assert floor is not None
    assert rule.target_close - rule.target_far == pytest.approx(rule.source_close - rule.source_far)
    assert rule.target_close + rule.target_far == pytest.approx(floor.close + floor.far)


def test_who_crouches_at_the_nearest_place_has_the_height_of_the_whole_film() -> None:
    depths = np.linspace(3, 6, 300)
    poses = standing(depths)
    near = depths < 3.3
    poses.points[near, 0, COCO_18.index("Nose"), 1] += 0.5 * tallness(poses)[near]
    target = standing(depths)
    rule = depth_rule(fit(poses, measure(target), "depth"))
    floor, own = measure(target).floor, measure(poses).floor
    assert floor is not None
    assert own is not None
    tallest = np.percentile([height for _, height in own.profile], 99)
    assert rule.scale_close == pytest.approx(TALL * FOCAL / 3 / tallest, rel=0.02)


def test_horizontally_the_source_stands_where_the_target_does() -> None:
    source, target = wandering(x=-1), wandering(x=0.7)
    moved = fit(source, measure(target), "depth")(source)
    hips = [COCO_18.index("LHip"), COCO_18.index("RHip")]
    middles = [np.median(poses.points[:, 0, hips, 0].mean(axis=1)) for poses in (moved, target)]
    assert middles[0] == pytest.approx(middles[1], abs=1)


def test_faces_and_hands_go_with_the_body() -> None:
    source = wandering()
    nose, wrists = COCO_18.index("Nose"), [COCO_18.index("LWrist"), COCO_18.index("RWrist")]
    source = replace(
        source, face=source.points[:, :, [nose] * 70], hands=source.points[:, :, [[wrist] * 21 for wrist in wrists]]
    )
    target = measure(wandering(4, 7, focal=1300))
    for mode in MODES:
        moved = fit(source, target, mode)(source)
        assert moved.face is not None
        assert moved.hands is not None
        np.testing.assert_allclose(moved.face[:, :, 7], moved.points[:, :, nose], rtol=1e-5)
        np.testing.assert_allclose(moved.hands[:, :, :, 3], moved.points[:, :, wrists], rtol=1e-5)


# --- What is missing


def test_missing_joints_stay_missing_and_pull_nothing() -> None:
    source, target = wandering(), measure(wandering(4, 7, focal=1300))
    holey = replace(source, points=source.points.copy())
    holey.points[::3, 0, COCO_18.index("RElbow")] = 0
    for mode in MODES:
        moved = fit(holey, target, mode)(holey)
        np.testing.assert_array_equal(moved.present, holey.present)
        expected = fit(source, target, mode)(source).points[moved.present]
        np.testing.assert_allclose(moved.points[moved.present], expected, rtol=1e-3)


def test_a_frame_without_ankles_takes_the_foot_of_the_frame_before_it() -> None:
    source = wandering(frames=50)
    source.points[[0, 10, 11], 0, COCO_18.index("LAnkle")] = 0
    rule = depth_rule(fit(source, measure(wandering(4, 7)), "depth"))
    foot = rule.feet(replace(source))[:, 0]
    assert foot[0] == foot[1]
    assert foot[9] == foot[10] == foot[11]


def test_feet_do_not_go_on_across_the_border_of_a_clip() -> None:
    source = wandering(frames=50)
    blind = replace(source, points=source.points.copy())
    blind.points[:, 0, COCO_18.index("LAnkle")] = 0
    rule = depth_rule(fit(source, measure(source), "depth"))
    foot = rule.feet(concatenate([source, blind]))
    np.testing.assert_allclose(foot[50:], rule.source_foot)


def test_without_feet_in_view_another_mode_is_suggested() -> None:
    source = wandering()
    hidden = replace(source, points=source.points.copy())
    hidden.points[:, 0, [COCO_18.index(name) for name in ("LKnee", "RKnee", "LAnkle", "RAnkle")]] = 0
    with pytest.raises(DataError, match=r"source shows a head and both feet in view.*choose affine or relative"):
        fit(hidden, measure(source), "depth")
    with pytest.raises(DataError, match="target shows a head and both feet"):
        fit(source, measure(hidden), "depth")
    for mode in ("affine", "relative", "none"):
        fit(hidden, measure(source), mode)


def test_ankles_guessed_below_the_picture_are_not_in_view() -> None:
    source = wandering()
    below = replace(source, points=source.points.copy())
    below.points[..., 1] += 700
    with pytest.raises(DataError, match="feet in view"):
        fit(below, measure(source), "depth")


@pytest.mark.parametrize("jitter", [0.0, 1.5])
def test_a_still_dancer_falls_back_to_affine_and_it_is_said(jitter: float) -> None:
    moving, still = wandering(), standing(np.full(200, 4.0))
    noise = np.random.default_rng(0).normal(0, jitter, (200, 1, 1, 2))
    still = still.mapped(lambda points: points + noise)
    normaliser = fit(still, measure(moving), "depth")
    assert normaliser.mode == "affine"
    assert "the source does not move" in normaliser.notes[0]
    assert np.isfinite(normaliser(still).points[..., :2]).all()


def test_a_target_at_one_distance_keeps_its_line_and_its_size() -> None:
    """Whoever comes from 6 m to 4 m is made to stay where the target stood; 4 % is what a linear scale errs on the way."""
    source, target = wandering(near=4), standing(np.full(200, 4.0), tall=1.4)
    normaliser = fit(source, measure(target), "depth")
    assert normaliser.mode == "depth"
    assert "the target does not move" in normaliser.notes[1]
    there = normaliser(source)
    np.testing.assert_allclose(feet(there), feet(target)[0], atol=0.01)
    np.testing.assert_allclose(tallness(there), tallness(target)[0], rtol=0.05)
    assert np.ptp(tallness(source)) > 0.3 * tallness(source).mean()


def test_hops_are_no_way_in_depth() -> None:
    """Feet that leave the floor by 5 % of the height in most frames must not make the size flicker."""
    hops = np.random.default_rng(0).uniform(0, 0.05 * TALL, (200, 1, 1, 1)) * FOCAL / 4 * np.array([0, -1])
    source = standing(np.full(200, 4.0)).mapped(lambda points: points + hops)
    assert fit(source, measure(wandering()), "depth").mode == "affine"


def test_one_crouch_at_the_end_of_the_way_does_not_decide_the_size() -> None:
    source, target = wandering(), wandering(4, 7, focal=1300)
    usual = depth_rule(fit(source, measure(target), "depth"))
    floor = measure(source).floor
    assert floor is not None
    crouched = replace(source, points=source.points.copy())
    last = feet(source) <= sorted(foot for foot in feet(source) if foot >= floor.far - 0.01)[1]
    crouched.points[last, 0, COCO_18.index("Nose"), 1] += 0.4 * tallness(source)[last]
    assert depth_rule(fit(crouched, measure(target), "depth")).scale_far == pytest.approx(usual.scale_far, rel=0.05)


def test_what_depth_cannot_do_is_noted() -> None:
    source = wandering()
    source.points[:80, 0, COCO_18.index("LAnkle")] = 0
    notes = fit(replace(source), measure(wandering()), "depth").notes
    assert "a jump lifts both feet" in notes[0]
    assert notes[1].startswith("only 320 of 400 frames show a head and both feet")


def test_other_layouts_fit_one_another() -> None:
    source, target = wandering(), measure(wandering(4, 7, focal=1300))
    expected = fit(source, target, "depth")(source)
    for skeleton in (COCO_17, BODY_25):
        other = source.converted(skeleton)
        moved = fit(other, target, "depth")(other)
        np.testing.assert_allclose(
            moved.points[:, 0, skeleton.index("LKnee")], expected.points[:, 0, COCO_18.index("LKnee")], rtol=1e-5
        )
    penn = source.converted(PENN_13, rough=True)
    assert "measured at other points" in fit(penn, target, "depth").notes[-1]


def test_learned_points_know_relative_alone() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(10, 60, (20, 1, 7, 2)), np.ones((20, 1, 7, 1))], axis=-1).astype(np.float32)
    poses = Poses(points, anonymous(7), 64, 64, 25.0)
    np.testing.assert_allclose(fit(poses, measure(poses), "relative")(poses).points, points, rtol=1e-5)
    with pytest.raises(DataError, match="feet in view"):
        fit(poses, measure(poses), "depth")
    with pytest.raises(DataError, match="share 0 of the joints"):
        fit(poses, measure(poses), "affine")


# --- The other modes


def test_none_fits_one_frame_into_the_other() -> None:
    source = wandering()
    target = measure(wandering().resized(64, 64))
    moved = fit(source, target, "none")(source)
    assert (moved.width, moved.height) == (64, 64)
    letterboxed = source.resized(64, 36).cropped(0, -14, 64, 64)
    np.testing.assert_allclose(moved.points, letterboxed.points, rtol=1e-4)


def test_affine_finds_a_known_scale_and_shift() -> None:
    source = wandering()
    target = source.mapped(lambda points: 0.5 * points + np.array([7, -20]))
    rule = fit(source, measure(target), "affine").rule
    assert isinstance(rule, Affine)
    np.testing.assert_allclose([rule.scale, rule.right, rule.down], [0.5, 7, -20], rtol=1e-3)


def test_affine_wants_two_joints_and_a_way_up() -> None:
    source = wandering()
    lonely = replace(source, points=source.points.copy())
    lonely.points[:, 0, 1:] = 0
    with pytest.raises(DataError, match="share 1 of the joints"):
        fit(lonely, measure(source), "affine")
    with pytest.raises(DataError, match="same way up"):
        fit(source.mapped(lambda points: points * [1, -1]), measure(source), "affine")


def test_relative_moves_the_targets_own_pose() -> None:
    base = standing(np.full(3, 4.0))
    source = base.mapped(lambda points: points * 2 - 300)
    step = np.zeros((3, 1, 18, 2))
    step[1:, 0, COCO_18.index("LWrist")] = [30, -40]
    source = source.mapped(lambda points: points + step)
    normaliser = fit(source, measure(base), "relative")
    assert isinstance(normaliser.rule, Relative)
    assert normaliser.rule.scale == pytest.approx(0.5, rel=1e-4)
    moved = normaliser(source)
    np.testing.assert_allclose(moved.points[0], base.points[0], rtol=1e-4)
    np.testing.assert_allclose(
        moved.points[2, 0, COCO_18.index("LWrist"), :2] - base.points[2, 0, COCO_18.index("LWrist"), :2], [15, -20], atol=0.01
    )


def test_relative_lets_legs_stand_that_the_source_never_shows() -> None:
    base = standing(np.full(4, 4.0))
    legs = [COCO_18.index(name) for name in ("RKnee", "RAnkle", "LKnee", "LAnkle")]
    source = base.mapped(lambda points: points * 2 + np.arange(4)[:, None, None, None])
    source.points[:, 0, legs, 2] = 0
    source.points[2, ..., 2] = 0
    normaliser = fit(source, measure(base), "relative")
    (note,) = normaliser.notes
    assert note == "where the source does not show RKnee, RAnkle, LKnee, LAnkle, they stand still where the target has them"
    moved = Normaliser.from_mapping(normaliser.to_mapping())(source)
    for frame in (0, 1, 3):
        np.testing.assert_allclose(moved.points[frame, 0, legs], base.points[0, 0, legs], atol=0.01)
    assert moved.points[3, 0, 0, 0] - moved.points[0, 0, 0, 0] == pytest.approx(1.5, abs=0.01)
    assert not moved.present[2].any()  # nobody stays nobody
    assert not fit(base, measure(base), "relative").notes


def test_relative_wants_three_joints_that_have_an_area() -> None:
    source = wandering()
    for kept, sentence in ((2, "shares at most 2 joints"), (18, "on one line")):
        few = replace(source, points=source.points.copy())
        few.points[:, 0, kept:] = 0
        few.points[..., 1] = few.points[..., 0]
        with pytest.raises(DataError, match=sentence):
            fit(replace(few), measure(source), "relative")


# --- Bad input


def test_what_cannot_be_normalised_is_refused() -> None:
    poses = wandering()
    normaliser = fit(poses, measure(poses), "depth")
    with pytest.raises(ConfigError, match="no normaliser 'deep'; did you mean 'depth'"):
        fit(poses, measure(poses), "deep")
    with pytest.raises(DataError, match="there are 2; choose one"):
        measure(replace(poses, points=poses.points[:, [0, 0]], people=(0, 1)))
    with pytest.raises(DataError, match="no person is in any of the 400 frames"):
        measure(replace(poses, points=np.zeros_like(poses.points)))
    with pytest.raises(DataError, match="fitted to frames of 1920x1080; these poses are of 640x360"):
        normaliser(poses.resized(640, 360))
    with pytest.raises(DataError, match="fitted to poses of coco-18; these are of coco-17"):
        fit(poses, measure(poses), "relative")(poses.converted(COCO_17))
    with pytest.raises(ConfigError, match="percentile 20"):
        measure(poses, percentile=20)


def test_the_torso_is_what_the_specification_lists() -> None:
    assert [COCO_18.index(name) for name in TORSO.joints] == [0, 1, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17]


# --- Real cameras


def performed(stage: Stage, depths: np.ndarray, size: int) -> tuple[Poses, np.ndarray]:
    """Render somebody who waves at several depths; returns the poses and the depth of every frame."""
    identity = sample_identity("ada", np.random.default_rng(1))
    films = []
    for number, depth in enumerate(depths):
        motion = sample_motion("wave", 3, 8.0, np.random.default_rng([2, number]), freedom=0)
        pose = render(motion, identity, stage, Placement(0.0, float(depth)), size=size).pose
        films.append(Poses(pose[:, None], COCO_18, size, size, 8.0))
    return concatenate(films), np.repeat(depths, 3)


def test_on_another_stage_feet_stand_on_the_floor_and_the_size_is_right() -> None:
    """The same body before two cameras: linear interpolation must be within a few per cent of the exact ratio of sizes."""
    here = Stage("room", 1, horizon=0.42, camera_height=1.38, focal=1.3)
    there = Stage("park", 2, horizon=0.36, camera_height=1.6, focal=1.7)
    source, depths = performed(here, np.linspace(3, 6, 25), 192)
    target, _ = performed(there, np.linspace(4, 7, 25), 256)
    moved = fit(source, measure(target), "depth")(source)
    assert (moved.width, moved.height) == (256, 256)
    ankle = sample_identity("ada", np.random.default_rng(1)).body.ankle

    def error(poses: Poses) -> np.ndarray:
        # Depth at which somebody on the target's floor has ankles where they landed, and the exact ratio of sizes there.
        landed = (feet(poses) + 0.5) / 256
        on_floor = there.focal * (there.camera_height - ankle) / (landed - there.horizon)
        exact = (there.focal * 256 / on_floor) / (here.focal * 192 / depths)
        return np.abs(tallness(poses) / tallness(source) / exact - 1)

    assert error(moved).max() < 0.05
    assert error(moved).mean() < 0.02
    assert error(moved).mean() < error(fit(source, measure(target), "affine")(source)).mean() / 2
    floor = [256 * there.floor_line(depth) - 0.5 for depth in (7, 4)]
    slack = 0.06 * (floor[1] - floor[0]) + 6
    assert feet(moved).min() > floor[0] - slack
    assert feet(moved).max() < floor[1] + slack
