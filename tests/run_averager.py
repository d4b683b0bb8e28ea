"""``kinema`` with the averager among its systems, in a process of its own; KILL_AFTER=2 kills it while it writes shard 3."""

import os
import signal
import sys
from contextlib import contextmanager

from averager import Averager
from kinema.cli import main
from kinema.data import latents
from kinema.systems import SYSTEMS

left, original = int(os.environ.get("KILL_AFTER", "-1")), latents.written_beside


@contextmanager
def deadly(path):
    global left
    with original(path) as file:
        yield file
        if path.suffix == ".npy":
            left -= 1
            if left == -1:
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    SYSTEMS["averager"] = Averager
    latents.SHARD_BYTES = int(os.environ.get("SHARD_BYTES", latents.SHARD_BYTES))
    if left >= 0:
        latents.written_beside = deadly
    sys.exit(main(sys.argv[1:]))
