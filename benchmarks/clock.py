"""What benchmarks share, no benchmark itself: a clock that waits for the device, and the ceiling of what it can compute."""

import statistics
import time
from collections.abc import Callable

import torch

MATMUL = 8192
"""Side of the matrices whose product is the ceiling on a GPU."""


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return seconds on the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    wait_for(device)
    return time.perf_counter() - clock, time.process_time() - processor


def wait_for(device: torch.device) -> None:
    """Return when the device has done what was asked of it; a processor always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_tflops(device: torch.device, rounds: int = 9) -> float:
    """Return TFLOP/s of a large bf16 matrix product, the ceiling of what a step can reach."""
    left = torch.randn(MATMUL, MATMUL, device=device, dtype=torch.bfloat16)
    seconds = [timed(lambda: left @ left, device)[0] for _ in range(rounds + 2)][2:]
    return 2 * MATMUL**3 / statistics.median(seconds) / 1e12


def name_of(device: torch.device) -> str:
    """Return the name of the device, as a report states it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
