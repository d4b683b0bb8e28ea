"""What benchmarks share, no benchmark itself: a clock that waits for the device, two sides that take turns, and a ceiling."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import torch

from kinema.cli import SPINS
from kinema.cli.allocator import installed_mimalloc, prefer_mimalloc
from kinema.training import distributed

MATMUL = 8192
"""Side of the matrices whose product is the ceiling on a GPU."""


def timed(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return seconds on the clock and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    wait_for(device)
    return time.perf_counter() - clock, time.process_time() - processor


class Side:
    """A process that takes a step whenever it is asked to.

    Args:
        script: the benchmark, whose ``--side NAME`` calls `serve`.
        arguments: of the benchmark.
        name: of the side.
        as_kinema: start as `kinema` does; otherwise as Python does, with glibc's malloc and OpenMP's own waiting.
        processes: that take the step together, started by torchrun.
    """

    def __init__(self, script: str, arguments: Sequence[str], name: str, as_kinema: bool, processes: int = 1) -> None:
        inherited = {key: value for key, value in os.environ.items() if key not in ("LD_PRELOAD", "GOMP_SPINCOUNT")}
        environment = inherited | ({"GOMP_SPINCOUNT": SPINS} if as_kinema else {"LD_PRELOAD": ""})
        together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)) if processes > 1 else ()
        command = [sys.executable, *together, script, *arguments, "--side", name]
        self.process = subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def step(self) -> list[float]:
        """Return the seconds of a step on the clock and of the processor."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a side of the benchmark has died; its words are above")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def serve(build: Callable[[], Callable[[], object]], device: torch.device) -> None:
    """Be a `Side`: build what takes a step, take two, and then one for every line of input; print how long it took.

    Of several processes the first one reads and prints, and tells the others.
    """
    prefer_mimalloc()
    with distributed.together(device):
        step = build()
        for _ in range(2):
            step()
        while distributed.first_says(float(distributed.is_first() and bool(sys.stdin.readline()))):
            clock, processor = timed(step, device)
            everyone = distributed.processes() * float(distributed.average(torch.tensor(processor)))
            if distributed.is_first():
                print(json.dumps((clock, everyone)), flush=True)


def compared(
    script: str, arguments: Sequence[str], ours: str, plain: str, rounds: int, device: torch.device, processes: int = 1
) -> dict[str, float]:
    """Return the medians of steps that two sides take by turns, and their ratios.

    Each side has a process of its own, ours as `kinema` starts (or several, as torchrun starts them) and the plain one as
    Python does. In `ratio_of_arithmetic`, on a processor, the plain step has our allocator and as many processes as well.
    """
    starts = [(ours, True, processes), (plain, False, 1)]
    if device.type == "cpu" and installed_mimalloc():
        starts.append((plain, True, processes))
    sides = [Side(script, arguments, *start) for start in starts]
    times = [[side.step() for side in sides] for _ in range(rounds + 1)][1:]
    for side in sides:
        side.close()
    medians = [[statistics.median(one[side][kind] for one in times) for kind in (0, 1)] for side in range(len(sides))]
    (our, our_processor), (other, other_processor), *same = medians
    numbers = {
        "step_s": our,
        "plain_step_s": other,
        "ratio": other / our,
        "processor_ratio": other_processor / our_processor,
    }
    return numbers | ({"ratio_of_arithmetic": same[0][0] / our} if same else {})


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
