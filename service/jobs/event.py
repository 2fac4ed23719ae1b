"""One thing that happened to a job, as it is stored and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gradwire.progress import ErrorView, Event, EventKind, WorkerView
from service.jobs.states import JobState


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """An event of any generation of the job's trainer, or of the coordinator itself."""

    cursor: int = 0
    """Counts from 1 without gaps over the job's life; the store gives it."""
    time_s: float
    """Seconds since the epoch."""
    kind: EventKind
    message: str
    state: JobState
    """The job's state after the event."""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    examples_per_second: float = 0.0
    phase_ms: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[WorkerView, ...] = ()
    error: ErrorView | None = None


def from_trainer(event: Event, state: JobState) -> JobEvent:
    """A trainer's event, without the trainer's own cursor."""
    return JobEvent(
        time_s=event.time_s,
        kind=event.kind,
        message=event.message,
        state=state,
        step=event.step,
        total_steps=event.total_steps,
        epoch=event.epoch,
        metrics=event.metrics,
        examples_per_second=event.examples_per_second,
        phase_ms=event.phase_ms,
        workers=event.workers,
    )
