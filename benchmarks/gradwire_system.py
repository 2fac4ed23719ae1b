"""Gradwire as a system: jobs through the whole service, each with two workers of one thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from benchmarks import meters
from benchmarks.models import Model
from benchmarks.results import LAZY_SYSTEM
from benchmarks.service import Service, Watched, time_s
from benchmarks.system import Feed, Pace, SystemFailed, Window
from gradwire.telemetry import STEP_PHASES


@dataclass(frozen=True, slots=True)
class Mark:
    """A committed step, when it was committed, and what the loopback device had carried when we heard of it."""

    step: int
    time_s: float
    carried: int
    phases_ms: Mapping[str, float] = field(default_factory=dict)
    """Of all steps so far together."""


@dataclass(slots=True, kw_only=True)
class Marks:
    """Finds in a job's progress where the window begins and ends: when it is warm, and when it is long enough."""

    warmup_s: float
    window_s: float
    warmup_steps: int
    min_steps: int
    first: Mark | None = None
    begin: Mark | None = None
    end: Mark | None = None
    losses: dict[int, float] = field(default_factory=dict)

    def add(self, mark: Mark, loss: float | None) -> None:
        if loss is not None:
            self.losses[mark.step] = loss
        if self.first is None:
            self.first = mark
        elif self.begin is None:
            is_warm = mark.step - self.first.step >= self.warmup_steps
            if is_warm and mark.time_s - self.first.time_s >= self.warmup_s:
                self.begin = mark
        elif mark.step - self.begin.step >= self.min_steps and mark.time_s - self.begin.time_s >= self.window_s:
            self.end = self.end or mark


class GradwireSystem:
    """A job for each window: it is cancelled when enough steps are committed. Nothing runs between two of them."""

    def __init__(self, service: Service, transport: str, pace: Pace, *, is_lazy: bool = False) -> None:
        self.name = LAZY_SYSTEM if is_lazy else "gradwire"
        self.transport = transport
        self._training = {"training": {"sparse": "lazy"}} if is_lazy else {}
        self._service = service
        self._pace = pace

    @contextmanager
    def opened(self, model: Model) -> Iterator[None]:
        self._model = model
        yield

    def measure(self, feed: Feed) -> Window:
        spec = self._service.spec(self._model, feed, self.transport, **self._training)
        job = Watched(self._service, spec, self._pace.timeout_s + self._pace.warmup_s + self._pace.window_s)
        marks = Marks(
            warmup_s=self._pace.warmup_s,
            window_s=self._pace.window_s,
            warmup_steps=self._model.warmup_steps,
            min_steps=self._model.min_steps,
        )
        memory: Mapping[str, float] = {}
        for event in job.events():
            phases_ms = {phase: mean_ms * event.step for phase, mean_ms in event.phase_ms.items()}
            mark = Mark(event.step, time_s(event), meters.loopback_bytes(self._service.process.pid), phases_ms)
            marks.add(mark, event.metrics.get("loss"))
            if marks.end is not None:
                memory = meters.memory(self._service.roles(job.workers))
                job.cancel()
        self._check_transport(job)
        return window_of(marks, memory)

    def _check_transport(self, job: Watched) -> None:
        if job.transports and job.transports != {self.transport}:
            used = ", ".join(sorted(job.transports))
            raise SystemFailed(f"gradwire: the workers used {used}, not {self.transport}")


def window_of(marks: Marks, memory: Mapping[str, float]) -> Window:
    assert marks.begin is not None and marks.end is not None  # the job was cancelled when both were there
    begin, end = marks.begin, marks.end
    steps = end.step - begin.step
    return Window(
        step_ms=(end.time_s - begin.time_s) / steps * 1e3,
        steps=steps,
        losses=marks.losses,
        network_bytes=(end.carried - begin.carried) / steps,
        phases_ms={
            phase: (end.phases_ms[phase] - begin.phases_ms.get(phase, 0.0)) / steps
            for phase in STEP_PHASES
            if phase in end.phases_ms
        },
        memory_mb=memory,
    )
