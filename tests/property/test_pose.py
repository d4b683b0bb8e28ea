"""Poses: what holds for any numbers."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.pose import filters
from kinema.pose.files import read_poses, write_poses
from kinema.pose.normalise import fit
from kinema.pose.sequence import Poses
from kinema.pose.skeleton import BODY_25, COCO_18
from kinema.pose.stature import BodyStatistics, measure

KEEPING: list[Callable[[Poses], Poses]] = [
    filters.fill_gaps,
    filters.drop_outliers,
    filters.median,
    filters.exponential,
    filters.savitzky_golay,
    filters.one_euro,
]


@dataclass(frozen=True)
class Recipe:
    """Poses of any length with holes anywhere, faces and hands or none, and clips.

    The arrays are made in the test: their type checks draw random numbers, which strategies must not.
    """

    frames: int
    people: int
    seed: int
    missing: float
    whole: bool
    cuts: frozenset[int]

    def make(self) -> Poses:
        rng = np.random.default_rng(self.seed)

        def part(*shape: int) -> np.ndarray:
            points = rng.uniform(-50, 700, (self.frames, self.people, *shape, 3)).astype(np.float32)
            points[..., 2] = rng.uniform(0.01, 1, points.shape[:-1]) * (rng.random(points.shape[:-1]) >= self.missing)
            return points

        body = part(len(BODY_25))
        body[0, 0, 0] = (5, 6, 0.5)  # somebody is there
        begins = (0, *sorted(cut for cut in self.cuts if cut < self.frames))
        parts = {"face": part(70), "hands": part(2, 21)} if self.whole and self.missing < 0.5 else {}
        people = tuple(range(3, 3 + self.people))
        return Poses(body, BODY_25, 640, 480, 25.0, begins=begins, people=people, **parts)


RECIPES = st.builds(
    Recipe,
    frames=st.integers(1, 40),
    people=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from([0.0, 0.1, 0.6]),
    whole=st.booleans(),
    cuts=st.frozensets(st.integers(1, 39), max_size=3),
)


@given(recipe=RECIPES, name=st.sampled_from(["poses.npz", "folder"]))
@settings(max_examples=30, deadline=None)
def test_files_give_back_what_was_written(recipe: Recipe, name: str) -> None:
    poses = recipe.make()
    with tempfile.TemporaryDirectory() as place:
        write_poses(Path(place) / name, poses)
        again = read_poses(Path(place) / name)
    for field in ("skeleton", "width", "height", "fps", "people", "begins"):
        assert getattr(again, field) == getattr(poses, field), field
    for part in ("points", "face", "hands"):
        np.testing.assert_array_equal(getattr(again, part), getattr(poses, part), part)


@pytest.mark.parametrize("smooth", KEEPING)
@given(recipe=RECIPES)
@settings(max_examples=15, deadline=None)
def test_filters_keep_length_borders_and_finite_numbers(smooth: Callable[[Poses], Poses], recipe: Recipe) -> None:
    poses = recipe.make()
    after = smooth(poses)
    assert after.points.shape == poses.points.shape
    assert after.begins == poses.begins
    assert np.isfinite(after.points[after.present]).all()
    if smooth is not filters.fill_gaps and smooth is not filters.median:  # these two may find what was missing
        assert not filters.filled_points(poses, after).any()


@pytest.mark.parametrize("smooth", KEEPING)
@given(recipe=RECIPES)
@settings(max_examples=15, deadline=None)
def test_filters_leave_alone_what_does_not_move(smooth: Callable[[Poses], Poses], recipe: Recipe) -> None:
    poses = recipe.make()
    still = poses.mapped(lambda points: points * 0 + np.array([123.25, 45.5]))
    after = smooth(still)
    np.testing.assert_allclose(after.points[after.present][:, :2], np.full((after.present.sum(), 2), (123.25, 45.5)), rtol=1e-5)


@given(recipe=RECIPES)
@settings(max_examples=15, deadline=None)
def test_mirrored_twice_is_as_before(recipe: Recipe) -> None:
    poses = replace(recipe.make(), face=None)
    np.testing.assert_allclose(poses.mirrored().mirrored().points, poses.points, atol=1e-3)


@given(
    seed=st.integers(0, 2**32 - 1),
    near=st.floats(1.5, 4),
    way=st.floats(0.5, 4),
    focal=st.floats(100, 1500),
    frames=st.integers(20, 80),
)
@settings(max_examples=40, deadline=None)
def test_a_source_that_is_the_target_is_not_moved(seed: int, near: float, way: float, focal: float, frames: int) -> None:
    rng = np.random.default_rng(seed)
    size = focal / rng.uniform(near, near + way, frames)
    points = np.ones((frames, 1, 18, 3), np.float32)
    body = rng.uniform(-0.4, 0.4, (18, 2))
    for name, height in (("Nose", 1.6), ("LAnkle", 0.05), ("RAnkle", 0.05), ("LHip", 0.9), ("RHip", 0.9)):
        body[COCO_18.index(name), 1] = height
    points[:, 0, :, 0] = 500 + size[:, None] * (body[:, 0] + rng.normal(0, 0.02, (frames, 18)))
    points[:, 0, :, 1] = 300 + size[:, None] * (1.4 - body[:, 1])
    poses = Poses(points, COCO_18, 1000, 2000, 25.0)
    target = BodyStatistics.from_mapping(measure(poses).to_mapping())
    for mode in ("none", "affine", "depth"):
        np.testing.assert_allclose(fit(poses, target, mode)(poses).points, poses.points, rtol=1e-4, atol=1e-2)
