"""Command lines from frozen dataclasses: tyro builds the parser, and what is wrong becomes one sentence.

Fields that are positional are annotated ``Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]``.
"""

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from kinema.core.errors import ConfigError

ArgumentsT = TypeVar("ArgumentsT")


def parse(arguments_class: type[ArgumentsT], arguments: Sequence[str], verb: str) -> ArgumentsT:
    """Build `arguments_class` from a command line; ``--help`` prints and exits.

    Args:
        arguments_class: frozen dataclass whose docstrings are the help.
        arguments: what follows the verb.
        verb: as the user typed it.

    Raises:
        ConfigError: for an unknown option (with the nearest name), a missing one or a value of the wrong kind.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(
                arguments_class,
                prog=f"kinema {verb}",
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff,),
            )
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
        raise ConfigError(f"{one_sentence(complaint.getvalue())} (see kinema {verb} --help)") from None


def cluster_options(words: Sequence[str]) -> dict[str, Any]:
    """Turn words NAME=VALUE, as submitit names its parameters, into a mapping; whole numbers become such.

    Raises:
        ConfigError: for a word of another form.
    """
    pairs = [word.partition("=") for word in words]
    wrong = next(("".join(pair) for pair in pairs if not pair[1]), None)
    if wrong:
        raise ConfigError(f"cluster option {wrong!r} must be NAME=VALUE, such as slurm_partition=cpu")
    return {name: int(value) if value.isdecimal() else value for name, _, value in pairs}


def one_sentence(complaint: str) -> str:
    """Turn tyro's framed complaint into one line: what is wrong and the nearest names, without frame and help.

    Args:
        complaint: a title, then what is wrong, the nearest names and further help, with rules between them. The frame is of
            spaces and hyphens where the terminal has no UTF-8.
    """
    lines = complaint.splitlines()
    body = lines[1:-1] if complaint.startswith("╭") else lines[2:]
    parts: list[list[str]] = [[]]
    for line in (re.sub(r"^[│ ] ?|[│ ]+$", "", line) for line in body):
        if line and set(line) <= set("─-"):
            parts.append([])
        elif line:
            parts[-1].append(line)
    wrong = re.sub(r"\s+", " ", " ".join(parts[0])).strip(" .")
    near = {part[0]: [line.split()[0] for line in part[1:] if re.match(r" {4}--", line)] for part in parts[1:]}
    if one := near.get("Perhaps you meant:"):
        return f"{wrong}; did you mean {' or '.join(one)}?"
    similar = re.compile("Arguments similar to (.+):")  # where several options are wrong
    several = {found[1]: " or ".join(names) for title, names in near.items() if (found := similar.match(title)) and names}
    meant = [f"{several[name]} for {name}" for name in sorted(several, key=wrong.index)]
    return f"{wrong}; did you mean {' and '.join(meant)}?" if meant else wrong
