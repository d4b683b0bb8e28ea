"""Batches out of a prepared dataset: an order that depends on (seed, epoch) alone, read ahead by one thread.

The stream of clips is epoch after epoch, each in its own random order, cut into global batches without a gap: the last batch
of an epoch is completed from the next one, so that every batch is full and every clip is seen equally often. A process takes
its contiguous slice of each global batch.
"""

import math
import re
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import torch
from jaxtyping import Float16, Float32, Int64, UInt8
from torch import Tensor

from kinema.core.errors import DataError, accepted
from kinema.core.seeds import numpy_generator
from kinema.core.types import Batch
from kinema.data.dataset import Dataset
from kinema.data.latents import Cut, LatentStore
from kinema.pose.skeleton import Skeleton, find_skeleton

BATCHES_AHEAD = 2
SIDE = re.compile(r"(?<![a-z])(left|right)(?=(ward|wards|most)?(?![a-z]))", re.IGNORECASE)

Extra = Literal["pose", "mask"]  # arrays of a clip that are read only for those who ask
Draw = tuple[int, int]  # (epoch, clip)
_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Clips:
    """A batch as it is stored.

    Attributes:
        frames: pixels, RGB.
        keys: names of the clips.
        label: class index per clip; None unless every clip of the dataset has one.
        caption: one sentence per clip; None unless every clip of the batch has one.
        pose: joints per frame, (x, y, confidence) in pixels; None unless the loader was asked for it.
        mask: foreground, 255 is all of it; None unless the loader was asked for it.
        latent: what was computed of these very windows; None unless the loader has a store of them.
    """

    frames: UInt8[Tensor, "B T H W 3"]
    keys: tuple[str, ...]
    label: Int64[Tensor, "B"] | None = None
    caption: tuple[str, ...] | None = None
    pose: Float32[Tensor, "B T J 3"] | None = None
    mask: UInt8[Tensor, "B T H W"] | None = None
    latent: Float16[Tensor, "B Z t h w"] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def to_batch(self, device: torch.device | str = "cpu") -> Batch:
        """Return what a system trains on, normalised to [-1, 1] on `device`.

        The bytes travel as they are, a quarter of the floats; the video is a permuted view and so ``channels_last_3d``.
        """
        frames = self.frames.to(device, non_blocking=True)
        video = frames.permute(0, 4, 1, 2, 3).div(127.5).sub_(1)  # B 3 T H W
        label, pose, mask, latent = (
            None if tensor is None else tensor.to(device, non_blocking=True)
            for tensor in (self.label, self.pose, self.mask, self.latent)
        )
        mask = None if mask is None else mask.unsqueeze(1).div(255)  # B 1 T H W
        latent = None if latent is None else latent.float()
        return Batch(video, label=label, pose=pose, mask=mask, caption=self.caption, latent=latent)


class Loader:
    """Iterates endlessly over the batches of a dataset.

    Args:
        dataset: the clips.
        batch_size: clips of a global batch, over all processes.
        seed: of the order and the augmentation.
        rank: which process this is.
        processes: how many there are.
        shuffle: False keeps the dataset's order in every epoch.
        flip: mirror half of the clips; what their captions call left is right then, and of two classes that differ in this
            alone they are of the other.
        frames: length of a window drawn at random within each clip; None takes whole clips.
        fields: what the batches must carry, as in `System.needs`; poses and masks are read only if they are among it.
        pin_memory: keep batches in page-locked memory, from which a GPU copies without waiting.

    Attributes:
        latents: where there is a store of them, batches carry the latents of their clips, and of longer clips only those
            windows are drawn that it holds; to be set before the first batch.

    Raises:
        DataError: for a batch that is larger than the dataset or that the processes cannot share equally, a window longer
            than the clips, a negative seed, or a clip without a pose or mask that was asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
        shuffle: bool = True,
        flip: bool = False,
        frames: int | None = None,
        fields: Collection[str] = (),
        pin_memory: bool = False,
    ) -> None:
        stored = dataset.info.frames
        if not 1 <= batch_size <= len(dataset):
            raise DataError(f"a batch of {batch_size} clips cannot be drawn from {len(dataset)}; give 1 to {len(dataset)}")
        if not 0 <= rank < processes or batch_size % processes:
            raise DataError(f"process {rank} of {processes} has no equal share of a batch of {batch_size} clips")
        if frames is not None and not 1 <= frames <= stored:
            raise DataError(f"windows of {frames} frames cannot be cut from clips of {stored}; give 1 to {stored}")
        if seed < 0:
            raise DataError(f"the seed is {seed}; it must be 0 or more")
        self.dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.processes = processes
        self.shuffle = shuffle
        self.flip = flip
        self.frames = stored if frames is None else frames
        self.pin_memory = pin_memory
        self.extras = tuple(name for name in get_args(Extra) if name in _known(fields))
        for name in self.extras:
            dataset.require(name)
        self._skeleton = _skeleton_of(dataset) if flip and "pose" in self.extras else None
        self._opposite = opposites(dataset.info.labels) if flip else None
        self.latents: LatentStore | None = None
        self._place = (0, 0)  # epoch, and clips of it that were delivered
        # Memory of batches that nobody holds any more.
        self._free: defaultdict[str, deque[np.ndarray]] = defaultdict(lambda: deque(maxlen=BATCHES_AHEAD + 2))

    def __iter__(self) -> Iterator[Clips]:
        """Go on from the last batch that was delivered; closing the iterator ends its thread."""
        for clips, place in _ahead(lambda step: (self._read(self._cuts(step[0])), step[1]), self._steps(*self._place)):
            self._place = place
            yield clips

    def epoch(self) -> Iterator[Clips]:
        """Yield every clip of the dataset once, in its order and unaugmented, in every process; the last batch may be short.

        Of clips that are longer than the windows the beginning is taken.
        """
        size = self.batch_size // self.processes
        indices = range(len(self.dataset))
        yield from self.windows([(i, 0, False) for i in indices[first : first + size]] for first in indices[::size])

    def windows(self, batches: Iterable[list[Cut]]) -> Iterator[Clips]:
        """Yield batches of the windows that are asked for."""
        yield from _ahead(self._read, iter(batches))

    def state_dict(self) -> dict[str, Any]:
        """Return where the last delivered batch ended; what was only read ahead does not count."""
        epoch, position = self._place
        return {"epoch": epoch, "position": position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the iterators that are made from now on begin where `state` was taken.

        Raises:
            DataError: when the state belongs to other clips or another order.
        """
        for name, here in self._identity().items():
            if state[name] != here:
                raise DataError(f"the run was saved with the {name} {state[name]!r} and cannot go on with {here!r}")
        self._place = (state["epoch"], state["position"])

    def _identity(self) -> dict[str, Any]:
        dataset = {"dataset": self.dataset.fingerprint, "split": self.dataset.split, "clips": len(self.dataset)}
        return {**dataset, "seed": self.seed, "shuffle": self.shuffle}

    def _order(self, epoch: int) -> np.ndarray:
        clips = np.arange(len(self.dataset))
        return numpy_generator(self.seed, epoch).permutation(clips) if self.shuffle else clips

    def _steps(self, epoch: int, position: int) -> Iterator[tuple[list[Draw], tuple[int, int]]]:
        """Yield this process's slice of every global batch from a place in the stream on, and the place after it."""
        size = self.batch_size // self.processes
        order = self._order(epoch)
        while True:
            draws: list[Draw] = []
            while len(draws) < self.batch_size:
                taken = order[position : position + self.batch_size - len(draws)]
                draws += [(epoch, index) for index in taken.tolist()]
                position += len(taken)
                if position == len(order):
                    epoch, position = epoch + 1, 0
                    order = self._order(epoch)
            yield draws[self.rank * size : (self.rank + 1) * size], (epoch, position)

    def _cuts(self, draws: list[Draw]) -> list[Cut]:
        return [(index, *self._augmentation(epoch, index)) for epoch, index in draws]

    def _read(self, cuts: list[Cut]) -> Clips:
        """Copy windows of clips into a new batch."""
        info = self.dataset.info
        frames = self._empty("video", (len(cuts), self.frames, info.height, info.width, 3))
        for row, (index, first, mirrored) in zip(frames, cuts, strict=True):
            row.numpy()[...] = self.dataset.video(index, first, self.frames)  # numpy copies without the GIL
            if mirrored:
                row.copy_(row.flip(2))  # in the cache by now, and vectorised: 8 times as fast as numpy's reversed copy
        indices, turned = [index for index, _, _ in cuts], [mirrored for _, _, mirrored in cuts]
        records = [self.dataset.record(index) for index in indices]
        captions = [record.caption for record in records if record.caption is not None]
        complete = len(captions) == len(records)
        labels = None if self.dataset.labels is None else self.dataset.labels[indices]
        if labels is not None and self._opposite is not None:
            labels = np.where(turned, self._opposite[labels], labels)
        return Clips(
            frames,
            keys=tuple(record.key for record in records),
            label=None if labels is None else torch.from_numpy(labels),
            caption=tuple(map(said_of, captions, turned)) if complete else None,
            **{name: self._read_extra(name, cuts) for name in self.extras},
            latent=None if self.latents is None else self._read_latents(self.latents, cuts),
        )

    def _read_latents(self, store: LatentStore, cuts: list[Cut]) -> Float16[Tensor, "B Z t h w"]:
        """Copy the latents of the windows."""
        rows = self._empty("latent", (len(cuts), *store.index.shape), torch.float16)
        store.read(cuts, rows.numpy())
        return rows

    def _read_extra(self, name: Extra, cuts: list[Cut]) -> Tensor:
        """Copy the poses or masks of the clips, each in the window of its video and mirrored if that is."""
        shape = self.dataset.alike(0, name).shape[1:]
        rows = self._empty(name, (len(cuts), self.frames, *shape), torch.float32 if name == "pose" else torch.uint8)
        for row, (index, first, mirrored) in zip(rows, cuts, strict=True):
            window = self.dataset.alike(index, name)[first : first + self.frames]
            if mirrored and self._skeleton is not None and name == "pose":
                window = self._skeleton.mirrored(window, self.dataset.info.width)
            elif mirrored:
                window = window[:, :, ::-1]
            row.numpy()[...] = window
        return rows

    def _empty(self, name: str, shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
        """Return memory for a batch, taken over from one that nobody holds any more: fresh pages cost more than the copy."""
        if self.pin_memory:  # recycled by torch, which knows when the GPU has read it
            return torch.empty(shape, dtype=dtype, pin_memory=True)
        size, free = math.prod(shape) * dtype.itemsize, self._free[name]
        try:
            memory = free.pop()
        except IndexError:
            memory = np.empty(size, np.uint8)
        if len(memory) < size:  # what was free held the short end of an epoch
            memory = np.empty(size, np.uint8)
        lease = memory[:size]  # lives as long as any tensor that shares its storage
        weakref.finalize(lease, free.append, memory).atexit = False
        return torch.from_numpy(lease).view(dtype).view(shape)

    def _augmentation(self, epoch: int, index: int) -> tuple[int, bool]:
        """Draw the first frame and whether to mirror, once per clip and epoch."""
        firsts = range(self.dataset.info.frames - self.frames + 1) if self.latents is None else self.latents.index.firsts
        if not self.flip and len(firsts) == 1:
            return 0, False
        generator = numpy_generator(self.seed, epoch, 1 + index)  # numpy takes (seed, epoch, 0) for (seed, epoch)
        return firsts[int(generator.integers(len(firsts)))], self.flip and bool(generator.random() < 0.5)


def said_of(text: str, mirrored: bool) -> str:
    """Return what a caption or the name of a class says of its clip, or of that clip mirrored."""

    def other(side: re.Match[str]) -> str:
        word = "right" if side[1].lower() == "left" else "left"
        return word.upper() if side[1].isupper() else word.title() if side[1].istitle() else word

    return SIDE.sub(other, text) if mirrored else text


def opposites(names: Sequence[str]) -> Int64[np.ndarray, "N"]:
    """Return for every class the one of its mirrored clips: ``turn_left`` for ``turn_right``, itself where there is none."""
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers.get(said_of(name, True), number) for name, number in numbers.items()], np.int64)


def _known(names: Collection[str]) -> Collection[str]:
    """Return names of fields of a batch, or refuse the first that is none."""
    known = [field.name for field in fields(Batch)]
    for name in names:
        if name not in known:
            raise DataError(f"a batch carries no {name!r}; {accepted(name, known)}")
    return names


def _skeleton_of(dataset: Dataset) -> Skeleton:
    """Return the skeleton by which poses are mirrored."""
    name, joints = dataset.info.skeleton, dataset.alike(0, "pose").shape[1]
    if name is None:
        raise DataError(f"{dataset.path} has no skeleton, so that its poses cannot be mirrored; train without --flip")
    skeleton = find_skeleton(name)
    if joints != len(skeleton):
        raise DataError(f"{dataset.path} has poses of {joints} joints, and the skeleton {name} has {len(skeleton)}")
    return skeleton


def _ahead(work: Callable[[_Task], _Result], tasks: Iterator[_Task]) -> Iterator[_Result]:
    """Yield ``work(task)`` in order, done by a thread that is at most `BATCHES_AHEAD` results ahead.

    An error of the thread reaches the consumer as it is; the thread has ended when the iterator is closed.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="kinema-loader")
    try:
        pending = deque(pool.submit(work, task) for task in islice(tasks, BATCHES_AHEAD))
        while pending:
            result = pending.popleft().result()
            pending.extend(pool.submit(work, task) for task in islice(tasks, 1))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
