"""Checks every annotated tensor shape of kinema while the tests run."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

from jaxtyping import install_import_hook

install_import_hook("kinema", "runtime_types.check")
