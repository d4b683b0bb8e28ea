"""What came out of a comparison: a ranking that says where it is not settled, costs, and a page with moving samples."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from torch import nn

import kinema
from kinema.core.config import to_mapping
from kinema.core.tasks import abilities
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
from kinema.evaluation.page import embedded, template
from kinema.evaluation.report import HTML_NAME, JSON_NAME, number, read_report, refuse_unequal
from kinema.training.checkpoint import provenance
from kinema.training.report import nice_ticks

BOARD_NAME, PAGE_NAME, TEMPLATE = "leaderboard.json", "index.html", "leaderboard.html.jinja"
WIDTH, HEIGHT, LEFT, BOTTOM, RIGHT, TOP = 760, 320, 56, 34, 16, 12  # of the plot and its margins, in pixels


# --- What is known ------------------------------------------------------------------------------------------------------------


def read_board(folder: Path, contest: Contest) -> dict[str, Any]:
    """Return everything that is known so far, as JSON values; what ``leaderboard.json`` holds.

    Args:
        folder: of the comparison.
        contest: its plan.

    Raises:
        EvaluationError: for a damaged report card, or cards of unequal protocols.
    """
    parts = list(contest.parts())
    cards = {part.card(folder): read_report(part.card(folder)) for part in parts if part.is_judged(folder)}
    real = folder / HELD_OUT
    everything = cards | ({real: read_report(real)} if (real / JSON_NAME).exists() else {})
    if everything:
        refuse_unequal({str(card): report for card, report in everything.items()})
    first = next(iter(everything.values()), None)
    score = next(iter(first["scores"])) if first else None
    rows = {card: _row(card.relative_to(folder), report) for card, report in everything.items()}
    entries = [_entry(folder, contest, contestant, rows, score) for contestant in contest.contestants]
    ranked = sorted((entry for entry in entries if entry["finished"]), key=lambda entry: entry["summary"][score]["mean"])
    for entry in ranked:
        entry["rank"] = _rank(entry, ranked)
    return {
        "format_version": FORMAT_VERSION,
        "kinema": kinema.__version__,
        "contest": to_mapping(contest),
        "protocol": first["protocol"] if first else {},
        "score": score,
        "done": len(cards),
        "parts": len(parts),
        "contestants": [*ranked, *(entry for entry in entries if not entry["finished"])],
        "held out": rows.get(real),
        "unsettled": unsettled(ranked),
        "study": STUDY if (folder / STUDY / "study.json").exists() else None,
        "provenance": provenance(),
    }


def _entry(
    folder: Path, contest: Contest, contestant: Contestant, rows: Mapping[Path, Mapping[str, Any]], score: str | None
) -> dict[str, Any]:
    """Return what is known of a contestant: every training, and what its finished ones say together."""
    seeds = []
    for seed in range(contest.seeds):
        parts = [Part(contestant, seed, point) for point in range(1, contestant.points + 1)]
        failure = parts[-1].training(folder) / FAILURE_NAME
        points = [{"point": part.point, **rows[part.card(folder)]} for part in parts if part.card(folder) in rows]
        seeds.append(
            {
                "seed": seed,
                "points": points,
                "finished": parts[-1].card(folder) in rows,
                "failure": json.loads(failure.read_text(encoding="utf-8"))["reason"] if failure.exists() else None,
                "command": shlex.join(["kinema", *contest.command(parts[-1], folder, resume=False)]),
            }
        )
    finals = [seed["points"][-1] for seed in seeds if seed["finished"]]
    scores = [final["scores"][score] for final in finals]
    return {
        "name": contestant.name,
        "words": list(contestant.words),
        "finished": len(finals),
        "rank": None,
        "interval": [min(s["low"] for s in scores), max(s["high"] for s in scores)] if scores else None,
        "summary": _summary([final["numbers"] | final["cost"] for final in finals]),
        "seeds": seeds,
    }


def _row(card: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a leaderboard takes from a report card: what contestants are compared by, and what real clips reach."""
    motion, copies = report["motion"], report["copies"]
    made = {name: score["value"] for name, score in report["scores"].items()}
    real = {name: score["floor"]["mean"] for name, score in report["scores"].items()}
    made |= {"motion": motion["motion against real"], "flicker": motion["flicker"]}
    real |= {"motion": 1.0, "flicker": motion["flicker of real clips"]}
    made["diversity"], real["diversity"] = motion["diversity against real"], 1.0
    made["nearest"] = copies.get("nearest")
    real["nearest"] = copies.get("nearest of held-out")
    return {
        "scores": report["scores"],
        "numbers": made,
        "real": real,
        "cost": report["provenance"].get("cost", {}),
        "machine": report["provenance"]["machine"],
        "warnings": report["warnings"],
        "report": (card / HTML_NAME).as_posix(),
    }


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
        if "diffuse" in abilities(system):  # every step takes the same modules
            system.diffuse([0], sampling=replace(system.sampling, steps=1))
        else:
            system.generate([0])
    finally:
        for hook in hooks:
            hook.remove()
    return sum(used.values())


# --- Tables -------------------------------------------------------------------------------------------------------------------

PERCENT = ("motion", "diversity")
COSTS = {
    "minutes": "minutes",
    "steps": "steps",
    "clips": "clips seen",
    "process minutes": "minutes in all",
    "parameters": "parameters",
    "sampling parameters": "in sampling",
    "memory": "peak MiB",
    "device memory": "peak MiB of GPU",
    "clips per second": "clips/s",
}


def quality(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of the ranking; below it what held-out clips score, and the floor."""
    points = [point for entry in board["contestants"] for seed in entry["seeds"] for point in seed["points"]]
    known = [*points, *([board["held out"]] if board["held out"] else [])]
    if not known:
        return [], []
    names, score = list(known[0]["numbers"]), board["score"]

    def line(name: str, rank: str, cells: Sequence[str], bounds: Sequence[float] | None, seeds: str) -> list[str]:
        interval = "-" if bounds is None else f"{number(bounds[0])} to {number(bounds[1])}"
        return [name, rank, cells[0], interval, *cells[1:], seeds]

    lines = [
        line(
            entry["name"],
            _place(entry["rank"]),
            [_mean(name, entry["summary"].get(name)) for name in names],
            entry["interval"],
            _finished(entry, board),
        )
        for entry in board["contestants"]
    ]
    if held_out := board["held out"]:
        bounds = [held_out["scores"][score][side] for side in ("low", "high")]
        lines.append(line("held-out real clips", "", [_shown(name, held_out["numbers"][name]) for name in names], bounds, ""))
    lowest = known[0]["scores"][score]["floor"]
    cells = [_shown(name, known[0]["real"][name]) for name in names]
    lines.append(line("floor: real clips", "", cells, [lowest["low"], lowest["high"]], ""))
    return ["", "rank", *names[:1], "95 % interval", *names[1:], "seeds"], lines


def costs(board: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return head and lines of what the contestants cost; numbers are means over seeds, and what nobody has is left out."""
    entries = [entry for entry in board["contestants"] if entry["summary"]]
    names = [name for name in COSTS if any(name in entry["summary"] for entry in entries)]
    lines = [[entry["name"], *(_cost(name, entry["summary"].get(name)) for name in names)] for entry in entries]
    return ["", *(COSTS[name] for name in names)], lines


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
    if board["done"] and contest["seeds"] == 1:
        said.append("One seed each: how much a training seed changes is not known.")
    elif board["done"]:
        said.append("An interval reaches from the lowest to the highest bound over the seeds.")
    if board["done"] and board["held out"] is None:
        said.append("No row of held-out clips: the dataset has fewer in its test split than are judged.")
    return said + _warnings(board)


def _warnings(board: Mapping[str, Any]) -> list[str]:
    """Return what the report cards of finished trainings say, each once; what not all of them say, with names."""
    ends = {
        f"{entry['name']}, seed {seed['seed']}": seed["points"][-1]["warnings"]
        for entry in board["contestants"]
        for seed in entry["seeds"]
        if seed["finished"]
    }
    sentences = dict.fromkeys(sentence for warnings in ends.values() for sentence in warnings)
    names = {sentence: [name for name, warnings in ends.items() if sentence in warnings] for sentence in sentences}
    return [s if len(names[s]) == len(ends) else f"{'; '.join(names[s])}: {s}" for s in sentences]


def _place(rank: Sequence[int] | None) -> str:
    return "" if rank is None else f"{rank[0]}" if rank[0] == rank[1] else f"{rank[0]}-{rank[1]}"


def _finished(entry: Mapping[str, Any], board: Mapping[str, Any]) -> str:
    failed = sum(seed["failure"] is not None for seed in entry["seeds"])
    return f"{entry['finished']} of {board['contest']['seeds']}" + (f", {failed} failed" if failed else "")


def _mean(name: str, found: Mapping[str, float | None] | None) -> str:
    if found is None:
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


# --- The page -----------------------------------------------------------------------------------------------------------------


def write_board(folder: Path, contest: Contest) -> dict[str, Any]:
    """Write ``leaderboard.json`` and the page; returns what the first holds.

    Raises:
        EvaluationError: see `read_board`.
        MediaError: when a file cannot be written.
    """
    board = read_board(folder, contest)
    page = template(TEMPLATE).render(
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
        command=shlex.join(["kinema", *board["provenance"]["command"][1:]]),
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
        (place, f"{entry['name']}, seed {seed['seed']}", seed["points"])
        for place, entry in enumerate(board["contestants"])
        for seed in entry["seeds"]
        if seed["points"]
    ]
    every = [point for _, _, points in curves for point in points]
    if all(len(points) < 2 for _, _, points in curves):
        return None
    end = 1.02 * max(point["cost"][across] for point in every)
    high = 1.05 * max(point["scores"][board["score"]]["high"] for point in every)

    def left(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / end, 1)

    def top(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - max(y, 0) / high), 1)

    def dot(name: str, point: Mapping[str, Any]) -> dict[str, Any]:
        x, score = point["cost"][across], point["scores"][board["score"]]
        low, value, most = (score[side] for side in ("low", "value", "high"))
        words = f"{name}: {number(value)} ({number(low)} to {number(most)}) at {number(x)} {across}"
        return {"x": left(x), "y": top(value), "low": top(low), "high": top(most), "words": words}

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "right": WIDTH - RIGHT,
        "bottom": HEIGHT - BOTTOM,
        "across": "minutes of training" if timed else "clips seen in training",
        "curves": [{"colour": place, "dots": [dot(name, point) for point in points]} for place, name, points in curves],
        "floor": top(every[-1]["scores"][board["score"]]["floor"]["mean"]),
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
    return [{"name": name, "clips": embedded(file)} for name, file in rows if file.exists()]
