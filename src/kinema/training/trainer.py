"""The one loop: it plays every game, and knows no system.

The trainer owns optimisers, precision, memory layout, the averaged copy for sampling, gradient averaging between processes,
the count of steps and the random state. A system holds only mathematics.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kinema.core.compiling import compiled
from kinema.core.config import Config
from kinema.core.errors import ConfigError, TrainingError, accepted
from kinema.core.peers import answered_by
from kinema.core.seeds import shard_of_batch
from kinema.core.system import Fit, Objective, Player, Stage, System
from kinema.core.types import Batch, ClipShape, Video
from kinema.training import distributed
from kinema.training.average import Average, estimate_batch_norm
from kinema.training.memory import in_memory_order, keep_channels_together, keep_freed_memory, memory_order
from kinema.training.sharding import Split, for_shards, is_split, local, refuse_unsplittable, total_norm

AVERAGE_RAMP = 0.05
"""While training is young, the half-life of the averaged weights is this share of the samples seen (Karras et al., 2020)."""


class NotFiniteError(TrainingError):
    """A loss or a gradient that became NaN or infinite; no weight has taken it up."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """How to train; what is trained, with which optimisers, is the system's."""

    steps: int | None = None
    """Stop after this many steps. None: no limit."""
    minutes: float | None = None
    """Stop after this many minutes of training. None: no limit."""
    batch_size: int = 64
    """Clips in a batch, over all processes together."""
    seed: int = 0
    """Seed of the weights, the order of the clips and the noise."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the networks; weights stay fp32. auto: bf16 on a GPU and on processors that compute in it."""
    channels_last: bool = True
    """Keep the channels of weights and clips together in memory (faster convolutions)."""
    compile: bool = False
    """Compile each player's objective (torch.compile): minutes at the start; slower on a processor, and not for objectives
    that differentiate twice (R1)."""
    shard: bool = False
    """Split every weight, gradient and optimiser state over the processes (FSDP2), for systems that outgrow one device."""
    deterministic: bool = True
    """On a GPU: only convolutions that give the same bits every time. Without: the fastest, found by trying (cuDNN)."""
    ema_samples: float = 0.0
    """Half-life, in samples, of the averaged weights that sampling uses; 0: sample with the trained weights themselves."""
    clip_gradients: float = 0.0
    """Largest norm of a player's gradient; longer ones are scaled down to it. 0: never."""
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    """How learning rates fall to zero over the steps (or, where only minutes are given, over the minutes)."""
    warmup_steps: int = 0
    """Steps over which learning rates first rise from zero."""

    def check(self) -> None:
        """Refuse budgets, batches and rates outside their range."""
        self.require(self.steps is None or self.steps >= 1, "steps", "at least 1, or None")
        self.require(self.minutes is None or 0 < self.minutes < math.inf, "minutes", "more than 0, or None")
        self.require(self.batch_size >= 1, "batch_size", "at least 1")
        self.require(self.seed >= 0, "seed", "0 or more")
        self.require(0 <= self.ema_samples < math.inf, "ema_samples", "0 or more")
        self.require(0 <= self.clip_gradients < math.inf, "clip_gradients", "0 or more")
        self.require(self.warmup_steps >= 0, "warmup_steps", "0 or more")
        self.require(not (self.shard and self.compile), "shard", "False, where objectives are compiled")
        if self.schedule != "constant" and self.steps is None and self.minutes is None:
            raise ConfigError(f"schedule is {self.schedule!r}, which needs an end; give steps or minutes")


@dataclass(frozen=True)
class Turn:
    """A player with what the trainer keeps for it.

    Attributes:
        player: objective, and how often it is played.
        parameters: what the player moves.
        views: the same memory, as the optimisers see it; see `in_memory_order`.
        optimizers: one or several.
        rates: learning rates of their groups before any schedule.
    """

    player: Player
    parameters: list[nn.Parameter]
    views: list[nn.Parameter]
    optimizers: tuple[Optimizer, ...]
    rates: tuple[tuple[float, ...], ...]


class Trainer:
    """Plays one stage of a system.

    Args:
        system: trained in place, and moved to `device`; with `TrainConfig.shard` a copy is trained, and the system itself has
            no weights until `refresh_sampler` gives it the trained ones.
        stage_name: one of ``system.stages()`` that has players; a `Fit` stage is run by `run_fit`.
        config: how to train.
        device: where to train.

    Attributes:
        steps_done: steps played.
        samples_done: clips seen, over all processes.
        seconds_done: seconds from the first step on, waiting for data and resumed sessions included.

    Raises:
        TrainingError: for an unknown stage, a stage without players, or a player whose parameters are not its own.
    """

    def __init__(self, system: System[Any], stage_name: str, config: TrainConfig, device: torch.device | str = "cpu") -> None:
        self.stage_name, self.config = stage_name, config
        self.device = torch.device(device)
        stage = find_stage(system, stage_name)
        if isinstance(stage, Fit):
            raise TrainingError(f"stage {stage_name!r} of {system.name} is fitted, not played; use run_fit")
        if self.device.type == "cpu":
            keep_freed_memory()
        if config.shard:
            refuse_unsplittable(system, stage_name)
        else:
            system.to(self.device)
            distributed.synchronise_batch_norm(system)
        if config.channels_last:
            keep_channels_together(system)
        distributed.copy_from_first(system)
        self._split = Split(system, stage_name, self.device, averaged=config.ema_samples > 0) if config.shard else None
        self._whole, self.system = system, self._split.system if self._split else system
        self.precision = torch.bfloat16 if computes_in_bf16(config.precision, self.device) else torch.float32
        self._learned = [parameter for parameter in self.system.parameters() if parameter.requires_grad]
        # Asked again: the players must hold the batch norms that are synchronised by now.
        players = find_stage(self.system, stage_name)
        self.turns = tuple(self._prepare(player) for player in players) if not isinstance(players, Fit) else ()
        self.steps_done = self.samples_done = 0
        self.seconds_done = 0.0
        self._clock: float | None = None
        self._random_state = fresh_random_state(config.seed, stage_name, self.device)
        self._average = Average(system) if config.ema_samples and not self._split else None

    def _prepare(self, player: Player) -> Turn:
        """Give a player its parameters and optimisers."""
        parameters = own_parameters(player, self.system)
        shards = self._split.shards(parameters) if self._split else {}
        views = [shards[id(p)] if id(p) in shards else in_memory_order(p) for p in parameters]
        built = player.optimizer([p if is_split(p) else view for p, view in zip(parameters, views, strict=True)])
        optimizers = tuple(for_shards(o, shards) for o in ((built,) if isinstance(built, Optimizer) else built))
        rates = tuple(tuple(float(group["lr"]) for group in optimizer.param_groups) for optimizer in optimizers)
        if self.config.compile:
            player = replace(player, objective=compiled(player.objective))
        return Turn(player, parameters, views, optimizers, rates)

    @property
    def progress(self) -> float | None:
        """Share of the budget that is used, in [0, 1]; None where there is no limit."""
        shares = []
        if self.config.steps is not None:
            shares.append(self.steps_done / self.config.steps)
        if self.config.minutes is not None:
            shares.append(self.seconds_done / (60 * self.config.minutes))
        return min(1.0, max(shares)) if shares else None

    @property
    def finished(self) -> bool:
        """Whether the budget of steps or minutes is used up."""
        return self.progress == 1.0

    @property
    def sampler(self) -> System[Any]:
        """The system to sample with: the averaged copy, as `refresh_sampler` last left it, or the system itself."""
        return self._average.system if self._average else self._whole

    @property
    def needs_all(self) -> bool:
        """Whether `refresh_sampler` and `state_dict` gather what is split: every process must call them."""
        return self._split is not None

    def step(self, batch: Batch) -> dict[str, float]:
        """Let every player play once.

        Args:
            batch: this process's share of the global batch.

        Returns:
            Every term and metric as ``player/name``, and the norm of every player's gradient, averaged over processes.

        Raises:
            TrainingError: for a batch that does not fit the system.
            NotFiniteError: for a loss or gradient that is not finite; that player's weights are then as they were before.
        """
        if self._clock is None:
            self._clock = time.monotonic()
        check_batch(batch, self.system)
        if self._split:
            self._split.lend()
        batch = self._place(batch)
        if not self.system.training:  # walking through all of its modules takes half a millisecond
            self.system.train()
        numbers: dict[str, float] = {}
        rows = shard_of_batch(distributed.rank(), distributed.processes())
        peers = answered_by(distributed.average) if distributed.processes() > 1 else nullcontext()
        with self._own_randomness(), rows, peers, chosen_convolutions(self.config.deterministic):
            for turn in self.turns:
                if self.steps_done % turn.player.every == 0:
                    numbers |= self._play(turn, batch)
        self.steps_done += 1
        self.samples_done += len(batch) * distributed.processes()
        self._update_average(len(batch) * distributed.processes())
        self._advance_clock()
        return numbers

    def _precise(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    @torch.no_grad()
    def compute(self, function: Callable[[Video], Tensor], batch: Batch) -> Tensor:
        """Return what a part of the system that does not learn makes of clips, in the precision of training."""
        self.system.eval()
        with borrowed_generators(self.device), chosen_convolutions(self.config.deterministic), self._precise():
            return function(self._place(batch).video)

    def _play(self, turn: Turn, batch: Batch) -> dict[str, float]:
        """Play one player's turn: objective, gradient, averaging, check, clipping, step."""
        name, parameters = turn.player.name, turn.parameters
        for parameter in parameters:
            parameter.grad = None
        with only_learning(parameters, self._learned):
            with self._precise():
                objective = turn.player.objective(batch)
            if not objective.terms:
                return named(name, objective.metrics)
            self._differentiate(turn.player, objective)
        distributed.average_gradients(parameter for parameter in parameters if not is_split(parameter))
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = total_norm(gradients)
        terms = named(name, objective.terms)
        numbers = terms | named(name, {**objective.metrics, "gradient_norm": norm})
        self._refuse_infinities(turn.player, terms, numbers[f"{name}/gradient_norm"])
        if 0 < self.config.clip_gradients < numbers[f"{name}/gradient_norm"]:
            shorten([local(gradient) for gradient in gradients], self.config.clip_gradients, norm)
        self._move(turn)
        return numbers

    def _differentiate(self, player: Player, objective: Objective) -> None:
        """Compute gradients."""
        try:
            objective.total.backward()
        except RuntimeError as error:
            if self.config.compile and "double backward" in str(error):
                raise TrainingError(
                    f"player {player.name!r} of {self.system.name} differentiates twice (a gradient penalty), "
                    "which torch.compile cannot; train without compile"
                ) from None
            raise

    def _move(self, turn: Turn) -> None:
        """Let the optimisers of a player step."""
        for parameter, view in zip(turn.parameters, turn.views, strict=True):
            order = memory_order(local(parameter))
            view.grad = None if parameter.grad is None else local(parameter.grad).permute(order)
        for optimizer, rates in zip(turn.optimizers, turn.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * self._rate_multiplier()
            optimizer.step()
        for view in turn.views:
            view.grad = None

    def _refuse_infinities(self, player: Player, terms: Mapping[str, float], norm: float) -> None:
        """Stop before bad numbers reach the weights."""
        advice = "the weights are as before it; lower the learning rate or clip gradients"
        for name, value in terms.items():
            if not math.isfinite(value):
                term = name.removeprefix(f"{player.name}/")
                raise NotFiniteError(
                    f"term {term!r} of player {player.name!r} became {value} in step {self.steps_done}; {advice}"
                )
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient of player {player.name!r} became {norm} in step {self.steps_done}; {advice}")

    def _rate_multiplier(self) -> float:
        """Return the factor of the learning rates in this step."""
        warm, end = self.config.warmup_steps, self.config.steps
        rise = min(1.0, (self.steps_done + 1) / warm) if warm else 1.0
        if self.config.schedule == "constant":
            return rise
        done = (self.steps_done - warm) / max(1, end - warm) if end is not None else (self.progress or 0.0)
        done = min(1.0, max(0.0, done))
        return rise * (1 - done if self.config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done)))

    def _update_average(self, batch_size: int) -> None:
        """Move the averaged weights, if there are any, towards the weights by what a batch is worth."""
        if not self.config.ema_samples:
            return
        half_life = min(self.config.ema_samples, AVERAGE_RAMP * self.samples_done)
        for keeper in (self._split, self._average):
            if keeper:
                keeper.update(0.5 ** (batch_size / half_life))

    def _place(self, batch: Batch) -> Batch:
        """Return the batch on the device, its clips in the memory layout of the weights."""
        batch = batch.to(self.device)
        layout = torch.channels_last_3d if self.config.channels_last else torch.contiguous_format
        return replace(batch, video=batch.video.contiguous(memory_format=layout))

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Go on with the trainer's own random numbers, whatever was drawn between steps (sampling, health)."""
        with borrowed_generators(self.device):
            set_random_state(self._random_state, self.device)
            yield
            self._random_state = get_random_state(self.device)

    def _advance_clock(self) -> None:
        """Count the seconds since the last step; with a budget of minutes, all processes go by the first one's clock."""
        now = time.monotonic()
        self.seconds_done += now - (now if self._clock is None else self._clock)
        self._clock = now
        if self.config.minutes is not None:
            self.seconds_done = distributed.first_says(self.seconds_done)

    def refresh_sampler(self, batches: Iterable[Batch]) -> System[Any]:
        """Bring the sampler up to date and return it in evaluation mode.

        The averaged weights need batch-norm statistics of their own: they are re-estimated over `batches`. Draws no random
        number from training and exchanges nothing between processes unless `needs_all`: the first may do it alone.

        Args:
            batches: some batches (a dozen is enough); used up only where there is an averaged copy with batch norm.
        """
        if self._split:
            self._split.gather().eval()
        if not self.config.ema_samples:
            return self._whole.eval()
        with borrowed_generators(self.device), distributed.locally(), torch.no_grad():
            set_random_state(fresh_random_state(self.config.seed, "sampler", self.device), self.device)
            with self._precise():
                if self._average:
                    self._average.copy_rest()
                estimate_batch_norm(self.sampler, (self._place(batch) for batch in batches))
        return self.sampler

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on; `torch.load` reads it with ``weights_only=True``."""
        return {
            "stage": self.stage_name,
            "steps": self.steps_done,
            "samples": self.samples_done,
            "seconds": self.seconds_done,
            "random": self._random_state,
            **self._weights(),
            "optimizers": {t.player.name: [self._optimizer_state(o) for o in t.optimizers] for t in self.turns},
        }

    def _weights(self) -> dict[str, Any]:
        """Return the weights and their averages."""
        if self._split:
            return {"system": self._split.state_dict(), "average": self._split.averaged_state_dict()}
        average = self._average.system.state_dict() if self._average else None
        return {"system": self.system.state_dict(), "average": average}

    def _optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        return self._split.optimizer_state(optimizer) if self._split else optimizer.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; the next step is the one that would have followed.

        Raises:
            TrainingError: for the state of another stage, other players, or with and without averaged weights.
        """
        names = [turn.player.name for turn in self.turns]
        if state["stage"] != self.stage_name or list(state["optimizers"]) != names:
            raise TrainingError(
                f"the saved state is of stage {state['stage']!r} with players {', '.join(state['optimizers'])}; "
                f"this is stage {self.stage_name!r} with players {', '.join(names)}"
            )
        if (state["average"] is None) != (not self.config.ema_samples):
            raise TrainingError("the saved state and ema_samples disagree on whether weights are averaged")
        if self._split:
            self._split.load_state_dict(state["system"], state["average"])
        else:
            self.system.load_state_dict(state["system"])
        if self._average:
            self._average.system.load_state_dict(state["average"])
        for turn in self.turns:
            for optimizer, saved in zip(turn.optimizers, state["optimizers"][turn.player.name], strict=True):
                if self._split:
                    self._split.load_optimizer_state(optimizer, saved)
                else:
                    optimizer.load_state_dict(saved)
        self._random_state = {name: tensor.cpu() for name, tensor in state["random"].items()}
        self.steps_done, self.samples_done = state["steps"], state["samples"]
        self.seconds_done, self._clock = state["seconds"], None


def run_fit(
    system: System[Any],
    stage_name: str,
    batches: Iterable[Batch],
    config: TrainConfig,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Run a closed-form stage on the first process, in fp32, and give the result to all.

    Args:
        system: changed in place, and moved to `device`.
        stage_name: a `Fit` stage of ``system.stages()``.
        batches: every clip once; read on the first process only.
        config: its seed counts.
        device: where to compute.

    Returns:
        Numbers worth logging; none on processes other than the first.

    Raises:
        TrainingError: for an unknown stage or one with players, and for batches that do not fit the system.
    """
    stage, device = find_stage(system, stage_name), torch.device(device)
    if not isinstance(stage, Fit):
        raise TrainingError(f"stage {stage_name!r} of {system.name} is played, not fitted; use Trainer")
    system.to(device).eval()
    numbers: dict[str, float] = {}
    if distributed.is_first():
        with borrowed_generators(device), torch.no_grad():
            set_random_state(fresh_random_state(config.seed, stage_name, device), device)
            numbers |= stage.run(_checked(batches, system, device, stage.whole))
    distributed.copy_from_first(system)
    return numbers


def _checked(batches: Iterable[Batch], system: System[Any], device: torch.device, whole: bool) -> Iterator[Batch]:
    for batch in batches:
        check_batch(batch, system, frames=batch.video.shape[2] if whole else None)
        yield batch.to(device)


def find_stage(system: System[Any], name: str) -> Stage:
    """Return a stage of `system`; `TrainingError` for an unknown name."""
    stages = system.stages()
    if name not in stages:
        raise TrainingError(f"{system.name} has no stage {name!r}; {accepted(name, stages)}")
    return stages[name]


def own_parameters(player: Player, system: System[Any]) -> list[nn.Parameter]:
    """Return the parameters that a player moves.

    Raises:
        TrainingError: when it owns one twice, one that is not part of the system, or none at all.
    """
    names = {id(parameter): name for name, parameter in system.named_parameters()}
    owned: dict[int, nn.Parameter] = {}
    for module in player.moves:
        for name, parameter in module.named_parameters():
            if id(parameter) not in names:
                raise TrainingError(f"player {player.name!r} moves {name!r}, which is no part of {system.name}")
            if id(parameter) in owned:
                raise TrainingError(f"player {player.name!r} of {system.name} owns {names[id(parameter)]!r} twice")
        owned |= {id(parameter): parameter for parameter in module.parameters() if parameter.requires_grad}
    if not owned:
        raise TrainingError(f"player {player.name!r} of {system.name} owns no parameter that learns")
    return list(owned.values())


def check_batch(batch: Batch, system: System[Any], frames: int | None = None) -> None:
    """Raise `TrainingError` for a batch that lacks what the system needs or has another size (or number of `frames`)."""
    missing = sorted(system.needs - batch.carries)
    if missing:
        has = ", ".join(sorted(batch.carries))
        raise TrainingError(f"{system.name} trains on clips with {', '.join(missing)}; this dataset carries only {has}")
    shape = ClipShape(*batch.video.shape[2:])
    wanted = system.clip_shape if frames is None else replace(system.clip_shape, frames=frames)
    if shape != wanted:
        raise TrainingError(f"the clips are {shape} and {system.name} is set to {wanted}; make them the same")


def computes_in_bf16(precision: str, device: torch.device) -> bool:
    """Decide whether to compute in bf16: where asked for, or (auto) where the device does so in hardware."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def chosen_convolutions(deterministic: bool) -> AbstractContextManager[None]:
    """Within this context cuDNN uses algorithms that repeat bit for bit, or the fastest of all; no effect on a CPU."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=not deterministic, deterministic=deterministic, allow_tf32=True)


@contextmanager
def only_learning(own: list[nn.Parameter], all_learned: list[nn.Parameter]) -> Iterator[None]:
    """Freeze everything but a player's own parameters, so that frozen modules build no graph."""
    for parameter in all_learned:
        parameter.requires_grad_(False)
    for parameter in own:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in all_learned:
            parameter.requires_grad_(True)


def shorten(gradients: list[Tensor], longest: float, norm: Tensor) -> None:
    """Scale gradients of a larger norm down to `longest`, in place; they may be the shards of split ones."""
    torch._foreach_mul_(gradients, longest / norm)  # pyright: ignore[reportPrivateImportUsage]


def named(player: str, values: Mapping[str, Tensor]) -> dict[str, float]:
    """Return numbers as ``player/name``, averaged over processes; one transfer from the device for all."""
    if not values:
        return {}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    return dict(zip((f"{player}/{name}" for name in values), distributed.average(stacked).tolist(), strict=True))


@contextmanager
def borrowed_generators(device: torch.device) -> Iterator[None]:
    """Restore torch's random state (CPU, and GPU if used) on leaving."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield


def fresh_random_state(seed: int, purpose: str, device: torch.device) -> dict[str, Tensor]:
    """Return a random state that differs per purpose, and from the one that a plain ``manual_seed(seed)`` gives."""
    derived = np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)[0]
    with borrowed_generators(device):
        torch.manual_seed(int(derived))
        return get_random_state(device)


def get_random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of torch's generators, CPU and (on a GPU) the device's."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Set the state of torch's generators; a GPU without a saved state is left as it is."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
