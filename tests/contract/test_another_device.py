"""Runs `tests/device` in a process of its own: torch keeps a device that it once knows, and every gradient waits for it."""

import subprocess
import sys

import pytest


def test_systems_and_commands_work_on_another_device(request: pytest.FixtureRequest) -> None:
    marks = request.config.getoption("markexpr")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", str(marks), "tests/device"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
