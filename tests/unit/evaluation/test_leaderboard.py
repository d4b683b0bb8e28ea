"""Rankings by hand: means, intervals, and orders that are not settled."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest

from kinema.evaluation.compare import Contest, Contestant, Part
from kinema.evaluation.leaderboard import costs, failures, finalists, notes, plot, quality, read_board, sampling_parameters
from kinema.systems.vgan import VGAN
from unit.evaluation.small_contest import contest

THREE = tuple(Contestant(name, ("vgan",), 1, 4) for name in "abc")


def report(value: float, low: float, high: float, minutes: float = 3.0) -> dict[str, Any]:
    """What the leaderboard reads of a report card."""
    score = {"value": value, "low": low, "high": high, "floor": {"mean": 4.0, "low": 3.0, "high": 5.0, "count": 32}}
    return {
        "format_version": 1,
        "judged": {"name": "made"},
        "protocol": {"seed": 0},
        "scores": {"frechet[f]": score | {"times floor": value / 4}},
        "motion": {
            "motion against real": 0.5,
            "flicker": 0.1,
            "flicker of real clips": 0.2,
            "diversity against real": None,
        },
        "copies": {"nearest": 6.0, "nearest of held-out": 3.0},
        "warnings": ["Few clips."] + ["Nearly still."] * (value > 40),
        "provenance": {"machine": "Linux", "cost": {"minutes": minutes, "steps": 1200, "memory": None}},
    }


def judged(folder: Path, part: Part, *numbers: float) -> None:
    part.card(folder).mkdir(parents=True)
    (part.card(folder) / "report.json").write_text(json.dumps(report(*numbers)))


@pytest.fixture
def plan(tmp_path: Path) -> Contest:
    """Three contestants with two seeds: b is best, a overlaps with it, c is worse than both."""
    plan = contest(contestants=THREE)
    numbers = {"a": ((16, 12, 20), (14, 11, 19)), "b": ((10, 8, 11), (14, 11, 15)), "c": ((40, 30, 50), (44, 33, 51))}
    for part in plan.parts():
        judged(tmp_path, part, *numbers[part.contestant.name][part.seed])
    return plan


def test_contestants_are_ranked_by_the_mean_over_seeds(plan: Contest, tmp_path: Path) -> None:
    board = read_board(tmp_path, plan)
    assert [entry["name"] for entry in board["contestants"]] == ["b", "a", "c"]
    best = board["contestants"][0]
    assert best["summary"]["frechet[f]"] == {"mean": 12.0, "spread": pytest.approx(math.sqrt(8))}
    assert best["summary"]["steps"] == {"mean": 1200, "spread": 0}
    assert best["interval"] == [8, 15]
    assert "memory" not in best["summary"]  # not known


def test_an_order_that_is_not_settled_is_said_so(plan: Contest, tmp_path: Path) -> None:
    board = read_board(tmp_path, plan)
    assert board["unsettled"] == [["b", "a"]]
    assert [entry["rank"] for entry in board["contestants"]] == [[1, 2], [1, 2], [3, 3]]
    assert notes(board)[0] == "The order of b and a is not settled: their intervals overlap."
    assert any(note.startswith("No row of held-out clips") for note in notes(board))
    assert notes(board)[-2:] == ["Few clips.", "c, seed 1: Nearly still."]
    head, lines = quality(board)
    assert head[:5] == ["", "rank", "frechet[f]", "95 % interval", "motion"]
    assert lines[0][:5] == ["b", "1-2", "12 ± 2.83", "8 to 15", "50% ± 0%"]
    assert lines[2][:2] == ["c", "3"]
    assert lines[-1][:4] == ["floor: real clips", "", "4", "3 to 5"]
    assert costs(board) == (["", "minutes", "steps"], [[name, "3.0", "1,200"] for name in "bac"])
    board["contestants"][1]["summary"]["device memory"] = {"mean": 4321.4, "spread": None}
    head, lines = costs(board)
    assert [head[3], *(line[3] for line in lines)] == ["peak MiB of GPU", "-", "4,321", "-"]


def test_finalists_are_the_best_each_with_its_best_seed(plan: Contest, tmp_path: Path) -> None:
    best = finalists(plan, read_board(tmp_path, plan))
    assert [(part.contestant.name, part.seed) for part in best] == [("b", 0), ("a", 1)]


def test_who_failed_is_listed_and_not_ranked(tmp_path: Path) -> None:
    plan = contest(contestants=THREE[:2], seeds=1)
    a, b = plan.parts()
    judged(tmp_path, a, 10, 9, 11)
    b.training(tmp_path).mkdir(parents=True)
    (b.training(tmp_path) / "failed.json").write_text('{"reason": "a loss became NaN"}')
    board = read_board(tmp_path, plan)
    assert failures(board) == ["b, seed 0: a loss became NaN"]
    assert quality(board)[1][1][:3] == ["b", "", "-"]
    assert quality(board)[1][1][-1] == "0 of 1, 1 failed"
    assert "One seed each: how much a training seed changes is not known." in notes(board)


def test_nothing_is_known_at_the_beginning(tmp_path: Path) -> None:
    board = read_board(tmp_path, contest())
    assert quality(board) == ([], [])
    assert notes(board) == ["Not finished: 0 of 6 parts are done."]
    assert plot(board) is None


def test_the_plot_shows_distance_against_time(tmp_path: Path) -> None:
    plan = contest(contestants=(Contestant("a", ("vgan",), 2, 4),), seeds=1)
    for part, numbers in zip(plan.parts(), ((20, 15, 40, 1.5), (10, 9, 11, 3.0)), strict=True):
        judged(tmp_path, part, *numbers)
    drawn = plot(read_board(tmp_path, plan))
    assert drawn is not None
    first, last = drawn["curves"][0]["dots"]
    assert first["x"] < last["x"] < drawn["right"]
    assert 0 < first["high"] < first["y"] < last["y"] < drawn["floor"] < drawn["bottom"]  # y grows downwards
    across, down = drawn["right"] - drawn["left"], drawn["bottom"] - 12
    assert first["x"] == pytest.approx(drawn["left"] + across * 1.5 / 3.06, abs=0.1)
    assert first["y"] == pytest.approx(drawn["bottom"] - down * 20 / 42, abs=0.1)


@pytest.mark.parametrize("streams", ["one", "two"])
def test_sampling_uses_the_generator_alone(streams: Literal["one", "two"]) -> None:
    system = VGAN(replace(VGAN.presets["tiny"].config, generator_streams=streams)).eval()
    used = sum(parameter.numel() for parameter in system.generator.parameters())
    assert sampling_parameters(system) == used < sum(parameter.numel() for parameter in system.parameters())
    assert not any(module._forward_pre_hooks for module in system.modules())
