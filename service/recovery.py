"""What to do when a process of a job has ended: decided without looking at anything but the facts given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from gradwire.progress import ErrorView, Outcome
from service.engine import Death
from service.jobs.states import JobState

MAX_TRAINER_DEATHS = 3
"""Without a newly committed step; one more fails the job."""
MAX_WORKER_DEATHS = 10
"""Likewise, over all workers of the job."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Losses:
    """Deaths since the job last got further than ever before."""

    high_step: int = 0
    trainers: int = 0
    workers: int = 0

    def committed(self, step: int) -> Losses:
        """After a snapshot at this step: a new high forgets all deaths."""
        return Losses(high_step=step) if step > self.high_step else self

    def trainer_died(self) -> Losses:
        """One trainer more."""
        return Losses(high_step=self.high_step, trainers=self.trainers + 1, workers=self.workers)

    def worker_died(self) -> Losses:
        """One worker more."""
        return Losses(high_step=self.high_step, trainers=self.trainers, workers=self.workers + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The job is over."""

    state: JobState
    reason: str
    error: ErrorView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """The job goes on with a new trainer, from its last checkpoint."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The job is paused; what was not yet in a checkpoint is computed again when it goes on."""

    why: str = ""
    """Why its trainer has ended otherwise than asked to."""


def after_trainer(
    end: Outcome | Death, *, losses: Losses, is_cancelling: bool = False, is_pausing: bool = False
) -> End | Restart | Hold:
    """What follows from a trainer's end; `losses` count this death already, if it is one."""
    if isinstance(end, Outcome):
        # Who stops a trainer without cancelling the job has paused it, and may have resumed it since.
        return Hold() if end.state == "CANCELLED" and not is_cancelling else _after_outcome(end)
    if is_cancelling:
        return End(state=JobState.CANCELLED, reason="cancelled")
    if is_pausing:
        return Hold(why=f"the trainer died ({end.reason})")
    if losses.trainers <= MAX_TRAINER_DEATHS:
        return Restart(reason=f"the trainer died ({end.reason}); another goes on from the last checkpoint")
    message = (
        f"{losses.trainers} trainers died before step {losses.high_step + 1} was committed, the last of {end.reason}; "
        "look for too little memory, or for a layer that crashes TensorFlow"
    )
    return failure(ErrorView(code="trainer_died", message=message, step=losses.high_step))


def after_worker(losses: Losses, worker_id: str, reason: str) -> End | None:
    """Whether a worker's death, counted in `losses`, ends the job."""
    if losses.workers <= MAX_WORKER_DEATHS:
        return None
    message = (
        f"{losses.workers} workers died before step {losses.high_step + 1} was committed, the last ({worker_id}) of "
        f"{reason}; look for too little memory, or for a layer that crashes TensorFlow"
    )
    return failure(ErrorView(code="workers_died", message=message, step=losses.high_step, worker=worker_id))


def failure(error: ErrorView) -> End:
    """A job that fails with an error."""
    return End(state=JobState.FAILED, reason=error.message, error=error)


def explained(error: ErrorView, deaths: Mapping[str, str]) -> ErrorView:
    """Adds to a failure how the workers died that its details name: a trainer sees only that they hang up."""
    known = {worker_id: reason for worker_id, reason in deaths.items() if worker_id in error.details}
    if error.code != "shard_failed" or not known:
        return error
    last = list(known.values())[-1]
    lines = [f"{worker_id}: {reason}" for worker_id, reason in known.items()]
    return replace(error, message=f"{error.message} (the last {last})", details="\n".join([error.details, *lines]))


def _after_outcome(outcome: Outcome) -> End:
    match outcome.state:
        case "SUCCEEDED":
            return End(state=JobState.SUCCEEDED, reason="finished")
        case "CANCELLED":
            return End(state=JobState.CANCELLED, reason="cancelled")
        case "FAILED":
            unknown = ErrorView(code="internal", message="the trainer failed and did not say why")
            return failure(outcome.error or unknown)
