"""The table of states, and records that move along it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradwire.progress import Snapshot, WorkerView
from gradwire.spec.job import ResourceSpec
from service.jobs.record import JobRecord
from service.jobs.states import ENDED, LIVE, MOVES, IllegalMove, JobState

RECORD = JobRecord(
    id="ab12", name="n", request_id="r", spec_digest="d", resources=ResourceSpec(), created_at_s=1.0
)  # fmt: skip


def test_every_state_is_in_the_table_and_can_end() -> None:
    assert set(MOVES) == set(JobState)
    assert {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED} == ENDED
    assert all({JobState.FAILED, JobState.CANCELLED} <= MOVES[state] for state in LIVE)
    assert [state for state in MOVES if JobState.SUCCEEDED in MOVES[state]] == [JobState.RUNNING]
    assert {state for state in MOVES if JobState.PAUSED in MOVES[state]} == LIVE - {JobState.PAUSED}


@pytest.mark.parametrize("old", JobState)
@pytest.mark.parametrize("new", JobState)
def test_a_record_moves_only_along_the_table(old: JobState, new: JobState) -> None:
    record = replace(RECORD, state=old)
    if new in MOVES[old]:
        assert record.moved(new, "why", 2.0).state is new
    else:
        with pytest.raises(IllegalMove, match=f"job ab12 cannot go from {old} to {new}"):
            record.moved(new, "why", 2.0)


def test_times_are_those_of_the_first_start_and_the_end() -> None:
    record = RECORD.moved(JobState.STARTING, "", 2.0)
    record = record.moved(JobState.RECOVERING, "", 3.0).moved(JobState.RUNNING, "", 4.0)
    assert (record.started_at_s, record.finished_at_s) == (2.0, None)
    assert record.moved(JobState.SUCCEEDED, "", 5.0).finished_at_s == 5.0


def test_what_a_new_trainer_does_not_know_stays() -> None:
    old = Snapshot(
        is_running=True, step=9, total_steps=20, metrics={"loss": 1.0}, eval_metrics={"loss": 2.0},
        weights_digest="d", weights_digest_step=8, checkpoint_step=8, fingerprint={"threads": "1"},
    )  # fmt: skip
    record = replace(RECORD, snapshot=old)
    starting = record.observed(Snapshot(total_steps=20)).snapshot
    assert starting == replace(old, is_running=False)
    running = record.observed(Snapshot(is_running=True, step=8, total_steps=20, checkpoint_step=8)).snapshot
    assert (running.step, running.eval_metrics, running.weights_digest_step) == (8, {"loss": 2.0}, 8)
    assert record.observed(old) is record


def test_workers_are_shown_as_long_as_they_are_there() -> None:
    ready = WorkerView(id="w1", pid=7, node="n", state="READY", phase="compute", transport="shared_memory")
    dead = replace(ready, id="w0", state="DEAD")
    running = replace(RECORD, state=JobState.RUNNING, snapshot=Snapshot(workers=(dead, ready)))
    ended = running.moved(JobState.SUCCEEDED, "", 1.0).snapshot.workers
    assert [(worker.id, worker.state, worker.phase) for worker in ended] == [
        ("w0", "DEAD", "compute"), ("w1", "ENDED", "")
    ]  # fmt: skip
    assert running.moved(JobState.PAUSED, "", 1.0).snapshot.workers == ()
    assert running.moved(JobState.RECOVERING, "", 1.0).snapshot.workers == ()
