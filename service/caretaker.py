"""Looks after one job that has a run: its progress, its workers, its end."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import structlog

from gradwire.progress import ErrorView, Event, Outcome, Progress
from service.admission import Grant
from service.engine import Death
from service.jobs.journal import Journal
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.launcher import Launcher
from service.recovery import End, Restart, after_trainer, after_worker, failure
from service.retirement import Retirement
from service.run import LiveJob, PlacedWorker, Run

CANCEL_GRACE_S = 15.0
"""How long a cancelled trainer may take for its last checkpoint."""
LAST_WORDS_S = 2.0
"""How long an ended trainer is asked for what it reported last."""
REPLACE_AFTER_S = 0.5
"""Workers end a moment before their trainer does: so long it is waited before one is replaced."""
WRITE_EVERY_S = 0.25
"""Progress without an event is stored at most this often."""
MAX_POLLED_AFTER_END = 2
"""The first answer after the end may have been on its way before it; the second has everything."""

log = structlog.get_logger()


class Caretaker:
    """Acts for the supervisor, on its thread. `now` is the supervisor's clock, in seconds."""

    def __init__(self, journal: Journal, launcher: Launcher, retirement: Retirement, stages: Callable[[], str]) -> None:
        self._journal = journal
        self._launcher = launcher
        self._retirement = retirement
        self._stages = stages

    def start(self, job: LiveJob, grant: Grant, now: float) -> None:
        """Launches the next generation of the job's trainer."""
        record = replace(job.record, generation=job.record.generation + 1)
        if record.state is JobState.QUEUED:
            record = self._journal.move(record, JobState.STARTING, "starting the trainer")
        else:
            record = self._journal.explain(record, f"starting the trainer again (start {record.generation})")
        job.record = record
        try:
            assignment, trainer = self._launcher.trainer(record)
        except OSError as error:
            message = f"cannot write below jobs/{record.id} of the storage: {error}; look for room and permissions"
            self.finish(job, failure(ErrorView(code="storage_unavailable", message=message)), now)
        else:
            job.run = Run(assignment=assignment, trainer=trainer, grant=grant)

    def tick(self, job: LiveJob, run: Run, nodes: Collection[str], now: float) -> None:
        """Takes in what has happened since the last tick; `nodes` are those of the cluster."""
        self._take_progress(job, run, run.trainer.poll(run.cursor), now)
        if run.end is None:
            run.end, run.ended_at = run.trainer.outcome(), now
        if run.end is not None:
            if _has_said_all(run, now):
                self._conclude(job, run, run.end, now)
            return
        if run.cancelled_at is not None:
            if now - run.cancelled_at >= CANCEL_GRACE_S:
                run.trainer.kill()
                reason = f"cancelled; the trainer did not stop within {CANCEL_GRACE_S:.0f} s and was killed"
                self.finish(job, End(state=JobState.CANCELLED, reason=reason), now)
            return
        self._employ(job, run)
        self._replace_dead(job, run, nodes, now)

    def cancel(self, job: LiveJob, now: float) -> JobRecord:
        """Asks the job to stop; where there is nothing yet to save, it ends at once."""
        run = job.run
        if run is None or run.trainer.exchange_address() is None:
            if run is not None:
                run.trainer.kill()
            self.finish(job, End(state=JobState.CANCELLED, reason="cancelled"), now)
        elif run.cancelled_at is None:
            run.cancelled_at = now
            run.trainer.cancel()
            job.record = self._journal.explain(replace(job.record, is_cancelling=True), "is being cancelled")
        return job.record

    def finish(self, job: LiveJob, end: End, now: float) -> None:
        """Takes the job to its last state; its processes may end by themselves."""
        if end.state is JobState.SUCCEEDED and job.record.state is not JobState.RUNNING:
            # It ran and finished between two ticks.
            job.record = self._journal.move(job.record, JobState.RUNNING, "training")
        error = end.error
        if error is not None and not error.step:
            error = replace(error, step=job.record.snapshot.step)
        record = replace(job.record, is_cancelling=False)
        job.record = self._journal.move(record, end.state, end.reason, error)
        if job.run is not None:
            self._retirement.add(job.run, now)
            job.run = None

    def grow(self, job: LiveJob, run: Run, more: dict[str, int]) -> None:
        """Gives the job more workers."""
        for node, count in more.items():
            run.grant = run.grant.changed(node, count)
        self._employ(job, run)
        if more:
            have, asked = run.grant.total, job.demand.workers
            job.record = self._journal.note(job.record, "worker", f"has {have} of {asked} workers now")

    def _take_progress(self, job: LiveJob, run: Run, progress: Progress | None, now: float) -> None:
        if progress is None:
            self._explain_start(job, run)
            return
        run.answers_after_end += run.end is not None
        snapshot, events = progress.snapshot, progress.events
        job.losses = job.losses.committed(snapshot.step)
        record = job.record.observed(snapshot)
        run.has_news |= record is not job.record
        job.record = record
        if snapshot.is_running and record.state in (JobState.STARTING, JobState.RECOVERING):
            events = self._move_to_running(job, run, events)
        if events or (run.has_news and now - run.written_at >= WRITE_EVERY_S):
            job.record = self._journal.report(job.record, events)
            run.written_at, run.has_news = now, False
        run.cursor = max((event.cursor for event in progress.events), default=run.cursor)

    def _move_to_running(self, job: LiveJob, run: Run, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """Stores the events from before the first step, then moves the job; returns the other events."""
        is_before = [event.kind not in ("state", "progress") for event in events]
        first = is_before.index(False) if False in is_before else len(events)
        job.record = self._journal.report(job.record, events[:first])
        job.record = self._journal.move(job.record, JobState.RUNNING, f"training with {_count(run.grant.total)}")
        return events[first:]

    def _explain_start(self, job: LiveJob, run: Run) -> None:
        """While a process gets ready, the engine knows what takes the time."""
        if job.record.state is JobState.STARTING and run.trainer.exchange_address() is None:
            stage = self._stages()
            if stage and stage != job.record.state_reason:
                job.record = self._journal.explain(job.record, stage)

    def _employ(self, job: LiveJob, run: Run) -> None:
        """Launches the workers that the grant has room for, once the trainer listens."""
        address = run.trainer.exchange_address()
        if address is None:
            return
        if not run.workers and run.next_worker == 0 and job.record.state is JobState.STARTING:
            job.record = self._journal.explain(job.record, f"building the model on {_count(run.grant.total)}")
        for node, wanted in run.grant.workers.items():
            present = sum(worker.node == node for worker in run.workers.values())
            for _ in range(wanted - present):
                handle = self._launcher.worker(run.assignment, run.next_worker, address, job.demand, node)
                run.workers[handle.id] = PlacedWorker(handle, node)
                run.next_worker += 1

    def _replace_dead(self, job: LiveJob, run: Run, nodes: Collection[str], now: float) -> None:
        for worker_id, worker in list(run.workers.items()):
            end = worker.handle.outcome()
            if end is None or (isinstance(end, Outcome) and end.state == "SUCCEEDED"):
                continue  # at work, or dismissed because the trainer is about to end
            if worker.ended_at is None:
                worker.ended_at = now
            if now - worker.ended_at >= REPLACE_AFTER_S:
                self._replace(job, run, worker_id, _reason(end), nodes, now)
                if job.run is None:
                    return

    def _replace(self, job: LiveJob, run: Run, worker_id: str, reason: str, nodes: Collection[str], now: float) -> None:
        worker = run.workers.pop(worker_id)
        worker.handle.kill()  # what is left of it gives its share back
        job.losses = job.losses.worker_died()
        if (end := after_worker(job.losses, worker_id, reason)) is not None:
            run.trainer.cancel()
            self.finish(job, end, now)
            return
        if worker.node not in nodes:
            run.grant = run.grant.changed(worker.node, -1)  # the job may grow again elsewhere
        log.warning("worker_died", job=job.record.id, worker=worker_id, why=reason)
        what = "another takes its place" if worker.node in nodes else f"node {worker.node} is gone"
        job.record = self._journal.note(job.record, "worker", f"worker {worker_id} died ({reason}); {what}")
        self._employ(job, run)

    def _conclude(self, job: LiveJob, run: Run, end: Outcome | Death, now: float) -> None:
        if isinstance(end, Death):
            job.losses = job.losses.trainer_died()
        job.record = self._journal.write(job.record)
        match after_trainer(end, is_cancelling=job.record.is_cancelling, losses=job.losses):
            case End() as verdict:
                self.finish(job, verdict, now)
            case Restart(reason=reason):
                log.warning("trainer_died", job=job.record.id, generation=job.record.generation, why=reason)
                self._restart(job, run, reason, now)

    def _restart(self, job: LiveJob, run: Run, reason: str, now: float) -> None:
        if job.record.state is JobState.RECOVERING:
            job.record = self._journal.explain(job.record, reason)
        else:
            job.record = self._journal.move(job.record, JobState.RECOVERING, reason)
        # Workers of a dead trainer have nothing left to do, and their share is wanted at once.
        self._retirement.add(run, now, grace_s=0.0, keeps_grant=False)
        job.run = None
        self.start(job, run.grant, now)


def _has_said_all(run: Run, now: float) -> bool:
    return (
        isinstance(run.end, Death)
        or run.answers_after_end >= MAX_POLLED_AFTER_END
        or now - run.ended_at >= LAST_WORDS_S
    )


def _reason(end: Outcome | Death) -> str:
    if isinstance(end, Death):
        return end.reason
    return end.error.message if end.error is not None else "it was let go"


def _count(workers: int) -> str:
    return f"{workers} worker{'s' * (workers != 1)}"
