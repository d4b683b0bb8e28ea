"""Answers: once per trial, on the disk before they are acknowledged, and of this study."""

import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.design import Plan
from kinema.evaluation.study.store import APPLICATION, DATABASE_NAME, DuplicateVoteError, Store
from unit.evaluation.small_study import ranked, vote, written


def test_a_vote_is_kept_and_a_second_one_refused(tmp_path: Path) -> None:
    study = written(tmp_path)
    store = Store(tmp_path, study, create=True)
    rater, _ = store.add_rater(consented=True)
    first = vote(study, rater, study.trials[0].id, "left")
    store.add_vote(first)
    with pytest.raises(DuplicateVoteError):
        store.add_vote(replace(first, ranking=first.ranking[::-1]))
    assert Store(tmp_path, study).votes() == [first]
    assert store.answered(rater) == {study.trials[0].id}


def test_a_ranking_is_kept_and_a_second_one_refused(tmp_path: Path) -> None:
    study = written(tmp_path, Plan(kind="ranking", trials=2, repeats=1), ("one", "two", "real"))
    store = Store(tmp_path, study, create=True)
    rater, _ = store.add_rater(consented=True)
    first = ranked(study, rater, study.trials[0].id, (2, 0, 1))
    store.add_vote(first)
    with pytest.raises(DuplicateVoteError, match="answered already"):
        store.add_vote(replace(first, ranking=(0, 1, 2)))
    (kept,) = Store(tmp_path, study).votes()
    assert kept == first
    assert kept.ranked == tuple(kept.clips[place] for place in (2, 0, 1))


def test_of_many_that_answer_at_once_one_is_kept(tmp_path: Path) -> None:
    study = written(tmp_path)
    stores = [Store(tmp_path, study, create=True) for _ in range(2)]
    rater, _ = stores[0].add_rater(consented=True)
    refused: list[int] = []

    def answer(number: int) -> None:
        try:
            stores[number % 2].add_vote(vote(study, rater, study.trials[0].id, "left", number))
        except DuplicateVoteError:
            refused.append(number)

    threads = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 7
    assert len(stores[0].votes()) == 1


def test_tokens_cannot_be_guessed_nor_read_from_the_file(tmp_path: Path) -> None:
    store = Store(tmp_path, written(tmp_path), create=True)
    tokens = [store.add_rater(consented=False)[1] for _ in range(20)]
    assert len(set(tokens)) == 20
    assert min(len(token) for token in tokens) == 32  # 24 random bytes
    kept = b"".join(path.read_bytes() for path in tmp_path.glob(f"{DATABASE_NAME}*"))
    assert not [token for token in tokens if token.encode() in kept]
    assert store.rater(tokens[3]) == 4
    assert store.rater("4") is None
    assert not store.has_consented(4)
    store.consent(4)
    assert store.has_consented(4)


def test_the_disk_is_waited_for(tmp_path: Path) -> None:
    store = Store(tmp_path, written(tmp_path), create=True)
    assert store._read("PRAGMA journal_mode", ()) == [("wal",)]
    assert store._read("PRAGMA synchronous", ()) == [(2,)]


def test_the_study_may_be_edited_until_the_first_answer(tmp_path: Path) -> None:
    study = written(tmp_path)
    Store(tmp_path, study, create=True).close()
    study = replace(study, question="Which is sharper?")
    store = Store(tmp_path, study)
    rater, _ = store.add_rater(consented=True)
    store.add_vote(vote(study, rater, study.trials[0].id, "left"))
    with pytest.raises(EvaluationError, match="changed after the first answer"):
        Store(tmp_path, replace(study, question="Which is funnier?"))


def test_a_database_of_another_version_or_kind_is_refused(tmp_path: Path) -> None:
    study = written(tmp_path)
    with pytest.raises(EvaluationError, match="nobody has answered yet"):
        Store(tmp_path, study)
    Store(tmp_path, study, create=True).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(EvaluationError, match="has version 7, this kinema reads version 2"):
        Store(tmp_path, study)
    (tmp_path / DATABASE_NAME).unlink()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(EvaluationError, match="no database of answers"):
        Store(tmp_path, study)
    (tmp_path / DATABASE_NAME).write_text("no database at all, but some text that is long enough" * 20)
    with pytest.raises(EvaluationError, match="cannot be used"):
        Store(tmp_path, study)


def test_a_database_of_the_first_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    """Its answers name sides, not rankings."""
    study = written(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as connection:
        connection.executescript(
            "CREATE TABLE study (only INTEGER PRIMARY KEY, digest TEXT, closed INTEGER);"
            "CREATE TABLE vote (rater INTEGER, trial TEXT, position INTEGER, left_clip TEXT, right_clip TEXT, side TEXT);"
            "INSERT INTO vote VALUES (1, 'a', 0, 'b', 'c', 'left');"
            f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = 1;"
        )
    connection.close()
    before = (tmp_path / DATABASE_NAME).read_bytes()
    for create in (False, True):
        with pytest.raises(EvaluationError, match="has version 1, this kinema reads version 2: use the kinema that made it"):
            Store(tmp_path, study, create=create)
    assert (tmp_path / DATABASE_NAME).read_bytes() == before


def test_answers_are_for_the_owner_s_eyes(tmp_path: Path) -> None:
    Store(tmp_path, written(tmp_path), create=True).close()
    assert stat.S_IMODE((tmp_path / DATABASE_NAME).stat().st_mode) & 0o077 == 0
