"""A launched process, as the supervisor holds it: reads what is known, posts what is to be done, waits for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from gradwire.progress import Outcome, Progress
from service.cluster.launch import Launch
from service.cluster.launcher import Launcher
from service.cluster.mailbox import Mailbox
from service.engine import KILLED, Death


class RayWorker:
    """A worker's process."""

    def __init__(self, launch: Launch, launcher: Launcher, mailbox: Mailbox) -> None:
        self._launch = launch
        self._launcher = launcher
        self._mailbox = mailbox

    @property
    def id(self) -> str:
        """The worker's id."""
        return self._launch.assignment.worker_id

    def outcome(self) -> Outcome | Death | None:
        """How the run ended; None while it goes on."""
        return self._launch.ending

    def kill(self, reason: str = KILLED, *, is_hung: bool = False) -> None:
        """Ends the process and gives its share of the node back; one that hangs is gone before its end is told."""
        self._mailbox.post(self._launcher.kill, self._launch, reason, is_hung)


class RayTrainer(RayWorker):
    """A trainer's process."""

    _answer: Future[Any] | None = None

    def exchange_address(self) -> str | None:
        """Where the trainer listens for its workers; None until it does."""
        return self._launch.address

    def is_missed(self) -> bool:
        """Whether Ray does not reach the process for now."""
        return self._launch.contact.is_missed

    def poll(self, since: int) -> Progress | None:
        """Starts asking for the events after a cursor, or collects the answer; None while there is none.

        An answer that got lost with its process is None too; `outcome` tells why.
        """
        if self._answer is None:
            if self._launch.is_started:
                self._answer = Future()
                self._mailbox.post(self._launcher.ask, self._launch, self._answer, "progress", since)
            return None
        if not self._answer.done():
            return None
        answer, self._answer = self._answer, None
        return None if answer.exception() else answer.result()

    def cancel(self) -> None:
        """Asks the trainer to stop after its present step."""
        self._mailbox.post(self._launcher.cancel, self._launch)

    def scale(self, workers: int) -> None:
        """Tells the trainer to how many of its workers it shall give orders; the others are spares."""
        self._mailbox.post(self._launcher.ask, self._launch, Future(), "scale", workers)

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        """Asks the trainer to do without these workers: each finishes its present order, and ends."""
        self._mailbox.post(self._launcher.ask, self._launch, Future(), "dismiss", tuple(worker_ids))
