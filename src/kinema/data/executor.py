"""Where tasks run: this process, spawned local processes, Ray or Slurm, all behind `concurrent.futures.Executor`."""

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypeVar

from kinema.core.errors import ConfigError, DataError, KinemaError

Kind = Literal["local", "ray", "slurm"]
_Job = TypeVar("_Job")
_Result = TypeVar("_Result")


@contextmanager
def open_executor(kind: Kind, workers: int, *, folder: Path, options: Mapping[str, Any] | None = None) -> Iterator[Executor]:
    """Open an executor; leaving the context drops what has not begun, and after an error ends what has.

    Args:
        kind: ``local`` (one worker is this process itself, more are spawned), ``ray`` (the cluster at RAY_ADDRESS, else a
            local one of `workers` cores) or ``slurm`` (one job per task through submitit).
        workers: tasks at a time, >= 1.
        folder: where Slurm jobs keep their logs; every host must see it.
        options: for Slurm, parameters of submitit's AutoExecutor, and ``cluster`` to choose another of its clusters.

    Raises:
        ConfigError: fewer than one worker, options that the kind does not have, or a package that is not installed.
    """
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be at least 1")
    if options and kind != "slurm":
        raise ConfigError(f"cluster options ({', '.join(options)}) are for --executor slurm, not {kind}")
    others = multiprocessing.active_children()
    executor = _open(kind, workers, folder, options or {})
    try:
        yield executor
    except BaseException:
        # A worker would otherwise finish its task, a minute perhaps, before Ctrl-C or an error is answered.
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def run_tasks(
    executor: Executor, function: Callable[[_Job], _Result], jobs: Iterable[_Job], *, in_flight: int
) -> Iterator[tuple[_Job, _Result]]:
    """Yield every job with its result, in the order of completion; at most `in_flight` are submitted at a time.

    Raises:
        KinemaError: the first that a job raises.
        DataError: a worker process died.
    """
    running: dict[Future[_Result | KinemaError], _Job] = {}
    waiting = iter(jobs)
    try:
        while True:
            while len(running) < in_flight and (job := next(waiting, None)) is not None:
                running[executor.submit(_guarded, function, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                if isinstance(result, KinemaError):
                    raise result
                yield running.pop(future), result
    except BrokenProcessPool:
        raise DataError(
            "a worker process was killed, perhaps for want of memory; run the same command again to go on, with fewer --workers"
        ) from None


def _guarded(function: Callable[[_Job], _Result], job: _Job) -> _Result | KinemaError:
    """Return an error instead of raising it: Ray and submitit would wrap it in errors of their own."""
    try:
        return function(job)
    except KinemaError as error:
        return error


def _open(kind: Kind, workers: int, folder: Path, options: Mapping[str, Any]) -> Executor:
    if kind == "ray":
        return RayExecutor(workers)
    if kind == "slurm":
        return SlurmExecutor(folder, options)
    if workers == 1:
        return InlineExecutor()
    # Spawned, not forked: FFmpeg and OpenCV keep threads, which a fork would lose in the middle of their work.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
    # Ctrl-C reaches the whole group of processes, but only this one is to answer it: what is blocked here stays blocked in the
    # processes that begin now.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        for _ in range(workers):  # each task begins one worker, as long as none is idle
            pool.submit(os.getpid)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pool


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a worker that a later task begins is not blocked from birth
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent has been killed; a pool's worker would wait for it for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


class InlineExecutor(Executor):
    """Runs a task in this process, when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run `fn` and return its finished future; what `fn` raises is raised here."""
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class RayExecutor(Executor):
    """Runs tasks on Ray: on the cluster of RAY_ADDRESS, else on one made of this machine's cores.

    Args:
        workers: cores of the local cluster.
    """

    def __init__(self, workers: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no word to anybody outside
        self._ray = _extra("ray")
        self._began = not self._ray.is_initialized()
        if self._began:
            local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": workers, "include_dashboard": False}
            self._ray.init(log_to_driver=False, logging_level="ERROR", **local)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand one task to Ray; it takes one core."""
        return self._ray.remote(fn).remote(*args, **kwargs).future()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave Ray, if this executor began it; what still runs is dropped."""
        if self._began:
            self._ray.shutdown()


class SlurmExecutor(Executor):
    """Runs every task as a Slurm job through submitit.

    Args:
        folder: logs and pickled tasks; every host must see it.
        options: parameters of submitit's AutoExecutor such as ``slurm_partition`` and ``timeout_min``; ``cluster`` chooses
            among submitit's clusters (``slurm`` by default; ``local`` runs processes on this machine).
    """

    POLL_SECONDS = 0.2

    def __init__(self, folder: Path, options: Mapping[str, Any]) -> None:
        parameters = dict(options)
        submitit = _extra("submitit")
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=parameters.pop("cluster", "slurm"))
            self._executor.update_parameters(**{"name": "kinema", "cpus_per_task": 1, "timeout_min": 24 * 60} | parameters)
        except (RuntimeError, ValueError, NameError, AssertionError) as error:  # no srun here, or a wrong parameter
            raise ConfigError(f"--executor slurm: {' '.join(str(error).split())}") from None
        self._running: dict[Future[Any], Any] = {}
        self._closed = threading.Event()
        threading.Thread(target=self._poll, daemon=True).start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Hand one task to Slurm."""
        future: Future[Any] = Future()
        self._running[future] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop watching; jobs that still wait or run are cancelled when `cancel_futures` is set."""
        self._closed.set()
        if cancel_futures:
            for job in list(self._running.values()):
                job.cancel()

    def _poll(self) -> None:
        while not self._closed.wait(self.POLL_SECONDS):
            for future, job in list(self._running.items()):
                if job.done():
                    del self._running[future]
                    _settle(future, job)


def _settle(future: Future[Any], job: Any) -> None:
    error = job.exception()
    if error is None:
        future.set_result(job.result())
    else:
        reason = str(error).strip().splitlines()[-1]
        future.set_result(DataError(f"Slurm job {job.job_id} failed ({reason}); run the same command again to go on"))


def _extra(package: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ConfigError(f"{package} is not installed; pip install 'kinema[cluster]'") from None
