"""What every store of jobs does; the contract test in tests/contract/test_stores.py holds all of them to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from gradwire.errors import AlreadyExists, Exhausted, NotFound, Unavailable
from service.jobs.event import JobEvent
from service.jobs.record import JobRecord
from service.jobs.states import JobState


class Unwritable(Unavailable):
    """Nothing can be written just now, since the disk is full or fails; what is stored stays as it is."""

    code = "storage_full"


class JobStore(Protocol):
    """Keeps jobs and their events. Safe to call from any thread; each call happens as a whole or not at all.

    Jobs come in by `submit`; after that the supervisor alone calls `update`. What writes raises `Unwritable` where the
    disk has no room.
    """

    def submit(self, record: JobRecord, spec_json: str, event: JobEvent, *, max_live: int) -> tuple[JobRecord, bool]:
        """Adds a job with its first event; returns it, and whether it is new.

        A request id that is known gives the job it made. Raises `AlreadyExists` if that job has another specification,
        `Exhausted` if `max_live` jobs have not ended.
        """

    def get(self, job_id: str) -> JobRecord:
        """A job by its id, or by a beginning of it. Raises `NotFound` if no job, or more than one, has it."""

    def spec_json(self, job_id: str) -> str:
        """The specification of the job with exactly this id. Raises `NotFound`."""

    def page(self, size: int, before: int | None) -> list[JobRecord]:
        """At most `size` jobs, newest first, of those whose sequence is below `before`."""

    def live(self) -> list[JobRecord]:
        """The jobs that have not ended, oldest first."""

    def update(self, record: JobRecord, events: Iterable[JobEvent] = ()) -> tuple[JobRecord, list[JobEvent]]:
        """Replaces a job's record and appends events; returns both as they were stored (see `thinning`).

        Raises `NotFound` if the job is not there.
        """

    def events(self, job_id: str, after: int, limit: int) -> list[JobEvent]:
        """At most `limit` of the job's events with cursors above `after`, in order."""

    def counts(self) -> Mapping[JobState, int]:
        """How many jobs are in each state; states without a job may be missing."""

    def probe(self) -> None:
        """Writes about as much as a busy second does, and removes it. Raises `Unwritable`."""

    def close(self) -> None:
        """Nothing is called after this."""


def no_such_job(job_id: str) -> NotFound:
    """No job has the id."""
    return NotFound(f"no job has the id {job_id[:100]!r}; `gradwire jobs` lists those that there are")


def ambiguous(job_id: str) -> NotFound:
    """Several jobs' ids begin so."""
    return NotFound(f"several jobs' ids begin with {job_id!r}; give more characters of the one you mean")


def matched(record: JobRecord, submitted: JobRecord) -> JobRecord:
    """The job that a request id has made, if it is the submitted one. Raises `AlreadyExists`."""
    if record.spec_digest != submitted.spec_digest:
        raise AlreadyExists(
            f"the request id {record.request_id!r} made job {record.id} from another specification; take a new one"
        )
    return record


def require_room(live: int, max_live: int) -> None:
    """Raises `Exhausted` if no further job may be queued."""
    if live >= max_live:
        raise Exhausted(f"{live} jobs are queued or running, and the server takes no more; wait, or cancel some")
