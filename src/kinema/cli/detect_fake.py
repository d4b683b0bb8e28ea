"""``kinema detect-fake RUN VIDEO``: is it synthesised? ``evaluate``: how often is that wrong? ``real``: real examples."""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.cli.inputs import media_files, usable
from kinema.cli.terminal import Progress, print_table
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError

if TYPE_CHECKING:
    from kinema.data.media import MediaInfo
    from kinema.evaluation.calibration import Scores
    from kinema.evaluation.detection import Detector, Judged, Videos

USAGE = """usage: kinema detect-fake RUN VIDEO...
       kinema detect-fake evaluate RUN DATA
       kinema detect-fake real DATA --out FOLDER

Is a video synthesised? Asked of a trained fake-detector.

  RUN VIDEO...   the probability that each video is fake, and how often such answers are wrong (--json: window by window);
                 --real FOLDER: is it like real videos of the same camera?
  evaluate       calibrate a run and measure it, on people that it has not seen (--as-is: only measure, on other videos)
  real           write clips of a dataset as kinema generate writes made ones, to train a detector on both

kinema detect-fake RUN --help, kinema detect-fake evaluate --help and kinema detect-fake real --help explain the options.
"""
CUT = 10.0  # FFmpeg's scene score from which on a new shot begins, as kinema prepare takes it
UNLIKE_RATE = 1.1  # times as many frames per second, or as few, are worth a word

Run = Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class Detect(Config):
    """Say with which probability videos are synthesised, and how often such answers were wrong when they were measured."""

    run: Run
    """Run directory or checkpoint of a fake-detector, calibrated by kinema detect-fake evaluate."""
    videos: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="VIDEO...", help_behavior_hint="")]
    """Video files."""
    real: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER|VIDEO...")] = ()
    """Videos of the same camera that are known to be real. Their evidence, and not the calibration, decides: the one of another
    camera may call all of them fake."""
    false_alarms: float = 0.05
    """Share of real videos that may be called fake, with --real: a verdict takes 1/SHARE - 1 of them, here 19."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON, with the probability of every window."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse a share that is none."""
        self.require(0 < self.false_alarms < 1, "false_alarms", "between 0 and 1, both left out")
        if not self.real and self.false_alarms != type(self).false_alarms:
            raise ConfigError("--false-alarms is decided by real videos; give them with --real")


@dataclass(frozen=True, kw_only=True)
class Evaluate(Config):
    """Calibrate a fake-detector on some of the subjects that it has not seen, and measure its error rates on the others."""

    run: Run
    """Run directory or checkpoint of a fake-detector."""
    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """The dataset that it was trained on: labels real and fake, subjects as groups, some of them in the test split."""
    as_is: bool = False
    """Only measure, on videos of another kind: the run and its calibration stay as they are, and DATA is another dataset."""
    seed: int = 0
    """Of the division of the held-out subjects into those that calibrate and those that measure."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for report.html and report.json. Default: RUN/detection, with --as-is RUN/detection-DATA."""
    overwrite: bool = False
    """Replace reports that exist."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""

    def check(self) -> None:
        """Refuse a seed that is none."""
        self.require(self.seed >= 0, "seed", "0 or more")
        if self.as_is and self.seed:
            raise ConfigError("--as-is measures everybody, and --seed divides them; leave out one of them")


@dataclass(frozen=True, kw_only=True)
class Real(Config):
    """Write clips of a dataset as files, encoded as kinema generate encodes: else a detector learns the encoder."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA", help_behavior_hint="")]
    """Prepared dataset of real footage, such as the one that the generator was trained on."""
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
    """Folder for SUBJECT/CLIP.mp4; a subject is a group of the dataset, or a piece of footage where it has no groups."""
    count: int = 16
    """Clips of each subject at most, evenly spread."""
    overwrite: bool = False
    """Replace files that exist."""

    def check(self) -> None:
        """Refuse a count of none."""
        self.require(self.count >= 1, "count", "1 or more")


def run(arguments: list[str]) -> int:
    """Run ``kinema detect-fake``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return 0
    action = {"evaluate": evaluate, "real": real}.get(arguments[0])
    return action(arguments[1:]) if action else detect(arguments)


# --- A video -----------------------------------------------------------------------------------------------------------------


def detect(arguments: list[str]) -> int:
    """Run ``kinema detect-fake RUN VIDEO...``."""
    options = parse(Detect, arguments, "detect-fake")
    if not options.videos:
        raise ConfigError("detect-fake wants a run and videos, and no video is named; kinema detect-fake RUN VIDEO...")
    from kinema.evaluation.detection import notes, open_detector
    from kinema.evaluation.detection_page import sentence
    from kinema.training.distributed import choose_device

    detector = open_detector(options.run, choose_device(options.device))
    measured = detector.measured
    if not detector.calibrated or measured is None:
        raise EvaluationError(
            f"{options.run} is not calibrated, so that its evidence is no probability; first: kinema detect-fake evaluate "
            f"{options.run} DATA"
        )
    real = _known(detector, measured, options)
    found = usable(options.videos, lambda path: examine(detector, measured, path))
    if not found:
        return 2
    status = int(len(found) < len(options.videos))
    if real:
        for facts in found:
            _compare(facts, real, options.false_alarms)
    if options.as_json:
        about = {"detector": options.run, "measured": measured, "notes": notes(measured), "real": real}
        print(json.dumps({**about, "videos": found}, indent=2))
        return status
    for facts in found:
        print("\n".join(_words(facts, detector.shape.frames)))
    print(f"\nwhen measured ({measured['data']}): {sentence(measured)}")
    for note in notes(measured):
        print(f"- {note}")
    return status


def examine(detector: "Detector", measured: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what is known about a video, as JSON values.

    Raises:
        MediaError: for a file that cannot be read, or is damaged.
        EvaluationError: for a video without a single window in any of its shots.
    """
    from kinema.data.media import cover, probe
    from kinema.data.tags import signature

    info = probe(path)
    shape, prepared = detector.shape, measured["preparation"]
    shots = list(_shots(detector, info, prepared))
    if not any(len(evidence) for _, evidence in shots):
        longest = max((frames for frames, _ in shots), default=0)
        raise EvaluationError(
            f"{path} has at most {longest} frame{'s' * (longest != 1)} without a cut, and {detector.name} looks at "
            f"{shape.frames} that follow each other; give a longer video"
        )
    evidence = _joined([evidence for _, evidence in shots])
    rate, notes = prepared["fps"] or (float(info.fps) if info.fps else None), list[str]()
    if (info.width, info.height) != (shape.width, shape.height):
        cropped = prepared["fit"] == "crop" and cover(shape.width, shape.height)(info.width, info.height) != (
            shape.width,
            shape.height,
        )
        notes.append(
            f"{info.width}x{info.height} was resized{' and cropped' if cropped else ''} to {shape.width}x{shape.height}, which "
            "takes away some of what a generator leaves behind"
        )
    usual = float(detector.metadata.dataset.get("fps") or 0)
    if rate and usual and not 1 / UNLIKE_RATE <= rate / usual <= UNLIKE_RATE:
        notes.append(f"it has {rate:g} frames per second, and the detector was trained at {usual:g}")
    return {
        "video": str(path),
        "says": signature(info.metadata),
        "size": f"{info.width}x{info.height}",
        "evidence": float(evidence.mean()),
        "probability": detector.video(evidence),
        "windows": _windows(detector, shots, rate),
        "notes": notes,
    }


def _shots(detector: "Detector", info: "MediaInfo", prepared: dict[str, Any]) -> Iterator[tuple[int, "Scores"]]:
    """Yield frames and evidence of every shot, decoded and resized as the clips were that the detector was trained on."""
    from kinema.data.cutting import fitted
    from kinema.data.media import read_frames, resample, scaled_to
    from kinema.data.shots import number_shots

    shape = detector.shape
    resize = scaled_to(prepared["fit"], shape.width, shape.height)
    frames = 0

    def pictures(shot: Iterator[Any]) -> Iterator[Any]:
        nonlocal frames
        for image in resample(shot, prepared["fps"]):
            frames += 1
            yield fitted([image], shape.width, shape.height, resize)[0]

    numbered = number_shots(read_frames(info, resize=resize), CUT)
    for _, shot in groupby(numbered, key=itemgetter(0)):
        frames = 0
        evidence = detector.evidence(pictures(frame for _, frame in shot))
        yield frames, evidence


def _windows(detector: "Detector", shots: Sequence[tuple[int, "Scores"]], rate: float | None) -> list[dict[str, Any]]:
    """Return first frame, time and probability of every window."""
    listed, before = list[dict[str, Any]](), 0
    for frames, evidence in shots:
        for number, probability in enumerate(detector.windows(evidence).tolist()):
            first = before + number * detector.shape.frames
            listed.append({"frame": first, "seconds": round(first / rate, 3) if rate else None, "probability": probability})
        before += frames
    return listed


def _joined(parts: Sequence["Scores"]) -> "Scores":
    import numpy as np

    return np.concatenate(parts)


def _words(facts: dict[str, Any], frames: int) -> list[str]:
    """Say what is known about a video, what the file itself says first."""
    windows = facts["windows"]
    suspected = sum(window["probability"] >= 0.5 for window in windows)
    verdict = "fake" if facts["probability"] >= 0.5 else "real"
    lines = [facts["video"]]
    if facts["says"]:
        lines.append(f"  its own metadata say: {facts['says']}")
    if against := facts.get("against real"):
        lines.append(f"  {against['verdict']}: {against['sentence']}")
        verdict = f"by the calibration {verdict}"
    lines.append(
        f"  {verdict}: the probability of fake is {facts['probability']:.1%}; of {len(windows)} windows of {frames} frames "
        f"{suspected} look{'s' * (suspected == 1)} fake by themselves"
    )
    return lines + [f"  {note}" for note in facts["notes"]]


# --- Beside real videos of the same camera -----------------------------------------------------------------------------------


def _known(detector: "Detector", measured: dict[str, Any], options: Detect) -> list[dict[str, Any]]:
    """Return size and evidence of the videos that are known to be real, or refuse one that is also asked about."""
    files = list({file.resolve(): file for file in media_files(options.real)}.values())
    asked = {video.resolve() for video in options.videos}
    if both := next((file for file in files if file.resolve() in asked), None):
        raise EvaluationError(f"{both} is asked about, and --real says that it is real; leave it out of one of them")
    found = usable(files, lambda path: examine(detector, measured, path))
    if files and not found:
        raise EvaluationError("none of the videos of --real can be used")
    if made := next((facts for facts in found if facts["says"]), None):
        raise EvaluationError(f"{made['video']} is given as real, and its own metadata say: {made['says']}; leave it out")
    return [{name: facts[name] for name in ("video", "size", "evidence")} for facts in found]


def _compare(facts: dict[str, Any], real: Sequence[dict[str, Any]], level: float) -> None:
    """Add to what is known about a video whether it looks more synthetic than real ones, and how often a real one does."""
    import numpy as np

    from kinema.evaluation.calibration import as_extreme

    evidence = np.array([video["evidence"] for video in real])
    share, alike = as_extreme(facts["evidence"], evidence), int((evidence >= facts["evidence"]).sum())
    sentence = (
        f"of {len(real)} real video{'s' * (len(real) != 1)} {alike or 'none'} look{'s' * (alike < 2)} as synthetic; "
        f"of a real one this is to be expected in {share:.1%} of cases at most"
    )
    verdict = "fake" if share <= level else "real"
    if share > level and alike == 0:
        verdict = "undecided"
        sentence += f", and to call it fake with {level:.1%} false alarms takes {math.ceil(1 / level) - 1} real videos or more"
    counts = {"videos": len(real), "as synthetic": alike, "share": share}
    facts["against real"] = {**counts, "verdict": verdict, "sentence": sentence}
    if other := next((video for video in real if video["size"] != facts["size"]), None):
        facts["notes"].append(f"it is {facts['size']}, and {other['video']}, a real one, {other['size']}: no fair comparison")


# --- How often it is wrong ----------------------------------------------------------------------------------------------------


def evaluate(arguments: list[str]) -> int:
    """Run ``kinema detect-fake evaluate``."""
    options = parse(Evaluate, arguments, "detect-fake evaluate")
    from kinema.evaluation import detection
    from kinema.evaluation.detection_page import rates, sentence, write_detection_report
    from kinema.evaluation.page import HTML_NAME
    from kinema.training.distributed import choose_device

    detector = detection.open_detector(options.run, choose_device(options.device))
    opened = detection.open_others if options.as_is else detection.open_held_out
    videos = opened(detector, options.data)
    if detector.calibrated and not (options.as_is or options.overwrite):
        raise EvaluationError(
            f"{options.run} is calibrated already, and its rates are measured; --overwrite does it anew, --as-is measures it "
            "on other videos"
        )
    folder = _free_folder(options)
    parts = None if options.as_is else detection.divide(videos, options.data, options.seed)
    with Progress() as progress:
        judged = detection.judge(detector, videos, progress.show)
    found, about = _measured(detector, videos, judged, parts)
    card = detection.report(detector, videos, found, unseen=parts is not None, **about)
    write_detection_report(folder, card)
    print_table(about["about"], ("", "share", "95% interval", ""), rates(found))
    if found["area under roc"] is not None:
        print(f"area under the ROC curve {found['area under roc']:.3f}, calibration error {found['calibration error']:.3f}")
    print(sentence(found))
    for note in card["notes"]:
        print(f"- {note}")
    if parts is not None:
        print(f"{detector.file} holds the calibration and these rates; next: kinema detect-fake {options.run} VIDEO")
    print(f"report: {folder / HTML_NAME}")
    return 0


def _measured(
    detector: "Detector", videos: "Videos", judged: "Judged", parts: tuple[frozenset[str], frozenset[str]] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibrate, measure and store; or only measure, where there are no parts. Returns the numbers, and what they are about."""
    from kinema.evaluation import detection

    name = videos.dataset.path.resolve().name
    if parts is None:
        which = f"the {split} split of {name}" if (split := videos.dataset.split) else name
        about = {"about": f"of {which}, another dataset than it was trained on", "calibration": "the videos that calibrated it"}
        return detection.measure(detector, judged), about
    calibrating = judged.of(parts[0])
    detection.fit(detector, calibrating)
    settings = videos.dataset.info.settings
    found = detection.measure(detector, judged.of(parts[1])) | {
        "data": f"{name}, subjects that it has not seen",
        "fingerprint": videos.dataset.fingerprint,
        "calibrated on": {"videos": len(calibrating.sources), "subjects": sorted(parts[0])},
        "preparation": {"fit": settings.get("fit", "crop"), "fps": settings.get("fps")},
    }
    detection.store(detector, found)
    calibration = f"{len(calibrating.sources)} other videos of {len(parts[0])} other subjects that the detector had not seen"
    return found, {"about": f"of {name}, subjects that the detector has not seen", "calibration": calibration}


def _free_folder(options: Evaluate) -> Path:
    """Return where the report goes, or refuse a folder that has one."""
    from kinema.evaluation.page import HTML_NAME, JSON_NAME

    run = Path(options.run)
    name = f"detection-{options.data.resolve().name}" if options.as_is else "detection"
    folder = options.out or (run / name if run.is_dir() else run.with_name(f"{run.stem}-{name}"))
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"{folder} is a file; --out is a folder for {JSON_NAME} and {HTML_NAME}")
    if not options.overwrite and (folder / JSON_NAME).exists():
        raise EvaluationError(f"{folder / JSON_NAME} exists; give another --out, or --overwrite to replace it")
    return folder


# --- Real examples ------------------------------------------------------------------------------------------------------------


def real(arguments: list[str]) -> int:
    """Run ``kinema detect-fake real``."""
    options = parse(Real, arguments, "detect-fake real")
    from kinema.data.dataset import Dataset
    from kinema.data.encode import write_video
    from kinema.training.health import evenly_spread

    data = Dataset(options.data)
    subjects = defaultdict[str, list[int]](list)
    for index in range(len(data)):
        record = data.record(index)
        subjects[record.group or Path(record.source).with_suffix("").as_posix()].append(index)
    files = {
        options.out / subject.replace("/", "-") / f"{data.record(index).key}.mp4": index
        for subject, clips in subjects.items()
        for index in (clips[place] for place in evenly_spread(len(clips), options.count))
    }
    if taken := next((file for file in files if file.exists() and not options.overwrite), None):
        raise EvaluationError(f"{taken} exists; give another --out, or --overwrite to replace it")
    for file, index in files.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_video(file, data.video(index), data.record(index).fps)
    print(f"{len(files)} clips of {len(subjects)} subjects: {options.out}")
    return 0
