"""What the coordinator remembers of a job."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradwire.progress import ErrorView, Snapshot, WorkerView
from gradwire.spec.job import MAX_SHARDS, ResourceSpec
from service.jobs.states import ENDED, JobState, require_move

WITHOUT_WORKERS = frozenset({JobState.QUEUED, JobState.PAUSED, JobState.RECOVERING})
"""A job that comes into one of these has given its workers back, or has lost them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job at one moment. The specification itself, which may be large, lies beside it in the store."""

    id: str
    """Twelve random hexadecimal characters."""
    name: str
    request_id: str
    """What the client calls its submission; one request makes one job."""
    spec_digest: str
    resources: ResourceSpec
    """The part of the specification that the queue needs; `workers` changes when the job is scaled."""
    shards: int = MAX_SHARDS
    """Gradient shards of a batch: no more workers can be used."""
    created_at_s: float
    """Seconds since the epoch, as all times here."""
    sequence: int = 0
    """The job's place in the order of all submissions, from 1; the store gives it."""
    state: JobState = JobState.QUEUED
    state_reason: str = ""
    """Why the job is in its state, for people: what it waits for, what it recovers from."""
    started_at_s: float | None = None
    """When its first trainer was launched."""
    finished_at_s: float | None = None
    generation: int = 0
    """Launches of the job's trainer so far."""
    is_cancelling: bool = False
    """Whether somebody has cancelled it; it ends as soon as its trainer has stopped."""
    is_pausing: bool = False
    """Whether somebody has paused it; it is PAUSED as soon as its trainer has stopped."""
    error: ErrorView | None = None
    """Why it failed."""
    trainer_cursor: int = 0
    """The last event of the present trainer that was stored: a coordinator that finds it goes on from there."""
    next_worker: int = 0
    """Number of the next worker of the present trainer."""
    snapshot: Snapshot = field(default_factory=Snapshot)
    """What the trainer said last."""
    cursor: int = 0
    """The cursor of its last event; the store counts it."""
    progress_offered: int = 0
    """Progress events so far, with those that were thinned out; the store counts them."""

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def usable_workers(self) -> int:
        """How many of the workers that the job shall have can be used."""
        return min(self.resources.workers, self.shards)

    def moved(self, state: JobState, reason: str, now_s: float, error: ErrorView | None = None) -> JobRecord:
        """The record in another state. Raises `IllegalMove` if the table of states does not have the move."""
        require_move(self.id, self.state, state)
        return replace(
            self,
            state=state,
            state_reason=reason,
            error=error,
            started_at_s=now_s if state is JobState.STARTING and self.started_at_s is None else self.started_at_s,
            finished_at_s=now_s if state in ENDED else None,
            snapshot=replace(self.snapshot, workers=_workers_in(state, self.snapshot.workers)),
        )

    def observed(self, snapshot: Snapshot) -> JobRecord:
        """The record with a trainer's snapshot; what a new trainer does not know yet stays as the last one left it."""
        old = self.snapshot
        if not snapshot.is_running:
            snapshot = replace(
                old,
                is_running=False,
                workers=snapshot.workers,
                total_steps=snapshot.total_steps or old.total_steps,
                fingerprint=snapshot.fingerprint or old.fingerprint,
            )
        else:
            digest = snapshot if snapshot.weights_digest else old
            snapshot = replace(
                snapshot,
                metrics=snapshot.metrics or old.metrics,
                eval_metrics=snapshot.eval_metrics or old.eval_metrics,
                best=snapshot.best or old.best,
                weights_digest=digest.weights_digest,
                weights_digest_step=digest.weights_digest_step,
                phase_ms=snapshot.phase_ms or old.phase_ms,
                checkpoint_step=snapshot.checkpoint_step or old.checkpoint_step,
            )
        return self if snapshot == old else replace(self, snapshot=snapshot)


def _workers_in(state: JobState, workers: tuple[WorkerView, ...]) -> tuple[WorkerView, ...]:
    """The workers after a move: a job that has ended shows those it had, one without a trainer has none."""
    if state in WITHOUT_WORKERS:
        return ()
    if state not in ENDED:
        return workers
    return tuple(worker if worker.state == "DEAD" else replace(worker, state="ENDED", phase="") for worker in workers)
