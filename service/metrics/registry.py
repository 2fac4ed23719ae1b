"""The registry with everything in it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)  # fmt: skip
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from service.jobs.states import JobState
from service.metrics import catalogue as c
from service.metrics.catalogue import Declared
from service.metrics.collector import KEPT_S, JobCollector, family

KNOWN_CODES = (
    "data_missing", "impure_model", "internal", "memory_full", "nonfinite", "shard_failed", "storage_full",
    "storage_unavailable", "trainer_died", "unreached_variable", "workers_died",
)  # fmt: skip
"""Counted from 0 on, so that the first failure is an increase; others have a series once they have occurred."""
CODE = re.compile("[a-z_]{1,40}")
MAX_CODES = 64
OTHER = "other"


class Failures:
    """Counts failed jobs by the code of their error, of which there are not arbitrarily many."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._codes = {*KNOWN_CODES, OTHER}
        for code in self._codes:
            counter.labels(code)

    def count(self, code: str) -> None:
        """One more."""
        if CODE.fullmatch(code) and len(self._codes) < MAX_CODES:
            self._codes.add(code)
        self._counter.labels(code if code in self._codes else OTHER).inc()


class Metrics:
    """What the coordinator counts by itself, and the jobs' collector."""

    def __init__(
        self,
        counts: Callable[[], Mapping[JobState, int]],
        *,
        storage: Path | None = None,
        store: Path | None = None,
        kept_s: float = KEPT_S,
    ) -> None:
        """`counts` tells how many jobs are in each state; `storage` is the folder whose disk is watched, `store` the
        store's file; a job's series go `kept_s` after its end."""
        # They would be one more series for each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.rpcs = self._counter(c.RPCS)
        self.rpc_duration = self._histogram(c.RPC_DURATION)
        self.store_write = self._histogram(c.STORE_WRITE)
        self.store_writable = Gauge(c.STORE_WRITABLE.name, c.STORE_WRITABLE.help, registry=self.registry)
        self.jobs = JobCollector(
            counts,
            waits=self._histogram(c.QUEUE_WAIT),
            recoveries=self._histogram(c.RECOVERY),
            failed=Failures(self._counter(c.FAILURES)).count,
            kept_s=kept_s,
        )
        self.registry.register(self.jobs)
        self.registry.register(_Build())
        if storage is not None:
            self.registry.register(_Disk(storage, store))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def _counter(self, declared: Declared) -> Counter:
        return Counter(declared.name, declared.help, declared.labels, registry=self.registry)

    def _histogram(self, declared: Declared) -> Histogram:
        return Histogram(
            declared.name, declared.help, declared.labels, buckets=declared.buckets, registry=self.registry
        )  # fmt: skip


class _Build(Collector):
    def collect(self) -> Iterator[Metric]:
        try:
            number = version("gradwire")
        except PackageNotFoundError:
            number = "unknown"  # run from a source tree
        name = c.BUILD.name.removesuffix("_info")
        yield InfoMetricFamily(name, c.BUILD.help, value={"version": number})


class _Disk(Collector):
    """The storage's file system, and the store."""

    def __init__(self, storage: Path, store: Path | None) -> None:
        self._storage = storage
        self._store = store

    def collect(self) -> Iterator[Metric]:
        with contextlib.suppress(OSError):  # a disk that is gone keeps nobody from seeing the rest
            disk = os.statvfs(self._storage)
            yield _gauge(c.STORAGE_SIZE, disk.f_blocks * disk.f_frsize)
            yield _gauge(c.STORAGE_FREE, disk.f_bavail * disk.f_frsize)
            if self._store is not None:
                files = self._store.parent.glob(f"{self._store.name}*")  # with its write-ahead log
                yield _gauge(c.STORE_SIZE, sum(file.stat().st_size for file in files))


def _gauge(declared: Declared, value: float) -> GaugeMetricFamily:
    made = family(declared)
    assert isinstance(made, GaugeMetricFamily)
    made.add_metric([], value)
    return made
