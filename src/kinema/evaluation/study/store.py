"""Answers, in one SQLite file beside the study: an answer is on the disk before it is acknowledged.

WAL mode with synchronous=FULL: a commit returns when the write-ahead log has been flushed, so that killing the process, or
the machine losing power, loses nothing that a rater was told is saved. Several processes may serve one study.
"""

import hashlib
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kinema.core.errors import EvaluationError
from kinema.evaluation.study.folder import Study, digest

DATABASE_NAME = "answers.sqlite"
SCHEMA_VERSION = 2
APPLICATION = 0x6B6E6D61  # "knma": tells a file of ours from any other SQLite database
TOKEN_BYTES = 24
BUSY_SECONDS = 10.0

_SCHEMA = """
CREATE TABLE study (only INTEGER PRIMARY KEY CHECK (only = 1), digest TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE rater (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    token TEXT NOT NULL UNIQUE,  -- SHA-256 of the token: who reads this file cannot answer in another's name
    consented TEXT
);
CREATE TABLE vote (
    rater INTEGER NOT NULL REFERENCES rater (number),
    trial TEXT NOT NULL,
    position INTEGER NOT NULL,
    clips TEXT NOT NULL,  -- JSON: files, from left to right
    ranking TEXT NOT NULL,  -- JSON: their places from 0, best first
    milliseconds INTEGER NOT NULL,
    at TEXT NOT NULL,
    UNIQUE (rater, trial)
);
"""


class DuplicateVoteError(EvaluationError):
    """A rater answers a trial a second time."""


@dataclass(frozen=True)
class Vote:
    """One answer.

    Attributes:
        rater: number of the rater.
        trial: id of the trial.
        position: place of the trial in the rater's order, from 0.
        clips: files as they were shown, from left to right.
        ranking: places in `clips`, best first.
        milliseconds: from the clips playing to the answer.
        at: time of arrival, UTC, ISO 8601.
    """

    rater: int
    trial: str
    position: int
    clips: tuple[str, ...]
    ranking: tuple[int, ...]
    milliseconds: int
    at: str

    @property
    def ranked(self) -> tuple[str, ...]:
        """Files, best first."""
        return tuple(self.clips[place] for place in self.ranking)


class Store:
    """The answers to one study.

    Args:
        folder: of the study.
        study: as it is in ``study.json``; must be what the answers so far belong to.
        create: make the database where there is none.

    Raises:
        EvaluationError: there is no database, it is no database of kinema's or of another version, or the study was changed
            after the first answer.
    """

    def __init__(self, folder: Path, study: Study, *, create: bool = False) -> None:
        self.path = folder / DATABASE_NAME
        if not create and not self.path.exists():
            raise EvaluationError(
                f"nobody has answered yet: {folder} has no {DATABASE_NAME}; `kinema study serve {folder}` makes it"
            )
        self._lock = threading.Lock()
        if create:
            self.path.touch(mode=0o600)  # SQLite gives the files of its log the same mode
        try:
            self._connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._open(digest(study))
        except sqlite3.Error as error:
            raise EvaluationError(f"{self.path} cannot be used: {error}") from None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def add_rater(self, *, consented: bool) -> tuple[int, str]:
        """Make a rater; return the number and the token, which is stored nowhere.

        Args:
            consented: whether the rater agreed already, or was sent a link and is yet to be asked.
        """
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._change() as connection:
            row = connection.execute(
                "INSERT INTO rater (token, consented) VALUES (?, ?)", (_hashed(token), now() if consented else None)
            )
        assert row.lastrowid is not None  # an INSERT has one
        return row.lastrowid, token

    def rater(self, token: str) -> int | None:
        """Return the number of the rater who has a token, or None."""
        row = self._read("SELECT number FROM rater WHERE token = ?", (_hashed(token),))
        return row[0][0] if row else None

    def has_consented(self, rater: int) -> bool:
        """Tell whether a rater agreed to take part."""
        return bool(self._read("SELECT 1 FROM rater WHERE number = ? AND consented IS NOT NULL", (rater,)))

    def consent(self, rater: int) -> None:
        """Remember that a rater agreed to take part; the first time counts."""
        with self._change() as connection:
            connection.execute("UPDATE rater SET consented = coalesce(consented, ?) WHERE number = ?", (now(), rater))

    @property
    def closed(self) -> bool:
        """Whether only raters with a link may take part."""
        return bool(self._read("SELECT closed FROM study", ())[0][0])

    @closed.setter
    def closed(self, value: bool) -> None:
        with self._change() as connection:
            connection.execute("UPDATE study SET closed = ?", (int(value),))

    def add_vote(self, vote: Vote) -> None:
        """Write an answer; it is on the disk when this returns.

        Raises:
            DuplicateVoteError: the rater answered this trial already; the first answer stays.
        """
        shown, ranking = json.dumps(vote.clips), json.dumps(vote.ranking)
        row = (vote.rater, vote.trial, vote.position, shown, ranking, vote.milliseconds, vote.at)
        try:
            with self._change() as connection:
                connection.execute("INSERT INTO vote VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.IntegrityError as error:
            if "UNIQUE" not in str(error):
                raise
            raise DuplicateVoteError("this trial is answered already; the first answer stays") from None

    def answered(self, rater: int) -> set[str]:
        """Return the ids of the trials that a rater answered."""
        return {row[0] for row in self._read("SELECT trial FROM vote WHERE rater = ?", (rater,))}

    def votes(self) -> list[Vote]:
        """Return all answers, rater by rater in the order in which they came."""
        columns = "rater, trial, position, clips, ranking, milliseconds, at"
        return [
            Vote(rater, trial, position, tuple(json.loads(clips)), tuple(json.loads(ranking)), milliseconds, at)
            for rater, trial, position, clips, ranking, milliseconds, at in self._read(
                f"SELECT {columns} FROM vote ORDER BY rater, rowid", ()
            )
        ]

    def _open(self, fingerprint: str) -> None:
        version = self._read("PRAGMA user_version", ())[0][0]
        application = self._read("PRAGMA application_id", ())[0][0]
        if version == 0 and application == 0 and not self._read("SELECT 1 FROM sqlite_master", ()):
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._make(fingerprint)
        elif application != APPLICATION:
            raise EvaluationError(f"{self.path} is no database of answers to a kinema study; move it away")
        elif version != SCHEMA_VERSION:
            raise EvaluationError(
                f"{self.path} has version {version}, this kinema reads version {SCHEMA_VERSION}: use the kinema that made it"
            )
        self._refuse_changed(fingerprint)

    def _make(self, fingerprint: str) -> None:
        settings = f"PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {SCHEMA_VERSION};"
        try:
            self._connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} {settings} COMMIT;")
        except sqlite3.OperationalError:  # another process was quicker, or there is a fault that the next look shows
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        with self._change() as connection:
            connection.execute("INSERT OR IGNORE INTO study (only, digest) VALUES (1, ?)", (fingerprint,))

    def _refuse_changed(self, fingerprint: str) -> None:
        if self._read("SELECT digest FROM study", ())[0][0] == fingerprint:
            return
        if self._read("SELECT 1 FROM vote LIMIT 1", ()):
            raise EvaluationError(
                f"the study was changed after the first answer, so that {self.path} belongs to another; put study.json back as "
                "it was, or make a new study"
            )
        with self._change() as connection:
            connection.execute("UPDATE study SET digest = ?", (fingerprint,))

    def _read(self, query: str, values: tuple[object, ...]) -> list[tuple]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def now() -> str:
    """Return the time, UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
