"""The command line. This module imports nothing heavy: a verb's module is imported when the verb is used.

A verb module has ``run(arguments: list[str]) -> int``.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence

from kinema.cli.allocator import prefer_mimalloc
from kinema.core.errors import ConfigError, KinemaError, accepted

VERBS: dict[str, tuple[str, str]] = {
    "prepare": ("kinema.cli.prepare", "turn footage, or procedural people, into a dataset"),
    "train": ("kinema.cli.train", "train a system on a dataset"),
    "generate": ("kinema.cli.sample:generate", "make clips out of seeds"),
    "predict": ("kinema.cli.sample:predict", "continue a still image, a clip, or somebody's poses"),
    "reconstruct": ("kinema.cli.sample:reconstruct", "encode clips and decode them again"),
    "interpolate": ("kinema.cli.sample:interpolate", "walk from one seed to another, or from one image to another"),
    "inpaint": ("kinema.cli.complete:inpaint", "fill in what a mask hides of a clip"),
    "transfer": ("kinema.cli.transfer", "let somebody do what somebody else does in a video"),
    "evaluate": ("kinema.cli.evaluate", "judge a system or clips against real ones"),
    "probe": ("kinema.cli.probe", "are a run's features good for recognition with few labels?"),
    "compare": ("kinema.cli.compare", "train several systems with one budget, judge them and rank them"),
    "detect-fake": ("kinema.cli.detect_fake", "is a video synthesised? with measured error rates"),
    "units": ("kinema.cli.units", "show what the units of a trained network look for"),
    "study": ("kinema.cli.study", "let people judge: which of two clips do they prefer?"),
    "pose": ("kinema.cli.pose", "find, convert, smooth, draw and compare poses"),
    "list": ("kinema.cli.catalogue:list_systems", "show systems, what they can do and their presets"),
    "info": ("kinema.cli.catalogue:info", "say what is inside a run, a checkpoint or a dataset"),
    "demo": ("kinema.cli.demo", "make data, train, generate and open a gallery"),
}
"""Verb -> (module, or module:function where a module has several verbs; one line of help)."""


SPINS = "50000"
"""How often a thread of GNU's OpenMP looks for work before it sleeps: enough for what Python does between two operations. With
10,000, steps take 1 to 4 % longer (benchmarks/environment.py); the library's own 300,000 burn a core that another process
could use, and while that has the core everybody waits for one (benchmarks/shared_cores.py)."""


def usage() -> str:
    """Return the text of ``kinema --help``."""
    verbs = "\n".join(f"  {verb:<13}{about}" for verb, (_, about) in VERBS.items())
    return f"""usage: kinema VERB ...

Deep generative video on your own footage.

{verbs}

kinema VERB --help explains a verb; kinema --version prints the version.
"""


def program() -> int:
    """Be the program ``kinema``: what a verb computes, it computes with the quickest allocator."""
    if set(sys.argv[1:2]) & set(VERBS) and not set(sys.argv) & {"-h", "--help"}:
        prefer_mimalloc()
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 after bad input (one sentence on stderr), 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # read when a verb's module imports torch
    try:
        status = dispatch(arguments)
        sys.stdout.flush()  # while a reader that has gone is still our business
        return status
    except KinemaError as error:
        print(f"kinema: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of `kinema list | head` has gone: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # disk full, no permission: the system's own words and the file
        place = f": {error.filename}" if error.filename else ""
        print(f"kinema: {error.strerror or error}{place}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kinema: stopped", file=sys.stderr)
        return 130


def dispatch(arguments: list[str]) -> int:
    """Hand the rest of the command line to the verb's module.

    Raises:
        ConfigError: for an unknown verb.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0
    verb, *rest = arguments
    if verb == "--version":
        print(f"kinema {importlib.import_module('kinema').__version__}")
        return 0
    if verb not in VERBS:
        raise ConfigError(f"no verb {verb!r}; {accepted(verb, VERBS)}")
    module, _, function = VERBS[verb][0].partition(":")
    return getattr(importlib.import_module(module), function or "run")([hyphened(word) for word in rest])


def hyphened(word: str) -> str:
    """Return an option spelt with underscores as it is spelt everywhere else; what is no option stays."""
    name, equals, value = word.partition("=")
    return f"{name.replace('_', '-')}{equals}{value}" if re.fullmatch(r"--[a-z][\w.-]*", name) else word
