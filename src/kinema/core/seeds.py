"""Randomness that does not depend on batch size, process count or order.

Sampling takes one seed per sample (`normal_codes`). Training draws per-sample noise through `draw_rows`: every process holds
the same generator state, draws the rows of the *global* batch and keeps its own, so that two processes train on the same
noise as one.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

_shard: ContextVar[tuple[int, int]] = ContextVar("shard", default=(0, 1))


def normal_codes(seeds: Sequence[int], *shape: int, device: torch.device | str = "cpu") -> Tensor:
    """Draw one standard normal tensor of `shape` per seed, stacked along a first axis; row i depends on ``seeds[i]`` alone."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
    return torch.stack(rows).to(device) if rows else torch.empty(0, *shape, device=device)


def great_circle(ends: Tensor, steps: int) -> Tensor:
    """Return `steps` codes from ``ends[0]`` to ``ends[1]`` along the great circle, both ends included.

    A straight line between normal codes passes through ones shorter than any that a generator was trained on.

    References:
        Shoemake, "Animating Rotation with Quaternion Curves", SIGGRAPH 1985; White, "Sampling Generative Networks", 2016.
    """
    first, last = ends[0], ends[1]
    cosine = torch.nn.functional.cosine_similarity(first.flatten(), last.flatten(), dim=0)
    angle = cosine.clamp(-1, 1).acos().clamp_min(1e-4)
    share = torch.linspace(0, 1, steps, device=ends.device).reshape(-1, *[1] * first.dim())
    return (((1 - share) * angle).sin() * first + (share * angle).sin() * last) / angle.sin()


@contextmanager
def shard_of_batch(rank: int, processes: int) -> Iterator[None]:
    """Within this context `draw_rows` keeps the rows of process `rank` out of `processes`."""
    token = _shard.set((rank, processes))
    try:
        yield
    finally:
        _shard.reset(token)


def draw_rows(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Draw per-sample noise for this process's rows of the global batch.

    Args:
        draw: called with the number of rows of the global batch; uses torch's default generator.
        rows: rows of this process.
    """
    rank, processes = _shard.get()
    return draw(rows * processes)[rank * rows : (rank + 1) * rows]


def numpy_generator(*path: int) -> np.random.Generator:
    """Return an independent numpy generator for a path of non-negative integers, such as (seed, epoch, clip)."""
    return np.random.default_rng([len(path), *path])  # without the length, (1,) and (1, 0) would be one stream
