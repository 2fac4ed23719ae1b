"""What the trainer tells the coordinator: events with gapless cursors, and the present state."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import structlog

from gradwire.progress import Event, EventKind, Progress, Snapshot, WorkerView
from service.training.meter import Meter

log = structlog.get_logger()

MAX_EVENTS = 10_000
"""Kept for a coordinator that is away; then the oldest are dropped."""


class Reporter:
    """Written by the trainer's loop, read by the actor's other threads; `meter` goes along with what it tells."""

    def __init__(self) -> None:
        self.meter = Meter()
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._cursor = 0
        self._snapshot = Snapshot()

    def emit(self, kind: EventKind, message: str, **values: Any) -> None:
        """Adds an event, and but for progress a line of the log; what is not given is as in the snapshot."""
        with self._lock:
            self._cursor += 1
            now = self._snapshot
            event = Event(
                cursor=self._cursor,
                time_s=time.time(),
                kind=kind,
                message=message,
                total_steps=now.total_steps,
                workers=now.workers,
                **({"step": now.step, "epoch": now.epoch} | values),
            )
            self._events.append(event)
        if kind != "progress":
            log.info("reported", step=event.step, kind=kind, what=message)

    def update(self, **values: Any) -> None:
        """Changes fields of the snapshot, all at once."""
        with self._lock:
            self._snapshot = replace(self._snapshot, **values)

    @property
    def workers(self) -> tuple[WorkerView, ...]:
        """The workers that were reported last."""
        return self._snapshot.workers

    @property
    def step(self) -> int:
        """The last committed step that was reported."""
        return self._snapshot.step

    def progress(self, since: int) -> Progress:
        """The events after a cursor, and the snapshot."""
        with self._lock:
            events = tuple(event for event in self._events if event.cursor > since)
            return Progress(events=events, snapshot=self._snapshot, telemetry=self.meter.telemetry())
