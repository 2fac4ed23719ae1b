"""A coordinator that comes back to a Ray that has outlived it: what is at work goes on, what nobody needs ends."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.progress import Outcome, WorkerView
from gradwire.storage import Storage
from service.engine import Death, FoundRun, NodeResources
from service.jobs.states import JobState
from service.run import Run
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab

FOUR_CPUS = (NodeResources("n", 4.0, 0.0),)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(Storage(str(tmp_path)), MemoryStore())
    made.engine.nodes = FOUR_CPUS
    made.supervisor.engine_started()
    return made


def left_by(lab: Lab) -> tuple[FoundRun, ...]:
    """All that the lab's engine has at work."""
    return tuple(
        FoundRun(
            assignment=trainer.assignment,
            trainer=trainer,
            workers=tuple(
                (worker, worker.node or "")
                for worker in lab.engine.workers
                if worker.end is None and worker.assignment.job_id == trainer.assignment.job_id
            ),
        )
        for trainer in lab.engine.trainers
    )


class Next:
    """The next service with the same store; it is told what the one before has left as soon as its engine is up."""

    def __init__(self, lab: Lab) -> None:
        self.adopted: list[tuple[str, int]] = []
        self.lab = make_lab(lab.storage, lab.store, self._adopt)
        self.lab.engine.nodes = FOUR_CPUS
        self.lab.engine.left_behind = left_by(lab)
        self.lab.supervisor.recover()
        self.lab.tick()

    def _adopt(self, runs: Collection[Run]) -> None:
        self.adopted += [(run.assignment.job_id, run.assignment.generation) for run in runs]

    def up(self) -> Lab:
        self.lab.supervisor.engine_started()
        self.lab.tick()
        return self.lab


def test_a_running_job_goes_on_with_its_trainer_and_its_workers(lab: Lab) -> None:
    job_id = lab.submit(workers=2)
    lab.run(step=3)
    lab.trainer.emit("progress", "step 3 of 9")
    lab.tick(0.3)
    cursor = lab.job().cursor
    lab.engine.workers[0].end = Death("killed by signal 9")  # while no coordinator is there
    for step in (4, 5):
        lab.trainer.snapshot = replace(lab.trainer.snapshot, step=step)
        lab.trainer.emit("progress", f"step {step} of 9")

    again = Next(lab)
    assert again.lab.job().state is JobState.RUNNING and again.adopted == []
    after = again.up()
    assert again.adopted == [(job_id, 1)]
    assert after.job().state is JobState.RUNNING and not after.engine.trainers
    assert [worker.id for worker in after.engine.workers] == [f"{job_id}-g1-w2"], "the dead one's place, a new name"
    after.tick(0.3, times=3)
    assert after.job().snapshot.step == 5 and after.job().generation == 1
    new = [event.message for event in after.store.events(job_id, cursor, 100)]
    assert new[:3] == [
        "the service was restarted; the trainer has gone on meanwhile, with 1 worker", "step 4 of 9", "step 5 of 9"
    ]  # fmt: skip
    lab.trainer.end = DONE
    after.tick(times=4)
    assert after.job().state is JobState.SUCCEEDED and JobState.RECOVERING not in after.states()


def test_a_trainer_that_has_finished_meanwhile_is_asked_how(lab: Lab) -> None:
    lab.submit()
    lab.run(step=8)
    lab.trainer.snapshot = replace(lab.trainer.snapshot, step=9, weights_digest="d")
    lab.trainer.end = DONE
    after = Next(lab).up()
    after.tick(times=4)
    assert after.job().state is JobState.SUCCEEDED and after.job().snapshot.weights_digest == "d"
    assert lab.trainer.is_killed


def test_a_starting_job_is_adopted_too(lab: Lab) -> None:
    lab.submit()
    lab.tick()
    lab.trainer.address = "/dev/shm/x"
    after = Next(lab).up()
    assert after.job().state is JobState.STARTING
    after.tick()
    assert [worker.id[-2:] for worker in after.engine.workers] == ["w0", "w1"]


def test_a_job_whose_trainer_is_not_found_recovers(lab: Lab) -> None:
    lab.submit()
    lab.run(step=3)
    again = Next(lab)
    again.lab.engine.left_behind = ()
    after = again.up()
    assert after.job().state is JobState.RECOVERING and after.job().generation == 2
    assert again.adopted == []


def test_what_belongs_to_no_live_job_is_ended(lab: Lab) -> None:
    ended = lab.submit(workers=1)
    lab.run(step=3)
    paused = lab.submit("cd34cd34cd34", workers=1)
    lab.run(step=3)
    older = lab.submit("ef56ef56ef56", workers=1)
    lab.run(step=3)
    record = lab.job(older)
    lab.store.update(replace(record, generation=2))
    lab.store.update(lab.job(ended).moved(JobState.FAILED, "by hand", 1.0))
    again = Next(lab)
    assert again.lab.ask("pause", job_id=paused).state is JobState.PAUSED, "before the engine is up"
    after = again.up()
    assert all(trainer.is_killed for trainer in lab.engine.trainers)
    assert all(worker.is_killed for worker in lab.engine.workers)
    assert after.job(paused).state is JobState.PAUSED and after.job(older).state is JobState.RECOVERING
    assert after.trainer.assignment.generation == 3
    assert again.adopted == []


@pytest.mark.parametrize(("verb", "state"), [("pause", JobState.PAUSED), ("cancel", JobState.CANCELLED)])
def test_what_was_asked_of_a_job_before_is_carried_out(lab: Lab, verb: str, state: JobState) -> None:
    lab.submit()
    lab.run(step=3)
    lab.ask(verb)
    lab.trainer.is_cancelled = False  # the call was lost with the coordinator
    after = Next(lab).up()
    assert lab.trainer.is_cancelled
    lab.trainer.end = Outcome(state="CANCELLED")
    after.tick(times=4)
    assert after.job().state is state


def test_workers_are_not_named_as_those_that_are_gone(lab: Lab) -> None:
    job_id = lab.submit(workers=3)
    lab.run()
    view = WorkerView(
        id=f"{job_id}-g1-w0", pid=1, node="n", state="READY", phase="idle", transport="shared_memory"
    )  # fmt: skip
    lab.trainer.snapshot = replace(lab.trainer.snapshot, workers=(view,))
    lab.tick(0.3)
    lab.ask("scale", 1)
    for worker in lab.engine.workers[1:]:
        worker.end = DONE
    lab.tick(times=2)
    after = Next(lab).up()
    after.ask("scale", 2)
    after.tick()
    assert [worker.id[-2:] for worker in after.engine.workers] == ["w3"]
