"""What a trainer counts and measures while it works, for the metrics: read whole, never in a step's way."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

BUCKETS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0, 60.0)
"""Upper bounds of the durations that are counted together; a twelfth count is of those beyond."""

STEP_PHASES = ("data", "compute", "exchange", "sum", "apply")
"""What a step's time is made of."""

PHASES = (*STEP_PHASES, "checkpoint")

TRANSPORTS = ("shared_memory", "flight")
DIRECTIONS = ("gradients", "weights")

COUNTS = (
    "steps", "examples", "nonfinite", "start_traces", "step_traces", "worker_deaths", "refused", "stragglers",
    "checkpoints", "checkpoint_failures",
)  # fmt: skip
"""Fields of `Telemetry` that go on over the starts of a trainer."""

Route = tuple[str, str]
"""(transport, direction)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How many durations fell into each of `BUCKETS_S`, and beyond; and their sum."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS_S) + 1)
    sum_s: float = 0.0

    def plus(self, other: Durations) -> Durations:
        """Both together."""
        counts = tuple(mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True))
        return Durations(counts=counts, sum_s=self.sum_s + other.sum_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """Of one start of a trainer since its begin, or of several together."""

    step: int = 0
    """The last committed step."""
    steps: int = 0
    """Steps that were computed."""
    examples: int = 0
    phases: Mapping[str, Durations] = field(default_factory=dict)
    gradient_norm: float = math.nan
    learning_rate: float = math.nan
    nonfinite: int = 0
    """Contributions with a number that was not finite."""
    start_traces: int = 0
    """Traces that workers made before they were ready."""
    step_traces: int = 0
    """Traces that workers made after that: each holds a step up."""
    worker_deaths: int = 0
    refused: int = 0
    """Contributions that were not awaited any more."""
    stragglers: int = 0
    """How often a worker became slow."""
    exchanged_bytes: Mapping[Route, int] = field(default_factory=dict)
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_bytes: int = 0
    """Of the last checkpoint."""
    checkpoint_s: float = 0.0
    """Likewise, how long writing took."""
    checkpoint_at_s: float = 0.0
    """Likewise, when it was written, in seconds since the epoch; 0 before the first."""

    @property
    def step_s(self) -> float:
        """Seconds that all steps took."""
        return sum(self.phases[phase].sum_s for phase in STEP_PHASES if phase in self.phases)

    def after(self, past: Telemetry) -> Telemetry:
        """Counts go on from those of the starts before; of the rest the newest counts that is known."""
        nothing = Durations()
        last = self if self.checkpoint_at_s > 0 else past
        added = {name: getattr(past, name) + getattr(self, name) for name in COUNTS}
        return replace(
            self,
            phases={
                name: past.phases.get(name, nothing).plus(self.phases.get(name, nothing))
                for name in {**past.phases, **self.phases}
            },
            exchanged_bytes={
                route: past.exchanged_bytes.get(route, 0) + self.exchanged_bytes.get(route, 0)
                for route in {**past.exchanged_bytes, **self.exchanged_bytes}
            },
            gradient_norm=past.gradient_norm if math.isnan(self.gradient_norm) else self.gradient_norm,
            learning_rate=past.learning_rate if math.isnan(self.learning_rate) else self.learning_rate,
            checkpoint_bytes=last.checkpoint_bytes,
            checkpoint_s=last.checkpoint_s,
            checkpoint_at_s=last.checkpoint_at_s,
            **added,
        )
