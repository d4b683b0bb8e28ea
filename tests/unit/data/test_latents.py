"""The store of latents: which windows it keeps, in which files, and what it does not take for its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import DataError
from kinema.data import latents
from kinema.data.dataset import Dataset
from kinema.data.latents import LatentIndex, LatentStore, index_of
from kinema.data.loader import Loader
from small_dataset import write_dataset

SHAPE = (2, 1, 1, 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return Dataset(write_dataset(tmp_path_factory.mktemp("latents") / "data", 10, shape=(40, 6, 8)))


def index(dataset: Dataset, frames: int = 4, flip: bool = True, digest: str = "a") -> LatentIndex:
    return index_of(dataset, frames=frames, flip=flip, shape=SHAPE, digest=digest)


def numbers(store: LatentStore, shard: int) -> np.ndarray:
    """Latents that say whose they are: clip + first frame / 64, negative where mirrored."""
    values = [(1 + clip + first / 64) * (-1 if mirrored else 1) for clip, first, mirrored in store.cuts_of(shard)]
    return np.broadcast_to(np.array(values, np.float16)[:, None, None, None, None], (len(values), *SHAPE)).copy()


def filled(folder: Path, index: LatentIndex) -> LatentStore:
    store = LatentStore(folder, index)
    store.begin()
    for shard in store.missing():
        store.write(shard, numbers(store, shard))
    return store


@pytest.mark.parametrize(("frames", "firsts"), [(40, [0]), (33, list(range(8))), (32, [0, 2, 4, 6, 8]), (4, range(0, 37, 5))])
def test_at_most_eight_windows_of_a_clip_are_kept_at_even_distances(dataset, frames, firsts):
    assert list(index(dataset, frames).firsts) == list(firsts)


def test_shards_grow_with_the_dataset_and_hold_whole_clips(dataset, monkeypatch):
    monkeypatch.setattr(latents, "SHARD_BYTES", 1)
    assert index(dataset).shards == 10
    monkeypatch.setattr(latents, "SHARDS", 4)
    assert (index(dataset).per_shard, index(dataset).shards) == (3, 4)
    assert index(dataset).bytes == 10 * 8 * 2 * 2 * 6


def test_the_loader_delivers_the_latent_of_the_window_that_it_draws(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD_BYTES", 600)
    loader = Loader(dataset, 4, frames=4, flip=True)
    loader.latents = filled(tmp_path, index(dataset))
    seen = set()
    for _, clips in zip(range(60), loader, strict=False):
        for row, key, latent in zip(clips.frames, clips.keys, clips.latent, strict=True):
            value = float(latent.flatten()[0])
            clip, first = int(abs(value)) - 1, round((abs(value) % 1) * 64)
            window = dataset.video(clip, first, 4)
            assert key == f"{clip:05d}"
            assert first % 5 == 0
            assert np.array_equal(row.numpy(), window[:, :, ::-1] if value < 0 else window)
            seen.add((clip, first, value < 0))
    assert len(seen) > 100  # of 160: every clip, both ways, all eight windows


def test_without_a_store_the_draw_is_what_it_was(dataset, tmp_path):
    """Clips of eight first frames keep all of their windows, so that caching changes nothing of what is drawn."""
    plain, cached = (Loader(dataset, 4, frames=33, flip=True) for _ in range(2))
    cached.latents = filled(tmp_path, index(dataset, 33))
    for _, one, other in zip(range(10), plain, cached, strict=False):
        assert one.keys == other.keys
        assert np.array_equal(one.frames.numpy(), other.frames.numpy())


def test_what_is_there_is_kept_and_what_belongs_to_others_is_not(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(latents, "SHARD_BYTES", 600)
    mine = index(dataset)
    assert mine.shards > 3
    filled(tmp_path, mine)
    again = LatentStore(tmp_path, mine)
    again.begin()
    assert again.missing() == []
    (tmp_path / "000001.npy").unlink()
    (tmp_path / "000002.npy").write_bytes((tmp_path / "000002.npy").read_bytes()[:-1])
    assert again.missing() == [1, 2]
    for other in (replace(mine, digest="b"), replace(mine, split="train"), index(dataset, flip=False)):
        filled(tmp_path, mine)
        changed = LatentStore(tmp_path, other)
        changed.begin()
        assert changed.missing() == list(range(other.shards))


def test_numbers_beyond_float16_are_refused(dataset, tmp_path):
    store = LatentStore(tmp_path, index(dataset))
    store.begin()
    values = numbers(store, 0)
    values[len(values) // 2] = np.inf
    with pytest.raises(DataError, match=r"the latent of clip 5 holds numbers that float16 \(up to 65,504\) cannot"):
        store.write(0, values)
    assert store.missing() == [0]
