"""What a trainer reports of its job, and what the coordinator passes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradwire.telemetry import Telemetry

EventKind = Literal["state", "progress", "evaluation", "checkpoint", "worker", "export", "warning"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorView:
    """Why a job failed: a word for programs, one line for people, and more for those who look into it."""

    code: str
    message: str
    details: str = ""
    step: int = 0
    worker: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker, as the trainer sees it."""

    id: str
    pid: int
    node: str
    state: Literal["STARTING", "READY", "SLOW", "DEAD", "ENDED"]
    """SLOW: it works, but takes far longer than the others; DEAD: lost before its time; ENDED: its job has."""
    phase: str
    """data, trace, compute, exchange or idle; spare if it is ready to take over when another dies."""
    transport: str


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far: after which step, and the value of the metric that decides it."""

    step: int
    metric: str
    value: float
    exports: tuple[str, ...] = ()
    """The formats that its weights were exported as, at the job's end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened; the trainer's cursor counts from 1 without gaps within a generation."""

    cursor: int
    time_s: float
    """Seconds since the epoch."""
    kind: EventKind
    message: str
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    examples_per_second: float = 0.0
    phase_ms: Mapping[str, float] = field(default_factory=dict)
    workers: tuple[WorkerView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The job's present state; all values are those of the last committed step."""

    is_running: bool = False
    """Whether the first step is under way; before that the job is starting."""
    phase: str = ""
    """What the trainer is doing, in a word or two for people, such as training."""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    eval_metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    workers: tuple[WorkerView, ...] = ()
    weights_digest: str = ""
    weights_digest_step: int = 0
    examples_per_second: float = 0.0
    phase_ms: Mapping[str, float] = field(default_factory=dict)
    checkpoint_step: int = 0
    exports: tuple[str, ...] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The answer to one poll: the events after the asked cursor, the present state, and what was counted."""

    events: tuple[Event, ...]
    snapshot: Snapshot
    telemetry: Telemetry = field(default_factory=Telemetry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a trainer's or worker's run ended."""

    state: Literal["SUCCEEDED", "FAILED", "CANCELLED"]
    error: ErrorView | None = None
