"""One contract for every store of jobs."""

from __future__ import annotations

import math
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.errors import AlreadyExists, Exhausted, GradwireError, NotFound
from gradwire.progress import ErrorView, Snapshot, WorkerView
from gradwire.spec.job import ResourceSpec
from service.jobs.event import JobEvent
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.store import thinning
from service.store.base import JobStore, Unwritable
from service.store.memory import MemoryStore
from service.store.sqlite import SqliteStore

WORKER = WorkerView(id="w", pid=7, node="n", state="READY", phase="compute", transport="shared_memory")


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobStore]:
    made: JobStore = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "jobs.sqlite3")
    yield made
    made.close()


def record(job_id: str = "0a1b2c3d4e5f", *, request_id: str = "", digest: str = "d") -> JobRecord:
    return JobRecord(
        id=job_id,
        name="digits",
        request_id=request_id or f"request-{job_id}",
        spec_digest=digest,
        resources=ResourceSpec(workers=2, cpus_per_worker=0.5),
        created_at_s=1000.25,
    )


def event(kind: str = "state", message: str = "queued") -> JobEvent:
    return JobEvent(time_s=1000.5, kind=kind, message=message, state=JobState.QUEUED)  # type: ignore[arg-type]


def submit(store: JobStore, made: JobRecord, *, max_live: int = 100) -> JobRecord:
    return store.submit(made, '{"name":"digits"}', event(), max_live=max_live)[0]


def test_a_submitted_job_is_there_with_its_first_event(store: JobStore) -> None:
    stored, is_new = store.submit(record(), '{"name":"ü"}', event(), max_live=1)
    assert is_new and stored.sequence == 1 and stored.cursor == 1
    assert store.get(stored.id) == stored
    assert store.spec_json(stored.id) == '{"name":"ü"}'
    assert [one.cursor for one in store.events(stored.id, 0, 10)] == [1]
    assert store.counts() == {JobState.QUEUED: 1}


def test_one_request_makes_one_job(store: JobStore) -> None:
    first, _ = store.submit(record("a" * 12, request_id="r"), "{}", event(), max_live=100)
    again, is_new = store.submit(record("b" * 12, request_id="r"), "{}", event(), max_live=100)
    assert again == first and not is_new
    assert len(store.live()) == 1 and len(store.events(first.id, 0, 10)) == 1


def test_a_request_id_for_another_spec_is_refused(store: JobStore) -> None:
    submit(store, record("a" * 12, request_id="r", digest="one"))
    with pytest.raises(AlreadyExists, match=f"made job {'a' * 12} from another"):
        submit(store, record("b" * 12, request_id="r", digest="two"))


def test_submissions_at_once_make_one_job(store: JobStore) -> None:
    results: list[str] = []
    barrier = threading.Barrier(8)

    def call(index: int) -> None:
        barrier.wait()
        results.append(submit(store, record(f"{index:012x}", request_id="r")).id)

    threads = [threading.Thread(target=call, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 8 and len(set(results)) == 1


def test_the_queue_has_a_bound_but_not_for_a_known_request(store: JobStore) -> None:
    first = submit(store, record("a" * 12, request_id="r"), max_live=1)
    with pytest.raises(Exhausted, match="1 jobs are queued or running"):
        submit(store, record("b" * 12), max_live=1)
    assert submit(store, record("c" * 12, request_id="r"), max_live=1) == first
    store.update(replace(first, state=JobState.CANCELLED))
    assert submit(store, record("d" * 12), max_live=1).sequence > first.sequence


def test_jobs_are_found_by_a_beginning_that_only_one_has(store: JobStore) -> None:
    one, other = submit(store, record("abc0" * 3)), submit(store, record("abd0" * 3))
    assert store.get("abc") == one and store.get(other.id) == other
    with pytest.raises(NotFound, match="several jobs' ids begin with 'ab'"):
        store.get("ab")
    for wrong in ("", "abe", "%", "abc0abc0abc0f"):
        with pytest.raises(NotFound, match="no job has the id"):
            store.get(wrong)


def test_pages_go_from_the_newest_back(store: JobStore) -> None:
    made = [submit(store, record(f"{index:012x}")) for index in range(5)]
    first = store.page(2, None)
    second = store.page(2, first[-1].sequence)
    last = store.page(2, second[-1].sequence)
    assert [*first, *second, *last] == made[::-1]
    assert store.page(2, last[-1].sequence) == []


def test_live_jobs_come_in_the_order_of_submission(store: JobStore) -> None:
    made = [submit(store, record(f"{9 - index:012x}")) for index in range(3)]
    store.update(replace(made[1], state=JobState.FAILED))
    assert [one.id for one in store.live()] == [made[0].id, made[2].id]
    assert store.counts() == {JobState.QUEUED: 2, JobState.FAILED: 1}


def test_everything_in_a_record_survives(store: JobStore) -> None:
    stored = submit(store, record())
    full = replace(
        stored,
        state=JobState.FAILED,
        state_reason="why",
        started_at_s=1.5,
        finished_at_s=2.5,
        generation=3,
        is_cancelling=True,
        error=ErrorView(code="nonfinite", message="loss", details="d", step=4, worker="w"),
        snapshot=Snapshot(
            step=4, metrics={"loss": 0.1}, workers=(WORKER,), exports=("keras",), fingerprint={"tensorflow": "2.21"}
        ),
    )
    store.update(full)
    assert store.get(full.id) == full


def test_what_is_not_finite_stays_so(store: JobStore) -> None:
    stored = submit(store, record())
    metrics = {"loss": math.nan, "mae": math.inf}
    store.update(replace(stored, snapshot=Snapshot(metrics=metrics)), [replace(event("progress"), metrics=metrics)])
    assert math.isnan(store.get(stored.id).snapshot.metrics["loss"])
    assert store.events(stored.id, 1, 1)[0].metrics["mae"] == math.inf


def test_events_are_read_from_a_cursor_on(store: JobStore) -> None:
    stored = submit(store, record())
    stored, kept = store.update(stored, [event(message="two"), replace(event("worker", "three"), workers=(WORKER,))])
    assert [one.cursor for one in kept] == [2, 3] and stored.cursor == 3
    assert store.events(stored.id, 1, 10) == kept
    assert store.events(stored.id, 1, 1) == kept[:1]
    assert store.events(stored.id, 3, 10) == [] and store.events("unknown", 0, 10) == []


def test_a_long_job_keeps_fewer_progress_events_and_no_gap(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thinning, "FULL_EVENTS", 10)
    monkeypatch.setattr(thinning, "DOUBLING_EVENTS", 5)
    stored = submit(store, record())
    for index in range(200):
        kinds = ["progress", "checkpoint"] if index == 150 else ["progress"]
        stored, _ = store.update(stored, [event(kind, str(index)) for kind in kinds])
    events = store.events(stored.id, 0, 1000)
    assert [one.cursor for one in events] == list(range(1, stored.cursor + 1))
    assert 20 < len(events) < 60
    assert [one.message for one in events if one.kind == "checkpoint"] == ["150"]
    assert stored.progress_offered == 200


def test_a_job_that_is_not_there_cannot_be_updated(store: JobStore) -> None:
    with pytest.raises(NotFound):
        store.update(record(), [event()])
    with pytest.raises(NotFound):
        store.spec_json(record().id)
    assert store.events(record().id, 0, 1) == []


def test_sqlite_outlives_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    first = SqliteStore(path)
    stored = submit(first, record())
    first.close()
    second = SqliteStore(path)
    assert second.live() == [stored] and second.events(stored.id, 0, 9)[0].message == "queued"
    second.close()


def test_sqlite_takes_an_update_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.sqlite3")
    stored = submit(store, record())
    forgetful = replace(stored, cursor=0, state=JobState.FAILED)
    with pytest.raises(sqlite3.IntegrityError):
        store.update(forgetful, [event(message="has the first event's cursor")])
    assert store.get(stored.id) == stored
    store.close()


def test_sqlite_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite3"
    store = SqliteStore(path)
    store._connection.execute("PRAGMA user_version=99")
    store.close()
    with pytest.raises(GradwireError, match="version 99"):
        SqliteStore(path)


def test_a_store_that_can_be_written_passes_its_probe(store: JobStore) -> None:
    made = submit(store, record())
    store.probe()
    assert store.get(made.id) == made and store.counts() == {JobState.QUEUED: 1}


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "jobs.sqlite3")
    made = submit(store, record())
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count={pages}")
    long = event(message="x" * 100_000)

    def new() -> None:
        store.submit(record("f" * 12), "x" * 100_000, event(), max_live=9)

    for write in (store.probe, lambda: store.update(made, [long]), new):
        with pytest.raises(Unwritable, match=r"jobs\.sqlite3 .*full.*; free some room") as raised:
            write()
        assert raised.value.code == "storage_full"
    assert store.get(made.id) == made and len(store.events(made.id, 0, 9)) == 1
    store._connection.execute("PRAGMA max_page_count=100000")
    store.probe()
    store.update(made, [long])
    assert len(store.events(made.id, 0, 9)) == 2
    store.close()
