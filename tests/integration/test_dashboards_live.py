"""Every query of every dashboard gives data: a real Prometheus scrapes a real training job that goes through a lot."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gradwire import parse
from gradwire.client import Client
from protos.gradwire.v1 import service_pb2 as pb
from service.metrics import catalogue
from tests.conftest import Require
from tests.integration import dashboards
from tests.integration.jobs import finished, trainer_pid, wait_for
from tests.integration.prometheus_server import Prometheus, prometheus
from tests.integration.server import serving

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 60.0
LAYERS = [
    {"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_shape": [None, 8, 8, 1], "name": "image"}},
    {"module": "keras.layers", "class_name": "Flatten", "config": {"name": "flat"}},
    {"module": "keras.layers", "class_name": "Dense", "config": {"units": 10, "name": "digit"}},
]
DOCUMENT: dict[str, Any] = {
    "name": "digits",
    "model": {"keras": {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": LAYERS}}},
    "data": {
        "train": {"builtin": "digits"}, "inputs": {"image": "image"}, "labels": {"digit": "label"},
        "validation": {"split": 0.2},
    },
    "loss": {"digit": {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}},
    "optimizer": "adam",
    "metrics": {"digit": "accuracy"},
    "training": {"globalBatch": 64, "steps": 10**6, "seed": 7, "evaluateEvery": 200, "checkpoint": {"everySteps": 200}},
    "resources": {"workers": 2, "cpusPerWorker": 0.25},
}  # fmt: skip


def test_every_query_of_every_dashboard_gives_data(tmp_path: Path, require: Require) -> None:
    require("prometheus", "Debian's package prometheus has it")
    began_s = time.time()
    with (
        serving(tmp_path / "state", warm=3, log_format="json") as server,
        prometheus(server.metrics, tmp_path) as scraper,
    ):
        with server.client() as client:
            wait_until_scraped(scraper, "up == 1", began_s)
            job = client.submit(parse(DOCUMENT, Path()))
            go_through_a_lot(client, job)
            missing = {
                f"{path.stem}: {where}": query
                for path in dashboards.FILES
                for where, query in dashboards.queries(dashboards.load(path))
            }
            deadline = time.monotonic() + PATIENCE_S
            while missing and time.monotonic() < deadline:
                missing = {
                    where: query
                    for where, query in missing.items()
                    if not scraper.series(dashboards.filled(query, job.id), began_s)
                }
            assert missing == {}
            counters_never_go_back(scraper, job.id, began_s)
            client.cancel(job)
            finished(client, job)
        lines = [json.loads(line) for line in server.log().splitlines()]
        assert {"worker_died", "trainer_died"} <= {line["event"] for line in lines if line.get("job") == job.id}
        assert not [line for line in lines if "exception" in line]


def go_through_a_lot(client: Client, job: pb.Job) -> None:
    """A worker is killed, then the trainer; both are replaced."""
    training = wait_for(client, job, lambda found: found.checkpoint_step > 0 and len(at_work(found)) == 2)
    killed = at_work(training)[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(client, job, lambda found: killed not in at_work(found) and len(at_work(found)) == 2)
    os.kill(trainer_pid(job.id), signal.SIGKILL)
    wait_for(client, job, lambda found: found.generation == 2 and found.step > found.checkpoint_step > 0)


def at_work(job: pb.Job) -> list[int]:
    return [worker.pid for worker in job.workers if worker.state in ("READY", "SLOW")]


def wait_until_scraped(scraper: Prometheus, query: str, since_s: float) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not scraper.series(query, since_s):
        assert time.monotonic() < deadline, f"Prometheus has nothing for {query}"


def counters_never_go_back(scraper: Prometheus, job_id: str, since_s: float) -> None:
    """Over the loss of the trainer: `resets` would see a fall."""
    for declared in (*catalogue.LIVE_JOB, *catalogue.RUNNING_JOB):
        if declared.kind == "gauge":
            continue
        name = declared.name if declared.kind == "counter" else f"{declared.name}_count"
        window_s = int(time.time() - since_s) + 1
        found = scraper.get("query", query=f'resets({name}{{job_id="{job_id}"}}[{window_s}s])')["result"]
        assert [(series["metric"], series["value"][1]) for series in found if series["value"][1] != "0"] == []
        assert found
