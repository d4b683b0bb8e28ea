"""How weights and buffers lie in memory: channels together, optimisers in memory's own order; what is free and was taken."""

import ctypes
import platform
import sys
from pathlib import Path

import torch
from torch import Tensor, nn


def keep_channels_together(module: nn.Module) -> None:
    """Put every weight of a 2-D or 3-D convolution in channels-last memory (`Module.to` refuses mixed ranks)."""
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    for parameter in module.parameters():
        if parameter.dim() in layouts:
            parameter.data = parameter.data.contiguous(memory_format=layouts[parameter.dim()])


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Return the axes of a tensor in the order in which they lie in memory."""
    return tuple(sorted(range(tensor.dim()), key=lambda axis: (-tensor.stride(axis), axis)))


def inverse(order: tuple[int, ...]) -> tuple[int, ...]:
    """Return the permutation that undoes one."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def in_order(tensor: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return the same values with axes that lie in memory in this order."""
    return tensor.permute(order).contiguous().permute(inverse(order))


def in_memory_order(parameter: nn.Parameter) -> nn.Parameter:
    """Return a parameter on the same memory whose axes are in the order of memory.

    Adam on a CPU copies whatever is not contiguous, its state too: six times the time of a step on channels-last weights.
    Elementwise optimisers compute the same on either.
    """
    return nn.Parameter(parameter.data.permute(memory_order(parameter)))


def keep_freed_memory() -> None:
    """Let malloc keep what is freed, where malloc is glibc's.

    Every step frees and takes the same large buffers again; given back to the system they come back page by page, zeroed anew:
    an eighth of a step on two cores.
    """
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
        library.mallopt(m_mmap_max, 0)
        library.mallopt(m_trim_threshold, 2**31 - 1)


def peak_memory(device: torch.device) -> float | None:
    """Return the most MiB that this process's tensors have held at a time on a GPU so far; None for any other device."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def free_memory(device: torch.device | str) -> int | None:
    """Return how many bytes a device has free for new tensors; None where nobody says.

    On Linux that is what the kernel takes for available, or what the control group of a container leaves, if that is less.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no control group, or "max": no limit
        return free
    return min(free, max(0, limit - used))
