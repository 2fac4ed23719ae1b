"""Counts what the trainer does, at the cost of a microsecond a step."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from gradwire.telemetry import BUCKETS_S, PHASES, STEP_PHASES, Durations, Route, Telemetry

PLAIN = tuple(field.name for field in fields(Telemetry) if field.name not in ("phases", "exchanged_bytes"))
"""What a meter has under the name that it is told by."""


class Histogram:
    """Durations by bucket."""

    __slots__ = ("counts", "sum_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.sum_s += seconds


@dataclass(slots=True)
class Meter:
    """Written by the trainer's loop alone; `telemetry` may be called by any thread, and locks nothing.

    What is read between two writes of one step is off by that step, and right in the next reading.
    """

    step: int = 0
    steps: int = 0
    examples: int = 0
    gradient_norm: float = math.nan
    learning_rate: float = math.nan
    nonfinite: int = 0
    start_traces: int = 0
    step_traces: int = 0
    worker_deaths: int = 0
    refused: int = 0
    stragglers: int = 0
    checkpoints: int = 0
    checkpoint_failures: int = 0
    checkpoint_bytes: int = 0
    checkpoint_s: float = 0.0
    checkpoint_at_s: float = 0.0
    _phases: dict[str, Histogram] = field(default_factory=lambda: {phase: Histogram() for phase in PHASES})
    _exchanged: dict[Route, int] = field(default_factory=dict)

    def committed(self, step: int, examples: int, phase_s: Iterable[float]) -> None:
        """A step is committed, the `step`-th of the job; `phase_s` are the seconds of `STEP_PHASES`."""
        self.step = step
        self.steps += 1
        self.examples += examples
        for phase, seconds in zip(STEP_PHASES, phase_s, strict=True):
            self._phases[phase].add(seconds)

    def saved(self, seconds: float) -> None:
        """The loop stood still for a checkpoint's copy."""
        self._phases["checkpoint"].add(seconds)

    def exchanged(self, transport: str, direction: str, size_bytes: int) -> None:
        """Gradients or weights have been handed over."""
        route = (transport, direction)
        self._exchanged[route] = self._exchanged.get(route, 0) + size_bytes

    def telemetry(self) -> Telemetry:
        """All of it, as it is now."""
        phases = {
            phase: Durations(counts=tuple(histogram.counts), sum_s=histogram.sum_s)
            for phase, histogram in self._phases.items()
        }
        values = {name: getattr(self, name) for name in PLAIN}
        return Telemetry(phases=phases, exchanged_bytes=self._exchanged.copy(), **values)
