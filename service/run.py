"""A live job in the supervisor's memory, and one start of its trainer with its workers."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradwire.assignment import Assignment
from gradwire.progress import Outcome
from service.admission import Demand, Grant, demand_of
from service.engine import Death, TrainerHandle, WorkerHandle
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.recovery import Losses
from service.silence import Silence

WAITING = frozenset({JobState.QUEUED, JobState.RECOVERING})


@dataclass(slots=True)
class PlacedWorker:
    """A worker and where it takes its share; times are of the supervisor's clock."""

    handle: WorkerHandle
    node: str
    ended_at: float | None = None
    """When its end was first seen."""
    dismissed_at: float | None = None
    """When it was told to go, since the job shall have fewer workers."""
    is_killed: bool = False


@dataclass(slots=True, kw_only=True)
class Run:
    """One start of a job's trainer. The supervisor's thread alone reads and writes it."""

    assignment: Assignment
    trainer: TrainerHandle
    grant: Grant
    workers: dict[str, PlacedWorker] = field(default_factory=dict)
    deaths: dict[str, str] = field(default_factory=dict)
    """Of the run's workers, how each died."""
    written_at: float = 0.0
    """When its progress was last stored."""
    has_news: bool = False
    """Whether the snapshot has changed since."""
    stopping_since: float | None = None
    """When the trainer was asked to stop, because the job is cancelled or paused."""
    silence: Silence = field(default_factory=Silence)
    phase: str = ""
    """What the trainer was doing when it answered last."""
    told_phase: str = ""
    """The last one that people were told of, before the first step."""
    is_hung: bool = False
    """Whether the trainer was given up since it did not answer."""
    end: Outcome | Death | None = None
    ended_at: float = 0.0
    answers_after_end: int = 0
    """Polls that were answered since the end was seen."""

    @property
    def leaving(self) -> list[str]:
        """The workers that were told to go and are still there."""
        return [worker_id for worker_id, worker in self.workers.items() if worker.dismissed_at is not None]

    def present(self, node: str) -> int:
        """How many of the workers are on a node."""
        return sum(worker.node == node for worker in self.workers.values())


@dataclass(slots=True)
class LiveJob:
    """A job that has not ended; without a run it waits, or is paused. The supervisor's thread alone touches it."""

    record: JobRecord
    demand: Demand
    losses: Losses
    run: Run | None = None
    keeps_spares: bool = True
    """False while somebody waits who could start with the share of the spares."""
    explained_at: float = -1e9
    """When people were last told why it waits."""
    held_until: float = -1e9
    """Before then it is not started: the storage has no room for what a start has to write."""

    @property
    def is_waiting(self) -> bool:
        """Whether it could start at once if there were workers for it."""
        return self.run is None and self.record.state in WAITING


def live_job(record: JobRecord) -> LiveJob:
    """A job as it comes from the store."""
    losses = Losses(high_step=record.snapshot.step)
    return LiveJob(record=record, demand=demand_of(record), losses=losses)
