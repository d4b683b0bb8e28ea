"""The program starts itself anew with another allocator, once, and only where nobody chose one."""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from kinema.cli import allocator, program
from kinema.cli.allocator import installed_mimalloc, prefer_mimalloc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the library is for Linux")
STATE = """
import json, os, sys
from kinema.cli.allocator import prefer_mimalloc
prefer_mimalloc()
maps = open("/proc/self/maps").read()
print(json.dumps({"mimalloc": "mimalloc" in maps, "left": os.environ.get("LD_PRELOAD"), "arguments": sys.argv[1:]}))
"""


def started(**environment: str) -> dict[str, object]:
    """Return how a process finds itself that prefers mimalloc."""
    inherited = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    command = [sys.executable, "-c", STATE, "one", "two words"]
    done = subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return json.loads(done.stdout)


def test_a_process_has_mimalloc_and_its_children_are_left_alone() -> None:
    assert started() == {"mimalloc": True, "left": None, "arguments": ["one", "two words"]}


def test_who_preloads_something_or_nothing_has_chosen() -> None:
    assert started(LD_PRELOAD="") == {"mimalloc": False, "left": "", "arguments": ["one", "two words"]}


def test_verbs_are_started_so_and_help_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    monkeypatch.setattr("kinema.cli.prefer_mimalloc", lambda: asked.append(sys.argv[1]))
    for arguments in (["list"], ["train", "--help"], ["--version"], [], ["nonsense"]):
        monkeypatch.setattr(sys, "argv", ["kinema", *arguments])
        with suppress(SystemExit):
            program()
    assert asked == ["list"]
    capsys.readouterr()


def test_without_the_package_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("started anew"))
    prefer_mimalloc()


def test_a_folder_that_the_loader_would_split_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, usable in (("plain", True), ("two words", False)):
        library = tmp_path / name / "cmeel.prefix" / "lib" / "libmimalloc.so"
        library.parent.mkdir(parents=True)
        library.touch()
        package = importlib.util.spec_from_file_location("cmeel", tmp_path / name / "cmeel" / "__init__.py")
        monkeypatch.setattr(allocator.importlib.util, "find_spec", lambda name, found=package: found)
        assert installed_mimalloc() == (str(library) if usable else None)
