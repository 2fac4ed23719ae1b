"""The metrics of jobs: what Prometheus sees in the course of their lives."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from gradwire.progress import ErrorView, Snapshot, WorkerView
from gradwire.spec.job import ResourceSpec
from gradwire.telemetry import BUCKETS_S, Durations, Telemetry
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.metrics import Metrics, catalogue, page
from service.metrics.catalogue import Declared
from service.metrics.collector import MAX_JOBS
from service.metrics.series import MAX_METRICS

DECLARED = (*catalogue.SERVICE, *catalogue.JOB, *catalogue.LIVE_JOB, *catalogue.RUNNING_JOB, *catalogue.PROCESS)


class Scraped:
    """A registry whose clock the test moves, and its last answer."""

    def __init__(self, kept_s: float = 3600.0) -> None:
        self.now_s = 1000.0
        self.metrics = Metrics(lambda: {JobState.RUNNING: 1}, kept_s=kept_s)
        self.metrics.jobs._wall = lambda: self.now_s

    def lines(self) -> list[str]:
        return generate_latest(self.metrics.registry).decode().splitlines()

    def value(self, series: str) -> float:
        found = [line.rpartition(" ")[2] for line in self.lines() if line.rpartition(" ")[0] == series]
        assert len(found) == 1, f"{series}: {found}"
        return float(found[0])

    def has(self, text: str) -> bool:
        return any(line.startswith(text) for line in self.lines())


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


def job(job_id: str = "ab", state: JobState = JobState.RUNNING, **values: Any) -> JobRecord:
    record = JobRecord(
        id=job_id, name="digits", request_id=job_id, spec_digest="d", created_at_s=990.0,
        resources=ResourceSpec(workers=2), state=state, generation=1,
    )  # fmt: skip
    return replace(record, **values)


def counted(step: int, steps: int, step_s: float = 0.5, **values: Any) -> Telemetry:
    """Of a start that has come to `step` by `steps` steps, each of which has computed for so long."""
    compute = Durations(counts=(*[0] * 8, steps, 0, 0, 0), sum_s=steps * step_s)
    return Telemetry(step=step, steps=steps, examples=32 * steps, phases={"compute": compute}, **values)


def test_counters_go_on_over_the_starts_of_a_trainer(scraped: Scraped) -> None:
    jobs = scraped.metrics.jobs
    jobs.observe(job())
    jobs.measure(job(), counted(6, 6, worker_deaths=1))
    jobs.measure(job(), counted(10, 10, worker_deaths=2, gradient_norm=2.5, exchanged_bytes={("flight", "weights"): 7}))
    # The trainer dies after step 10; the next goes on from the checkpoint of step 8.
    jobs.measure(job(generation=2), counted(8, 0))
    jobs.measure(job(), counted(10, 11))  # the first one's last words come too late
    jobs.measure(job(generation=2), counted(12, 4, exchanged_bytes={("flight", "weights"): 5}))
    assert scraped.value('gradwire_job_steps_total{job_id="ab"}') == 14
    assert scraped.value('gradwire_job_examples_total{job_id="ab"}') == 14 * 32
    assert scraped.value('gradwire_job_worker_deaths_total{job_id="ab"}') == 2
    assert scraped.value('gradwire_job_gradient_norm{job_id="ab"}') == 2.5
    assert scraped.value(
        'gradwire_job_exchanged_bytes_total{direction="weights",job_id="ab",transport="flight"}'
    ) == 12  # fmt: skip
    assert scraped.value('gradwire_job_phase_seconds_count{job_id="ab",phase="compute"}') == 14
    assert scraped.value('gradwire_job_phase_seconds_bucket{job_id="ab",le="0.3",phase="compute"}') == 0
    assert scraped.value('gradwire_job_phase_seconds_bucket{job_id="ab",le="1.0",phase="compute"}') == 14
    # Steps 9 and 10 were computed twice; only what took the job further than ever before counts.
    assert scraped.value('gradwire_job_committed_step_seconds_total{job_id="ab"}') == pytest.approx(12 * 0.5)


def test_a_job_that_has_ended_keeps_gauges_and_goes_in_the_end() -> None:
    scraped = Scraped(kept_s=60.0)
    snapshot = Snapshot(is_running=True, step=3, total_steps=9, epoch=1, metrics={"loss": 0.25, "accuracy": 0.5})
    record = job(snapshot=replace(snapshot, eval_metrics={"loss": math.nan}))
    scraped.metrics.jobs.observe(record)
    scraped.metrics.jobs.measure(record, counted(3, 3))
    assert scraped.has("gradwire_job_phase_seconds_bucket{") and scraped.has("gradwire_job_steps_total{")
    scraped.metrics.jobs.observe(replace(record, state=JobState.SUCCEEDED, finished_at_s=scraped.now_s))
    assert scraped.value('gradwire_job_loss{job_id="ab",set="train"}') == 0.25
    assert scraped.value('gradwire_job_metric{job_id="ab",metric="accuracy",set="train"}') == 0.5
    assert math.isnan(scraped.value('gradwire_job_loss{job_id="ab",set="validation"}'))
    assert scraped.value('gradwire_job_is_finite{job_id="ab"}') == 0
    assert scraped.value('gradwire_job_state{job_id="ab",state="SUCCEEDED"}') == 1
    assert not scraped.has("gradwire_job_phase_seconds_bucket{") and not scraped.has("gradwire_job_steps_total{")
    scraped.now_s += 61.0
    assert 'job_id="ab"' not in "".join(scraped.lines())


def test_waiting_recovering_and_failing_are_seen(scraped: Scraped) -> None:
    observe = scraped.metrics.jobs.observe
    observe(job(state=JobState.QUEUED))
    assert scraped.value("gradwire_queue_oldest_wait_seconds") == 10.0
    observe(job(state=JobState.STARTING))
    assert scraped.value("gradwire_queue_wait_seconds_sum") == 10.0
    assert scraped.value("gradwire_queue_oldest_wait_seconds") == 0.0
    observe(job())
    observe(job(state=JobState.RECOVERING))
    scraped.now_s += 4.0
    observe(job())
    assert scraped.value('gradwire_job_recoveries_total{job_id="ab"}') == 1
    assert scraped.value('gradwire_job_recovery_seconds_total{job_id="ab"}') == 4.0
    assert scraped.value('gradwire_recovery_duration_seconds_bucket{le="5.0"}') == 1
    scraped.now_s += 30.0
    assert scraped.value('gradwire_job_checkpoint_age_seconds{job_id="ab"}') == 30.0
    scraped.metrics.jobs.measure(job(), counted(5, 5, checkpoint_at_s=scraped.now_s - 3.0, checkpoint_bytes=99))
    assert scraped.value('gradwire_job_checkpoint_age_seconds{job_id="ab"}') == 3.0
    assert scraped.value('gradwire_job_checkpoint_size_bytes{job_id="ab"}') == 99
    assert scraped.value('gradwire_job_failures_total{code="nonfinite"}') == 0
    for job_id, code in (("ab", "nonfinite"), ("cd", "a_new_one"), ("ef", "Not a word")):
        observe(job(job_id))
        observe(job(job_id, JobState.FAILED, error=ErrorView(code=code, message="m"), finished_at_s=scraped.now_s))
    assert scraped.value('gradwire_job_failures_total{code="nonfinite"}') == 1
    assert scraped.value('gradwire_job_failures_total{code="a_new_one"}') == 1
    assert scraped.value('gradwire_job_failures_total{code="other"}') == 1


def test_workers_are_counted_by_state(scraped: Scraped) -> None:
    def worker(number: int, state: Any, phase: str = "compute") -> WorkerView:
        return WorkerView(id=f"w{number}", pid=1, node="n", state=state, phase=phase, transport="flight")

    workers = (worker(1, "READY"), worker(2, "READY", "spare"), worker(3, "SLOW"), worker(4, "DEAD"))
    scraped.metrics.jobs.observe(job(snapshot=Snapshot(is_running=True, workers=workers)))
    counts = {
        state: scraped.value(f'gradwire_job_workers{{job_id="ab",state="{state}"}}') for state in ("ready", "slow")
    }
    assert counts == {"ready": 1.0, "slow": 1.0}
    assert scraped.value('gradwire_job_workers{job_id="ab",state="spare"}') == 1.0
    assert scraped.value('gradwire_job_workers_wanted{job_id="ab"}') == 2.0


def test_series_are_bounded(scraped: Scraped) -> None:
    many = {f"m{number}": 1.0 for number in range(500)}
    scraped.metrics.jobs.observe(job("first", snapshot=Snapshot(is_running=True, metrics={"loss": 1.0, **many})))
    for number in range(MAX_JOBS + 50):
        scraped.metrics.jobs.observe(job(f"j{number}", JobState.SUCCEEDED, finished_at_s=scraped.now_s))
    lines = scraped.lines()
    assert sum(line.startswith("gradwire_job_metric{") for line in lines) == MAX_METRICS
    states = [line for line in lines if line.startswith("gradwire_job_state{")]
    # One at work keeps its place, however many end after it; of those that have ended the last stay.
    assert len(states) == MAX_JOBS and 'job_id="first"' in states[0] and f'job_id="j{MAX_JOBS + 49}"' in "".join(states)
    assert 'job_id="j0"' not in "".join(states)


def test_jobs_that_have_ended_are_forgotten_without_a_scrape(scraped: Scraped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.metrics.collector.MAX_ENDED", 3)
    for job_id in ("a", "b", "c", "d", "e"):
        scraped.metrics.jobs.observe(job(job_id))
        if job_id != "a":
            scraped.metrics.jobs.observe(job(job_id, JobState.FAILED, finished_at_s=scraped.now_s))
    assert sorted(one.record.id for one in scraped.metrics.jobs.accounts()) == ["a", "c", "d", "e"]


def test_the_size_of_a_large_scrape(scraped: Scraped) -> None:
    """Time follows lines: 200 jobs, 20 of them at work with all histograms, stay a sixth of what is too slow."""
    phases = {name: Durations(counts=(1,) * 12, sum_s=1.0) for name in ("data", "compute", "exchange", "sum", "apply")}
    snapshot = Snapshot(is_running=True, metrics={"loss": 1.0, "a": 1.0}, eval_metrics={"loss": 1.0, "a": 1.0})
    for number in range(200):
        record = job(f"j{number}", snapshot=snapshot)
        scraped.metrics.jobs.observe(record)
        scraped.metrics.jobs.measure(record, Telemetry(phases=phases, checkpoint_at_s=1.0, gradient_norm=1.0))
        if number >= 20:
            scraped.metrics.jobs.observe(replace(record, state=JobState.SUCCEEDED, finished_at_s=scraped.now_s))
    assert 5000 < len(scraped.lines()) < 6500


def is_known(line: str) -> bool:
    name = re.split(r"[{ ]", line)[0]
    return any(name in (one.name, *_suffixed(one)) for one in DECLARED)


def _suffixed(one: Declared) -> list[str]:
    return [f"{one.name}_{suffix}" for suffix in ("bucket", "sum", "count")] if one.kind == "histogram" else []


def test_everything_that_is_exported_is_declared(tmp_path: Path) -> None:
    metrics = Metrics(dict, storage=tmp_path, store=tmp_path / "store")
    metrics.jobs.observe(job(snapshot=Snapshot(is_running=True, metrics={"loss": 1.0, "a": 1.0}, checkpoint_step=1)))
    metrics.jobs.measure(job(), counted(1, 1, learning_rate=0.1, gradient_norm=1.0, checkpoint_at_s=1.0))
    metrics.rpcs.labels("GetJob", "OK").inc()
    metrics.rpc_duration.labels("GetJob").observe(0.1)
    lines = [line for line in generate_latest(metrics.registry).decode().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not is_known(line)] == []
    exported = {re.split(r"[{ ]", line)[0] for line in lines}
    assert [one.name for one in DECLARED if not exported & {one.name, *_suffixed(one)}] == []


@pytest.mark.parametrize("one", DECLARED, ids=lambda one: one.name)
def test_names_and_bounds(one: Declared) -> None:
    assert re.fullmatch(r"(gradwire|process|python)_[a-z_]+", one.name)
    assert one.help[0].isupper() or one.help.startswith("1")
    assert one.name.endswith("_total") is (one.kind == "counter")
    assert len(one.buckets) < 12 and len(one.labels) <= 5
    assert bool(one.buckets) is (one.kind == "histogram")


def test_buckets_reach_from_a_tenth_of_a_millisecond_to_a_minute() -> None:
    assert (BUCKETS_S[0], BUCKETS_S[-1]) == (0.0001, 60.0)


def test_the_page_is_current() -> None:
    assert page.PAGE.read_text() == page.text()
