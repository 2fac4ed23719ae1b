"""What Prometheus sees: every metric of the coordinator is declared here."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from service.jobs.record import JobRecord
from service.jobs.states import JobState

KEPT_S = 600.0
"""A job's series go so long after its end."""
MAX_JOBS = 200
"""So many jobs have series of their own: those that changed last."""
RPC_BUCKETS_S = (0.002, 0.01, 0.05, 0.25, 1.0, 5.0)

JOB_SERIES: Mapping[str, tuple[str, Callable[[JobRecord], float]]] = {
    "gradwire_job_step": ("Committed steps of a job", lambda job: float(job.snapshot.step)),
    "gradwire_job_steps_planned": ("Steps a job has in all", lambda job: float(job.snapshot.total_steps)),
    "gradwire_job_loss": ("Training loss of the epoch so far", lambda job: job.snapshot.metrics.get("loss", math.nan)),
    "gradwire_job_examples_per_second": ("Examples a job trains on", lambda job: job.snapshot.examples_per_second),
    "gradwire_job_workers": (
        "Workers that are ready",
        lambda job: float(sum(worker.state in ("READY", "SLOW") for worker in job.snapshot.workers)),
    ),
    "gradwire_job_generation": ("Starts of a job's trainer", lambda job: float(job.generation)),
}


class JobSeries(Collector):
    """Series per job, made when Prometheus asks; `observe` may be called from any thread."""

    def __init__(self, counts: Callable[[], Mapping[JobState, int]], wall: Callable[[], float] = time.time) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, JobRecord] = {}
        self._counts = counts
        self._wall = wall

    def observe(self, record: JobRecord) -> None:
        """A job has changed."""
        with self._lock:
            self._jobs.pop(record.id, None)
            self._jobs[record.id] = record
            if len(self._jobs) > MAX_JOBS:
                del self._jobs[next(iter(self._jobs))]

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs by state, then the series of each job."""
        counts = self._counts()
        by_state = GaugeMetricFamily("gradwire_jobs", "Jobs by state", labels=["state"])
        for state in JobState:
            by_state.add_metric([state.value], counts.get(state, 0))
        yield by_state
        with self._lock:
            self._jobs = {job.id: job for job in self._jobs.values() if not self._is_old(job)}
            jobs = list(self._jobs.values())
        for name, (text, value) in JOB_SERIES.items():
            family = GaugeMetricFamily(name, text, labels=["job"])
            for job in jobs:
                family.add_metric([job.id], value(job))
            yield family

    def _is_old(self, job: JobRecord) -> bool:
        return job.finished_at_s is not None and self._wall() - job.finished_at_s > KEPT_S


class _Build(Collector):
    def collect(self) -> Iterator[Metric]:
        try:
            number = version("gradwire")
        except PackageNotFoundError:
            number = "unknown"  # run from a source tree
        yield InfoMetricFamily("gradwire_build", "The program", value={"version": number})


class Metrics:
    """The registry with everything in it."""

    def __init__(self, counts: Callable[[], Mapping[JobState, int]]) -> None:
        """`counts` tells how many jobs are in each state."""
        self.registry = CollectorRegistry()
        self.jobs = JobSeries(counts)
        self.registry.register(self.jobs)
        self.registry.register(_Build())
        self.rpcs = Counter("gradwire_rpc", "Calls of the API that ended", ["method", "code"], registry=self.registry)
        self.rpc_duration_seconds = Histogram(
            "gradwire_rpc_duration_seconds",
            "How long calls of the API took; streams last as long as their client wants",
            ["method"],
            buckets=RPC_BUCKETS_S,
            registry=self.registry,
        )
