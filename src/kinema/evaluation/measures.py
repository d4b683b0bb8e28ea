"""What is measured of each clip, and its store on disk.

Measuring real clips is the slow part and always the same, so it is kept: the key is the hash of the dataset's content, the
network's weights and everything else that decides about the numbers. Clips are taken in one random order, so that a larger
request goes on where a smaller one, or one that was stopped, has ended. A portion of that order is a task and a file: portions
are measured side by side by processes of this machine, on Ray or on Slurm, and what is done is never done again.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from kinema.core.arrays import read_arrays
from kinema.core.errors import DataError, EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.data.dataset import MEASURES_NAME, Dataset
from kinema.data.encode import beside
from kinema.data.executor import Kind, open_executor, run_tasks
from kinema.evaluation.clips import Clip
from kinema.evaluation.network import FeatureNetwork, exact_convolutions
from kinema.training.health import signature

VERSION = 2  # of what is measured and how it lies on disk; another number finds no stored measures of this one
AT_ONCE = 8  # clips in memory
PORTION = 32  # clips of a task and a file: what a stop may cost; a multiple of the clips in memory
STILL_SHARE = 0.5

Numbers = Float32[np.ndarray, "_"]


@dataclass(frozen=True)
class Measures:
    """Numbers of clips, one row each.

    Attributes:
        features: of the feature network: a vector per clip, or one per frame.
        motion: mean absolute difference of consecutive frames, in levels of 0 to 255.
        flicker: the same over the stillest half of the picture, which is 0 where a camera stands still and nothing moves.
        signature: a few pooled frames, see `kinema.training.health.signature`.
    """

    features: Float32[np.ndarray, "N ... D"]
    motion: Numbers
    flicker: Numbers
    signature: Float32[np.ndarray, "N S"]

    def __len__(self) -> int:
        return len(self.motion)

    def first(self, count: int) -> "Measures":
        """Return the measures of the first clips."""
        return Measures(**{part.name: getattr(self, part.name)[:count] for part in fields(self)})


def measure(clips: UInt8[np.ndarray, "B T H W 3"], network: FeatureNetwork) -> Measures:
    """Measure a few clips."""
    pixels = torch.from_numpy(clips)
    video = pixels.permute(0, 4, 1, 2, 3).div(127.5).sub(1)
    parts = (network(pixels), *changes(pixels), signature(video))
    return Measures(*(part.float().numpy() for part in parts))


def changes(clips: UInt8[Tensor, "B T H W 3"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Return the motion and the flicker of clips, see `Measures`."""
    change = (clips[:, 1:].float() - clips[:, :-1].float()).abs().mean(dim=(1, 4)).flatten(1)  # B H*W
    still = change.sort(dim=1).values[:, : max(1, int(change.shape[1] * STILL_SHARE))]
    return change.mean(dim=1), still.mean(dim=1)


def measure_all(
    read: Callable[[Sequence[int]], list[Clip]],
    indices: Sequence[int],
    network: FeatureNetwork,
    *,
    said: Callable[[int], None] = lambda count: None,
) -> Measures:
    """Measure clips, a few at a time.

    Args:
        read: index -> clip.
        indices: of the clips, at least one.
        network: describes them.
        said: called with the number of clips that are done.
    """
    parts, count = [], 0
    with exact_convolutions():
        while count < len(indices):
            some = indices[count : count + AT_ONCE]
            parts.append(measure(np.stack(read(some)), network))
            count += len(some)
            said(count)
    return joined(parts)


def drawn(count: int, total: int, seed: int) -> list[int]:
    """Return `count` of `total` indices in a random order; a larger count begins with those of a smaller one."""
    return numpy_generator(seed, 0).permutation(total)[:count].tolist()


@dataclass(frozen=True)
class Workers:
    """Who measures the clips of a dataset.

    Attributes:
        kind: see `kinema.data.executor.open_executor`.
        count: tasks at a time.
        options: of a Slurm executor.
    """

    kind: Kind = "local"
    count: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)


ALONE = Workers()


@dataclass(frozen=True)
class Portion:
    """A task: measure some clips of a dataset and keep the result.

    Attributes:
        number: its place in the order.
        dataset: folder.
        split: of the dataset.
        fingerprint: of the dataset.
        indices: of the clips.
        stride: every so many frames are seen.
        network: describes them.
        file: where the result is kept, beginning with what is there already; None keeps nothing.
    """

    number: int
    dataset: Path
    split: str | None
    fingerprint: str
    indices: tuple[int, ...]
    stride: int
    network: FeatureNetwork
    file: Path | None


def measure_dataset(
    dataset: Dataset,
    indices: Sequence[int],
    network: FeatureNetwork,
    seed: int,
    *,
    folder: Path | None = None,
    stride: int = 1,
    workers: Workers = ALONE,
    said: Callable[[int], None] = lambda count: None,
) -> tuple[Measures, list[Path]]:
    """Measure clips of a dataset, or read what was measured before.

    Args:
        dataset: the clips.
        indices: of the clips in the order of `seed`, at least one.
        network: describes them.
        seed: of the order, see `drawn`.
        folder: where measures are kept; None keeps none.
        stride: every so many frames are seen.
        workers: who works; the numbers are the same whoever it is.
        said: called with the number of clips that are done.

    Returns:
        The measures in the order of `indices`, and the damaged files that were made again.
    """
    kept = folder / key(dataset, network, seed, stride) if folder else None
    found: dict[int, Measures] = {}
    missing, damaged = [], []
    for number, first in enumerate(range(0, len(indices), PORTION)):
        some = tuple(indices[first : first + PORTION])
        store = Store(kept / f"{number:06d}.npz") if kept else None
        done = store.load() if store else None
        damaged += [store.path] if store and store.damaged else []
        if done and len(done) >= len(some):
            found[number] = done.first(len(some))
            continue
        file = store.path.resolve() if store else None
        missing.append(Portion(number, dataset.path.resolve(), dataset.split, dataset.fingerprint, some, stride, network, file))
    count = sum(len(measures) for measures in found.values())
    said(count)
    for number, measures in _carried_out(missing, workers, (folder or dataset.path) / "cluster"):
        found[number] = measures
        count += len(measures)
        said(count)
    return joined([found[number] for number in sorted(found)]), damaged


def measure_portion(portion: Portion, threads: int | None = None) -> Measures:
    """Carry a task out, in whatever process; what its file holds already is not measured again.

    Args:
        portion: the task.
        threads: to compute with; None leaves them alone.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    dataset = _opened(portion.dataset, portion.split, portion.fingerprint)
    store = Store(portion.file) if portion.file else None
    done = store.load() if store else None
    # Whole handfuls only, so that a clip stands among the same neighbours whether or not there was a stop.
    start = len(done) // AT_ONCE * AT_ONCE if done else 0
    rest = measure_all(
        lambda some: [dataset.video(index)[:: portion.stride] for index in some], portion.indices[start:], portion.network
    )
    measures = joined([done.first(start), rest]) if done else rest
    if store:
        store.save(measures)
    return measures


def _carried_out(portions: Sequence[Portion], workers: Workers, logs: Path) -> Iterator[tuple[int, Measures]]:
    if not portions:
        return
    local = workers.kind == "local"
    count = min(workers.count, len(portions)) if local else workers.count
    alone = local and count == 1
    # A task computes with its share of this machine, or with the one core that a cluster gives it.
    threads = None if alone else max(1, (os.cpu_count() or 1) // count) if local else 1
    jobs = [(portion.number, portion if alone else pickle.dumps(portion)) for portion in portions]
    with open_executor(workers.kind, count, folder=logs, options=workers.options) as pool:
        for (number, _), measures in run_tasks(
            pool, partial(_carry_out, threads=threads), jobs, in_flight=1 if alone else 2 * count
        ):
            yield number, measures


def _carry_out(job: tuple[int, Portion | bytes], threads: int | None) -> Measures:
    """Open a parcel inside the task: that this host lacks the network, or its weights, is then one sentence too."""
    portion = pickle.loads(job[1]) if isinstance(job[1], bytes) else job[1]
    return measure_portion(portion, threads)


def key(dataset: Dataset, network: FeatureNetwork, seed: int, stride: int) -> str:
    """Return the name under which measures are kept: a hash of everything that decides about them."""
    what = [VERSION, dataset.fingerprint, dataset.split, seed, stride, network.id, network.sha256, network.preprocessing]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]


class Store:
    """A file with the measures of a portion of the clips of a dataset.

    Args:
        path: its folder is made where missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = False

    def load(self) -> Measures | None:
        """Return what is stored, or None; a damaged file is remembered as `damaged` and will be written again."""
        if not self.path.exists():
            return None
        try:
            file = read_arrays(self.path)
            found = Measures(**{part.name: file[part.name] for part in fields(Measures)})
            lengths = {len(getattr(found, part.name)) for part in fields(found)}
            if len(lengths) == 1 and np.isfinite(found.features).all() and len(found):
                return found
        except (DataError, KeyError, TypeError):
            pass
        self.damaged = True
        return None

    def save(self, measures: Measures) -> None:
        """Write the measures, whole or not at all.

        Raises:
            MediaError: when the file cannot be written.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with beside(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{part.name: getattr(measures, part.name) for part in fields(measures)})


def store_folder(dataset: Dataset) -> Path:
    """Return where measures of a dataset are kept: in it, or in the user's cache where it cannot be written."""
    if os.access(dataset.path, os.W_OK):
        return dataset.path / MEASURES_NAME
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinema" / MEASURES_NAME


def refuse_short(frames: int) -> None:
    """Raise `EvaluationError` for clips without a second frame: nothing can move in them."""
    if frames < 2:
        raise EvaluationError(f"clips of {frames} frame have no motion to judge; give clips of 2 frames or more")


def joined(parts: Sequence[Measures]) -> Measures:
    """Return the measures of all clips, one part after the other."""
    return Measures(**{part.name: np.concatenate([getattr(one, part.name) for one in parts]) for part in fields(Measures)})


@lru_cache(maxsize=1)
def _opened(path: Path, split: str | None, fingerprint: str) -> Dataset:
    """Open a dataset once per process, not once per task; it is asked for by its content."""
    dataset = Dataset(path, split)
    if dataset.fingerprint != fingerprint:
        raise EvaluationError(f"{path} has changed while it was measured; run the same command again")
    return dataset
