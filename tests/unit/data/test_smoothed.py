"""Joints that are smoothed while footage is cut: as if the whole shot were there, in little memory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import ConfigError
from kinema.data.cutting import PrepareSettings, poser_of
from kinema.data.looks import Look
from kinema.data.media import Frame
from kinema.data.smoothed import AT_ONCE, OUTLIERS, SmoothedPoses
from kinema.data.sources import Source
from kinema.pose.filters import FLIP_SECONDS, fill_gaps, savitzky_golay
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import Skeleton, anonymous

PICTURE = np.zeros((60, 80, 3), np.uint8)
FILM = Source("film.mp4", "/film.mp4", "video", 1, fps=20.0)


class Given:
    """Knows the joints; counts how many frames were asked of it."""

    skeleton: Skeleton = anonymous(2)

    def __init__(self, points: np.ndarray) -> None:
        self.points, self.asked = points.astype(np.float32), 0

    def version(self, sources: Sequence[Source]) -> str:
        return "given"

    def knows(self, source: Source) -> bool:
        return True

    def taken(self, source: Source) -> str:
        return "somebody"

    def __call__(
        self, source: Source, frames: Iterator[Frame], looked: Callable[[Look], None]
    ) -> Iterator[tuple[Frame, np.ndarray]]:
        for frame in frames:
            self.asked += 1
            yield frame, self.points[round(frame.time * 20)]


def path(count: int) -> np.ndarray:
    """Two joints on a smooth path."""
    t = np.arange(count)
    x, y = 40 + 20 * np.sin(t / 9), 30 + 12 * np.cos(t / 7)
    return np.stack([np.stack([x, y, np.full(count, 0.9)], -1), np.stack([y, x / 2, np.full(count, 0.7)], -1)], axis=1)


def trembling(count: int) -> np.ndarray:
    found = path(count)
    found[..., :2] += np.random.default_rng(0).normal(0, 0.5, (count, 2, 2))
    return found


def frames(count: int) -> Iterator[Frame]:
    return (Frame(number / 20, PICTURE) for number in range(count))


def smoothed(poser: Given, count: int, seconds: float = 0.35) -> np.ndarray:
    made = list(SmoothedPoses(poser, seconds)(FILM, frames(count), lambda look: None))
    assert [frame.time for frame, _ in made] == [number / 20 for number in range(count)]
    return np.stack([pose for _, pose in made])


@pytest.mark.parametrize("count", [1, 4, 7, AT_ONCE, 45, 400])
def test_it_is_as_if_the_whole_shot_were_there(count: int) -> None:
    found = trembling(count)
    found[30:33, 0] = (np.nan, np.nan, 0)
    found[100:140, 1] = (np.nan, np.nan, 0)  # longer than what is filled
    whole = Poses(found[:, None].astype(np.float32), anonymous(2), 80, 60, 20.0)
    wanted = savitzky_golay(fill_gaps(whole, 7), 7).points[:, 0]
    np.testing.assert_allclose(smoothed(Given(found), count), wanted, atol=1e-3)


def test_joints_come_nearer_to_the_truth_and_tremble_less() -> None:
    found, truth = trembling(300), path(300)
    found[50, 0, :2], found[200, 1, :2] = (2, 2), (79, 59)  # points that jump away and come back
    made = smoothed(Given(found), 300)
    distance = [np.linalg.norm(poses[..., :2] - truth[..., :2], axis=-1) for poses in (found, made)]
    assert distance[1].mean() < 0.7 * distance[0].mean()
    assert distance[1].max() < 3 < distance[0].max()
    np.testing.assert_allclose(made[..., 2], truth[..., 2], atol=1e-6)


def test_few_frames_wait() -> None:
    poser = Given(trembling(400))
    made = SmoothedPoses(poser, 0.35)(FILM, frames(400), lambda look: None)
    ahead = [poser.asked - number for number, _ in enumerate(made)]
    assert max(ahead) <= OUTLIERS + 2 * 7 + round(FLIP_SECONDS * FILM.fps) + AT_ONCE


def test_it_says_what_the_other_poser_says() -> None:
    poser = Given(path(1))
    both = SmoothedPoses(poser, 0.3)
    assert (both.skeleton, both.version([FILM]), both.knows(FILM), both.taken(FILM)) == (
        poser.skeleton,
        "given",
        True,
        "somebody",
    )


def test_only_where_it_is_asked_for(tmp_path: Path) -> None:
    asked = PrepareSettings(pose=str(tmp_path))
    assert not isinstance(poser_of(asked), SmoothedPoses)
    assert isinstance(poser_of(replace(asked, pose_smooth=0.3)), SmoothedPoses)
    with pytest.raises(ConfigError, match="pose_smooth") as without:
        PrepareSettings(pose_smooth=0.3)
    assert "left out without --pose" in str(without.value)
    with pytest.raises(ConfigError, match="from 0 to 5 seconds"):
        replace(asked, pose_smooth=6)
