"""What stays in the coordinator's memory of jobs that have ended: what the metrics show of the last ones, no more."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest

from gradwire.storage import Storage
from service.jobs.record import JobRecord
from service.jobs.states import JobState
from service.metrics import Metrics
from service.metrics.account import Account
from service.metrics.collector import MAX_ENDED, MAX_JOBS
from service.run import LiveJob, Run
from service.store.sqlite import SqliteStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab

KINDS = (JobRecord, Account, LiveJob, Run)


def counted() -> Counter[type]:
    gc.collect()
    return Counter(type(found) for found in gc.get_objects() if isinstance(found, KINDS))


def play(lab: Lab, number: int) -> None:
    """A job that runs, and succeeds or is cancelled."""
    job_id = lab.submit(f"{number:012x}")
    lab.run()
    if number % 3 == 2:
        lab.ask("cancel", job_id=job_id)
    lab.trainer.end = DONE
    for worker in lab.engine.workers:
        worker.end = DONE
    lab.tick(0.3, times=4)
    assert lab.job(job_id).state in (JobState.SUCCEEDED, JobState.CANCELLED)
    lab.engine.trainers.clear()
    lab.engine.workers.clear()


def test_jobs_that_have_ended_leave_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ENDED <= MAX_JOBS, "of more nobody would see a series"
    kept = 10
    monkeypatch.setattr("service.metrics.collector.MAX_ENDED", kept)
    store = SqliteStore(tmp_path / "store")
    lab = make_lab(Storage(str(tmp_path)), store, metrics=Metrics(store.counts).jobs)
    lab.supervisor.engine_started()
    before = counted()
    for number in range(3 * kept):
        play(lab, number)
    left = counted() - before
    assert left[Account] == kept, "whether anybody scrapes or not"
    assert left[JobRecord] <= kept + 2 and left[LiveJob] + left[Run] <= 2, left
    store.close()
