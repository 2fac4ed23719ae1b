"""The supervisor when processes die, jobs are cancelled, and the service stops."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.errors import NotPossible, Unavailable
from gradwire.progress import ErrorView, Outcome, WorkerView
from gradwire.storage import Storage
from service.caretaker import CANCEL_GRACE_S
from service.engine import Death, NodeResources
from service.jobs.states import JobState
from service.recovery import MAX_TRAINER_DEATHS, MAX_WORKER_DEATHS
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(Storage(str(tmp_path)), MemoryStore())
    made.supervisor.engine_started()
    return made


def test_a_trainer_that_fails_fails_the_job_with_its_error(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    lab.trainer.end = Outcome(state="FAILED", error=ErrorView(code="nonfinite", message="the loss is not finite"))
    lab.tick(times=3)
    job = lab.job()
    assert job.state is JobState.FAILED and job.state_reason == "the loss is not finite"
    assert job.error == ErrorView(code="nonfinite", message="the loss is not finite", step=4)
    assert lab.store.events(job.id, job.cursor - 1, 1)[0].error == job.error


def test_a_dead_trainer_is_started_again(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    first, workers = lab.trainer, list(lab.engine.workers)
    first.end = Death("killed by signal 9")
    lab.tick()
    job = lab.job()
    assert job.state is JobState.RECOVERING and job.generation == 2 and job.snapshot.step == 4
    assert all(worker.is_killed for worker in workers)
    assert lab.storage.read(f"jobs/{job.id}/generation") == b"2"
    assert lab.trainer is not first and lab.trainer.assignment.token != first.assignment.token
    lab.run(step=3)
    assert lab.job().state is JobState.RUNNING and lab.job().snapshot.step == 3
    assert [worker.id for worker in lab.engine.workers[2:]] == [f"{job.id}-g2-w0", f"{job.id}-g2-w1"]


def test_a_trainer_that_keeps_dying_fails_the_job(lab: Lab) -> None:
    lab.submit()
    for _ in range(MAX_TRAINER_DEATHS + 1):
        lab.run(step=4)
        assert lab.job().state is JobState.RUNNING
        lab.trainer.end = Death("out of memory")
        lab.tick()
    job = lab.job()
    assert job.state is JobState.FAILED and job.error is not None and job.error.code == "trainer_died"
    assert "4 trainers died before step 5 was committed, the last of out of memory" in job.error.message


def test_a_trainer_that_hangs_is_killed_and_followed_by_another(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    first = lab.trainer
    first.snapshot = replace(first.snapshot, phase="evaluating")
    lab.tick(0.1)
    first.answers = [None] * 1000
    lab.tick(0.1, times=49)
    assert not first.is_killed
    lab.tick(0.1, times=4)
    assert first.is_killed and lab.job().state is JobState.RECOVERING and lab.job().generation == 2
    assert lab.job().state_reason == "starting the trainer again (start 2)"
    assert (
        "the trainer died (it hung: no answer for 5 s, last seen evaluating after step 4); another goes on from the "
        "last checkpoint"
    ) in lab.messages()


def test_a_trainer_out_of_reach_is_not_taken_for_one_that_hangs(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    first = lab.trainer
    first.answers = [None] * 1000
    first.is_out_of_reach = True
    lab.tick(0.1, times=80)
    assert not first.is_killed, "the engine gives it up when Ray has had the time to look"
    first.is_out_of_reach = False
    lab.tick(0.1, times=52)
    assert first.is_killed and lab.job().generation == 2


def test_a_trainer_that_builds_its_model_may_be_silent_for_longer(lab: Lab) -> None:
    lab.submit()
    lab.tick()
    lab.tick(1.0, times=100)
    assert not lab.trainer.is_killed, "its process may take its time; the engine looks after that"
    lab.trainer.address = "/dev/shm/x"
    lab.tick()
    lab.trainer.answers = [None] * 1000
    lab.tick(1.0, times=29)
    assert not lab.trainer.is_killed
    first = lab.trainer
    lab.tick(1.0, times=2)
    assert first.is_killed and "last seen starting" in " ".join(lab.messages())


def test_a_coordinator_that_stood_still_blames_nobody(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    lab.trainer.answers = [None] * 4
    lab.tick(1000.0, times=4)
    lab.tick(1000.0)
    assert not lab.trainer.is_killed


def test_a_trainer_that_gets_further_may_die_often(lab: Lab) -> None:
    lab.submit()
    for step in range(1, 3 * MAX_TRAINER_DEATHS):
        lab.run(step)
        lab.trainer.end = Death("preempted")
        lab.tick()
    assert lab.job().state is JobState.RECOVERING


def test_a_dead_worker_is_replaced(lab: Lab) -> None:
    lab.submit()
    lab.run()
    lab.engine.workers[0].end = Death("killed by signal 9")
    lab.tick(0.2, times=6)
    assert [worker.id[-5:] for worker in lab.engine.workers] == ["g1-w0", "g1-w1", "g1-w2"]
    assert lab.engine.workers[0].is_killed, "its share of the node is given back"
    assert "worker ab12ab12ab12-g1-w0 died (killed by signal 9); another takes its place" in lab.messages()
    assert lab.job().state is JobState.RUNNING


def test_a_worker_that_its_trainer_let_go_is_replaced_though_its_process_is_there(lab: Lab) -> None:
    lab.submit()
    lab.run()
    hung = lab.engine.workers[0]
    view = WorkerView(id=hung.id, pid=7, node="n", state="DEAD", phase="data", transport="shared_memory")
    lab.trainer.snapshot = replace(lab.trainer.snapshot, workers=(view,))
    lab.tick(0.2, times=6)
    assert hung.was_hung and len(lab.engine.workers) == 3
    assert any(f"worker {hung.id} died (its trainer let it go in phase data)" in message for message in lab.messages())
    lab.tick(0.2, times=10)
    assert len(lab.engine.workers) == 3, "it is replaced once"


def test_a_shard_that_fails_tells_what_its_workers_died_of(lab: Lab) -> None:
    """The trainer knows who hung up; Ray knows the signal, and tells of the last one after the trainer's end."""
    lab.submit()
    lab.run()
    first, last = lab.engine.workers
    first.end = Death("process 5 died of SIGBUS")
    lab.tick(0.3, times=4)
    details = f"{first.id} hung up\n{last.id} hung up"
    lab.trainer.end = Outcome(
        state="FAILED", error=ErrorView(code="shard_failed", message="shard 1 failed", details=details)
    )
    last.end = Death("process 6 died of SIGSEGV")
    lab.tick(1.0, times=3)
    error = lab.job().error
    assert error is not None
    assert error.message == "shard 1 failed (the last process 6 died of SIGSEGV)"
    assert f"{first.id}: process 5 died of SIGBUS" in error.details


def test_a_dismissed_worker_is_not_replaced(lab: Lab) -> None:
    lab.submit()
    lab.run()
    lab.engine.workers[0].end = DONE
    lab.tick(1.0, times=5)
    assert len(lab.engine.workers) == 2


def test_workers_that_end_with_their_trainer_are_not_replaced(lab: Lab) -> None:
    lab.submit()
    lab.run()
    for worker in lab.engine.workers:
        worker.end = Outcome(state="CANCELLED")
    lab.tick()
    lab.trainer.end = Death("killed by signal 9")
    lab.tick(times=3)
    assert len(lab.engine.workers) == 2 and not any("worker ab" in message for message in lab.messages())


def test_workers_that_keep_dying_fail_the_job(lab: Lab) -> None:
    lab.submit(workers=1)
    lab.run()
    for _ in range(MAX_WORKER_DEATHS + 1):
        lab.engine.workers[-1].end = Death("out of memory")
        lab.tick(1.0, times=2)
    job = lab.job()
    assert job.state is JobState.FAILED and job.error is not None and job.error.code == "workers_died"
    assert job.error.worker == "ab12ab12ab12-g1-w10" and lab.trainer.is_cancelled
    assert len(lab.engine.workers) == MAX_WORKER_DEATHS + 1


def test_a_worker_that_was_launched_on_a_dying_node_comes_back_elsewhere(lab: Lab) -> None:
    lab.engine.nodes = (NodeResources("n", 1.0, 0.0), NodeResources("m", 1.0, 0.0))
    lab.submit()
    lab.run(step=4)
    lost = next(worker for worker in lab.engine.workers if worker.node == "m")
    lost.end = Death("killed")
    lab.tick(0.6, times=3)
    assert [worker.node for worker in lab.engine.workers[2:]] == ["m"], "nobody knows yet that it is the node"
    lab.engine.nodes = (NodeResources("n", 1.0, 0.0), NodeResources("o", 1.0, 0.0))
    lab.tick(0.6, times=3)
    assert lab.engine.workers[2].is_killed, "its share is given back, or asked for no more"
    assert [worker.node for worker in lab.engine.workers[3:]] == ["o"]


def test_workers_of_a_lost_node_come_back_elsewhere(lab: Lab) -> None:
    lab.engine.nodes = (NodeResources("n", 1.0, 0.0), NodeResources("m", 1.0, 0.0))
    lab.submit()
    lab.run()
    lost = next(worker for worker in lab.engine.workers if worker.node == "m")
    lab.engine.nodes = (NodeResources("n", 1.0, 0.0), NodeResources("o", 1.0, 0.0))
    lost.end = Death("node died")
    lab.tick(0.3, times=3)
    assert [worker.node for worker in lab.engine.workers[2:]] == ["o"]


def test_a_job_grows_when_others_end_and_nobody_waits(lab: Lab) -> None:
    lab.submit(workers=1)
    lab.run()
    first = lab.trainer
    lab.submit("cd34cd34cd34", workers=2)
    lab.run()
    assert len(lab.engine.workers) == 2
    first.end = lab.engine.workers[0].end = DONE
    lab.tick(times=5)
    assert lab.job("ab").state is JobState.SUCCEEDED
    assert [worker.id[-5:] for worker in lab.engine.workers] == ["g1-w0", "g1-w0", "g1-w1"]
    assert lab.messages("cd")[-1] == "has 2 of 2 workers now"


def test_a_queued_job_is_cancelled_at_once(lab: Lab) -> None:
    lab.submit()
    lab.run()
    lab.submit("cd34cd34cd34")
    lab.tick()
    answer = lab.supervisor.cancel("cd34cd34cd34")
    lab.tick()
    assert answer.result(0).state is JobState.CANCELLED and len(lab.engine.trainers) == 1


def test_a_running_job_is_cancelled_by_its_trainer(lab: Lab) -> None:
    job_id = lab.submit()
    lab.run(step=4)
    answer, again = lab.supervisor.cancel(job_id), lab.supervisor.cancel(job_id)
    lab.tick()
    assert answer.result(0).is_cancelling and again.result(0).is_cancelling
    assert lab.trainer.is_cancelled and lab.job().state_reason == "is being cancelled"
    lab.trainer.end = Outcome(state="CANCELLED")
    lab.tick(times=3)
    assert lab.job().state is JobState.CANCELLED and not lab.job().is_cancelling
    later = lab.supervisor.cancel(job_id)
    lab.tick()
    assert later.result(0).state is JobState.CANCELLED


def test_a_trainer_that_does_not_stop_is_killed(lab: Lab) -> None:
    job_id = lab.submit()
    lab.run()
    lab.supervisor.cancel(job_id)
    lab.tick()
    lab.tick(CANCEL_GRACE_S - 0.5)
    assert not lab.trainer.is_killed
    lab.tick(1.0)
    assert lab.trainer.is_killed and lab.job().state is JobState.CANCELLED


def test_a_job_whose_trainer_has_not_come_up_is_cancelled_at_once(lab: Lab) -> None:
    job_id = lab.submit()
    lab.tick()
    lab.supervisor.cancel(job_id)
    lab.tick()
    assert lab.job().state is JobState.CANCELLED and lab.trainer.is_killed


def test_a_trainer_that_dies_while_cancelled_is_not_started_again(lab: Lab) -> None:
    job_id = lab.submit()
    lab.run()
    lab.supervisor.cancel(job_id)
    lab.tick()
    lab.trainer.end = Death("killed by signal 9")
    lab.tick()
    assert lab.job().state is JobState.CANCELLED and len(lab.engine.trainers) == 1


def test_a_job_that_has_ended_cannot_be_cancelled(lab: Lab) -> None:
    job_id = lab.submit()
    lab.run()
    lab.trainer.end = DONE
    lab.tick(times=3)
    answer = lab.supervisor.cancel(job_id)
    lab.tick()
    with pytest.raises(NotPossible, match="is SUCCEEDED and cannot be cancelled"):
        answer.result(0)


def test_a_restarted_service_takes_its_jobs_up_again(lab: Lab) -> None:
    running = lab.submit(workers=1)
    lab.run(step=4)
    cancelled = lab.submit("cd34cd34cd34", workers=1)
    lab.run()
    lab.supervisor.cancel(cancelled)
    lab.tick()
    queued = lab.submit("ef56ef56ef56")
    lab.tick()
    again = make_lab(lab.storage, lab.store)
    again.supervisor.recover()
    assert again.job(running).state is JobState.RECOVERING
    assert again.job(cancelled).state is JobState.CANCELLED
    assert again.job(queued).state is JobState.QUEUED
    again.supervisor.engine_started()
    again.tick()
    assert again.trainer.assignment.job_id == queued and again.engine.trainers[0].assignment.generation == 2
    again.run()
    assert again.job(running).snapshot.step == 4


def test_progress_is_stored_without_events_too(lab: Lab) -> None:
    lab.submit()
    lab.run(step=1)
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=2)
    lab.tick(0.01)
    lab.tick(0.3)
    assert lab.job().snapshot.step == 2


def test_a_storage_that_cannot_be_written_fails_the_job_by_name(lab: Lab, tmp_path: Path) -> None:
    job_id = lab.submit()
    shutil.rmtree(tmp_path / "jobs" / job_id)
    (tmp_path / "jobs" / job_id).write_text("a file where a folder should be")
    lab.tick()
    job = lab.job()
    assert job.state is JobState.FAILED and job.error is not None and job.error.code == "storage_unavailable"


def test_a_fault_with_one_job_spares_the_others(lab: Lab) -> None:
    def refuse(assignment: object) -> None:
        lab.engine.before_launch = lambda assignment: None
        raise RuntimeError("no such process")

    lab.engine.before_launch = refuse
    lab.submit(workers=1)
    lab.submit("cd34cd34cd34", workers=1)
    lab.tick()
    assert lab.job("ab").state is JobState.FAILED and "no such process" in lab.job("ab").state_reason
    assert lab.job("cd").state is JobState.STARTING


def test_stopping_tells_the_trainers_and_leaves_the_jobs_to_the_next_service(tmp_path: Path) -> None:
    lab = make_lab(Storage(str(tmp_path)), MemoryStore())
    lab.supervisor.engine_started()
    job_id = lab.submit()
    lab.run()
    lab.trainer.end = Outcome(state="CANCELLED")
    lab.supervisor._say_goodbye()
    assert lab.trainer.is_cancelled and lab.job().state is JobState.RUNNING
    lab.supervisor.stop()
    with pytest.raises(Unavailable, match="is stopping"):
        lab.supervisor.cancel(job_id).result(0)


def test_the_thread_answers_and_ends(tmp_path: Path) -> None:
    lab = make_lab(Storage(str(tmp_path)), MemoryStore())
    lab.supervisor.start()
    job_id = lab.submit()
    assert lab.supervisor.cancel(job_id).result(10).state is JobState.CANCELLED
    lab.supervisor.stop()
    assert not lab.supervisor._thread.is_alive()


def test_the_log_has_a_line_per_event(lab: Lab) -> None:
    job_id = lab.submit()
    lab.run()
    lab.trainer.end = Outcome(
        state="FAILED", error=ErrorView(code="internal", message="two\nlines", details="Traceback\n  here")
    )
    lab.tick(times=3)
    lines = lab.storage.read(f"jobs/{job_id}/log").decode().splitlines()
    assert lines[0] == "1970-01-01T01:23:20.000Z QUEUED state queued"
    assert lines[-3:] == ["1970-01-01T01:23:20.000Z FAILED state two lines", "    Traceback", "      here"]
