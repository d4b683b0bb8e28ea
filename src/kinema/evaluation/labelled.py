"""Labelled clips divided into training and test, without leaks, and the part of them whose labels are used.

Clips of one video are alike, and so are videos of one group (a person, a camera): whoever trains on some of them and tests on
the others measures memory. So whole groups are held out; `within` holds out the end of every video instead.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from kinema.core.errors import EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.data.dataset import Dataset

DIVIDING, LABELLING = 11, 12  # what a seed is used for


@dataclass(frozen=True)
class Labelled:
    """Labelled clips.

    Attributes:
        dataset: the clips.
        labels: class index of every clip.
        videos: the file that every clip was cut from; a clip that was made up is one of its own.
        groups: the person, scene or tape of every clip; the video where the dataset names none.
        firsts: first frame of every clip in its video.
        splits: as the dataset was prepared, "train" or "test".
    """

    dataset: Dataset
    labels: Int64[np.ndarray, "N"]
    videos: tuple[str, ...]
    groups: tuple[str, ...]
    firsts: tuple[int, ...]
    splits: tuple[str, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.dataset.info.labels


@dataclass(frozen=True)
class Division:
    """Clips to train and to test on.

    Attributes:
        training: indices of clips.
        test: indices of clips.
        about: what is held out, in words.
        left_out: clips that share frames with test clips, and are in neither.
    """

    training: tuple[int, ...]
    test: tuple[int, ...]
    about: str
    left_out: int = 0


def open_labelled(path: Path) -> Labelled:
    """Open a dataset whose clips have classes.

    Raises:
        DataError: for a dataset that is missing or damaged.
        EvaluationError: without labels, with one class only, or with a class that has a single clip or none.
    """
    dataset = Dataset(path)
    if dataset.labels is None:
        raise EvaluationError(f"{path} has clips without a label; prepare it with --labels (kinema prepare --help)")
    names = list(dataset.info.labels)
    counts = np.bincount(dataset.labels, minlength=len(names))
    if len(names) < 2:
        raise EvaluationError(f"{path} has the one class {names[0]!r}; to recognise means to tell two classes or more apart")
    if counts.min() < 2:
        few, count = names[int(counts.argmin())], int(counts.min())
        raise EvaluationError(
            f"the class {few!r} of {path} has {count} clip{'s' * (count != 1)}; a class needs one to train on and one to test "
            "on: prepare it with a smaller --stride, or leave the class out"
        )
    records = [dataset.record(index) for index in range(len(dataset))]
    beginnings = Counter((record.source, record.first_frame) for record in records)  # those made up all begin alike
    videos = [record.source if beginnings[record.source, record.first_frame] == 1 else record.key for record in records]
    return Labelled(
        dataset,
        dataset.labels,
        videos=tuple(videos),
        groups=tuple(record.group or video for record, video in zip(records, videos, strict=True)),
        firsts=tuple(record.first_frame for record in records),
        splits=tuple(record.split for record in records),
    )


def divide(clips: Labelled, seed: int, *, held_out: float = 0.3, within: bool = False) -> Division:
    """Hold clips out: the dataset's own test split, or else whole groups; `within` groups the end of every video.

    A test split of other groups is not what `within` asks for, and set aside then; one of the same groups is.

    Args:
        clips: labelled clips.
        seed: each holds out other groups, in turn; 0 or more.
        held_out: share of the groups, or of every video, in (0, 1).
        within: test on the end of the same videos.

    Raises:
        EvaluationError: a group is in both splits, all clips are of one group, or a class has no clip to train on.
    """
    prepared, leaks = _as_prepared(clips)
    if leaks and not within:
        raise EvaluationError(
            f"the group {leaks[0]!r} of {clips.dataset.path} is in both splits"
            f"{f', and {len(leaks) - 1} more' if len(leaks) > 1 else ''}: who is recognised may be the group; prepare it "
            "with --group, or ask for --within"
        )
    if prepared and (leaks or not within):
        division = prepared
    elif within:
        division = _by_time(clips, held_out)
    else:
        division = _by_group(clips, seed, held_out)
    counts = np.bincount(clips.labels[list(division.training)], minlength=len(clips.classes))
    if counts.min() == 0:
        name = clips.classes[int(counts.argmin())]
        raise EvaluationError(f"with {division.about} held out, the class {name!r} has no clip to train on; leave it out")
    return division


def described(clips: Labelled, division: Division) -> str:
    """Say what is held out, and which classes have no clip there."""
    videos = len({clips.videos[index] for index in division.test})
    seen = {int(clips.labels[index]) for index in division.test}
    absent = [name for number, name in enumerate(clips.classes) if number not in seen]
    said = f"{division.about}, {len(division.test):,} clips of {videos:,} video{'s' * (videos != 1)}"
    if not absent:
        return said
    names = ", ".join(absent if len(absent) <= 4 else (*absent[:4], "..."))
    return f"{said}; {len(absent)} of {len(clips.classes)} classes have no clip there ({names})"


def portion(clips: Labelled, training: Sequence[int], fraction: float, seed: int, *, spread: bool = False) -> tuple[int, ...]:
    """Return the clips whose labels are used: of every class this fraction, and at least one.

    Whole videos in a random order, the last of them from its beginning: what is labelled is that share of the footage, not
    a few clips out of every video. With one seed, a smaller fraction is part of a larger one.

    Args:
        clips: labelled clips.
        training: indices of the clips to choose from, with every class among them.
        fraction: in (0, 1].
        seed: of the order, 0 or more.
        spread: take clips at random instead, out of all videos: a few labels for each of many people.
    """
    chosen: list[int] = []
    for label in range(len(clips.classes)):
        own = [index for index in training if clips.labels[index] == label]
        units = sorted(own) if spread else sorted({clips.videos[index] for index in own})
        place = dict(zip(units, numpy_generator(seed, LABELLING, label).permutation(len(units)).tolist(), strict=True))
        own.sort(key=lambda index: (place[index if spread else clips.videos[index]], clips.firsts[index]))
        chosen += own[: max(1, round(fraction * len(own)))]
    return tuple(sorted(chosen))


def _as_prepared(clips: Labelled) -> tuple[Division | None, list[str]]:
    """Return the dataset's own division, if it has both splits, and the groups that are in both."""
    training, test = (tuple(i for i, split in enumerate(clips.splits) if split == name) for name in ("train", "test"))
    leaks = sorted({clips.groups[index] for index in training} & {clips.groups[index] for index in test})
    return Division(training, test, "the dataset's own test split") if training and test else None, leaks


def _by_group(clips: Labelled, seed: int, held_out: float) -> Division:
    """Hold out the next few groups of a fixed random order, so that seeds take turns."""
    names = sorted(set(clips.groups))
    if len(names) < 2:
        raise EvaluationError(
            f"all clips of {clips.dataset.path} are of one group, {names[0]!r}: none can be held out; ask for --within"
        )
    order = [names[place] for place in numpy_generator(DIVIDING).permutation(len(names))]
    count = min(len(names) - 1, max(1, round(held_out * len(names))))
    test = {order[(seed * count + place) % len(names)] for place in range(count)}
    training = tuple(index for index, group in enumerate(clips.groups) if group not in test)
    shown = ", ".join(sorted(test)) if count <= 4 else f"{count} of {len(names)}"
    return Division(
        training, tuple(i for i, group in enumerate(clips.groups) if group in test), f"group{'s' * (count > 1)} {shown}"
    )


def _by_time(clips: Labelled, held_out: float) -> Division:
    """Hold out the last clips of every video, and leave out those that share frames with them."""
    videos: defaultdict[str, list[int]] = defaultdict(list)
    for index in sorted(range(len(clips.videos)), key=lambda index: clips.firsts[index]):
        videos[clips.videos[index]].append(index)
    frames = clips.dataset.shape.frames
    training, test, left_out = list[int](), list[int](), 0
    for own in videos.values():
        count = min(len(own) - 1, max(1, round(held_out * len(own))))
        first, last = own[: len(own) - count], own[len(own) - count :]
        kept = [index for index in first if not last or clips.firsts[index] + frames <= clips.firsts[last[0]]]
        training, test, left_out = training + kept, test + last, left_out + len(first) - len(kept)
    if not test:
        raise EvaluationError(
            f"every video of {clips.dataset.path} is a single clip, so that no end of it can be held out; ask for no --within"
        )
    return Division(tuple(sorted(training)), tuple(sorted(test)), "the end of every video", left_out)
