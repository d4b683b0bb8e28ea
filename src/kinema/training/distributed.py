"""Processes that train together: torchrun starts them; gradients, numbers and batch statistics are averaged over them.

Every function also works in a process that is alone, where it does nothing. Ranks hold equal shares of the global batch, so an
average over processes is the average over the global batch.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kinema.core.compiling import untraced
from kinema.core.errors import TrainingError
from kinema.core.peers import stands_in

_local: ContextVar[bool] = ContextVar("local", default=False)


class PeerStoppedError(TrainingError):
    """Another process of this run stopped; it has said why."""


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def processes() -> int:
    """Return how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_first() -> bool:
    """Tell whether this process is the one that writes files and talks to the user."""
    return rank() == 0


def choose_device(name: str = "auto") -> torch.device:
    """Return the device for a name: ``auto`` is this process's GPU where there is one, else the CPU.

    Raises:
        TrainingError: for an unknown name, or a GPU where there is none.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number == "" or number.isdecimal()):
        raise TrainingError(f"there is no device {name!r}; accepted: auto, cpu, cuda, cuda:N")
    if kind == "cpu":
        return torch.device("cpu")
    index, available = int(number or local_rank), torch.cuda.device_count()
    if index >= available:
        raise TrainingError(f"device cuda:{index} was asked for, and this machine offers {available} CUDA devices; use cpu")
    return torch.device("cuda", index)


@contextmanager
def together(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started, if it did, for as long as the context lasts.

    A process that fails leaves the group, which stops the others too: they leave silently with status 2, so that the one
    sentence of the process that failed is what the user reads.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    except PeerStoppedError:
        raise SystemExit(2) from None
    finally:
        dist.destroy_process_group()


@contextmanager
def locally() -> Iterator[None]:
    """Within this context batch-norm statistics are those of this process alone, so that one process may sample by itself."""
    token = _local.set(True)
    try:
        yield
    finally:
        _local.reset(token)


@untraced
def average(values: Tensor) -> Tensor:
    """Return the mean over processes of a tensor of one shape."""
    if processes() == 1:
        return values
    total = values.detach().clone(memory_format=torch.contiguous_format)
    _sum_in_place(total)
    return total / processes()


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients by their mean over processes, in one message."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if processes() == 1 or not gradients:
        return
    bucket = average(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for gradient, part in zip(gradients, bucket.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def first_says(value: float) -> float:
    """Return the first process's value in every process."""
    if processes() == 1:
        return value
    message = torch.tensor([value], dtype=torch.float64, device=_message_device())
    _broadcast(message)
    return float(message.item())


def copy_from_first(module: nn.Module) -> None:
    """Give every process the parameters and buffers that the first one holds."""
    if processes() == 1:
        return
    for tensor in module.state_dict().values():
        message = tensor.detach().to(_message_device()).contiguous()
        _broadcast(message)
        tensor.copy_(message)


def wait_for_all() -> None:
    """Return when every process has come here."""
    if processes() > 1:
        _sum_in_place(torch.zeros(1, device=_message_device()))


def synchronise_batch_norm(module: nn.Module) -> None:
    """Let every batch norm inside `module` see the global batch; names in the state dict stay.

    Raises:
        TrainingError: for a batch norm of an unknown kind.
    """
    if processes() == 1:
        return
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm) and not isinstance(child, SynchronisedBatchNorm):
                parent.add_module(name, _synchronised(child))


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over the batches of all processes, on any device (torch's SyncBatchNorm refuses the CPU)."""

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the mean and variance of the global batch; as ordinary batch norm in evaluation mode."""
        if not self.training or _local.get():
            return super().forward(input)
        others = [axis for axis in range(input.dim()) if axis != 1]
        # In two passes, not E[x^2] - E[x]^2, which loses digits; in float32 whatever autocast says.
        with torch.autocast(input.device.type, enabled=False):
            values, own = input.float(), 0 if stands_in() else input.numel() // input.shape[1]
            # Processes may have different numbers of rows: each counts by how many it has.
            sums, count = _Mean.apply(torch.cat([values.mean(others) * own, values.new_tensor([own])])).split(
                [values.shape[1], 1]
            )
            count = count.detach()
            mean = sums / count
            variance = _Mean.apply((values - _along(mean, values)).square().mean(others) * (own / count))
            self._remember(mean.detach(), variance.detach(), round(float(count) * processes()))
            normal = (values - _along(mean, values)) * _along(torch.rsqrt(variance + self.eps), values)
            if self.affine:
                normal = normal * _along(self.weight, values) + _along(self.bias, values)
        return normal.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


class _Mean(torch.autograd.Function):
    """Mean over processes, in both directions."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        return average(values)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return average(gradients[0])


def _synchronised(norm: nn.modules.batchnorm._BatchNorm) -> SynchronisedBatchNorm:
    if type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d):
        raise TrainingError(f"{type(norm).__name__} cannot be averaged over processes; train in one process")
    twin = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    twin.__dict__.update({key: value for key, value in vars(norm).items() if key not in ("_parameters", "_buffers")})
    twin._parameters.update(norm._parameters)
    twin._buffers.update(norm._buffers)
    return twin


def _along(values: Tensor, like: Tensor) -> Tensor:
    return values.view(1, -1, *(1 for _ in range(like.dim() - 2)))


def _message_device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")


def _sum_in_place(tensor: Tensor) -> None:
    try:
        dist.all_reduce(tensor)
    except RuntimeError as error:
        raise PeerStoppedError(f"process {rank()} of {processes()} stops because another one did ({error})") from None


def _broadcast(tensor: Tensor) -> None:
    try:
        dist.broadcast(tensor, src=0)
    except RuntimeError as error:
        raise PeerStoppedError(f"process {rank()} of {processes()} stops because another one did ({error})") from None
