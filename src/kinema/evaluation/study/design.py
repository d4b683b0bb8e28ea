"""Which clips meet in which trials, and in which order a rater sees them.

A trial shows clips beside each other, and an answer orders them from best to worst: two of them in a two-alternative forced
choice, one of every system in a ranking. Raters see the same trials, or equally large parts of a larger pool, in an order and
with places of their own.
"""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.folder import NOISE, WHOLE, ExclusionRules, Study, StudyClip, StudyKind, Trial, TrialKind, Video

REPEAT_GAP = 4
"""Other trials between a comparison and its repetition, at least, where there are so many."""
RANKED = range(3, 9)
"""Numbers of systems that can be ranked: two are a pair, and more than eight videos fit neither a page nor anybody's mind."""
SECONDS_PER_CHOICE = 0.4
"""Nobody looks at two clips and chooses in less; a ranking of k clips is made of k - 1 choices."""

CONSENT = (
    "Taking part is voluntary and you may stop at any time by closing the page. We store which videos you choose, how long "
    "you take and when; no name, no address and nothing about your device."
)

ItemT = TypeVar("ItemT")


@dataclass(frozen=True)
class Material:
    """Clips of one system, before they become part of a study.

    Attributes:
        system: name under which the results list it.
        category: clips meet only clips of their category; `WHOLE` where there are none.
        origin: where they come from, for the record.
        clips: pixels, RGB.
        fps: frames per second.
        places: of the clips in their source, or their seeds; where clips are matched, those of one place belong together.
    """

    system: str
    category: str
    origin: str
    clips: Sequence[Video]
    fps: float
    places: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How many trials of which kind.

    Attributes:
        kind: whether two clips meet or one of every system.
        trials: comparisons per rater.
        pool: comparisons of the study, spread evenly over systems and categories; raters get them by turns. None: as many as
            one rater gets, so that all get the same.
        noise: trials with noise among the clips, per rater.
        repeats: comparisons shown once more with places reversed, per rater.
        still: trials of a clip against its own first frame, per rater.
        practice: trials that are not counted, per rater; the first is with noise.
        matched: clip n of every system meets only clip n of the others, as where all continue one picture.
        seed: of everything random.
    """

    kind: StudyKind = "pair"
    trials: int = 40
    pool: int | None = None
    noise: int = 4
    repeats: int = 4
    still: int = 0
    practice: int = 2
    matched: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Texts:
    """What raters read."""

    title: str
    question: str
    instructions: str
    consent: str = CONSENT


TEXTS: Mapping[StudyKind, Texts] = {
    "pair": Texts(
        "Two videos",
        "Which video is more realistic?",
        "You will see two short videos beside each other. They repeat until you answer. Choose the one that answers the "
        "question better; if you are not sure, choose what you would guess. The first few are for practice and are not "
        "counted.",
    ),
    "ranking": Texts(
        "Videos in order",
        "Order the videos, the most realistic first",
        "You will see some short videos beside each other. They repeat until you are done. Choose the best first, then the "
        "best of those that are left, until every video has its number; then confirm. If you are not sure, guess. The first "
        "few are for practice and are not counted.",
    ),
}
"""The usual texts."""


def design(materials: Sequence[Material], plan: Plan, texts: Texts | None = None) -> tuple[Study, list[Video]]:
    """Lay out a study.

    Args:
        materials: at least two systems in every category, three for a ranking, all of one frame size, length and rate.
        plan: how many trials.
        texts: what raters read; None takes the usual texts.

    Returns:
        The study, and the pixels of its clips in the order of `Study.clips`.

    Raises:
        EvaluationError: for too few or too many systems, systems that miss a category, names that do not work, clips that
            cannot stand beside each other, two systems with the same clips, or fewer trials than there are combinations of
            systems and categories.
    """
    texts = texts or TEXTS[plan.kind]
    systems, categories = _names(materials, plan.kind)
    shape, fps = _common_shape(materials)
    _refuse_twins(materials)
    dealer = _Dealer(materials, plan, shape)
    choices = 1 if plan.kind == "pair" else len(systems) - 1
    trials = dealer.trials(_combinations(systems, categories, plan))
    study = Study(
        id=dealer.random_name(8),
        kind=plan.kind,
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
        clips=tuple(dealer.clips),
        trials=trials,
        comparisons=plan.trials,
        repeats=plan.repeats,
        exclusion=ExclusionRules(median_seconds=round(SECONDS_PER_CHOICE * choices, 1)),
    )
    return _only_shown(study, dealer.pixels)


def place(system: str, category: str) -> str:
    """Return a system's name with its category, as it is typed on the command line."""
    return f"{system}/{category}" if category else system


def order_for(study: Study, rater: int) -> list[tuple[Trial, tuple[int, ...]]]:
    """Return a rater's trials in order, each with its clips from left to right.

    Practice comes first, a repetition after what it repeats. Comparisons are dealt like cards, rater by rater: they are shown
    equally often, up to one. Every time that one is shown its clips move on by a place, so that a preference for a place
    favours no clip.

    Args:
        study: whose trials.
        rater: number of the rater, from 1.
    """
    generator = np.random.default_rng([study.seed, rater])
    pool = study.of_kind("comparison")
    dealt = [divmod(number, len(pool)) for number in range((rater - 1) * study.comparisons, rater * study.comparisons)]
    turns = {pool[index].id: turn for turn, index in dealt}
    comparisons = [pool[index] for _, index in dealt]
    main = _shuffled([*comparisons, *study.of_kind("noise", "still")], generator)
    repetitions = {trial.repeats: trial for trial in study.of_kind("repeat")}
    late = main[max(0, len(main) - REPEAT_GAP) :]
    for original in sorted(_shuffled(comparisons, generator), key=late.__contains__)[: study.repeats]:
        repetition = repetitions[original.id]
        turns[repetition.id] = -turns[original.id]  # a reversed order turned backwards is the turned order, reversed
        earliest = min(main.index(original) + 1 + REPEAT_GAP, len(main))
        main.insert(int(generator.integers(earliest, len(main) + 1)), repetition)
    every = [*study.of_kind("practice"), *main]
    return [(trial, _turned(trial.clips, turns.get(trial.id, rater - 1))) for trial in every]


def _names(materials: Sequence[Material], kind: StudyKind) -> tuple[tuple[str, ...], tuple[str, ...]]:
    systems = tuple(dict.fromkeys(material.system for material in materials))
    categories = tuple(dict.fromkeys(material.category for material in materials))
    given = Counter((material.system, material.category) for material in materials)
    if twice := next((key for key, count in given.items() if count > 1), None):
        raise EvaluationError(f"{place(*twice)!r} is given twice; names must differ")
    if NOISE in systems:
        raise EvaluationError(f"no system can be called {NOISE!r}: it names the clips that catch careless raters")
    if len(systems) < 2:
        raise EvaluationError(f"a study compares at least two systems, not {len(systems)}; give NAME=SOURCE twice or more")
    if kind == "ranking" and len(systems) not in RANKED:
        raise EvaluationError(
            f"a ranking is of {RANKED[0]} to {RANKED[-1]} systems, not {len(systems)}; --kind pair compares any number"
        )
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


def _refuse_twins(materials: Sequence[Material]) -> None:
    """Refuse two systems that are one: by their clips, for one source may be called by several paths."""
    known: dict[tuple[str, frozenset[bytes]], Material] = {}
    for material in materials:
        clips = frozenset(hashlib.sha256(np.ascontiguousarray(clip).data).digest() for clip in material.clips)
        twin = known.setdefault((material.category, clips), material)
        if twin is not material:
            one, other = (place(same.system, same.category) for same in (twin, material))
            raise EvaluationError(
                f"{one!r} and {other!r} have the very same clips, so that nobody can prefer either; give each a source of its "
                "own (to try a source against itself, two folders of different clips of it)"
            )


def _said(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]} frames of {shape[2]}x{shape[1]} pixels"


def _combinations(systems: Sequence[str], categories: Sequence[str], plan: Plan) -> list[tuple[tuple[str, ...], str]]:
    """Return every choice of systems that can meet, with the category."""
    size = 2 if plan.kind == "pair" else len(systems)
    combinations = list(itertools.product(itertools.combinations(systems, size), categories))
    pool = plan.trials if plan.pool is None else plan.pool
    if pool < len(combinations):
        what = "pairs of systems and categories" if plan.kind == "pair" else "categories"
        raise EvaluationError(
            f"{pool} trials are too few for {len(combinations)} {what}; raise --trials, or let raters share more with --pool"
        )
    if pool < plan.trials:
        raise EvaluationError(f"a pool of {pool} trials is too small for {plan.trials} per rater; --pool is at least --trials")
    if plan.repeats > plan.trials:
        raise EvaluationError(f"{plan.trials} comparisons cannot give {plan.repeats} repetitions; lower --repeats")
    return combinations


class _Deck:
    """Deals the clips of one system evenly: all once in random order, then all once more."""

    def __init__(self, indices: Sequence[int], generator: np.random.Generator) -> None:
        self._indices, self._generator, self._left = list(indices), generator, list[int]()

    def draw(self) -> int:
        if not self._left:
            self._left = _shuffled(self._indices, self._generator)
        return self._left.pop()


class _Dealer:
    """Deals clips to trials."""

    def __init__(self, materials: Sequence[Material], plan: Plan, shape: tuple[int, int, int]) -> None:
        self._plan, self._generator = plan, np.random.default_rng(plan.seed)
        noise = [_noise(shape, self._generator) for _ in range(plan.noise + (plan.practice + 1) // 2)]
        self.pixels: list[Video] = [*(clip for material in materials for clip in material.clips), *noise]
        self._names = _name_generator(plan.seed, self.pixels)
        self.clips = [
            StudyClip(self._file(), material.system, material.category, number)
            for material in materials
            for number in range(len(material.clips))
        ]
        self._noise = iter(range(len(self.clips), len(self.pixels)))
        self.clips += [StudyClip(self._file(), NOISE, WHOLE, number) for number in range(len(noise))]
        self._places = {(material.system, material.category): material.places for material in materials}
        self._pool: dict[tuple[str, str], list[int]] = {(material.system, material.category): [] for material in materials}
        for index, clip in enumerate(self.clips):
            if clip.system != NOISE:
                self._pool[clip.system, clip.category].append(index)
        self._systems = list(dict.fromkeys(system for system, _ in self._pool))
        self._decks = {key: _Deck(indices, self._generator) for key, indices in self._pool.items()}
        self._items = {category: _Deck(self._numbers(category), self._generator) for _, category in self._pool}
        self._every = itertools.cycle(_shuffled(list(self._pool), self._generator))

    def random_name(self, size: int) -> str:
        """Return so many random bytes in hexadecimal digits."""
        return self._names.bytes(size).hex()

    def trials(self, combinations: Sequence[tuple[tuple[str, ...], str]]) -> tuple[Trial, ...]:
        """Return practice, comparisons, trials with noise, against still clips, and a repetition of every comparison."""
        plan = self._plan
        rounds = itertools.cycle(_shuffled(combinations, self._generator))
        arranged = self._arranged([next(rounds) for _ in range(plan.trials if plan.pool is None else plan.pool)])
        comparisons = [self._comparison("comparison", *group) for group in arranged]
        catches = [self._with_noise("noise", number) for number in range(plan.noise)]
        stills = [self._with_still() for _ in range(plan.still)]
        repeats = [Trial(self.random_name(6), "repeat", trial.clips[::-1], trial.id) for trial in comparisons if plan.repeats]
        practice = [
            self._comparison("practice", *arranged[number % len(arranged)])
            if number % 2
            else self._with_noise("practice", int(self._generator.integers(len(self._systems))))
            for number in range(plan.practice)
        ]
        return (*practice, *comparisons, *catches, *stills, *repeats)

    def _arranged(self, groups: Sequence[tuple[tuple[str, ...], str]]) -> list[tuple[tuple[str, ...], str]]:
        """Order the systems of every comparison: within a combination each stands at each place equally often, up to one."""
        orders: dict[tuple[tuple[str, ...], str], list[tuple[str, ...]]] = {}
        for (systems, category), count in Counter(groups).items():
            bases = [tuple(_shuffled(systems, self._generator)) for _ in range(math.ceil(count / len(systems)))]
            turned = [_turned(base, turn) for base in bases for turn in range(len(systems))]
            orders[systems, category] = _shuffled(turned[:count], self._generator)
        return [(orders[systems, category].pop(), category) for systems, category in groups]

    def _comparison(self, kind: TrialKind, systems: Sequence[str], category: str) -> Trial:
        return Trial(self.random_name(6), kind, tuple(self._draw(systems, category)))

    def _with_noise(self, kind: TrialKind, place: int) -> Trial:
        """In a ranking the noise takes the place of one system, each in turn."""
        system, category = next(self._every)
        others = [system] if self._plan.kind == "pair" else [other for other in self._systems if other != system]
        clips = self._draw(_shuffled(others, self._generator), category)
        clips.insert(place % (len(clips) + 1), next(self._noise))
        return Trial(self.random_name(6), kind, tuple(clips))

    def _with_still(self) -> Trial:
        index = self._decks[next(self._every)].draw()
        self.clips.append(replace(self.clips[index], file=self._file(), still=True))
        self.pixels.append(np.repeat(self.pixels[index][:1], len(self.pixels[index]), axis=0))
        return Trial(self.random_name(6), "still", tuple(_shuffled([index, len(self.clips) - 1], self._generator)))

    def _draw(self, systems: Sequence[str], category: str) -> list[int]:
        if not self._plan.matched:
            return [self._decks[system, category].draw() for system in systems]
        number = self._items[category].draw()
        return [self._pool[system, category][number] for system in systems]

    def _numbers(self, category: str) -> list[int]:
        counts = {system: len(indices) for (system, other), indices in self._pool.items() if other == category}
        if self._plan.matched and len(set(counts.values())) > 1:
            said = ", ".join(f"{place(system, category)} {count}" for system, count in counts.items())
            raise EvaluationError(f"matched clips need as many of every system; there are {said}")
        first, *others = counts
        unlike = [other for other in others if self._places[other, category] != self._places[first, category]]
        if self._plan.matched and unlike:
            raise EvaluationError(
                f"matched clips stand at one place in every source, and of {place(unlike[0], category)} others were drawn than "
                f"of {place(first, category)}; give sources of equally many clips"
            )
        return list(range(min(counts.values())))

    def _file(self) -> str:
        return f"{self.random_name(12)}.mp4"


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
    shown = sorted({index for trial in study.trials for index in trial.clips})
    place_of = {index: number for number, index in enumerate(shown)}
    trials = tuple(replace(trial, clips=tuple(place_of[index] for index in trial.clips)) for trial in study.trials)
    return replace(study, clips=tuple(study.clips[index] for index in shown), trials=trials), [pixels[i] for i in shown]


def _turned(items: tuple[ItemT, ...], turn: int) -> tuple[ItemT, ...]:
    """Move everything on by so many places, and what falls off the end to the beginning."""
    cut = len(items) - turn % len(items)
    return items[cut:] + items[:cut]


def _shuffled(items: Sequence[ItemT], generator: np.random.Generator) -> list[ItemT]:
    return [items[index] for index in generator.permutation(len(items))]
