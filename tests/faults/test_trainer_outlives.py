"""In a Ray of its own, a trainer outlives its coordinator; the next one finds it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.faults.traces import traces, wait_until
from tests.integration.jobs import a_spec, finished, trainer_pid, wait_for
from tests.integration.server import serving
from tests.integration.standalone import StandaloneRay, standalone_ray

pytestmark = pytest.mark.timeout(240)

STEPS = 1500
"""Several seconds more than a service needs to start."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneRay]:
    with traces("outlives") as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.environment.items():
            patch.setenv(name, value)
        with standalone_ray(tmp_path_factory.mktemp("ray")) as made:
            for name, value in made.environment.items():
                patch.setenv(name, value)
            yield made
        assert "\n".join(started.left()) == ""


def test_a_job_goes_on_without_its_coordinator_and_with_the_next(cluster: StandaloneRay, tmp_path: Path) -> None:
    settings = {"data_root": str(tmp_path), "warm": 2, "refill": False, "ray": cluster.address}
    spec = a_spec(tmp_path, steps=STEPS, resources={"workers": 2}, checkpoint={"everySteps": 100})
    with ThreadPoolExecutor() as threads, serving(tmp_path / "state", **settings) as killed, killed.client() as first:
        job = first.submit(spec)
        events = threads.submit(lambda: list(first.watch(job)))
        before = wait_for(first, job, lambda found: found.step > 50)
        trainer = trainer_pid(job.id)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()

        # At the same address, so that the watch that was cut off finds it.
        with serving(tmp_path / "state", **{**settings, "listen": killed.address}) as again, again.client() as client:
            found = wait_for(client, job, lambda found: found.step > before.step)
            assert (state_word(found.state), found.generation) == ("RUNNING", 1)
            assert trainer_pid(job.id) == trainer
            seen = events.result(120)
            job = client.get(job.id)
            assert (state_word(job.state), job.generation) == ("SUCCEEDED", 1), job.error.message
            assert job.step == STEPS and list(job.exports) == ["keras", "saved_model"]
            undisturbed = finished(client, client.submit(spec))
            assert job.weights_digest == undisturbed.weights_digest
            assert "job_adopted" in again.log()
    assert [event.cursor for event in seen] == list(range(1, job.cursor + 1))
    steps = [event.step for event in seen if event.kind == "progress"]
    assert steps == sorted(steps) and steps[-1] == STEPS, "one stream of steps"
    assert pb.JOB_STATE_RECOVERING not in [event.state for event in seen]
    wait_until(lambda: not cluster.processes(), 10)
    assert free_cpus(cluster) == os.cpu_count(), "a share was not given back"


def test_what_nobody_needs_is_ended_by_the_next_coordinator(cluster: StandaloneRay, tmp_path: Path) -> None:
    settings = {"data_root": str(tmp_path), "warm": 1, "refill": False, "ray": cluster.address}
    with serving(tmp_path / "state", **settings) as killed, killed.client() as first:
        job = first.submit(a_spec(tmp_path, steps=10**6))
        wait_for(first, job, lambda found: found.step > 0)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        left = {process.pid for process in cluster.processes()}
        assert len(left) >= 2
        with serving(tmp_path / "state", **{**settings, "warm": 0}) as again, again.client() as client:
            client.cancel(job)
            assert state_word(finished(client, job).state) == "CANCELLED"
            wait_until(lambda: not left & {process.pid for process in cluster.processes()}, 20)
            assert free_cpus(cluster) == os.cpu_count()


def free_cpus(cluster: StandaloneRay) -> float:
    import json
    import subprocess
    import sys

    program = (
        "import json, ray, sys\n"
        "ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')\n"
        "print(json.dumps(ray.available_resources().get('CPU', 0.0)))\n"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token"}
    done = subprocess.run(
        [sys.executable, "-c", program, cluster.address], env=environment, capture_output=True, text=True, check=True
    )  # fmt: skip
    return float(json.loads(done.stdout.splitlines()[-1]))
