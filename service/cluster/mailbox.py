"""One thread that does everything with Ray, one thing after the other."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import structlog

log = structlog.get_logger()


class Mailbox:
    """Runs what is posted, in order, and `tick` in between; Ray's slow calls hold up this thread and nobody else.

    `tick` returns the seconds until it wants to run again. Until `close` nothing ends the thread: an error is logged.
    """

    def __init__(self, name: str, tick: Callable[[], float]) -> None:
        self._tick = tick
        self._posted: queue.SimpleQueue[tuple[Callable[..., object], tuple[object, ...]]] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """Has `function(*arguments)` run soon; from any thread, Ray's own among them."""
        self._posted.put((function, arguments))

    def call(self, function: Callable[[], object], timeout_s: float) -> None:
        """Runs `function` on the thread and raises what it raises; TimeoutError if that takes longer."""
        done = threading.Event()
        raised: list[BaseException] = []

        def run() -> None:
            try:
                function()
            except BaseException as error:
                raised.append(error)
            finally:
                done.set()

        self.post(run)
        if not done.wait(timeout_s):
            raise TimeoutError(f"{self._thread.name} is not done after {timeout_s:.0f} s")
        if raised:
            raise raised[0]

    def close(self, last: Callable[[], object], timeout_s: float) -> bool:
        """Ends the thread with `last`, after what was posted before it; what comes later is dropped.

        Returns whether the thread has ended in time.
        """
        self.post(self._finish, last)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _finish(self, last: Callable[[], object]) -> None:
        self._closing = True
        last()

    def _work(self) -> None:
        wait_s = 0.0
        while not self._closing:
            try:
                function, arguments = self._posted.get(timeout=wait_s) if wait_s > 0 else self._posted.get_nowait()
            except queue.Empty:
                wait_s = self._guarded(self._tick) or 1.0
            else:
                self._guarded(function, *arguments)
                wait_s = 0.0

    def _guarded(self, function: Callable[..., Any], *arguments: object) -> Any:
        try:
            return function(*arguments)
        except Exception:
            log.exception("mailbox_failed", thread=self._thread.name, what=getattr(function, "__qualname__", ""))
            return None
