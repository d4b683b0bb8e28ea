import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kinema.core.config import differences, from_mapping, to_mapping
from kinema.core.errors import ConfigError, DataError
from kinema.pose.draw import (
    STYLES,
    DrawStyle,
    draw,
    draw_points,
    hand_colours,
    joint_colours,
    limb_colours,
    refuse_other_style,
)
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import BODY_25, COCO_17, COCO_18, SKELETONS, Skeleton, anonymous, converter, find_skeleton

PLAIN = DrawStyle(limb_alpha=1, joint_alpha=1, reference=64, half_width=1.5, radius=2)
"""Opaque and wide enough at 64 pixels that the middle of a shape has its own colour."""
SIZE = 64
PLACES = {
    **{"Nose": (32, 8), "Neck": (32, 16), "REye": (28, 5), "LEye": (36, 5), "REar": (24, 8), "LEar": (40, 8)},
    **{"RShoulder": (23, 17), "RElbow": (13, 26), "RWrist": (6, 38), "LShoulder": (41, 17), "LElbow": (52, 24)},
    **{"LWrist": (59, 12), "RHip": (26, 37), "RKnee": (20, 48), "RAnkle": (17, 59), "LHip": (38, 37), "LKnee": (47, 46)},
    "LAnkle": (54, 58),
}


def person(frames: int = 1) -> np.ndarray:
    """Return a person with arms and legs apart, everything present."""
    points = np.array([[*PLACES[joint], 1.0] for joint in COCO_18.joints], np.float32)
    return np.repeat(points[None], frames, axis=0)


def painted(picture: np.ndarray, style: DrawStyle) -> np.ndarray:
    return (picture != np.array(style.background)).any(axis=-1)


def at(picture: np.ndarray, place: tuple[float, float]) -> list[int]:
    return picture[round(place[1]), round(place[0])].tolist()


def middle(skeleton: Skeleton, points: np.ndarray, limb: tuple[str, str]) -> tuple[float, float]:
    ends = [points[skeleton.index(joint), :2] for joint in limb]
    return tuple(np.mean(ends, axis=0).tolist())


def only(*joints: str) -> np.ndarray:
    points = person()
    points[0, [joint not in joints for joint in COCO_18.joints]] = 0
    return points


@pytest.mark.parametrize("name", STYLES)
def test_a_mirrored_pose_draws_the_mirrored_outline(name: str) -> None:
    style = STYLES[name]
    points = person()
    points[..., :2] += 0.3
    one = draw_points(points, COCO_18, SIZE, SIZE, style)[0]
    other = draw_points(COCO_18.mirrored(points, SIZE), COCO_18, SIZE, SIZE, style)[0, :, ::-1]
    weights = [np.abs(picture.astype(int) - np.array(style.background)).max(axis=-1) for picture in (one, other)]
    strong = [weight > 60 for weight in weights]
    differ = (strong[0] & (weights[1] == 0)) | (strong[1] & (weights[0] == 0))
    assert differ.sum() == 0
    assert strong[0].sum() > 100


@pytest.mark.parametrize("palette", ["sides", "hues"])
def test_in_a_mirror_right_and_left_swap_their_colours(palette: str) -> None:
    style = replace(PLAIN, palette=palette)
    points = person()
    one = draw_points(points, COCO_18, SIZE, SIZE, style)[0]
    other = draw_points(COCO_18.mirrored(points, SIZE), COCO_18, SIZE, SIZE, style)[0, :, ::-1]
    joints, limbs = joint_colours(COCO_18, style.palette), limb_colours(COCO_18, style.palette)
    for joint in ("RWrist", "LWrist", "RElbow", "LKnee", "RAnkle"):
        number = COCO_18.index(joint)
        assert at(one, PLACES[joint]) == list(joints[number])
        assert at(other, PLACES[joint]) == list(joints[COCO_18.flip[number]])
    for number, (first, second) in enumerate(COCO_18.edges):
        limb = COCO_18.joints[first], COCO_18.joints[second]
        if limb[0][0] in "RL" and "E" not in limb[0][1]:
            turned = COCO_18.edges.index((COCO_18.flip[first], COCO_18.flip[second]))
            place = middle(COCO_18, points[0], limb)
            assert at(one, place) == pytest.approx(limbs[number], abs=3)
            assert at(other, place) == pytest.approx(limbs[turned], abs=3)


@pytest.mark.parametrize("skeleton", [*SKELETONS.values(), anonymous(7)], ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("palette", ["sides", "hues"])
def test_right_and_left_differ_in_every_layout(skeleton: Skeleton, palette: str) -> None:
    colours = joint_colours(skeleton, palette)
    for number, joint in enumerate(skeleton.joints):
        if skeleton.flip[number] != number:
            assert np.abs(np.subtract(colours[number], colours[skeleton.flip[number]])).max() > 60, joint
    limbs = limb_colours(skeleton, palette)
    assert len(limbs) == len(skeleton.edges)
    for number, (first, second) in enumerate(skeleton.edges):
        turned = skeleton.flip[first], skeleton.flip[second]
        if turned in skeleton.edges and turned != (first, second) and skeleton.flip[first] != first:
            assert np.abs(np.subtract(limbs[number], limbs[skeleton.edges.index(turned)])).max() > 60


def test_a_limb_between_right_and_left_has_the_colour_of_neither() -> None:
    limbs = dict(zip(COCO_17.edges, limb_colours(COCO_17, "sides"), strict=True))
    assert limbs[5, 6] == joint_colours(COCO_18, "sides")[COCO_18.index("Neck")]


def test_colours_follow_names_through_a_conversion() -> None:
    points = converter(COCO_18, COCO_17)(person())
    one = draw_points(person(), COCO_18, SIZE, SIZE, PLAIN)[0]
    other = draw_points(points, COCO_17, SIZE, SIZE, PLAIN)[0]
    for joint in ("RWrist", "LAnkle", "RElbow"):
        assert at(one, PLACES[joint]) == at(other, PLACES[joint])


def test_openpose_s_colours_are_hues_20_degrees_apart() -> None:
    colours = np.array([[joint_colours(COCO_18, "hues")]], np.float32)[0] / 255
    hues = cv2.cvtColor(colours, cv2.COLOR_RGB2HSV)[0]
    np.testing.assert_allclose(hues[:, 0], 20 * np.arange(18), atol=0.5)
    np.testing.assert_allclose(hues[:, 1:], 1, atol=1e-6)
    assert limb_colours(COCO_18, "hues")[:2] == ((255, 0, 0), (255, 85, 0))


def test_both_hands_differ() -> None:
    for palette in ("sides", "hues"):
        (right, bones), (left, _) = hand_colours("R", palette), hand_colours("L", palette)
        assert not set(right) & set(left)
        assert len(bones) == 20


def test_fingers_can_be_told_apart_and_hands_keep_their_side() -> None:
    """Neighbours differ by 40 levels or more in some colour; with hues 10 degrees apart they differed by 36."""
    for side in "LR":
        points, bones = hand_colours(side, "sides")
        fingers = np.array([points[1 + 4 * finger] for finger in range(5)])
        assert np.abs(np.diff(fingers, axis=0)).max(axis=1).min() >= 40
        assert [bones[4 * finger] for finger in range(5)] == [tuple(finger) for finger in fingers.tolist()]
        assert all((red > blue) == (side == "R") for red, _, blue in fingers[1:4].tolist())


def test_fingers_two_pixels_apart_stay_two_lines() -> None:
    """As on a hand of 16 pixels; as wide as a dot of 1 pixel's radius they ran together."""
    hands = np.zeros((1, 2, 21, 3), np.float32)
    for finger, x in ((1, 30), (2, 32)):
        hands[0, 0, 1 + 4 * finger : 5 + 4 * finger] = np.stack([np.full(4, x), np.linspace(20, 40, 4), np.ones(4)], axis=1)
    picture = draw_points(np.zeros((1, 18, 3), np.float32), COCO_18, SIZE, SIZE, STYLES["edn"], hands=hands)[0].min(axis=2)
    row = picture[24].astype(int)
    assert max(row[30], row[32]) + 25 < row[31]


def test_missing_joints_leave_no_pixels() -> None:
    points = only("RWrist")
    points[0, :, :2] = np.where(points[0, :, 2:] > 0, points[0, :, :2], (50, 50))
    picture = draw_points(points, COCO_18, SIZE, SIZE, PLAIN)[0]
    rows, columns = np.nonzero(painted(picture, PLAIN))
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == pytest.approx((4, 8, 36, 40), abs=1)
    points[0, :, 2] = 0
    assert not painted(draw_points(points, COCO_18, SIZE, SIZE, PLAIN), PLAIN).any()


def test_no_number_and_no_confidence_draw_alike() -> None:
    zeros, none = only("RWrist", "RElbow"), only("RWrist", "RElbow")
    none[0, none[0, :, 2] == 0] = (np.nan, np.nan, 0)
    kept = only("RWrist", "RElbow")
    kept[..., :2] = person()[..., :2]
    pictures = [draw_points(points, COCO_18, SIZE, SIZE, PLAIN) for points in (zeros, none, kept)]
    np.testing.assert_array_equal(pictures[0], pictures[1])
    np.testing.assert_array_equal(pictures[0], pictures[2])


def test_a_limb_needs_both_of_its_joints() -> None:
    place = middle(COCO_18, person()[0], ("RElbow", "RWrist"))
    whole = draw_points(only("RElbow", "RWrist"), COCO_18, SIZE, SIZE, PLAIN)[0]
    half = draw_points(only("RWrist"), COCO_18, SIZE, SIZE, PLAIN)[0]
    assert at(whole, place) != list(PLAIN.background)
    assert at(half, place) == list(PLAIN.background)


def test_what_lies_far_outside_draws_nothing_and_breaks_nothing() -> None:
    points = person()
    points[..., :2] += 1e9
    assert not painted(draw_points(points, COCO_18, SIZE, SIZE, STYLES["edn"]), STYLES["edn"]).any()
    points = person()
    points[0, COCO_18.index("RWrist"), :2] = (-1e7, 38)
    style = replace(PLAIN, limb="line")
    assert painted(draw_points(points, COCO_18, SIZE, SIZE, style)[0], style)[
        26, :10
    ].all()  # the forearm goes off to the left, level


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("size", [128, 256])
def test_drawing_larger_and_halving_is_close(name: str, size: int) -> None:
    style = replace(STYLES[name], reference=64, half_width=1.5, radius=2)  # above the least widths at both sizes
    points = person()
    points[..., :2] = (points[..., :2] + 0.5) * (size / SIZE) - 0.5
    one = draw_points(points, COCO_18, size, size, style)[0].astype(float)
    points[..., :2] = (points[..., :2] + 0.5) * 2 - 0.5
    large = draw_points(points, COCO_18, 2 * size, 2 * size, style)[0]
    halved = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA).astype(float)
    body = painted(one, style) | painted(halved, style)
    assert np.abs(one - halved)[body].mean() < 12
    assert abs(one.mean() - halved.mean()) < 0.02 * np.abs(one - np.array(style.background)).mean() + 0.2


@pytest.mark.parametrize("name", STYLES)
def test_a_small_figure_stays_visible(name: str) -> None:
    style = STYLES[name]
    points = person()
    picture = draw_points(points, COCO_18, SIZE, SIZE, style)[0].astype(int)
    for first, second in COCO_18.edges:
        for part in np.linspace(0.1, 0.9, 9):
            x, y = np.rint(points[0, first, :2] * (1 - part) + points[0, second, :2] * part).astype(int)
            assert np.abs(picture[y, x] - style.background).max() > 60


def test_widths_are_those_asked_for() -> None:
    points = np.zeros((1, 2, 3), np.float32)
    points[0] = [[20, 50, 1], [80, 50, 1]]
    bar = Skeleton("bar", ("RWrist", "LWrist"), ((0, 1),))
    style = replace(PLAIN, limb="line", reference=100, half_width=4, radius=0.1)
    column = painted(draw_points(points, bar, 100, 100, style), style)
    ink = 255 - draw_points(points, bar, 100, 100, style)[0, :, 50].astype(float)
    assert ink.max(axis=1).sum() / ink.max() == pytest.approx(8, abs=0.4)
    assert column[0, :, :10].sum() == 0
    disc = replace(PLAIN, reference=100, radius=10)
    ink = 255 - draw_points(points[:, :1], Skeleton("dot", ("RWrist",), ()), 100, 100, disc)[0].astype(float)
    assert ink.max(axis=-1).sum() / ink.max() == pytest.approx(np.pi * 100, rel=0.05)


def test_an_alpha_below_one_shows_what_is_under() -> None:
    style = replace(PLAIN, joint_alpha=0.6)
    colour = np.array(joint_colours(COCO_18, "sides")[COCO_18.index("RWrist")])
    wanted = 0.6 * colour + 0.4 * 255
    picture = draw_points(only("RWrist"), COCO_18, SIZE, SIZE, style)[0]
    np.testing.assert_allclose(at(picture, PLACES["RWrist"]), wanted, atol=1.5)


def test_below_the_threshold_nothing_is_drawn_and_dimming_multiplies() -> None:
    style = replace(STYLES["confidence"], reference=64, radius=2)
    points = only("RWrist")
    points[0, COCO_18.index("RWrist"), 2] = 0.3
    assert not painted(draw_points(points, COCO_18, SIZE, SIZE, style), style).any()
    points[0, COCO_18.index("RWrist"), 2] = 0.5
    full = joint_colours(COCO_18, "hues")[COCO_18.index("RWrist")]
    picture = draw_points(points, COCO_18, SIZE, SIZE, style)[0]
    np.testing.assert_allclose(at(picture, PLACES["RWrist"]), np.array(full) / 2, atol=1)


def test_the_pose_knows_drops_confidences_up_to_a_tenth() -> None:
    points = only("RWrist")
    points[0, COCO_18.index("RWrist"), 2] = 0.1
    assert not draw_points(points, COCO_18, SIZE, SIZE, STYLES["pose-knows"]).any()
    points[0, COCO_18.index("RWrist"), 2] = 0.11
    assert draw_points(points, COCO_18, SIZE, SIZE, STYLES["pose-knows"]).any()


def parts(confidence: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    face = np.full((1, 70, 3), confidence, np.float32)
    face[..., :2] = rng.uniform(20, 44, (1, 70, 2))
    hands = np.ones((1, 2, 21, 3), np.float32)
    hands[..., :2] = rng.uniform(5, 20, (1, 2, 21, 2))
    hands[:, 1, :, 0] += 40
    return {"face": face, "hands": hands}


def test_face_dots_are_black_and_only_those_of_a_face_that_was_seen() -> None:
    nobody = np.zeros((1, 18, 3), np.float32)
    face = parts()["face"]
    face[0, :, :2] = 60
    face[0, 30, :2] = 10
    picture = draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], face=face)[0]
    assert max(at(picture, (10, 10))) < 120
    face[0, 30, :2], face[0, 31, :2] = 60, 10  # 31 is no dot of this style
    assert at(draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], face=face)[0], (10, 10)) == [255, 255, 255]
    assert (draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], **{"face": parts(0.19)["face"]}) == 255).all()
    assert (draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], **{"face": parts(0.21)["face"]}) < 255).any()


@pytest.mark.parametrize("part", ["body", "face", "hands"])
def test_every_part_can_be_left_out(part: str) -> None:
    style = STYLES["edn"]
    whole = draw_points(person(), COCO_18, SIZE, SIZE, style, **parts())
    without = draw_points(person(), COCO_18, SIZE, SIZE, replace(style, **{part: False}), **parts())
    assert (whole != without).any()
    nothing = replace(style, body=False, face=False, hands=False)
    assert (draw_points(person(), COCO_18, SIZE, SIZE, nothing, **parts()) == 255).all()


def test_hands_with_little_confidence_are_not_drawn() -> None:
    hands = parts()["hands"]
    hands[..., 2] = 0.05
    nobody = np.zeros((1, 18, 3), np.float32)
    assert (draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], hands=hands) == 255).all()
    hands[..., 2] = 0.06
    assert (draw_points(nobody, COCO_18, SIZE, SIZE, STYLES["edn"], hands=hands) < 255).any()


def sequence(frames: int = 3, people: int = 2) -> Poses:
    points = np.repeat(person(frames)[:, None], people, axis=1)
    for number in range(people):
        points[:, number, :, 0] += 5 * number
    return Poses(points, COCO_18, SIZE, SIZE, 25)


def test_everybody_is_drawn_and_one_person_as_alone() -> None:
    style, poses = PLAIN, sequence()
    alone = [painted(draw(poses.person(number), style), style) for number in (0, 1)]
    np.testing.assert_array_equal(painted(draw(poses, style), style), alone[0] | alone[1])
    np.testing.assert_array_equal(draw(poses.person(1), style), draw_points(poses.filled(1), COCO_18, SIZE, SIZE, style))


def test_overlays_keep_the_film_where_nobody_is() -> None:
    film = np.random.default_rng(0).integers(0, 255, (3, SIZE, SIZE, 3), np.uint8)
    before = film.copy()
    poses = sequence()
    result = draw(poses, PLAIN, over=film)
    np.testing.assert_array_equal(film, before)
    outside = ~painted(draw(poses, PLAIN), PLAIN)
    np.testing.assert_array_equal(result[outside], film[outside])
    assert at(result[0], PLACES["RWrist"]) == list(joint_colours(COCO_18, "sides")[COCO_18.index("RWrist")])


def test_frames_of_another_size_or_number_carry_no_poses() -> None:
    with pytest.raises(DataError, match="2 frames of 64x64 cannot carry 3 poses of 64x64"):
        draw(sequence(), PLAIN, over=np.zeros((2, SIZE, SIZE, 3), np.uint8))
    with pytest.raises(DataError, match="3 frames of 32x64"):
        draw(sequence(), PLAIN, over=np.zeros((3, SIZE, 32, 3), np.uint8))


def test_points_of_another_skeleton_are_refused() -> None:
    with pytest.raises(DataError, match="there are 18 joints; the skeleton body-25 has 25"):
        draw_points(person(), BODY_25, SIZE, SIZE, PLAIN)


def test_no_frames_and_nobody_are_legal() -> None:
    assert draw_points(person(0), COCO_18, 8, 6, PLAIN).shape == (0, 6, 8, 3)
    empty = Poses(np.zeros((2, 0, 18, 3), np.float32), COCO_18, 8, 6, 25)
    assert (draw(empty, PLAIN) == 255).all()


def test_anonymous_points_are_dots() -> None:
    points = np.array([[[10, 10, 1], [50, 50, 1]]], np.float32)
    picture = draw_points(points, anonymous(2), SIZE, SIZE, PLAIN)[0]
    assert painted(picture, PLAIN)[30, 30] == 0
    assert at(picture, (10, 10)) != at(picture, (50, 50))


@pytest.mark.parametrize("name", STYLES)
def test_a_style_survives_json(name: str) -> None:
    style = STYLES[name]
    assert from_mapping(DrawStyle, json.loads(json.dumps(to_mapping(style)))) == style


def test_presets_are_those_of_the_papers() -> None:
    edn, knows = STYLES["edn"], STYLES["pose-knows"]
    assert (edn.background, edn.half_width, edn.radius, edn.limb_alpha, edn.reference) == ((255, 255, 255), 4, 8, 0.6, 1080)
    assert edn.face_dots == (27, 30, 8, 0, 16, 33, 68, 69)
    assert (edn.face_radius, edn.hand_radius, edn.hand_half_width, edn.hand_threshold) == (4, 3, 2, 0.05)
    assert (knows.background, 2 * knows.half_width, knows.radius, knows.threshold) == ((0, 0, 0), 3, 1, 0.1)
    assert STYLES["openpose"].background == (0, 0, 0)
    assert (STYLES["confidence"].dims, STYLES["confidence"].threshold) == (True, 0.3)


def test_another_style_than_the_checkpoint_s_is_refused_with_every_difference() -> None:
    trained, asked = STYLES["edn"], replace(STYLES["edn"], half_width=5.0, hands=False)
    assert differences(trained, trained) == []
    assert differences(trained, asked) == ["half_width: 4.0 -> 5.0", "hands: True -> False"]
    assert "face_dots: 8 values -> 70 values" in differences(trained, STYLES["openpose"])
    refuse_other_style(trained, trained)
    with pytest.raises(ConfigError, match=r"another style \(half_width: 4.0 -> 5.0; hands: True -> False\)"):
        refuse_other_style(trained, asked)


@pytest.mark.parametrize(
    "wrong",
    [
        {"half_width": 0.0},
        {"radius": -1.0},
        {"limb_alpha": 0.0},
        {"joint_alpha": 1.1},
        {"threshold": 1.0},
        {"background": (0, 0, 256)},
        {"face_dots": (70,)},
        {"reference": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        DrawStyle(**wrong)


@pytest.mark.parametrize("named", ["face", "hands", "face+hands"])
def test_a_layout_with_parts_is_drawn_as_its_parts(named: str) -> None:
    """What a dataset holds in one array looks as what a detector gives in three."""
    given = {name: parts()[name] for name in named.split("+")}
    points = np.concatenate([person(), *(part.reshape(1, -1, 3) for part in given.values())], axis=1)
    drawn = draw_points(points, find_skeleton(f"coco-18+{named}"), SIZE, SIZE, STYLES["edn"])
    np.testing.assert_array_equal(drawn, draw_points(person(), COCO_18, SIZE, SIZE, STYLES["edn"], **given))
    assert (drawn != draw_points(person(), COCO_18, SIZE, SIZE, STYLES["edn"])).any()
