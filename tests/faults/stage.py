"""Plays a schedule of faults on a real job: real processes stand still at its moments, and are killed or continued."""

from __future__ import annotations

import os
import secrets
import signal
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from gradwire.progress import Outcome
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from tests.faults import moments
from tests.faults.schedule import TRAINER, Fault, Schedule
from tests.faults.traces import end_timeout_s
from tests.integration.lab import SERVICE_ID, Child, Lab, Result
from tests.overload import overload
from workers.exchange.segment import SHARED_MEMORY

PLAY_TIMEOUT_S = 60.0
POLL_S = 0.002


@dataclass
class Actor:
    """A process, the faults that it is to suffer, and until when it stands still."""

    child: Child
    faults: list[Fault]
    until_s: float | None = None

    def __str__(self) -> str:
        code = self.child.process.exitcode
        return f"process {self.pid} " + (_status(self.pid) if code is None else f"ended with {code}")

    @property
    def pid(self) -> int:
        assert self.child.process.pid is not None
        return self.child.process.pid

    @property
    def is_alive(self) -> bool:
        return self.child.process.is_alive()

    @property
    def stands_still(self) -> bool:
        return _status(self.pid) == psutil.STATUS_STOPPED

    def strike(self) -> Fault | None:
        """Carries out the fault that the process stands still for, and returns it; continues it when its time comes."""
        if self.until_s is not None:
            if time.monotonic() > self.until_s:
                self.until_s = None
                os.kill(self.pid, signal.SIGCONT)
            return None
        if not self.faults or not self.stands_still:
            return None
        fault = self.faults.pop(0)
        if fault.blow == "kill":
            self.kill()
        else:
            self.until_s = time.monotonic() + fault.for_s
        return fault

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.child.process.join(end_timeout_s())


@dataclass
class Cast:
    """One start of the trainer, with its workers; `restored` is the newest checkpoint that it found."""

    lab: Lab
    trainer: Actor
    restored: int
    workers: list[Actor] = field(default_factory=list)
    present: list[Actor] = field(default_factory=list)
    """The workers whose end has not been seen."""
    is_given_up: bool = False
    """The trainer was stopped, and another one started."""
    outcome: Outcome | None = None
    """Of a trainer that was given up."""

    @property
    def is_ending(self) -> bool:
        return self.is_given_up and self.outcome is None

    @property
    def stands_still(self) -> bool:
        return any(actor.until_s is not None for actor in self.actors())

    def actors(self) -> list[Actor]:
        return [self.trainer, *self.workers]


@dataclass
class Play:
    """One job, from its first trainer to its end. `perform` is to be called once, and `close` whatever happens."""

    spec: JobSpec
    folder: Path
    schedule: Schedule
    struck: list[Fault] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    job_id: str = field(default_factory=lambda: secrets.token_hex(6))
    _workers: int = 0

    def perform(self) -> Result:
        """How the last start of the trainer ended, when those that were given up have ended as well."""
        deadline = time.monotonic() + PLAY_TIMEOUT_S * overload()
        self._temporary.mkdir()
        self._start()
        result = None
        while result is None or any(cast.is_ending or cast.stands_still for cast in self.casts):
            assert time.monotonic() < deadline, f"no end: {self.story()}"
            for cast in list(self.casts):
                self._tend(cast)
            if result is None and self.casts[-1].trainer.child.pipe.poll(POLL_S):
                result = self.casts[-1].lab.result()
        return result

    def commits(self, generation: int) -> list[tuple[int, float]]:
        """The steps that this start of the trainer has committed, with the time (monotonic) of each."""
        return moments.commits(self._journal(generation))

    def left(self) -> list[str]:
        """What is still there: processes that do not end in time, files of the exchange, and temporary ones."""
        deadline = time.monotonic() + end_timeout_s()
        while self._alive() and time.monotonic() < deadline:
            time.sleep(POLL_S)
        exchanges = SHARED_MEMORY.glob(f"gradwire-{SERVICE_ID}-{self.job_id}-*")
        checkpoints = Storage(self._url).names(f"jobs/{self.job_id}/checkpoints")
        unfinished = [name for name in checkpoints if not name.startswith("step-")]
        return [*self._alive(), *map(str, exchanges), *unfinished, *map(str, self._temporary.iterdir())]

    def story(self) -> str:
        """In a line, all that tells this play from others."""
        actors = [f"start {number}: {', '.join(map(str, cast.actors()))}" for number, cast in enumerate(self.casts, 1)]
        return f"{self.schedule}, of which came about {self.struck}; {'; '.join(actors)}"

    def close(self) -> None:
        """Ends every process of the play."""
        for cast in self.casts:
            for actor in cast.actors():
                if actor.is_alive:
                    actor.kill()
            cast.lab.stop()

    def _alive(self) -> list[str]:
        """Trainers, workers, and relays."""
        actors = [actor for cast in self.casts for actor in cast.actors()]
        relays = [line for line in Path("/proc/net/unix").read_text().splitlines() if f"-{self.job_id}-" in line]
        return [*(str(actor) for actor in actors if actor.is_alive), *relays]

    @property
    def _url(self) -> str:
        return str(self.folder / "storage")

    @property
    def _temporary(self) -> Path:
        return self.folder / f"tmp-{self.job_id}"

    def _journal(self, generation: int) -> Path:
        return self.folder / f"commits-{self.job_id}-{generation}"

    def _spec(self) -> JobSpec:
        """No step without all workers that it starts with: otherwise the first to be ready may do all."""
        resources = self.spec.resources
        everybody = resources.model_copy(
            update={"workers": self.schedule.workers, "min_workers": self.schedule.workers}
        )
        return self.spec.model_copy(update={"resources": everybody})

    def _start(self) -> None:
        """Starts the next trainer, and workers, as the coordinator does."""
        generation = len(self.casts) + 1
        storage = Storage(self._url)
        storage.write(f"jobs/{self.job_id}/generation", str(generation).encode())
        names = storage.names(f"jobs/{self.job_id}/checkpoints")
        restored = max((int(name.split("-")[1]) for name in names if name.startswith("step-")), default=0)
        lab = Lab(
            self._spec(),
            self.folder,
            generation=generation,
            job_id=self.job_id,
            is_remote=self.schedule.way != "near",
            shares_stream=self.schedule.way == "relayed",
            exports=True,
        )
        faults = self.schedule.of(TRAINER)[generation - 1 : generation]
        lab.start_trainer(partial(moments.trainer, faults, self._journal(generation), self._temporary))
        assert lab.trainer is not None
        self.casts.append(Cast(lab, Actor(lab.trainer, list(faults)), restored))
        for _ in range(self.schedule.workers):
            self._add_worker()

    def _add_worker(self) -> None:
        self._workers += 1
        cast, faults = self.casts[-1], self.schedule.of(self._workers)
        worker = Actor(cast.lab.add_worker(partial(moments.worker, faults)), list(faults))
        cast.workers.append(worker)
        cast.present.append(worker)

    def _tend(self, cast: Cast) -> None:
        """Does what is due to one start of the trainer and its workers."""
        for worker in list(cast.present):
            self._note(worker.strike())
            if not worker.is_alive:
                cast.present.remove(worker)
                if _was_lost(worker) and cast is self.casts[-1]:
                    self._add_worker()
        fault = cast.trainer.strike()
        if fault is not None:
            self._note(fault)
            cast.is_given_up = fault.blow == "stop"
            self._start()
        elif cast.is_ending and cast.trainer.child.pipe.poll():
            cast.outcome = cast.trainer.child.pipe.recv()[0]

    def _note(self, fault: Fault | None) -> None:
        if fault is not None:
            self.struck.append(fault)


def _status(pid: int) -> str:
    try:
        return psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return "gone"


def _was_lost(worker: Actor) -> bool:
    """Whether the job has lost the worker, which was killed or dropped; else the job, or its trainer, has ended."""
    try:
        outcome, _ = worker.child.pipe.recv()
    except EOFError:
        assert worker.child.process.exitcode == -signal.SIGKILL, f"a worker ended by itself: {worker}"
        return True
    assert outcome.state != "FAILED", outcome.error
    return outcome.error is not None and outcome.error.code == "let_go"
