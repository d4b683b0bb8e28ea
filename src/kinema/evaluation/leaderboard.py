"""What came out of a comparison: a ranking that says where it is not settled, costs, and a page with moving samples."""

import base64
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from torch import nn

import kinema
from kinema.core.config import to_mapping
from kinema.data.encode import beside
from kinema.evaluation.compare import (
    CLIPS_NAME,
    FAILURE_NAME,
    FORMAT_VERSION,
    HELD_OUT,
    REAL_NAME,
    STUDY,
    Contest,
    Contestant,
    Part,
    write_json,
)
from kinema.evaluation.report import HTML_NAME, JSON_NAME, number, read_report, refuse_unequal
from kinema.training.report import nice_ticks

BOARD_NAME, PAGE_NAME, TEMPLATE = "leaderboard.json", "index.html", "leaderboard.html.jinja"
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 320, 56, 34, 16, 12  # of the plot and its margins, in pixels


@dataclass(frozen=True)
class Judged:
    """A report card of a comparison."""

    part: Part | None  # None: of held-out clips
    folder: Path
    report: Mapping[str, Any]

    def numbers(self) -> dict[str, float]:
        """Return what contestants are compared by: name -> value."""
        motion, copies = self.report["motion"], self.report["copies"]
        found = {name: score["value"] for name, score in self.report["scores"].items()}
        found |= {
            "motion, of real": motion["motion against real"],
            "flicker, levels": motion["flicker"],
            "diversity, of real": motion["diversity against real"],
        }
        if "nearest" in copies:
            found["nearest training clip, levels"] = copies["nearest"]
        return found | dict(self.report["provenance"].get("cost", {}))


def read_board(folder: Path, contest: Contest) -> dict[str, Any]:
    """Return everything that is known so far, as JSON values; what ``leaderboard.json`` holds.

    Args:
        folder: of the comparison.
        contest: its plan.

    Raises:
        EvaluationError: for a damaged report card, or cards of unequal protocols.
    """
    parts = list(contest.parts())
    cards = [Judged(part, part.card(folder), read_report(part.card(folder))) for part in parts if _is_judged(part, folder)]
    real = folder / HELD_OUT
    held_out = Judged(None, real, read_report(real)) if (real / JSON_NAME).exists() else None
    reports = {str(card.folder): card.report for card in (*cards, *([held_out] if held_out else []))}
    if reports:
        refuse_unequal(reports)
    score = next(iter(cards[0].report["scores"]), None) if cards else None
    entries = [_entry(folder, contest, contestant, cards, score) for contestant in contest.contestants]
    ranked = sorted((entry for entry in entries if entry["finished"]), key=lambda entry: entry["summary"][score]["mean"])
    for entry in ranked:
        entry["rank"] = _rank(entry, ranked)
    protocol = next((report["protocol"] for report in reports.values()), {})
    return {
        "format_version": FORMAT_VERSION,
        "kinema": kinema.__version__,
        "contest": to_mapping(contest),
        "protocol": protocol,
        "score": score,
        "done": len(cards),
        "parts": len(parts),
        "contestants": [*ranked, *(entry for entry in entries if not entry["finished"])],
        "held out": _row(held_out, folder) if held_out else None,
        "unsettled": unsettled(ranked),
        "study": STUDY if (folder / STUDY / "study.json").exists() else None,
    }


def _is_judged(part: Part, folder: Path) -> bool:
    return (part.card(folder) / JSON_NAME).exists()


def _entry(
    folder: Path, contest: Contest, contestant: Contestant, cards: Sequence[Judged], score: str | None
) -> dict[str, Any]:
    """Return what is known of a contestant."""
    seeds = []
    for seed in range(contest.seeds):
        points = [
            _row(card, folder) for card in cards if card.part and card.part.contestant == contestant and card.part.seed == seed
        ]
        last = Part(contestant, seed, contestant.points)
        failure = last.training(folder) / FAILURE_NAME
        command = shlex.join(["kinema", *contest.command(last, folder, resume=False)])
        seeds.append(
            {
                "seed": seed,
                "points": points,
                "finished": bool(points) and points[-1]["point"] == contestant.points,
                "failure": json.loads(failure.read_text())["reason"] if failure.exists() else None,
                "command": command,
            }
        )
    finals = [seed["points"][-1] for seed in seeds if seed["finished"]]
    return {
        "name": contestant.name,
        "words": list(contestant.words),
        "finished": len(finals),
        "summary": _summary([final["numbers"] for final in finals]),
        "interval": [f([final["scores"][score][side] for final in finals]) for f, side in ((min, "low"), (max, "high"))]
        if finals
        else None,
        "rank": None,
        "seeds": seeds,
    }


def _row(card: Judged, folder: Path) -> dict[str, Any]:
    return {
        "point": card.part.point if card.part else None,
        "scores": card.report["scores"],
        "numbers": card.numbers(),
        "real": _real_numbers(card.report),
        "machine": card.report["provenance"]["machine"],
        "report": f"{card.folder.relative_to(folder).as_posix()}/{HTML_NAME}",
        "warnings": card.report["warnings"],
    }


def _real_numbers(report: Mapping[str, Any]) -> dict[str, float]:
    """Return what real clips reach: name -> value."""
    found = {name: score["floor"]["mean"] for name, score in report["scores"].items()}
    found |= {"motion, of real": 1.0, "flicker, levels": report["motion"]["flicker of real clips"], "diversity, of real": 1.0}
    if "nearest of held-out" in report["copies"]:
        found["nearest training clip, levels"] = report["copies"]["nearest of held-out"]
    return found


def _summary(rows: Sequence[Mapping[str, float | None]]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation over seeds of every number that all of them have."""
    found: dict[str, dict[str, float | None]] = {}
    for name in rows[0] if rows else ():
        values = [value for row in rows if (value := row.get(name)) is not None]
        if len(values) == len(rows):
            found[name] = {"mean": fmean(values), "spread": stdev(values) if len(values) > 1 else None}
    return found


def _rank(entry: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the best and the worst place that a contestant may have, as far as intervals tell."""
    better = sum(other["interval"][1] < entry["interval"][0] for other in entries)
    worse = sum(other["interval"][0] > entry["interval"][1] for other in entries)
    return [1 + better, len(entries) - worse]


def unsettled(ranked: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Name the pairs whose order is not settled: their intervals, each over all of its seeds, overlap."""
    return [
        [one["name"], other["name"]]
        for number_, one in enumerate(ranked)
        for other in ranked[number_ + 1 :]
        if other["interval"][0] <= one["interval"][1] and one["interval"][0] <= other["interval"][1]
    ]


def finalists(contest: Contest, board: Mapping[str, Any]) -> list[Part]:
    """Return the best contestants, each with the seed that scored best: a choice that is the same for all."""
    parts = []
    for entry in [entry for entry in board["contestants"] if entry["finished"]][: contest.finalists]:
        contestant = next(one for one in contest.contestants if one.name == entry["name"])
        seeds = [seed for seed in entry["seeds"] if seed["finished"]]
        best = min(seeds, key=lambda seed: seed["points"][-1]["scores"][board["score"]]["value"])
        parts.append(Part(contestant, best["seed"], contestant.points))
    return parts


@torch.inference_mode()
def sampling_parameters(system: Any) -> int:
    """Count the parameters of the modules that take part in generating a clip."""
    used: dict[int, int] = {}

    def note(module: nn.Module, *_: object) -> None:
        used.update({id(parameter): parameter.numel() for parameter in module.parameters(recurse=False)})

    hooks = [module.register_forward_pre_hook(note) for module in system.modules()]
    try:
        system.generate([0])
    finally:
        for hook in hooks:
            hook.remove()
    return sum(used.values())


# --- Tables -------------------------------------------------------------------------------------------------------------------

PERCENT = ("motion, of real", "diversity, of real")
COSTS = {
    "minutes": "training, minutes",
    "steps": "steps",
    "clips": "clips seen",
    "process minutes": "with start and looks, minutes",
    "parameters": "parameters",
    "sampling parameters": "of these in sampling",
    "memory": "peak memory, MiB",
    "clips per second": "clips made per second",
}


def quality_columns(board: Mapping[str, Any]) -> list[str]:
    """Return the names of the numbers that say how good clips are."""
    row = board["held out"] or next((point for e in board["contestants"] for s in e["seeds"] for point in s["points"]), None)
    return [name for name in row["numbers"] if name not in COSTS] if row else []


def quality(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of the ranking; held-out clips and the floor are the last two lines."""
    names, lines = quality_columns(board), []
    for entry in board["contestants"]:
        summary = entry["summary"]
        cells = [_mean(name, summary.get(name)) for name in names]
        interval = " to ".join(number(side) for side in entry["interval"]) if entry["interval"] else ""
        lines.append([_place(entry["rank"]), entry["name"], *cells[:1], interval, *cells[1:], _finished(entry, board)])
    real = board["held out"]
    if real is not None:
        cells = [_shown(name, real["numbers"].get(name)) for name in names]
        interval = " to ".join(number(real["scores"][board["score"] or names[0]][side]) for side in ("low", "high"))
        lines.append(["", "held-out real clips", *cells[:1], interval, *cells[1:], ""])
    points = [point for entry in board["contestants"] for seed in entry["seeds"] for point in seed["points"]]
    if points:
        lines.append(["", "floor: real clips", *_floor(points[-1]["real"], names, points[-1]["scores"]), ""])
    return ["rank", "", *names[:1], "95 % interval", *names[1:], "seeds"], lines


def costs(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of what the contestants cost; numbers are means over seeds."""
    lines = []
    for entry in board["contestants"]:
        if entry["summary"]:
            cells = [_cost(name, entry["summary"].get(name)) for name in COSTS]
            lines.append([entry["name"], *cells])
    return ["", *COSTS.values()], lines


def trainings(board: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return a line for each training that was judged at its end."""
    lines = []
    for entry in board["contestants"]:
        for seed in entry["seeds"]:
            if not seed["finished"]:
                continue
            last = seed["points"][-1]
            score = last["scores"][board["score"]]
            lines.append(
                {
                    "name": f"{entry['name']}, seed {seed['seed']}",
                    "value": number(score["value"]),
                    "interval": f"{number(score['low'])} to {number(score['high'])}",
                    "floor": f"{number(score['floor']['mean'])} (N = {score['floor']['count']})",
                    "times": f"{score['times floor']:.3g}" if "times floor" in score else "",
                    "report": last["report"],
                }
            )
    return lines


def failures(board: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each training that failed."""
    return [
        f"{entry['name']}, seed {seed['seed']}: {seed['failure']}"
        for entry in board["contestants"]
        for seed in entry["seeds"]
        if seed["failure"]
    ]


def notes(board: Mapping[str, Any]) -> list[str]:
    """Say what a reader of the ranking has to know."""
    said = [f"The order of {one} and {other} is not settled: their intervals overlap." for one, other in board["unsettled"]]
    contest = board["contest"]
    if board["done"] < board["parts"] and not failures(board):
        said.append(f"Not finished: {board['done']} of {board['parts']} parts are done.")
    if contest["seeds"] == 1:
        said.append("One seed each: how much a training seed changes is not known.")
    elif board["contestants"]:
        said.append("An interval reaches from the lowest to the highest bound over the seeds.")
    if board["done"] and board["held out"] is None:
        said.append("No row of held-out clips: the dataset has fewer in its test split than are judged.")
    return said


def _place(rank: Sequence[int] | None) -> str:
    return "" if rank is None else f"{rank[0]}" if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def _finished(entry: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    failed = sum(seed["failure"] is not None for seed in entry["seeds"])
    return f"{entry['finished']} of {board['contest']['seeds']}" + (f", {failed} failed" if failed else "")


def _mean(name: str, found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return _shown(name, found["mean"]) + (f" ± {_shown(name, found['spread'])}" if found["spread"] is not None else "")


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0%}" if name in PERCENT else number(value)


def _cost(name: str, found: Mapping[str, float | None] | None) -> str:
    if found is None or found["mean"] is None:
        return "-"
    return f"{found['mean']:,.1f}" if name in ("minutes", "process minutes", "clips per second") else f"{found['mean']:,.0f}"


def _floor(real: Mapping[str, float], names: Sequence[str], scores: Mapping[str, Any]) -> list[str]:
    cells = [_shown(name, real.get(name)) for name in names]
    lowest = scores[names[0]]["floor"]
    return [*cells[:1], f"{number(lowest['low'])} to {number(lowest['high'])}", *cells[1:]]


# --- The page -----------------------------------------------------------------------------------------------------------------


def write_board(folder: Path, contest: Contest) -> dict[str, Any]:
    """Write ``leaderboard.json`` and the page; returns what the first holds.

    Raises:
        EvaluationError: see `read_board`.
        MediaError: when a file cannot be written.
    """
    board = read_board(folder, contest)
    page = _template().render(
        board=board,
        name=Path(contest.data).name,
        quality=quality(board),
        costs=costs(board),
        trainings=trainings(board),
        failures=failures(board),
        notes=notes(board),
        plot=plot(board),
        machines=sorted({p["machine"] for e in board["contestants"] for s in e["seeds"] for p in s["points"]}),
        samples=_samples(folder, contest),
    )
    write_json(folder / BOARD_NAME, board)
    with beside(folder / PAGE_NAME) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return board


def plot(board: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the curves of quality against training, ready to be drawn; None where nobody was judged on the way.

    Down is better: the axis begins at zero, so that the distance to the floor is seen as it is.
    """
    timed = board["contest"]["minutes"] is not None
    across = "minutes" if timed else "clips"
    curves = [
        (
            index,
            f"{entry['name']}, seed {seed['seed']}",
            [(p["numbers"][across], p["scores"][board["score"]]) for p in seed["points"]],
        )
        for index, entry in enumerate(board["contestants"])
        for seed in entry["seeds"]
        if seed["points"]
    ]
    if not curves or all(len(points) < 2 for _, _, points in curves):
        return None
    every = [point for _, _, points in curves for point in points]
    end, high = 1.02 * max(x for x, _ in every), 1.05 * max(score["high"] for _, score in every)

    def left(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / end, 1)

    def top(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(y, 0) / high), 1)

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "across": "minutes of training" if timed else "clips seen in training",
        "curves": [
            {
                "colour": index,
                "name": name,
                "line": " ".join(f"{left(x)},{top(score['value'])}" for x, score in points),
                "dots": [
                    {
                        "x": left(x),
                        "y": top(score["value"]),
                        "low": top(score["low"]),
                        "high": top(score["high"]),
                        "words": f"{name}: {number(score['value'])} ({number(score['low'])} to {number(score['high'])}) at {number(x)}",
                    }
                    for x, score in points
                ],
            }
            for index, name, points in curves
        ],
        "floor": top(every[-1][1]["floor"]["mean"]),
        "x_ticks": [(left(x), f"{x:g}") for x in nice_ticks(0, end)],
        "y_ticks": [(top(y), f"{y:g}") for y in nice_ticks(0, high)],
    }


def _samples(folder: Path, contest: Contest) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Return rows of moving clips: real ones and those of every training at its end; and those made on the way, of seed 0."""
    ends, on_the_way = [("real", folder / REAL_NAME)], []
    for part in contest.parts():
        rows = ends if part.point == part.contestant.points else on_the_way
        if rows is ends or part.seed == 0:
            rows.append((part.name, part.card(folder) / CLIPS_NAME))
    return _embedded(ends), _embedded(on_the_way)


def _embedded(rows: Sequence[tuple[str, Path]]) -> list[dict[str, str]]:
    """Return the rows whose file exists, as data URIs, so that the page is one file."""
    return [
        {"name": name, "clips": f"data:image/webp;base64,{base64.b64encode(file.read_bytes()).decode()}"}
        for name, file in rows
        if file.exists()
    ]


@cache
def _template() -> Template:
    loader = PackageLoader("kinema.evaluation", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True).get_template(TEMPLATE)
