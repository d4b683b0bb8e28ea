"""What is measured of clips, by hand; and its store on disk."""

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
import torch

from kinema.core.errors import EvaluationError
from kinema.data.dataset import Dataset
from kinema.data.executor import Kind
from kinema.evaluation import measures
from kinema.evaluation.features import open_features
from kinema.evaluation.measures import (
    Portion,
    Workers,
    drawn,
    key,
    measure,
    measure_dataset,
    measure_portion,
    store_folder,
)
from kinema.evaluation.network import FeatureNetwork
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


@dataclass
class Counting(FeatureNetwork):
    """Counts the clips that it sees, and is stopped when it has seen enough of them."""

    stops_after: int = 10**9
    seen: int = 0
    id: str = NETWORK.id
    sha256: str = NETWORK.sha256
    preprocessing: str = NETWORK.preprocessing

    def __call__(self, clips: torch.Tensor) -> torch.Tensor:
        if self.seen >= self.stops_after:
            raise KeyboardInterrupt
        self.seen += len(clips)
        return NETWORK(clips)


def test_stored_measures_are_used_and_continued(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions of 8, handfuls of 4: of ten clips, the two of the handful that was not whole are measured again."""
    monkeypatch.setattr(measures, "PORTION", 8)
    monkeypatch.setattr(measures, "AT_ONCE", 4)
    order, network = drawn(24, len(dataset), 0), Counting()
    counts: list[int] = []
    measure_dataset(dataset, order[:10], network, 0, folder=tmp_path, said=counts.append)
    assert (network.seen, counts) == (10, [0, 8, 10])
    found, damaged = measure_dataset(dataset, order, network, 0, folder=tmp_path, said=counts.append)
    assert (network.seen, counts[3:]) == (10 + 16, [8, 16, 24])
    again, _ = measure_dataset(dataset, order[:7], network, 0, folder=tmp_path)
    assert network.seen == 26
    fresh, _ = measure_dataset(dataset, order, Counting(), 0)
    np.testing.assert_array_equal(found.features, fresh.features)
    np.testing.assert_array_equal(again.signature, fresh.signature[:7])
    assert len(found) == 24
    assert damaged == []


def test_a_stop_loses_no_more_than_a_portion(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "PORTION", 8)
    monkeypatch.setattr(measures, "AT_ONCE", 4)
    order = drawn(24, len(dataset), 0)
    with pytest.raises(KeyboardInterrupt):
        measure_dataset(dataset, order, Counting(stops_after=20), 0, folder=tmp_path)
    network = Counting()
    found, _ = measure_dataset(dataset, order, network, 0, folder=tmp_path)
    assert network.seen == 8  # of the last portion, the first half is lost
    np.testing.assert_array_equal(found.features, measure_dataset(dataset, order, NETWORK, 0)[0].features)


def test_several_processes_give_the_numbers_of_one(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tasks for two spawned processes; what they keep is what one process goes on with."""
    monkeypatch.setattr(measures, "PORTION", 8)
    order = drawn(24, len(dataset), 0)
    found, _ = measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path, workers=Workers("local", 2))
    alone, _ = measure_dataset(dataset, order, NETWORK, 0)
    for part in fields(alone):
        np.testing.assert_array_equal(getattr(found, part.name), getattr(alone, part.name))
    assert len(list(tmp_path.rglob("*.npz"))) == 3
    network = Counting()
    measure_dataset(dataset, order, network, 0, folder=tmp_path)
    assert network.seen == 0


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), [("slurm", {"cluster": "local", "timeout_min": 2}), ("ray", {})])
def test_clusters_give_the_numbers_of_one_process(
    dataset: Dataset, tmp_path: Path, kind: Kind, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a network that they cannot import is one sentence, as it is here."""
    pytest.importorskip("submitit" if kind == "slurm" else "ray")
    order, workers = drawn(24, len(dataset), 0), Workers(kind, 2, options)
    with pytest.raises(EvaluationError, match=r"cannot be imported .*; is its folder in PYTHONPATH\?"):
        measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path, workers=workers)
    folder = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")]))
    found, _ = measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path, workers=workers)
    np.testing.assert_array_equal(found.features, measure_dataset(dataset, order, NETWORK, 0)[0].features)


def test_an_error_in_a_task_is_the_sentence_of_the_command(dataset: Dataset, tmp_path: Path) -> None:
    network = open_features("small_features:Wrong", torch.device("cpu"))
    with pytest.raises(EvaluationError, match="must return one vector per clip"):
        measure_dataset(dataset, drawn(9, len(dataset), 0), network, 0, folder=tmp_path)
    assert not list(tmp_path.rglob("*.npz"))


def test_a_dataset_that_changes_under_way_is_refused(dataset: Dataset) -> None:
    portion = Portion(0, dataset.path, dataset.split, "0" * 64, (0, 1), 1, NETWORK, None)
    with pytest.raises(EvaluationError, match="data has changed while it was measured; run the same command again"):
        measure_portion(portion)


def test_a_stride_leaves_frames_out(dataset: Dataset) -> None:
    """Of four frames the first and the third; the motion is that between them."""
    order = drawn(9, len(dataset), 0)
    found, _ = measure_dataset(dataset, order, NETWORK, 0, stride=2)
    wanted = measure(np.stack([dataset.video(index)[[0, 2]] for index in order]), NETWORK)
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-6)
    np.testing.assert_allclose(found.motion, wanted.motion, rtol=1e-6)


@pytest.mark.parametrize("damage", ["cut", "changed", "nonsense", "empty"])
def test_a_damaged_store_is_made_again(dataset: Dataset, tmp_path: Path, damage: str) -> None:
    order = drawn(9, len(dataset), 0)
    whole, _ = measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path)
    (path,) = tmp_path.rglob("*.npz")
    content = path.read_bytes()
    changed = content[:300] + bytes([content[300] ^ 1]) + content[301:]
    damages = {"cut": content[: len(content) // 2], "changed": changed, "nonsense": b"PK\3\4" + content[40:], "empty": b""}
    path.write_bytes(damages[damage])
    again, damaged = measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path)
    np.testing.assert_array_equal(again.features, whole.features)
    assert damaged == [path]
    assert measure_dataset(dataset, order, NETWORK, 0, folder=tmp_path)[1] == []
    assert list(tmp_path.rglob("*.npz*")) == [path]


def test_what_decides_about_the_numbers_decides_about_the_name(dataset: Dataset, tmp_path: Path) -> None:
    other = Dataset(write_dataset(tmp_path / "other", 31), "train")
    names = [
        key(dataset, NETWORK, 0, 1),
        key(dataset, NETWORK, 1, 1),
        key(dataset, NETWORK, 0, 2),
        key(Dataset(dataset.path), NETWORK, 0, 1),
        key(other, NETWORK, 0, 1),
        key(dataset, open_features("small_features:ready", torch.device("cpu")), 0, 1),
    ]
    assert len(set(names)) == len(names)
    assert key(Dataset(dataset.path, "train"), NETWORK, 0, 1) == names[0]


def test_a_dataset_that_cannot_be_written_is_left_alone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store_folder(dataset) == dataset.path / "measures"
    monkeypatch.setattr(measures.os, "access", lambda *_: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store_folder(dataset) == tmp_path / "cache" / "kinema" / "measures"
