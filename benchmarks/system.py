"""What the rounds know of a system: it opens a model, measures windows of its training, and closes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from benchmarks.models import Model

Feed = Literal["shuffled", "constant"]
FEEDS: tuple[Feed, ...] = ("shuffled", "constant")

Trajectory = Mapping[int, float]
"""Steps done -> the mean loss of the epoch so far; a constant batch is an epoch of one step."""


class SystemFailed(Exception):
    """A system did not do what it was asked; says why in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long a window is."""

    warmup_s: float
    window_s: float
    timeout_s: float = 180.0
    """For one start, one command or one job, beyond what a window takes; nothing may hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What a system did in one round on one kind of batches."""

    step_ms: float
    steps: int
    losses: Trajectory
    network_bytes: float
    """That crossed the loopback device in a step."""
    phases_ms: Mapping[str, float] = field(default_factory=dict)
    """What a step was made of, where the system tells."""
    memory_mb: Mapping[str, float] = field(default_factory=dict)
    """Role of a process -> proportional set size."""
    starts_s: Mapping[str, float] = field(default_factory=dict)
    """Metric -> seconds that the start of the system's processes took."""


class System(Protocol):
    """One column of the table."""

    name: str
    transport: str

    def opened(self, model: Model) -> AbstractContextManager[None]:
        """Starts what the model needs and ends it with the block. Raises `SystemFailed`."""

    def measure(self, feed: Feed) -> Window:
        """Trains from the first weights, and measures when it is warm. Raises `SystemFailed`."""


def epoch_means(losses: Sequence[float], epoch_steps: int) -> dict[int, float]:
    """The trajectory of a list of batch losses from the first step on; all batches are equally large."""
    means, total = {}, 0.0
    for index, loss in enumerate(losses):
        within = index % epoch_steps
        total = loss if within == 0 else total + loss
        means[index + 1] = total / (within + 1)
    return means


def steps_of_epoch(model: Model, feed: Feed) -> int:
    return model.epoch_steps if feed == "shuffled" else 1
