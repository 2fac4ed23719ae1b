"""Spares: workers that wait for another to die, where nobody else waits for their share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gradwire.progress import WorkerView
from gradwire.storage import Storage
from service.engine import Death, NodeResources
from service.jobs.states import JobState
from service.store.memory import MemoryStore
from tests.unit.supervisor_lab import DONE, Lab, make_lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = make_lab(Storage(str(tmp_path)), MemoryStore())
    made.engine.nodes = (NodeResources("n", 4.0, 0.0),)
    made.supervisor.engine_started()
    return made


def test_spares_are_launched_where_there_is_room_and_one_that_dies_is_replaced(lab: Lab) -> None:
    lab.submit(workers=2, spares=1)
    lab.run()
    assert len(lab.engine.workers) == 3 and lab.trainer.assignment.workers == 2
    assert "training with 2 workers and 1 spare" in lab.messages()
    assert "building the model on 2 workers and 1 spare" in lab.messages()
    lab.engine.workers[2].end = Death("killed by signal 9")
    lab.tick(1.0, times=2)
    assert len(lab.engine.workers) == 4


def test_spares_never_keep_a_job_from_starting(lab: Lab) -> None:
    lab.submit(workers=4, spares=4)
    lab.run()
    assert len(lab.engine.workers) == 4, "the job starts without"
    lab.tick(1.0, times=5)
    assert len(lab.engine.workers) == 4 and "has" not in lab.messages()[-1]


def test_spares_go_when_somebody_waits_for_their_share_and_come_back(lab: Lab) -> None:
    lab.submit(workers=2, spares=2)
    lab.run()
    first = lab.trainer
    assert len(lab.engine.workers) == 4
    spare, *others = [
        WorkerView(id=worker.id, pid=1, node="n", state="READY", phase="idle", transport="shared_memory")
        for worker in lab.engine.workers
    ]
    first.snapshot = replace(first.snapshot, workers=(replace(spare, phase="spare"), *others))
    lab.tick(0.3)
    lab.submit("cd34cd34cd34", workers=2, min_workers=2)
    lab.tick(times=2)
    assert lab.job("cd").state is JobState.QUEUED
    assert first.dismissed == [lab.engine.workers[0].id, lab.engine.workers[3].id], "spares first"
    for worker in (lab.engine.workers[0], lab.engine.workers[3]):
        worker.end = DONE
    lab.tick(times=3)
    assert lab.job("cd").state is JobState.STARTING
    lab.run()
    assert len(lab.engine.workers) == 6, "there is no room for spares now"
    lab.trainer.end = DONE
    for worker in lab.engine.workers[4:]:
        worker.end = DONE
    lab.tick(times=5)
    assert len(lab.engine.workers) == 8 and lab.messages("ab")[-1] == "has 2 of 2 workers and 2 spares now"


def test_spares_stay_when_they_would_not_help_who_waits(lab: Lab) -> None:
    lab.submit(workers=2, spares=1)
    lab.run()
    lab.submit("cd34cd34cd34", workers=4, min_workers=4)
    lab.submit("ef56ef56ef56", workers=9, min_workers=9, shards=9)
    lab.tick(1.1, times=3)
    assert lab.job("cd").state is JobState.QUEUED and "cannot run here" in lab.job("ef").state_reason
    assert lab.engine.trainers[0].dismissed == []


def test_a_job_that_can_never_start_keeps_nobody_from_growing(lab: Lab) -> None:
    lab.submit("ef56ef56ef56", workers=9, min_workers=9, shards=9)
    lab.submit(workers=1)
    lab.run()
    lab.ask("scale", 3)
    lab.tick()
    assert len(lab.engine.workers) == 3


def test_everybody_has_workers_before_anybody_has_spares(lab: Lab) -> None:
    lab.submit(workers=1, spares=3)
    lab.submit("cd34cd34cd34", workers=3)
    lab.tick()
    for trainer in lab.engine.trainers:
        trainer.address = "/dev/shm/x"
    lab.tick()
    assert sorted(worker.id[:2] for worker in lab.engine.workers) == ["ab", "cd", "cd", "cd"]
