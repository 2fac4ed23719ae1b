"""A supervisor with an engine without processes and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from gradwire.progress import Outcome, Snapshot
from gradwire.spec.job import ResourceSpec
from gradwire.storage import Storage
from service.jobs.bulletin import Bulletin
from service.jobs.journal import Journal
from service.jobs.log import JobLog
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.launcher import Launcher
from service.metrics.collector import JobCollector
from service.run import Run
from service.store.base import JobStore
from service.supervisor import Supervisor
from tests.unit.fake_engine import FakeEngine, FakeTrainer

DONE = Outcome(state="SUCCEEDED")


@dataclass
class Lab:
    store: JobStore
    storage: Storage
    engine: FakeEngine
    supervisor: Supervisor
    journal: Journal
    now: float = 100.0

    def submit(
        self,
        job_id: str = "ab12ab12ab12",
        workers: int = 2,
        min_workers: int = 1,
        cpus: float = 1.0,
        spares: int = 0,
        shards: int = 4,
    ) -> str:
        resources = ResourceSpec(workers=workers, min_workers=min_workers, cpus_per_worker=cpus, spares=spares)
        record = JobRecord(
            id=job_id,
            name="n",
            request_id=job_id,
            spec_digest="d",
            resources=resources,
            shards=shards,
            created_at_s=1.0,
        )
        self.journal.submit(record, '{"the": "spec"}')
        self.supervisor.submitted(job_id)
        return job_id

    def tick(self, seconds: float = 0.1, times: int = 1) -> None:
        for _ in range(times):
            self.now += seconds
            self.supervisor.tick()

    def job(self, job_id: str = "ab") -> JobRecord:
        return self.store.get(job_id)

    def messages(self, job_id: str = "ab") -> list[str]:
        return [event.message for event in self.store.events(self.job(job_id).id, 0, 1000)]

    def ask(self, verb: str, *arguments: object, job_id: str = "ab12ab12ab12") -> JobRecord:
        """What the supervisor answers to a request, in its next tick."""
        answer: Future[JobRecord] = getattr(self.supervisor, verb)(job_id, *arguments)
        self.tick()
        return answer.result(0)

    def states(self, job_id: str = "ab") -> list[JobState]:
        """The states that the job has gone through."""
        seen = [event.state for event in self.store.events(self.job(job_id).id, 0, 1000)]
        return [state for before, state in zip([None, *seen], seen, strict=False) if state is not before]

    @property
    def trainer(self) -> FakeTrainer:
        return self.engine.trainers[-1]

    def run(self, step: int = 1) -> None:
        """Brings the newest trainer to a step."""
        self.tick()
        self.trainer.address = "/dev/shm/x"
        self.tick()
        self.trainer.snapshot = Snapshot(is_running=True, step=step, total_steps=9, metrics={"loss": 0.5})
        self.tick(0.3, times=2)


def make_lab(
    storage: Storage,
    store: JobStore,
    adopted: Callable[[Collection[Run]], None] | None = None,
    metrics: JobCollector | None = None,
) -> Lab:
    engine = FakeEngine()
    observe = metrics.observe if metrics is not None else lambda record: None
    measure = metrics.measure if metrics is not None else lambda record, telemetry: None
    journal = Journal(store, JobLog(storage, Path("/nonexistent")), Bulletin(), wall=lambda: 5000.0, observe=observe)
    launcher = Launcher(
        engine=engine, store=store, storage=storage, service_id="5e41ce1d", cache_dir=Path("/c"), trust=("mine",)
    )
    supervisor = Supervisor(
        store=store, journal=journal, engine=engine, launcher=launcher, clock=lambda: made.now, adopted=adopted,
        measure=measure,
    )  # fmt: skip
    made = Lab(store, storage, engine, supervisor, journal)
    return made
