"""Classes, captions, groups and splits."""

import json
from pathlib import Path

import pytest

from kinema.core.errors import DataError
from kinema.data.labels import Naming, annotate, split_by_group, split_by_time
from kinema.data.sources import Source


def source(name: str, frames: int | None = 100, group: str | None = None) -> Source:
    return Source(name=name, path=f"/footage/{name}", kind="video", bytes=1000, frames=frames, group=group)


SOURCES = [source("walk/ada_1.mp4"), source("walk/ben_1.mp4"), source("run/ada_2.mp4")]


@pytest.mark.parametrize(
    ("naming", "words"),
    [
        ("folder", ["walk", "walk", "run"]),
        ("parent2", ["footage"] * 3),
        ("name", ["ada_1", "ben_1", "ada_2"]),
        ("prefix", ["ada", "ben", "ada"]),
        ("source", ["walk/ada_1.mp4", "walk/ben_1.mp4", "run/ada_2.mp4"]),
    ],
)
def test_paths_name_classes_and_groups(naming: str, words: list[str]) -> None:
    named = annotate(SOURCES, Naming(labels=naming, group=naming))
    assert [s.label for s in named] == [s.group for s in named] == words


def test_a_table_gives_label_caption_and_group(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text(
        'source,label,caption,group\nwalk/ada_1.mp4,walk,"ada, walking",ada\nben_1.mp4,walk,ben,ben\nada_2,run,,ada\n'
    )
    named = annotate(SOURCES, Naming(labels=str(table), group=str(table)))
    assert [(s.label, s.caption, s.group) for s in named] == [
        ("walk", "ada, walking", "ada"),
        ("walk", "ben", "ben"),  # by its file name, which is unique
        ("run", None, "ada"),  # by its name without suffix
    ]


def test_captions_have_a_table_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "words.jsonl"
    table.write_text(json.dumps({"file": "ben_1.mp4", "caption": "ben walks"}) + "\n\n")
    named = annotate(SOURCES, Naming(labels="folder", captions=str(table)))
    assert [s.caption for s in named] == [None, "ben walks", None]


def test_a_list_of_paths_and_labels_is_read_beside_its_footage(tmp_path: Path) -> None:
    table = tmp_path / "list.txt"
    table.write_text("clips/a b.mp4 3\n")
    footage = Source("a b.mp4", str(tmp_path / "clips" / "a b.mp4"), "video", 1)
    assert annotate([footage], Naming(labels=str(table)))[0].label == "3"


def test_a_source_that_the_table_leaves_out_has_no_label(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\nben_1.mp4,walk\n")
    assert [s.label for s in annotate(SOURCES, Naming(labels=str(table)))] == [None, "walk", None]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "source,label\nno.mp4,a\nnor.mp4,b\n", "names 2 clips that are not in the sources: no.mp4, nor.mp4"),
        ("t.csv", "source,word\nben_1.mp4,a\n", "has no column 'label'; it has: source, word"),
        ("t.csv", "what,label\nben_1.mp4,a\n", "no column that names the clip"),
        ("t.csv", "source,label\nben_1.mp4,a\nwalk/ben_1.mp4,b\n", "says both 'a' and 'b' about walk/ben_1.mp4"),
        ("t.csv", "source,label\nben_1.mp4\n", "line 2: as many fields"),
        ("t.csv", "", "has no rows"),
        ("t.jsonl", "{broken\n", "line 1 is no JSON"),
        ("t.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("t.txt", "alone\n", "line 1 is 'alone'"),
        ("t.xls", "", "is no table; accepted: .csv, .jsonl, .txt, or one of folder"),
        (None, "", "cannot be read as a table"),
    ],
)
def test_a_wrong_table_is_refused_with_a_sentence(tmp_path: Path, name: str | None, text: str, says: str) -> None:
    table = tmp_path / (name or "missing.csv")
    if name:
        table.write_text(text)
    with pytest.raises(DataError) as error:
        annotate(SOURCES, Naming(labels=str(table)))
    assert says in str(error.value)
    assert str(table) in str(error.value)


def test_a_table_of_groups_must_name_every_source(tmp_path: Path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("source,subject\nada_1.mp4,ada\n")
    with pytest.raises(DataError, match=r"gives no group for walk/ben_1.mp4, run/ada_2.mp4"):
        annotate(SOURCES, Naming(group=str(table)))


def test_groups_stay_whole_and_the_share_is_not_exceeded() -> None:
    sources = [source(f"{n}.mp4", frames=10 + n, group=f"person {n % 7}") for n in range(70)]
    divided = split_by_group(sources, 0.3)
    splits = {s.group: s.split for s in divided}
    assert all(s.split == splits[s.group] for s in divided)
    test = sum(s.frames or 0 for s in divided if s.split == "test")
    assert 0.1 < test / sum(s.frames or 0 for s in sources) <= 0.3
    assert split_by_group(sources[::-1], 0.3)[::-1] == divided


def test_without_groups_every_source_is_its_own() -> None:
    divided = split_by_group([source(f"{n}.mp4") for n in range(10)], 0.2)
    assert [s.split for s in divided].count("test") == 2


def test_two_large_groups_give_the_smaller_one_to_the_test_split() -> None:
    divided = split_by_group([source("a.mp4", 100), source("b.mp4", 80)], 0.1)
    assert [s.split for s in divided] == ["train", "test"]


def test_time_splits_every_source_at_its_own_border() -> None:
    divided = split_by_time([source("a.mp4", 100), source("b.mp4", 50)], 0.2, fps=10)
    assert [s.border for s in divided] == [pytest.approx(8.0), pytest.approx(4.0)]  # seconds
    assert all(s.border is None for s in split_by_time([source("a.mp4", 100)], 0, fps=10))


def test_a_source_of_unknown_length_is_not_split_by_time() -> None:
    with pytest.raises(DataError, match=r"a\.mp4 does not say how long it is"):
        split_by_time([source("a.mp4", 0)], 0.2, fps=10)


def test_one_group_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2 groups"):
        split_by_group([source("a.mp4", group="ada"), source("b.mp4", group="ada")], 0.1)
