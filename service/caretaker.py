"""Looks after one job that has a run: its progress, its trainer, its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace

import structlog

from gradwire.byte_size import byte_size
from gradwire.progress import ErrorView, Event, Outcome, Progress, Snapshot
from gradwire.storage import is_full
from gradwire.telemetry import Telemetry
from service.admission import Grant
from service.engine import Death, FoundRun
from service.foreman import Foreman, crew_text
from service.jobs.journal import Journal
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.launcher import Launcher
from service.recovery import End, Hold, Restart, after_trainer, explained, failure
from service.retirement import Retirement
from service.run import LiveJob, PlacedWorker, Run

CANCEL_GRACE_S = 15.0
"""How long a cancelled trainer may take for its last checkpoint."""
PAUSE_GRACE_S = 60.0
"""Likewise a paused one, which is in no hurry."""
LAST_WORDS_S = 2.0
"""How long an ended trainer is asked for what it reported last."""
WRITE_EVERY_S = 0.25
"""Progress without an event is stored at most this often."""
ROOM_RETRY_S = 10.0
"""How often a job looks again whether there is room to start it."""
NOTE_BYTES = 4096
"""What the smallest file takes of a disk."""
MAX_POLLED_AFTER_END = 2
"""The first answer after the end may have been on its way before it; the second has everything."""

log = structlog.get_logger()


class Caretaker:
    """Acts for the supervisor, on its thread. `now` is the supervisor's clock, in seconds."""

    def __init__(
        self,
        journal: Journal,
        launcher: Launcher,
        foreman: Foreman,
        retirement: Retirement,
        stages: Callable[[], str],
        measure: Callable[[JobRecord, Telemetry], None] = lambda record, telemetry: None,
    ) -> None:
        """`stages` says what the engine does to get ready; `measure` is told what trainers count."""
        self._journal = journal
        self._foreman = foreman
        self._launcher = launcher
        self._retirement = retirement
        self._stages = stages
        self._measure = measure

    def start(self, job: LiveJob, grant: Grant, now: float) -> None:
        """Launches the next generation of the job's trainer."""
        record = replace(job.record, generation=job.record.generation + 1, trainer_cursor=0, next_worker=0)
        fault = self._fence_off(record)
        if fault is not None and not self._may_start(job, fault, now):
            return
        if record.state is JobState.QUEUED:
            record = self._journal.move(record, JobState.STARTING, "starting the trainer")
        else:
            record = self._journal.explain(record, f"starting the trainer again (start {record.generation})")
        if fault is not None:
            what = f"{self._no_room(record)}; training goes on, and checkpoints are tried again until there is room"
            record = self._journal.note(record, "warning", what)
        job.record = record
        assignment, trainer = self._launcher.trainer(record)
        job.run = Run(assignment=assignment, trainer=trainer, grant=grant)

    def _fence_off(self, record: JobRecord) -> OSError | None:
        try:
            self._launcher.fence_off(record)
        except OSError as error:
            return error
        return None

    def _may_start(self, job: LiveJob, fault: OSError, now: float) -> bool:
        """Whether the job may start where its new generation cannot be stored.

        The first start may, where there is only no room: there is no older trainer that might still write. A later one
        waits, and holds nobody up.
        """
        record = job.record
        if not is_full(fault):
            message = f"cannot write below jobs/{record.id} of the storage: {fault}; look for room and permissions"
            self.finish(job, failure(ErrorView(code="storage_unavailable", message=message)), now)
            return False
        if record.generation == 0:
            return True
        job.held_until = now + ROOM_RETRY_S
        reason = f"waits: {self._no_room(record)}, and without it an older trainer of the job could still write"
        if reason != record.state_reason:
            job.record = self._journal.explain(record, reason)
        return False

    def _no_room(self, record: JobRecord) -> str:
        storage = self._launcher.storage
        free = f" (it takes {byte_size(NOTE_BYTES)}, {storage.room})" if storage.room else ""
        return f"no room left in {storage.url.rstrip('/')}/jobs/{record.id} for the number of the trainer's start{free}"

    def adopt(self, job: LiveJob, found: FoundRun, now: float) -> None:
        """Goes on with a start of the job's trainer that has outlived the coordinator that launched it."""
        grant = Grant(demand=job.demand, workers=Counter(node for _, node in found.workers))
        run = job.run = Run(assignment=found.assignment, trainer=found.trainer, grant=grant)
        run.workers = {handle.id: PlacedWorker(handle, node) for handle, node in found.workers}
        log.info("job_adopted", job=job.record.id, generation=job.record.generation, workers=grant.total)
        what = f"the service was restarted; the trainer has gone on meanwhile, with {crew_text(run)}"
        job.record = self._journal.explain(job.record, what)
        if job.record.is_cancelling or job.record.is_pausing:
            self.stop(run, now)

    def tick(self, job: LiveJob, run: Run, nodes: Collection[str], now: float) -> None:
        """Takes in what has happened since the last tick; `nodes` are those of the cluster."""
        progress = run.trainer.poll(job.record.trainer_cursor)
        self._take_progress(job, run, progress, now)
        if run.end is None:
            run.end, run.ended_at = run.trainer.outcome(), now
        if run.end is None:
            self._listen(job, run, progress, now)
        if run.end is not None:
            if _has_said_all(run, now):
                self._conclude(job, run, run.end, now)
            return
        if run.stopping_since is not None:
            self._press(job, run, now - run.stopping_since, now)
            return
        self._foreman.shrink(job, run, now)
        self._foreman.employ(job, run)
        verdict = self._foreman.look_after(job, run, nodes, now)
        if verdict is not None:
            run.trainer.cancel()
            self.finish(job, verdict, now)

    def cancel(self, job: LiveJob, now: float) -> JobRecord:
        """Asks the job to stop; where there is nothing yet to save, it ends at once."""
        run = job.run
        if run is None or run.trainer.exchange_address() is None:
            if run is not None:
                run.trainer.kill()
            self.finish(job, End(state=JobState.CANCELLED, reason="cancelled"), now)
        elif not job.record.is_cancelling:
            run.stopping_since = None  # a trainer that is stopping for a pause has more time than it has now
            self.stop(run, now)
            record = replace(job.record, is_cancelling=True, is_pausing=False)
            job.record = self._journal.explain(record, "is being cancelled")
        return job.record

    def stop(self, run: Run, now: float) -> None:
        """Asks the trainer to write a checkpoint after its present step, and to end."""
        if run.stopping_since is None:
            run.stopping_since = now
            run.trainer.cancel()

    def hold(self, job: LiveJob, now: float, why: str = "", *, is_resumed: bool = False) -> None:
        """Pauses the job, whose trainer has ended, or has nothing to save; one that was resumed meanwhile is queued."""
        if job.run is not None:
            job.run.trainer.kill()
        self._release(job, now)
        record = replace(job.record, is_pausing=False)
        job.record = self._journal.move(record, JobState.PAUSED, _held(record, why))
        if is_resumed:
            job.record = self._journal.move(job.record, JobState.QUEUED, "resumed")

    def finish(self, job: LiveJob, end: End, now: float) -> None:
        """Takes the job to its last state; its processes may end by themselves."""
        if end.state is JobState.SUCCEEDED and job.record.state is not JobState.RUNNING:
            # It ran and finished between two ticks.
            job.record = self._journal.move(job.record, JobState.RUNNING, "training")
        error = end.error
        if error is not None and not error.step:
            error = replace(error, step=job.record.snapshot.step)
        record = replace(job.record, is_cancelling=False, is_pausing=False)
        job.record = self._journal.move(record, end.state, end.reason, error)
        self._release(job, now)

    def _release(self, job: LiveJob, now: float) -> None:
        if job.run is not None:
            self._retirement.add(job.run, now)
            job.run = None

    def _press(self, job: LiveJob, run: Run, waited_s: float, now: float) -> None:
        """Kills a trainer that takes too long to stop."""
        grace_s = CANCEL_GRACE_S if job.record.is_cancelling else PAUSE_GRACE_S
        if waited_s < grace_s:
            return
        run.trainer.kill()
        why = f"the trainer did not stop within {grace_s:.0f} s and was killed"
        if job.record.is_cancelling:
            self.finish(job, End(state=JobState.CANCELLED, reason=f"cancelled; {why}"), now)
        else:
            self.hold(job, now, why, is_resumed=not job.record.is_pausing)

    def _take_progress(self, job: LiveJob, run: Run, progress: Progress | None, now: float) -> None:
        if progress is None:
            self._explain_start(job, run)
            return
        run.answers_after_end += run.end is not None
        snapshot, events = progress.snapshot, progress.events
        self._measure(job.record, progress.telemetry)
        job.losses = job.losses.committed(snapshot.step)
        record = job.record.observed(snapshot)
        run.has_news |= record is not job.record
        job.record = record
        if snapshot.is_running and record.state in (JobState.STARTING, JobState.RECOVERING):
            events = self._move_to_running(job, run, events)
        self._explain_phase(job, run, snapshot)
        if events or (run.has_news and now - run.written_at >= WRITE_EVERY_S):
            self._report(job, events)
            run.written_at, run.has_news = now, False

    def _report(self, job: LiveJob, events: tuple[Event, ...]) -> None:
        """Stores events together with where they end, so that each is stored once, whoever stores the next."""
        cursor = max((event.cursor for event in events), default=job.record.trainer_cursor)
        job.record = self._journal.report(replace(job.record, trainer_cursor=cursor), events)

    def _listen(self, job: LiveJob, run: Run, progress: Progress | None, now: float) -> None:
        """Gives a trainer up that listens to its workers, but has not answered for too long."""
        run.phase = progress.snapshot.phase if progress is not None else run.phase
        is_running = progress.snapshot.is_running if progress is not None else job.record.state is JobState.RUNNING
        is_excused = run.trainer.exchange_address() is None or run.trainer.is_missed()
        run.silence.look(now, is_answered=progress is not None or is_excused)
        if run.is_hung or not run.silence.is_over(is_running=is_running):
            return
        run.is_hung = True
        step, phase, owed_s = job.record.snapshot.step, run.phase or "starting", run.silence.owed_s
        log.warning("trainer_hung", job=job.record.id, generation=job.record.generation, step=step, phase=phase)
        what = f"it hung: no answer for {owed_s:.0f} s, last seen {phase} after step {step}"
        run.trainer.kill(what, is_hung=True)

    def _move_to_running(self, job: LiveJob, run: Run, events: tuple[Event, ...]) -> tuple[Event, ...]:
        """Stores the events from before the first step, then moves the job; returns the other events."""
        is_before = [event.kind not in ("state", "progress") for event in events]
        first = is_before.index(False) if False in is_before else len(events)
        self._report(job, events[:first])
        job.record = self._journal.move(job.record, JobState.RUNNING, f"training with {crew_text(run)}")
        return events[first:]

    def _explain_phase(self, job: LiveJob, run: Run, snapshot: Snapshot) -> None:
        """Before the first step, once its workers are told of, the trainer knows what takes the time."""
        is_before = job.record.state in (JobState.STARTING, JobState.RECOVERING) and not snapshot.is_running
        if is_before and run.workers and snapshot.phase not in ("", run.told_phase):
            run.told_phase = snapshot.phase
            job.record = self._journal.explain(job.record, snapshot.phase)

    def _explain_start(self, job: LiveJob, run: Run) -> None:
        """While a process gets ready, the engine knows what takes the time."""
        if job.record.state is JobState.STARTING and run.trainer.exchange_address() is None:
            stage = self._stages()
            if stage and stage != job.record.state_reason:
                job.record = self._journal.explain(job.record, stage)

    def _conclude(self, job: LiveJob, run: Run, end: Outcome | Death, now: float) -> None:
        if isinstance(end, Death):
            job.losses = job.losses.trainer_died()
        job.record = self._journal.write(job.record)
        record = job.record
        match after_trainer(
            end, losses=job.losses, is_cancelling=record.is_cancelling, is_pausing=record.is_pausing
        ):  # fmt: skip
            case End() as verdict:
                if verdict.error is not None:
                    verdict = _explained(verdict, verdict.error, run)
                self.finish(job, verdict, now)
            case Hold(why=why):
                self.hold(job, now, why, is_resumed=not record.is_pausing)
            case Restart(reason=reason):
                step, start = record.snapshot.step, record.generation
                log.warning("trainer_died", job=record.id, generation=start, step=step, why=reason)
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


def _held(record: JobRecord, why: str) -> str:
    """Such as: paused after step 120."""
    now = record.snapshot
    parts = [f"paused after step {now.step}" if now.step else "paused before its first step"]
    if now.checkpoint_step < now.step:
        parts.append(f"it will go on from {f'step {now.checkpoint_step}' if now.checkpoint_step else 'the start'}")
    return "; ".join([*parts, *([why] if why else [])])


def _explained(verdict: End, error: ErrorView, run: Run) -> End:
    ends = {worker_id: worker.handle.outcome() for worker_id, worker in run.workers.items()}
    deaths = {**run.deaths, **{worker_id: end.reason for worker_id, end in ends.items() if isinstance(end, Death)}}
    error = explained(error, deaths)
    return replace(verdict, reason=error.message, error=error)
