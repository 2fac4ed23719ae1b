"""A store that forgets everything at the end of the process: for tests, and for a service that keeps nothing."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from service.jobs.event import JobEvent
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.store.base import ambiguous, matched, no_such_job, require_room
from service.store.thinning import append


@dataclass(slots=True)
class _Entry:
    record: JobRecord
    spec_json: str
    events: list[JobEvent] = field(default_factory=list)


class MemoryStore:
    """See `JobStore`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._by_request: dict[str, str] = {}

    def submit(self, record: JobRecord, spec_json: str, event: JobEvent, *, max_live: int) -> tuple[JobRecord, bool]:
        with self._lock:
            if (known := self._by_request.get(record.request_id)) is not None:
                return matched(self._entries[known].record, record), False
            require_room(sum(not entry.record.has_ended for entry in self._entries.values()), max_live)
            stored, events = append(replace(record, sequence=len(self._entries) + 1), [event])
            self._entries[record.id] = _Entry(stored, spec_json, events)
            self._by_request[record.request_id] = record.id
            return stored, True

    def get(self, job_id: str) -> JobRecord:
        with self._lock:
            if job_id in self._entries:
                return self._entries[job_id].record
            found = [key for key in self._entries if job_id and key.startswith(job_id)]
            if len(found) > 1:
                raise ambiguous(job_id)
            if not found:
                raise no_such_job(job_id)
            return self._entries[found[0]].record

    def spec_json(self, job_id: str) -> str:
        with self._lock:
            return self._entry(job_id).spec_json

    def page(self, size: int, before: int | None) -> list[JobRecord]:
        with self._lock:
            records = [entry.record for entry in reversed(self._entries.values())]
        return [record for record in records if before is None or record.sequence < before][:size]

    def live(self) -> list[JobRecord]:
        with self._lock:
            return [entry.record for entry in self._entries.values() if not entry.record.has_ended]

    def update(self, record: JobRecord, events: Iterable[JobEvent] = ()) -> tuple[JobRecord, list[JobEvent]]:
        with self._lock:
            entry = self._entry(record.id)
            stored, kept = append(record, events)
            entry.record = stored
            entry.events += kept
            return stored, kept

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        with self._lock:
            entry = self._entries.get(job_id)
            # Cursors have no gaps, so that a cursor is a position.
            return entry.events[after : after + limit] if entry else []

    def counts(self) -> Mapping[JobState, int]:
        with self._lock:
            return Counter(entry.record.state for entry in self._entries.values())

    def probe(self) -> None:
        """Memory has room."""

    def close(self) -> None:
        """There is nothing to close."""

    def _entry(self, job_id: str) -> _Entry:
        entry = self._entries.get(job_id)
        if entry is None:
            raise no_such_job(job_id)
        return entry
