"""A whole deployment: containers train a job, Prometheus sees it, and it outlives worker, coordinator and trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gradwire.client import Client
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.deploy.stack import ROOT, Stack, stack, wait_until

pytestmark = pytest.mark.timeout(1800)

JOB_TIMEOUT_S = 420.0
EPOCHS = 200
"""2,400 steps: longer than everything takes that happens meanwhile."""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with stack(tmp_path_factory.mktemp("deploy")) as made:
        yield made


@pytest.fixture(scope="module")
def job_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits example, longer, and with workers that fill a container each."""
    folder = tmp_path_factory.mktemp("job") / "digits"
    shutil.copytree(ROOT / "examples/digits", folder)
    text = (folder / "job.yaml").read_text()
    for old, new in (("epochs: 30", f"epochs: {EPOCHS}"), ("cpusPerWorker: 0.5", "cpusPerWorker: 1\n  minWorkers: 1")):
        assert old in text
        text = text.replace(old, new)
    (folder / "job.yaml").write_text(text)
    return folder / "job.yaml"


@pytest.fixture(scope="module")
def undisturbed(deployed: Stack, job_file: Path) -> pb.Job:
    """Submitted as a user does it, from the host."""
    command = [sys.executable, "-m", "gradwire.cli.main", "submit", str(job_file), "--watch", "--json"]
    access = ["--server", deployed.address, "--token-file", str(deployed.secrets / "api_token")]
    done = subprocess.run(
        [*command, *access], cwd=ROOT, capture_output=True, text=True, timeout=JOB_TIMEOUT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with deployed.client() as client:
        return client.get(json.loads(done.stdout)["id"])


def running(client: Client, job: pb.Job, *, step: int, workers: int = 1, generation: int = 1) -> pb.Job:
    """The job as soon as it is beyond a step, with so many workers at work."""

    def look() -> pb.Job | None:
        found = client.get(job.id)
        assert state_word(found.state) not in ("SUCCEEDED", "FAILED", "CANCELLED"), found.error.message
        ready = [worker for worker in found.workers if worker.state in ("READY", "SLOW")]
        is_so = found.step > step and len(ready) >= workers and found.generation >= generation
        return found if is_so and state_word(found.state) == "RUNNING" else None

    found: pb.Job = wait_until(look, JOB_TIMEOUT_S)
    return found


def test_a_job_trains_in_containers_that_exchange_by_flight(undisturbed: pb.Job) -> None:
    assert state_word(undisturbed.state) == "SUCCEEDED" and undisturbed.step == 12 * EPOCHS
    assert {worker.transport for worker in undisturbed.workers} == {"shared_memory", "flight"}
    assert len({worker.node for worker in undisturbed.workers}) == 2
    assert undisturbed.eval_metrics["digit_accuracy"] > 0.9


def test_prometheus_sees_the_service_and_the_job(deployed: Stack, undisturbed: pb.Job) -> None:
    assert list(deployed.query('up{job="gradwire"}').values()) == [1.0]
    # At the latest two scrapes after the job's end.
    for query, value in (
        (f'gradwire_job_step{{job_id="{undisturbed.id}"}}', undisturbed.step),
        ('gradwire_jobs{state="SUCCEEDED"}', 1.0),
    ):
        wait_until(lambda query=query, value=value: [*deployed.query(query).values()] == [value])
    # One of the rules, which the container has read from deploy/prometheus/.
    [free] = wait_until(lambda: [*deployed.query("gradwire:storage_free:ratio").values()])
    assert 0.0 < free < 1.0


def test_nothing_is_answered_without_the_token(deployed: Stack, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("guess\n")
    command = [sys.executable, "-m", "gradwire.cli.main", "jobs", "--server", deployed.address]
    for access in ([], ["--token-file", str(tmp_path / "wrong")]):
        done = subprocess.run([*command, *access], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "--token-file" in done.stderr


def test_a_node_that_cannot_join_says_why_and_ends(deployed: Stack) -> None:
    with pytest.raises(AssertionError, match=r"no Ray answers at nowhere:6379 .* look whether the cluster runs"):
        deployed.compose("run", "--rm", "--no-deps", "workers", "join", "nowhere:6379")


def test_a_job_outlives_worker_coordinator_and_trainer(deployed: Stack, undisturbed: pb.Job, job_file: Path) -> None:
    with deployed.client() as client, ThreadPoolExecutor() as threads:
        job = client.submit(job_file)
        events = threads.submit(lambda: list(client.watch(job)))
        before = running(client, job, step=50, workers=2)
        nodes = {container.node: container for container in deployed.containers("workers")}
        remote = next(worker.node for worker in before.workers if worker.transport == "flight")
        home = next(node for node in nodes if node != remote)

        deployed.kill(nodes[remote])
        alone = running(client, job, step=before.step + 50)
        deployed.compose("stop", "-t", "2", "prometheus")
        again = running(client, job, step=alone.step + 50, workers=2)
        new = {worker.id for worker in again.workers} - {worker.id for worker in before.workers}
        assert new, "the container came back as a node, and has a worker of the job again"

        [coordinator] = deployed.containers("coordinator")
        deployed.kill(coordinator)
        deployed.wait_until_healthy(coordinator)
        adopted = running(client, job, step=again.step + 50, workers=2)
        assert adopted.generation == 1, "the trainer went on meanwhile"

        deployed.kill(nodes[home])
        running(client, job, step=adopted.step, generation=2)
        deployed.compose("start", "prometheus")

        seen = events.result(JOB_TIMEOUT_S)
        ended = client.get(job.id)
    assert (state_word(ended.state), ended.step) == ("SUCCEEDED", 12 * EPOCHS), ended.error.message
    # One start more, if the next trainer is sent to the dead container before Ray has noticed that it is dead.
    assert ended.generation >= 2
    assert ended.weights_digest == undisturbed.weights_digest
    assert pb.JOB_STATE_RECOVERING in [event.state for event in seen]
