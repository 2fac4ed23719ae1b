"""What a peer's process is told, and how it answers; over a Unix socket, so that it ends with whoever asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any, Protocol

SUBMITTED_VARIABLE = "GRADWIRE_BENCH_SUBMITTED"
"""Of the environment: when the process was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to train, and where the models' configs are."""

    model: str
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """A process has built its model."""

    rank: int
    pid: int
    weights_digest: str
    submitted_at: float
    """When whoever started it was asked to; seconds since the epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Begin again, on batches of this kind."""

    feed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Train so many steps."""

    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How long they took, and the loss of each."""

    seconds: float
    losses: list[float]
    ended_at: float
    """Seconds since the epoch."""


class Loop(Protocol):
    """What a peer's process trains with."""

    weights_digest: str

    def reset(self, feed: str) -> None: ...

    def run(self, steps: int) -> list[Any]: ...


def serve(socket: Path, rank: int, make_loop: Callable[[Job], Loop], submitted_at: float | None = None) -> None:
    """Connects, is told the job, builds the loop, and does what it is told until the other end hangs up."""
    with Client(str(socket), "AF_UNIX") as connection:
        connection.send(rank)
        job = connection.recv()
        loop = make_loop(job)
        asked = float(os.environ[SUBMITTED_VARIABLE]) if submitted_at is None else submitted_at
        hello = Hello(rank=rank, pid=os.getpid(), weights_digest=loop.weights_digest, submitted_at=asked)
        connection.send(hello)
        while True:
            try:
                command = connection.recv()
            except EOFError:
                return
            if isinstance(command, Reset):
                loop.reset(command.feed)
                connection.send(None)
            else:
                connection.send(_timed(loop, command.steps))


def _timed(loop: Loop, steps: int) -> Ran:
    started = time.perf_counter()
    losses = loop.run(steps)
    losses[-1].numpy()
    seconds, ended_at = time.perf_counter() - started, time.time()
    return Ran(seconds=seconds, losses=[float(loss) for loss in losses], ended_at=ended_at)
