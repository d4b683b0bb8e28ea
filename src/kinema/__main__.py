"""``python -m kinema`` is ``kinema``, also under torchrun."""

import sys

from kinema.cli import program

sys.exit(program())
