"""How much does a training lose to other work on the same cores, and what do threads that sleep soon save?

    python benchmarks/shared_cores.py
    python benchmarks/shared_cores.py --seconds 60

Trains the video transformer (`laptop`) for a while, on all cores, with GNU OpenMP's own 300,000 turns of waiting
(``GOMP_SPINCOUNT``) and with those of `kinema.cli.SPINS`, alone and beside a process for every core that only counts. The two
take turns. Prints one JSON line with the steps of each and their ratios. Nothing else should run on the machine.
"""

import json
import os
import subprocess
import sys
import tempfile
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

    seconds: float = 20.0
    """Of training for each of the four numbers, in two turns."""


def steps(data: Path, run: Path, spins: str, seconds: float) -> int:
    """Train for so long and return the steps of both stages."""
    command = [sys.executable, "-m", "kinema", "train", "latent-video-dit", str(data), "--minutes", str(seconds / 60)]
    environment = os.environ | {"GOMP_SPINCOUNT": spins}
    subprocess.run([*command, "--out", str(run), "--overwrite"], env=environment, check=True, capture_output=True)
    return json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]


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
        data, run = Path(scratch) / "data", Path(scratch) / "run"
        drawn = ["performers", "--frames", "16", "--size", "32", "--clips", "64", "--out", str(data)]
        subprocess.run([sys.executable, "-m", "kinema", "prepare", *drawn], check=True, capture_output=True)
        counted: dict[str, int] = {}
        for _ in range(2):
            for where, others in (("alone", 0), ("beside", cores)):
                for who, spins in (("own", SYSTEMS_OWN), ("kinema", SPINS)):
                    with busy(others):
                        made = steps(data, run, spins, options.seconds / 2)
                    counted[f"{where}_{who}"] = counted.get(f"{where}_{who}", 0) + made
    ratios = {where: round(counted[f"{where}_kinema"] / max(1, counted[f"{where}_own"]), 2) for where in ("alone", "beside")}
    print(json.dumps({"cores": cores, "seconds": options.seconds, "steps": counted, "ratio": ratios}))


if __name__ == "__main__":
    main()
