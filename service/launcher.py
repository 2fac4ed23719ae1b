"""Starts a job's trainer and workers: makes up their assignments and hands them to the engine."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from gradwire.assignment import Assignment
from gradwire.storage import Storage, is_full
from service.admission import UNITS, Demand
from service.engine import Engine, TrainerHandle, WorkerHandle
from service.exchange_certificate import ExchangeCertificate, make_certificate
from service.jobs.record import JobRecord
from service.store.base import JobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """What all assignments of this service have in common."""

    engine: Engine
    store: JobStore
    storage: Storage
    service_id: str
    cache_dir: Path
    data_root: Path | None = None
    allow_code: bool = False
    trust: tuple[str, ...] = ()
    log_format: str = "text"
    is_encrypting: bool = False
    """Whether trainers and workers of other nodes speak under TLS."""

    def fence_off(self, record: JobRecord) -> None:
        """From now on trainers of older generations than the record's write no more.

        Raises `OSError` if the storage cannot be written; a full one takes the number all the same, if it has an older.
        """
        name, text = f"jobs/{record.id}/generation", str(record.generation).encode("ascii")
        try:
            self.storage.write(name, text)
        except OSError as error:
            if not (is_full(error) and self.storage.is_local and self.storage.exists(name)):
                raise
            self.storage.write_over(name, text)  # of numbers that grow, none is shorter than the one before

    def trainer(self, record: JobRecord) -> tuple[Assignment, TrainerHandle]:
        """Launches the trainer of the record's generation; those of older ones are fenced off before."""
        made = make_certificate() if self.is_encrypting else ExchangeCertificate("", "")
        assignment = Assignment(
            job_id=record.id,
            generation=record.generation,
            spec_json=self.store.spec_json(record.id),
            storage_url=self.storage.url,
            service_id=self.service_id,
            token=secrets.token_hex(16),
            cache_dir=str(self.cache_dir),
            data_root=str(self.data_root) if self.data_root else None,
            allow_code=self.allow_code,
            trust=self.trust,
            log_format=self.log_format,
            threads=record.resources.threads_per_worker,
            workers=record.usable_workers,
            exchange=record.resources.exchange,
            exchange_certificate=made.certificate,
            exchange_key=made.key,
        )
        return assignment, self.engine.launch_trainer(assignment)

    def worker(
        self, trainer: Assignment, number: int, address: str, demand: Demand, node: str, *, has_colleagues: bool
    ) -> WorkerHandle:
        """Launches a worker of a trainer that listens at `address`; with colleagues on its node it shares a stream."""
        worker_id = f"{trainer.job_id}-g{trainer.generation}-w{number}"
        shares_stream = has_colleagues and trainer.exchange == "auto"
        assignment = replace(
            trainer, worker_id=worker_id, exchange_address=address, shares_stream=shares_stream, exchange_key=""
        )  # fmt: skip
        return self.engine.launch_worker(assignment, node, demand.cpus / UNITS, demand.gpus / UNITS)
