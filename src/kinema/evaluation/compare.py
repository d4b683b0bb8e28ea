"""One budget, many systems: who takes part, with which budget, and in which order the work is done.

    compare.json                      the plan; another one is refused in its folder
    NAME/seed-S/run                   a run, as ``kinema train`` made it
    NAME/seed-S/train.log             what that said
    NAME/seed-S/point-P/report.json   the report card after P of the equal slices of the budget, with its page and clips.webp
    NAME/seed-S/failed.json           why a training did not come to its end
    held-out/                         the report card of real clips that were held out
    real.webp                         real clips, to be seen beside those that were made
    leaderboard.json, index.html      what `kinema.evaluation.leaderboard` makes of all this
    study/                            a study of the best, for people

Every file appears whole or not at all, and a part whose report exists is done: that is all that going on needs to know.
"""

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kinema.core.config import Config, differences, from_mapping, to_mapping
from kinema.core.errors import ConfigError, EvaluationError, accepted
from kinema.data.encode import beside
from kinema.evaluation.report import JSON_NAME
from kinema.training import runlog

FORMAT_VERSION = 1
PLAN_NAME, FAILURE_NAME, CLIPS_NAME = "compare.json", "failed.json", "clips.webp"
REAL_NAME, LOCK_NAME = "real.webp", "lock"
HELD_OUT, STUDY = "held-out", "study"
LONGEST_MINUTES = 7 * 24 * 60.0
USUAL_PRESET = "laptop"

VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "vgan": {"two-stream": ("--generator-streams", "two"), "one-stream": ("--generator-streams", "one")},
}
"""System -> name of a variant -> the options of ``kinema train`` that it stands for."""
ALIASES = {"autoencoder-mixture": "vgan-autoencoder"}
"""Names that papers use -> systems."""
DECIDED = ("--out", "--seed", "--steps", "--minutes", "--resume", "--overwrite", "--device")
"""Options of ``kinema train`` that are the comparison's to give."""

_CONTESTANT = re.compile(r"(?P<system>[^:@]+)(?::(?P<variant>[^:@]+))?(?:@(?P<preset>[^:@]+))?")


# --- Who takes part -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contestant:
    """A system with its settings.

    Attributes:
        name: as people call it.
        words: of ``kinema train``: the system, then options.
        points: slices of the budget after which it is judged.
        batch_size: clips of a training step.
    """

    name: str
    words: tuple[str, ...]
    points: int = 1
    batch_size: int = 1

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return slug(self.name)


def slug(name: str) -> str:
    """Return a name that every file system takes."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "contestant"


def read_contestants(systems: str, named: Sequence[str], systems_known: Sequence[str]) -> list[Contestant]:
    """Read who takes part.

    Args:
        systems: ``SYSTEM[:VARIANT][@PRESET]`` with commas between them.
        named: ``NAME=SYSTEM OPTION...`` each, with options of ``kinema train``.
        systems_known: every system that can be trained.

    Raises:
        ConfigError: for an unknown system or variant (with the nearest name), an option that is the comparison's, two
            contestants of one name, or nobody.
    """
    brief = [part.strip() for part in systems.split(",") if part.strip()]
    found = [_brief(part, systems_known) for part in brief] + [_named(text, systems_known) for text in named]
    if not found:
        raise ConfigError("compare wants contestants; give --systems vgan:two-stream,vgan:one-stream or --contestant")
    for key in ("name", "folder"):
        most, times = Counter(getattr(contestant, key).lower() for contestant in found).most_common(1)[0]
        if times > 1:
            raise ConfigError(f"{times} contestants are called {most}; give them names with --contestant NAME='SYSTEM ...'")
    if taken := next((one.name for one in found if one.folder.lower() in (HELD_OUT, STUDY)), None):
        raise ConfigError(f"a contestant cannot be called {taken}; that folder has another use")
    return found


def _brief(text: str, systems_known: Sequence[str]) -> Contestant:
    match = _CONTESTANT.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text!r} is no SYSTEM[:VARIANT][@PRESET]")
    system, variant, preset = _system(match["system"], systems_known), match["variant"], match["preset"]
    variants = VARIANTS.get(system, {})
    if variant is not None and variant not in variants:
        raise ConfigError(f"{system} has no variant {variant!r}; {accepted(variant, variants)}")
    options = variants[variant] if variant else ()
    return Contestant(text, (system, *options, *(("--preset", preset) if preset else ())))


def _named(text: str, systems_known: Sequence[str]) -> Contestant:
    name, equals, line = text.partition("=")
    words = read_options(f"--contestant {text!r}", line)
    if not equals or not name.strip() or not words:
        raise ConfigError(f"--contestant {text!r} is no NAME='SYSTEM OPTION...'")
    return Contestant(name.strip(), (_system(words[0], systems_known), *words[1:]))


def read_options(place: str, line: str) -> list[str]:
    """Split a line of options of ``kinema train``.

    Args:
        place: where it stands, for complaints.
        line: as a shell would read it.

    Raises:
        ConfigError: for a quotation that is not closed, or an option that is the comparison's.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise ConfigError(f"{place} cannot be read: {error}") from None
    if decided := next((word for word in words if word.partition("=")[0] in DECIDED), None):
        raise ConfigError(f"{place} has {decided}, which is the same for every contestant; leave it out there")
    return words


def _system(name: str, systems_known: Sequence[str]) -> str:
    system = ALIASES.get(name, name)
    if system not in systems_known:
        raise ConfigError(f"there is no system {name!r}; {accepted(name, [*systems_known, *ALIASES])}")
    return system


# --- What is done -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Contest(Config):
    """The plan of a comparison."""

    data: str
    """The prepared dataset."""
    dataset: str
    """Hash of its content."""
    contestants: tuple[Contestant, ...]
    """Who takes part."""
    minutes: float | None
    """Minutes of training each."""
    clips_seen: int | None
    """Or clips seen in training each."""
    seeds: int
    """Trainings of each contestant, with seeds from 0 on."""
    count: int
    """Clips that are judged."""
    seed: int
    """Of judging: first seed of generated clips."""
    features: str
    """Feature network."""
    replicates: int
    """Resamplings behind an interval."""
    finalists: int
    """Contestants of the study."""
    device: str
    """Where to compute."""
    weights: str | None = None
    """File with the weights of the feature network, where it is not packaged."""
    weights_sha256: str | None = None
    """What the digest of that file must be."""

    def check(self) -> None:
        """Refuse budgets that are none."""
        self.require(bool(self.contestants), "contestants", "at least one")
        if (self.minutes is None) == (self.clips_seen is None):
            raise ConfigError("a comparison has one budget; give --minutes or --clips-seen")
        sensible = self.minutes is None or 0 < self.minutes <= LONGEST_MINUTES
        self.require(sensible, "minutes", f"more than 0 and at most a week, {LONGEST_MINUTES:g}")
        self.require(1 <= self.seeds <= 100, "seeds", "from 1 to 100")
        self.at_least(0, "seed", "finalists")
        self.require(2 <= self.replicates <= 10_000, "replicates", "from 2 to 10000")
        for contestant in self.contestants:
            steps = self.clips_seen and self.clips_seen // contestant.batch_size
            self.require(steps is None or steps >= contestant.points, "clips_seen", "a batch or more for every point")

    def parts(self) -> Iterator["Part"]:
        """Yield the work in order: every contestant has its first seed before any has its second."""
        for seed in range(self.seeds):
            for contestant in self.contestants:
                for point in range(1, contestant.points + 1):
                    yield Part(contestant, seed, point)

    def budget(self, part: "Part") -> tuple[str, float]:
        """Return the budget of a training up to a point: ``minutes`` or ``steps``, and how many."""
        share = part.point / part.contestant.points
        if self.clips_seen is None:
            return "minutes", float(f"{(self.minutes or 0) * share:.6g}")
        return "steps", round(self.clips_seen * share) // part.contestant.batch_size

    def command(self, part: "Part", folder: Path, *, resume: bool) -> list[str]:
        """Return the words after ``kinema`` that train up to a point."""
        system, *options = part.contestant.words
        kind, amount = self.budget(part)
        words = ["train", system, self.data, "--out", str(part.run(folder)), *options]
        words += ["--seed", str(part.seed), f"--{kind}", f"{amount:g}" if kind == "minutes" else str(amount)]
        return [*words, "--device", self.device, *(["--resume"] if resume else [])]


@dataclass(frozen=True)
class Part:
    """One slice of one training, and the judging after it; the last has `point` equal to the contestant's `points`."""

    contestant: Contestant
    seed: int
    point: int

    @property
    def name(self) -> str:
        """As it is shown while it is done."""
        of = f", {self.point} of {self.contestant.points}" if self.contestant.points > 1 else ""
        return f"{self.contestant.name}, seed {self.seed}{of}"

    def training(self, folder: Path) -> Path:
        """Return the folder of its training."""
        return folder / self.contestant.folder / f"seed-{self.seed}"

    def run(self, folder: Path) -> Path:
        """Return the run."""
        return self.training(folder) / "run"

    def card(self, folder: Path) -> Path:
        """Return the folder of its report card."""
        return self.training(folder) / f"point-{self.point}"

    def is_judged(self, folder: Path) -> bool:
        """Tell whether it is done."""
        return (self.card(folder) / JSON_NAME).exists()


# --- Files --------------------------------------------------------------------------------------------------------------------


@contextmanager
def claimed(folder: Path, contest: Contest, *, overwrite: bool) -> Iterator[None]:
    """Write the plan into its folder, or find the same one there, and keep other processes out.

    Args:
        folder: of the comparison.
        contest: the plan.
        overwrite: begin anew; only what a comparison made is deleted.

    Raises:
        EvaluationError: for a folder with other files, another plan, or one that is damaged or of another version.
        TrainingError: when another process works there.
    """
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"{folder} is a file; --out is a folder")
    plan = folder / PLAN_NAME
    if folder.is_dir() and any(folder.iterdir()) and not plan.is_file():
        raise EvaluationError(f"{folder} holds files that are no comparison; give --out another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("ab") as lock:
        runlog.hold(lock)
        for contestant_folder in folder.glob("*/seed-*/run"):  # of a comparison that was killed, a training may still run
            runlog.refuse_busy(contestant_folder)
        if plan.is_file() and overwrite:
            _delete(folder)
        if plan.is_file():
            _refuse_changed(folder, contest)
        else:
            write_json(plan, {"format_version": FORMAT_VERSION, **to_mapping(contest)})
        yield


def _refuse_changed(folder: Path, contest: Contest) -> None:
    """Raise `EvaluationError` where a folder holds another plan; the same data may have another path."""
    if changed := differences(replace(read_contest(folder), data=contest.data), contest):
        raise EvaluationError(
            f"{folder} holds another comparison ({_short('; '.join(changed))}); give the command that began it, another "
            "--out, or --overwrite to begin anew"
        )


def read_contest(folder: Path) -> Contest:
    """Read the plan of a comparison.

    Raises:
        EvaluationError: when it is damaged or of another version.
    """
    path = folder / PLAN_NAME
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("format_version")
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise EvaluationError(f"{path} is damaged; give another --out") from None
    if version != FORMAT_VERSION:
        raise EvaluationError(f"{path} has format version {version}; this kinema reads version {FORMAT_VERSION}")
    try:
        return from_mapping(Contest, values)
    except ConfigError as error:
        raise EvaluationError(f"{path} is damaged ({error}); give another --out") from None


def write_json(path: Path, values: Any) -> None:
    """Write JSON, whole or not at all."""
    with beside(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _delete(folder: Path) -> None:
    """Delete what the plan in a folder made there, the plan last; answers of people are never deleted."""
    if list((folder / STUDY).glob("answers.sqlite*")):
        raise EvaluationError(f"people have answered the study in {folder / STUDY}; give another --out")
    names = [contestant.folder for contestant in read_contest(folder).contestants]
    for name in (*names, HELD_OUT, STUDY):
        shutil.rmtree(folder / name, ignore_errors=True)
    for file in ("leaderboard.json", "index.html", REAL_NAME, PLAN_NAME):  # not the lock: it is held
        (folder / file).unlink(missing_ok=True)


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
