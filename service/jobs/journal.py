"""The one place where jobs are written: into the store, the job's log, and to those who watch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import structlog

from gradwire.progress import ErrorView, Event, EventKind
from service.jobs.bulletin import Bulletin
from service.jobs.event import JobEvent, from_trainer
from service.jobs.log import JobLog
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.store.base import JobStore

log = structlog.get_logger()

MAX_LIVE_JOBS = 1000
"""So many jobs may be queued and running together."""


class Journal:
    """Writes a job's record and events together; after `submit` the supervisor's thread is the only one that writes.

    Every method returns the record as it was stored, which is the one to go on with.
    """

    def __init__(
        self,
        store: JobStore,
        job_log: JobLog,
        bulletin: Bulletin,
        *,
        wall: Callable[[], float],
        observe: Callable[[JobRecord], None] = lambda record: None,
        writing: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`observe` gets every record as it was stored; `writing` surrounds each write to the store."""
        self._store = store
        self._log = job_log
        self._bulletin = bulletin
        self._wall = wall
        self._observe = observe
        self._writing = writing

    def submit(self, record: JobRecord, spec_json: str) -> tuple[JobRecord, bool]:
        """Queues a job; returns it, and whether it is new. Raises as `JobStore.submit` does."""
        first = self._event(record, "state", record.state_reason or "queued")
        stored, is_new = self._store.submit(record, spec_json, first, max_live=MAX_LIVE_JOBS)
        if is_new:
            self._log.append(stored.id, [first])
            self._observe(stored)
            log.info("job_submitted", job=stored.id, name=stored.name)
        return stored, is_new

    def write(self, record: JobRecord, events: Sequence[JobEvent] = ()) -> JobRecord:
        """Stores the record, and the events after it."""
        with self._writing():
            stored, kept = self._store.update(record, events)
        self._log.append(stored.id, kept, is_end=stored.has_ended)
        self._observe(stored)
        if kept:
            self._bulletin.publish(stored.id)
        return stored

    def move(self, record: JobRecord, state: JobState, reason: str, error: ErrorView | None = None) -> JobRecord:
        """Takes the job to another state, with an event that says why."""
        moved = record.moved(state, reason, self._wall(), error)
        log.info("job_moved", job=moved.id, old=record.state, new=state, step=moved.snapshot.step, why=reason)
        return self.write(moved, [self._event(moved, "state", reason)])

    def note(self, record: JobRecord, kind: EventKind, message: str) -> JobRecord:
        """Stores the record and an event."""
        return self.write(record, [self._event(record, kind, message)])

    def report(self, record: JobRecord, events: Iterable[Event]) -> JobRecord:
        """Stores the record and what its trainer reported."""
        return self.write(record, [from_trainer(event, record.state) for event in events])

    def explain(self, record: JobRecord, reason: str) -> JobRecord:
        """Says why the job is in its state."""
        return self.note(replace(record, state_reason=reason), "state", reason)

    def _event(self, record: JobRecord, kind: EventKind, message: str) -> JobEvent:
        now = record.snapshot
        return JobEvent(
            time_s=self._wall(),
            kind=kind,
            message=message,
            state=record.state,
            step=now.step,
            total_steps=now.total_steps,
            epoch=now.epoch,
            error=record.error,
        )
