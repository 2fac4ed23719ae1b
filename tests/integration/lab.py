"""Runs a job with a real trainer and real workers in processes of their own, without Ray and the coordinator.

For tests of the step itself: the processes are forked from `zygote`, which has TensorFlow imported and its context
untouched, so that a job starts in a third of a second.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from gradwire.assignment import Assignment, ExchangeAddress
from gradwire.progress import Outcome, Progress
from gradwire.spec.job import JobSpec
from service.exchange_certificate import ExchangeCertificate
from service.process import ENVIRONMENT
from workers.exchange.segment import job_folder

ROLES = {"trainer": ("service.training.trainer", "Trainer"), "worker": ("workers.worker", "Worker")}
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 90.0
SERVICE_ID = secrets.token_hex(4)
"""Of this process alone: others on this machine may run jobs of the same names."""


def context() -> Any:
    """Makes processes from the zygote, which starts when it is first needed and goes with this process."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(["tests.integration.zygote"])
    before = dict(os.environ)
    try:
        # The fork server sets up its import path by itself: it is not told ours.
        os.environ.update({**ENVIRONMENT, "PYTHONPATH": str(ROOT)})
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return found


Preparation = Callable[[], None]
"""What a child does before it takes its role; it is pickled."""


def leave_out_exports() -> None:
    """What the child of a lab without exports does before it becomes a trainer."""
    from service.training import delivery, export

    assert delivery.export_model is export.export_model, "trainers export in another way"  # type: ignore[attr-defined]
    delivery.export_model = lambda *_: export.Exports(formats=())  # type: ignore[attr-defined]


def serve_role(role: str, assignment: Assignment, connection: Connection, preparations: Sequence[Preparation]) -> None:
    """A child's life: the role's object runs in a thread, and its methods are called over the pipe."""
    for prepare in preparations:
        prepare()
    tf = importlib.import_module("tensorflow")
    tf.config.threading.set_intra_op_parallelism_threads(assignment.threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    module, name = ROLES[role]
    subject = getattr(importlib.import_module(module), name)(assignment)
    connection.send(subject.exchange_address)
    result: list[Outcome] = []
    thread = threading.Thread(target=lambda: result.append(subject.run()))
    thread.start()
    while thread.is_alive():
        if connection.poll(0.02):
            method, arguments = connection.recv()
            connection.send(getattr(subject, method)(*arguments))
    progress = subject.progress(0) if role == "trainer" else None
    connection.send((result[0], progress))


@dataclass
class Child:
    """A process with a role, and the end of its pipe."""

    process: BaseProcess
    pipe: Connection
    address: str = ""

    def call(self, method: str, *arguments: object) -> Any:
        self.pipe.send((method, arguments))
        return self.pipe.recv()


@dataclass
class Result:
    """How the job ended, and all that its trainer reported."""

    outcome: Outcome
    progress: Progress

    @property
    def digest(self) -> str:
        return self.progress.snapshot.weights_digest


@dataclass
class Lab:
    """One start of a job's trainer with its workers."""

    spec: JobSpec
    folder: Path
    generation: int = 1
    is_remote: bool = False
    """Whether workers connect by Flight, as from another node."""
    certificate: ExchangeCertificate | None = None
    """With one, those speak under TLS."""
    shares_stream: bool = False
    """Whether those are all on one node, and share a relay."""
    exports: bool = False
    """Whether the trained model is exported at the end, which takes as long as a small job's training."""
    job_id: str = field(default_factory=lambda: secrets.token_hex(6))
    trainer: Child | None = None
    workers: list[Child] = field(default_factory=list)
    _names: int = 0

    def assignment(self) -> Assignment:
        return Assignment(
            job_id=self.job_id,
            generation=self.generation,
            spec_json=self.spec.model_dump_json(by_alias=True),
            storage_url=str(self.folder / "storage"),
            service_id=SERVICE_ID,
            token="secret",
            cache_dir=str(self.folder / "cache"),
            data_root=str(self.folder),
            allow_code=True,
            threads=self.spec.resources.threads_per_worker,
            exchange_host="127.0.0.1" if self.is_remote else "",
            exchange_certificate=self.certificate.certificate if self.certificate else "",
            exchange_key=self.certificate.key if self.certificate else "",
        )

    def _start(self, role: str, assignment: Assignment, *preparations: Preparation | None) -> Child:
        mine, theirs = context().Pipe()
        given = [prepare for prepare in preparations if prepare is not None]
        process = context().Process(target=serve_role, args=(role, assignment, theirs, given), daemon=True)
        process.start()
        theirs.close()
        child = Child(process, mine)
        child.address = mine.recv()
        return child

    def start_trainer(self, prepare: Preparation | None = None) -> None:
        self.trainer = self._start("trainer", self.assignment(), None if self.exports else leave_out_exports, prepare)

    def add_worker(self, prepare: Preparation | None = None, *, is_remote: bool | None = None) -> Child:
        assert self.trainer is not None
        self._names += 1
        name = f"{self.job_id}-g{self.generation}-w{self._names}"
        is_far = self.is_remote if is_remote is None else is_remote
        address = ExchangeAddress.parse(self.trainer.address).seen_from("far" if is_far else "", "auto")
        assignment = replace(
            self.assignment(), worker_id=name, exchange_address=address, shares_stream=is_far and self.shares_stream
        )
        self.workers.append(self._start("worker", assignment, prepare))
        return self.workers[-1]

    def progress(self, since: int = 0) -> Progress:
        assert self.trainer is not None
        found: Progress = self.trainer.call("progress", since)
        return found

    def wait_for(self, is_so: Callable[[Progress], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_so(self.progress()):
            assert time.monotonic() < deadline, "it did not come so far"
            time.sleep(0.01)

    def hold_up(self) -> int:
        """Stops the only worker once it is ready, and adds one: of two that the job needs. Returns the first one's pid.

        So the first step is under way and waits for it.
        """
        self.wait_for(lambda progress: any(view.state == "READY" for view in progress.snapshot.workers))
        pid = self.workers[0].process.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        self.add_worker()
        self.wait_for(lambda progress: progress.snapshot.is_running)
        return pid

    def result(self) -> Result:
        assert self.trainer is not None
        assert self.trainer.pipe.poll(TIMEOUT_S), "the job did not end"
        return Result(*self.trainer.pipe.recv())

    def stop(self) -> None:
        for child in [*self.workers, *([self.trainer] if self.trainer else [])]:
            if child.process.is_alive():
                child.process.terminate()
            child.process.join(5)
            if child.process.is_alive() and child.process.pid:
                os.kill(child.process.pid, signal.SIGKILL)
        shutil.rmtree(job_folder(SERVICE_ID, self.job_id, self.generation), ignore_errors=True)


@contextmanager
def lab(
    spec: JobSpec, folder: Path, workers: int, *, prepare: Preparation | None = None, **values: Any
) -> Iterator[Lab]:
    """A job under way with so many workers, and what its trainer does first; everything ends with the block."""
    made = Lab(spec, folder, **values)
    try:
        made.start_trainer(prepare)
        for _ in range(workers):
            made.add_worker()
        yield made
    finally:
        made.stop()


def run(spec: JobSpec, folder: Path, workers: int, **values: Any) -> Result:
    """Runs a job to its end."""
    with lab(spec, folder, workers, **values) as job:
        return job.result()
