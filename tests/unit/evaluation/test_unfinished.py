"""Arrays of work that was stopped."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import MediaError
from kinema.evaluation.unfinished import Unfinished, keeping

ARRAYS = {"a row": np.arange(5, dtype=np.float32), "count": np.array(3)}


def test_what_was_kept_is_there_for_the_same_work_alone(tmp_path: Path) -> None:
    kept = Unfinished(tmp_path / "made" / "part.npz", ["f", {"seed": 1}])
    assert kept.load() == {}
    kept.save(ARRAYS)
    found = kept.load()
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[name], ARRAYS[name]) and found[name].dtype == ARRAYS[name].dtype for name in ARRAYS)
    assert Unfinished(kept.file, ["f", {"seed": 2}]).load() == {}
    assert [path.name for path in kept.file.parent.iterdir()] == ["part.npz"]


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_damaged_file_has_nothing(tmp_path: Path, share: float) -> None:
    kept = Unfinished(tmp_path / "part.npz", [])
    kept.save(ARRAYS)
    whole = kept.file.read_bytes()
    kept.file.write_bytes(whole[: int(share * len(whole))])
    assert kept.load() == {}
    kept.save(ARRAYS)
    assert kept.load()["count"] == 3


def test_where_nothing_can_be_written_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "part.npz").mkdir()
    with pytest.raises(MediaError, match=r"part\.npz cannot be written: "):
        Unfinished(tmp_path / "part.npz", []).save(ARRAYS)


def test_a_clip_is_made_once(tmp_path: Path) -> None:
    """Also where it was made among others, and where a clip of the same number answers another question."""
    made = list[int]()

    def make(numbers: Sequence[int]) -> list[np.ndarray]:
        made.extend(numbers)
        return [np.full((2, 4, 4, 3), number, np.uint8) for number in numbers]

    for numbers in ([3, 1], [2, 3, 1], [1, 1]):
        clips = keeping(make, tmp_path, ["sampled"])(numbers)
        assert [int(clip[0, 0, 0, 0]) for clip in clips] == numbers
    assert made == [3, 1, 2]
    keeping(make, tmp_path, ["sampled", "otherwise"])([3])
    assert made == [3, 1, 2, 3]
