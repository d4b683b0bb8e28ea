"""Every stage of every system trains with its objectives compiled, to the same numbers and without a warning.

In a process of its own, in which nothing checks the types of what is called: torch cannot trace the checks.
"""

import functools
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

HERE = Path(__file__)


@pytest.mark.slow
def test_every_stage_trains_compiled() -> None:
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parents[1])])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-8000:]


def compare() -> None:
    """Train every stage for a step, compiled (traced, that is: a compiler of C++ is not asked for) and as it is."""
    from test_systems import PLAYED, clips, tiny, trainer_of

    warnings.filterwarnings("error", message="Dynamo does not know")
    torch.compile = functools.partial(torch.compile, backend="eager")
    for name, stage in PLAYED:
        plain, compiled = (
            trainer_of(tiny(name), stage, precision="bf16", compile=one).step(clips(tiny(name))) for one in (False, True)
        )
        print(name, stage, plain, compiled)
        assert plain.keys() == compiled.keys()
        for term, value in plain.items():
            assert compiled[term] == pytest.approx(value, rel=0.05, abs=0.02), (name, stage, term)


if __name__ == "__main__":
    compare()
