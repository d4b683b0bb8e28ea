"""What a frozen compressor makes of every clip, computed once before a stage that needs it again and again."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kinema.core.config import to_mapping
from kinema.core.errors import TrainingError
from kinema.core.system import Fit
from kinema.core.types import Video
from kinema.data.latents import LatentStore, index_of
from kinema.data.loader import Loader
from kinema.training import distributed
from kinema.training.checkpoint import digest_of
from kinema.training.runlog import clock
from kinema.training.trainer import Trainer, own_parameters

Encoder = Callable[[Video], Tensor]

SAID_EVERY = 10.0
"""Seconds between two lines about how far it is."""


def keep_latents(trainer: Trainer, loader: Loader, folder: Path, say: Callable[[str], None]) -> None:
    """Let a loader deliver the latents of a stage with its clips, if the stage asks for any; compute those that are missing.

    Every process computes its share of the shards. A run that was stopped goes on with the shards that are missing, unless
    something that the latents depend on has changed: then all are made again.

    Args:
        trainer: of the stage; its system, device and precision make the latents.
        loader: of the stage.
        folder: where the latents are kept.
        say: shows a line.

    Raises:
        TrainingError: when latents depend on what the stage moves, or the disk is too small for them.
        DataError: when they cannot be written.
    """
    encode = trainer.system.latents(trainer.stage_name)
    if encode is None:
        return
    shape, digest = described(trainer, encode, loader)
    store = LatentStore(folder, index_of(loader.dataset, frames=loader.frames, flip=loader.flip, shape=shape, digest=digest))
    if distributed.is_first():
        store.begin()
    distributed.wait_for_all()
    missing = store.missing()
    say(_plan(trainer.stage_name, store, len(missing)))
    if missing:
        _refuse_full_disk(store, len(missing))
    distributed.wait_for_all()  # nobody writes before everybody has counted
    compute(trainer, encode, loader, store, missing, say)
    distributed.wait_for_all()
    if left := store.missing():
        raise TrainingError(
            f"{len(left)} of {store.index.shards} files are missing in {folder} although every process has done its share; "
            "all hosts must see the run's directory under the same path"
        )
    loader.latents = store


def compute(
    trainer: Trainer, encode: Encoder, loader: Loader, store: LatentStore, missing: list[int], say: Callable[[str], None]
) -> None:
    """Compute this process's share of the missing shards."""
    size = loader.batch_size // loader.processes
    mine = missing[distributed.rank() :: distributed.processes()]
    total, done, began = sum(len(store.clips_of(shard)) for shard in mine), 0, time.monotonic()
    said = began
    for shard in mine:
        cuts = store.cuts_of(shard)
        portions = (cuts[first : first + size] for first in range(0, len(cuts), size))
        parts = [trainer.compute(encode, clips.to_batch(trainer.device)) for clips in loader.windows(portions)]
        store.write(shard, torch.cat([part.to("cpu", torch.float16) for part in parts]).numpy())
        done, now = done + len(store.clips_of(shard)), time.monotonic()
        if now - said > SAID_EVERY and done < total:
            rate = done / (now - began)
            say(f"{done:,} of {total:,} clips are encoded, {rate:.3g} clips/s, {clock((total - done) / rate)} left")
            said = now
    if mine:
        say(f"encoded in {clock(time.monotonic() - began)}, which counts towards no budget")


def described(trainer: Trainer, encode: Encoder, loader: Loader) -> tuple[tuple[int, ...], str]:
    """Return the shape of a latent, and a digest of the tensors and settings that it depends on.

    Raises:
        TrainingError: when it depends on what the stage moves.
    """
    probe = next(iter(loader.windows([[(0, 0, False)]]))).to_batch(trainer.device)
    with Reads() as reads:
        latent = trainer.compute(encode, probe)
    stage = trainer.system.stages()[trainer.stage_name]  # of the whole system, where a copy of it is split over processes
    players = () if isinstance(stage, Fit) else stage
    owned = [parameter for player in players for parameter in own_parameters(player, trainer.system)]
    moved = {parameter.untyped_storage().data_ptr() for parameter in owned}
    used: dict[str, Tensor] = {}
    for name, tensor in trainer.system.state_dict(keep_vars=True).items():
        place = tensor.untyped_storage().data_ptr()
        if place not in reads.places or not tensor.numel():
            continue
        if place in moved:
            raise TrainingError(
                f"the latents of stage {trainer.stage_name!r} depend on {name!r}, which that stage moves; they cannot be kept"
            )
        used[name] = tensor.detach().cpu().contiguous()
    settings = {"system": trainer.system.name, "config": to_mapping(trainer.system.config)}
    return tuple(latent.shape[1:]), digest_of(settings, used)


class Reads(TorchDispatchMode):
    """Within this context, remembers the memory that is computed with: what a result depends on, without being told."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note every tensor among the arguments."""
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self.places.add(leaf.untyped_storage().data_ptr())
        return func(*args, **(kwargs or {}))


def _plan(stage: str, store: LatentStore, missing: int) -> str:
    index = store.index
    windows = f"{len(index.firsts)} windows each" if len(index.firsts) > 1 else "one window each"
    if index.stride > 1:
        windows += f" (those that begin at every {index.stride}th frame; the stage draws no others)"
    both = ", as they are and mirrored" if index.flip else ""
    if not missing:
        return f"{stage}: {index.clips:,} clips are encoded already, {store.size} in {store.folder}"
    todo = "" if missing == index.shards else f"; {missing} of {index.shards} files are missing"
    return f"{stage}: encoding {index.clips:,} clips once, {windows}{both}: {store.size} in {store.folder}{todo}"


def _refuse_full_disk(store: LatentStore, missing: int) -> None:
    needed, free = store.index.bytes * missing // store.index.shards, shutil.disk_usage(store.folder).free
    if needed > free:
        raise TrainingError(
            f"the latents take {needed / 1e9:.1f} GB and {store.folder} has {free / 1e9:.1f} GB free; make room, or train on "
            "fewer or shorter clips"
        )
