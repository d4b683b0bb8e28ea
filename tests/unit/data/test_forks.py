from dataclasses import replace

import numpy as np
import pytest

from kinema.core.config import from_mapping, to_mapping
from kinema.core.errors import ConfigError
from kinema.data.motions import ACTIONS, FUTURES, PASTS, sample_fork
from kinema.data.performers import PerformersSettings, pose_futures, render_clip, render_futures
from kinema.data.procedural import Split, plan_procedural
from kinema.pose.kinematics import Body, perform

FORKED = PerformersSettings(frames=16, size=48, fork=tuple(FUTURES), fork_frame=7)


@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("variety", ["low", "high"])
def test_one_past_to_the_pixel_and_then_several_futures(past: str, variety: str) -> None:
    settings = replace(FORKED, fork_past=past, variety=variety, jitter=1.0)
    for index in range(2):
        clips = list(render_futures(index, settings).values())
        for clip in clips[1:]:
            np.testing.assert_array_equal(clip.video[:7], clips[0].video[:7])
            np.testing.assert_allclose(np.asarray(clip.pose)[:7], np.asarray(clips[0].pose)[:7], atol=1e-4)
        different = {np.asarray(clip.pose)[-1].tobytes() for clip in clips}
        assert len(different) == len(FUTURES)


def test_a_drawn_clip_is_one_of_its_futures() -> None:
    for index in range(4):
        clip = render_clip(index, FORKED)
        future = clip.record.extra["future"]
        assert clip.record.label == future
        assert clip.record.extra["fork"] == 7
        assert clip.record.caption is not None
        assert f"walks, then {FUTURES[future]}" in clip.record.caption
        same = render_futures(index, FORKED)[future]
        np.testing.assert_array_equal(clip.video, same.video)
        np.testing.assert_array_equal(np.asarray(clip.pose), np.asarray(same.pose))


def test_poses_of_futures_need_no_drawing() -> None:
    drawn, posed = render_futures(2, FORKED), pose_futures(2, FORKED)
    assert list(drawn) == list(posed)
    for name, clip in drawn.items():
        np.testing.assert_array_equal(np.asarray(clip.pose), posed[name])


def test_futures_come_as_often_as_their_odds_say() -> None:
    settings = PerformersSettings(frames=2, size=16, fork=("go_on", "stop", "kick"), fork_odds=(6, 3, 1))
    assert settings.odds == pytest.approx({"go_on": 0.6, "stop": 0.3, "kick": 0.1})
    drawn = [render_clip(index, settings).record.label for index in range(250)]
    shares = [drawn.count(future) / 250 for future in settings.fork]
    assert np.abs(np.array(shares) - (0.6, 0.3, 0.1)).max() < 0.08  # 3 standard deviations


def test_what_follows_is_what_its_name_says() -> None:
    fork = sample_fork("walk", 40, 12, 16.0, np.random.default_rng(3), 0.3)
    style = np.random.default_rng(4)

    def hips(future: str) -> np.ndarray:
        motion = fork.follow(future, style, 0.3)
        joints = perform(motion.angles, motion.lift, Body()).joints
        path = joints[:, 8] - joints[0, 8]
        return path * np.sign(path[11, 0])  # ahead is positive

    assert hips("go_on")[-1, 0] > hips("stop")[-1, 0] + 0.5
    assert abs(hips("stop")[-1, 0] - hips("stop")[24, 0]) < 0.02
    assert hips("turn_back")[-1, 0] < hips("turn_back").max(axis=0)[0] - 0.3
    kick = fork.follow("kick", style, 0.3)
    assert max(kick.angle(f"{side}_hip_flexion")[20:].max() for side in ("left", "right")) > np.radians(50)


def test_a_past_alone_has_no_futures() -> None:
    with pytest.raises(ConfigError, match="two futures or more"):
        render_futures(0, PerformersSettings())
    with pytest.raises(ConfigError, match="no future 'fly'"):
        sample_fork("walk", 4, 2, 8.0, np.random.default_rng(0)).follow("fly", np.random.default_rng(0))
    with pytest.raises(ConfigError, match="no past 'swim'"):
        sample_fork("swim", 4, 2, 8.0, np.random.default_rng(0))
    with pytest.raises(ConfigError, match="from 1 to 3"):
        sample_fork("walk", 4, 4, 8.0, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"fork": ("stop", "swim")}, "accepted: bow"),
        ({"fork": ("stop",)}, "two futures or more"),
        ({"fork": ("stop", "stop")}, "different from each other"),
        ({"fork": ("stop", "kick"), "fork_odds": (1.0,)}, "one number for each of the 2"),
        ({"fork": ("stop", "kick"), "fork_odds": (1.0, 0.0)}, "above 0"),
        ({"fork": ("stop", "kick"), "fork_frame": 32}, "from 1 to 31"),
    ],
)
def test_forks_out_of_range_are_refused(values: dict, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PerformersSettings(**values)  # pyright: ignore[reportArgumentType]


def test_the_classes_of_a_dataset_are_the_actions_that_were_asked_for() -> None:
    """With all actions for classes a system was made to learn, and let itself be asked for, what no clip shows."""
    two = PerformersSettings(actions=("wave", "walk"))
    assert plan_procedural("performers", two, Split()).labels == ["wave", "walk"]
    assert plan_procedural("performers", PerformersSettings(), Split()).labels == list(ACTIONS)


def test_the_futures_are_the_labels() -> None:
    plan = plan_procedural("performers", FORKED, Split())
    assert plan.labels == list(FUTURES)
    assert from_mapping(PerformersSettings, to_mapping(FORKED)) == FORKED
