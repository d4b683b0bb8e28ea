"""The verb probe: are a run's features good for recognition with few labels?"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kinema.cli.arguments import parse
from kinema.cli.terminal import print_table
from kinema.evaluation.probe_settings import ProbeSettings

if TYPE_CHECKING:
    from kinema.evaluation.probe import Cell, Outcome, Probe


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Probe the features of a trained discriminator or encoder with few labels.

    Four ways to recognise the classes of DATA - random initialisation, logistic regression on the features of an untrained
    network, the same on those of the run, and fine-tuning of the run - with all labels, 1/2, 1/4, 1/8 and 1/16 of them, tested
    on groups (people) that are held out.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]
    """Run directory, checkpoint file or zoo:NAME."""
    data: Annotated[Path, tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """Prepared dataset with labels and, so that people can be held out, groups."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
    """Folder for report.html, report.json and what is done so far; the same command goes on there after a stop."""
    settings: tyro.conf.OmitArgPrefixes[ProbeSettings] = field(default_factory=ProbeSettings)
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    overwrite: bool = False
    """Begin anew in --out and lose the probe that is there."""


def run(arguments: list[str]) -> int:
    """Run ``kinema probe``."""
    options = parse(Arguments, arguments, "probe")
    from kinema.evaluation.labelled import described, open_labelled
    from kinema.evaluation.probe import Probe, open_pretrained
    from kinema.training.distributed import choose_device

    device = choose_device(options.device)
    pretrained, clips = open_pretrained(options.run), open_labelled(options.data)
    probe = Probe(pretrained, clips, options.settings, options.out, device=device, overwrite=options.overwrite)
    print(f"{options.run}, {pretrained.about['part']}: checkpoint {pretrained.about['checkpoint sha256'][:16]}")
    for held_out in dict.fromkeys(described(clips, division) for division in probe.divisions):
        print(f"held out: {held_out}", flush=True)
    try:
        report = _answer(probe)
    except KeyboardInterrupt:
        print(f"kinema: what is done is kept in {options.out}; the same command goes on from there", file=sys.stderr)
        raise
    _print(report, options.out)
    return 0


def _answer(probe: "Probe") -> dict[str, Any]:
    """Compute every cell, or read what is stored of it; the reports are written after every whole seed."""
    from kinema.evaluation.probe import Cell, Outcome
    from kinema.evaluation.probe_report import summarise, write_reports
    from kinema.training.checkpoint import provenance

    outcomes: dict[Cell, Outcome] = {}
    report: dict[str, Any] = {}
    cells = probe.cells()
    with _Progress(probe, len(cells)) as progress:
        for number, (cell, outcome) in enumerate(probe.run(progress.show), 1):
            outcomes[cell] = outcome
            progress.advance(cell, outcome)
            if number == len(cells) or cells[number].seed != cell.seed:
                report = summarise(probe, outcomes, provenance())
                write_reports(probe.folder, report)
    return report


def _print(report: dict[str, Any], folder: Path) -> None:
    """Print accuracies per clip and per video, and what they say."""
    from kinema.evaluation.page import HTML_NAME
    from kinema.evaluation.probe import WAYS
    from kinema.evaluation.probe_report import table_rows

    data = report["data"]
    for unit in ("clip", "video"):
        print_table(f"accuracy per {unit}", ("labels", "clips", *WAYS, "fine-tuned / random"), table_rows(report, unit))
    print(f"chance {data['chance']:.1%}, always the most frequent class {data['most frequent class']:.1%}; 95% intervals")
    print(f"held out: {'; '.join(dict.fromkeys(data['held out']))}")
    for finding in report["findings"]:
        print(f"- {finding}")
    print(f"report: {folder / HTML_NAME}")


class _Progress:
    """Bars on a terminal, and a line for every cell that is done."""

    def __init__(self, probe: "Probe", cells: int) -> None:
        self._probe, self._console = probe, Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bars = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._all = self._bars.add_task("all", total=cells)
        self._current = self._bars.add_task("", total=None)

    def __enter__(self) -> "_Progress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, cell: "Cell", step: int, steps: int) -> None:
        """Show how far a cell is."""
        self._bars.update(self._current, description=_words(cell), completed=step, total=steps)

    def advance(self, cell: "Cell", outcome: "Outcome") -> None:
        """Say what a cell found."""
        from kinema.evaluation.probe_report import count_right

        test = count_right(self._probe, cell.seed, outcome)
        right = f"{test.right.sum() / test.clips.sum():.1%} of clips, {test.video.mean():.1%} of videos"
        self._bars.console.print(
            f"{_words(cell)}, {outcome.labelled} clips: {right}; {outcome.training_accuracy:.0%} in training; "
            f"{outcome.seconds:.0f} s",
            highlight=False,
            soft_wrap=True,
        )
        self._bars.advance(self._all)


def _words(cell: "Cell") -> str:
    from kinema.evaluation.probe_report import words

    return f"seed {cell.seed}, {words(cell.fraction)} of the labels, {cell.way}".replace("all of the", "all")
