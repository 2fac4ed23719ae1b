"""Lets workers in: all at once, or, where one of them has to measure something for all, that one first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from workers.exchange.messages import MEASURE, Welcome


@dataclass(slots=True)
class Reception:
    """Belongs to the crew. `send` gives a worker its welcome."""

    send: Callable[[str, Welcome], None]
    _welcome: Welcome | None = None
    _waiting: list[str] = field(default_factory=list)
    _measuring: str = ""

    def open(self, welcome: Welcome) -> None:
        """From now on workers are let in, those who wait first."""
        self._welcome = welcome
        self._admit()

    def arrive(self, worker_id: str) -> None:
        """A worker has said hello."""
        self._waiting.append(worker_id)
        self._admit()

    def leave(self, worker_id: str) -> None:
        """A worker is gone; if it was measuring, the next one does."""
        self._waiting = [other for other in self._waiting if other != worker_id]
        if worker_id == self._measuring:
            self._measuring = ""
        self._admit()

    def settle(self, xla: str) -> None:
        """It is known whether programs are compiled by XLA; the others need not measure it."""
        if self._welcome is not None:
            self._welcome = replace(self._welcome, xla=xla)
        self._admit()

    def _admit(self) -> None:
        welcome = self._welcome
        while welcome is not None and self._waiting:
            if welcome.xla == MEASURE:
                if self._measuring:
                    return
                self._measuring = self._waiting[0]
            self.send(self._waiting.pop(0), welcome)
