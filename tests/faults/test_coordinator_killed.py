"""The coordinator is killed in the middle of a job, or all of Ray, or both; the next start brings it to its end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from gradwire.client import Client
from gradwire.spec.job import JobSpec
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.faults.traces import Traces, traces, wait_until
from tests.integration.cases import convolutional, spec_of, write_npz
from tests.integration.lab import run
from tests.integration.server import Server, serving

pytestmark = pytest.mark.timeout(240)

STEPS = 300
JOB_TIMEOUT_S = 90.0
SERVICE_TIMEOUT_S = 40.0
"""Ray's library would end it after 60."""

Strike = Callable[[Server, Traces], None]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("data")
    write_npz(convolutional(has_state=True), made / "data.npz")
    return made


@pytest.fixture(scope="module")
def spec() -> JobSpec:
    training = {"steps": STEPS, "checkpoint": {"everySteps": 10}}
    return spec_of(convolutional(has_state=True), "server:data.npz", training=training)


@pytest.fixture(scope="module")
def undisturbed(spec: JobSpec, data_root: Path) -> str:
    """The digest that the job has without a service, and without Ray."""
    result = run(spec, data_root, workers=2)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result.digest


def enter(patch: pytest.MonkeyPatch, start: Traces) -> None:
    """The next start of the service inherits this."""
    for name, value in start.environment.items():
        patch.setenv(name, value)


def watched(client: Client, job: pb.Job) -> list[pb.JobEvent]:
    return list(client.watch(job))


def strike_coordinator(server: Server, start: Traces) -> None:
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()


def strike_everything(server: Server, start: Traces) -> None:
    """Nobody is left who could end anything or remove anything: no coordinator, no Ray, no trainer, no worker."""
    for process in start.see():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.process.wait()


def strike_ray(server: Server, start: Traces) -> None:
    """The coordinator is left without Ray: it says so, and ends, before Ray's library ends it without a word."""
    for process in start.see():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.pid != server.process.pid:
                process.kill()
    assert server.process.wait(SERVICE_TIMEOUT_S) == 1
    assert "event=engine_lost" in server.log() and "event=stopped" in server.log()
    assert "\n".join(start.left()) == ""


@pytest.mark.parametrize("strike", [strike_coordinator, strike_everything, strike_ray])
def test_a_job_goes_on_at_the_next_start_of_the_service(
    strike: Strike, spec: JobSpec, undisturbed: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"data_root": str(data_root), "warm": 3, "refill": False}
    with traces("first") as first, traces("second") as second, ThreadPoolExecutor() as threads:
        enter(monkeypatch, first)
        # The inner start ends before the outer one looks for segments: it has to remove those of both.
        with serving(tmp_path / "state", **settings) as killed, killed.client() as client:
            first.service_ids.add(killed.service_id)
            job = client.submit(spec)
            events = threads.submit(watched, client, job)
            wait_until(lambda: client.get(job.id).checkpoint_step >= 10, JOB_TIMEOUT_S)
            wait_until(lambda: len(first.see()) >= 6, 5)  # the service, Ray's two, a trainer, two workers
            strike(killed, first)
            if strike is not strike_ray:
                segments = list(Path("/dev/shm").glob(f"gradwire-{killed.service_id}-{job.id}-1"))
                assert segments and list(first.folder.glob("gw-ray-*")), "nothing is left that could be removed"

            enter(monkeypatch, second)
            # At the same address, so that the watch that was cut off finds it.
            with serving(tmp_path / "state", **{**settings, "listen": killed.address}) as again:
                second.service_ids.add(again.service_id)
                assert again.service_id == killed.service_id
                seen = events.result(JOB_TIMEOUT_S)
                job = client.get(job.id)
                assert (state_word(job.state), job.generation) == ("SUCCEEDED", 2), job.error.message
                assert job.step == STEPS
                assert second.see(), "the marks are not found"
        assert job.weights_digest == undisturbed
        assert "\n".join(first.left()) == ""
        assert "\n".join(second.left()) == ""

    assert [event.cursor for event in seen] == list(range(1, job.cursor + 1)), "the watch missed events"
    states = [state_word(event.state) for event in seen if event.kind == "state"]
    moves = [state for before, state in zip(["", *states], states, strict=False) if state != before]
    assert moves == ["QUEUED", "STARTING", "RUNNING", "RECOVERING", "RUNNING", "SUCCEEDED"]
    recovering = next(index for index, event in enumerate(seen) if event.state == pb.JOB_STATE_RECOVERING)
    steps_after = [event.step for event in seen[recovering:] if event.kind == "progress"]
    assert steps_after and min(steps_after) > 10, "it went on from its checkpoint, not from the start"
