"""The series of one job, from its account: pure functions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from gradwire.progress import WorkerView
from gradwire.telemetry import DIRECTIONS, TRANSPORTS, Telemetry
from service.jobs.states import JobState
from service.metrics import catalogue as c
from service.metrics.account import Account
from service.metrics.catalogue import Declared

MAX_METRICS = 32
"""Of a job's named metrics in each set, so many have series: those that come first."""
MAX_LABEL = 100
"""Characters of what users have named."""

WORKER_STATES = ("starting", "ready", "slow", "spare")
AT_WORK = frozenset({JobState.STARTING, JobState.RUNNING, JobState.RECOVERING})

Sample = tuple[Declared, tuple[str, ...], float]
"""A metric, its labels' values, and its own."""


def samples(account: Account, now_s: float) -> Iterator[Sample]:
    """All series of a job but its histograms."""
    record, total = account.record, account.total
    yield from _lasting(account, total)
    if not record.has_ended:
        yield from _counters(account, total)
        yield from _living(account, total, now_s)


def has_histograms(account: Account) -> bool:
    """Whether the job has a trainer, whose steps take time."""
    return account.record.state in AT_WORK and bool(account.present.phases)


def _lasting(account: Account, total: Telemetry) -> Iterator[Sample]:
    record, now = account.record, account.record.snapshot
    job = (record.id,)
    yield c.JOB_INFO, (record.id, record.name[:MAX_LABEL]), 1.0
    yield c.JOB_STATE, (record.id, record.state.value), 1.0
    yield c.JOB_STEP, job, now.step
    yield c.JOB_STEPS_PLANNED, job, now.total_steps
    yield c.JOB_STARTS, job, record.generation
    if now.metrics:
        yield c.JOB_EPOCH, job, now.epoch
        yield c.JOB_SPEED, job, now.examples_per_second
        values = [*now.metrics.values(), *now.eval_metrics.values()]
        yield c.JOB_FINITE, job, float(all(math.isfinite(value) for value in values))
    for name, values_of_set in (("train", now.metrics), ("validation", now.eval_metrics)):
        yield from _metrics(record.id, name, values_of_set)
    if not math.isnan(total.gradient_norm):
        yield c.JOB_NORM, job, total.gradient_norm
    if not math.isnan(total.learning_rate):
        yield c.JOB_LEARNING_RATE, job, total.learning_rate
    if now.checkpoint_step:
        yield c.JOB_CHECKPOINT_STEP, job, now.checkpoint_step
    if total.checkpoint_at_s:
        yield c.JOB_CHECKPOINT_SIZE, job, total.checkpoint_bytes
        yield c.JOB_CHECKPOINT_DURATION, job, total.checkpoint_s


def _metrics(job_id: str, set_name: str, values: Mapping[str, float]) -> Iterator[Sample]:
    for name, value in list(values.items())[: MAX_METRICS + 1]:
        if name == "loss":
            yield c.JOB_LOSS, (job_id, set_name), value
        else:
            yield c.JOB_METRIC, (job_id, set_name, name[:MAX_LABEL]), value


def _counters(account: Account, total: Telemetry) -> Iterator[Sample]:
    job_id = account.record.id
    job = (job_id,)
    yield c.JOB_STEPS, job, total.steps
    yield c.JOB_EXAMPLES, job, total.examples
    yield c.JOB_COMMITTED, job, account.committed_s
    yield c.JOB_NONFINITE, job, total.nonfinite
    yield c.JOB_TRACES, (job_id, "start"), total.start_traces
    yield c.JOB_TRACES, (job_id, "step"), total.step_traces
    yield c.JOB_DEATHS, job, total.worker_deaths
    yield c.JOB_RECOVERIES, job, account.recoveries
    yield c.JOB_RECOVERY_TIME, job, account.recovery_s
    yield c.JOB_REFUSED, job, total.refused
    yield c.JOB_STRAGGLERS, job, total.stragglers
    yield c.JOB_CHECKPOINTS, job, total.checkpoints
    yield c.JOB_CHECKPOINT_FAILURES, job, total.checkpoint_failures
    for transport in TRANSPORTS:
        for direction in DIRECTIONS:
            size_bytes = total.exchanged_bytes.get((transport, direction), 0)
            yield c.JOB_EXCHANGED, (job_id, transport, direction), size_bytes


def _living(account: Account, total: Telemetry, now_s: float) -> Iterator[Sample]:
    record = account.record
    counts = Counter(map(_state, record.snapshot.workers))
    for state in WORKER_STATES:
        yield c.JOB_WORKERS, (record.id, state), counts[state]
    yield c.JOB_WORKERS_WANTED, (record.id,), record.resources.workers
    since_s = max(total.checkpoint_at_s, account.running_since_s or 0.0)
    if record.state is JobState.RUNNING and since_s:
        yield c.JOB_CHECKPOINT_AGE, (record.id,), max(now_s - since_s, 0.0)


def _state(worker: WorkerView) -> str:
    return "spare" if worker.phase == "spare" else worker.state.lower()
