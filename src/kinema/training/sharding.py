"""Systems that outgrow a device: weights, gradients and optimiser states split over the processes (FSDP2).

A split system can do nothing but train: every pass through it takes all processes. So it is a copy, and the whole system waits
beside it, without the weights that are split, to take over the trained ones for sampling, for the next stage and for files.

References:
    Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel", VLDB 2023; per-parameter shards as in
    torch.distributed.fsdp.fully_shard.
"""

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Muon, Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kinema.core.errors import TrainingError
from kinema.core.system import Fit, System
from kinema.training import distributed
from kinema.training.memory import in_order, inverse, memory_order


class Split:
    """A system whose `System.shardable` modules are split over the processes, beside the whole one.

    What the stage does not move stays whole, a frozen compressor for example: it has no gradients, and is used alone as well.

    Args:
        whole: from `lend` on it has no weights until `gather` gives them back, trained.
        stage_name: the stage to train.
        device: where to train.
        averaged: keep averages of the weights, which are then what `gather` gives back.

    Attributes:
        system: the copy that is trained.
        averages: of the weights, by name.
        orders: the order of a parameter's axes in the memory of the whole system, by the parameter's id.

    Raises:
        TrainingError: for a module that cannot be split.
    """

    def __init__(self, whole: System[Any], stage_name: str, device: torch.device, *, averaged: bool) -> None:
        self._whole, self._device = whole, device
        self.system = copy.deepcopy(whole.to("cpu"))  # so that a device never holds all of it
        distributed.synchronise_batch_norm(self.system)
        orders = [memory_order(parameter) for parameter in self.system.parameters()]
        _shard(self.system, splittable(self.system, stage_name), device)
        self.orders = {id(parameter): order for parameter, order in zip(self.system.parameters(), orders, strict=True)}
        chosen = {id(p) for module in self.system.averaged() for p in module.parameters()} if averaged else set()
        kept = {name: parameter.detach() for name, parameter in self.system.named_parameters() if id(parameter) in chosen}
        self._split_of: dict[int, Any] = {id(p): p for p in self.system.parameters() if is_split(p)}
        self.averages = {name: weight.clone().float() for name, weight in kept.items()}
        self._shards = [local(average) for average in self.averages.values()], [local(weight) for weight in kept.values()]
        self._lent = False

    def lend(self) -> None:
        """Free the memory of the whole system's weights that are split."""
        if self._lent:
            return
        theirs = dict(self._whole.named_parameters())
        for name, parameter in self.system.named_parameters():
            if is_split(parameter):
                theirs[name].data = theirs[name].data.new_empty(0)
        self._lent = True

    @torch.no_grad()
    def gather(self) -> System[Any]:
        """Give the whole system the trained weights, or their averages, and return it; every process must come here."""
        theirs = dict(self._whole.named_parameters())
        for name, parameter in self.system.named_parameters():
            value = whole(self.averages.get(name, parameter).detach())
            theirs[name].data = in_order(value, self.orders[id(parameter)]) if is_split(parameter) else value.clone()
        self._whole.to(self._device)
        for mine, trained in zip(self._whole.buffers(), self.system.buffers(), strict=True):
            mine.copy_(trained)
        self._lent = False
        return self._whole

    def update(self, decay: float) -> None:
        """Move the averages towards the weights."""
        get_ema_multi_avg_fn(decay)(*self._shards, 0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return whole weights and buffers on the CPU; every process must come here."""
        return {name: whole(tensor.detach()).cpu() for name, tensor in self.system.state_dict().items()}

    def averaged_state_dict(self) -> dict[str, Tensor] | None:
        """Return the same with averaged weights, if there are any."""
        if not self.averages:
            return None
        kept = self.averages
        weights: dict[str, Tensor] = self.system.state_dict()
        return {name: whole(kept.get(name, weight).detach()).cpu() for name, weight in weights.items()}

    def shards(self, parameters: Iterable[nn.Parameter]) -> dict[int, nn.Parameter]:
        """Return this process's shards of the parameters that are split, as `for_shards` wants them."""
        made = {id(p): nn.Parameter(local(p.detach())) for p in parameters if is_split(p)}
        by_id = {id(p): p for p in self.system.parameters()}
        self._split_of |= {id(shard): by_id[name] for name, shard in made.items()}
        return made

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Return an optimiser's state as a run that is not split would have it; every process must come here."""
        state = optimizer.state_dict()
        return {**state, "state": self._by_parameter(optimizer, state["state"], self._whole_value)}

    def load_optimizer_state(self, optimizer: Optimizer, state: Mapping[str, Any]) -> None:
        """Take over what `optimizer_state` returned, here or in a run that was not split."""
        optimizer.load_state_dict({**state, "state": self._by_parameter(optimizer, state["state"], self._own_value)})

    def _by_parameter(
        self, optimizer: Optimizer, state: Mapping[int, Mapping[str, Any]], change: Callable[[Tensor, nn.Parameter], Tensor]
    ) -> dict[int, dict[str, Any]]:
        """Return a state with a change made to all that has the shape of a split parameter."""
        parameters, changed = flat(optimizer), {}
        for index, kept in state.items():
            mine = parameters[index]
            changed[index] = {
                name: change(value, mine) if id(mine) in self._split_of and isinstance(value, Tensor) and value.dim() else value
                for name, value in kept.items()
            }
        return changed

    def _whole_value(self, value: Tensor, mine: nn.Parameter) -> Tensor:
        parameter = self._split_of[id(mine)]
        gathered = whole(value if is_split(value) else shard_like(value, parameter))
        return gathered.permute(self.orders[id(parameter)]).contiguous().cpu()

    def _own_value(self, value: Tensor, mine: nn.Parameter) -> Tensor:
        parameter = self._split_of[id(mine)]
        part = part_of(value.permute(inverse(self.orders[id(parameter)])), parameter)
        return part if is_split(mine) else local(part)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor], averages: Mapping[str, Tensor] | None) -> None:
        """Take over what the two methods above returned, here or in a run that was not split."""
        for name, tensor in self.system.state_dict().items():
            tensor.copy_(part_of(state[name], tensor))
        for name, average in self.averages.items():
            average.copy_(part_of((averages or state)[name], average))


def refuse_unsplittable(system: System[Any], stage_name: str) -> None:
    """Raise `TrainingError` for a stage that moves nothing to split, or where there is nothing to split it over."""
    if distributed.processes() == 1:
        raise TrainingError("shard splits weights over processes, and this is one alone; use torchrun or no --shard")
    if not splittable(system, stage_name):
        raise TrainingError(
            f"{system.name} names no modules that stage {stage_name!r} moves and that can be split; train it without --shard"
        )


def splittable(system: System[Any], stage_name: str) -> list[nn.Module]:
    """Return the modules that can be split of those that a stage moves."""
    stage = system.stages()[stage_name]
    moves = [module for player in stage for module in player.moves] if not isinstance(stage, Fit) else []
    moved = {id(parameter) for module in moves for parameter in module.parameters()}
    return [module for module in system.shardable() if all(id(parameter) in moved for parameter in module.parameters())]


def _shard(system: System[Any], chosen: list[nn.Module], device: torch.device) -> None:
    """Split modules, inner ones first, so that an outer one splits what they leave."""
    mesh = init_device_mesh(device.type, (distributed.processes(),))
    named = {id(module) for module in chosen}
    for module in reversed(list(system.modules())):
        if id(module) in named:
            for parameter in module.parameters():
                if not is_split(parameter):
                    parameter.data = parameter.data.contiguous()  # channels-last memory cannot be split
            try:
                fully_shard(module, mesh=mesh, reshard_after_forward=True)
            except ValueError as error:  # a weight without axes, a module without a forward
                raise TrainingError(f"{type(module).__name__} of {system.name} cannot be split: {error}") from None
    system.to(device)


def is_split(tensor: Tensor) -> bool:
    """Tell whether a tensor is split over the processes."""
    return isinstance(tensor, DTensor)


def local(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, on the same memory; all of a tensor that is not split."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor; every process must come here."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def part_of(value: Tensor, like: Tensor) -> Tensor:
    """Return a whole tensor, which every process holds, split as another one is."""
    value = value.to(like.device).contiguous()
    if not isinstance(like, DTensor):
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def shard_like(value: Tensor, like: DTensor) -> DTensor:
    """Return what this process has of a split tensor, as part of it."""
    return DTensor.from_local(value, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def total_norm(gradients: Iterable[Tensor]) -> Tensor:
    """Return the norm of gradients, some of which may be split."""
    gradients = list(gradients)
    shards = [local(gradient) for gradient in gradients if is_split(gradient)]
    copies = [gradient for gradient in gradients if not is_split(gradient)]
    norm = torch.nn.utils.get_total_norm(copies)
    if not shards:
        return norm
    squares = torch.nn.utils.get_total_norm(shards).square()
    return (distributed.average(squares) * distributed.processes() + norm.to(squares.device).square()).sqrt()


# --- Optimisers ---------------------------------------------------------------------------------------------------------------


ELEMENTWISE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.RAdam)
"""Optimisers that step on every number by itself, and so on a shard as on all of a weight."""


class SplitMuon(Muon):
    """Muon on matrices that are split: momentum on the shards, and whole updates orthogonalised, one at a time.

    Muon itself multiplies the shards, in bfloat16 and with a message for every product: twenty times slower and more on two
    processes with gloo, and with other sums: after one step of 4e-3 weights differed by 4e-4.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._move(matrix, matrix.grad, dict(group))
        return None

    def _move(self, matrix: nn.Parameter, gradient: Tensor, settings: dict[str, Any]) -> None:
        share, nesterov, decay = (settings.pop(name) for name in ("momentum", "nesterov", "weight_decay"))
        settings.pop("params")
        momentum = self.state[matrix].setdefault("momentum_buffer", torch.zeros_like(gradient))
        momentum.lerp_(gradient, 1 - share)
        # Without momentum and from zero, where Muon moves a matrix to is its step.
        update = whole(gradient.lerp(momentum, share) if nesterov else momentum)
        step = nn.Parameter(torch.zeros_like(update))
        step.grad = update
        Muon([step], momentum=0.0, nesterov=False, weight_decay=0.0, **settings).step()
        matrix.mul_(1 - settings["lr"] * decay).add_(part_of(step.detach(), matrix))


def for_shards(optimizer: Optimizer, shards: Mapping[int, nn.Parameter]) -> Optimizer:
    """Return an optimiser that steps on the shards of its split parameters as the given one does on whole ones.

    Args:
        optimizer: built from split parameters and others, and new.
        shards: this process's shard as a parameter, on the same memory, by the split parameter's id.

    Raises:
        TrainingError: for one whose step on a number depends on others.
    """
    if not any(id(parameter) in shards for parameter in flat(optimizer)):
        return optimizer
    if isinstance(optimizer, Muon):
        return SplitMuon(optimizer.param_groups)
    if type(optimizer) not in ELEMENTWISE:
        names = ", ".join(kind.__name__ for kind in (*ELEMENTWISE, Muon))
        raise TrainingError(f"{type(optimizer).__name__} cannot step on split weights; accepted with --shard: {names}")
    for group in optimizer.param_groups:
        group["params"] = [shards.get(id(parameter), parameter) for parameter in group["params"]]
    return optimizer


def flat(optimizer: Optimizer) -> list[nn.Parameter]:
    """Return an optimiser's parameters in the order in which its state counts them."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
