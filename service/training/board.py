"""What TensorBoard shows of a job: curves, histograms, hyper-parameters, the graph."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from threading import BoundedSemaphore, Thread
from typing import Any

import structlog
from tensorflow.core.framework import summary_pb2

from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.event_file import EventFile
from service.training.hyperparameters import session_start

TRAIN, VALIDATION = "train", "validation"
MAX_WAITING = 256
"""Summaries that wait to be written; what comes after them is left out."""
MAX_LARGE = 2
"""Likewise, of those that have yet to be made from samples."""
PATIENCE_S = 1.0
"""How long the loop waits for room among those."""
RETRY_S = 30.0
"""After a failure; then with new files, since a file that ends in half an event is read no further."""
CLOSE_S = 30.0

log = structlog.get_logger()

Make = Callable[[], summary_pb2.Summary]


class Board:
    """The trainer's loop adds; a thread of the board's own makes and writes. What cannot be written costs no training.

    Two runs, train and validation, so that TensorBoard draws their curves into one picture.
    """

    def __init__(
        self, storage: Storage, job_id: str, generation: int, spec: JobSpec, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._storage = storage
        self._folder = f"jobs/{job_id}/tensorboard"
        self._job_id = job_id
        self._generation = generation
        self._spec = spec
        self._clock = clock
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(MAX_WAITING)
        self._room = BoundedSemaphore(MAX_LARGE)
        self._thread = Thread(target=self._serve, name="tensorboard", daemon=True)
        self._files: dict[str, EventFile] = {}
        self._first_step = 0
        self._failures = 0
        self._retry_at_s = 0.0
        self.last_made_s = 0.0
        """How long the last summary took that had to be made from samples."""

    def begin(self, step: int) -> None:
        """The job begins, or goes on after a step."""
        self._first_step = step
        self._thread.start()
        self._put(lambda: self._write(step, TRAIN, session_start(self._spec)))

    def curves(self, step: int, run: str, values: Mapping[str, float]) -> None:
        """Points of curves."""
        points = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        if points:
            summary = summary_pb2.Summary(value=points)
            self._put(lambda: self._write(step, run, summary))

    def add(self, step: int, run: str, make: Make) -> None:
        """A summary that the board's thread makes; where the thread cannot keep up, it is left out after a while."""
        if self._room.acquire(timeout=PATIENCE_S) and not self._put(lambda: self._made(step, run, make)):
            self._room.release()

    def close(self, graph_def: bytes) -> None:
        """Adds the graph, if there is one, and ends; whoever hangs in writing is not waited for without end."""
        if not self._thread.is_alive():
            return
        self._put(lambda: self._end(graph_def))
        self._put(None)
        self._thread.join(CLOSE_S)

    def _put(self, work: Callable[[], None] | None) -> bool:
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            return False
        return True

    def _serve(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                work()
            except Exception as error:  # TensorFlow's own kinds of error among them
                self._files = {}
                self._failures += 1
                self._retry_at_s = self._clock() + RETRY_S
                log.warning("tensorboard_not_written", job=self._job_id, why=f"{type(error).__name__}: {error}")

    def _made(self, step: int, run: str, make: Make) -> None:
        started = time.perf_counter()
        try:
            self._write(step, run, make())
        finally:
            self._room.release()
        self.last_made_s = time.perf_counter() - started

    def _write(self, step: int, run: str, summary: Any) -> None:
        if self._clock() < self._retry_at_s:
            return
        if run not in self._files:
            start = f"g{self._generation}" + f".{self._failures}" * bool(self._failures)
            first_step = step if self._failures else self._first_step
            self._files[run] = EventFile(self._storage, f"{self._folder}/{run}", start, first_step)
        self._files[run].add(step, summary)

    def _end(self, graph_def: bytes) -> None:
        if graph_def and TRAIN in self._files:
            self._files[TRAIN].add_graph(graph_def)
        for file in self._files.values():
            file.close()
