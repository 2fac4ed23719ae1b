"""What is known of a job while it is watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb

MIN_RATE_STEPS = 3
"""Steps to have seen before the time that is left is guessed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The sum of the events so far; `after` gives the next one."""

    name: str = ""
    heads: tuple[str, ...] = ()
    state: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    eval_metrics: Mapping[str, float] = field(default_factory=dict)
    examples_per_second: float = 0.0
    workers: tuple[tuple[str, str], ...] = ()
    """Id and phase of those that are alive."""
    first_step: int = 0
    first_step_s: float = 0.0
    """The first step that was seen, and when, in seconds since the epoch."""
    time_s: float = 0.0

    @property
    def seconds_left(self) -> float | None:
        """A guess from the steps seen so far; None while there is nothing to guess from."""
        done, passed = self.step - self.first_step, self.time_s - self.first_step_s
        if not self.first_step_s or done < MIN_RATE_STEPS or passed <= 0 or self.step >= self.total_steps:
            return None
        return (self.total_steps - self.step) * passed / done


def after(status: Status, event: pb.JobEvent) -> Status:
    """The status when an event has happened."""
    status = replace(
        status,
        time_s=event.time.seconds + event.time.nanos / 1e9,
        step=max(status.step, event.step),
        total_steps=event.total_steps or status.total_steps,
        epoch=max(status.epoch, event.epoch),  # an evaluation may be of an epoch that is over
    )
    if event.workers:
        alive = tuple((worker.id, worker.phase) for worker in event.workers if worker.state != "DEAD")
        status = replace(status, workers=alive)
    if event.kind == "state":
        return replace(status, state=state_word(event.state))
    if event.kind == "evaluation":
        return replace(status, eval_metrics=dict(event.metrics))
    if event.kind != "progress":
        return status
    if not status.first_step_s:
        status = replace(status, first_step=event.step, first_step_s=status.time_s)
    rate = event.examples_per_second or status.examples_per_second
    return replace(status, metrics=dict(event.metrics), examples_per_second=rate)
