"""Latents of a dataset's clips, computed once for a run, read through memory maps.

    latents/index.json    what the latents belong to: the clips, their windows, and a digest of the weights that made them
    latents/000000.npy    float16: clip, first frame of the window, as it is or mirrored, then the latent's own axes

Not in WebDataset's layout as the dataset is: latents mean nothing without the weights of their run, so nobody else reads them,
and being all of one shape they need no index of offsets, no keys and no 1 KiB of tar headers each, which a small latent would
double in size.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float16

from kinema.core.errors import DataError
from kinema.data.dataset import Dataset, written_beside

FORMAT_VERSION = 1
INDEX_NAME = "index.json"
WINDOWS = 8
"""Windows of a clip that are kept at most; of more possible first frames every n-th."""
SHARD_BYTES = 2**22
"""Size of a shard, which is what a stop loses at most; with more than `SHARDS` of them they grow."""
SHARDS = 256

Cut = tuple[int, int, bool]
"""A window of a clip: (clip, first frame, mirrored)."""


@dataclass(frozen=True)
class LatentIndex:
    """What latents belong to; the file ``index.json``.

    Attributes:
        dataset: fingerprint of the dataset.
        split: of the clips.
        clips: how many.
        frames: of a window.
        last: the last first frame that a window may have.
        flip: mirrored windows are kept too.
        shape: of a latent.
        digest: of what made them.
        stride: from one first frame to the next.
        per_shard: clips of a shard.
        format_version: of the folder.
    """

    dataset: str
    split: str | None
    clips: int
    frames: int
    last: int
    flip: bool
    shape: tuple[int, ...]
    digest: str
    stride: int
    per_shard: int
    format_version: int = FORMAT_VERSION

    @property
    def firsts(self) -> range:
        """First frames of the windows that are kept."""
        return range(0, self.last + 1, self.stride)

    @property
    def latents(self) -> int:
        """How many there are."""
        return self.clips * len(self.firsts) * (1 + self.flip)

    @property
    def bytes(self) -> int:
        """Size of them all."""
        return 2 * self.latents * math.prod(self.shape)

    @property
    def shards(self) -> int:
        """How many shards."""
        return -(-self.clips // self.per_shard)


def index_of(dataset: Dataset, *, frames: int, flip: bool, shape: Sequence[int], digest: str) -> LatentIndex:
    """Choose the windows and the shards.

    Args:
        dataset: the clips.
        frames: of a window.
        flip: keep mirrored windows too.
        shape: of a latent.
        digest: of what makes them.
    """
    last = dataset.info.frames - frames
    stride = -(-(last + 1) // WINDOWS)
    clip_bytes = 2 * len(range(0, last + 1, stride)) * (1 + flip) * math.prod(shape)
    per_shard = max(SHARD_BYTES // clip_bytes, -(-len(dataset) // SHARDS), 1)
    return LatentIndex(
        dataset=dataset.fingerprint,
        split=dataset.split,
        clips=len(dataset),
        frames=frames,
        last=last,
        flip=flip,
        shape=tuple(shape),
        digest=digest,
        stride=stride,
        per_shard=per_shard,
    )


class LatentStore:
    """A folder of latents.

    Args:
        folder: where they are.
        index: what they are to belong to.
    """

    def __init__(self, folder: Path, index: LatentIndex) -> None:
        self.folder, self.index = folder, index
        self._maps: dict[int, np.ndarray] = {}

    def begin(self) -> None:
        """Throw away what belongs to something else, and say whose latents these are, before the first is written.

        Raises:
            DataError: when the folder cannot be written.
        """
        wanted = json.dumps(asdict(self.index), indent=2) + "\n"
        path = self.folder / INDEX_NAME
        if path.is_file() and path.read_text() == wanted:
            return
        for shard in self.folder.glob("*.npy"):
            shard.unlink()
        with written_beside(path) as file:
            file.write(wanted.encode())

    def missing(self) -> list[int]:
        """Return the shards that are not there, or not whole."""
        return [shard for shard in range(self.index.shards) if not self._is_whole(shard)]

    def clips_of(self, shard: int) -> range:
        """Return the clips of a shard."""
        first = shard * self.index.per_shard
        return range(first, min(first + self.index.per_shard, self.index.clips))

    def cuts_of(self, shard: int) -> list[Cut]:
        """Return the windows of a shard in the order of its latents."""
        mirrored = (False, True)[: 1 + self.index.flip]
        return [(clip, first, way) for clip in self.clips_of(shard) for first in self.index.firsts for way in mirrored]

    def write(self, shard: int, latents: Float16[np.ndarray, "N *latent"]) -> None:
        """Write a shard, whole or not at all.

        Args:
            shard: its number.
            latents: of its windows, in the order of `cuts_of`.

        Raises:
            DataError: for a latent that float16 cannot hold, or a file that cannot be written.
        """
        if not np.isfinite(latents).all():
            clip = self.cuts_of(shard)[int(np.argwhere(~np.isfinite(latents))[0][0])][0]
            raise DataError(f"the latent of clip {clip} holds numbers that float16 (up to 65,504) cannot; train it longer")
        with written_beside(self._path(shard)) as file:
            np.save(file, latents.reshape(self._shape(shard)))

    def read(self, cuts: Sequence[Cut], into: Float16[np.ndarray, "N *latent"]) -> None:
        """Copy the latents of windows, which must be among those that are kept.

        Args:
            cuts: the windows.
            into: where to.
        """
        for row, (clip, first, mirrored) in zip(into, cuts, strict=True):
            shard, place = divmod(clip, self.index.per_shard)
            row[...] = self._map(shard)[place, self.index.firsts.index(first), int(mirrored)]

    @cached_property
    def size(self) -> str:
        """How much they take on the disk."""
        return f"{self.index.bytes / 1e9:.1f} GB" if self.index.bytes > 1e9 else f"{self.index.bytes / 1e6:.1f} MB"

    def _path(self, shard: int) -> Path:
        return self.folder / f"{shard:06d}.npy"

    def _shape(self, shard: int) -> tuple[int, ...]:
        return (len(self.clips_of(shard)), len(self.index.firsts), 1 + self.index.flip, *self.index.shape)

    def _map(self, shard: int) -> np.ndarray:
        if shard not in self._maps:
            try:
                self._maps[shard] = np.load(self._path(shard), mmap_mode="r")
            except (OSError, ValueError) as error:
                raise DataError(f"cannot read {self._path(shard)}: {error}; --resume makes it again") from None
        return self._maps[shard]

    def _is_whole(self, shard: int) -> bool:
        try:
            found = np.load(self._path(shard), mmap_mode="r")
        except (OSError, ValueError):
            return False
        return found.dtype == np.float16 and found.shape == self._shape(shard)
