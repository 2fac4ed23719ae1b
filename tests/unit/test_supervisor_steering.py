"""The supervisor when users pause, resume and scale their jobs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.errors import InvalidSpec, NotPossible
from gradwire.progress import Outcome, WorkerView
from gradwire.storage import Storage
from service.caretaker import CANCEL_GRACE_S, PAUSE_GRACE_S
from service.engine import Death, NodeResources
from service.foreman import DISMISS_GRACE_S
from service.jobs.states import JobState
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab

STOPPED = Outcome(state="CANCELLED")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(Storage(str(tmp_path)), MemoryStore())
    made.engine.nodes = (NodeResources("n", 4.0, 0.0),)
    made.supervisor.engine_started()
    return made


def restarted(lab: Lab) -> Lab:
    """The next service with the same store."""
    again = make_lab(lab.storage, lab.store)
    again.supervisor.recover()
    again.supervisor.engine_started()
    return again


def show_ready(lab: Lab, *numbers: int) -> None:
    """The trainer reports these of its workers as ready."""
    views = tuple(
        WorkerView(id=worker.id, pid=1, node="n", state="READY", phase="idle", transport="shared_memory")
        for worker in lab.engine.workers
        if int(worker.id.rpartition("w")[2]) in numbers
    )
    lab.trainer.snapshot = replace(lab.trainer.snapshot, workers=views)
    lab.tick(0.3)


def numbers(worker_ids: list[str]) -> list[int]:
    return [int(worker_id.rpartition("w")[2]) for worker_id in worker_ids]


def test_a_training_job_is_paused_by_its_trainer_and_goes_on_from_there(lab: Lab) -> None:
    lab.submit(workers=4)
    lab.run(step=5)
    show_ready(lab, 0, 1)
    answered = lab.ask("pause")
    assert answered.state is JobState.RUNNING and answered.is_pausing and lab.trainer.is_cancelled
    assert lab.ask("pause") == lab.job(), "asked twice"
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=6, checkpoint_step=6)
    lab.trainer.end = STOPPED
    lab.tick(times=3)
    job = lab.job()
    assert (job.state, job.state_reason, job.is_pausing) == (JobState.PAUSED, "paused after step 6", False)
    assert job.snapshot.workers == () and job.finished_at_s is None
    for worker in lab.engine.workers:
        worker.end = DONE
    lab.submit("cd34cd34cd34", workers=4)
    lab.run()
    assert lab.job("cd").state is JobState.RUNNING, "its workers are for others"
    assert lab.ask("resume").state is JobState.QUEUED
    lab.tick(1.1)
    assert lab.job().state_reason.startswith("waits for 1 CPU")
    lab.trainer.end = DONE
    for worker in lab.engine.workers:
        worker.end = DONE
    lab.tick(times=5)
    assert lab.trainer.assignment.job_id == job.id and lab.trainer.assignment.generation == 2
    lab.run(step=7)
    assert lab.states() == [
        JobState.QUEUED, JobState.STARTING, JobState.RUNNING, JobState.PAUSED, JobState.QUEUED, JobState.STARTING,
        JobState.RUNNING,
    ]  # fmt: skip


def test_a_job_without_anything_to_save_is_held_at_once(lab: Lab) -> None:
    for job_id, after in (("ab12ab12ab12", 0), ("cd34cd34cd34", 1), ("ef56ef56ef56", 2)):
        lab.submit(job_id, workers=1)
        if after:
            lab.tick()
        if after == 2:
            lab.run(step=4)
            lab.trainer.end = Death("killed by signal 9")
            lab.tick()
            assert lab.job(job_id).state is JobState.RECOVERING
        assert lab.ask("pause", job_id=job_id).state is JobState.PAUSED
        assert all(trainer.is_killed for trainer in lab.engine.trainers)
    assert lab.job("ef").state_reason == "paused after step 4; it will go on from the start"
    assert lab.job("cd").state_reason == "paused before its first step"
    count = len(lab.engine.trainers)
    lab.tick(1.0, times=30)
    assert len(lab.engine.trainers) == count, "a paused job is not started"


def test_a_trainer_that_does_not_stop_is_killed_and_its_job_is_paused_all_the_same(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    lab.ask("pause")
    lab.tick(PAUSE_GRACE_S - 1.0)
    assert not lab.trainer.is_killed
    lab.tick(1.0)
    assert lab.trainer.is_killed and lab.job().state is JobState.PAUSED
    assert "did not stop within 60 s" in lab.job().state_reason


@pytest.mark.parametrize("end", [Death("killed by signal 9"), STOPPED])
def test_however_the_trainer_ends_a_paused_job_is_paused(lab: Lab, end: Outcome | Death) -> None:
    lab.submit()
    lab.run(step=4)
    lab.ask("pause")
    lab.trainer.end = end
    lab.tick(times=3)
    assert lab.job().state is JobState.PAUSED
    assert ("signal 9" in lab.job().state_reason) == isinstance(end, Death)


def test_a_job_that_finishes_while_it_is_paused_is_finished(lab: Lab) -> None:
    lab.submit()
    lab.run(step=8)
    lab.ask("pause")
    lab.trainer.end = DONE
    lab.tick(times=3)
    assert lab.job().state is JobState.SUCCEEDED and not lab.job().is_pausing
    with pytest.raises(NotPossible, match="is SUCCEEDED and cannot be resumed"):
        lab.ask("resume")


def test_resuming_before_the_trainer_has_stopped(lab: Lab) -> None:
    lab.submit()
    lab.run(step=4)
    assert not lab.ask("resume").is_pausing and lab.job().state is JobState.RUNNING, "it was not paused"
    lab.ask("pause")
    assert not lab.ask("resume").is_pausing
    lab.trainer.end = STOPPED
    lab.tick(times=4)
    assert lab.job().generation == 2
    assert lab.states()[2:] == [JobState.RUNNING, JobState.PAUSED, JobState.QUEUED, JobState.STARTING]


def test_a_paused_job_can_be_cancelled_at_any_time(lab: Lab) -> None:
    lab.submit()
    assert lab.ask("pause").state is JobState.PAUSED
    assert lab.ask("cancel").state is JobState.CANCELLED
    second = lab.submit("cd34cd34cd34")
    lab.run()
    lab.ask("pause", job_id=second)
    lab.tick(CANCEL_GRACE_S)
    answered = lab.ask("cancel", job_id=second)
    assert answered.is_cancelling and not answered.is_pausing
    with pytest.raises(NotPossible, match="is being cancelled and cannot be paused"):
        lab.ask("pause", job_id=second)
    assert not lab.trainer.is_killed, "the time for a cancelled trainer begins with the cancelling"
    lab.tick(CANCEL_GRACE_S)
    assert lab.trainer.is_killed and lab.job(second).state is JobState.CANCELLED


def test_paused_jobs_stay_paused_over_a_restart(lab: Lab) -> None:
    paused = lab.submit(workers=1)
    lab.ask("pause")
    pausing = lab.submit("cd34cd34cd34", workers=1)
    lab.run(step=3)
    lab.ask("pause", job_id=pausing)
    again = restarted(lab)
    assert again.job(paused).state is again.job(pausing).state is JobState.PAUSED
    again.tick(1.0, times=5)
    assert not again.engine.trainers
    again.ask("resume", job_id=pausing)
    again.tick()
    assert again.trainer.assignment.job_id == pausing and again.trainer.assignment.generation == 2


def test_a_job_is_scaled_up_while_it_runs(lab: Lab) -> None:
    lab.submit(workers=1)
    lab.run()
    assert lab.ask("scale", 3).resources.workers == 3
    lab.tick()
    assert numbers([worker.id for worker in lab.engine.workers]) == [0, 1, 2]
    assert lab.messages()[-2:] == ["shall have 3 workers", "has 3 of 3 workers now"]
    assert lab.trainer.scaled == [3]
    count = len(lab.messages())
    lab.ask("scale", 3)
    assert len(lab.messages()) == count, "asked twice"


def test_no_more_workers_are_started_than_can_be_used(lab: Lab) -> None:
    lab.engine.nodes = (NodeResources("n", 16.0, 0.0),)
    lab.submit(workers=6, shards=2)
    lab.run()
    assert len(lab.engine.workers) == 2
    answered = lab.ask("scale", 8)
    assert (answered.resources.workers, answered.usable_workers) == (8, 2)
    lab.tick(times=3)
    assert len(lab.engine.workers) == 2
    assert lab.messages()[-1] == "shall have 8 workers; 2 of them can be used"


def test_surplus_workers_are_dismissed_and_not_replaced(lab: Lab) -> None:
    lab.submit(workers=4)
    lab.run()
    show_ready(lab, 0, 2, 3)
    lab.ask("scale", 2)
    assert numbers(lab.trainer.dismissed) == [1, 3], "who is not ready goes first, then who came last"
    assert not any(worker.is_killed for worker in lab.engine.workers)
    lab.submit("cd34cd34cd34", workers=2, min_workers=2)
    lab.tick()
    assert lab.job("cd").state is JobState.QUEUED, "their share is not free before they are gone"
    for worker in (lab.engine.workers[1], lab.engine.workers[3]):
        worker.end = DONE
    lab.tick(times=2)
    assert lab.job("cd").state is JobState.STARTING
    lab.tick(1.0, times=5)
    assert len(lab.trainer.dismissed) == 0 and len(lab.engine.trainers[0].dismissed) == 2, "told once"
    assert len(lab.engine.workers) == 4 and not any("died" in message for message in lab.messages())


def test_a_dismissed_worker_that_does_not_go_is_killed(lab: Lab) -> None:
    lab.submit(workers=2)
    lab.run()
    lab.ask("scale", 1)
    lab.tick(DISMISS_GRACE_S - 1.0)
    assert not any(worker.is_killed for worker in lab.engine.workers)
    lab.tick(1.5)
    assert [worker.is_killed for worker in lab.engine.workers] == [False, True]
    lab.tick(times=3)
    assert len(lab.engine.workers) == 2


def test_a_worker_that_dies_after_scaling_down_leaves_room_for_nobody(lab: Lab) -> None:
    lab.submit(workers=2)
    lab.run()
    lab.ask("scale", 1)
    lab.engine.workers[1].end = Death("killed by signal 9")
    lab.tick(1.0, times=3)
    assert len(lab.engine.workers) == 2
    lab.engine.workers[0].end = Death("killed by signal 9")
    lab.tick(1.0, times=3)
    assert len(lab.engine.workers) == 3, "the one that stays is replaced"


def test_down_and_up_again(lab: Lab) -> None:
    lab.submit(workers=4)
    lab.run()
    lab.ask("scale", 1)
    lab.ask("scale", 3)
    for worker in lab.engine.workers[1:]:
        worker.end = DONE
    lab.tick(times=3)
    alive = [worker for worker in lab.engine.workers if worker.end is None]
    assert numbers([worker.id for worker in alive]) == [0, 4, 5]


def test_waiting_starting_and_paused_jobs_are_scaled_too(lab: Lab) -> None:
    lab.submit(workers=4)
    lab.ask("scale", 1)
    lab.run()
    assert len(lab.engine.workers) == 1
    starting = lab.submit("cd34cd34cd34", workers=3)
    lab.tick()
    lab.ask("scale", 2, job_id=starting)
    lab.trainer.address = "/dev/shm/x"
    lab.tick()
    assert len(lab.engine.workers) == 3
    lab.ask("pause", job_id=starting)
    lab.ask("scale", 1, job_id=starting)
    again = restarted(lab)
    again.ask("resume", job_id=starting)
    again.run()
    assert [worker.id for worker in again.engine.workers if worker.assignment.job_id == starting] == [
        f"{starting}-g2-w0"
    ]


def test_numbers_that_a_job_cannot_have_are_refused(lab: Lab) -> None:
    lab.submit(workers=3, min_workers=2)
    for workers, why in ((0, "at least 1.*gradwire pause ab12"), (1, "at least 2.*minWorkers"), (2000, "at most 1024")):
        with pytest.raises(InvalidSpec, match=why) as caught:
            lab.ask("scale", workers)
        assert caught.value.violations[0].field == "workers"
    lab.run()
    lab.ask("cancel")
    with pytest.raises(NotPossible, match="is being cancelled and cannot be scaled"):
        lab.ask("scale", 2)
