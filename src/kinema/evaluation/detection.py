"""Is a video synthesised? A trained detector over all windows of a video, calibrated and measured on people it has not seen.

The held-out subjects are divided: the videos of one part decide how evidence becomes a probability, those of the other part say
how often that is wrong. Both stand in the checkpoint, the first as buffers, the second among what it says about its data.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.special import expit

from kinema.core.errors import DataError, EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.core.shape import ClipShape
from kinema.data.dataset import Dataset
from kinema.evaluation.calibration import (
    Scores,
    Truth,
    area_interval,
    area_under_roc,
    as_extreme,
    calibration_error,
    platt,
    reliability,
    wilson,
)
from kinema.systems.fake_detector import FakeDetector
from kinema.training.checkpoint import load_checkpoint, provenance, resolve, save_checkpoint

REAL, FAKE = "real", "fake"
AT_ONCE = 64  # windows
FOUND = "detection"  # under which a checkpoint says what was measured
FEW = 10  # subjects
CLEARLY = 0.1  # by which errors, false alarms and misses together, have to be fewer to be worth a word
LEVEL = 0.05  # share of real videos called fake, where real videos of the camera decide and not the calibration

Frame = UInt8[np.ndarray, "H W 3"]
Evidence = Float[np.ndarray, "_"]  # of the windows of a video
Said = Callable[[str, int, int], None]


@dataclass
class Detector:
    """A trained detector.

    Attributes:
        name: as the user calls the run.
        file: its checkpoint.
        system: the network, on its device.
        metadata: what the checkpoint says about itself.
    """

    name: str
    file: Path
    system: FakeDetector
    metadata: Any
    device: torch.device

    @property
    def shape(self) -> ClipShape:
        """Shape of a window."""
        return self.system.clip_shape

    @property
    def calibrated(self) -> bool:
        """Whether its probabilities mean anything."""
        return bool(self.system.calibrated)

    @property
    def measured(self) -> dict[str, Any] | None:
        """What was measured on subjects that it had not seen, as JSON values."""
        return self.metadata.dataset.get(FOUND)

    @property
    def fake_first(self) -> bool:
        """Whether class 1 is the real one."""
        return self.metadata.dataset["labels"][0] == FAKE

    def evidence(self, frames: Iterable[Frame]) -> Evidence:
        """Return how much each window of a video speaks for fake; windows follow each other, a rest at the end is not seen."""
        found: list[Evidence] = []
        windows: list[np.ndarray] = []
        held: list[Frame] = []
        for frame in frames:
            held.append(frame)
            if len(held) == self.shape.frames:
                windows.append(np.stack(held))
                held = []
            if len(windows) == AT_ONCE:
                found.append(self._judge(windows))
                windows = []
        if windows:
            found.append(self._judge(windows))
        return np.concatenate(found) if found else np.zeros(0)

    def windows(self, evidence: Scores) -> Scores:
        """Return the probability that a window is fake, for every one of them."""
        return self._probability(evidence, 0)

    def video(self, evidence: Scores) -> float:
        """Return the probability that a video is fake, from the evidence of its windows."""
        return float(self._probability(evidence.mean(keepdims=True), 1)[0])

    def calibrate(self, window: tuple[float, float], video: tuple[float, float]) -> None:
        """Set slope and intercept of the log-odds of being fake, for a window and for the mean of a video."""
        sign = -1 if self.fake_first else 1  # the system's are those of class 1, and its evidence has changed its sign already
        self.system.calibrate((window[0], sign * window[1]), (video[0], sign * video[1]))

    @torch.inference_mode()
    def _judge(self, windows: Sequence[np.ndarray]) -> Float[np.ndarray, "N"]:
        pixels = torch.from_numpy(np.stack(windows)).to(self.device)
        evidence = self.system.evidence(pixels.permute(0, 4, 1, 2, 3).div(127.5).sub(1)).double().cpu().numpy()
        return -evidence if self.fake_first else evidence

    def _probability(self, evidence: Scores, row: int) -> Scores:
        slope, intercept = self.system.calibration[row].double().tolist()
        return expit(slope * evidence + (-intercept if self.fake_first else intercept))


@dataclass(frozen=True)
class Judged:
    """Videos whose truth is known, and what the detector found.

    Attributes:
        evidence: per video, of its windows.
        fake: truth per video.
        subjects: who is in each video.
        sources: the file of each.
    """

    evidence: list[Evidence]
    fake: Truth
    subjects: list[str]
    sources: list[str]

    @property
    def means(self) -> Scores:
        """Mean evidence per video."""
        return np.array([windows.mean() for windows in self.evidence])

    def of(self, subjects: frozenset[str]) -> "Judged":
        """Return the videos of some subjects."""
        rows = [row for row, subject in enumerate(self.subjects) if subject in subjects]
        chosen = ([self.evidence[row] for row in rows], self.fake[rows])
        return Judged(*chosen, [self.subjects[row] for row in rows], [self.sources[row] for row in rows])

    def per_window(self) -> tuple[Scores, Truth]:
        """Return evidence and truth of all windows."""
        return np.concatenate(self.evidence), np.repeat(self.fake, [len(windows) for windows in self.evidence])


@dataclass(frozen=True)
class Videos:
    """The videos of a dataset: indices of their clips in order, with class, subject and file."""

    dataset: Dataset
    clips: list[list[int]] = field(default_factory=list)
    fake: list[bool] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


def open_detector(run: str, device: torch.device) -> Detector:
    """Open a run of a detector.

    Raises:
        CheckpointError: for a run that is missing, damaged, or of another system.
        EvaluationError: when it was trained on other labels than real and fake.
    """
    file = resolve(run)
    checkpoint = load_checkpoint(file, system_name=FakeDetector.name)
    labels = tuple(checkpoint.metadata.dataset.get("labels", ()))
    if sorted(labels) != [FAKE, REAL]:
        named = ", ".join(labels) or "none"
        raise EvaluationError(
            f"{run} was trained on the labels {named}; a detector of fakes is trained on the labels real and fake"
        )
    system: Any = checkpoint.system.to(device)
    return Detector(run, file, system, checkpoint.metadata, device)


def open_held_out(detector: Detector, data: Path) -> Videos:
    """Open the test split of the data that a detector was trained on, or refuse it.

    Raises:
        DataError: for a dataset that is missing or damaged.
        EvaluationError: for other labels or sizes, clips without subjects, nothing held out, a subject in both splits, or a run
            that was trained on other clips, or on these too.
    """
    every = Dataset(data)
    _refuse_unlike(detector, every, both=True)
    records = [every.record(index) for index in range(len(every))]
    nobody = next((record for record in records if record.group is None), None)
    if nobody is not None:
        raise EvaluationError(f"{nobody.source} of {data} has no subject; prepare the footage with --group, and --split 0.4")
    splits = {split: {r.group for r in records if r.split == split} for split in ("train", "test")}
    if not splits["test"] or not splits["train"]:
        raise EvaluationError(f"{data} holds nobody out, so that nothing can be measured; prepare it with --split 0.4")
    if both := sorted(str(group) for group in splits["train"] & splits["test"]):
        raise EvaluationError(
            f"the subject {both[0]!r} of {data} is in both splits{f', and {len(both) - 1} more' if len(both) > 1 else ''}: the "
            "detector may know who is fake, and not what; prepare it with --group and --split"
        )
    trained = detector.metadata.dataset
    if trained.get("fingerprint") != every.fingerprint:
        raise EvaluationError(
            f"{detector.name} was trained on {trained.get('path')} and not on {data}, so that nobody knows whom of it was "
            "seen; give the dataset that it was trained on, or --as-is to measure it on others"
        )
    if trained.get("split") != "train":
        raise EvaluationError(
            f"{detector.name} was trained on the split {trained.get('split')!r} of {data}, people who are held out among them; "
            "train it with --split train"
        )
    return _videos(Dataset(data, "test"))


def open_others(detector: Detector, data: Path) -> Videos:
    """Open videos of other people or of another generator: the test split of a dataset, or all of it where it has none.

    Raises:
        DataError: for a dataset that is missing or damaged.
        EvaluationError: for a run that is not calibrated, the dataset it was trained on, videos out of that one as far as it is
            still there, or other labels or sizes.
    """
    if not detector.calibrated:
        raise EvaluationError(f"{detector.name} is not calibrated; first: kinema detect-fake evaluate {detector.name} DATA")
    every = Dataset(data)
    _refuse_unlike(detector, every, both=False)
    if detector.metadata.dataset.get("fingerprint") == every.fingerprint:
        raise EvaluationError(f"{detector.name} was trained on {data}; --as-is measures it on other videos: leave it out")
    splits = {every.record(index).split for index in range(len(every))}
    videos = _videos(Dataset(data, "test") if "test" in splits else every)
    if known := _known(detector, videos):
        raise EvaluationError(
            f"{len(known)} of {len(videos.sources)} videos of {data} are among those that {detector.name} was trained on, such "
            f"as {known[0]}; leave them out"
        )
    return videos


def judge(detector: Detector, videos: Videos, said: Said = lambda what, done, total: None) -> Judged:
    """Let a detector look at videos, clip after clip; windows do not reach over the end of a clip."""
    found: list[Evidence] = []
    for clips in videos.clips:
        found.append(np.concatenate([detector.evidence(videos.dataset.video(index)) for index in clips]))
        said("looking at videos", len(found), len(videos.clips))
    return Judged(found, np.array(videos.fake), videos.subjects, videos.sources)


def divide(videos: Videos | Judged, data: Path, seed: int = 0) -> tuple[frozenset[str], frozenset[str]]:
    """Divide subjects into those that calibrate and those that measure, with real and fake videos in both parts.

    Subjects with the same classes (real alone, fake alone, both) take turns in a random order, those that measure first.

    Args:
        videos: held out.
        data: of the videos, for the message.
        seed: of the order, 0 or more.

    Raises:
        EvaluationError: when one part would lack a class.
    """
    classes: defaultdict[str, set[bool]] = defaultdict(set)
    for subject, fake in zip(videos.subjects, videos.fake, strict=True):
        classes[subject].add(bool(fake))
    for fake, name in ((False, REAL), (True, FAKE)):
        have = sorted(subject for subject, own in classes.items() if fake in own)
        if len(have) < 2:
            whom = f"of {have[0]!r} alone" if have else "of nobody"
            raise EvaluationError(
                f"the held-out videos of {data} that are {name} are {whom}; at least two subjects are needed, one to calibrate "
                "and one to measure: hold out more with --split"
            )
    parts: tuple[set[str], set[str]] = (set(), set())
    first = 0
    for number, kind in enumerate(({False, True}, {False}, {True})):
        own = sorted(subject for subject, has in classes.items() if has == kind)
        for place, subject in enumerate(numpy_generator(seed, number).permutation(own).tolist()):
            parts[(first + place) % 2].add(subject)
        if number == 0:
            first = len(own) % 2  # the part that has one subject less begins, or it might get none of a class
    return frozenset(parts[1]), frozenset(parts[0])


def fit(detector: Detector, judged: Judged) -> None:
    """Calibrate a detector on videos whose truth is known."""
    scores, truth = judged.per_window()
    detector.calibrate(platt(scores, truth), platt(judged.means, judged.fake))


def measure(detector: Detector, judged: Judged) -> dict[str, Any]:
    """Return error rates, area under the ROC curve and calibration on videos whose truth is known, as JSON values.

    A video is called fake from a probability of one half on. Where there are only real or only fake videos, what needs the
    others is None.
    """
    probabilities = np.array([detector.video(windows) for windows in judged.evidence])
    called, fake = probabilities >= 0.5, judged.fake
    windows, window_truth = judged.per_window()
    called_windows = detector.windows(windows) >= 0.5
    both = bool(fake.any() and not fake.all())
    bins = reliability(probabilities, fake) if both else []
    interval = area_interval(judged.means, fake, judged.subjects) if both else None
    known = judged.means[~fake]
    shares = np.array([as_extreme(score, known) for score in judged.means])
    return {
        "videos": {REAL: int((~fake).sum()), FAKE: int(fake.sum())},
        "subjects": {
            name: len({s for s, f in zip(judged.subjects, fake, strict=True) if f == wanted})
            for name, wanted in ((REAL, False), (FAKE, True))
        },
        "all subjects": len(set(judged.subjects)),
        "false alarms": _errors(called, ~fake),
        "misses": _errors(~called, fake),
        "misses beside real": _errors(shares > LEVEL, fake) if len(known) >= 1 / LEVEL - 1 else None,
        "accuracy": wilson(int((called == fake).sum()), len(fake)).as_json(),
        "area under roc": area_under_roc(judged.means, fake) if both else None,
        "area interval": interval,
        "calibration error": calibration_error(bins) if both else None,
        "reliability": [asdict(part) for part in bins],
        "windows": {
            "count": len(windows),
            "accuracy": float((called_windows == window_truth).mean()),
            "area under roc": area_under_roc(windows, window_truth) if both else None,
        },
        "probabilities": [
            {"source": source, "subject": subject, "fake": bool(truth), "probability": float(probability)}
            for source, subject, truth, probability in zip(judged.sources, judged.subjects, fake, probabilities, strict=True)
        ],
    }


def store(detector: Detector, found: dict[str, Any]) -> None:
    """Write the calibration into the checkpoint of a run, and beside it what was measured.

    Raises:
        CheckpointError: when the file cannot be written; the old one is then untouched.
    """
    old = detector.metadata
    short = {name: value for name, value in found.items() if name not in ("reliability", "probabilities")}
    dataset = {**old.dataset, FOUND: short}
    save_checkpoint(
        detector.file, detector.system, stage=old.stage, steps=old.steps, dataset=dataset, provenance=old.provenance
    )


def report(detector: Detector, videos: Videos, found: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return everything that a reader of the numbers may ask for, as JSON values."""
    trained = {name: detector.metadata.dataset.get(name) for name in ("path", "fingerprint", "clips")}
    return {
        "detector": detector.name,
        "steps": detector.metadata.steps,
        "config": asdict(detector.system.config),
        "checkpoint sha256": hashlib.sha256(detector.file.read_bytes()).hexdigest(),
        "trained on": trained,
        "data": {"path": str(videos.dataset.path), "fingerprint": videos.dataset.fingerprint},
        **more,
        "measured": found,
        "notes": notes(found),
        "provenance": provenance(),
    }


def notes(found: dict[str, Any]) -> list[str]:
    """Say in words what a reader of the numbers has to know."""
    said = [
        "It knows the generator and the footage that it was trained on; what other generators make may pass for real, and "
        "other cameras for fake.",
        "The probability is that of even odds: as many videos fake as real. Where fakes are rare, most alarms are false ones.",
    ]
    if found["all subjects"] < FEW:
        whom = f"{found['all subjects']} subject{'s' * (found['all subjects'] != 1)}"
        said.append(f"Intervals take videos as independent; they are of {whom}, so that the truth may lie further out.")
    beside = found.get("misses beside real")
    if beside and found["false alarms"]["share"] + found["misses"]["share"] > LEVEL + beside["share"] + CLEARLY:
        said.append(
            "The calibration does not hold here. Real videos of the same camera would decide better: kinema detect-fake RUN "
            "VIDEO --real FOLDER."
        )
    area = found["area under roc"]
    if area is not None and area < 0.4:
        said.append(
            "What is real looks more fake to it here than the fakes do: it learnt whom it saw, and not what is made. Train it "
            "on more subjects."
        )
    elif area is not None and area < 0.6:
        said.append("It hardly tells real from fake here: a coin would do nearly as well.")
    return said


def _errors(wrong: Truth, among: Truth) -> dict[str, Any] | None:
    return wilson(int((wrong & among).sum()), int(among.sum())).as_json() if among.any() else None


def _refuse_unlike(detector: Detector, clips: Dataset, *, both: bool) -> None:
    labels = set(clips.info.labels) if clips.labels is not None else set[str]()
    if not labels or labels - {REAL, FAKE} or (both and len(labels) < 2):
        named = ", ".join(clips.info.labels) or "none"
        wanted = "real and fake" if both else "real or fake"
        raise EvaluationError(f"{clips.path} has the labels {named}; videos to measure a detector on are labelled {wanted}")
    has, wants = clips.shape, detector.shape
    if (has.height, has.width) != (wants.height, wants.width) or has.frames < wants.frames:
        raise EvaluationError(
            f"{clips.path} has clips of {has} and {detector.name} looks at windows of {wants} (frames x height x width); "
            "prepare clips of that size"
        )


def _known(detector: Detector, videos: Videos) -> list[str]:
    """Return the videos of which most frames are, to the bit, in the clips that a detector was trained on."""
    trained = detector.metadata.dataset
    try:
        clips = Dataset(Path(trained["path"]), None if trained.get("split") == "all" else trained.get("split"))
    except (DataError, KeyError):
        return []  # it is gone
    if clips.fingerprint != trained.get("fingerprint"):
        return []
    seen = {digest for index in range(len(clips)) for digest in _digests(clips, index)}
    found = []
    for source, indices in zip(videos.sources, videos.clips, strict=True):
        digests = [digest for index in indices for digest in _digests(videos.dataset, index)]
        if sum(digest in seen for digest in digests) > len(digests) / 2:
            found.append(source)
    return found


def _digests(clips: Dataset, index: int) -> list[bytes]:
    return [hashlib.blake2b(frame.tobytes(), digest_size=16).digest() for frame in clips.video(index)]


def _videos(dataset: Dataset) -> Videos:
    """Group the clips of a dataset by class, subject and file."""
    found: defaultdict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for index in range(len(dataset)):
        record = dataset.record(index)
        found[str(record.label), record.group or record.source, record.source].append((record.first_frame, index))
    videos = Videos(dataset)
    for (label, subject, source), clips in sorted(found.items()):
        videos.clips.append([index for _, index in sorted(clips)])
        videos.fake.append(label == FAKE)
        videos.subjects.append(subject)
        videos.sources.append(source)
    return videos
