"""The supervisor: from the queue to the end, and what waiting jobs are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.progress import Progress, Snapshot
from gradwire.storage import Storage
from service.caretaker import LAST_WORDS_S
from service.jobs.states import JobState
from service.retirement import GRACE_S
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(Storage(str(tmp_path)), MemoryStore())
    made.supervisor.engine_started()
    return made


def test_a_job_goes_from_the_queue_to_its_end(lab: Lab) -> None:
    lab.submit()
    assert lab.job().state is JobState.QUEUED
    lab.tick()
    assert lab.job().state is JobState.STARTING and not lab.engine.workers
    lab.trainer.address = "/dev/shm/x"
    lab.tick()
    assert [(one.id, one.node, one.cpus) for one in lab.engine.workers] == [
        ("ab12ab12ab12-g1-w0", "n", 1.0), ("ab12ab12ab12-g1-w1", "n", 1.0)
    ]  # fmt: skip
    assert lab.engine.workers[0].assignment.exchange_address == "/dev/shm/x"
    lab.trainer.emit("worker", "worker w0 is ready")
    lab.trainer.emit("state", "the first step is under way")
    lab.trainer.snapshot = Snapshot(is_running=True, step=3, total_steps=9, metrics={"loss": 0.5})
    lab.trainer.emit("progress", "step 3 of 9")
    lab.tick()
    assert lab.job().state is JobState.RUNNING and lab.job().snapshot.step == 3
    lab.trainer.end = DONE
    lab.trainer.emit("export", "exported as keras")
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=9, weights_digest="d", exports=("keras",))
    lab.tick(times=3)
    job = lab.job()
    assert job.state is JobState.SUCCEEDED and job.snapshot.exports == ("keras",) and job.snapshot.step == 9
    assert (job.started_at_s, job.finished_at_s, job.generation) == (5000.0, 5000.0, 1)
    assert lab.messages() == [
        "queued", "starting the trainer", "building the model on 2 workers", "worker w0 is ready",
        "training with 2 workers", "the first step is under way", "step 3 of 9", "exported as keras", "finished",
    ]  # fmt: skip


def test_the_last_words_of_a_trainer_are_waited_for(lab: Lab) -> None:
    lab.submit()
    lab.run(step=8)
    on_its_way = Progress(events=(), snapshot=lab.trainer.snapshot)
    lab.trainer.answers = [None, on_its_way, None]
    lab.trainer.end = DONE
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=9, exports=("keras",))
    lab.tick(times=3)
    assert lab.job().state is JobState.RUNNING
    lab.tick()
    assert lab.job().state is JobState.SUCCEEDED and lab.job().snapshot.exports == ("keras",)


def test_a_trainer_that_says_nothing_more_holds_nobody_up(lab: Lab) -> None:
    lab.submit()
    lab.run()
    lab.trainer.answers = [None] * 100
    lab.trainer.end = DONE
    lab.tick(times=2)
    assert lab.job().state is JobState.RUNNING
    lab.tick(LAST_WORDS_S)
    assert lab.job().state is JobState.SUCCEEDED


def test_the_assignment_says_all_that_a_trainer_needs(lab: Lab) -> None:
    seen = []
    lab.engine.before_launch = lambda assignment: seen.append(lab.storage.read(f"jobs/{assignment.job_id}/generation"))
    lab.submit()
    lab.tick()
    assignment = lab.trainer.assignment
    assert seen == [b"1"], "the fence stands before the trainer starts"
    assert (assignment.generation, assignment.spec_json, assignment.trust) == (1, '{"the": "spec"}', ("mine",))
    assert len(assignment.token) >= 32 and assignment.storage_url == lab.storage.url


def test_processes_of_a_finished_job_end_and_give_their_share_back(lab: Lab) -> None:
    lab.submit()
    lab.run()
    other = lab.submit("cd34cd34cd34")
    lab.trainer.end = DONE
    lab.tick(times=4)
    assert lab.job().state is JobState.SUCCEEDED and lab.trainer.is_killed
    assert lab.job(other).state is JobState.QUEUED, "its workers are still there"
    lab.engine.workers[0].end = DONE
    lab.tick(GRACE_S)
    assert all(worker.is_killed for worker in lab.engine.workers)
    lab.tick(times=2)
    assert lab.job(other).state is JobState.STARTING


def test_waiting_jobs_say_why(lab: Lab) -> None:
    lab.submit(cpus=0.75)
    lab.run()
    lab.submit("cd34cd34cd34")
    lab.submit("ef56ef56ef56", workers=1, cpus=0.5)
    lab.tick()
    assert lab.job("cd").state_reason == (
        "waits for 1 CPU: needs 2 × 1 CPU (at least 1 worker), 0.5 of 2 CPUs are free"
    )
    assert lab.job("ef").state_reason == "waits its turn behind job cd34cd34cd34"
    assert lab.messages("ef")[-1] == lab.job("ef").state_reason
    count = len(lab.messages("ef"))
    lab.tick(times=50)
    assert len(lab.messages("ef")) == count, "a reason is said once"


def test_two_small_jobs_run_at_once(lab: Lab) -> None:
    lab.submit(workers=1)
    lab.submit("cd34cd34cd34", workers=1)
    lab.tick()
    assert lab.job("ab").state is lab.job("cd").state is JobState.STARTING


def test_jobs_wait_for_the_engine(tmp_path: Path) -> None:
    lab = make_lab(Storage(str(tmp_path)), MemoryStore())
    lab.engine.stage = "importing TensorFlow (0 of 3 ready)"
    lab.submit()
    lab.tick()
    assert lab.job().state_reason == "the compute engine is starting: importing TensorFlow (0 of 3 ready)"
    assert not lab.engine.trainers
    lab.supervisor.engine_started()
    lab.tick(times=2)
    assert lab.job().state is JobState.STARTING
    assert lab.job().state_reason == "importing TensorFlow (0 of 3 ready)"
