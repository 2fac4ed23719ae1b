"""A store in one SQLite file, which outlives the process."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gradwire.errors import GradwireError
from service.jobs.event import JobEvent
from service.jobs.record import JobRecord
from service.jobs.states import ENDED, JobState
from service.store.base import Unwritable, ambiguous, matched, no_such_job, require_room
from service.store.codec import event_of, event_text, record_of, record_text
from service.store.thinning import append

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE jobs (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE specs (id TEXT PRIMARY KEY, spec TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    id TEXT NOT NULL, cursor INTEGER NOT NULL, event TEXT NOT NULL, PRIMARY KEY (id, cursor)
) WITHOUT ROWID;
"""
PROBE_BYTES = 256 << 10
"""A disk that has no more than a few free kilobytes counts as full."""
_IS_LIVE = f"state NOT IN ({', '.join(repr(str(state)) for state in sorted(ENDED))})"


class SqliteStore:
    """See `JobStore`. One connection, held by one thread at a time: a call takes well under a millisecond."""

    def __init__(self, path: Path) -> None:
        """Opens the file, and makes it if it is not there. Raises `GradwireError` if another version has made it."""
        self._lock = threading.Lock()
        self._path = path
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode=WAL")
        # In WAL mode a power failure can lose the last commits but not damage the file.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            self._connection.close()
            raise GradwireError(
                f"{path} has version {version} of the store, this service knows {SCHEMA_VERSION}; take another --state"
            )

    def submit(self, record: JobRecord, spec_json: str, event: JobEvent, *, max_live: int) -> tuple[JobRecord, bool]:
        with self._transaction() as db:
            row = db.execute("SELECT sequence, record FROM jobs WHERE request_id = ?", [record.request_id]).fetchone()
            if row is not None:
                return matched(_record(row), record), False
            require_room(db.execute(f"SELECT count(*) FROM jobs WHERE {_IS_LIVE}").fetchone()[0], max_live)
            stored, events = append(record, [event])
            sequence = db.execute(
                "INSERT INTO jobs (id, request_id, state, record) VALUES (?, ?, ?, ?)",
                [record.id, record.request_id, record.state, record_text(stored)],
            ).lastrowid
            db.execute("INSERT INTO specs VALUES (?, ?)", [record.id, spec_json])
            _insert(db, record.id, events)
            return replace(stored, sequence=sequence or 0), True

    def get(self, job_id: str) -> JobRecord:
        with self._lock:
            rows = self._connection.execute(
                # An index serves a range, not a pattern; "g" follows every hexadecimal digit.
                "SELECT sequence, record FROM jobs WHERE id >= ? AND id < ? || 'g' ORDER BY id LIMIT 2",
                [job_id, job_id],
            ).fetchall()
        found = [_record(row) for row in rows] if job_id else []
        if not found or not found[0].id.startswith(job_id):
            raise no_such_job(job_id)
        if len(found) > 1 and found[0].id != job_id:
            raise ambiguous(job_id)
        return found[0]

    def spec_json(self, job_id: str) -> str:
        with self._lock:
            row = self._connection.execute("SELECT spec FROM specs WHERE id = ?", [job_id]).fetchone()
        if row is None:
            raise no_such_job(job_id)
        return str(row[0])

    def page(self, size: int, before: int | None) -> list[JobRecord]:
        query = "SELECT sequence, record FROM jobs WHERE sequence < ? ORDER BY sequence DESC LIMIT ?"
        with self._lock:
            rows = self._connection.execute(query, [2**62 if before is None else before, size]).fetchall()
        return [_record(row) for row in rows]

    def live(self) -> list[JobRecord]:
        with self._lock:
            rows = self._connection.execute(
                f"SELECT sequence, record FROM jobs WHERE {_IS_LIVE} ORDER BY sequence"
            ).fetchall()
        return [_record(row) for row in rows]

    def update(self, record: JobRecord, events: Iterable[JobEvent] = ()) -> tuple[JobRecord, list[JobEvent]]:
        stored, kept = append(record, events)
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, record = ? WHERE id = ?", [stored.state, record_text(stored), stored.id]
            ).rowcount
            if not changed:
                raise no_such_job(record.id)
            _insert(db, record.id, kept)
        return stored, kept

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        query = "SELECT event FROM events WHERE id = ? AND cursor > ? ORDER BY cursor LIMIT ?"
        with self._lock:
            rows = self._connection.execute(query, [job_id, after, limit]).fetchall()
        return [event_of(text) for (text,) in rows]

    def counts(self) -> Mapping[JobState, int]:
        with self._lock:
            rows = self._connection.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()
        return {JobState(state): count for state, count in rows}

    def probe(self) -> None:
        with self._transaction() as db:
            db.execute(f"CREATE TABLE IF NOT EXISTS probe AS SELECT zeroblob({PROBE_BYTES}) AS bytes")
        with self._transaction() as db:
            db.execute("DROP TABLE IF EXISTS probe")

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._telling_of_room():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _telling_of_room(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
                raise
            raise Unwritable(
                f"the server cannot write {self._path} ({error}); free some room on its disk, and it goes on by itself"
            ) from error


def _record(row: tuple[int, str]) -> JobRecord:
    sequence, text = row
    return replace(record_of(text), sequence=sequence)


def _insert(db: sqlite3.Connection, job_id: str, events: list[JobEvent]) -> None:
    rows = [(job_id, event.cursor, event_text(event)) for event in events]
    db.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
