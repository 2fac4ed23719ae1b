"""Keeps the jobs' accounts, and makes their series when Prometheus asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gradwire.telemetry import Telemetry
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.metrics import account as accounts
from service.metrics import catalogue as c
from service.metrics.account import Account
from service.metrics.catalogue import Declared
from service.metrics.series import AT_WORK, has_histograms, samples

KEPT_S = 3600.0
"""A job's series go so long after its end, unless the operator says otherwise."""
MAX_JOBS = 200
"""So many jobs have series of their own: those at work, then those that changed last."""
MAX_ENDED = MAX_JOBS
"""So many jobs that have ended are remembered, whether anybody scrapes or not: of more nobody would see a series."""


class JobCollector(Collector):
    """`observe` and `measure` may be called from any thread and keep nobody waiting: accounts are never changed, only
    replaced.

    Args:
        counts: how many jobs are in each state.
        waits, recoveries: take seconds.
        failed: takes the code of a job's error.
    """

    def __init__(
        self,
        counts: Callable[[], Mapping[JobState, int]],
        *,
        waits: Histogram,
        recoveries: Histogram,
        failed: Callable[[str], None],
        kept_s: float = KEPT_S,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._lock = threading.Lock()
        self._accounts: dict[str, Account] = {}
        self._counts = counts
        self._waits = waits
        self._recoveries = recoveries
        self._failed = failed
        self._kept_s = kept_s
        self._wall = wall

    def observe(self, record: JobRecord) -> None:
        """A job has changed."""
        now_s = self._wall()
        with self._lock:
            old = self._accounts.pop(record.id, None) or accounts.opened(record)
            self._accounts[record.id] = accounts.observed(old, record, now_s)
            if old.record.state is not record.state:
                self._tell_of_move(old, record, now_s)
                if record.has_ended:
                    self._forget_surplus()

    def measure(self, record: JobRecord, telemetry: Telemetry) -> None:
        """The job's present trainer has counted."""
        with self._lock:
            known = self._accounts.get(record.id) or accounts.opened(record)
            self._accounts[record.id] = accounts.measured(known, record.generation, telemetry)

    def _tell_of_move(self, old: Account, record: JobRecord, now_s: float) -> None:
        if record.state is JobState.STARTING and old.queued_since_s is not None:
            self._waits.observe(max(now_s - old.queued_since_s, 0.0))
        if record.state is JobState.RUNNING and old.recovering_since_s is not None:
            self._recoveries.observe(max(now_s - old.recovering_since_s, 0.0))
        if record.state is JobState.FAILED and record.error is not None:
            self._failed(record.error.code)

    def _forget_surplus(self) -> None:
        ended = [job_id for job_id, one in self._accounts.items() if one.record.has_ended]
        for job_id in ended[:-MAX_ENDED]:
            del self._accounts[job_id]

    def accounts(self) -> list[Account]:
        """Of the jobs that have series, those at work first."""
        with self._lock:
            self._accounts = {job_id: one for job_id, one in self._accounts.items() if not self._is_old(one)}
            newest = list(self._accounts.values())[::-1]
        return sorted(newest, key=_rank)[:MAX_JOBS]

    def describe(self) -> list[Metric]:
        """Nothing: the registry need not collect to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Jobs by state, the queue, then the series of each job."""
        now_s = self._wall()
        counts = self._counts()
        by_state = family(c.JOBS)
        for state in JobState:
            by_state.add_metric([state.value], counts.get(state, 0))
        yield by_state
        chosen = self.accounts()
        oldest = family(c.QUEUE_OLDEST)
        oldest.add_metric([], self._oldest_wait_s(now_s))
        yield oldest
        families = {declared.name: family(declared) for declared in (*c.JOB, *c.LIVE_JOB)}
        for one in chosen:
            for declared, labels, value in samples(one, now_s):
                families[declared.name].add_metric(labels, value)
        yield from families.values()
        yield _phases([one for one in chosen if has_histograms(one)])

    def _oldest_wait_s(self, now_s: float) -> float:
        with self._lock:
            since = [one.queued_since_s for one in self._accounts.values() if one.queued_since_s is not None]
        return max(now_s - min(since, default=now_s), 0.0)

    def _is_old(self, one: Account) -> bool:
        ended_s = one.record.finished_at_s
        return ended_s is not None and self._wall() - ended_s > self._kept_s


def family(declared: Declared) -> GaugeMetricFamily | CounterMetricFamily:
    """An empty family of the client library."""
    kind = CounterMetricFamily if declared.kind == "counter" else GaugeMetricFamily
    return kind(declared.name, declared.help, labels=declared.labels)


def _phases(chosen: list[Account]) -> Metric:
    made = HistogramMetricFamily(c.JOB_PHASE.name, c.JOB_PHASE.help, labels=c.JOB_PHASE.labels)
    bounds = [*map(str, c.JOB_PHASE.buckets), "+Inf"]
    for one in chosen:
        for phase, durations in one.total.phases.items():
            buckets = list(zip(bounds, map(float, accumulate(durations.counts)), strict=True))
            made.add_metric([one.record.id, phase], buckets, durations.sum_s)
    return made


def _rank(one: Account) -> int:
    if one.record.state in AT_WORK:
        return 0
    return 2 if one.record.has_ended else 1
