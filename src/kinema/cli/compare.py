"""The verb compare: one budget, many systems, one protocol, one page."""

import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.cli.evaluate import PACKAGED
from kinema.cli.terminal import Progress, print_table
from kinema.core.config import Config
from kinema.core.errors import ConfigError, KinemaError

if TYPE_CHECKING:
    from kinema.data.dataset import Dataset
    from kinema.evaluation.clips import Source
    from kinema.evaluation.compare import Contest, Contestant, Part
    from kinema.evaluation.features import FeatureNetwork
    from kinema.evaluation.judge import Card

USUAL_MINUTES, USUAL_CLIPS = 20.0, 256
SHOWN = 8  # clips of a row of the page


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
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of --features i3d (FVD) or inception (FID), as of kinema evaluate."""
    weights_sha256: Annotated[str | None, tyro.conf.arg(metavar="HEX", help_behavior_hint="")] = None
    """SHA-256 that the weights must have, for a file that kinema does not know."""
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
    """Run ``kinema compare``; returns 1 where a training failed."""
    options = parse(Compare, arguments, "compare")
    contest = plan(options)
    from kinema.evaluation.compare import claimed
    from kinema.evaluation.features import open_features
    from kinema.training.distributed import choose_device

    device, digest = choose_device(contest.device), contest.weights_sha256
    network = open_features(contest.features, device, weights=options.weights, weights_sha256=digest)
    with claimed(options.out, contest, overwrite=options.overwrite), _terminable():
        judge_held_out(contest, options.out, network)
        work(contest, options.out, network)
        return finish(contest, options.out)


# --- The work -----------------------------------------------------------------------------------------------------------------


def work(contest: "Contest", folder: Path, network: "FeatureNetwork") -> None:
    """Train and judge what is not done yet, and keep the page up to date; who fails is left out from then on."""
    from kinema.evaluation import trainings
    from kinema.evaluation.compare import FAILURE_NAME, write_json
    from kinema.evaluation.leaderboard import PAGE_NAME, write_board

    parts = list(contest.parts())
    todo = [part for part in parts if not part.is_judged(folder)]
    print(f"{_budget(contest)}; {len(todo)} of {len(parts)} parts to do; {folder / PAGE_NAME} shows what is done", flush=True)
    failed = set[Path]()
    for part in todo:
        failure = part.training(folder) / FAILURE_NAME
        if failure in failed:
            continue
        failure.unlink(missing_ok=True)
        began = time.monotonic()
        try:
            with Progress() as progress:
                trainings.train(contest, part, folder, progress.show)
                judge_run(contest, part, folder, network, progress.show)
            said = _score(part, folder)
        except (KinemaError, RuntimeError) as error:  # torch says with the latter that memory is used up
            reason = f"{error}".partition("\n")[0] or type(error).__name__
            failed.add(failure)
            said = f"failed: {reason}"
            write_json(failure, {"reason": reason, "point": part.point})
        print(f"{part.name}: {said}; {time.monotonic() - began:.0f} s", flush=True)
        write_board(folder, contest)


def judge_run(
    contest: "Contest", part: "Part", folder: Path, network: "FeatureNetwork", said: Callable[[str, int, int], None]
) -> None:
    """Judge a run at a point: report card, moving clips, and what it cost so far."""
    from kinema.cli.trained import open_source
    from kinema.evaluation.leaderboard import sampling_parameters
    from kinema.evaluation.trainings import cost_of
    from kinema.training import load

    name, clock = str(part.run(folder)), _Clock()
    source = open_source(name, contest.device, Path(contest.data))
    timed = replace(source, name=part.name, read=clock.timing(source.read))
    cost = cost_of(part, folder) | {"sampling parameters": sampling_parameters(load(name))}
    card = _judge(contest, timed, network, said)
    _write_card(part.card(folder), card, cost | {"clips per second": clock.rate})


def judge_held_out(contest: "Contest", folder: Path, network: "FeatureNetwork") -> None:
    """Judge real clips that were held out in the same way, where there are enough of them, and show some."""
    from kinema.evaluation.clips import open_clips
    from kinema.evaluation.compare import HELD_OUT, REAL_NAME
    from kinema.evaluation.report import JSON_NAME
    from kinema.training.health import evenly_spread

    source = open_clips(Path(contest.data))
    count, fps = source.count or 0, source.fps or 0.0
    if not (folder / REAL_NAME).exists():
        # Spread over all, for neighbours are of one piece of footage.
        _write_clips(folder / REAL_NAME, source.read(evenly_spread(count, SHOWN)), fps, None)
    if source.about["split"] != "test" or count < contest.count or (folder / HELD_OUT / JSON_NAME).exists():
        return
    with Progress() as progress:
        card = _judge(contest, replace(source, name="held-out real clips"), network, progress.show)
    _write_card(folder / HELD_OUT, card, {})


def _judge(contest: "Contest", source: "Source", network: "FeatureNetwork", said: Callable[[str, int, int], None]) -> "Card":
    """Judge clips by the protocol of the comparison."""
    from kinema.data.dataset import Dataset
    from kinema.evaluation.judge import Question, judge
    from kinema.evaluation.measures import store_folder

    data = Path(contest.data)
    question = Question(contest.count, contest.seed, "train", contest.replicates)
    return judge(source, data, network, question, store_folder=store_folder(Dataset(data, "train")), said=said)


def _write_card(folder: Path, card: "Card", cost: Mapping[str, Any]) -> None:
    """Write a report card and clips; the card last, for it says that a part is done."""
    from kinema.evaluation.compare import CLIPS_NAME
    from kinema.evaluation.page import made_of
    from kinema.evaluation.report import write_reports
    from kinema.training.checkpoint import provenance

    folder.mkdir(parents=True, exist_ok=True)
    _write_clips(folder / CLIPS_NAME, card.judged[:SHOWN], card.report["protocol"]["fps"], made_of(card.report["judged"]))
    write_reports(folder, card, {**provenance(), "cost": dict(cost)})


def _write_clips(file: Path, clips: Sequence[Any], fps: float, made: str | None) -> None:
    """Write clips as one row that moves, and says what made them unless they are real."""
    from kinema.data.encode import write_video
    from kinema.data.tags import generated_tags
    from kinema.training.sheets import grid

    write_video(file, grid(clips, len(clips)), fps, metadata=generated_tags(made) if made else None)


def finish(contest: "Contest", folder: Path) -> int:
    """Make the study, write the page a last time and show the ranking; returns 1 where a training failed."""
    from kinema.evaluation.leaderboard import PAGE_NAME, costs, failures, notes, quality, write_board

    board = write_board(folder, contest)
    if contest.finalists and board["study"] is None:
        make_study(contest, folder, board)
        board = write_board(folder, contest)
    head, lines = quality(board)
    short = [name.partition("[")[0] for name in head]
    print_table(f"{contest.data}: {_budget(contest)}; ranked by {board['score']}", short, lines)
    print_table("what they cost", *costs(board))
    for sentence in (*notes(board), *(f"failed: {failure}" for failure in failures(board))):
        print(f"note: {sentence}")
    print(f"leaderboard: {folder / PAGE_NAME}")
    return 1 if failures(board) else 0


def make_study(contest: "Contest", folder: Path, board: Mapping[str, Any]) -> None:
    """Make a study of the best contestants, each with its best seed, and real clips."""
    from kinema.cli import study
    from kinema.evaluation.compare import STUDY
    from kinema.evaluation.leaderboard import finalists

    best = finalists(contest, board)
    if not best:
        return
    if (folder / STUDY).exists():  # without study.json it is half of one
        shutil.rmtree(folder / STUDY)
    systems = [f"{re.sub('[=/]', '-', part.contestant.name)[:40]}={part.run(folder)}" for part in best]
    words = [*systems, f"real={contest.data}", "--out", str(folder / STUDY), "--device", contest.device]
    print(f"study of the best: {shlex.join(['kinema', 'study', 'create', *words])}")
    try:
        study.create(words)
    except KinemaError as error:  # a comparison is no less one without it
        print(f"note: no study was made: {error}")


class _Clock:
    """Measures how fast clips are made."""

    def __init__(self) -> None:
        self.seconds, self.made = 0.0, set[int]()

    def timing(self, read: Callable[[Sequence[int]], list[Any]]) -> Callable[[Sequence[int]], list[Any]]:
        def timed(indices: Sequence[int]) -> list[Any]:
            if self.made.issuperset(indices):  # what took many steps is remembered, and would count as made in no time
                return read(indices)
            began = time.perf_counter()
            clips = read(indices)
            self.seconds += time.perf_counter() - began
            self.made.update(indices)
            return clips

        return timed

    @property
    def rate(self) -> float:
        """Clips per second."""
        return len(self.made) / max(self.seconds, 1e-9)


def _score(part: "Part", folder: Path) -> str:
    """Say the score of a report card."""
    from kinema.evaluation.report import number, read_report

    name, score = next(iter(read_report(part.card(folder))["scores"].items()))
    return f"{name} {number(score['value'])} ({number(score['low'])} to {number(score['high'])})"


def _budget(contest: "Contest") -> str:
    """Say the budget."""
    each = f"{contest.minutes:g} minutes" if contest.minutes else f"{contest.clips_seen:,} clips seen"
    many = f"{len(contest.contestants)} contestants" if len(contest.contestants) > 1 else "1 contestant"
    return f"{many}, {contest.seeds} training seed{'' if contest.seeds == 1 else 's'} of {each} each"


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
        weights=str(options.weights) if options.weights else None,
        weights_sha256=options.weights_sha256,
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
    from kinema.evaluation.compare import Part, read_options
    from kinema.evaluation.judge import chosen_count, refuse_unlike
    from kinema.training.misfit import refuse_misfit

    system, *own = contestant.words
    preset = [] if given(own, "--preset") else ["--preset", options.preset]
    complete = replace(contestant, words=(system, *preset, *read_options("--options", options.options), *own))
    try:
        wanted = read_plan(contest.command(Part(complete, 0, 1), Path("run"), resume=False)[1:])
        made = wanted.system(wanted.config)
        refuse_unable(made, ["generate", "diffuse"])
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
