"""How much does a training lose to other work on the same cores, and what do threads that sleep soon save?

    python benchmarks/shared_cores.py
    python benchmarks/shared_cores.py --seconds 60

Trains VGAN (`laptop`, 16x32x32) for a while, on all cores, with GNU OpenMP's own 300,000 turns of waiting
(``GOMP_SPINCOUNT``) and with those of `kinema.cli.SPINS`, alone and beside a process for every core that only counts. The two
take turns. Prints one JSON line with the steps per second of each and their ratios. Nothing else should run on the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro

from kinema.cli import SPINS

SYSTEMS_OWN = "300000"


@dataclass(frozen=True)
class Arguments:
    """What to measure."""

    seconds: float = 10.0
    """Of training, for each of the four numbers, in each of two turns."""


def steps_per_second(data: Path, spins: str, seconds: float) -> float:
    """Train until there are so many seconds of log, stop, and return the rate; what begins and ends a run is not in it."""
    run = data.with_name(f"run-{time.monotonic_ns()}")
    command = [sys.executable, "-m", "kinema", "train", "vgan", str(data), "--frames", "16", "--size", "32", "--minutes", "60"]
    environment = os.environ | {"GOMP_SPINCOUNT": spins}
    training = subprocess.Popen(
        [*command, "--out", str(run), "--log-steps", "1"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    first: tuple[float, int] | None = None
    try:
        while training.poll() is None:
            time.sleep(0.5)
            lines = (run / "metrics.jsonl").read_text().splitlines()[:-1] if (run / "metrics.jsonl").exists() else []
            logged = [(entry["seconds"], entry["step"]) for line in lines if "seconds" in (entry := json.loads(line))]
            first = first or (logged[0] if logged else None)
            if first and logged[-1][0] - first[0] >= seconds:
                return (logged[-1][1] - first[1]) / (logged[-1][0] - first[0])
    finally:
        training.kill()
        training.wait()
    raise SystemExit("the training ended before it was measured")


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many cores busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> None:
    options, cores = tyro.cli(Arguments), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        drawn = ["performers", "--frames", "16", "--size", "32", "--clips", "64", "--out", str(data)]
        subprocess.run([sys.executable, "-m", "kinema", "prepare", *drawn], check=True, capture_output=True)
        rates: dict[str, float] = {}
        for _ in range(2):
            for where, others in (("alone", 0), ("beside", cores)):
                for who, spins in (("own", SYSTEMS_OWN), ("kinema", SPINS)):
                    with busy(others):
                        rate = steps_per_second(data, spins, options.seconds)
                    rates[f"{where}_{who}"] = rates.get(f"{where}_{who}", 0.0) + rate / 2
    ratios = {where: round(rates[f"{where}_kinema"] / rates[f"{where}_own"], 2) for where in ("alone", "beside")}
    rounded = {name: round(rate, 3) for name, rate in rates.items()}
    print(json.dumps({"cores": cores, "steps_per_second": rounded, "ratio": ratios}))


if __name__ == "__main__":
    main()
