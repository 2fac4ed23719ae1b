"""A job over two nodes of a cluster: who is on the trainer's node shares memory, the others use Flight."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.jobs import a_spec, finished, wait_for
from tests.integration.server import serving
from tests.integration.standalone import StandaloneRay, standalone_ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


WORKERS = (os.cpu_count() or 1) + 2
"""Two more than the first node has room for: those share a stream."""
BOTH = {"workers": WORKERS, "minWorkers": WORKERS, "cpusPerWorker": 1}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandaloneRay]:
    folder = tmp_path_factory.mktemp("ray")
    with standalone_ray(folder, nodes=2) as made, pytest.MonkeyPatch.context() as patch:
        for name, value in made.environment.items():
            patch.setenv(name, value)
        yield made


def test_a_job_over_two_nodes_has_the_digest_of_one(tmp_path: Path, cluster: StandaloneRay) -> None:
    settings = {
        "data_root": str(tmp_path), "warm": 2, "refill": False, "ray": cluster.address, "exchange_tls": True,
    }  # fmt: skip
    with serving(tmp_path / "state", **settings) as server, server.client() as client:
        one, two = (
            finished(client, client.submit(a_spec(tmp_path, steps=40, resources=resources, shards=WORKERS)))
            for resources in ({"workers": 1}, BOTH)
        )
    assert [state_word(job.state) for job in (one, two)] == ["SUCCEEDED"] * 2, (one.error.message, two.error.message)
    assert {worker.transport for worker in two.workers} == {"shared_memory", "flight"}
    assert one.weights_digest == two.weights_digest


def test_a_hung_worker_of_another_node_is_gone_and_replaced(tmp_path: Path, cluster: StandaloneRay) -> None:
    settings = {"data_root": str(tmp_path), "warm": 0, "refill": False, "ray": cluster.address}
    resources = {"workers": WORKERS, "minWorkers": 1, "cpusPerWorker": 1}
    spec = a_spec(tmp_path, steps=10**6, resources=resources, shards=WORKERS)
    with serving(tmp_path / "state", **settings) as server, server.client() as client:
        job = client.submit(spec)
        far = far_workers(wait_for(client, job, lambda found: len(far_workers(found)) == 2))
        os.kill(far[0].pid, signal.SIGSTOP)
        hung = psutil.Process(far[0].pid)
        again = wait_for(
            client,
            job,
            lambda found: len(others := far_workers(found)) == 2 and far[0].id not in {w.id for w in others},
        )
        assert hung.wait(15) is None, "killed on its node, by that node"
        assert again.generation == 1 and again.step > 0
        client.cancel(job)
        finished(client, job)


def far_workers(job: pb.Job) -> list[pb.Worker]:
    """Those at work on another node than the trainer's."""
    return [one for one in job.workers if one.transport == "flight" and one.state in ("READY", "SLOW")]
