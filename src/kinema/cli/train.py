"""``kinema train SYSTEM DATA --out RUN``: the command line of training, and its loop, `play`.

A run plays and fits the stages of its system in order. Stages that are played share the budget of steps and minutes equally;
closed-form stages (such as fitting a mixture) read every clip once and count towards no budget; they may find a later stage to
be in vain, which is then skipped. Between two stages the system takes over its averaged weights.
"""

from collections.abc import Sequence
from dataclasses import fields, make_dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import tyro

from kinema.cli.arguments import parse
from kinema.core.config import Config, differences, from_mapping, override
from kinema.core.errors import CheckpointError, ConfigError, TrainingError, accepted
from kinema.core.system import Fit, System
from kinema.data.dataset import read_info
from kinema.data.loader import Loader
from kinema.systems import SYSTEMS
from kinema.training import distributed, runlog
from kinema.training.checkpoint import read_metadata, resolve
from kinema.training.estimate import estimate
from kinema.training.run import Options, Plan, Run
from kinema.training.trainer import TrainConfig, Trainer


def run(arguments: list[str]) -> int:
    """Train; returns 0, or 128 plus the signal that stopped the run."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage(), end="")
        return 0
    plan = read_plan(arguments)
    device = distributed.choose_device(plan.options.device)
    if plan.options.dry_run:
        with distributed.together(device):
            lines = list(estimate(plan, device))
            print(*lines if distributed.is_first() else (), sep="\n")
        return 0
    with distributed.together(device), Run(plan, device) as session:
        return train(session)


def usage() -> str:
    """Return the text of ``kinema train --help``, before a system is named."""
    systems = "\n".join(f"  {name:<20}{', '.join(system.presets)}" for name, system in SYSTEMS.items())
    return f"""usage: kinema train SYSTEM DATA --out RUN [--preset NAME] ...

Train a system on a prepared dataset.

  {"SYSTEM":<20}PRESETS (the first is the default)
{systems}

kinema train SYSTEM --help lists the presets and settings of a system.
"""


# --- The loop -----------------------------------------------------------------------------------------------------------------


def train(run: Run) -> int:
    """Play or fit every stage that is not done yet; returns the exit status: 128 plus the signal where one stopped it."""
    for stage in run.stages_to_do():
        if stage in run.system.skipped():
            continue
        if isinstance(run.stages[stage], Fit):
            run.fit(stage)
            continue
        trainer, loader = Trainer(run.system, stage, run.share(stage), run.device), run.loader()
        with run.playing(trainer, loader), runlog.StopSignals() as signals:
            if not trainer.finished:
                play(run, trainer, loader, signals)
                if trainer.finished:
                    run.look(trainer)
                run.save(trainer, loader)
                if signals.anywhere(run.device) and signals.received:  # in the last step or look of a stage too
                    return run.stop(trainer, signals.received)
        run.take_over(trainer)
    run.finish()
    return 0


def play(run: Run, trainer: Trainer, loader: Loader, signals: runlog.StopSignals) -> None:
    """Play a stage until its budget is used up or somebody wants it to stop."""
    for clips in run.log.waiting_for(loader):
        numbers = trainer.step(clips.to_batch(run.device))
        run.note(trainer, numbers)
        if run.look_is_due(trainer):
            run.look(trainer)
        if run.save_is_due(trainer):
            run.save(trainer, loader)
        if trainer.finished or signals.anywhere(run.device):
            return


# --- From the command line to a plan ------------------------------------------------------------------------------------------


def read_plan(arguments: Sequence[str]) -> Plan:
    """Read the system's name, then the rest with that system's own options.

    With ``--resume`` the run's own settings are the defaults, so that nothing has to be repeated; with ``--start-from`` the
    system is set as that run's was.

    Raises:
        ConfigError: for an unknown system, preset or option, or a value outside its range.
        TrainingError: when a resumed run has other settings.
    """
    name, *rest = arguments
    if name not in SYSTEMS:
        raise ConfigError(f"train: there is no system {name!r}; {accepted(name, SYSTEMS)}")
    system = SYSTEMS[name]
    stored = stored_run(rest)
    if stored and stored.system != name:
        raise TrainingError(f"{given(rest, '--out')} holds a run of {stored.system}, not of {name}; resume it as what it is")
    preset_name = given(rest, "--preset") or (stored.preset if stored else next(iter(system.presets)))
    if preset_name not in system.presets:
        raise ConfigError(f"{name} has no preset {preset_name!r}; {accepted(preset_name, system.presets)}")
    config, training, extra = defaults(system, preset_name, stored)
    if (source := given(rest, "--start-from")) and not stored:
        config = settings_of(source, system)
    options = Options(preset_name, **extra)
    dry = "--dry-run" in rest
    parsed: Any = parse(arguments_class(system, config, training, options, dry), rest, f"train {name}")
    filled = {} if stored else decided_by(parsed.data, parsed.system, rest)
    plan = Plan(
        data=parsed.data,
        out=parsed.out,
        system=system,
        config=override(parsed.system, filled),
        training=one_budget(parsed.training, rest),
        options=parsed.run,
        stored=stored,
        command=("kinema", "train", *arguments),
        filled=tuple(filled),
    )
    if stored and (changed := changes(plan, stored)):
        raise TrainingError(
            f"--resume goes on with the settings of {plan.out}, but these differ: {'; '.join(changed)}; "
            f"leave them out, or train in a new directory"
        )
    return plan


def stored_run(rest: Sequence[str]) -> runlog.Description | None:
    """Return the description of the run that is to be resumed, if there is one."""
    out = given(rest, "--out")
    if "--resume" not in rest or out is None or not (Path(out) / runlog.CONFIG_NAME).is_file():
        return None
    return runlog.read_description(Path(out))


def given(rest: Sequence[str], option: str) -> str | None:
    """Return the value of an option before the whole line is parsed; None where it is not given."""
    for word, following in zip_longest(rest, rest[1:]):
        if word == option:
            return following
        if word.startswith(option + "="):
            return word.removeprefix(option + "=")
    return None


def defaults(
    system: type[System[Any]], preset_name: str, stored: runlog.Description | None
) -> tuple[Any, TrainConfig, dict[str, Any]]:
    """Return the system's configuration, the trainer's and options to start from: the preset's, or those of a stored run."""
    if stored:
        training = from_mapping(TrainConfig, stored.training)
        return from_mapping(system.config_class, stored.config), training, dict(stored.options)
    preset = system.presets[preset_name]
    own = {field.name for field in fields(Options)}
    extra = {name: value for name, value in preset.training.items() if name in own}
    rest = {name: value for name, value in preset.training.items() if name not in own}
    return preset.config, override(TrainConfig(), rest), extra


def settings_of(source: str, system: type[System[Any]]) -> Any:
    """Return how the system of another run was set.

    Raises:
        CheckpointError: for no checkpoint, or one of another system.
    """
    metadata = read_metadata(resolve(source))
    if metadata.system != system.name:
        raise CheckpointError(f"{source} holds the system {metadata.system!r}, and {system.name} can only start from its own")
    return from_mapping(system.config_class, metadata.config)


def arguments_class(
    system: type[System[Any]], config: Config, training: TrainConfig, options: Options, dry: bool = False
) -> type[Any]:
    """Return a dataclass whose options are those of the run, of the system and of the trainer, without prefixes.

    Args:
        system: what is trained.
        config: its defaults.
        training: those of the trainer.
        options: those of the run.
        dry: nothing is written, and ``--out`` not asked for.
    """
    flat = tyro.conf.OmitArgPrefixes
    out = Annotated[Path, tyro.conf.arg(metavar="RUN", help="The directory of the run, new or empty.")]
    made = make_dataclass(
        "Arguments",
        [
            ("data", Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA", help="The prepared dataset.")]),
            ("out", out, Path()) if dry else ("out", out),
            ("run", Annotated[Options, flat], options),
            ("system", Annotated[system.config_class, tyro.conf.arg(name="")], config),  # nested settings keep their prefix
            ("training", Annotated[TrainConfig, flat], training),
        ],
        frozen=True,
    )
    presets = "\n".join(f"  {name:<12}{preset.about}" for name, preset in system.presets.items())
    made.__doc__ = (
        f"Train {system.name}: {system.paper.title} ({system.paper.authors}, {system.paper.year}).\n\nPresets:\n{presets}"
    )
    return made


def one_budget(training: TrainConfig, rest: Sequence[str]) -> TrainConfig:
    """Let ``--steps`` or ``--minutes`` alone replace both budgets of the preset; given together, both hold."""
    steps, minutes = given(rest, "--steps"), given(rest, "--minutes")
    if steps is not None and minutes is None:
        return replace(training, minutes=None)
    return replace(training, steps=None) if minutes is not None and steps is None else training


def decided_by(data: Path, config: Config, rest: Sequence[str]) -> dict[str, Any]:
    """Return the settings that the classes of a dataset decide, but for those that are given on the command line."""
    fitting = config.for_labels(read_info(data).labels)
    chosen = [field.name for field in fields(fitting) if getattr(fitting, field.name) != getattr(config, field.name)]
    return {name: getattr(fitting, name) for name in chosen if given(rest, f"--{name.replace('_', '-')}") is None}


def changes(plan: Plan, stored: runlog.Description) -> list[str]:
    """List the settings in which a plan differs from the run that it goes on with.

    The budget may grow, unless the schedule of the learning rate depends on it; weights may be split or not.
    """
    config = from_mapping(plan.system.config_class, stored.config)
    training = from_mapping(TrainConfig, stored.training)
    if training.schedule == "constant":
        training = replace(training, steps=plan.training.steps, minutes=plan.training.minutes)
    training = replace(training, shard=plan.training.shard)
    options = replace(plan.options, preset=stored.preset, **stored.options)
    pairs = ((config, plan.config), (training, plan.training), (options, plan.options))
    return [change for before, after in pairs for change in differences(before, after)]
