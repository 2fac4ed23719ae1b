"""Workers that hang, are slow, or die of a sample: what becomes of them, and what people are told."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradwire.progress import Progress, WorkerView
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.dispatch import MAX_SHARD_FAILURES
from tests.integration import deadly
from tests.integration.cases import convolutional, spec_of, write_npz
from tests.integration.lab import SERVICE_ID, Lab, lab, run
from tests.overload import overload
from workers.exchange.segment import job_folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("worker_faults")
    write_npz(convolutional(has_state=True), made / "case.npz")
    return made


def spec(*, min_workers: int = 1, steps: int = STEPS) -> JobSpec:
    resources = {"minWorkers": min_workers, "workers": max(min_workers, 2)}
    return spec_of(convolutional(has_state=True), "server:case.npz", training={"steps": steps}, resources=resources)


def ready(progress: Progress) -> list[WorkerView]:
    return [view for view in progress.snapshot.workers if view.state in ("READY", "SLOW")]


def messages(job: Lab) -> list[str]:
    return [event.message for event in job.progress().events]


def said(job: Lab, *parts: str) -> Callable[[Progress], bool]:
    return lambda progress: any(all(part in event.message for part in parts) for event in progress.events)


def test_a_hung_worker_is_named_dropped_and_told_and_changes_no_bit(folder: Path) -> None:
    with lab(spec(min_workers=2), folder, workers=1) as job:
        job.wait_for(lambda progress: len(ready(progress)) == 1)
        job.add_worker()
        hung = job.workers[0]
        assert hung.process.pid is not None
        os.kill(hung.process.pid, signal.SIGSTOP)
        stopped_s = time.monotonic()
        job.wait_for(said(job, "w1 left: hung in phase", f"process {hung.process.pid}"))
        noticed_s = time.monotonic() - stopped_s
        job.add_worker()
        job.wait_for(lambda progress: progress.snapshot.is_running)
        os.kill(hung.process.pid, signal.SIGCONT)
        assert hung.pipe.poll(20)
        outcome, _ = hung.pipe.recv()
        result = job.result()
    assert noticed_s < 6 * overload()
    assert outcome.state == "CANCELLED"
    assert outcome.error is not None and "hung in phase" in outcome.error.message, "it is told why it was let go"
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert result.digest == run(spec(), folder, workers=1).digest


def test_a_worker_that_comes_after_its_trainers_end_goes_at_once(folder: Path) -> None:
    with lab(spec(), folder, workers=0) as job:
        assert job.trainer is not None
        for is_swept in (False, True):
            if is_swept:
                shutil.rmtree(job_folder(SERVICE_ID, job.job_id, job.generation))
            else:
                job.trainer.process.kill()
                job.trainer.process.join()
            outcome, _ = job.add_worker().pipe.recv()
            assert (outcome.state, outcome.error.code) == ("CANCELLED", "trainer_gone")


def test_a_slow_worker_is_reported_and_never_dropped(folder: Path) -> None:
    """It runs for a tenth of the time: its heartbeats come, and late."""
    with lab(spec(min_workers=2, steps=4000), folder, workers=2) as job:
        job.wait_for(lambda progress: progress.snapshot.step > 20)
        pid = job.workers[0].process.pid
        assert pid is not None
        is_over = threading.Event()
        throttle = threading.Thread(target=slow_down, args=(pid, is_over))
        throttle.start()
        try:
            job.wait_for(said(job, "w1 is slow, in phase", "for a shard that takes the others"))
            slow = [view.id for view in job.progress().snapshot.workers if view.state == "SLOW"]
            assert [name[-2:] for name in slow] == ["w1"]
        finally:
            is_over.set()
            throttle.join()
        job.wait_for(lambda progress: not any(view.state == "SLOW" for view in progress.snapshot.workers))
        assert not any("left" in message for message in messages(job))
        assert sum("is slow" in message for message in messages(job)) == 1


def slow_down(pid: int, is_over: threading.Event) -> None:
    """Stops and continues a process; each stop is longer than the shard of a normal worker by far."""
    while not is_over.is_set():
        os.kill(pid, signal.SIGSTOP)
        is_over.wait(1.5)
        os.kill(pid, signal.SIGCONT)
        is_over.wait(0.15)


def test_a_sample_that_ends_workers_is_found(tmp_path: Path) -> None:
    document = deadly.write(tmp_path)
    content = (tmp_path / "source.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    Storage(str(tmp_path / "storage")).write(f"artifacts/{digest}", content)
    document["model"]["python"]["source"] = {"artifact": digest, "label": "source"}
    deaths = 0
    with lab(JobSpec.model_validate(document), tmp_path, workers=1) as job:
        while not job.trainer.pipe.poll(0.05):  # type: ignore[union-attr]  # it was started
            if not job.workers[-1].process.is_alive():
                assert job.workers[-1].process.exitcode == -signal.SIGSEGV
                deaths += 1
                job.add_worker()
        result = job.result()
    error = result.outcome.error
    assert error is not None and error.code == "shard_failed"
    rows = re.search(r"shard \d of step \d, rows ([\d, ]+) of .*deadly\.npz", error.message)
    assert rows is not None and str(deadly.DEADLY_ROW) in rows[1].split(", "), error.message
    assert f"ended {MAX_SHARD_FAILURES} workers" in error.message
    assert deaths >= MAX_SHARD_FAILURES - 1
    assert error.details.count("hung up") == MAX_SHARD_FAILURES
