"""A job over two nodes of a cluster: who is on the trainer's node shares memory, the others use Flight."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gradwire.view import state_word
from tests.integration.jobs import a_spec, finished
from tests.integration.server import serving
from tests.integration.standalone import standalone_ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_a_job_over_two_nodes_has_the_digest_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = (os.cpu_count() or 1) + 2  # two more than the first node has room for: those share a stream
    both = {"workers": workers, "minWorkers": workers, "cpusPerWorker": 1}
    with standalone_ray(tmp_path / "ray", nodes=2) as cluster:
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        settings = {"data_root": str(tmp_path), "warm": 2, "refill": False, "ray": cluster.address}
        with serving(tmp_path / "state", **settings) as server, server.client() as client:
            one, two = (
                finished(client, client.submit(a_spec(tmp_path, steps=40, resources=resources, shards=workers)))
                for resources in ({"workers": 1}, both)
            )
    assert [state_word(job.state) for job in (one, two)] == ["SUCCEEDED"] * 2, (one.error.message, two.error.message)
    assert {worker.transport for worker in two.workers} == {"shared_memory", "flight"}
    assert one.weights_digest == two.weights_digest
