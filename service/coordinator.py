"""The coordinator: puts the service's parts together, runs them, and takes them down in order."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from gradwire.errors import GradwireError
from gradwire.storage import Storage
from service.api.server import ApiServer, require_free
from service.api.servicer import Backend, Servicer
from service.api.submission import Submission
from service.api.transfer import Transfer
from service.config import ServiceConfig, WrongSetting
from service.engine import Engine
from service.jobs.bulletin import Bulletin
from service.jobs.journal import Journal
from service.jobs.log import JobLog
from service.late_engine import LateEngine
from service.launcher import Launcher
from service.metrics import Metrics
from service.metrics.collector import MAX_JOBS
from service.metrics_server import MetricsServer
from service.page.app import StatusPage
from service.readiness import Readiness
from service.run import Run
from service.segments import remove_segments
from service.state_folder import StateFolder
from service.store.base import JobStore
from service.store.sqlite import SqliteStore
from service.supervisor import Supervisor

RPC_GRACE_S = 1.0
"""How long calls that are under way have when the service stops; watchers are told before."""

LOOK_AFTER_ENGINE_S = 1.0

T = TypeVar("T")
EngineMaker = Callable[[ServiceConfig, StateFolder], Engine]

log = structlog.get_logger()


def ray_engine(config: ServiceConfig, folder: StateFolder) -> Engine:
    """The engine of every real service; Ray is imported only now."""
    from service.cluster import RayEngine  # noqa: PLC0415

    return RayEngine(folder.path, config.ray, folder.service_id)


def run(
    config: ServiceConfig,
    readiness: Readiness,
    stop: threading.Event,
    *,
    engine_is_up: Callable[[], None] = lambda: None,
    make_engine: EngineMaker = ray_engine,
) -> int:
    """Serves until `stop` is set, the engine is gone, or it could not be started; returns the process's exit code.

    `engine_is_up` is called then, on this thread. Raises `WrongSetting` for what turns out wrong only
    now: a port that is taken, a state folder in use.
    """
    with ExitStack() as parts:
        coordinator = Coordinator(config, readiness, make_engine, parts)
        coordinator.accept()
        is_up = coordinator.start_engine()
        if is_up:
            engine_is_up()
            is_up = coordinator.serve_until(stop)
        log.info("stopping")
    log.info("stopped")
    return 0 if is_up else 1


class Coordinator:
    """All parts of a running service; `parts` takes each down, in the opposite order of their making."""

    def __init__(self, config: ServiceConfig, readiness: Readiness, make_engine: EngineMaker, parts: ExitStack) -> None:
        self._config = config
        self._readiness = readiness
        self._folder = _entered(parts, StateFolder(config.state), StateFolder.close)
        readiness.stage("opening the job store")
        storage = _storage(self._folder)
        store = _entered(parts, _store(self._folder), SqliteStore.close)
        metrics = Metrics(
            store.counts, storage=self._folder.storage, store=self._folder.store, kept_s=config.metrics_keep_s
        )  # fmt: skip
        for record in [*reversed(store.page(MAX_JOBS, None)), *store.live()]:
            metrics.jobs.observe(record)
        self._metrics_address = self._serve_metrics(metrics, store, parts)
        service_id = self._folder.service_id
        if config.ray is None:
            remove_segments(service_id)  # otherwise trainers may be at work that the last service has left
        parts.callback(remove_segments, service_id)
        self._engine = LateEngine(lambda: make_engine(config, self._folder))
        parts.callback(self._stop_engine)
        bulletin = Bulletin()
        journal = Journal(
            store,
            JobLog(storage, self._folder.spool),
            bulletin,
            wall=time.time,
            observe=metrics.jobs.observe,
            writing=metrics.store_write.time,
        )
        self._supervisor = self._make_supervisor(store, storage, journal, metrics)
        metrics.store_writable.set_function(lambda: not self._supervisor.is_stuck)
        parts.callback(self._supervisor.stop)
        backend = self._make_backend(store, storage, journal, bulletin)
        backend.transfer.sweep()
        self._api = ApiServer(Servicer(backend), config, metrics)
        parts.callback(self._api.stop, RPC_GRACE_S)
        parts.callback(bulletin.close)

    def _make_supervisor(self, store: JobStore, storage: Storage, journal: Journal, metrics: Metrics) -> Supervisor:
        config, service_id = self._config, self._folder.service_id
        launcher = Launcher(
            engine=self._engine,
            store=store,
            storage=storage,
            service_id=service_id,
            cache_dir=self._folder.cache,
            data_root=config.data_root,
            allow_code=config.allow_code,
            trust=config.trust,
            log_format=config.log_format,
            is_encrypting=config.encrypts_exchange,
        )
        return Supervisor(
            store=store,
            journal=journal,
            engine=self._engine,
            launcher=launcher,
            clock=time.monotonic,
            measure=metrics.jobs.measure,
            cleared=lambda run: remove_segments(service_id, run.assignment.job_id, run.assignment.generation),
            adopted=None if config.ray is None else lambda runs: _sweep(service_id, runs),
        )

    def _make_backend(self, store: JobStore, storage: Storage, journal: Journal, bulletin: Bulletin) -> Backend:
        config = self._config
        submission = Submission(
            journal=journal,
            storage=storage,
            data_root=config.data_root,
            allow_code=config.allow_code,
            trust=config.trust,
            wall=time.time,
            submitted=self._supervisor.submitted,
        )
        return Backend(
            store=store,
            submission=submission,
            transfer=Transfer(storage, store, config.max_upload_bytes),
            bulletin=bulletin,
            cancel=self._supervisor.cancel,
            pause=self._supervisor.pause,
            resume=self._supervisor.resume,
            scale=self._supervisor.scale,
        )

    def accept(self) -> None:
        """Accepts calls; jobs wait until the engine is up."""
        self._supervisor.start()
        self._api.start()
        self._announce()

    def start_engine(self) -> bool:
        """Brings the engine up, which takes seconds; returns whether it is."""
        started = time.monotonic()
        try:
            self._engine.start(warm=self._config.warm, refill=self._config.refill)
        except Exception as error:
            log.error("engine_not_started", why=str(error), exc_info=not isinstance(error, GradwireError))
            return False
        log.info("engine_started", seconds=round(time.monotonic() - started, 1))
        self._supervisor.engine_started()
        return True

    def serve_until(self, stop: threading.Event) -> bool:
        """Returns when `stop` is set, or the engine is gone; and whether it is there."""
        while not stop.wait(LOOK_AFTER_ENGINE_S):
            if why := self._engine.fault():
                log.error("engine_lost", why=f"{why}; start the service again, and its jobs go on")
                return False
        return True

    def _stop_engine(self) -> None:
        started = time.monotonic()
        try:
            self._engine.stop()
        except GradwireError as error:
            log.error("engine_not_stopped", why=error.message)
        else:
            if self._engine.is_made:
                log.info("engine_stopped", seconds=round(time.monotonic() - started, 1))

    def _announce(self) -> None:
        places = {
            "listen": str(self._api.address),
            "metrics": self._metrics_address,
            "service_id": self._folder.service_id,
        }
        config = self._config
        self._folder.announce(
            {
                **places,
                "pid": os.getpid(),
                "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "needs_token": config.token is not None,
                "uses_tls": config.tls_cert is not None,
            }
        )
        if config.token is not None and config.tls_cert is None and not self._api.address.is_loopback:
            log.warning("token_in_plain_text", why="give --tls-cert and --tls-key, or leave encryption to a proxy")
        log.info("listening", state=str(config.state), **places)
        self._readiness.ready(places)
        if config.is_json:
            print(json.dumps(places), flush=True)

    def _serve_metrics(self, metrics: Metrics, store: JobStore, parts: ExitStack) -> str:
        address = self._config.metrics
        require_free("--metrics", address)
        token = None if address.is_loopback else self._config.token
        try:
            server = MetricsServer(address, metrics.registry, StatusPage(store), token)
        except OSError as error:  # taken in this very moment
            raise WrongSetting("--metrics", f"cannot listen on {address}: {error}", exit_code=1) from error
        parts.callback(server.stop)
        return str(server.address)


def _sweep(service_id: str, adopted: Collection[Run]) -> None:
    remove_segments(service_id, but=[(run.assignment.job_id, run.assignment.generation) for run in adopted])


def _entered(parts: ExitStack, part: T, close: Callable[[T], None]) -> T:
    parts.callback(close, part)
    return part


def _store(folder: StateFolder) -> SqliteStore:
    try:
        return SqliteStore(folder.store)
    except (sqlite3.Error, GradwireError) as error:
        raise WrongSetting("--state", f"{folder.store} cannot be opened: {error}; name another folder") from error


def _storage(folder: StateFolder) -> Storage:
    """The storage, proved to work."""
    storage = Storage(str(folder.storage))
    try:
        storage.write("probe", b"x")
        storage.delete("probe")
        folder.cache.mkdir(exist_ok=True)
    except OSError as error:
        raise WrongSetting("--state", f"{folder.storage} cannot be written: {error}; name another folder") from error
    return storage
