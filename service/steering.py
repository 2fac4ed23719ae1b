"""What users ask of a job that has not ended: to be paused, to go on, to have more or fewer workers."""

from __future__ import annotations

from dataclasses import replace

from gradwire.errors import InvalidSpec, NotPossible, Violation
from gradwire.spec.job import MAX_WORKERS
from service.admission import Grant, demand_of
from service.caretaker import Caretaker
from service.foreman import count_text
from service.jobs.journal import Journal
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.run import LiveJob


class Steering:
    """Acts for the supervisor, on its thread. Asking twice is asking once: a client may have to repeat a call."""

    def __init__(self, journal: Journal, caretaker: Caretaker) -> None:
        self._journal = journal
        self._caretaker = caretaker

    def pause(self, job: LiveJob, now: float) -> JobRecord:
        """Takes the job's workers from it. A job that trains writes a checkpoint first; any other is held at once.

        Raises `NotPossible` for a job that is being cancelled; so do the others.
        """
        record = _not_cancelled(job.record, "paused")
        if record.state is JobState.PAUSED or record.is_pausing:
            return record
        if job.run is None or record.state is not JobState.RUNNING:
            self._caretaker.hold(job, now)
        else:
            reason = "is being paused: it stops after its present step and writes a checkpoint"
            job.record = self._journal.explain(replace(record, is_pausing=True), reason)
            self._caretaker.stop(job.run, now)
        return job.record

    def resume(self, job: LiveJob, now: float) -> JobRecord:
        """Queues a paused job again; one that is not paused stays as it is."""
        record = _not_cancelled(job.record, "resumed")
        if record.state is JobState.PAUSED:
            job.record = self._journal.move(record, JobState.QUEUED, "resumed")
        elif record.is_pausing:
            reason = "is resumed, and goes on as soon as its trainer has stopped"
            job.record = self._journal.explain(replace(record, is_pausing=False), reason)
        return job.record

    def scale(self, job: LiveJob, workers: int, now: float) -> JobRecord:
        """Sets how many workers the job shall have; it gets or gives them while it runs.

        Raises `InvalidSpec` for a number that the job cannot have.
        """
        record = _not_cancelled(job.record, "scaled")
        if (fault := _fault(record, workers)) is not None:
            raise InvalidSpec([Violation("workers", fault)])
        if workers == record.resources.workers:
            return record
        record = replace(record, resources=record.resources.model_copy(update={"workers": workers}))
        usable = "" if record.usable_workers == workers else f"; {record.usable_workers} of them can be used"
        job.record = self._journal.note(record, "worker", f"shall have {count_text(workers)}{usable}")
        job.demand = demand_of(job.record)
        if job.run is not None:
            job.run.grant = Grant(demand=job.demand, workers=job.run.grant.workers)
            job.run.trainer.scale(job.demand.workers)
        return job.record


def _not_cancelled(record: JobRecord, done: str) -> JobRecord:
    if record.is_cancelling:
        raise NotPossible(f"job {record.id} is being cancelled and cannot be {done}")
    return record


def _fault(record: JobRecord, workers: int) -> str | None:
    if workers < 1:
        return f"must be at least 1, not {workers}; a job without workers is a paused one: gradwire pause {record.id}"
    least = record.resources.min_workers
    if workers < least:
        return f"must be at least {least}, the job's minWorkers, not {workers}"
    return f"must be at most {MAX_WORKERS}, not {workers}" if workers > MAX_WORKERS else None
