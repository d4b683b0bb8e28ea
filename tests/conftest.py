"""Checks every annotated tensor shape of kinema while the tests run."""

import os
import signal

# Tensors here are so small that a second thread mostly waits for the first one; the cores go to tests side by side.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from jaxtyping import install_import_hook

install_import_hook("kinema", "runtime_types.check")

# A shell starts background jobs with Ctrl-C ignored, and children inherit that; the tests of Ctrl-C want it as in a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
