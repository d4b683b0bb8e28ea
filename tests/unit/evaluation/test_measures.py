"""What is measured of clips, by hand; and its store on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.data.dataset import Dataset
from kinema.evaluation import measures
from kinema.evaluation.features import open_features
from kinema.evaluation.measures import Store, drawn, measure, measure_all, store_folder
from small_dataset import write_dataset

NETWORK = open_features("small_features:Colours", torch.device("cpu"))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return Dataset(write_dataset(tmp_path / "data", 30), "train")


def test_motion_and_flicker_by_hand() -> None:
    """A quarter of the picture changes by 8 levels a frame: motion 2; the stillest half does not. Then everything by 1 more."""
    clip = np.zeros((3, 4, 4, 3), np.uint8)
    clip[:, :2, :2] = np.array([0, 8, 16])[:, None, None, None]
    found = measure(np.stack([clip, clip + np.array([0, 1, 2], np.uint8)[:, None, None, None]]), NETWORK)
    assert found.motion.tolist() == [2, 3]
    assert found.flicker.tolist() == [0, 1]


def test_a_larger_draw_begins_with_a_smaller_one() -> None:
    assert drawn(5, 100, 7) == drawn(50, 100, 7)[:5]
    assert drawn(5, 100, 7) != drawn(5, 100, 8)
    assert sorted(drawn(30, 30, 0)) == list(range(30))


def test_stored_measures_are_used_and_continued(dataset: Dataset, tmp_path: Path) -> None:
    order, read = drawn(24, len(dataset), 0), list[int]()

    def take(indices: Sequence[int]) -> list[np.ndarray]:
        read.extend(indices)
        return [dataset.video(index) for index in indices]

    store = Store(tmp_path / "store", dataset, NETWORK, 0)
    measure_all(take, order[:10], NETWORK, store=store)
    assert read == order[:10]
    found = measure_all(take, order, NETWORK, store=store)
    assert read == order  # nothing twice
    again = measure_all(take, order[:7], NETWORK, store=store)
    assert read == order
    fresh = measure_all(take, order, NETWORK)
    np.testing.assert_array_equal(found.features, fresh.features)
    np.testing.assert_array_equal(again.signature, fresh.signature[:7])


def test_a_stop_loses_no_more_than_a_portion(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "STORED_EVERY", 8)
    monkeypatch.setattr(measures, "AT_ONCE", 4)
    taken: list[int] = []

    def stops(indices: Sequence[int]) -> list[np.ndarray]:
        if len(taken) >= 12:
            raise KeyboardInterrupt
        taken.extend(indices)
        return [dataset.video(index) for index in indices]

    store = Store(tmp_path, dataset, NETWORK, 0)
    with pytest.raises(KeyboardInterrupt):
        measure_all(stops, drawn(24, len(dataset), 0), NETWORK, store=store)
    kept = store.load()
    assert kept is not None
    assert len(kept) == 8


@pytest.mark.parametrize("damage", ["cut", "changed", "nonsense", "empty"])
def test_a_damaged_store_is_made_again(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    def take(indices: Sequence[int]) -> list[np.ndarray]:
        return [dataset.video(index) for index in indices]

    store, order = Store(tmp_path, dataset, NETWORK, 0), drawn(9, len(dataset), 0)
    whole = measure_all(take, order, NETWORK, store=store)
    content = store.path.read_bytes()
    changed = content[:300] + bytes([content[300] ^ 1]) + content[301:]
    damages = {"cut": content[: len(content) // 2], "changed": changed, "nonsense": b"PK\3\4" + content[40:], "empty": b""}
    store.path.write_bytes(damages[damage])
    again = Store(tmp_path, dataset, NETWORK, 0)
    np.testing.assert_array_equal(measure_all(take, order, NETWORK, store=again).features, whole.features)
    assert again.damaged
    assert Store(tmp_path, dataset, NETWORK, 0).load() is not None
    assert [path.name for path in tmp_path.glob("*.npz*")] == [store.path.name]


def test_what_decides_about_the_numbers_decides_about_the_file(dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset(write_dataset(tmp_path / "other", 31), "train")
    stores = [
        Store(tmp_path, dataset, NETWORK, 0),
        Store(tmp_path, dataset, NETWORK, 1),
        Store(tmp_path, Dataset(dataset.path), NETWORK, 0),
        Store(tmp_path, other, NETWORK, 0),
        Store(tmp_path, dataset, open_features("small_features:ready", torch.device("cpu")), 0),
    ]
    assert len({store.path for store in stores}) == len(stores)
    assert Store(tmp_path, Dataset(dataset.path, "train"), NETWORK, 0).path == stores[0].path


def test_a_dataset_that_cannot_be_written_is_left_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_folder(dataset) == dataset.path / "measures"
    monkeypatch.setattr(measures.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store_folder(dataset) == tmp_path / "cache" / "kinema" / "measures"
