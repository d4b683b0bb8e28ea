"""One session of training: what surrounds the loop of ``kinema train``.

`Run` checks the dataset against the system, claims the directory, and does what the loop asks for: logging, looking (sample
sheets and health), saving, resuming, ending. In a run of several processes only the first one writes and looks.
"""

import math
import os
import shlex
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

import kinema
from kinema.core.config import Config, to_mapping
from kinema.core.errors import CheckpointError, KinemaError, NotFiniteWeightsError, TrainingError
from kinema.core.system import Fit, System
from kinema.core.tasks import Forecasts, Transfers, Validates, abilities
from kinema.core.types import Batch
from kinema.data.dataset import Dataset
from kinema.data.loader import Loader
from kinema.pose.found_by import RECORDED, of_prepared
from kinema.training import distributed, runlog
from kinema.training.checkpoint import CHECKPOINT_NAME, load_resume, provenance, save_checkpoint, saving_resume
from kinema.training.health import (
    COMPARED,
    YOUNG,
    Watch,
    evenly_spread,
    few_frames,
    left_out,
    not_finite,
    players_of,
    sample_clips,
)
from kinema.training.latents import keep_latents
from kinema.training.misfit import open_dataset, refuse_misfit
from kinema.training.report import write_report
from kinema.training.sheets import BESIDE, comparisons, write_sheets
from kinema.training.start import Start, take_over
from kinema.training.trainer import NotFiniteError, TrainConfig, Trainer, run_fit
from kinema.training.validation import Validation

SAMPLES = 32  # clips that are made at every look
CALIBRATION = (12, 256)  # at most so many batches and clips re-estimate the batch-norm statistics of averaged weights
LOOKING_SHARE = 0.03  # automatic looks take at most this share of a run
STORED = ("split", "start_from", "flip", "look_steps", "log_steps")  # options that a resumed run keeps
CARRIED = ("steps_before", "seconds_before", "looks", "looking_seconds", "verdicts", "started")  # that survive a stop


@dataclass(frozen=True)
class Options(Config):
    """Which clips to read, and how often to look and save."""

    preset: str
    """Complete settings to start from; see above."""
    split: Literal["train", "test", "all"] = "train"
    """The clips to train on; those of the other split, if any, are held out to watch over-fitting."""
    start_from: str | None = None
    """Begin with the weights of this run, checkpoint file or zoo:NAME of the same system, whose settings are then the defaults:
    for little footage."""
    flip: bool = False
    """Mirror half of the clips, with left and right in their captions and classes."""
    dry_run: bool = False
    """Only say what every stage would take, in memory and arithmetic; train and write nothing. Needs no --out."""
    resume: bool = False
    """Go on with the run in --out: the result is as if it had never stopped."""
    overwrite: bool = False
    """Begin anew in --out and lose the run that is there."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    save_minutes: float = 5.0
    """Minutes between checkpoints; the end, Ctrl-C and SIGTERM always save."""
    look_steps: int = 0
    """Steps between looks (sample sheets, health). 0: ever rarer, and never more than 3 % of the time."""
    log_steps: int = 10
    """Steps that a line of metrics.jsonl averages."""

    def check(self) -> None:
        """Refuse intervals outside their range."""
        self.require(self.save_minutes >= 0, "save_minutes", "0 or more")
        self.require(self.look_steps >= 0, "look_steps", "0 or more")
        self.require(self.log_steps >= 1, "log_steps", "at least 1")


@dataclass(frozen=True)
class Plan:
    """What to do: everything that the command line asks for.

    Attributes:
        data: the prepared dataset.
        out: the directory of the run.
        system: what to train.
        config: its configuration.
        training: how to train.
        options: which clips to read, and how often to look and save.
        stored: description of the run that is resumed, if one is.
        command: words of the command line.
        filled: the settings of the configuration that the dataset decided.
    """

    data: Path
    out: Path
    system: type[System[Any]]
    config: Any
    training: TrainConfig
    options: Options
    stored: runlog.Description | None
    command: tuple[str, ...]
    filled: tuple[str, ...] = ()


class Run:
    """One session of training: dataset, system and directory of a run.

    Args:
        plan: what to do.
        device: where to compute.

    Raises:
        DataError: for a dataset that cannot be used.
        TrainingError: for a dataset that does not fit the system, a directory that is taken, or nothing to resume.
    """

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.options, self.training, self.device, self.folder = plan.options, plan.training, device, plan.out
        self.dataset, self.held_out = open_dataset(plan.data, plan.options.split)
        torch.manual_seed(plan.training.seed)
        self.system = plan.system(plan.config)
        refuse_misfit(self.dataset, self.system, self.options.flip)
        self.stages = self.system.stages()
        refuse_endless(self.system, plan.training)
        if not plan.stored:
            self.system.open_files(self.device)
        self.loader()  # refuses a batch that cannot be drawn before anything is written
        self.start: Start | None = None
        goes_on = plan.stored is not None and (plan.out / runlog.RESUME_NAME).is_file()
        if plan.options.start_from and not goes_on:
            self.start = take_over(self.system, plan.options.start_from)
        self.started = dict(self.start.about) if self.start else None
        self.first = distributed.is_first()
        self.validation: Validation | None = None
        if self.first and self.held_out and isinstance(self.system, Validates):
            self.validation = Validation(self.held_out, self.system, plan.training.seed, device)
        if self.first:
            runlog.claim(self.folder, resume=self.options.resume, overwrite=self.options.overwrite)
        distributed.wait_for_all()
        self.state = self.read_state(plan.stored) if plan.stored else None
        if plan.stored:
            self.system.open_files(self.device)  # what the state has brought need not be there any more
        distributed.wait_for_all()  # nobody writes before everybody has read
        self.steps_before, self.seconds_before = 0, 0.0  # of the stages before this one
        self.steps_saved = self.looks = 0
        self.refreshed_at: int | None = None
        self.looking_seconds, self.saved_at = 0.0, time.monotonic()
        self.verdicts: dict[str, str] = {}  # as they were last said
        self.log = runlog.RunLog(self.folder, self.options.log_steps, plan.training.batch_size, device)
        self.watch: Watch | None = None
        self.display: runlog.Display | None = None
        if self.first:
            self.open(plan)

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.log.close()

    # What the loop asks for

    def note(self, trainer: Trainer, numbers: Mapping[str, float]) -> None:
        """Log and show the numbers of a step."""
        if self.display is None:
            return
        place = (self.step(trainer), trainer.stage_name, self.seconds(trainer))
        self.log.note(*place, numbers)
        if trainer.finished:
            self.log.flush(*place)
        minutes = trainer.config.minutes
        remaining = None if minutes is None else 60 * minutes - trainer.seconds_done
        self.display.update(trainer.steps_done, trainer.progress, remaining, numbers)

    def look_is_due(self, trainer: Trainer) -> bool:
        """Tell whether to look after this step; automatic looks keep to their share of the time."""
        return self.agreed(trainer, self.first and not trainer.finished and self.wants_to_look(trainer))

    def wants_to_look(self, trainer: Trainer) -> bool:
        """Tell whether this process would look now."""
        if self.options.look_steps:
            return self.step(trainer) % self.options.look_steps == 0
        expected = self.looking_seconds + self.looking_seconds / max(1, self.looks)
        return runlog.is_look_step(self.step(trainer)) and expected <= LOOKING_SHARE * self.seconds(trainer)

    def look(self, trainer: Trainer) -> None:
        """Draw sample sheets and judge the run's health."""
        if not self.first and not trainer.needs_all:
            return
        began = time.monotonic()
        self.look_at(self.sampler(trainer), trainer.stage_name, self.step(trainer))
        self.looks += 1
        self.looking_seconds += time.monotonic() - began

    def save_is_due(self, trainer: Trainer) -> bool:
        """Tell whether the last checkpoint is old enough."""
        old = time.monotonic() - self.saved_at >= 60 * self.options.save_minutes
        return self.agreed(trainer, self.first and old)

    def agreed(self, trainer: Trainer, due: bool) -> bool:
        """Return what the first process says, where all must look and save together because none has all the weights."""
        return bool(distributed.first_says(float(due))) if trainer.needs_all else due

    def save(self, trainer: Trainer, loader: Loader) -> None:
        """Write the sampler and everything that the next step depends on.

        Raises:
            TrainingError: when a file cannot be written, or weights are not finite; the previous ones are then intact.
        """
        if not self.first and not trainer.needs_all:
            return
        sampler, trained = self.sampler(trainer), trainer.state_dict()
        if self.watch is None:
            return
        state = {
            "stage": trainer.stage_name,
            "trainer": trained,
            "loader": loader.state_dict(),
            "log": self.log.state_dict(),
            "watch": self.watch.state_dict(),
            "run": {name: getattr(self, name) for name in CARRIED},
        }
        try:
            with saving_resume(self.folder / runlog.RESUME_NAME, state):  # both or none: they are of one step
                self.save_sampler(sampler, trainer.stage_name, self.step(trainer))
        except CheckpointError as error:
            kept = f"the checkpoint of step {self.steps_saved} is intact" if self.steps_saved else "nothing was saved before"
            if isinstance(error, NotFiniteWeightsError):
                raise NotFiniteError(f"{error}; {kept}: lower the learning rate or clip gradients") from None
            raise TrainingError(f"{error}; {kept}: make room and go on with --resume") from None
        self.steps_saved, self.saved_at = self.step(trainer), time.monotonic()

    # Beginning

    def loader(self) -> Loader:
        """Return this process's batches."""
        return Loader(
            self.dataset,
            self.training.batch_size,
            seed=self.training.seed,
            rank=distributed.rank(),
            processes=distributed.processes(),
            flip=self.options.flip,
            frames=self.system.clip_shape.frames,
            fields=self.system.needs,
            pin_memory=self.device.type == "cuda",
        )

    def sampler(self, trainer: Trainer) -> System[Any]:
        """Return the system to sample with, its batch-norm statistics re-estimated once after every step that needs it."""
        if self.refreshed_at != self.step(trainer) or trainer.sampler is self.system:
            trainer.refresh_sampler(self.calibration())
            self.refreshed_at = self.step(trainer)
        return trainer.sampler

    def calibration(self) -> Iterator[Batch]:
        """Yield the same batches at every call, for batch-norm statistics; training's own order goes on untouched.

        Their size does not depend on the number of processes, so that the sampler does not either.
        """
        batches, most = CALIBRATION
        size = min(self.training.batch_size, most // 4)
        frames, needs = self.system.clip_shape.frames, self.system.needs
        loader = Loader(self.dataset, size, seed=self.training.seed + 1, frames=frames, fields=needs)
        for clips in islice(loader, min(batches, most // size)):
            yield clips.to_batch(self.device)

    def share(self, stage: str) -> TrainConfig:
        """Return the training settings of one stage, see `share_of`."""
        return share_of(self.system, self.training, stage)

    def read_state(self, stored: runlog.Description) -> Mapping[str, Any] | None:
        """Return the state to go on from; None when the run was killed before it could save one, and begins again."""
        if stored.dataset["fingerprint"] != self.dataset.fingerprint:
            raise TrainingError(
                f"{self.folder} was trained on {stored.dataset['path']}, whose clips are not those of {self.dataset.path}"
            )
        path = self.folder / runlog.RESUME_NAME
        if not path.is_file():
            return None
        state = load_resume(path)
        self.system.load_state_dict(state["trainer"]["system"])  # it knows which stages are skipped
        lines = runlog.read_metrics(self.folder)
        if lines and lines[-1].get("end") == "finished" and used_up(self.share(state["stage"]), state["trainer"]):
            falls = "its learning rates fell over its budget, so train longer in a new directory"
            raise TrainingError(
                f"there is nothing to resume in {self.folder}: it is finished, at step {lines[-1]['step']:,}; "
                + ("give more --steps or --minutes than it had" if self.training.schedule == "constant" else falls)
            )
        return state

    def open(self, plan: Plan) -> None:
        """Write the description, open the log and tell what is going to happen."""
        state = self.state
        step = state["run"]["steps_before"] + state["trainer"]["steps"] if state else 0
        self.log.start(state["log"] if state else None, step)
        made = provenance(plan.command)
        session = {name: made[name] for name in ("time", "machine", "torch", "python")}
        session |= {"command": shlex.join(plan.command), "device": device_name(self.device), "first_step": step}
        description = runlog.Description(
            system=self.system.name,
            preset=self.options.preset,
            config=to_mapping(self.system.config),
            training=to_mapping(self.training),
            options={name: getattr(self.options, name) for name in STORED},
            dataset=summary(self.dataset, self.held_out),
            sessions=[*(plan.stored.sessions if plan.stored else ()), session],
            weights=sum(parameter.numel() for parameter in self.system.parameters()),
            kinema=kinema.__version__,
        )
        runlog.write_description(self.folder, description)
        self.watch = Watch(self.dataset, self.held_out, self.system.clip_shape.frames, self.device)
        if state:
            self.watch.load_state_dict(state["watch"])
        self.display = runlog.Display(self.training.batch_size)
        held_out = f"{len(self.held_out):,} held out" if self.held_out else "none held out"
        self.display.say(
            f"{self.system.name} ({self.options.preset}): {description.weights:,} weights, clips of {self.system.clip_shape}, "
            f"{len(self.dataset):,} to train on, {held_out}, on {session['device']}"
            + (f", from step {step:,} on" if step else "")
        )
        if self.start:
            self.display.say(self.start.in_words(self.dataset.info.fps))
        left = {*self.stages_to_do(), *self.system.skipped()}
        if done := [name for name, stage in self.stages.items() if name not in left and not isinstance(stage, Fit)]:
            self.display.say(f"done already: {', '.join(done)}; a larger budget lengthens what is left alone")
        for name in plan.filled:
            labels = ", ".join(self.dataset.info.labels[:12]) + (", ..." if len(self.dataset.info.labels) > 12 else "")
            self.display.say(f"{name}: {getattr(plan.config, name)}, as the dataset has them ({labels})")

    def stages_to_do(self) -> list[str]:
        """Name the stages from the one on in which the run stopped."""
        names = list(self.stages)
        return names[names.index(self.state["stage"]) if self.state else 0 :]

    def restore(self, trainer: Trainer, loader: Loader) -> None:
        """Go on where the run stopped, if it did in this stage."""
        state, self.state = self.state, None
        if state is None:
            return
        trainer.load_state_dict(state["trainer"])
        loader.load_state_dict(state["loader"])
        for name in CARRIED:
            setattr(self, name, state["run"].get(name, getattr(self, name)))
        self.steps_saved = self.step(trainer)

    # Looking, saving, ending

    @property
    def last_stage(self) -> str:
        """Name of the last stage that is not skipped."""
        return [name for name in self.stages if name not in self.system.skipped()][-1]

    def step(self, trainer: Trainer) -> int:
        """Return the steps of the run, earlier stages included."""
        return self.steps_before + trainer.steps_done

    def seconds(self, trainer: Trainer) -> float:
        """Return the seconds that the run has taken, earlier stages and sessions included."""
        return self.seconds_before + trainer.seconds_done

    def poses(self) -> torch.Tensor | None:
        """Return the poses of the clips that looks show, for a system that forecasts from them."""
        if not isinstance(self.system, Forecasts):
            return None
        shown = self.held_out or self.dataset
        poses = [shown.alike(index, "pose") for index in evenly_spread(len(shown), COMPARED)]
        return torch.from_numpy(np.stack(poses)[:, : self.system.clip_shape.frames]).to(self.device)

    @torch.no_grad()
    def look_at(self, sampler: System[Any], stage: str, step: int) -> None:
        """Draw the sheets of a sampler and judge it."""
        if self.watch is None or self.display is None:
            return
        real = self.watch.held_out if len(self.watch.held_out) else self.watch.training
        poses = self.poses()
        clips = sample_clips(sampler, SAMPLES, real, poses)
        findings = self.watch.look(sampler, players_of(self.system, stage), step, clips)
        kinds = comparisons(sampler, real, poses, self.driving())
        sheets = write_sheets(self.log, step, clips, kinds, self.dataset.info.fps)
        measured = self.validation.measure(sampler, stage) if self.validation else {}
        self.log.report(step, stage, findings, sheets, measured)
        for finding in findings:
            changed = finding.verdict != self.verdicts.get(finding.name, "ok")
            if changed and (step >= YOUNG or finding.verdict == "bad"):
                self.display.say(f"step {step:,}, {finding.name}: {finding.verdict}. {finding.sentence}")
                self.verdicts[finding.name] = finding.verdict
        write_report(self.folder)

    def driving(self) -> Batch | None:
        """Return whole clips with poses for a system that transfers to re-enact, held-out ones where there are any."""
        dataset = self.held_out or self.dataset
        if not isinstance(self.system, Transfers):
            return None
        loader = Loader(dataset, min(BESIDE, len(dataset)), shuffle=False, fields=("pose",))
        return next(loader.epoch()).to_batch(self.device)

    def save_sampler(self, sampler: System[Any], stage: str, step: int) -> None:
        """Write checkpoint.safetensors."""
        save_checkpoint(
            self.folder / CHECKPOINT_NAME,
            sampler,
            stage=stage,
            steps=step,
            dataset=summary(self.dataset, self.held_out),
            provenance=provenance() | ({"started from": self.started} if self.started else {}),
        )

    def fit(self, stage: str) -> None:
        """Run a closed-form stage, unless it only gives weights a start that they have from elsewhere."""
        known = self.stages[stage]
        if self.options.start_from and isinstance(known, Fit) and known.initial:
            return
        frames = None if isinstance(known, Fit) and known.whole else self.system.clip_shape.frames
        loader = Loader(self.dataset, self.training.batch_size, frames=frames, fields=self.system.needs)
        if self.display:
            self.display.say(f"{stage}: fitting to {len(self.dataset):,} clips")
        numbers = run_fit(self.system, stage, (clips.to_batch() for clips in loader.epoch()), self.training, self.device)
        if self.first:
            self.log.write(self.steps_before, stage, numbers)
            self.warn_of_skipped(stage)
            self.warn_of_few(stage, numbers)
        if self.first and self.steps_before:  # before anything was played there is nothing to look at
            self.look_at(self.system.eval(), stage, self.steps_before)
            self.save_sampler(self.system, stage, self.steps_before)

    def warn_of_skipped(self, stage: str) -> None:
        """Say which stages a closed-form stage has found to be in vain, on the terminal and in the report."""
        for name, reason in self.system.skipped().items():
            if self.display:
                self.display.say(f"{name}: skipped. {reason}")
            self.log.report(self.steps_before, stage, [left_out(name, reason)])

    def warn_of_few(self, stage: str, numbers: Mapping[str, float]) -> None:
        """Say that a closed-form stage has seen too few frames of a person for motion to be transferred to them."""
        if not isinstance(self.system, Transfers) or "seen" not in numbers:
            return
        if found := few_frames(round(numbers["seen"]), self.started is not None):
            if self.display:
                self.display.say(f"{found.name}: {found.sentence}")
            self.log.report(self.steps_before, stage, [found])

    @contextmanager
    def playing(self, trainer: Trainer, loader: Loader) -> Iterator[None]:
        """Restore a stage and show its progress; write down how a failure ended it, as far as possible, and pass it on."""
        if self.watch and self.state is None:
            self.watch.begin(players_of(self.system, trainer.stage_name), self.steps_before)
        self.restore(trainer, loader)
        try:
            if not trainer.finished:
                keep_latents(trainer, loader, self.folder / runlog.LATENTS_NAME, self.say)
            if self.display:
                self.display.begin()
            yield
        except distributed.PeerStoppedError:
            raise
        except KinemaError as error:
            if not self.first:  # every process fails alike: one sentence is enough
                raise SystemExit(2) from None
            with suppress(KinemaError, OSError):
                if isinstance(error, NotFiniteError):
                    self.log.report(self.step(trainer), trainer.stage_name, [not_finite(str(error))])
                self.close(self.step(trainer), trainer.stage_name, "failed", str(error))
            raise
        finally:
            if self.display:
                self.display.end()

    def say(self, text: str) -> None:
        """Print a line, in the first process."""
        if self.display:
            self.display.say(text)

    def take_over(self, trainer: Trainer) -> None:
        """End a stage: its steps are done, and the next one begins with the averaged weights."""
        self.steps_before += trainer.steps_done
        self.seconds_before += trainer.seconds_done
        if trainer.needs_all:
            self.sampler(trainer)  # gives the system its weights back
        elif trainer.stage_name != self.last_stage and trainer.sampler is not self.system:
            self.system.load_state_dict(self.sampler(trainer).state_dict())

    def stop(self, trainer: Trainer, received: signal.Signals) -> int:
        """Say how to go on; returns the exit status."""
        if self.display:
            why = "Ctrl-C" if received == signal.SIGINT else received.name
            step = self.step(trainer)
            self.display.say(f"stopped by {why} at step {step:,}; everything is saved: go on with --resume")
            self.close(step, trainer.stage_name, "stopped", f"Stopped by {why}; --resume goes on.")
        return 128 + received

    def finish(self) -> None:
        """Say where the results are."""
        if self.display is None:
            return
        took, able = runlog.clock(self.seconds_before), abilities(self.system)
        verbs = {verb: f"{verb} {self.folder}" for verb in ("generate", "predict", "reconstruct")}
        verbs |= {"transfer": f"transfer --source VIDEO --target {self.folder} --out FILE"}
        verbs |= {"forecast": f"predict {self.folder} DATA"}
        command = next((command for verb, command in verbs.items() if verb in able), None)
        then = f", make clips with: kinema {command}" if command else ""
        self.display.say(f"finished: {self.steps_before:,} steps in {took}; open {self.folder / runlog.REPORT_NAME}{then}")
        self.close(self.steps_before, self.last_stage, "finished", "")

    def close(self, step: int, stage: str, how: str, sentence: str) -> None:
        """End the log and write the report a last time."""
        self.log.end(step, stage, how, sentence)
        self.log.close()
        write_report(self.folder)


# --- Budgets ------------------------------------------------------------------------------------------------------------------


def played(system: System[Any]) -> list[str]:
    """Name the stages of a system that are played, in order."""
    return [name for name, stage in system.stages().items() if not isinstance(stage, Fit)]


def refuse_endless(system: System[Any], training: TrainConfig) -> None:
    """Raise `TrainingError` when the first of several stages would never end."""
    if len(names := played(system)) > 1 and training.steps is None and training.minutes is None:
        raise TrainingError(f"{system.name} plays {' and '.join(names)} in turn and needs a budget; give --steps")


def share_of(system: System[Any], training: TrainConfig, stage: str) -> TrainConfig:
    """Return the training settings of one stage: its share of the budget, which the skipped ones have none of.

    All shares together are the budget, unless one of them would be no step.
    """
    skipped, shares = system.skipped(), system.shares()
    weights = {name: shares.get(name, 1.0) for name in played(system) if name not in skipped}
    names, whole, minutes = list(weights), sum(weights.values()), training.minutes
    before = sum(weights[name] for name in names[: names.index(stage)]) / whole
    part, steps = weights[stage] / whole, training.steps
    if steps is not None:
        first, last = (math.ceil(steps * share - 1e-9) for share in (before, before + part))
        steps = max(1, last - first)
    return replace(training, steps=steps, minutes=minutes and minutes * part)


def used_up(training: TrainConfig, trainer: Mapping[str, Any]) -> bool:
    """Tell whether a saved trainer has used the budget of its stage."""
    steps, minutes = training.steps, training.minutes
    return (steps is not None and trainer["steps"] >= steps) or (minutes is not None and trainer["seconds"] >= 60 * minutes)


def summary(dataset: Dataset, held_out: Dataset | None) -> dict[str, Any]:
    """Describe a dataset in a checkpoint and in config.json."""
    finder = of_prepared(dataset.info.settings)
    return {
        "path": str(dataset.path.absolute()),
        "fingerprint": dataset.fingerprint,
        "clips": len(dataset),
        "split": dataset.split or "all",
        "held_out": len(held_out) if held_out else 0,
        "shape": str(dataset.shape),
        "fit": dataset.info.settings.get("fit", "crop"),
        "fps": dataset.info.fps,
        "labels": list(dataset.info.labels),
        **({RECORDED: asdict(finder)} if finder else {}),
    }


def device_name(device: torch.device) -> str:
    """Name a device as people do."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{os.cpu_count()} CPU cores"
