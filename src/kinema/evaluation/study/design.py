"""Which clips meet in which trials, and the study folder that holds them.

    study.json      what is asked, the systems, the clips and the trials; text and rules may be edited until the first answer
    clips/ID.mp4    every clip through one encoder, under a random name: neither name, date nor tags tell the system

A study is a set of two-alternative forced choices. Every rater sees every trial, in an order and with sides of their own.
"""

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8
from pydantic import ConfigDict, TypeAdapter, ValidationError

from kinema.core.errors import EvaluationError

FORMAT_VERSION = 1
STUDY_NAME = "study.json"
CLIPS_NAME = "clips"
NOISE = "noise"
"""System of the clips that nobody should prefer."""
WHOLE = ""
"""Category of a study without categories."""
REPEAT_GAP = 4
"""Other trials between a pair and its repetition, at least, where there are so many."""

QUESTION = "Which video is more realistic?"
INSTRUCTIONS = (
    "You will see two short videos beside each other. They repeat until you answer. Choose the one that answers the question "
    "better; if you are not sure, choose what you would guess. The first few are for practice and are not counted."
)
CONSENT = (
    "Taking part is voluntary and you may stop at any time by closing the page. We store which videos you choose, how long "
    "you take and when; no name, no address and nothing about your device."
)

ItemT = TypeVar("ItemT")
Video = UInt8[np.ndarray, "T H W 3"]

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Material:
    """Clips of one system, before they become part of a study.

    Attributes:
        system: name under which the results list it.
        category: clips meet only clips of their category; `WHOLE` where there are none.
        origin: where they come from, for the record.
        clips: pixels, RGB.
        fps: frames per second.
    """

    system: str
    category: str
    origin: str
    clips: Sequence[Video]
    fps: float


@dataclass(frozen=True)
class StudyClip:
    """A clip of the study."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    file: str
    """Name in the folder of clips."""
    system: str
    """Who made it, or `NOISE`."""
    category: str
    """Its category, or `WHOLE`."""
    number: int
    """Its place among the clips that the system brought."""


@dataclass(frozen=True)
class Trial:
    """Two clips beside each other."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    """Random name, which tells a rater nothing."""
    kind: Literal["practice", "pair", "noise", "repeat"]
    """What it is for: getting used to it, the comparison itself, a clip against noise, a pair once more with sides changed."""
    left: int
    """Index of a clip."""
    right: int
    """Index of a clip."""
    repeats: str | None = None
    """Id of the trial that it repeats."""


@dataclass(frozen=True)
class ExclusionRules:
    """When a rater is left out, stated before anybody has answered; a rule for trials that the study lacks never applies."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    noise_refused: float = 0.75
    """Least share of trials against noise in which the rater did not choose the noise."""
    repeats_agreed: float = 0.25
    """Least share of repeated pairs in which the rater chose the same clip: who guesses has 0.5, who presses one key 0."""
    median_seconds: float = 0.4
    """Least median time to an answer."""
    answered: float = 0.5
    """Least share of the trials that the rater answered."""


@dataclass(frozen=True)
class Study:
    """Everything about a study except the answers; the file ``study.json``."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    id: str
    """Names the study in the raters' browsers."""
    title: str
    """Heading of the pages."""
    question: str
    """Asked in every trial."""
    instructions: str
    """Shown before the first trial."""
    consent: str
    """What a rater agrees to."""
    seed: int
    """Of pairs, sides, order and names."""
    frames: int
    """Frames of every clip."""
    height: int
    """Pixels."""
    width: int
    """Pixels."""
    fps: float
    """Frames per second."""
    systems: tuple[str, ...]
    """In the order of the results."""
    categories: tuple[str, ...]
    """In the order of the results; one `WHOLE` where there are none."""
    origins: dict[str, str]
    """System, with its category where there is one -> where its clips come from."""
    clips: tuple[StudyClip, ...]
    """Trials name them by their place here."""
    trials: tuple[Trial, ...]
    """Practice first."""
    exclusion: ExclusionRules = field(default_factory=ExclusionRules)
    """Who is left out of the second table of results."""
    format_version: int = FORMAT_VERSION
    """Of this file."""

    def trial(self, name: str) -> Trial | None:
        """Return the trial of an id, or None."""
        return next((trial for trial in self.trials if trial.id == name), None)

    def pairs(self) -> list[tuple[str, str]]:
        """Return every pair of systems, in the order of the results."""
        return list(itertools.combinations(self.systems, 2))

    def of_kind(self, *kinds: str) -> list[Trial]:
        """Return the trials of some kinds."""
        return [trial for trial in self.trials if trial.kind in kinds]


@dataclass(frozen=True)
class Plan:
    """How many trials of which kind.

    Attributes:
        pairs: comparisons of two systems, spread evenly over pairs of systems and categories.
        noise: clips against noise.
        repeats: pairs shown once more with sides changed.
        practice: trials that are not counted; the first is against noise.
        seed: of everything random.
    """

    pairs: int = 40
    noise: int = 4
    repeats: int = 4
    practice: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Texts:
    """What raters read."""

    title: str = "Two videos"
    question: str = QUESTION
    instructions: str = INSTRUCTIONS
    consent: str = CONSENT


_STUDY = TypeAdapter(Study)


def design(materials: Sequence[Material], plan: Plan, texts: Texts | None = None) -> tuple[Study, list[Video]]:
    """Lay out a study.

    Args:
        materials: at least two systems in every category, all of one frame size, length and rate.
        plan: how many trials.
        texts: what raters read; None takes the usual texts.

    Returns:
        The study, and the pixels of its clips in the order of `Study.clips`.

    Raises:
        EvaluationError: for fewer than two systems, systems that miss a category, names that do not work, clips that cannot
            stand beside each other, or fewer trials than there are pairs of systems.
    """
    texts = texts or Texts()
    systems, categories = _names(materials)
    shape, fps = _common_shape(materials)
    generator = np.random.default_rng(plan.seed)
    pool, pixels = _pool(materials)
    noise = [_noise(shape, generator) for _ in range(plan.noise + (plan.practice + 1) // 2)]
    names = _name_generator(plan.seed, [*pixels, *noise])
    clips = [StudyClip(_name(names), *key, number) for key, indices in pool.items() for number in range(len(indices))]
    clips += [StudyClip(_name(names), NOISE, WHOLE, number) for number in range(len(noise))]
    study = Study(
        id=_hex(names, 8),
        title=texts.title,
        question=texts.question,
        instructions=texts.instructions,
        consent=texts.consent,
        seed=plan.seed,
        frames=shape[0],
        height=shape[1],
        width=shape[2],
        fps=fps,
        systems=systems,
        categories=categories,
        origins={place(material.system, material.category): material.origin for material in materials},
        clips=tuple(clips),
        trials=_trials(pool, _comparisons(systems, categories, plan.pairs), plan, generator, names),
    )
    return _only_shown(study, [*pixels, *noise])


def place(system: str, category: str) -> str:
    """Return a system's name with its category, as it is typed on the command line."""
    return f"{system}/{category}" if category else system


def order_for(study: Study, rater: int) -> list[tuple[Trial, bool]]:
    """Return a rater's trials in order, each with whether left and right are exchanged.

    Practice comes first, a repetition after what it repeats. Raters come in twos that see opposite sides, so that a preference
    for one side favours no clip.

    Args:
        study: whose trials.
        rater: number of the rater, from 1.
    """
    generator = np.random.default_rng([study.seed, rater])
    main = _shuffled(study.of_kind("pair", NOISE), generator)
    for repeat in _shuffled(study.of_kind("repeat"), generator):
        original = next(number for number, trial in enumerate(main) if trial.id == repeat.repeats)
        earliest = min(original + 1 + REPEAT_GAP, len(main))
        main.insert(int(generator.integers(earliest, len(main) + 1)), repeat)
    exchange = rater % 2 == 0
    return [(trial, exchange) for trial in (*study.of_kind("practice"), *main)]


def write_study(folder: Path, study: Study, videos: Sequence[Video]) -> None:
    """Write a study folder; ``study.json`` last, so that a folder without it is unfinished.

    Args:
        folder: to be made; must not exist or be empty.
        study: as `design` made it.
        videos: its clips, in order.

    Raises:
        EvaluationError: the folder holds something.
        MediaError: a clip cannot be written.
    """
    from kinema.data.encode import beside, write_video

    refuse_taken(folder)
    (folder / CLIPS_NAME).mkdir(parents=True, exist_ok=True)
    files = {clip.file: video for clip, video in zip(study.clips, videos, strict=True)}
    for name in sorted(files):  # in the order of random names: the times of files must not tell systems apart
        write_video(folder / CLIPS_NAME / name, files[name], study.fps)
    with beside(folder / STUDY_NAME) as temporary:
        temporary.write_bytes(_STUDY.dump_json(study, indent=2) + b"\n")


def refuse_taken(folder: Path) -> None:
    """Raise `EvaluationError` where a study folder exists and is not empty."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise EvaluationError(f"{folder} exists and is not empty; give another --out: a study is never overwritten")


def read_study(folder: Path) -> Study:
    """Read ``study.json``.

    Raises:
        EvaluationError: when there is none, or it is damaged, of another version, without trials, or names a clip that is
            missing.
    """
    path = folder / STUDY_NAME
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise EvaluationError(
            f"{folder} has no {STUDY_NAME}; make a study with `kinema study create ... --out STUDY`"
        ) from None
    try:
        version = json.loads(text)["format_version"]
    except (ValueError, TypeError, KeyError):
        raise EvaluationError(f"{path} is damaged: it is no JSON object with a format_version") from None
    if version != FORMAT_VERSION:
        raise EvaluationError(f"{path} has format version {version}; this kinema reads version {FORMAT_VERSION}")
    try:
        study = _STUDY.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise EvaluationError(f"{path} is damaged: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    _check(path, study)
    return study


def digest(study: Study) -> str:
    """Return the SHA-256 of everything in a study that an answer depends on."""
    return hashlib.sha256(_STUDY.dump_json(study)).hexdigest()


def _check(path: Path, study: Study) -> None:
    if not study.of_kind("pair"):
        raise EvaluationError(f"{path} has no trials; make the study again")
    ids = [trial.id for trial in study.trials]
    if len(set(ids)) < len(ids):
        raise EvaluationError(f"{path} has two trials with the id {Counter(ids).most_common(1)[0][0]!r}")
    known = range(len(study.clips))
    if wrong := next((trial for trial in study.trials if trial.left not in known or trial.right not in known), None):
        raise EvaluationError(f"{path}: trial {wrong.id} names a clip that the study does not have")
    if wrong := next((t for t in study.of_kind("repeat") if t.repeats not in ids), None):
        raise EvaluationError(f"{path}: trial {wrong.id} repeats one that the study does not have")
    for clip in study.clips:
        if Path(clip.file).name != clip.file or not (path.parent / CLIPS_NAME / clip.file).is_file():
            raise EvaluationError(f"{path} names the clip {clip.file!r}, which is not in {path.parent / CLIPS_NAME}")


class _Deck:
    """Deals the clips of one system evenly: all once in random order, then all once more."""

    def __init__(self, indices: Sequence[int], generator: np.random.Generator) -> None:
        self._indices, self._generator, self._left = list(indices), generator, list[int]()

    def draw(self) -> int:
        if not self._left:
            self._left = _shuffled(self._indices, self._generator)
        return self._left.pop()


def _names(materials: Sequence[Material]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    systems = tuple(dict.fromkeys(material.system for material in materials))
    categories = tuple(dict.fromkeys(material.category for material in materials))
    given = Counter((material.system, material.category) for material in materials)
    if twice := next((key for key, count in given.items() if count > 1), None):
        raise EvaluationError(f"{place(*twice)!r} is given twice; names must differ")
    if NOISE in systems:
        raise EvaluationError(f"no system can be called {NOISE!r}: it names the clips that catch careless raters")
    if len(systems) < 2:
        raise EvaluationError(f"a study compares at least two systems, not {len(systems)}; give NAME=SOURCE twice or more")
    if missing := next((key for key in itertools.product(systems, categories) if key not in given), None):
        raise EvaluationError(f"{missing[0]!r} has no clips of category {missing[1]!r}; give every system the same categories")
    return systems, categories


def _common_shape(materials: Sequence[Material]) -> tuple[tuple[int, int, int], float]:
    first: tuple[str, tuple[int, int, int]] | None = None
    for material in materials:
        name = place(material.system, material.category)
        if not material.clips:
            raise EvaluationError(f"{name} has no clips: {material.origin}")
        for clip in material.clips:
            shape = (clip.shape[0], clip.shape[1], clip.shape[2])
            first = first or (name, shape)
            if shape != first[1]:
                raise EvaluationError(
                    f"clips of {name} have {_said(shape)}, those of {first[0]} {_said(first[1])}; raters must not "
                    "tell systems by size or length: prepare them alike, and cut to a common length with --frames"
                )
        if abs(material.fps - materials[0].fps) > 0.01 * materials[0].fps:
            raise EvaluationError(
                f"clips of {name} run at {material.fps:g} frames per second, those of "
                f"{place(materials[0].system, materials[0].category)} at {materials[0].fps:g}; prepare them at one rate (--fps)"
            )
    assert first is not None  # there are materials, and each has clips
    return first[1], materials[0].fps


def _said(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[2]}x{shape[1]} pixels"


def _pool(materials: Sequence[Material]) -> tuple[dict[tuple[str, str], list[int]], list[Video]]:
    """Number all clips; return (system, category) -> numbers, and the pixels."""
    pool: dict[tuple[str, str], list[int]] = {}
    pixels: list[Video] = []
    for material in materials:
        pool[material.system, material.category] = list(range(len(pixels), len(pixels) + len(material.clips)))
        pixels.extend(material.clips)
    return pool, pixels


def _comparisons(systems: Sequence[str], categories: Sequence[str], count: int) -> list[tuple[str, str, str]]:
    """Return (system, system, category) per comparison: numbers of every combination differ by one at most."""
    combinations = [(a, b, c) for a, b in itertools.combinations(systems, 2) for c in categories]
    if count < len(combinations):
        raise EvaluationError(
            f"{count} trials are too few for {len(combinations)} pairs of systems and categories; raise --trials"
        )
    return [combinations[number % len(combinations)] for number in range(count)]


def _trials(
    pool: Mapping[tuple[str, str], Sequence[int]],
    comparisons: Sequence[tuple[str, str, str]],
    plan: Plan,
    generator: np.random.Generator,
    names: np.random.Generator,
) -> tuple[Trial, ...]:
    """Return practice, pairs, trials against noise and repetitions; noise is numbered behind the clips of the pool."""
    decks = {key: _Deck(indices, generator) for key, indices in pool.items()}
    noise = itertools.count(sum(len(indices) for indices in pool.values()))
    every = itertools.cycle(_shuffled(list(pool), generator))

    def against_noise(kind: Literal["practice", "noise"], exchanged: bool) -> Trial:
        return _trial(names, kind, (decks[next(every)].draw(), next(noise)), exchanged)

    def pair(kind: Literal["practice", "pair"], comparison: tuple[str, str, str], exchanged: bool) -> Trial:
        one, other, category = comparison
        return _trial(names, kind, (decks[one, category].draw(), decks[other, category].draw()), exchanged)

    pairs = [pair("pair", *sided) for sided in zip(comparisons, _sides(comparisons, generator), strict=True)]
    catches = [against_noise("noise", bool(number % 2)) for number in range(plan.noise)]
    chosen = _shuffled(pairs, generator)[: plan.repeats]
    repeats = [Trial(_hex(names, 6), "repeat", trial.right, trial.left, trial.id) for trial in chosen]
    practice = [
        pair("practice", comparisons[number % len(comparisons)], bool(generator.integers(2)))
        if number % 2
        else against_noise("practice", bool(generator.integers(2)))
        for number in range(plan.practice)
    ]
    return (*practice, *pairs, *catches, *repeats)


def _sides(comparisons: Sequence[tuple[str, str, str]], generator: np.random.Generator) -> list[bool]:
    """Decide for every comparison whether its sides are exchanged: as often as not within each combination, at random."""
    left: dict[tuple[str, str, str], list[bool]] = {}
    for combination, count in Counter(comparisons).items():
        odd = bool(generator.integers(2))  # which side is the one more often, where the number is odd
        left[combination] = _shuffled([bool(number % 2) != odd for number in range(count)], generator)
    return [left[comparison].pop() for comparison in comparisons]


def _trial(
    names: np.random.Generator, kind: Literal["practice", "pair", "noise"], clips: tuple[int, int], exchanged: bool
) -> Trial:
    left, right = clips[::-1] if exchanged else clips
    return Trial(_hex(names, 6), kind, left, right)


def _noise(shape: tuple[int, int, int], generator: np.random.Generator) -> Video:
    """Draw grains of an eighth of the height, for finer ones would vanish in the encoder and look like a grey clip."""
    frames, height, width = shape
    grain = max(1, height // 8)
    coarse = generator.integers(0, 256, (frames, -(-height // grain), -(-width // grain), 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(grain, axis=1).repeat(grain, axis=2)[:, :height, :width])


def _name_generator(seed: int, pixels: Sequence[Video]) -> np.random.Generator:
    """Return a generator for names that depends on the pixels too: who knows the seed alone cannot compute whose clip it is."""
    content = hashlib.sha256(str(seed).encode())
    for clip in pixels:
        content.update(np.ascontiguousarray(clip).data)
    return np.random.default_rng(list(content.digest()))


def _only_shown(study: Study, pixels: Sequence[Video]) -> tuple[Study, list[Video]]:
    """Leave out clips that no trial shows."""
    shown = sorted({index for trial in study.trials for index in (trial.left, trial.right)})
    place_of = {index: number for number, index in enumerate(shown)}
    trials = tuple(Trial(t.id, t.kind, place_of[t.left], place_of[t.right], t.repeats) for t in study.trials)
    return replace(study, clips=tuple(study.clips[index] for index in shown), trials=trials), [pixels[i] for i in shown]


def _shuffled(items: Sequence[ItemT], generator: np.random.Generator) -> list[ItemT]:
    return [items[index] for index in generator.permutation(len(items))]


def _name(generator: np.random.Generator) -> str:
    return f"{_hex(generator, 12)}.mp4"


def _hex(generator: np.random.Generator, size: int) -> str:
    return generator.bytes(size).hex()
