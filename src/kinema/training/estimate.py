"""What a run would take: memory and arithmetic of every stage, found out without training and without writing.

Weights, gradients, optimiser state and averaged weights are counted. FLOPs and activations are those of a step on two clips
and of one on three, continued in a straight line to the batch; FLOPs are those of matrix products, convolutions and attention.
What a system does in some steps only (lazy regularisation) counts as in its first step. A system of more than `LARGE` weights
is built without memory (meta tensors), where optimiser state is taken to be Adam's and activations are those of fp32.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from kinema.core.errors import KinemaError
from kinema.core.system import Fit, Player, System
from kinema.core.types import Batch
from kinema.data.dataset import Dataset
from kinema.data.latents import LatentIndex, index_of
from kinema.data.loader import Loader
from kinema.training import distributed
from kinema.training.misfit import open_dataset, refuse_misfit
from kinema.training.run import Plan, refuse_endless, share_of
from kinema.training.trainer import TrainConfig, computes_in_bf16, only_learning, own_parameters

LARGE = 100_000_000
"""Weights beyond which a system is built without memory."""
UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **__: (
        sdpa_backward_flop_count(grad, q, k, v)
    ),
    torch.ops.aten.mkldnn_rnn_layer: lambda inputs, *weights, **_: recurrent_flop_count(inputs, *weights[:2]),
    torch.ops.aten.mkldnn_rnn_layer_backward: lambda inputs, *weights, **_: 2 * recurrent_flop_count(inputs, *weights[:2]),
}
"""What torch's counter leaves out: attention and LSTMs on a processor."""
CPU, META = torch.device("cpu"), torch.device("meta")


@dataclass(frozen=True)
class Line:
    """A quantity of n clips: ``fixed + per_clip * n``."""

    fixed: float
    per_clip: float

    def at(self, clips: int) -> float:
        """Return the quantity for a number of clips."""
        return self.fixed + self.per_clip * clips


@dataclass(frozen=True)
class Turn:
    """One turn of a player.

    Attributes:
        flops: of objective and gradient.
        activations: bytes that the objective leaves for the gradient.
    """

    flops: Line
    activations: Line


@dataclass(frozen=True)
class Coding:
    """What encoding every clip before a stage takes.

    Attributes:
        index: of the latents.
        flops: of one window.
    """

    index: LatentIndex
    flops: int


def estimate(plan: Plan, device: torch.device) -> Iterator[str]:
    """Yield lines about what a run would take in every process.

    Args:
        plan: of the run.
        device: where it would compute; here everything is computed on the processor.

    Raises:
        DataError: for a dataset that cannot be used.
        TrainingError: for one that does not fit the system, or several stages without a budget.
        ConfigError: for a file that is missing.
    """
    dataset, held_out = open_dataset(plan.data, plan.options.split)
    system = built(plan)
    refuse_misfit(dataset, system, plan.options.flip)
    refuse_endless(system, plan.training)
    frames, processes = system.clip_shape.frames, distributed.processes()
    loader = Loader(
        dataset, plan.training.batch_size, processes=processes, flip=plan.options.flip, frames=frames, fields=system.needs
    )
    where = next(system.parameters()).device
    if where != META:
        system.open_files(CPU)
    bf16 = computes_in_bf16(plan.training.precision, device)
    clips = plan.training.batch_size // processes
    tokens = f", {system.tokens:,} tokens" if system.tokens else ""
    yield f"{system.name} ({plan.options.preset}): {weights_of(system):,} weights, clips of {system.clip_shape}{tokens}"
    yield f"{len(dataset):,} clips to train on, {len(held_out) if held_out else 0:,} held out"
    yield (
        f"batch of {plan.training.batch_size}"
        + (f", {clips} in each of {processes} processes" if processes > 1 else "")
        + (", bf16" if bf16 else ", fp32")
    )
    if where == META:
        yield f"more than {LARGE:,} weights: built without memory; optimiser state as for Adam, activations as in fp32"
    batch = next(loader.windows([[(0, 0, False)]])).to_batch().to(where)
    for name, stage in system.stages().items():
        yield ""
        if isinstance(stage, Fit):
            yield f"stage {name}: fitted in one pass over the clips, no gradients; not estimated"
            with forgiven():
                stage.run([batch])  # later stages may ask for what it finds
            continue
        yield from describe_stage(system, name, stage, batch, plan, dataset, bf16)
    yield ""
    yield "Estimated: FLOPs and activations, from two clips and from three, continued to the batch; buffers of libraries and"
    yield "allocator come on top. Nothing was trained, and nothing was written."


def describe_stage(
    system: System[Any], name: str, players: tuple[Player, ...], batch: Batch, plan: Plan, dataset: Dataset, bf16: bool
) -> Iterator[str]:
    """Yield the lines about a stage that is played."""
    coding, problem = None, None
    turns: dict[str, Turn] = {}
    try:
        coding, batch = coded(system, name, batch, dataset, plan.options.flip)
        turns = turns_of(system, players, batch, bf16)
    except (KinemaError, RuntimeError) as error:
        problem = str(error).strip().splitlines()[0]
    learning = sum(parameter.numel() for player in players for parameter in own_parameters(player, system))
    everything = nbytes([*system.parameters(), *system.buffers()])
    training = share_of(system, plan.training, name)
    yield f"stage {name}: {' and '.join(player.name for player in players)}, {learning:,} weights learn"
    states = sum(state_of(player, own_parameters(player, system)) for player in players)
    parts = {"weights": everything, "gradients": 4 * learning, "optimiser state": states}
    if plan.training.ema_samples:
        parts["averaged weights"] = everything
    clips = plan.training.batch_size // distributed.processes()
    parts["clips"] = clips * nbytes([tensor for tensor in vars(batch).values() if isinstance(tensor, Tensor)])
    if problem is None:
        parts["activations (estimated)"] = round(max(turn.activations.at(clips) for turn in turns.values()))
    for part, size in parts.items():
        yield f"  {part:<26}{gibibytes(size):>12}"
    if problem is not None:
        yield f"  FLOPs and activations      not estimated: {problem}"
    else:
        yield f"  {'memory in all':<26}{gibibytes(sum(parts.values())):>12}"
        yield from describe_work(players, turns, training, plan.training.batch_size)
    if coding is not None:
        index = coding.index
        yield f"  {'latents on the disk':<26}{gibibytes(index.bytes):>12}  {index.latents:,} windows, encoded once"
        yield f"  {'encoding':<26}{teraflops(coding.flops * index.latents):>12}  before the stage, outside its budget"


def describe_work(
    players: tuple[Player, ...], turns: Mapping[str, Turn], training: TrainConfig, batch_size: int
) -> Iterator[str]:
    """Yield the lines about FLOPs and steps."""
    step = sum(turns[player.name].flops.at(batch_size) / player.every for player in players)
    yield f"  {'FLOPs per step':<26}{teraflops(step):>12}  (estimated, the whole batch)"
    if training.steps is not None:
        yield f"  {'steps':<26}{training.steps:>12,}  {teraflops(step * training.steps)} in all"
    if training.minutes is not None:
        yield f"  {'steps':<26}{'unknown':>12}  as many as {training.minutes:g} minutes allow"
    if training.steps is None and training.minutes is None:
        yield f"  {'steps':<26}{'no limit':>12}"


def built(plan: Plan) -> System[Any]:
    """Build the system of a plan, without memory where it is large."""
    with forgiven(), META:
        skeleton = plan.system(plan.config)
        if weights_of(skeleton) > LARGE:
            return skeleton
    torch.manual_seed(plan.training.seed)
    return plan.system(plan.config)


def coded(system: System[Any], stage: str, batch: Batch, dataset: Dataset, flip: bool) -> tuple[Coding | None, Batch]:
    """Return what encoding takes before a stage, and the batch with its latents; nothing for a stage without latents."""
    encode = system.latents(stage)
    if encode is None:
        return None, batch
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter, torch.no_grad():
        latent = encode(batch.video).float()
    index = index_of(dataset, frames=batch.video.shape[2], flip=flip, shape=latent.shape[1:], digest="")
    return Coding(index, counter.get_total_flops()), replace(batch, latent=latent)


def turns_of(system: System[Any], players: tuple[Player, ...], batch: Batch, bf16: bool) -> dict[str, Turn]:
    """Let every player play on two clips and on three; one may be too few for batch normalisation."""
    found: dict[str, list[tuple[int, int]]] = {player.name: [] for player in players}
    for clips in (repeated(batch, 2), repeated(batch, 3)):
        buffers = [buffer.clone() for buffer in system.buffers()]
        for player in players:
            found[player.name].append(play(system, player, clips, bf16))
        for buffer, before in zip(system.buffers(), buffers, strict=True):
            buffer.data.copy_(before)  # both are the first step
    lines = {
        name: [Line(3 * two - 2 * three, three - two) for two, three in zip(*plays, strict=True)]
        for name, plays in found.items()
    }
    return {name: Turn(flops, activations) for name, (flops, activations) in lines.items()}


def play(system: System[Any], player: Player, batch: Batch, bf16: bool) -> tuple[int, int]:
    """Return the FLOPs of an objective and its gradient, and the bytes that are kept between the two."""
    parameters = own_parameters(player, system)
    learned = [parameter for parameter in system.parameters() if parameter.requires_grad]
    own = {tensor.untyped_storage()._cdata for tensor in (*system.parameters(), *system.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
        return tensor

    system.train()
    for parameter in parameters:
        parameter.grad = None
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter, only_learning(parameters, learned):
        with (
            torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        ):
            objective = player.objective(batch)
        saved = sum(kept.values())
        if objective.terms:
            objective.total.backward()
    return counter.get_total_flops(), saved


def recurrent_flop_count(inputs: Sequence[int], of_input: Sequence[int], of_state: Sequence[int]) -> int:
    """Return the FLOPs of a recurrent layer from the shapes of its inputs (two axes are steps and clips) and of its weights."""
    return 2 * inputs[0] * inputs[1] * (math.prod(of_input) + math.prod(of_state))


def state_of(player: Player, parameters: list[nn.Parameter]) -> int:
    """Return the bytes that a player's optimisers keep, found by one step."""
    if parameters[0].device == META:
        return 8 * sum(parameter.numel() for parameter in parameters)
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    built = player.optimizer(parameters)
    optimizers = (built,) if isinstance(built, Optimizer) else tuple(built)
    for optimizer in optimizers:
        optimizer.step()
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    return nbytes([value for value in states if isinstance(value, Tensor)])


@contextmanager
def forgiven() -> Iterator[None]:
    """Go on after what an estimate cannot do: build a system without memory, or fit a stage to a single clip."""
    try:
        yield
    except (KinemaError, RuntimeError, ValueError):
        return


def repeated(batch: Batch, times: int) -> Batch:
    """Return a batch several times over."""
    tensors = {name: torch.cat(times * [value]) for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return replace(batch, **tensors, caption=None if batch.caption is None else times * batch.caption)


def weights_of(system: nn.Module) -> int:
    """Return how many weights a system has."""
    return sum(parameter.numel() for parameter in system.parameters())


def nbytes(tensors: list[Tensor]) -> int:
    """Return how much memory tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def gibibytes(size: float) -> str:
    """Write a size."""
    return f"{size / 2**30:.3f} GiB" if size >= 0.0005 * 2**30 or not size else "< 0.001 GiB"


def teraflops(flops: float) -> str:
    """Write an amount of arithmetic."""
    return f"{flops / 1e12:.3g} TFLOP"
