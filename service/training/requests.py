"""What is asked of a trainer while its loop runs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from operator import methodcaller

from service.training.rounds import Rounds


class Cancelled(Exception):
    """Somebody cancelled the job."""


class Requests:
    """Any thread may ask; the trainer's loop complies between two steps, and while it waits for workers."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._changes: queue.SimpleQueue[Callable[[Rounds], None]] = queue.SimpleQueue()

    def cancel(self) -> None:
        """The job shall end."""
        self._cancelled.set()

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        """The job shall do without these workers: each finishes its present order, and ends."""
        for worker_id in worker_ids:
            self._changes.put(methodcaller("dismiss", worker_id))

    def scale(self, workers: int) -> None:
        """So many workers get orders from now on; the others are spares."""
        self._changes.put(methodcaller("resize", workers))

    def comply(self, rounds: Rounds) -> None:
        """Does what was asked for since; raises `Cancelled`."""
        if self._cancelled.is_set():
            raise Cancelled
        while not self._changes.empty():
            self._changes.get()(rounds)

    def wait(self, seconds: float) -> None:
        """Passes the time; raises `Cancelled` as soon as the job is."""
        if self._cancelled.wait(seconds):
            raise Cancelled
