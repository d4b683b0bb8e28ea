import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kinema.core.config import from_mapping, to_mapping
from kinema.core.errors import ConfigError
from kinema.data.media import read_video
from kinema.data.motions import ACTIONS, sample_motion
from kinema.data.performers import PerformersSettings, Placement, cast, render, render_clip, sample_identity, sample_stage
from kinema.data.stages import SCENES, Stage, backdrop
from kinema.pose.kinematics import Body, perform
from kinema.pose.skeleton import COCO_18

SMALL = PerformersSettings(frames=6, size=48)


def film(action: str, seed: int = 0, frames: int = 6, size: int = 64):
    rng = np.random.default_rng(seed)
    identity, stage = sample_identity("x", rng), sample_stage(rng)
    return render(sample_motion(action, frames, 8.0, rng), identity, stage, Placement(0.0, 6.1), size=size)


def test_a_clip_carries_everything_that_is_known() -> None:
    clip = render_clip(5, SMALL)
    assert clip.video.shape == (6, 48, 48, 3)
    assert clip.mask is not None
    assert clip.mask.shape == (6, 48, 48)
    assert clip.pose is not None
    assert clip.pose.shape == (6, 18, 3)
    assert clip.background is not None
    assert clip.background.shape == (48, 48, 3)
    assert clip.record.label in ACTIONS
    assert clip.record.group in {person.name for person in cast(0, "low")[0]}
    assert clip.record.caption is not None
    assert clip.record.caption.startswith("a person in a")
    assert clip.record.fps == 16


def test_a_clip_depends_on_seed_and_index_alone() -> None:
    one, again = render_clip(3, SMALL), render_clip(3, replace(SMALL, clips=7))
    np.testing.assert_array_equal(one.video, again.video)
    np.testing.assert_array_equal(one.pose, again.pose)
    assert one.record == again.record
    assert (render_clip(4, SMALL).video != one.video).any()
    assert (render_clip(3, replace(SMALL, seed=1)).video != one.video).any()


@pytest.mark.parametrize("action", ACTIONS)
def test_the_picture_is_the_background_where_the_mask_is_empty(action: str) -> None:
    made = film(action)
    empty = made.mask == 0
    stage = np.broadcast_to(made.background, made.video.shape)
    np.testing.assert_array_equal(made.video[empty], stage[empty])
    full = made.mask > 127
    assert 0.03 < full.mean() < 0.3
    assert (np.abs(made.video[full].astype(int) - stage[full]).max(axis=1) > 0).mean() > 0.98


@pytest.mark.parametrize("action", ACTIONS)
def test_the_composition_is_exact_and_the_shadow_is_black(action: str) -> None:
    made = film(action)
    opacity = made.mask[..., None] / 255
    foreground = made.video - (1 - opacity) * made.background  # colour times opacity
    assert foreground.min() > -1
    assert (foreground - 255 * opacity).max() < 1
    shadow = (made.mask > 0) & (made.mask < 100)
    assert shadow.any()
    assert np.percentile(foreground[shadow], 30) < 1


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("action", ACTIONS)
def test_joints_lie_on_the_body(action: str, size: int) -> None:
    made = film(action, size=size)
    reach = 1 if size == 64 else 2
    body = made.mask > 127
    for t, pose in enumerate(made.pose):
        for x, y, seen in pose:
            if seen:
                column, row = round(float(x)), round(float(y))
                near = body[t, max(row - reach, 0) : row + reach + 1, max(column - reach, 0) : column + reach + 1]
                assert near.any(), (action, t, x, y)


def test_one_motion_with_two_identities() -> None:
    rng = np.random.default_rng(4)
    motion = sample_motion("dance", 12, 8.0, rng)
    stage = Stage("room", 1)
    people = [replace(sample_identity(name, rng), body=Body(height=height)) for name, height in (("s", 1.6), ("t", 1.8))]
    one, other = (render(motion, who, stage) for who in people)
    np.testing.assert_array_equal(one.background, other.background)
    assert (one.video != other.video).any()
    joints = [perform(motion.angles, motion.lift, who.body).joints for who in people]
    for a, b in COCO_18.edges:
        first, second = (j[:, b] - j[:, a] for j in joints)
        np.testing.assert_allclose(first / 1.6, second / 1.8, atol=1e-9)  # equal proportions: equal up to size
    short_legs = replace(people[1].body, thigh=0.2, shin=0.2)
    third = perform(motion.angles, motion.lift, short_legs).joints
    for a, b in ((2, 3), (3, 4), (8, 9), (9, 10), (12, 13)):
        first, second = (j[:, b] - j[:, a] for j in (joints[0], third))
        unit = [bone / np.linalg.norm(bone, axis=1, keepdims=True) for bone in (first, second)]
        np.testing.assert_allclose(unit[0], unit[1], atol=1e-9)  # other proportions: the same joint angles


def test_the_action_can_be_read_off_the_pose() -> None:
    features, labels = [], []
    for index in range(280):
        rng = np.random.default_rng([9, index])
        label = index % len(ACTIONS)
        motion = sample_motion(list(ACTIONS)[label], 32, 16.0, rng)
        joints = perform(motion.angles, motion.lift, Body()).joints[..., :2]
        centred = joints - joints[:, (8, 11)].mean(axis=1, keepdims=True)
        hips = joints[:, (8, 11)].mean(axis=1)
        moving = np.concatenate([joints.std(axis=0).ravel(), centred.std(axis=0).ravel()])
        features.append(np.concatenate([moving, centred.mean(axis=0).ravel(), np.ptp(hips, axis=0)]))
        labels.append(label)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(features[:200], labels[:200])
    assert model.score(features[200:], labels[200:]) > 0.9  # chance is 0.125


def test_low_variety_has_four_people_on_one_stage() -> None:
    clips = [render_clip(index, replace(SMALL, frames=1)) for index in range(16)]
    assert len({clip.record.group for clip in clips}) == 4
    assert len({clip.background.tobytes() for clip in clips if clip.background is not None}) == 1
    high = [render_clip(index, replace(SMALL, frames=1, variety="high")) for index in range(6)]
    assert len({clip.record.group for clip in high}) == 6
    assert len({clip.background.tobytes() for clip in high if clip.background is not None}) == 6


def test_one_person_alone_moves_as_everybody_did() -> None:
    everybody = [render_clip(index, SMALL) for index in range(6)]
    ada, ben = ([render_clip(index, replace(SMALL, people=(name,))) for index in range(6)] for name in ("ada", "ben"))
    assert {clip.record.group for clip in ada} == {"ada"}
    assert {clip.record.group for clip in ben} == {"ben"}
    assert [clip.record.label for clip in ada] == [clip.record.label for clip in everybody]
    same = [
        clip.record.group == "ada" and np.array_equal(clip.video, other.video)
        for clip, other in zip(everybody, ada, strict=True)
    ]
    assert same == [clip.record.group == "ada" for clip in everybody]
    with pytest.raises(ConfigError, match=r"nobody of low variety is called 'lina'; .*accepted: ada, ben, cleo, dan"):
        PerformersSettings(people=("lina",))
    with pytest.raises(ConfigError, match=r"people .* must be empty at high variety"):
        PerformersSettings(people=("ada",), variety="high")


def test_people_stay_in_the_picture() -> None:
    for index in range(10):
        pose = render_clip(index, PerformersSettings(frames=32, size=32, variety="high")).pose
        assert pose is not None
        assert pose[..., 2].mean() > 0.9


def test_a_shaking_camera_moves_picture_and_pose_together() -> None:
    rng = np.random.default_rng(0)
    identity, stage, motion = sample_identity("x", rng), Stage("bricks", 2), sample_motion("wave", 3, 8.0, rng)
    still = render(motion, identity, stage)
    moved = render(motion, identity, stage, shake=np.array([[0.0, 0], [3, -2], [-4, 5]]))
    np.testing.assert_array_equal(still.video[0], moved.video[0])
    np.testing.assert_array_equal(still.mask[1, 2:, :-3], moved.mask[1, :-2, 3:])
    difference = np.abs(still.video[1, 2:, :-3].astype(int) - moved.video[1, :-2, 3:])
    assert np.percentile(difference, 99) <= 2  # not the vignette's rounding, nor a seam
    np.testing.assert_allclose(moved.pose[2, :, :2] - still.pose[2, :, :2], np.tile([-4, 5], (18, 1)), atol=1e-4)


def test_pose_noise_changes_the_pose_and_nothing_else() -> None:
    exact, noisy = render_clip(2, SMALL), render_clip(2, replace(SMALL, pose_noise=1.0))
    np.testing.assert_array_equal(exact.video, noisy.video)
    assert (exact.pose != noisy.pose).any()


@pytest.mark.parametrize("scene", SCENES)
def test_scenes_are_textured_and_drawn_alike_at_every_size(scene: str) -> None:
    stage = Stage(scene, 5)
    small, large = backdrop(stage, 64), backdrop(stage, 128)
    assert small.std() > 8
    halved = large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - small).mean() < 12


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("frames", 0, "frames is 0; it must be at least 1"),
        ("jitter", 20.0, "jitter is 20.0; it must be from 0 to 8"),
        ("actions", ("wlak",), "no action 'wlak'; did you mean 'walk'"),
        ("actions", (), "at least one of walk"),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: object, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PerformersSettings(**{field: value})  # pyright: ignore[reportArgumentType]


def test_settings_survive_json() -> None:
    settings = PerformersSettings(variety="high", actions=("walk", "bow"))
    assert from_mapping(PerformersSettings, to_mapping(settings)) == settings


def test_the_example_films_one_motion_by_two_people(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "motion_transfer_truth.py"))
    script["main"](tmp_path / "truth.gif", frames=3, size=32)
    video, _ = read_video(tmp_path / "truth.gif")
    assert video.shape == (3, 32, 64, 3)
