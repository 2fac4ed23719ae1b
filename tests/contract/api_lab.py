"""The API on a real gRPC server in this process, with the memory store and an engine without processes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from gradwire import parse
from gradwire.progress import Best, Outcome, Snapshot
from gradwire.spec.job import JobSpec
from gradwire.storage import CHUNK_BYTES, Storage
from protos.gradwire.v1.service_pb2_grpc import JobServiceStub
from service.address import Address
from service.api.server import ApiServer
from service.api.servicer import Backend, Servicer
from service.api.submission import Submission
from service.api.transfer import Transfer
from service.config import ServiceConfig
from service.jobs.bulletin import Bulletin
from service.jobs.journal import Journal
from service.jobs.log import JobLog
from service.launcher import Launcher
from service.metrics import Metrics
from service.store.memory import MemoryStore
from service.supervisor import Supervisor
from tests.unit.fake_engine import FakeEngine

WAIT_S = 20.0
MAX_UPLOAD_BYTES = 3 * CHUNK_BYTES

LAYERS = [
    {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 4], "name": "x"}},
    {"module": "keras.layers", "class_name": "Dense", "config": {"units": 3, "name": "y"}},
]
MODEL = {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": LAYERS}}


def job_spec(**changes: Any) -> JobSpec:
    document = {
        "name": "digits",
        "model": {"keras": json.dumps(MODEL)},
        "data": {"train": {"builtin": "digits"}, "inputs": "x", "labels": "y"},
        "loss": "sparse_categorical_crossentropy",
        "optimizer": "adam",
        "training": {"globalBatch": 32, "epochs": 1},
    }
    return parse({**document, **changes}, Path())


@dataclass
class Served:
    config: ServiceConfig
    store: MemoryStore
    storage: Storage
    engine: FakeEngine
    bulletin: Bulletin
    supervisor: Supervisor
    metrics: Metrics
    api: ApiServer

    @property
    def address(self) -> str:
        return str(self.api.address)

    @contextmanager
    def stub(self) -> Iterator[JobServiceStub]:
        with grpc.insecure_channel(self.address) as channel:
            yield JobServiceStub(channel)

    def finish(self, job_id: str, best: Best | None = None) -> None:
        """Lets the job's trainer come up, take a step and end."""
        wait_until(lambda: bool(self.engine.trainers))
        trainer = self.engine.trainers[-1]
        assert trainer.assignment.job_id == job_id
        trainer.snapshot = Snapshot(is_running=True, step=3, total_steps=3, metrics={"loss": float("nan")}, best=best)
        trainer.emit("progress", "step 3 of 3")
        trainer.address = "/dev/shm/x"
        trainer.end = Outcome(state="SUCCEEDED")


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@contextmanager
def serving(folder: Path, bulletin: Bulletin | None = None, **settings: Any) -> Iterator[Served]:
    anywhere = Address("127.0.0.1", 0)
    config = ServiceConfig(
        listen=anywhere, metrics=anywhere, state=folder, max_upload_bytes=MAX_UPLOAD_BYTES, **settings
    )  # fmt: skip
    store, storage, engine = MemoryStore(), Storage(str(folder / "storage")), FakeEngine()
    bulletin = bulletin or Bulletin()
    metrics = Metrics(store.counts)
    journal = Journal(store, JobLog(storage, folder), bulletin, wall=time.time, observe=metrics.jobs.observe)
    launcher = Launcher(engine=engine, store=store, storage=storage, service_id="5e41ce1d", cache_dir=folder)
    supervisor = Supervisor(
        store=store, journal=journal, engine=engine, launcher=launcher, clock=time.monotonic
    )  # fmt: skip
    submission = Submission(
        journal=journal, storage=storage, data_root=config.data_root, allow_code=config.allow_code, trust=config.trust,
        wall=time.time, submitted=supervisor.submitted,
    )  # fmt: skip
    backend = Backend(
        store=store, submission=submission, transfer=Transfer(storage, store, MAX_UPLOAD_BYTES), bulletin=bulletin,
        cancel=supervisor.cancel, pause=supervisor.pause, resume=supervisor.resume, scale=supervisor.scale,
    )  # fmt: skip
    api = ApiServer(Servicer(backend), config, metrics)
    with ExitStack() as parts:
        supervisor.start()
        parts.callback(supervisor.stop)
        api.start()
        parts.callback(api.stop, 0.1)
        parts.callback(bulletin.close)
        yield Served(config, store, storage, engine, bulletin, supervisor, metrics, api)
