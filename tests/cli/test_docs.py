"""What the documentation tells a person to type exists, and so do the tests that it names."""

import contextlib
import io
import re
import shlex
from pathlib import Path

import pytest

from kinema.cli import VERBS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"(?:^|`|-m |/)kinema ([a-z-]+ [^`#\n]*)", re.MULTILINE)


def commands() -> list[list[str]]:
    return [shlex.split(match.rstrip(" \\")) for page in PAGES for match in COMMAND.findall(page.read_text())]


def help_of(words: list[str]) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return said.getvalue()


TWO_WORDS = ("train", "prepare", "study", "pose")


@pytest.mark.parametrize("topic", sorted({tuple(c[:2]) if c[0] in TWO_WORDS else (c[0],) for c in commands() if c}))
def test_documented_options_exist(topic: tuple[str, ...]) -> None:
    asked = [words for words in commands() if tuple(words[: len(topic)]) == topic]
    known = VERBS.keys()
    assert topic[0] in known
    drawn = topic[1:2] in (("performers",), ("shapes",), ("mocap",))
    named = topic if topic[0] in ("train", "study", "pose") or drawn else topic[:1]
    listed = set(re.findall(r"--[a-z][a-z0-9-]*", help_of(list(named))))
    options = {word.partition("=")[0] for words in asked for word in words if word.startswith("--")}
    assert options - {"--help"} <= listed


def test_documented_tests_exist() -> None:
    written = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named
    assert not [name for name in sorted(named) if f"def {name}(" not in written]


def test_the_readme_begins_with_what_to_run() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("make ") for line in lines[:15])


def test_documentation_holds_no_private_path() -> None:
    for page in PAGES:
        assert not re.search(r"/work/|/tmp/|/home/|/root/", page.read_text()), page
