"""The front door: verbs, help, and one sentence for whatever goes wrong."""

import errno
import io
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import tyro

import kinema.cli
from kinema.cli import VERBS, main
from kinema.cli.arguments import parse
from kinema.core.errors import ConfigError, DataError


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    words = capsys.readouterr().out.split()
    assert set(VERBS) <= set(words)


def test_without_arguments_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("usage: kinema VERB")


@pytest.mark.parametrize(
    ("given", "found"), [({}, "50000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)]
)
def test_waiting_threads_sleep_soon_unless_somebody_decided(
    given: dict[str, str], found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert main(["--version"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT") == found


def test_unknown_verb_is_a_sentence_with_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generat"]) == 2
    assert capsys.readouterr().err.startswith("kinema: no verb 'generat'; did you mean 'generate'?")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main([verb, "--help"])
    except SystemExit as exit_:
        status = exit_.code
    assert status in (0, None)
    assert f"usage: kinema {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (DataError("no clips"), 2, "kinema: no clips\n"),
        (OSError(errno.ENOSPC, "No space left on device", "a.mp4"), 2, "kinema: No space left on device: a.mp4\n"),
        (KeyboardInterrupt(), 130, "kinema: stopped\n"),
    ],
)
def test_errors_become_one_sentence(
    error: BaseException, status: int, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(kinema.cli, "dispatch", fail)
    assert main(["list"]) == status
    assert capsys.readouterr() == ("", sentence)


def test_a_reader_that_leaves_is_no_error() -> None:
    script = "import sys; from kinema.cli import main; sys.exit(main(['--help']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


@dataclass(frozen=True)
class Options:
    """Options to try the parser with."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """Where."""
    count: int = 1
    """How many."""
    format: Literal["mp4", "gif"] = "mp4"
    """Which."""


def test_parse_reads_positions_options_and_underscores() -> None:
    assert parse(Options, ["here", "--count", "3", "--format=gif"], "try") == Options("here", 3, "gif")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["here", "--cuont", "3"], "Unrecognized options: --cuont, 3; did you mean --count? (see kinema try --help)"),
        (
            ["here", "--cuont", "3", "--fromat", "gif"],
            "Unrecognized options: --cuont, 3, --fromat, gif; did you mean --count for --cuont and --format for --fromat? (see",
        ),
        (["here", "--count", "many"], "Error parsing --count: invalid literal for int() with base 10: 'many' (see kinema"),
        (["here", "--format", "avi"], "invalid choice 'avi' for argument '--format'. Expected one of ('mp4', 'gif')"),
        ([], "Missing from kinema try: RUN"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_wrong_arguments_are_one_sentence(
    encoding: str, arguments: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """tyro draws its frame with other characters where the terminal has no UTF-8."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    with pytest.raises(ConfigError) as caught:
        parse(Options, arguments, "try")
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().err == ""
