"""The trainings of a comparison: each in a process of its own, by the path of ``kinema train``, going on where it stopped."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kinema.core.errors import EvaluationError
from kinema.evaluation.compare import Contest, Part
from kinema.training import runlog

LOG_NAME = "train.log"
COSTS_NAME = "costs.jsonl"  # beside a run: seconds and memory of every session
LOOK_SECONDS = 0.5  # between two looks at a training that runs
STOPPED = (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM)
"""Exit statuses of a training that somebody stopped."""


def train(contest: Contest, part: Part, folder: Path, said: Callable[[str, int, int], None]) -> None:
    """Train up to a point in a process of its own, going on with what is there; what it cost is kept beside the run.

    Raises:
        EvaluationError: why it failed.
        KeyboardInterrupt: when somebody stopped it.
    """
    if is_trained(contest, part, folder):
        return
    part.training(folder).mkdir(parents=True, exist_ok=True)
    words = contest.command(part, folder, resume=(part.run(folder) / runlog.CONFIG_NAME).is_file())
    log = part.training(folder) / LOG_NAME
    before, began, memory = log.stat().st_size if log.exists() else 0, time.monotonic(), None
    try:
        status, memory = in_own_process(words, log, lambda: said(f"training {part.name}", *_progress(contest, part, folder)))
    finally:
        _note_cost(part, folder, time.monotonic() - began, memory)
    if status in STOPPED:
        raise KeyboardInterrupt
    if status != 0:
        raise EvaluationError(reason(log.read_bytes()[before:].decode(errors="replace"), status))


def reason(said: str, status: int) -> str:
    """Return in one sentence why a training failed: its own last words, or the signal that ended it."""
    if status < 0:
        killed = f"the training was killed by {signal.Signals(-status).name}"
        return f"{killed}; was there too little memory?" if -status == signal.SIGKILL else killed
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    own = [line.removeprefix("kinema: ") for line in lines if line.startswith("kinema: ")]
    return (own or lines or [f"the training ended with status {status}"])[-1]


def in_own_process(words: Sequence[str], log: Path, meanwhile: Callable[[], None]) -> tuple[int, float | None]:
    """Run ``kinema`` with words; a failure, or its memory, is then nobody else's.

    Args:
        words: after ``kinema``.
        log: takes what it says.
        meanwhile: called again and again while it runs.

    Returns:
        Exit status, negative where a signal ended it, and the greatest memory that it held in MiB, where the system tells.
    """
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "kinema", *words], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    memory, pause = None, LOOK_SECONDS / 64
    try:
        while process.poll() is None:
            memory = peak_memory(process.pid) or memory
            meanwhile()
            time.sleep(pause)
            pause = min(2 * pause, LOOK_SECONDS)  # often at first: what ends soon is seen too
        return process.returncode, memory
    except BaseException:
        process.terminate()  # it saves and ends; a Ctrl-C that it got as well does no harm
        process.wait()
        raise


def peak_memory(process: int) -> float | None:
    """Return the greatest memory that a running process has held so far, in MiB; None where the system does not tell.

    Not of `os.wait4`: what that tells of a child is never less than what the parent held when it began it.
    """
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE)
    return int(found[1]) / 2**10 if found else None


def is_trained(contest: Contest, part: Part, folder: Path) -> bool:
    """Tell whether a run has used its budget up to a point."""
    if not (part.run(folder) / runlog.CONFIG_NAME).is_file():
        return False
    kind, amount = contest.budget(part)
    lines = runlog.read_metrics(part.run(folder))
    ended = bool(lines) and lines[-1].get("end") == "finished"
    return ended and runlog.read_description(part.run(folder)).training[kind] == amount


def _progress(contest: Contest, part: Part, folder: Path) -> tuple[int, int]:
    """Return seconds or steps done, and those of the budget up to a point."""
    kind, amount = contest.budget(part)
    lines = [line for line in runlog.read_metrics(part.run(folder)) if "seconds" in line]
    done = lines[-1] if lines else {"seconds": 0, "step": 0}
    return (int(done["seconds"]), round(60 * amount)) if kind == "minutes" else (done["step"], round(amount))


def _note_cost(part: Part, folder: Path, seconds: float, memory: float | None) -> None:
    """Keep what a session cost, whatever its end."""
    with (part.training(folder) / COSTS_NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"seconds": round(seconds, 2), "memory": memory}) + "\n")


def cost_of(part: Part, folder: Path) -> dict[str, Any]:
    """Return what a training has cost so far."""
    run_folder, costs = part.run(folder), part.training(folder) / COSTS_NAME
    sessions = [json.loads(line) for line in costs.read_text(encoding="utf-8").splitlines()] if costs.exists() else []
    lines = [line for line in runlog.read_metrics(run_folder) if "seconds" in line]
    last = lines[-1]
    description = runlog.read_description(run_folder)
    return {
        "minutes": last["seconds"] / 60,
        "steps": last["step"],
        "clips": last["step"] * description.training["batch_size"],
        "process minutes": sum(session["seconds"] for session in sessions) / 60,
        "memory": max((session["memory"] for session in sessions if session["memory"]), default=None),
        "device memory": max((line["device_memory"] for line in lines if "device_memory" in line), default=None),
        "parameters": description.weights,
    }
