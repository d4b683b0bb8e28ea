"""One motion by two people: the exact truth that a motion transfer from the left to the right has to reach.

python examples/motion_transfer_truth.py truth.gif
"""

import sys
from pathlib import Path

import numpy as np

from kinema.data.encode import write_video
from kinema.data.motions import sample_motion
from kinema.data.performers import cast, render


def main(path: Path, frames: int = 64, size: int = 128) -> None:
    (source, target, *_), stages = cast(seed=0, variety="medium")
    motion = sample_motion("dance", frames, 16.0, np.random.default_rng(1))
    films = [render(motion, identity, stage, size=size) for identity, stage in ((source, stages[0]), (target, stages[3]))]
    write_video(path, np.concatenate([film.video for film in films], axis=2), 16.0)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "truth.gif"))
