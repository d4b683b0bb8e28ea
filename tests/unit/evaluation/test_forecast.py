"""The report card of forecasts on forecasters whose numbers are known beforehand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from forked_dataset import FORKED, write_forked_dataset
from kinema.core.errors import DataError, EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.data.performers import pose_futures
from kinema.evaluation.forecast import (
    MEAN,
    STEADY,
    STILL,
    TYPICAL,
    Case,
    Forecaster,
    ForecastQuestion,
    fork_settings,
    judge_forecasts,
)
from kinema.evaluation.forecast_page import compared, picture, plot, rows, write_forecast_reports
from small_dataset import write_dataset

PAST, FUTURE = 5, 4


def truth_of(index: int) -> dict[str, np.ndarray]:
    return {name: pose[PAST:] for name, pose in pose_futures(index, FORKED).items()}


def oracle(clips: Sequence[Any], poses: Any, seeds: Sequence[int], futures: int) -> np.ndarray:
    """Draw from what may follow, with the known odds; the seed of a clip is its place in the test split here."""
    made = []
    for seed in seeds:
        known = truth_of(2 * seed + 1)  # every second clip is held out
        rng = np.random.default_rng(seed)
        names = rng.choice(list(known), size=futures, p=list(FORKED.odds.values()))
        made.append(np.stack([known[str(name)] for name in names]))
    return np.stack(made).astype(np.float32)


def frozen(clips: Sequence[Any], poses: Any, seeds: Sequence[int], futures: int) -> np.ndarray:
    return np.repeat(np.repeat(poses[:, None, -1:], FUTURE, axis=2), futures, axis=1).astype(np.float32)


def frozen_longer(clips: Sequence[Any], poses: Any, seeds: Sequence[int], futures: int) -> np.ndarray:
    return np.repeat(np.repeat(poses[:, None, -1:], FUTURE + 1, axis=2), futures, axis=1).astype(np.float32)


def forecaster(forecast: Any, typical: Any = None, **changes: Any) -> Forecaster:
    made = Forecaster("it", ClipShape(9, 16, 16), PAST, FUTURE, 2, "coco-18", forecast, typical)
    return replace(made, **changes)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_forked_dataset(tmp_path_factory.mktemp("forks") / "data"), "test")


def test_somebody_who_knows_what_may_follow_is_right(data: Dataset) -> None:
    report = judge_forecasts(forecaster(oracle), data, ForecastQuestion(samples=40)).report
    curve = report["best of"]["displacement error"]
    assert curve["value"] == sorted(curve["value"], reverse=True)
    assert curve["value"][0] > 0.01
    assert curve["value"][-1] < 1e-9
    assert report["best of"]["distance of a joint, pixels"]["value"][-1] < 1e-5
    assert report["scores"]["ADE"]["value"] < 1e-6
    assert report["scores"]["FDE"]["value"] < 1e-6
    assert report["scores"]["APD"]["value"] > 0.3
    modes = report["modes"]
    assert modes["coverage"] == 1.0
    assert modes["samples that hit one"] == 1.0
    assert modes["coverage beside"][MEAN] < 0.5
    assert modes["shares from odds, all clips"] < 0.1
    assert modes["futures"]["go_on"]["odds"] == 0.5
    assert abs(modes["futures"]["go_on"]["share of samples"] - 0.5) < 0.1
    assert report["limbs"]["variation"] > 0
    assert not report["warnings"]
    assert report["protocol"]["clips"] == 12


def test_joints_that_count_as_missing_to_the_system_are_not_judged(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen to fail where all found ones were judged: 1.57 pixels off, though what it forecasts is right."""
    array = Dataset.array

    def faint(self: Dataset, index: int, name: str) -> Any:
        poses = np.array(array(self, index, name))
        poses[:, :3, 2] = 0.05
        return poses

    def without(*given: Any) -> np.ndarray:
        made = oracle(*given)
        made[..., :3, :] = 0
        return made

    monkeypatch.setattr(Dataset, "array", faint)
    judged = judge_forecasts(forecaster(without, confidence=0.1), data, ForecastQuestion(samples=40)).report
    assert judged["best of"]["distance of a joint, pixels"]["value"][-1] < 1e-5
    assert judged["scores"]["FDE"]["value"] < 1e-6


def test_one_sample_is_no_curve(data: Dataset) -> None:
    report = judge_forecasts(forecaster(oracle), data, ForecastQuestion(samples=1)).report
    assert not any("hardly falls" in said for said in report["warnings"])


def test_somebody_who_forecasts_nothing_is_flat(data: Dataset) -> None:
    report = judge_forecasts(forecaster(frozen), data, ForecastQuestion(samples=5)).report
    curve = report["best of"]["displacement error"]
    assert len(set(np.round(curve["value"], 9))) == 1
    assert curve["value"][0] == pytest.approx(curve["beside"][STILL])
    assert curve["beside"][MEAN] == pytest.approx(curve["beside"][STILL])
    assert TYPICAL not in curve["beside"]
    assert report["scores"]["APD"]["value"] == 0
    assert report["scores"]["ADE"]["value"] == pytest.approx(report["scores"]["ADE"]["beside"][STILL])
    assert report["limbs"]["variation"] == pytest.approx(0, abs=1e-6)
    assert report["motion"]["motion"] == pytest.approx(0, abs=1e-6)
    assert report["modes"]["coverage"] <= 1 / 3
    said = " ".join(report["warnings"])
    assert "hardly falls" in said
    assert "hardly move" in said
    assert STILL in said


def test_baselines_by_hand(data: Dataset) -> None:
    card = judge_forecasts(
        forecaster(frozen, lambda clips, poses: frozen(clips, poses, [0], 1)[:, 0]), data, ForecastQuestion()
    )
    case = card.shown[0]
    np.testing.assert_allclose(case.rivals[STEADY][1], case.current + 2 * (case.current - case.before))
    np.testing.assert_allclose(case.rivals[TYPICAL], case.rivals[STILL])
    steps = case.steps(case.truth, 2)
    np.testing.assert_allclose(steps[0], case.truth[1] - case.current)
    np.testing.assert_allclose(steps[1], case.truth[3] - case.truth[1])
    reached = card.report["best of"]["displacement error"]["beside"]
    assert reached[TYPICAL] == pytest.approx(reached[STILL])


def test_the_error_of_one_clip_by_hand(data: Dataset) -> None:
    report = judge_forecasts(forecaster(frozen), data, ForecastQuestion(samples=1)).report
    errors, distances = [], []
    for index in range(len(data)):
        pose = np.array(data.array(index, "pose"), np.float64)
        there = (pose[:, :, 2] > 0)[[4, 6, 8]]
        moved = np.diff(pose[[4, 6, 8], :, :2], axis=0) / 16
        both = there[1:] & there[:-1] & there[0]
        errors.append((np.square(moved).sum(axis=-1) * both).sum() * both.size / both.sum())
        mask = (pose[PAST:, :, 2] > 0) & there[0]
        distances.append(np.linalg.norm(pose[PAST:, :, :2] - pose[4, :, :2], axis=-1)[mask].mean())
    assert report["best of"]["displacement error"]["value"] == pytest.approx([np.mean(errors)], rel=1e-5)
    assert report["best of"]["distance of a joint, pixels"]["value"] == pytest.approx([np.mean(distances)], rel=1e-5)


def test_the_same_question_has_the_same_answer(data: Dataset) -> None:
    one, other = (judge_forecasts(forecaster(oracle), data, ForecastQuestion(10, 0, 4)).report for _ in range(2))
    assert one == other
    assert one["protocol"]["clips"] == 10


def test_a_stopped_judgement_goes_on(data: Dataset, tmp_path: Path) -> None:
    """Twelve clips in portions of eight, stopped in the second: the first is not forecast again."""
    asked = list[int]()

    def stops(clips: Sequence[Any], poses: Any, seeds: Sequence[int], futures: int) -> np.ndarray:
        asked.extend(seeds)
        if len(asked) == 12:
            raise KeyboardInterrupt
        return oracle(clips, poses, seeds, futures)

    def typical(clips: Sequence[Any], poses: Any) -> np.ndarray:
        return frozen(clips, poses, [], 1)[:, 0]

    stopping, question = forecaster(stops, typical), ForecastQuestion(12, 0, 4)
    with pytest.raises(KeyboardInterrupt):
        judge_forecasts(stopping, data, question, unfinished=tmp_path)
    first, asked[:] = set(asked[:8]), []
    card = judge_forecasts(stopping, data, question, unfinished=tmp_path)
    assert len(asked) == 4
    assert not first & set(asked)
    expected = judge_forecasts(forecaster(oracle, typical), data, question)
    assert json.dumps(card.report) == json.dumps(expected.report)
    asked.clear()
    judge_forecasts(replace(stopping, about={"steps": 7}), data, ForecastQuestion(8, 0, 4), unfinished=tmp_path)
    assert len(asked) == 8  # another run: all of them


def test_forks_are_recognised(data: Dataset, tmp_path: Path) -> None:
    assert fork_settings(data) == replace(FORKED, pose_noise=0.0)
    assert fork_settings(Dataset(write_dataset(tmp_path / "other"))) is None
    report = judge_forecasts(forecaster(frozen_longer, past=4, future=5, step=1), data, ForecastQuestion(samples=2)).report
    assert "prepare the data with --fork-frame 4" in " ".join(report["warnings"])


def test_unfit_data_are_refused(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="prepare the data with --size 32"):
        judge_forecasts(forecaster(frozen, shape=ClipShape(9, 32, 32)), data, ForecastQuestion())
    with pytest.raises(EvaluationError, match="clips need 15"):
        judge_forecasts(forecaster(frozen, future=10), data, ForecastQuestion())
    with pytest.raises(EvaluationError, match="poses of coco-18 and it forecasts coco-17"):
        judge_forecasts(forecaster(frozen, skeleton="coco-17"), data, ForecastQuestion())
    with pytest.raises(EvaluationError, match="give 8 to 12"):
        judge_forecasts(forecaster(frozen), data, ForecastQuestion(count=13))
    with pytest.raises(DataError, match="has no pose"):
        judge_forecasts(forecaster(frozen), Dataset(write_dataset(tmp_path / "other")), ForecastQuestion())
    few = Dataset(write_forked_dataset(tmp_path / "few", replace(FORKED, clips=10)), "test")
    with pytest.raises(EvaluationError, match="at least 8"):
        judge_forecasts(forecaster(frozen), few, ForecastQuestion())


def test_clips_without_joints_are_left_out_and_data_without_forks_have_a_page(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "blind", 20, per_shard=20, shape=(9, 16, 16), people=True, test_every=1)
    data = Dataset(folder)
    if data.info.skeleton != "coco-18":
        data.info = replace(data.info, skeleton="coco-18")
    poses = [np.array(data.array(index, "pose")) for index in range(len(data))]
    for index in range(3):
        poses[index][PAST - 1, :, 2] = 0  # nobody in the current frame
    data.array = lambda index, name: poses[index]  # pyright: ignore[reportAttributeAccessIssue]
    card = judge_forecasts(forecaster(frozen), data, ForecastQuestion(samples=2))
    report = write_forecast_reports(tmp_path / "card", card, {"time": "now", "machine": "here"})
    assert "What may follow" not in (tmp_path / "card" / "report.html").read_text()
    columns, lines = rows(report)
    assert all(len(line) == len(columns) for line in lines)
    assert report["protocol"]["clips without joints, left out"] == 3
    assert report["protocol"]["clips"] == 17
    assert "modes" not in report


def test_a_joint_that_is_lost_for_a_frame_has_not_moved(tmp_path: Path) -> None:
    """Everybody stands; measured from (0, 0), where a missing joint is stored, the true motion was a dozen pixels a frame."""
    data = Dataset(write_dataset(tmp_path / "still", 8, per_shard=8, shape=(9, 16, 16), people=True, test_every=1))
    pose = np.full((9, 18, 3), 10.0, np.float32)
    pose[:, 3, 1] = 4
    pose[PAST + 1, 3:9] = 0
    data.array = lambda index, name: pose  # pyright: ignore[reportAttributeAccessIssue]
    motion = judge_forecasts(forecaster(frozen), data, ForecastQuestion(samples=2)).report["motion"]
    assert motion["motion of real clips"] == motion["motion"] == 0


def test_the_true_pose_is_drawn_without_the_joints_that_are_lost() -> None:
    """A lost joint is stored at (0, 0): drawn, it pulls a limb into the corner."""
    case = Case(
        **{"key": "0", "truth": np.full((3, 18, 2), 12.0), "mask": np.ones((3, 18), bool), "current": np.full((18, 2), 12.0)},
        **{"before": np.full((18, 2), 12.0), "present": np.ones(18, bool), "samples": np.full((2, 3, 18, 2), 12.0)},
        **{"typical": None, "height": 10.0},
    )
    case.truth[1, 4], case.mask[1, 4] = 0, False
    seen = list[np.ndarray]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kinema.evaluation.forecast_page.moving", lambda clips, count, fps, made: (seen.extend(clips), "")[1])
        picture(case, "coco-18", (16, 16), 8.0)
    assert seen[0][1, 12, 12].any()
    assert not seen[0][1, :6, :6].any()


def test_the_page_holds_plot_table_and_pictures(data: Dataset, tmp_path: Path) -> None:
    card = judge_forecasts(forecaster(oracle), data, ForecastQuestion(samples=6))
    report = write_forecast_reports(tmp_path / "it", card, {"time": "now", "machine": "here"})
    page = (tmp_path / "it" / "report.html").read_text()
    assert page.count('<polyline class="samples"') == 2
    assert page.count("data:image/webp;base64,") == 6
    assert "What may follow" in page
    assert "turn_back" in page
    columns, lines = rows(report)
    assert columns[:3] == ["", "forecast", "95% interval"]
    assert all(len(line) == len(columns) for line in lines)
    assert any(line[0] == "known futures that are hit" for line in lines)
    heads, table = compared({"one": report, "two": report})
    assert all(len(line) == len(heads) for line in table)


def test_a_rival_far_off_lies_at_the_upper_edge() -> None:
    curve = {"value": [2.0, 1.0], "low": [1.5, 0.5], "high": [2.5, 1.5], "beside": {STILL: 2.0, STEADY: 100.0}}
    made = plot("error", curve)
    heights = {kind: place for kind, place, _ in made.rivals}
    assert heights["steady"] == 0
    assert 0 < heights["still"] < 210
    assert made.samples.startswith("58.0,")
