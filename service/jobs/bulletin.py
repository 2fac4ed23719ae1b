"""Wakes those who watch a job when something happened to it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gradwire.errors import Exhausted

MAX_WATCHERS = 64
"""Each holds a thread of the API."""


class Bulletin:
    """Who watches which job. A watcher reads the store itself; what it gets here is only that it is worth reading."""

    def __init__(self, max_watchers: int = MAX_WATCHERS) -> None:
        self._lock = threading.Lock()
        self._max_watchers = max_watchers
        self._watchers: dict[str, set[threading.Event]] = {}
        self._count = 0
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        """Whether the service stops."""
        return self._is_closed

    @contextmanager
    def watching(self, job_id: str) -> Iterator[threading.Event]:
        """An event that is set at every change of the job, and when the service stops.

        Raises `Exhausted` if too many watch already.
        """
        signal = threading.Event()
        with self._lock:
            if self._count >= self._max_watchers:
                raise Exhausted(
                    f"{self._max_watchers} watchers are connected, and the server takes no more; close one, or ask for "
                    "the job now and then"
                )
            self._count += 1
            self._watchers.setdefault(job_id, set()).add(signal)
            if self._is_closed:
                signal.set()
        try:
            yield signal
        finally:
            self._forget(job_id, signal)

    def _forget(self, job_id: str, signal: threading.Event) -> None:
        with self._lock:
            self._count -= 1
            others = self._watchers[job_id]
            others.discard(signal)
            if not others:
                del self._watchers[job_id]

    def publish(self, job_id: str) -> None:
        """Says that the store has news of the job."""
        with self._lock:
            for signal in self._watchers.get(job_id, ()):
                signal.set()

    def close(self) -> None:
        """Wakes everybody for the last time."""
        with self._lock:
            self._is_closed = True
            for signals in self._watchers.values():
                for signal in signals:
                    signal.set()
