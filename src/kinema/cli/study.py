"""``kinema study create|serve|results``: people say which of two clips they prefer, or order clips of all systems."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kinema.cli.arguments import parse
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError, accepted

if TYPE_CHECKING:
    from kinema.evaluation.study.design import Material, Texts
    from kinema.evaluation.study.folder import Study
    from kinema.evaluation.study.rankings import Ranks
    from kinema.evaluation.study.results import Preference, RaterReport, Results, Row

USAGE = """usage: kinema study create NAME=SOURCE NAME=SOURCE ... --out STUDY
       kinema study serve STUDY
       kinema study results STUDY

People say which of two clips they prefer, or put clips of all systems in order.

  create    make a folder with clips and trials
  serve     show it to raters
  results   count their answers

kinema study create --help explains a verb.
"""
BATCH = 8
NAME = re.compile(r"[^/=\s][^/=]{0,39}")

Folder = Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="STUDY", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Create(Config):
    """Make a study: a folder with clips of several systems, and trials in which they meet."""

    sources: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="NAME[/CATEGORY]=SOURCE...", help_behavior_hint="")
    ]
    """Systems: a run, a checkpoint or zoo:NAME makes clips out of seeds; a folder of clips or a prepared dataset gives some of
    its own. Clips meet only clips of their category."""
    out: Annotated[Path, tyro.conf.arg(metavar="STUDY")]
    """The folder to make."""
    kind: Literal["pair", "ranking"] = "pair"
    """pair: which of two clips is better; ranking: clips of all systems, from best to worst."""
    trials: int = 40
    """Comparisons per rater, spread evenly over systems and categories."""
    pool: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Comparisons of the study, where they are more than one rater can answer; every rater gets --trials of them, and over
    raters all are shown equally often. Default: all raters get the same."""
    clips: int = 20
    """Clips per system and category, at most."""
    matched: bool = False
    """Clip n of every system meets only clip n of the others, as where all of them continue one picture."""
    catch: int = 4
    """Trials more with noise among the clips, which shows who does not look."""
    repeats: int = 4
    """Comparisons shown once more with places reversed, which shows who does not look either."""
    still: int = 0
    """Trials more in which a clip meets its own first frame, standing still: does it move in a way that people prefer?"""
    practice: int = 2
    """Trials at the beginning that are not counted."""
    frames: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Show only so many frames of every clip, from its beginning."""
    seed: int = 0
    """Of clips, pairs, sides, order and names: the same command makes the same study."""
    title: Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")] = None
    """Heading of the pages. Default: Two videos, or Videos in order."""
    question: Annotated[str | None, tyro.conf.arg(metavar="STR", help_behavior_hint="")] = None
    """Asked in every trial. Default: Which video is more realistic? Or: Order the videos, the most realistic first."""
    instructions: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Text file shown before the first trial."""
    consent: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Text file that a rater agrees to."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse numbers that make no study."""
        self.at_least(1, "trials", "clips")
        self.at_least(0, "catch", "repeats", "still", "practice", "seed")
        self.require(self.pool is None or self.pool >= self.trials, "pool", f"at least the number of trials, {self.trials}")
        self.require(self.repeats <= self.trials, "repeats", f"at most the number of trials, {self.trials}")
        self.require(self.frames is None or self.frames >= 1, "frames", "at least 1")


@dataclass(frozen=True, kw_only=True)
class Serve(Config):
    """Show a study to raters until Ctrl-C; start it again at any time, the answers are kept."""

    folder: Folder
    """As `kinema study create` made it."""
    host: str = "127.0.0.1"
    """Address of this machine to listen on; 0.0.0.0 is all of them."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    invite: int = 0
    """Make so many personal links, print them, and let in only people with a link from now on."""
    open: bool = False
    """Let in everybody again."""
    address: Annotated[str | None, tyro.conf.arg(metavar="URL", help_behavior_hint="")] = None
    """Where raters find the study, for the links: that of the proxy. Default: http://HOST:PORT/"""

    def check(self) -> None:
        """Refuse what is no port and contradictions."""
        self.require(0 <= self.port <= 65535, "port", "from 0 to 65535")
        self.require(self.invite >= 0, "invite", "0 or more")
        if self.open and self.invite:
            raise ConfigError("--open lets in everybody and --invite only people with a link; leave one out")


@dataclass(frozen=True, kw_only=True)
class Count(Config):
    """Count the answers to a study."""

    folder: Folder
    """As `kinema study create` made it."""
    csv: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Write a line per answer."""


def run(arguments: list[str]) -> int:
    """Run ``kinema study``."""
    verbs = {"create": create, "serve": serve, "results": results}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    if arguments[0] not in verbs:
        raise ConfigError(f"kinema study has no verb {arguments[0]!r}; {accepted(arguments[0], verbs)}")
    return verbs[arguments[0]](arguments[1:])


def create(arguments: list[str]) -> int:
    """Run ``kinema study create``."""
    options = parse(Create, arguments, "study create")
    named = [_split(source) for source in options.sources]
    from kinema.evaluation.study.design import Plan, design, order_for
    from kinema.evaluation.study.folder import refuse_taken, write_study

    refuse_taken(options.out)
    texts = _texts(options)
    materials = [_material(system, category, source, options) for system, category, source in named]
    plan = Plan(
        kind=options.kind,
        trials=options.trials,
        pool=options.pool,
        noise=options.catch,
        repeats=options.repeats,
        still=options.still,
        practice=options.practice,
        matched=options.matched,
        seed=options.seed,
    )
    study, videos = design(materials, plan, texts)
    write_study(options.out, study, videos)
    print(f"{len(order_for(study, 1))} trials for every rater, {len(study.clips)} clips of {', '.join(study.systems)}")
    for name, origin in study.origins.items():
        print(f"  {name}: {origin}")
    print(f"{options.out}; texts and exclusion rules are in its study.json, and may be edited until somebody answers")
    print(f"next: kinema study serve {options.out}")
    return 0


def serve(arguments: list[str]) -> int:
    """Run ``kinema study serve``."""
    options = parse(Serve, arguments, "study serve")
    from kinema.evaluation.study.folder import read_study
    from kinema.evaluation.study.store import Store

    study = read_study(options.folder)
    try:
        from kinema.evaluation.study import server
    except ModuleNotFoundError as error:
        raise ConfigError(f"kinema study serve needs {error.name}; pip install 'kinema[study]'") from None
    store = Store(options.folder, study, create=True)
    listening = server.listen(options.host, options.port)
    address = (options.address or f"http://{_host(options.host)}:{listening.getsockname()[1]}").rstrip("/") + "/"
    if options.invite or options.open:
        store.closed = not options.open
    for number, token in [store.add_rater(consented=False) for _ in range(options.invite)]:
        print(f"rater {number}: {address}#{token}")
    print(f"{address} is open to {'people with a link' if store.closed else 'everybody'}; Ctrl-C stops it", flush=True)
    try:
        server.serve(options.folder, study, store, listening)
    finally:
        store.close()
        listening.close()
    return 0


def results(arguments: list[str]) -> int:
    """Run ``kinema study results``."""
    options = parse(Count, arguments, "study results")
    from kinema.evaluation.study.folder import read_study
    from kinema.evaluation.study.results import with_and_without, write_csv
    from kinema.evaluation.study.store import Store

    study = read_study(options.folder)
    store = Store(options.folder, study)
    votes = store.votes()
    store.close()
    everybody, careful, raters = with_and_without(study, votes)
    print(study.question)
    excluded = [report for report in raters if report.broken]
    print(f"\nEverybody\n{_report(study, everybody)}")
    print(_exclusions(study, raters))
    if careful is None:
        print("\nnobody is left without them")
    elif excluded:
        print(f"\nWithout excluded raters\n{_report(study, careful)}")
    if options.csv:
        write_csv(options.csv, study, votes)
        print(f"\n{len(votes)} answers: {options.csv}")
    return 0


def _split(source: str) -> tuple[str, str, str]:
    """Split NAME[/CATEGORY]=SOURCE."""
    name, equals, where = source.partition("=")
    system, slash, category = name.partition("/")
    if not equals or not where or not NAME.fullmatch(system) or (slash and not NAME.fullmatch(category)):
        raise ConfigError(f"{source!r} is no NAME=SOURCE or NAME/CATEGORY=SOURCE with names of at most 40 characters")
    return system, category, where


def _texts(options: Create) -> "Texts":
    from kinema.evaluation.study.design import TEXTS

    usual = TEXTS[options.kind]
    return replace(
        usual,
        title=options.title or usual.title,
        question=options.question or usual.question,
        instructions=_text(options.instructions) if options.instructions else usual.instructions,
        consent=_text(options.consent) if options.consent else usual.consent,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no UTF-8 text") from None


def _material(system: str, category: str, name: str, options: Create) -> "Material":
    """Read or make the clips of a system; of more than are wanted, some at random."""
    import numpy as np

    from kinema.cli.trained import open_source
    from kinema.evaluation.measures import drawn
    from kinema.evaluation.study.design import Material

    source = open_source(name, options.device)
    if source.fps is None:
        raise EvaluationError(f"nothing says how many frames per second the clips of {name} have; give files of videos")
    if source.count is None:
        chosen = list(range(options.seed, options.seed + options.clips))
        which = f"seeds {chosen[0]} to {chosen[-1]}"
    else:
        chosen = sorted(drawn(min(options.clips, source.count), source.count, options.seed))
        which = f"{len(chosen)} of {source.count} clips"
    portions = [chosen[first : first + BATCH] for first in range(0, len(chosen), BATCH)]
    clips = [np.array(clip[: options.frames]) for portion in portions for clip in source.read(portion)]
    if short := next((len(clip) for clip in clips if len(clip) < (options.frames or 0)), None):
        raise EvaluationError(f"{name} has a clip of {short} frames; --frames is {options.frames}")
    origin = ", ".join([*(f"{what} {value}" for what, value in source.about.items()), which])
    return Material(system, category, f"{Path(source.name).name}: {origin}", clips, source.fps, tuple(chosen))


def _host(host: str) -> str:
    """Return how an address is written in a URL."""
    return f"[{host}]" if ":" in host else host


def _report(study: "Study", found: "Results") -> str:
    parts = [
        f"{_number(found.raters, 'rater')}, {_number(found.answers, 'answer')} of comparisons",
        "",
        _table(study, found.rows),
        "",
    ]
    if found.ranks:
        return "\n".join([parts[0], "", *_ranks(study, found.ranks), *parts[1:-1], *_stills(found)])
    if found.abilities is None:
        parts.append("abilities (Bradley-Terry): no finite estimate, for some systems never lost to the others")
    else:
        parts.append("ability (Bradley-Terry, log-odds, sum 0)  standard error")
        parts += [f"  {ability.system:<24}{ability.value:+.3f}  {ability.error:.3f}" for ability in found.abilities]
    if found.agreement is None:
        parts.append("agreement between raters: no trial has two answers")
    else:
        parts.append(
            f"agreement between raters: Krippendorff's alpha {found.agreement:.2f}, {found.agreed:.0%} of answers alike"
        )
    return "\n".join(parts + _stills(found))


def _ranks(study: "Study", found: "Ranks") -> list[str]:
    """Lay average ranks out as Table 3 of the keypoint paper, with categories and with what it lacks: agreement and a test."""
    categories = [category for category in study.categories if category]
    body = [
        [
            row.system,
            *("-" if (mean := row.categories[category]) is None else f"{mean:.2f}" for category in categories),
            f"{row.mean:.2f} ± {'-' if row.deviation is None else f'{row.deviation:.2f}'}",
        ]
        for row in found.systems
    ]
    lines = _columns([["average rank ± SD, 1 is best", *categories, "all" if categories else ""], *body])
    if found.concordance is None:
        lines.append("agreement between raters: no trial has two answers")
    else:
        same = found.concordance
        lines.append(
            f"agreement between raters: Kendall's W {same.value:.2f}, chance {same.chance:.2f}, "
            f"mean of {_number(same.trials, 'trial')}"
        )
    if found.friedman is None:
        lines.append("Friedman's test needs two raters, and systems that somebody told apart")
    else:
        test = found.friedman
        lines.append(
            f"Friedman's test over {test.raters} raters: chi-square {test.statistic:.2f} with {len(body) - 1} degrees of "
            f"freedom, p {test.p_value:.2g}"
        )
    return lines


def _stills(found: "Results") -> list[str]:
    """Say how often people preferred a clip's first frame over the clip."""
    if not found.stills:
        return []
    body = [["first frame over moving clip, percent", "all", "95 %", "p", "answers"]]
    body += [[system, *_pooled(preference)] for system, preference in found.stills.items()]
    return ["", *_columns(body)]


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _table(study: "Study", rows: Sequence["Row"]) -> str:
    """Lay the preferences out as Table 1 of the VGAN paper, with what it lacks: intervals, tests and numbers of answers."""
    categories = [category for category in study.categories if category]
    head = ["percent of trials", *categories, *(["mean"] if categories else []), "all", "95 %", "p", "answers"]
    body = [["random preference", *("50" for _ in head[1:-3]), "", "", ""]]
    for row in rows:
        cells = [_percent(row.categories[category]) for category in categories]
        mean = ["-" if row.mean is None else f"{row.mean:.0f}"] if categories else []
        body.append([f"{row.system} over {row.other}", *cells, *mean, *_pooled(row.pooled)])
    return "\n".join(_columns([head, *body]))


def _columns(table: Sequence[Sequence[str]]) -> list[str]:
    """Align cells: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    padded = [[cell.rjust(width) for cell, width in zip(line, widths, strict=True)] for line in table]
    names = [line[0].ljust(widths[0]) for line in table]
    return ["  ".join([name, *cells[1:]]).rstrip() for name, cells in zip(names, padded, strict=True)]


def _percent(preference: "Preference | None") -> str:
    return "-" if preference is None else f"{preference.percent:.0f}"


def _pooled(preference: "Preference | None") -> list[str]:
    if preference is None:
        return ["-", "-", "-", "0"]
    interval = f"{100 * preference.low:.0f}-{100 * preference.high:.0f}"
    return [_percent(preference), interval, f"{preference.p_value:.2g}", str(preference.total)]


def _exclusions(study: "Study", raters: Sequence["RaterReport"]) -> str:
    rules = study.exclusion
    excluded = [report for report in raters if report.broken]
    stated = (
        f"noise put last in {rules.noise_refused:.0%} of the trials with noise, {rules.repeats_agreed:.0%} of the repeated "
        f"pairs of clips ordered the same way, {rules.median_seconds:g} s for half of the answers, "
        f"{rules.answered:.0%} of the trials answered"
    )
    lines = [f"\nExcluded: {len(excluded)} of {len(raters)} raters. Stated beforehand, at least: {stated}"]
    return "\n".join(lines + [f"  rater {report.rater}: {'; '.join(report.broken)}" for report in excluded])
