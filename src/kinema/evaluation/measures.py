"""What is measured of each clip, and its store on disk.

Measuring real clips is the slow part and always the same, so it is kept: the key is the hash of the dataset's content, the
network's weights and everything else that decides about the numbers. Clips are taken in one random order, so that a larger
request goes on where a smaller one, or one that was stopped, has ended.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from kinema.core.errors import EvaluationError
from kinema.core.seeds import numpy_generator
from kinema.data.dataset import Dataset
from kinema.data.encode import beside
from kinema.evaluation.clips import Clip
from kinema.evaluation.features import FeatureNetwork
from kinema.training.health import signature

VERSION = 1  # of what is measured; another number finds no stored measures of this one
AT_ONCE = 8  # clips in memory
STORED_EVERY = 64  # clips: what a stop may cost
STILL_SHARE = 0.5

Numbers = Float32[np.ndarray, "_"]


@dataclass(frozen=True)
class Measures:
    """Numbers of clips, one row each.

    Attributes:
        features: of the feature network.
        motion: mean absolute difference of consecutive frames, in levels of 0 to 255.
        flicker: the same over the stillest half of the picture, which is 0 where a camera stands still and nothing moves.
        signature: a few pooled frames, see `kinema.training.health.signature`.
    """

    features: Float32[np.ndarray, "N D"]
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
    change = (pixels[:, 1:].float() - pixels[:, :-1].float()).abs().mean(dim=(1, 4)).flatten(1)  # B H*W
    still = change.sort(dim=1).values[:, : max(1, int(change.shape[1] * STILL_SHARE))]
    video = pixels.permute(0, 4, 1, 2, 3).div(127.5).sub(1)
    parts = (network(pixels), change.mean(dim=1), still.mean(dim=1), signature(video))
    return Measures(*(part.float().numpy() for part in parts))


def measure_all(
    read: Callable[[Sequence[int]], list[Clip]],
    indices: Sequence[int],
    network: FeatureNetwork,
    *,
    store: "Store | None" = None,
    said: Callable[[int], None] = lambda count: None,
) -> Measures:
    """Measure clips in portions.

    Args:
        read: index -> clip.
        indices: of the clips, at least one.
        network: describes them.
        store: keeps what is done; its clips must be those of `indices`, in this order.
        said: called with the number of clips that are done.
    """
    done = store.load() if store else None
    parts = [done.first(len(indices))] if done else []
    count = unsaved = len(parts[0]) if parts else 0
    said(count)
    while count < len(indices):
        portion = indices[count : count + AT_ONCE]
        parts.append(measure(np.stack(read(portion)), network))
        count += len(portion)
        said(count)
        if store and (count - unsaved >= STORED_EVERY or count >= len(indices)):
            parts, unsaved = [_joined(parts)], count
            store.save(parts[0])
    return _joined(parts)


def drawn(count: int, total: int, seed: int) -> list[int]:
    """Return `count` of `total` indices in a random order; a larger count begins with those of a smaller one."""
    return numpy_generator(seed, 0).permutation(total)[:count].tolist()


class Store:
    """A file with the measures of the clips of a dataset.

    Args:
        folder: made where missing.
        dataset: whose clips are measured; its content and split decide about the name of the file.
        network: that describes them.
        seed: of their order.
    """

    def __init__(self, folder: Path, dataset: Dataset, network: FeatureNetwork, seed: int) -> None:
        what = [VERSION, dataset.fingerprint, dataset.split, seed, network.id, network.sha256, network.preprocessing]
        self.path = folder / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:32]}.npz"
        self.damaged = False

    def load(self) -> Measures | None:
        """Return what is stored, or None; a damaged file is remembered as `damaged` and will be written again."""
        if not self.path.exists():
            return None
        try:
            # Opened here: numpy leaves a damaged file open.
            with self.path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = Measures(**{part.name: file[part.name] for part in fields(Measures)})
            lengths = {len(getattr(found, part.name)) for part in fields(found)}
            if len(lengths) == 1 and np.isfinite(found.features).all() and len(found):
                return found
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile):
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
        return dataset.path / "measures"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kinema" / "measures"


def refuse_short(frames: int) -> None:
    """Raise `EvaluationError` for clips without a second frame: nothing can move in them."""
    if frames < 2:
        raise EvaluationError(f"clips of {frames} frame have no motion to judge; give clips of 2 frames or more")


def _joined(parts: Sequence[Measures]) -> Measures:
    return Measures(**{part.name: np.concatenate([getattr(one, part.name) for one in parts]) for part in fields(Measures)})
