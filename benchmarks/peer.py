"""A peer as a system: processes that train with TensorFlow and are told when."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import meters
from benchmarks.children import ROOT, Child, gate, python, receive, send
from benchmarks.models import Model
from benchmarks.order import SHARDS
from benchmarks.peers.command import SUBMITTED_VARIABLE, Hello, Job, Ran, Reset, Run
from benchmarks.system import Feed, Pace, Window, epoch_means, steps_of_epoch

PACKAGES = ROOT / ".venv" / "bench"
"""What Ray Train needs besides our own packages; only its processes see it."""
LEAVE_S = 10.0

ENVIRONMENT = {"TF_CPP_MIN_LOG_LEVEL": "2"}

Launch = tuple[Sequence[str], dict[str, str]]
"""A command and what it adds to the environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How a peer is started, and how many of its processes train."""

    name: str
    transport: str
    trainers: int
    start_metric: str
    """What the time from the request to the first step is called: Ray Train finds its Ray running, others nothing."""
    launch: Callable[[Path, Path], Launch]
    """(socket, a folder of its own) -> what to start."""


class PeerSystem:
    """One peer; between `measure` calls its processes wait and use no CPU."""

    def __init__(self, kind: Kind, folder: Path, pace: Pace) -> None:
        self.name, self.transport = kind.name, kind.transport
        self._kind = kind
        self._folder = folder
        self._pace = pace
        self._connections: list[Connection] = []
        self._starts: dict[str, float] = {}
        self._hellos: list[Hello] = []

    @contextmanager
    def opened(self, model: Model) -> Iterator[None]:
        self._model = model
        place = self._folder / secrets.token_hex(3)  # short: the path of a socket has 107 characters at most
        place.mkdir()
        with ExitStack() as stack:
            listening = stack.enter_context(gate(place / "s"))
            command, environment = self._kind.launch(listening.path, place)
            environment = {**ENVIRONMENT, **environment, SUBMITTED_VARIABLE: repr(time.time())}
            self._child = Child(command, environment, place / "log")
            stack.callback(self._child.stop, LEAVE_S)
            stack.callback(self._hang_up)
            ranked = {}
            for _ in range(self._kind.trainers):
                connection = listening.accept(self._child, self.name, self._pace.timeout_s)
                self._connections.append(connection)
                ranked[receive(connection, self._child, self.name, self._pace.timeout_s)] = connection
            self._connections = [ranked[rank] for rank in sorted(ranked)]
            self._hellos = self._ask(Job(model=model.name, folder=self._folder))
            self._ask(Reset(feed="shuffled"))
            self._starts = {self._kind.start_metric: self._run(1, []).ended_at - self._hellos[0].submitted_at}
            yield

    def measure(self, feed: Feed) -> Window:
        self._ask(Reset(feed=feed))
        losses: list[float] = []
        warm = self._run(self._model.warmup_steps, losses)
        step_s = warm.seconds / self._model.warmup_steps
        self._run(max(1, round(self._pace.warmup_s / step_s)), losses)
        steps = max(round(self._pace.window_s / step_s), self._model.min_steps, self._model.epoch_steps)
        carried = meters.loopback_bytes(self._child.process.pid)
        ran = self._run(steps, losses)
        carried = meters.loopback_bytes(self._child.process.pid) - carried
        return Window(
            step_ms=ran.seconds / steps * 1e3,
            steps=steps,
            losses=epoch_means(losses, steps_of_epoch(self._model, feed)),
            network_bytes=carried / steps,
            memory_mb=meters.memory(self._roles()),
            starts_s=self._starts,
        )

    def _run(self, steps: int, losses: list[float]) -> Ran:
        """The slowest process's answer; the losses of all, added, are appended."""
        answers: list[Ran] = self._ask(Run(steps=steps))
        losses += np.sum([answer.losses for answer in answers], axis=0).tolist()
        return max(answers, key=lambda answer: answer.seconds)

    def _ask(self, command: Job | Reset | Run) -> list[Any]:
        for connection in self._connections:
            send(connection, command, self._child, self.name)
        timeout_s = self._pace.timeout_s + self._pace.window_s
        return [receive(connection, self._child, self.name, timeout_s) for connection in self._connections]

    def _roles(self) -> list[tuple[str, int]]:
        training = {hello.pid: hello.rank for hello in self._hellos}
        roles = []
        for process in meters.descendants(self._child.process.pid):
            rank = training.get(process.pid)
            role = "the rest" if rank is None else "process" if len(training) == 1 else f"worker {rank + 1}"
            roles.append((role, process.pid))
        return roles

    def _hang_up(self) -> None:
        """The processes end when nobody is there to tell them more."""
        for connection in self._connections:
            connection.close()
        self._connections = []


def single(path: Path, place: Path) -> Launch:
    return python("benchmarks.peers.single", str(path)), {}


def keras_fit(path: Path, place: Path) -> Launch:
    return python("benchmarks.peers.keras_fit", str(path)), {}


def mwms(path: Path, place: Path) -> Launch:
    return python("benchmarks.peers.mwms", str(path)), {}


def ray_train(path: Path, place: Path) -> Launch:
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(PACKAGES)]),
        # Behind a token of this run's own, which Ray would otherwise make and leave in the home folder.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        # On Linux too, this makes Ray live on the loopback address.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }
    return python("benchmarks.peers.ray_train", str(path), str(place)), environment


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="single", transport="none", trainers=1, start_metric="first_step_cold", launch=single),
        Kind(name="keras_fit", transport="none", trainers=1, start_metric="first_step_cold", launch=keras_fit),
        Kind(name="mwms", transport="grpc", trainers=SHARDS, start_metric="first_step_cold", launch=mwms),
        Kind(name="ray_train", transport="grpc", trainers=SHARDS, start_metric="first_step_warm", launch=ray_train),
    )
}
