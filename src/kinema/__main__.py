"""``python -m kinema`` is ``kinema``, also under torchrun."""

import sys

from kinema.cli import main

sys.exit(main())
