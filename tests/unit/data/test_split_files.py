"""Published train and test lists, in the layout of UCF101."""

from pathlib import Path

import numpy as np
import pytest

from kinema.core.errors import ConfigError, DataError
from kinema.data.cutting import PrepareSettings
from kinema.data.dataset import Dataset
from kinema.data.encode import write_video
from kinema.data.labels import Naming, annotate, split_by_files
from kinema.data.prepare import prepare
from kinema.data.sources import find_sources

CLASSES = ("Bow", "Wave")


@pytest.fixture(scope="module")
def ucf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with two groups of one clip each, one clip that no list names, and the official files."""
    place = tmp_path_factory.mktemp("ucf")
    for seed, name in enumerate(CLASSES):
        for group in (1, 8):
            file = place / "videos" / name / f"v_{name}_g{group:02d}_c01.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([seed, group]).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
            write_video(file, pixels, 25.0)
    (place / "videos" / "Bow" / "v_Bow_g09_c01.mp4").write_bytes((place / "videos/Bow/v_Bow_g08_c01.mp4").read_bytes())
    (place / "classInd.txt").write_text("1 Bow\n2 Wave\n")
    (place / "trainlist01.txt").write_text("Bow/v_Bow_g08_c01.mp4 1\r\nWave/v_Wave_g08_c01.mp4 2\r\n")
    (place / "testlist01.txt").write_text("Bow/v_Bow_g01_c01.mp4\nWave/v_Wave_g01_c01.mp4\n\n")
    return place


def test_the_published_lists_decide(ucf: Path, tmp_path: Path) -> None:
    lists = tuple(str(ucf / name) for name in ("trainlist01.txt", "testlist01.txt", "classInd.txt"))
    settings = PrepareSettings(frames=4, size="16", labels="folder", group="take", split_files=lists, stabilise="off", cut=0)
    info = prepare([ucf / "videos"], tmp_path / "data", settings, workers=1)
    assert info.refused == {"in no split file": 1}
    records = {}
    for split in ("train", "test"):
        dataset = Dataset(tmp_path / "data", split)
        records[split] = {(r.label, r.group) for r in map(dataset.record, range(len(dataset)))}
    assert records == {
        "train": {("Bow", "v_Bow_g08"), ("Wave", "v_Wave_g08")},
        "test": {("Bow", "v_Bow_g01"), ("Wave", "v_Wave_g01")},
    }


def test_a_list_or_a_share_but_not_both() -> None:
    with pytest.raises(ConfigError, match=r"split is 0.2; it must be 0 where --split-files says what is held out"):
        PrepareSettings(split=0.2, split_files=("trainlist01.txt", "testlist01.txt"))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"testlist01.txt": None}, r"the split files have no list for test; give trainlist01.txt and testlist01.txt"),
        ({"mine.txt": "Bow/v_Bow_g01_c01.mp4"}, r"mine.txt is no split file; their names begin with train, test or class"),
        ({"testlist01.txt": "Bow/v_Bow_g77_c01.mp4\n"}, r"names 1 clips that are not in the sources: Bow/v_Bow_g77_c01.mp4"),
        (
            {"testlist01.txt": "Bow/v_Bow_g08_c01.mp4\n"},
            r"testlist01.txt names Bow/v_Bow_g08_c01.mp4, which is in the list of the other split too",
        ),
        (
            {"trainlist01.txt": "Bow/v_Bow_g08_c01.mp4 2\n"},
            r"gives Bow/v_Bow_g08_c01.mp4 the class number 2, and the class 'Bow' has 1; use the lists that belong",
        ),
        ({"trainlist01.txt": "Bow/v_Bow_g08_c01.mp4 1 2\n"}, r"has the line 'Bow/v_Bow_g08_c01.mp4 1 2'; wanted is a path"),
    ],
)
def test_lists_that_do_not_fit_are_refused(ucf: Path, tmp_path: Path, changed: dict[str, str | None], sentence: str) -> None:
    texts = {name: (ucf / name).read_text() for name in ("trainlist01.txt", "testlist01.txt", "classInd.txt")} | changed
    files = [tmp_path / name for name, text in texts.items() if text is not None]
    for file in files:
        file.write_text(texts[file.name] or "")
    sources = annotate(find_sources([ucf / "videos"]).sources, Naming("folder"))
    with pytest.raises(DataError, match=sentence):
        split_by_files(sources, files)


def test_a_group_in_both_lists_is_a_leak(ucf: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Bow/v_Bow_g08_c01.mp4\n")
    (tmp_path / "test.txt").write_text("Bow/v_Bow_g01_c01.mp4\n")
    sources = annotate(find_sources([ucf / "videos"]).sources, Naming("folder", group="folder"))
    with pytest.raises(DataError, match=r"the group 'Bow' is in both lists; give the --group that they keep apart"):
        split_by_files(sources, [tmp_path / "train.txt", tmp_path / "test.txt"])
