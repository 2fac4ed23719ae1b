"""Pausing, resuming and scaling real jobs, and their spares: nothing of it changes a bit of the result."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from gradwire.client import Client
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.jobs import a_spec, finished, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STEPS = 1500
"""So many that workers can come and go before the end."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return {}


def digest_of_an_undisturbed_job(client: Client, data_root: Path, known: dict[str, str]) -> str:
    if "digest" not in known:
        job = finished(client, client.submit(a_spec(data_root, steps=STEPS)))
        assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
        known["digest"] = job.weights_digest
    return known["digest"]


def ready(job: pb.Job) -> set[str]:
    return {worker.id for worker in job.workers if worker.state == "READY"}


def moves(client: Client, job: pb.Job) -> list[str]:
    """The states that a job has gone through."""
    seen = [state_word(event.state) for event in client.watch(job)]
    return [state for before, state in zip(["", *seen], seen, strict=False) if state != before]


def test_a_paused_job_gives_its_workers_back_and_goes_on_with_the_same_bits(
    client: Client, data_root: Path, undisturbed: dict[str, str]
) -> None:
    expected = digest_of_an_undisturbed_job(client, data_root, undisturbed)
    job = client.submit(a_spec(data_root, steps=STEPS, resources={"workers": 2, "cpusPerWorker": 1.0}))
    wait_for(client, job, lambda found: found.state == pb.JOB_STATE_RUNNING and found.step > 20)
    client.pause(job)
    paused = wait_for(client, job, lambda found: found.state == pb.JOB_STATE_PAUSED)
    assert 20 < paused.step < STEPS and paused.checkpoint_step == paused.step
    assert not paused.workers and not paused.HasField("finished_at")
    other = finished(client, client.submit(a_spec(data_root, steps=5, resources={"workers": 2, "cpusPerWorker": 1.0})))
    assert other.state == pb.JOB_STATE_SUCCEEDED, "all CPUs are free for others"
    assert client.get(job.id).state == pb.JOB_STATE_PAUSED
    client.resume(job)
    job = finished(client, job)
    assert (job.state, job.generation) == (pb.JOB_STATE_SUCCEEDED, 2), job.error.message
    assert job.weights_digest == expected
    assert moves(client, job) == [
        "QUEUED", "STARTING", "RUNNING", "PAUSED", "QUEUED", "STARTING", "RUNNING", "SUCCEEDED"
    ]  # fmt: skip


def test_scaling_while_it_runs_changes_no_bit(client: Client, data_root: Path, undisturbed: dict[str, str]) -> None:
    expected = digest_of_an_undisturbed_job(client, data_root, undisturbed)
    job = client.submit(a_spec(data_root, steps=STEPS))
    wait_for(client, job, lambda found: found.state == pb.JOB_STATE_RUNNING)
    assert client.scale(job, 6).usable_workers == 4
    grown = wait_for(client, job, lambda found: len(ready(found)) == 4)
    assert grown.step < STEPS
    assert client.scale(job, 2).usable_workers == 2
    shrunk = wait_for(client, job, lambda found: len(found.workers) == 2)
    assert ready(shrunk) < ready(grown), "those that stay are the ones it had"
    job = finished(client, job)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
    assert (job.weights_digest, job.generation, len(job.workers)) == (expected, 1, 2)
    assert {worker.state for worker in job.workers} == {"ENDED"}
    events = list(client.watch(job))
    assert sum(event.message.endswith("was let go") for event in events) == 2
    warnings = [event.message for event in events if event.kind == "warning"]
    assert not [message for message in warnings if " is slow, " not in message], "a busy machine may make one slow"


def test_a_spare_takes_over_at_once(client: Client, data_root: Path, undisturbed: dict[str, str]) -> None:
    expected = digest_of_an_undisturbed_job(client, data_root, undisturbed)
    job = client.submit(a_spec(data_root, steps=STEPS, resources={"spares": 1}))
    found = wait_for(
        client, job, lambda found: {"spare"} < {worker.phase for worker in found.workers} and found.step > 0
    )
    active, spare = sorted(found.workers, key=lambda worker: worker.phase == "spare")
    os.kill(active.pid, signal.SIGKILL)
    wait_for(client, job, lambda now: any(worker.state == "DEAD" for worker in now.workers) and now.step > found.step)
    job = finished(client, job)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
    assert job.weights_digest == expected
    events = list(client.watch(job))
    died = next(event for event in events if f"worker {active.id} left" in event.message)
    others = [event for event in events if "is ready" in event.message and event.cursor > died.cursor]
    until = others[0].cursor if others else job.cursor
    steps = [event.step for event in events if event.kind == "progress" and died.cursor < event.cursor < until]
    assert max(steps) > min(steps) > died.step, f"{spare.id} was alone, and steps were committed"
