"""Which allocator the program takes its memory from.

A training step takes and frees thousands of buffers while all threads but one wait. With mimalloc in place of glibc's malloc
it takes 4 to 11 % less time on two cores (benchmarks/environment.py), in about as much memory. An allocator can only be chosen
when a process starts.
"""

import importlib.util
import os
import sys
from pathlib import Path


def prefer_mimalloc() -> None:
    """Start the program anew in this process with mimalloc in place of glibc's malloc, unless it has it or the user chose.

    Whoever sets ``LD_PRELOAD``, be it to nothing, has chosen. Programs that this one starts do not inherit the choice.
    """
    library = installed_mimalloc()
    if library is None:
        return
    if os.environ.get("LD_PRELOAD") == library:  # started anew
        del os.environ["LD_PRELOAD"]
    elif "LD_PRELOAD" not in os.environ:
        # What is freed is kept: given back to the system it would come back page by page, zeroed anew.
        environment = {"MIMALLOC_PURGE_DELAY": "-1"} | os.environ | {"LD_PRELOAD": library}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def installed_mimalloc() -> str | None:
    """Return the path of the library in package ``cmeel-mimalloc``; None where it is not installed or cannot be named."""
    found = importlib.util.find_spec("cmeel") if sys.platform == "linux" else None
    if found is None or found.origin is None:
        return None
    library = Path(found.origin).parents[1] / "cmeel.prefix" / "lib" / "libmimalloc.so"
    separators = set(" :")  # between the libraries of LD_PRELOAD
    return str(library) if library.is_file() and not separators & set(str(library)) else None
