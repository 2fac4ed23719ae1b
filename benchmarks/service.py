"""A Gradwire service of the run's own, and jobs on it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks import meters
from benchmarks.models import LABEL, SEED, Model
from benchmarks.order import SHARDS
from benchmarks.system import Feed, SystemFailed
from gradwire.cli.embedded import embedded_service
from gradwire.cli.serve import service_command
from gradwire.client import Client
from gradwire.errors import GradwireError
from protos.gradwire.v1 import service_pb2 as pb

NEVER = 2**31 - 1
"""Steps that no job of ours comes to: checkpoints and ends that are not to be measured."""
QUIET_S = 1.0
QUIET_SHARE = 0.1
"""Of a CPU: what a service uses when its warm processes are ready."""
EXCHANGES = {"shared_memory": "auto", "flight": "flight"}
"""Transport -> resources.exchange; with "flight" every worker is treated as remote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A server under way; `data` is its data root."""

    client: Client
    process: psutil.Process
    metrics: str
    """Where it is scraped, HOST:PORT."""
    data: Path
    models: Path

    def spec(self, model: Model, feed: Feed, transport: str, **more: dict[str, Any]) -> dict[str, Any]:
        """The fields of a job file; `training` and `resources` add to, or replace, what is usual here."""
        arrays = self._write(model, feed)
        exchange = {} if transport == "shared_memory" else {"exchange": EXCHANGES[transport]}
        return {
            "name": f"{model.name}-{feed}",
            "model": {"keras": json.loads((self.models / f"{model.name}.json").read_text())},
            "data": {
                "train": {"npz": f"server:{arrays.name}"},
                "inputs": {name: name for name in model.input_names},
                "labels": LABEL,
                "shuffle": feed == "shuffled",
            },
            "loss": dict(model.loss),
            "optimizer": more.get("optimizer", dict(model.optimizer)),
            "training": {
                "globalBatch": model.batch,
                "steps": NEVER,
                "shards": SHARDS,
                "seed": SEED,
                "checkpoint": {"everySteps": NEVER},
                **more.get("training", {}),
            },
            "resources": {
                "workers": SHARDS,
                "minWorkers": SHARDS,
                "cpusPerWorker": 1,
                "threadsPerWorker": 1,
                **exchange,
                **more.get("resources", {}),
            },
        }

    def _write(self, model: Model, feed: Feed) -> Path:
        path = self.data / f"{model.name}-{feed}.npz"
        if not path.exists():
            rows = slice(None) if feed == "shuffled" else slice(model.batch)
            np.savez(path, allow_pickle=False, **{name: array[rows] for name, array in model.arrays().items()})
        return path

    def wait_until_quiet(self, timeout_s: float) -> None:
        """Returns when the warm processes are ready: nobody uses the CPU any more."""
        deadline, before = time.monotonic() + timeout_s, meters.cpu_seconds(self.process.pid)
        while time.monotonic() < deadline:
            time.sleep(QUIET_S)
            now = meters.cpu_seconds(self.process.pid)
            if 0 <= now - before < QUIET_SHARE * QUIET_S:
                return
            before = now
        raise SystemFailed(f"the service was not quiet within {timeout_s:.0f} s")

    def roles(self, workers: dict[int, str]) -> list[tuple[str, int]]:
        """(role, pid) of every process of the service; `workers` are pids and names."""
        roles = []
        for process in meters.descendants(self.process.pid):
            role = "coordinator" if process.pid == self.process.pid else workers.get(process.pid) or _role(process)
            roles.append((role, process.pid))
        return roles


def _role(process: psutil.Process) -> str:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return "the rest"
    return "trainer" if title.startswith("ray::Process") else "the rest"


@contextmanager
def serving(folder: Path, *, warm: int = 0, refill: bool = False) -> Iterator[Service]:
    """A service that keeps so many processes warm; it ends with the block. `refill` says whether it replaces them."""
    data = folder / "data"
    data.mkdir(exist_ok=True)
    settings = {
        "listen": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "data_root": str(data),
        "warm": warm,
        "refill": refill,
    }
    before = {child.pid for child in psutil.Process().children()}
    with embedded_service(service_command, settings, lambda stage: None) as ready, Client(ready.listen) as client:
        found = [child for child in psutil.Process().children() if child.pid not in before]
        process = next(child for child in found if "service" in child.cmdline())
        yield Service(client=client, process=process, metrics=ready.metrics, data=data, models=folder)


@dataclass(slots=True)
class Watched:
    """A job whose progress is read as it happens, for no longer than a limit."""

    service: Service
    spec: dict[str, Any]
    timeout_s: float
    submitted_at: float = 0.0
    workers: dict[int, str] = field(default_factory=dict)
    """Pids of living workers and their names in the table."""
    transports: set[str] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    """What was reported of workers."""
    job_id: str = ""
    _is_cancelled: bool = False

    def events(self) -> Iterator[pb.JobEvent]:
        """The job's events of kind progress; ends after `cancel`.

        Raises `SystemFailed` if the job fails, ends by itself or takes longer than the limit.
        """
        timer = threading.Timer(self.timeout_s, self.cancel)
        timer.daemon = True
        try:
            self.submitted_at = time.time()
            self.job_id = self.service.client.submit(self.spec).id
            timer.start()
            yield from self._progress()
            self._check(is_in_time=timer.is_alive())
        except GradwireError as error:
            raise SystemFailed(f"gradwire: {error.message}") from error
        finally:
            timer.cancel()
            self._remove()

    def cancel(self) -> None:
        """Asks the job to end; its next events are no more given."""
        if not self._is_cancelled:
            self._is_cancelled = True
            self.service.client.cancel(self.job_id)

    def _progress(self) -> Iterator[pb.JobEvent]:
        for event in self.service.client.watch(self.job_id):
            if event.workers:
                self._notice(event)
            if event.kind == "worker":
                self.messages.append(event.message)
            if event.kind == "progress" and not self._is_cancelled:
                yield event

    def _notice(self, event: pb.JobEvent) -> None:
        alive = [worker for worker in event.workers if worker.state in ("STARTING", "READY", "SLOW")]
        self.workers = {worker.pid: f"worker {index + 1}" for index, worker in enumerate(alive)}
        self.transports = {worker.transport for worker in alive if worker.transport}

    def _check(self, *, is_in_time: bool) -> None:
        job = self.service.client.get(self.job_id)
        if job.error.message:
            raise SystemFailed(f"gradwire: {job.error.message}")
        if not is_in_time:
            raise SystemFailed(f"gradwire: the job was at step {job.step} after {self.timeout_s:.0f} s")
        if not self._is_cancelled:
            raise SystemFailed(f"gradwire: the job ended by itself at step {job.step}")

    def _remove(self) -> None:
        try:
            if self.job_id:
                self.cancel()
                for _ in self.service.client.watch(self.job_id):
                    pass
                self.service.client.delete(self.job_id)
        except GradwireError:
            return  # the service ends soon, with everything that is left


def time_s(event: pb.JobEvent) -> float:
    """When it happened, by the trainer's clock; seconds since the epoch."""
    return event.time.seconds + event.time.nanos * 1e-9
