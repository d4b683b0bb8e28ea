"""The verb evaluate: a report card of a trained system or of clips, and a table of several cards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kinema.cli.arguments import parse
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError

FILE_WIDTH = 160  # columns of a table that goes into a file
PACKAGED = "efficientnet-lite0+dt"  # repeated from kinema.evaluation.features, which needs torch; a test compares them


@dataclass(frozen=True, kw_only=True)
class Evaluate(Config):
    """Judge a trained system, or clips, against real ones: distances with their floor and spread, motion, copies."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|CLIPS", help_behavior_hint="")] = ""
    """Run directory, checkpoint file or zoo:NAME; or a folder of clip files, an .npy of N T H W 3, or a dataset (its test split
    where there is one)."""
    against: Annotated[Path | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """Prepared dataset with the real clips."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Clips on either side. Default: 256, or as many as there are."""
    seed: int = 0
    """First seed of generated clips, and seed of the drawing of real ones."""
    split: Literal["train", "test", "all"] = "train"
    """Which real clips."""
    features: str = PACKAGED
    """Feature network: the packaged one, or module:attribute for a torch.nn.Module of your own that takes clips B 3 T H W in
    [-1, 1] and returns B D."""
    replicates: int = 100
    """Resamplings behind an interval; 20 at most where more than 512 clips are judged."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for report.json and report.html. Default: evaluation in the run directory, or NAME-evaluation here."""
    compare: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="REPORT...", help_behavior_hint="")] = ()
    """Instead of judging: reports, or their folders, to stand in one table; refused where their protocols differ."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Replace reports that exist."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        self.require(self.seed >= 0, "seed", "0 or more")
        self.require(2 <= self.replicates <= 10_000, "replicates", "from 2 to 10000")
        self.require(self.count is None or self.count >= 1, "count", "at least 1")


def run(arguments: list[str]) -> int:
    """Run ``kinema evaluate``."""
    options = parse(Evaluate, arguments, "evaluate")
    if options.compare:
        return _compare(options)
    if not options.run:
        raise ConfigError("evaluate wants a run or clips, and none is named; or --compare REPORT REPORT")
    if options.against is None:
        raise ConfigError("evaluate wants real clips to judge against; give --against DATA")
    return _judge(options, options.against)


def _judge(options: Evaluate, data: Path) -> int:
    from kinema.cli.trained import open_source
    from kinema.data.dataset import Dataset
    from kinema.evaluation.features import open_features
    from kinema.evaluation.judge import Question, chosen_count, judge, refuse_unlike
    from kinema.evaluation.measures import store_folder
    from kinema.evaluation.report import HTML_NAME, rows, write_reports
    from kinema.training.checkpoint import provenance
    from kinema.training.distributed import choose_device

    device = choose_device(options.device)
    real = Dataset(data, None if options.split == "all" else options.split)
    source = open_source(options.run, options.device)
    folder = _free_folder(options, source.name)
    refuse_unlike(source, real)  # what can be refused is refused before a network is loaded
    chosen_count(source, real, options.count)
    network = open_features(options.features, device)
    question = Question(options.count, options.seed, options.split, options.replicates)
    with _Progress() as progress:
        card = judge(source, data, network, question, store_folder=store_folder(real), said=progress.show)
    report = write_reports(folder, card, provenance())
    title = f"{source.name} against {data}: {report['protocol']['judged clips']} clips each"
    _print(title, ("", "judged", "95% interval", "real clips"), rows(report))
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"report card: {folder / HTML_NAME}")
    return 0


def _free_folder(options: Evaluate, name: str) -> Path:
    """Return where reports go, or refuse a folder that has one."""
    from kinema.evaluation.report import HTML_NAME, JSON_NAME
    from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX

    run = Path(options.run)
    beside_run = run / "evaluation" if (run / CHECKPOINT_NAME).exists() else None
    folder = options.out or beside_run or Path(f"{Path(name.removeprefix(ZOO_PREFIX)).stem}-evaluation")
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"{folder} is a file; --out is a folder for {JSON_NAME} and {HTML_NAME}")
    if not options.overwrite and (taken := next((f for f in (folder / JSON_NAME, folder / HTML_NAME) if f.exists()), None)):
        raise EvaluationError(f"{taken} exists; give another --out, or --overwrite to replace it")
    return folder


def _compare(options: Evaluate) -> int:
    from kinema.evaluation.report import number, read_report, refuse_unequal

    if len(options.compare) < 2:
        raise ConfigError("--compare wants two reports or more")
    reports: Mapping[str, Mapping[str, Any]] = {str(path): read_report(path) for path in options.compare}
    if len(reports) < len(options.compare):
        raise ConfigError("--compare names a report twice; name each once")
    refuse_unequal(reports)
    first = next(iter(reports.values()))
    columns = ["", *(f"{name}" for name in first["scores"]), "motion, of real", "diversity, of real"]
    lines = []
    for name, report in reports.items():
        scores = [f"{number(s['value'])} ({number(s['low'])} to {number(s['high'])})" for s in report["scores"].values()]
        motion = report["motion"]
        shares = (f"{motion['motion against real']:.0%}", f"{motion['diversity against real']:.0%}")
        lines.append((name, *scores, *shares))
    floors = [number(score["floor"]["mean"]) for score in first["scores"].values()]
    _print("one protocol", columns, [*lines, ("floor: real clips", *floors, "100%", "100%")])
    return 0


def _print(title: str, columns: "Sequence[str]", lines: "Sequence[Sequence[str]]") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(Text(column), overflow="fold", no_wrap=number == 0)
    for line in lines:
        table.add_row(*(Text(cell) for cell in line))
    console = Console()
    (console if console.is_terminal else Console(width=FILE_WIDTH)).print(table)


class _Progress:
    """Bars on a terminal, nothing elsewhere."""

    show: Callable[[str, int, int], None]

    def __enter__(self) -> "_Progress":
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._bars.start()
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = self._bars.add_task(what, total=total)
            self._bars.update(tasks[what], completed=done)

        self.show = show
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
