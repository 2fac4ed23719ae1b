"""An engine that is made only when it is started, since importing Ray alone takes seconds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gradwire.assignment import Assignment
from service.engine import Engine, FoundRun, NodeResources, TrainerHandle, WorkerHandle


class LateEngine:
    """Stands for the engine that `make` makes. Until it is there, it has no nodes; launching needs `start` before."""

    def __init__(self, make: Callable[[], Engine]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._is_stopped = False

    @property
    def is_made(self) -> bool:
        """Whether it was ever started."""
        return self._engine is not None

    def start(self, *, warm: int, refill: bool) -> None:
        """See `Engine`; does nothing after `stop`."""
        with self._lock:
            if not self._is_stopped:
                self._engine = self._make()
                self._engine.start(warm=warm, refill=refill)

    def stop(self) -> None:
        """Waits for a start that is under way: an engine that is half up leaves processes behind."""
        with self._lock:
            self._is_stopped = True
            if self._engine is not None:
                self._engine.stop()

    def found(self) -> tuple[FoundRun, ...]:
        """See `Engine`."""
        return self._started().found()

    def resources(self) -> tuple[NodeResources, ...]:
        """See `Engine`."""
        return self._engine.resources() if self._engine is not None else ()

    def launch_trainer(self, assignment: Assignment) -> TrainerHandle:
        """See `Engine`."""
        return self._started().launch_trainer(assignment)

    def launch_worker(self, assignment: Assignment, node: str | None, cpus: float, gpus: float) -> WorkerHandle:
        """See `Engine`."""
        return self._started().launch_worker(assignment, node, cpus, gpus)

    def stages(self) -> str:
        """See `Engine`."""
        return self._engine.stages() if self._engine is not None else "loading Ray"

    def fault(self) -> str:
        """See `Engine`."""
        return self._engine.fault() if self._engine is not None else ""

    def _started(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("the engine was asked for a process before it was started")
        return self._engine
