"""Stops a process of the lab at an exact moment, from within, so that it can be struck there from outside."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults.schedule import Fault, Moment


def worker(faults: tuple[Fault, ...]) -> None:
    """Prepares a worker for its faults."""
    from workers.computer import NodeComputer

    stand_still, compute = StandStill(faults), NodeComputer.compute

    def watched(self: Any, step: int, *arguments: Any) -> Any:
        stand_still("before", step)
        times = compute(self, step, *arguments)
        stand_still("after", step)
        return times

    NodeComputer.compute = watched  # type: ignore[method-assign]


def trainer(faults: tuple[Fault, ...], journal: Path, temporary: Path) -> None:
    """Prepares a trainer: besides its faults, each committed step goes to a journal, with its time."""
    from service.training.checkpoint import CheckpointFolder
    from service.training.loop import Loop

    tempfile.tempdir = str(temporary)
    stand_still = StandStill(faults)
    commit, fence = Loop._commit, CheckpointFolder._fence
    file = journal.open("ab", buffering=0)

    def watched_commit(self: Loop) -> Any:
        stand_still("before", self.step)
        committed = commit(self)
        file.write(f"{self.step} {time.monotonic()}\n".encode())
        return committed

    def watched_fence(self: CheckpointFolder, version: Any) -> None:
        stand_still("after", version.step)
        fence(self, version)

    Loop._commit = watched_commit  # type: ignore[method-assign]
    CheckpointFolder._fence = watched_fence  # type: ignore[method-assign]


class StandStill:
    """Stops this process when a fault is due; whoever continues it has decided on the fault."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self._faults = list(faults)

    def __call__(self, moment: Moment, step: int) -> None:
        if self._faults and self._faults[0].moment == moment and step >= self._faults[0].step:
            self._faults.pop(0)
            os.kill(os.getpid(), signal.SIGSTOP)


def commits(journal: Path) -> list[tuple[int, float]]:
    """The steps that a trainer has committed, with the time (monotonic) of each."""
    if not journal.exists():
        return []
    lines = (line.split() for line in journal.read_text().splitlines())
    return [(int(step), float(at_s)) for step, at_s in lines]
