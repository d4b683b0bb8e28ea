"""Completions: masks, completions without a model by hand, and systems whose answers are known."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.core.errors import EvaluationError
from kinema.core.shape import ClipShape
from kinema.data.dataset import Clip, ClipRecord, Dataset, DatasetInfo, shard_name, write_info, write_shard
from kinema.evaluation.completion import (
    AVERAGED,
    COPIED,
    FADED,
    HIDDEN,
    MEASURES,
    MEDIAN,
    SCENE,
    SEEDS_APART,
    TASKS,
    Completer,
    CompletionQuestion,
    baselines,
    judge_completions,
)
from kinema.evaluation.completion_page import compared, rows
from kinema.evaluation.pixels import planes, psnr, ssim

SHAPE = ClipShape(8, 24, 24)


def stage() -> np.ndarray:
    """A picture in which every place is another colour."""
    across = np.arange(SHAPE.width)
    return np.stack(np.broadcast_arrays(9 * across, 9 * across[:, None], 60), axis=-1).astype(np.uint8)


def scene(number: int, pan: int = 0) -> np.ndarray:
    """A bright square that crosses the stage from left to right, filmed by a camera that stands still or pans."""
    video = np.stack([np.roll(stage(), pan * frame, axis=1) for frame in range(SHAPE.frames)])
    for frame in range(SHAPE.frames):
        left = (number + 2 * frame) % (SHAPE.width - 4)
        video[frame, 10:14, left : left + 4] = 255
    return video


def write_scenes(folder: Path, pan: int = 0, elsewhere: bool = False) -> Path:
    """Write 20 clips, of which every second is held out; those were filmed elsewhere where that is asked for."""

    def clip(number: int) -> Clip:
        split = "test" if number % 2 else "train"
        record = ClipRecord(f"{number:03d}", "film.mp4", 8 * number, 25.0, split=split)
        video = scene(number, pan)
        return Clip(record, video[:, ::-1] if elsewhere and split == "test" else video)

    write_shard(folder / shard_name(0), [clip(number) for number in range(20)])
    info = DatasetInfo(SHAPE.frames, SHAPE.height, SHAPE.width, fps=25.0, shards=(shard_name(0),), kept=20)
    write_info(folder, info)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes"))


def completer(held_out: Dataset, shift: int = 0, **fields: object) -> Completer:
    """Return what knows the truth, and is so many levels off everywhere."""

    def complete(
        clips: Sequence[np.ndarray], known: np.ndarray, places: Sequence[int], seeds: Sequence[int]
    ) -> list[np.ndarray]:
        assert all((clip[~one] == HIDDEN).all() for clip, one in zip(clips, known, strict=True)), (
            "a system must not see what is hidden"
        )
        assert list(seeds) == [5 + place for place in places]
        return [
            np.where(held_out.video(place) > 127, held_out.video(place) - shift, held_out.video(place) + shift).astype(np.uint8)
            for place in places
        ]

    return Completer("oracle", SHAPE, complete, **fields)  # type: ignore[arg-type]


def judged(folder: Path, shift: int = 0, tasks: tuple[str, ...] = tuple(TASKS), **fields: object):
    held_out = Dataset(folder, "test")
    question = CompletionQuestion(8, 5, tasks)
    return judge_completions(completer(held_out, shift, **fields), held_out, Dataset(folder, "train"), question)


# --- What is hidden -----------------------------------------------------------------------------------------------------------


def test_every_task_hides_what_it_says() -> None:
    known = {name: task.known(SHAPE, 3) for name, task in TASKS.items()}
    assert {name: round(float((~mask).mean()), 3) for name, mask in known.items()} == {
        "image-to-video": 7 / 8,
        "extend": 0.5,
        "backward": 0.5,
        "interpolate": 0.75,
        "box": 0.25,
        "box-somewhere": 0.25,
        "moving-box": pytest.approx(1 / 9, abs=0.03),
    }
    assert known["extend"][0].all()
    assert known["backward"][-1].all()
    assert (~known["box"]).any(axis=0).sum() == (~known["box"][0]).sum()
    assert known["moving-box"].any(axis=0).all()
    places = {tuple(np.argwhere(~TASKS["box-somewhere"].known(SHAPE, seed)[0])[0].tolist()) for seed in range(40)}
    assert len(places) > 20
    assert {0, SHAPE.height // 2} <= {top for top, _ in places}


# --- Without a model ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("image-to-video", {COPIED}),
        ("extend", {COPIED, AVERAGED}),
        ("backward", {COPIED, AVERAGED}),
        ("interpolate", {COPIED, FADED, AVERAGED}),
        ("box", {AVERAGED, SCENE}),
        ("moving-box", {AVERAGED, MEDIAN}),
    ],
)
def test_completions_without_a_model_look_at_nothing_hidden(task: str, names: set[str]) -> None:
    known = TASKS[task].known(SHAPE, 0)
    one, other = scene(3), scene(3)
    other[~known] = 255 - other[~known]
    made, again = (baselines(clip, known, stage()) for clip in (one, other))
    assert set(made) == names
    for name, clip in made.items():
        assert (clip[known] == one[known]).all()
        assert (clip[~known] == again[name][~known]).all()


def test_a_fade_is_exact_where_light_changes_evenly_and_copies_are_the_nearest_frames() -> None:
    clip = np.broadcast_to(10 * np.arange(8, dtype=np.uint8)[:, None, None, None], (8, 24, 24, 3)).copy()
    made = baselines(clip, TASKS["interpolate"].known(SHAPE, 0), None)
    assert (made[FADED] == clip).all()
    assert made[COPIED][:, 0, 0, 0].tolist() == [0, 0, 0, 0, 70, 70, 70, 70]
    assert made[AVERAGED][1:7, 0, 0, 0].tolist() == [35] * 6
    after = baselines(clip, TASKS["backward"].known(SHAPE, 0), None)
    assert after[COPIED][:, 0, 0, 0].tolist() == [40, 40, 40, 40, 40, 50, 60, 70]


def test_a_median_over_time_finds_the_background_behind_a_box_that_moves() -> None:
    clip = np.broadcast_to(stage(), (8, 24, 24, 3)).copy()
    assert (baselines(clip, TASKS["moving-box"].known(SHAPE, 0), None)[MEDIAN] == clip).all()
    hole = baselines(clip, TASKS["box"].known(SHAPE, 0), None)
    assert set(hole) == {AVERAGED}
    frame = clip[0][TASKS["box"].known(SHAPE, 0)[0]]
    assert hole[AVERAGED][0, 12, 12].tolist() == np.rint(frame.mean(axis=0)).astype(int).tolist()


# --- Numbers ------------------------------------------------------------------------------------------------------------------


def test_the_truth_is_as_good_as_can_be(data: Path) -> None:
    card = judged(data, remember=lambda clips: list(clips))
    for name, score in card.report["scores"].items():
        assert (score["psnr"]["value"], score["psnr"]["compressor"]) == (100, 100)
        assert score["psnr of all at once"]["value"] == 100
        assert score["ssim"]["value"] == pytest.approx(1)
        assert score["psnr"]["gain over it"]["low"] > 0
        motion = card.report["motion"][name]
        assert motion["motion against real"] == motion["seam against real"] == 1
        assert len(card.report["clips"][f"{name} psnr"]) == 8
    assert len(card.report["warnings"]) == 1, card.report["warnings"]
    columns, sheet = card.shown["interpolate"]
    assert columns[:4] == ("given", "result", "truth", "compressor")
    assert len(sheet) == 4
    assert (sheet[0][1] == sheet[0][2]).all()
    assert (sheet[0][0][1:-1] == HIDDEN).all()


def test_a_stopped_judgement_goes_on(data: Path, tmp_path: Path) -> None:
    """Stopped in the second of three tasks: the first is not completed again."""
    held_out, training = Dataset(data, "test"), Dataset(data, "train")
    question = CompletionQuestion(8, 5, ("extend", "backward", "box"))
    oracle, calls = completer(held_out, 3), list[int]()

    def complete(clips: Sequence[np.ndarray], *rest: Any) -> Sequence[np.ndarray]:
        calls.append(len(clips))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return oracle.complete(clips, *rest)

    stopping = replace(oracle, complete=complete)
    with pytest.raises(KeyboardInterrupt):
        judge_completions(stopping, held_out, training, question, unfinished=tmp_path)
    card = judge_completions(stopping, held_out, training, question, unfinished=tmp_path)
    assert calls == [8, 8, 8, 8]
    expected = judge_completions(oracle, held_out, training, question)
    assert json.dumps(card.report) == json.dumps(expected.report)
    assert len(calls) == 4
    judge_completions(replace(stopping, about={"steps": 7}), held_out, training, question, unfinished=tmp_path)
    assert len(calls) == 7  # another sampling: all three again


def test_levels_off_are_decibels_by_hand_and_known_pixels_are_judged_before_they_are_pasted(data: Path) -> None:
    """Everything is 5 levels off, the compressor 2: 20 log10(255 / 5) and 20 log10(255 / 2) dB, hidden and known alike."""
    card = judged(data, 5, remember=lambda clips: [np.where(clip > 127, clip - 2, clip + 2).astype(np.uint8) for clip in clips])
    five, two = 20 * np.log10(255 / 5), 20 * np.log10(255 / 2)
    for score in (one["psnr"] for one in card.report["scores"].values()):
        assert (score["value"], score["compressor"]) == (pytest.approx(five), pytest.approx(two))
        assert score["known, before pasting"]["value"] == pytest.approx(five)
        assert score["known, of the compressor"] == pytest.approx(two)
    lines = {line[0]: line for line in rows(card.report)}
    assert lines["  psnr of the first frame, not pasted"][3] == "42.1"


def test_of_several_completions_the_mean_and_the_best_are_told_beside_the_first(data: Path) -> None:
    """The first is 6 levels off and the others are exact: their mean is 2 off."""
    held_out = Dataset(data, "test")
    errors = {5: 6, 5 + SEEDS_APART: 0, 5 + 2 * SEEDS_APART: 0}

    def complete(clips: Sequence[np.ndarray], known: Any, places: Sequence[int], seeds: Sequence[int]) -> list[np.ndarray]:
        (error,) = {errors[seed - place] for seed, place in zip(seeds, places, strict=True)}
        truths = [held_out.video(place) for place in places]
        return [np.where(true > 127, true - error, true + error).astype(np.uint8) for true in truths]

    system = replace(completer(held_out), complete=complete)
    one, several = (
        judge_completions(system, held_out, None, CompletionQuestion(8, 5, ("extend",), count)).report for count in (1, 3)
    )
    assert several["clips"] == one["clips"]
    assert "completions of each clip" not in one["protocol"]
    score = several["scores"]["extend"]["psnr"]
    assert score["value"] == pytest.approx(20 * np.log10(255 / 6))
    assert score["mean of several"]["value"] == pytest.approx(20 * np.log10(255 / 2))
    assert score["best of several"]["value"] == 100
    gain = score["mean of several"]["gain"]["value"]
    assert gain == pytest.approx(score["gain over it"]["value"] + 20 * np.log10(3))
    lines = {line[0]: line[1] for line in rows(several)}
    assert (lines["  psnr, mean of 3"], lines["  psnr, best of 3"]) == ("42.1", "100")


def test_a_still_picture_of_the_training_clips_fills_a_box_of_a_camera_that_stands_still(data: Path) -> None:
    """The square is 16 of the 144 pixels of the box at most; everything else is the stage, exactly."""
    card = judged(data, tasks=("box",))
    assert card.report["camera"]["stands still"]
    assert card.report["camera"]["looks at one place"]
    score = card.report["scores"]["box"]["psnr"]
    assert score["nearest of them"] == SCENE
    assert score["beside"][SCENE] > score["beside"][AVERAGED] + 3


def test_a_camera_that_pans_or_has_gone_elsewhere_is_said(tmp_path: Path) -> None:
    pans = judged(write_scenes(tmp_path / "pans", pan=1), tasks=("box",)).report
    assert not pans["camera"]["stands still"]
    assert any("The camera moves: the stiller half" in said for said in pans["warnings"])
    moved = judged(write_scenes(tmp_path / "moved", elsewhere=True), tasks=("box",)).report
    assert moved["camera"]["stands still"]
    assert any("not filmed where the training clips were" in said for said in moved["warnings"])


def test_what_is_worse_than_a_repeated_frame_is_said(data: Path) -> None:
    report = judged(data, 60, tasks=("image-to-video",)).report
    assert f"image-to-video: {COPIED} is nearer to the truth by psnr and psnr of all at once." in report["warnings"]
    assert any("no compressor" in said for said in report["warnings"])


def test_reports_stand_in_one_table(data: Path) -> None:
    reports = {name: judged(data, shift, ("extend",)).report for name, shift in (("near", 3), ("far", 9))}
    columns, lines = compared(reports)
    assert columns == ["", "near", "far", "nearest of the rest"]
    cells = {line[0]: line for line in lines}
    assert [cell.split()[0] for cell in cells["extend: psnr"][1:3]] == ["38.6", "29"]


def test_clips_that_cannot_be_judged_are_refused(data: Path) -> None:
    held_out = Dataset(data, "test")
    with pytest.raises(EvaluationError, match=r"oracle has clips of 8x32x32 and .* of 8x24x24"):
        judge_completions(
            Completer("oracle", ClipShape(8, 32, 32), completer(held_out).complete), held_out, None, CompletionQuestion()
        )
    with pytest.raises(EvaluationError, match=r"--count is 11; .* has 10 clips: give 8 to 10"):
        judge_completions(completer(held_out), held_out, None, CompletionQuestion(11))
    short = Completer("short", SHAPE, lambda clips, known, places, seeds: [clip[:4] for clip in clips])
    with pytest.raises(EvaluationError, match="short made clips of 4x24x24 of those of 8x24x24"):
        judge_completions(short, held_out, None, CompletionQuestion())


# --- Parts of the picture -----------------------------------------------------------------------------------------------------


def test_measures_of_a_part_are_those_of_what_it_shows() -> None:
    generator = np.random.default_rng(0)
    one, other = (planes(generator.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)) for _ in range(2))
    everything = torch.ones(3, 24, 24, dtype=torch.bool)
    for measure in (psnr, ssim):
        assert measure(one, other, everything).tolist() == pytest.approx(measure(one, other).tolist())
    corner = torch.zeros(3, 24, 24, dtype=torch.bool)
    corner[:2, 4:16, 8:20] = True
    cut = [side[:, :, 4:16, 8:20] for side in (one, other)]
    assert psnr(one, other, corner)[:2].tolist() == pytest.approx(psnr(*cut)[:2].tolist())
    assert psnr(one, other, corner)[2].isnan()
    middle = torch.zeros(3, 24, 24, dtype=torch.bool)
    middle[:, 10, 12] = True  # one window, that of 11x11 around it
    assert ssim(one, other, middle).tolist() == pytest.approx(ssim(one[:, :, 5:16, 7:18], other[:, :, 5:16, 7:18]).tolist())


def test_frames_that_are_exact_win_the_mean_over_frames_and_not_all_pixels_at_once() -> None:
    truth = planes(np.full((4, 24, 24, 3), 100, np.uint8))
    exact_or_far, near = truth.clone(), truth + 5
    exact_or_far[2:] += 30
    region = torch.zeros(4, 24, 24, dtype=torch.bool)
    region[:, 4:16, 8:20] = True
    region[3, 4:16] = False  # the last frame hides nothing
    (_, each), (_, together) = MEASURES["psnr"], MEASURES["psnr of all at once"]
    of_30, of_5 = (20 * np.log10(255 / error) for error in (30, 5))
    assert each(truth, exact_or_far, region) == pytest.approx((100 + 100 + of_30) / 3)
    assert each(truth, near, region) == together(truth, near, region) == pytest.approx(of_5)
    assert together(truth, exact_or_far, region) == pytest.approx(of_30 + 10 * np.log10(3))
    assert np.isnan(together(truth, near, torch.zeros_like(region)))
