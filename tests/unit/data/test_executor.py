"""Executors: the same results everywhere, errors as sentences, nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinema.core.errors import ConfigError, DataError
from kinema.data.executor import Kind, open_executor, run_tasks


def square(number: int) -> int:
    if number == 13:
        raise DataError("13 is refused")
    return number * number


def die(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def squares(kind: Kind, workers: int, folder: Path, numbers: list[int], **options: object) -> dict[int, int]:
    with open_executor(kind, workers, folder=folder, options=options) as executor:
        return dict(run_tasks(executor, square, numbers, in_flight=3))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(tmp_path: Path, workers: int) -> None:
    assert squares("local", workers, tmp_path, list(range(10))) == {n: n * n for n in range(10)}


@pytest.mark.parametrize("workers", [1, 2])
def test_the_error_of_a_task_comes_out_as_it_is(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DataError, match=r"^13 is refused$"):
        squares("local", workers, tmp_path, [12, 13, 14])


def test_a_killed_worker_is_a_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match=r"a worker process was killed.*run the same command again"),
        open_executor("local", 2, folder=tmp_path) as executor,
    ):
        list(run_tasks(executor, die, [1], in_flight=1))


def test_slurm_jobs_through_submitit(tmp_path: Path) -> None:
    """submitit's `local` cluster runs the same pickled jobs that Slurm would, each in a process of its own."""
    assert squares("slurm", 2, tmp_path / "jobs", [3, 4], cluster="local", timeout_min=2) == {3: 9, 4: 16}
    assert list((tmp_path / "jobs").glob("*_submitted.pkl"))


@pytest.mark.slow
def test_ray(tmp_path: Path) -> None:
    """A local Ray takes some ten seconds to start and to stop."""
    with open_executor("ray", 1, folder=tmp_path) as executor:
        assert dict(run_tasks(executor, square, [3, 4], in_flight=3)) == {3: 9, 4: 16}
        with pytest.raises(DataError, match=r"^13 is refused$"):
            list(run_tasks(executor, square, [13], in_flight=3))


@pytest.mark.parametrize(
    ("kind", "workers", "options", "says"),
    [
        ("local", 0, {}, "workers is 0"),
        ("local", 1, {"timeout_min": 3}, "are for --executor slurm"),
        ("slurm", 1, {"cluster": "nowhere"}, "--executor slurm: .*nowhere"),
        ("slurm", 1, {"cluster": "local", "slurm_partitoin": "a"}, "--executor slurm: .*partitoin"),
    ],
)
def test_wrong_options_are_sentences(tmp_path: Path, kind: Kind, workers: int, options: dict[str, object], says: str) -> None:
    with pytest.raises(ConfigError, match=says), open_executor(kind, workers, folder=tmp_path, options=options):
        pass


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = f"""
import time
from pathlib import Path
from orphans import say_who
from kinema.data.executor import open_executor, run_tasks
if __name__ == "__main__":
    with open_executor("local", 2, folder=Path({str(tmp_path)!r})) as executor:
        list(run_tasks(executor, say_who, [Path({str(tmp_path)!r})], in_flight=1))
        print("ready", flush=True)
        time.sleep(60)
"""
    (tmp_path / "main.py").write_text(script)
    (tmp_path / "orphans.py").write_text(
        "import os\ndef say_who(folder):\n    (folder / 'worker').write_text(str(os.getpid()))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "main.py"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    assert parent.stdout is not None
    with parent.stdout:
        assert parent.stdout.readline() == "ready\n"
    worker = int((tmp_path / "worker").read_text())
    parent.kill()
    parent.wait()
    for _ in range(200):
        if not is_running(worker):
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent by ten seconds")


def is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
