"""The verb compare: one budget, many systems, one protocol, one page."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError, KinemaError

if TYPE_CHECKING:
    from kinema.data.dataset import Dataset
    from kinema.evaluation.clips import Source
    from kinema.evaluation.compare import Contest, Contestant, Part
    from kinema.evaluation.features import FeatureNetwork

PACKAGED = "efficientnet-lite0+dt"  # repeated from kinema.evaluation.features, which needs torch; a test compares them
USUAL_MINUTES, USUAL_CLIPS = 20.0, 256
COSTS_NAME = "costs.jsonl"  # beside a run: seconds and memory of every session
SHOWN = 8  # clips of a row of the page
LOOK_SECONDS = 0.5  # between two looks at a training that runs
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit statuses of a training that somebody stopped."""


@dataclass(frozen=True, kw_only=True)
class Compare(Config):
    """Train several systems with one budget, judge them by one protocol and rank them, with what they cost.

    The same command goes on where it was stopped.
    """

    data: Annotated[Path, tyro.conf.arg(metavar="DATA")]
    """Prepared dataset."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder for everything that is made."""
    systems: Annotated[str, tyro.conf.arg(metavar="A,B,...", help_behavior_hint="")] = ""
    """Contestants: SYSTEM[:VARIANT][@PRESET] with commas between them, such as vgan:two-stream,vgan:one-stream@small-data."""
    contestant: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME='SYSTEM ...'", help_behavior_hint="")
    ] = ()
    """A contestant with any options of kinema train, such as wide='vgan --width 48'; may be given several times."""
    options: Annotated[str, tyro.conf.arg(metavar="'...'", help_behavior_hint="")] = ""
    """Options of kinema train for every contestant, such as --options='--frames 16 --flip'."""
    preset: str = "laptop"
    """Preset of contestants that name none."""
    minutes: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Minutes of training for every contestant and seed. Default: 20, unless --clips-seen is given."""
    clips_seen: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Instead of minutes: clips that every contestant sees in training."""
    seeds: int = 2
    """Trainings of every contestant."""
    points: int = 3
    """Judge after so many equal slices of the budget, for quality against time; 1 judges only the end."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Clips on either side of a judgement. Default: 256, or as many as there are."""
    seed: int = 0
    """Of judging: first seed of generated clips, and seed of the drawing of real ones."""
    features: str = PACKAGED
    """Feature network, as of kinema evaluate."""
    replicates: int = 100
    """Resamplings behind an interval."""
    finalists: int = 2
    """Contestants in the study for people; 0 makes none."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Begin anew and lose the comparison in --out."""

    def check(self) -> None:
        """Refuse what is no number of points."""
        self.require(1 <= self.points <= 100, "points", "from 1 to 100")


def run(arguments: list[str]) -> int:
    """Run ``kinema compare``."""
    options = parse(Compare, arguments, "compare")
    contest = plan(options)
    from kinema.evaluation.compare import PLAN_NAME, claim
    from kinema.evaluation.features import open_features
    from kinema.training import runlog
    from kinema.training.distributed import choose_device

    network = open_features(contest.features, choose_device(contest.device))
    claim(options.out, contest, overwrite=options.overwrite)
    with (options.out / PLAN_NAME).open("rb") as file, _terminable():
        runlog.hold(file)
        for part in contest.parts():  # of a comparison that was killed, a training may still run
            runlog.refuse_busy(part.run(options.out))
        return _compare(contest, options.out, network)


# --- The work -----------------------------------------------------------------------------------------------------------------


def _compare(contest: "Contest", folder: Path, network: "FeatureNetwork") -> int:
    """Do what is not done yet, and keep the page up to date."""
    from kinema.cli.evaluate import Progress
    from kinema.evaluation.compare import FAILURE_NAME, write_json
    from kinema.evaluation.leaderboard import PAGE_NAME, write_board
    from kinema.evaluation.report import JSON_NAME

    todo = [part for part in contest.parts() if not (part.card(folder) / JSON_NAME).exists()]
    print(
        f"{len(todo)} of {len(list(contest.parts()))} parts to do: {_budget(contest)}; {folder / PAGE_NAME} shows what is done"
    )
    _judge_held_out(contest, folder, network)
    failed = set[Path]()
    for part in todo:
        failure = part.training(folder) / FAILURE_NAME
        if failure in failed:
            continue
        failure.unlink(missing_ok=True)
        began = time.monotonic()
        try:
            with Progress() as progress:
                train(contest, part, folder, progress.show)
                judge_run(contest, part, folder, network, progress.show)
            print(f"{part.name}: {_summary_of(part, folder)}, {time.monotonic() - began:.0f} s", flush=True)
        except KinemaError as error:
            failed.add(failure)
            write_json(failure, {"reason": str(error), "point": part.point})
            print(f"{part.name}: failed. {error}", flush=True)
        write_board(folder, contest)
    return _finish(contest, folder)


def train(contest: "Contest", part: "Part", folder: Path, said: Callable[[str, int, int], None]) -> None:
    """Train up to a point in a process of its own, going on with what is there; what it cost is kept beside the run.

    Raises:
        EvaluationError: why it failed.
        KeyboardInterrupt: when somebody stopped it.
    """
    from kinema.evaluation.compare import LOG_NAME
    from kinema.training import runlog

    if _is_trained(contest, part, folder):
        return
    part.training(folder).mkdir(parents=True, exist_ok=True)
    words = contest.command(part, folder, resume=(part.run(folder) / runlog.CONFIG_NAME).is_file())
    log = part.training(folder) / LOG_NAME
    before, began, memory = log.stat().st_size if log.exists() else 0, time.monotonic(), None
    try:
        status, memory = in_own_process(words, log, lambda: said(f"training {part.name}", *_progress(contest, part, folder)))
    finally:
        _note_cost(part, folder, time.monotonic() - began, memory)
    if status in STOPPED:
        raise KeyboardInterrupt
    if status != 0:
        raise EvaluationError(reason(log.read_bytes()[before:].decode(errors="replace"), status))


def reason(said: str, status: int) -> str:
    """Return in one sentence why a training failed: its own last words, or the signal that ended it."""
    if status < 0:
        killed = f"the training was killed by {signal.Signals(-status).name}"
        return f"{killed}; was there too little memory?" if -status == signal.SIGKILL else killed
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    own = [line.removeprefix("kinema: ") for line in lines if line.startswith("kinema: ")]
    return (own or lines or [f"the training ended with status {status}"])[-1]


def in_own_process(words: Sequence[str], log: Path, meanwhile: Callable[[], None]) -> tuple[int, float | None]:
    """Run ``kinema`` with words; a failure, or its memory, is then nobody else's.

    Args:
        words: after ``kinema``.
        log: takes what it says.
        meanwhile: called again and again while it runs.

    Returns:
        Exit status, negative where a signal ended it, and the greatest memory that it held in MiB, where the system tells.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kinema", *words], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    try:
        while (ended := _ended(process)) is None:
            meanwhile()
            time.sleep(LOOK_SECONDS)
        return ended
    except BaseException:
        if process.returncode is None:
            process.terminate()  # it saves and ends; a Ctrl-C that it got as well does no harm
            process.wait()
        raise


def _ended(process: "subprocess.Popen[bytes]") -> tuple[int, float | None] | None:
    """Return how a process ended and its memory, or None while it runs."""
    if not hasattr(os, "wait4"):
        status = process.poll()
        return None if status is None else (status, None)
    number, status, usage = os.wait4(process.pid, os.WNOHANG)
    if not number:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def judge_run(
    contest: "Contest", part: "Part", folder: Path, network: "FeatureNetwork", said: Callable[[str, int, int], None]
) -> None:
    """Judge a run at a point: report card, moving clips, and what it cost so far."""
    from kinema.cli.trained import open_source
    from kinema.evaluation.leaderboard import sampling_parameters
    from kinema.training import load

    name, clock = str(part.run(folder)), _Clock()
    source = open_source(name, contest.device)
    timed = replace(source, name=part.name, read=clock.timing(source.read))
    cost = _cost(part, folder) | {"sampling parameters": sampling_parameters(load(name))}
    _judge(contest, timed, part.card(folder), network, said, cost, clock)


def _judge_held_out(contest: "Contest", folder: Path, network: "FeatureNetwork") -> None:
    """Judge real clips that were held out in the same way, where there are enough of them."""
    from kinema.cli.evaluate import Progress
    from kinema.evaluation.clips import open_clips
    from kinema.evaluation.compare import HELD_OUT, REAL_NAME
    from kinema.evaluation.report import JSON_NAME

    source = open_clips(Path(contest.data))
    if not (folder / REAL_NAME).exists():
        _write_clips(folder / REAL_NAME, source.read(range(min(SHOWN, source.count or 0))), source.fps or 0)
    enough = source.about["split"] == "test" and (source.count or 0) >= contest.count
    if enough and not (folder / HELD_OUT / JSON_NAME).exists():
        with Progress() as progress:
            _judge(contest, replace(source, name="held-out real clips"), folder / HELD_OUT, network, progress.show, {}, None)


def _judge(
    contest: "Contest",
    source: "Source",
    folder: Path,
    network: "FeatureNetwork",
    said: Callable[[str, int, int], None],
    cost: dict[str, Any],
    clock: "_Clock | None",
) -> None:
    """Write a report card and the clips beside it; the card last, for it says that a part is done."""
    from kinema.data.dataset import Dataset
    from kinema.evaluation.compare import CLIPS_NAME
    from kinema.evaluation.judge import Question, judge
    from kinema.evaluation.measures import store_folder
    from kinema.evaluation.report import write_reports
    from kinema.training.checkpoint import provenance

    data = Path(contest.data)
    question = Question(contest.count, contest.seed, "train", contest.replicates)
    card = judge(source, data, network, question, store_folder=store_folder(Dataset(data, "train")), said=said)
    if clock:
        cost |= {"clips per second": clock.rate}
    folder.mkdir(parents=True, exist_ok=True)
    _write_clips(folder / CLIPS_NAME, card.judged[:SHOWN], card.report["protocol"]["fps"])
    write_reports(folder, card, {**provenance(), "cost": cost})


def _write_clips(file: Path, clips: Sequence[Any], fps: float) -> None:
    from kinema.data.encode import write_video
    from kinema.training.sheets import grid

    write_video(file, grid(clips, len(clips)), fps)


def _finish(contest: "Contest", folder: Path) -> int:
    """Make the study, write the page a last time and show the ranking; returns 1 where a training failed."""
    from kinema.cli.evaluate import print_table
    from kinema.evaluation.leaderboard import PAGE_NAME, costs, failures, notes, quality, write_board

    board = write_board(folder, contest)
    if contest.finalists and board["study"] is None:
        _make_study(contest, folder, board)
        board = write_board(folder, contest)
    print_table(f"ranking on {contest.data}: {_budget(contest)}", *quality(board))
    print_table("what they cost", *costs(board))
    for sentence in (*notes(board), *(f"failed: {failure}" for failure in failures(board))):
        print(f"note: {sentence}")
    print(f"leaderboard: {folder / PAGE_NAME}")
    return 1 if failures(board) else 0


def _make_study(contest: "Contest", folder: Path, board: dict[str, Any]) -> None:
    """Make a study of the best contestants, each with its best seed, and real clips."""
    from kinema.cli import study
    from kinema.evaluation.compare import STUDY
    from kinema.evaluation.leaderboard import finalists

    best = finalists(contest, board)
    if not best:
        return
    words = [f"{part.contestant.name.replace('=', '-').replace('/', '-')[:40]}={part.run(folder)}" for part in best]
    command = [*words, f"real={contest.data}", "--out", str(folder / STUDY), "--device", contest.device]
    print(f"study of the best: {shlex.join(['kinema', 'study', 'create', *command])}")
    try:
        study.create(command)
    except KinemaError as error:  # a comparison is no less one without it
        print(f"note: no study was made: {error}")


# --- What is known of a training ----------------------------------------------------------------------------------------------


def _is_trained(contest: "Contest", part: "Part", folder: Path) -> bool:
    """Tell whether a run has used its budget up to a point."""
    from kinema.training import runlog

    if not (part.run(folder) / runlog.CONFIG_NAME).is_file():
        return False
    kind, amount = contest.budget(part)
    lines = runlog.read_metrics(part.run(folder))
    ended = bool(lines) and lines[-1].get("end") == "finished"
    return ended and runlog.read_description(part.run(folder)).training[kind] == amount


def _progress(contest: "Contest", part: "Part", folder: Path) -> tuple[int, int]:
    """Return seconds or steps done, and those of the budget up to a point."""
    from kinema.training import runlog

    kind, amount = contest.budget(part)
    lines = [line for line in runlog.read_metrics(part.run(folder)) if "seconds" in line]
    done = lines[-1] if lines else {"seconds": 0, "step": 0}
    return (int(done["seconds"]), round(60 * amount)) if kind == "minutes" else (done["step"], round(amount))


def _note_cost(part: "Part", folder: Path, seconds: float, memory: float | None) -> None:
    """Keep what a session cost, whatever its end."""
    with (part.training(folder) / COSTS_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"seconds": round(seconds, 2), "memory": memory}) + "\n")


def _cost(part: "Part", folder: Path) -> dict[str, Any]:
    """Return what a training has cost so far."""
    from kinema.training import runlog

    run_folder, costs = part.run(folder), part.training(folder) / COSTS_NAME
    sessions = [json.loads(line) for line in costs.read_text(encoding="utf-8").splitlines()] if costs.exists() else []
    last = [line for line in runlog.read_metrics(run_folder) if "seconds" in line][-1]
    description = runlog.read_description(run_folder)
    return {
        "minutes": last["seconds"] / 60,
        "steps": last["step"],
        "clips": last["step"] * description.training["batch_size"],
        "process minutes": sum(session["seconds"] for session in sessions) / 60,
        "memory": max((session["memory"] for session in sessions if session["memory"]), default=None),
        "parameters": description.weights,
    }


class _Clock:
    """Measures how fast clips are made."""

    def __init__(self) -> None:
        self.seconds, self.clips = 0.0, 0

    def timing(self, read: Callable[[Sequence[int]], list[Any]]) -> Callable[[Sequence[int]], list[Any]]:
        def timed(indices: Sequence[int]) -> list[Any]:
            began = time.perf_counter()
            clips = read(indices)
            self.seconds, self.clips = self.seconds + time.perf_counter() - began, self.clips + len(clips)
            return clips

        return timed

    @property
    def rate(self) -> float:
        """Clips per second."""
        return self.clips / max(self.seconds, 1e-9)


def _summary_of(part: "Part", folder: Path) -> str:
    """Say the score of a report card."""
    from kinema.evaluation.report import number, read_report

    name, score = next(iter(read_report(part.card(folder))["scores"].items()))
    return f"{name} {number(score['value'])} ({number(score['low'])} to {number(score['high'])})"


def _budget(contest: "Contest") -> str:
    """Say the budget."""
    each = f"{contest.minutes:g} minutes" if contest.minutes else f"{contest.clips_seen:,} clips seen"
    return f"{len(contest.contestants)} x {contest.seeds} trainings of {each}"


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that a training that runs is told."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- From the command line to a plan ------------------------------------------------------------------------------------------


def plan(options: Compare) -> "Contest":
    """Return the plan, after refusing whatever can be refused before anything is trained.

    Raises:
        ConfigError: for contestants, options or budgets that do not exist.
        KinemaError: for a contestant that does not fit the data, or a dataset that cannot be used.
    """
    from kinema.data.dataset import Dataset
    from kinema.evaluation.compare import Contest, read_contestants
    from kinema.systems import SYSTEMS

    contestants = read_contestants(options.systems, options.contestant, list(SYSTEMS))
    timed = options.minutes is None and options.clips_seen is None
    everything, training = Dataset(options.data), Dataset(options.data, "train")
    contest = Contest(
        data=str(options.data),
        dataset=everything.fingerprint,
        contestants=tuple(contestants),
        minutes=USUAL_MINUTES if timed else options.minutes,
        clips_seen=options.clips_seen,
        seeds=options.seeds,
        count=min(USUAL_CLIPS, len(training)) if options.count is None else options.count,
        seed=options.seed,
        features=options.features,
        replicates=options.replicates,
        finalists=options.finalists,
        device=options.device,
    )
    return replace(contest, contestants=tuple(_fitting(one, options, contest, training) for one in contestants))


def _fitting(contestant: "Contestant", options: Compare, contest: "Contest", training: "Dataset") -> "Contestant":
    """Return a contestant with all of its options, or refuse it as `kinema train` and `kinema evaluate` would."""
    from kinema.cli.train import given, read_plan
    from kinema.cli.trained import refuse_unable
    from kinema.core.system import Fit
    from kinema.evaluation.clips import PIXELS, Source
    from kinema.evaluation.compare import Part
    from kinema.evaluation.judge import chosen_count, refuse_unlike
    from kinema.training.run import refuse_misfit

    system, *own = contestant.words
    preset = [] if given(own, "--preset") else ["--preset", options.preset]
    complete = replace(contestant, words=(system, *preset, *shlex.split(options.options), *own))
    try:
        wanted = read_plan(contest.command(Part(complete, 0, 1), Path("run"), resume=False)[1:])
        made = wanted.system(wanted.config)
        refuse_unable(made, "generate")
        refuse_misfit(training, made)
        source = Source(contestant.name, made.clip_shape, None, PIXELS, None, lambda seeds: [])
        refuse_unlike(source, training)
        chosen_count(source, training, contest.count)
    except KinemaError as error:
        raise ConfigError(f"{contestant.name}: {error}") from None
    # Where stages share a budget, or learning rates fall towards its end, a budget in slices is another one.
    divisible = (
        sum(not isinstance(stage, Fit) for stage in made.stages().values()) == 1 and wanted.training.schedule == "constant"
    )
    return replace(complete, points=options.points if divisible else 1, batch_size=wanted.training.batch_size)
