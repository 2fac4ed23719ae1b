"""The command line against a real service."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.client import Client
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.cases import convolutional, write_npz
from tests.integration.server import Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIELDS = {
    *("id", "name", "state", "step", "totalSteps", "epoch", "metrics", "evalMetrics", "workers", "weightsDigest"),
    *("error", "specDigest", "createdAt", "startedAt", "finishedAt"),
}
"""What scripts read in `gradwire show JOB --json`."""
TYPES = {
    "id": str, "name": str, "state": str, "step": int, "totalSteps": int, "epoch": int, "metrics": dict,
    "evalMetrics": dict, "workers": list, "weightsDigest": str, "specDigest": str, "createdAt": str, "startedAt": str,
}  # fmt: skip
WORKER_TYPES = {"id": str, "pid": int, "node": str, "state": str, "phase": str, "transport": str}
JOB_TIMEOUT_S = 60.0


def gradwire(*arguments: str, server: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("gradwire")), *arguments, "--server", server]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=120)


def document(ended: subprocess.CompletedProcess[str]) -> Any:
    """Standard output as the one JSON document that it has to be."""
    return json.loads(ended.stdout)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job with its own files beside it: the model as a .json file, the data as .npz, both uploaded."""
    case = convolutional()
    (tmp_path / "model.json").write_text(case.build().to_json())
    write_npz(case, tmp_path / "rows.npz")
    path = tmp_path / "job.yaml"
    path.write_text(
        """
name: by hand
model: { keras: model.json }
data:
  train: { npz: rows.npz }
  inputs: image
  labels: label_digit
  validation: { split: 0.25 }
loss: { name: SparseCategoricalCrossentropy, config: { from_logits: true } }
optimizer: { name: Adam, config: { learning_rate: 1e-3 } }
metrics: accuracy
training: { globalBatch: 32, epochs: 2, shards: 2 }
resources: { workers: 2, cpusPerWorker: 0.5 }
"""
    )
    return path


def test_a_job_by_hand_from_submit_to_export(server: Server, job_file: Path) -> None:
    folder = job_file.parent

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return gradwire(*arguments, server=server.address, folder=folder)

    submitted = run("submit", "job.yaml", "--watch", "--json")
    assert submitted.returncode == 0, submitted.stderr
    job_id = document(submitted)["id"]

    shown = document(run("show", job_id, "--json"))
    assert shown.keys() >= FIELDS
    assert (shown["state"], shown["step"], shown["totalSteps"], shown["finite"]) == ("SUCCEEDED", 10, 10, True)
    assert shown["error"] is None and len(shown["weightsDigest"]) == 64
    assert set(shown["metrics"]) == set(shown["evalMetrics"]) == {"loss", "accuracy"}
    assert shown["spec"]["training"]["shards"] == 2

    assert job_id in run("jobs").stdout
    assert any(job["id"] == job_id for job in document(run("jobs", "--json"))["jobs"])
    assert "step 10" in run("logs", job_id).stdout
    assert "SUCCEEDED" in run("watch", job_id).stdout

    plotted = run("plot", job_id, "-o", "curve.png")
    assert plotted.returncode == 0 and (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    for format_, path in (("keras", "model.keras"), ("saved_model", "saved_model/saved_model.pb")):
        exported = run("export", job_id, "--to", "out", "--format", format_)
        assert exported.returncode == 0 and (folder / "out" / path).is_file(), exported.stderr
    curves = run("export", job_id, "--to", "out", "--format", "tensorboard")
    (events,) = (folder / "out" / "tensorboard" / "train").iterdir()
    assert "tensorboard --logdir" in curves.stdout and b"gradient/digit/kernel" in events.read_bytes()
    again = run("cancel", job_id)
    assert again.returncode == 2 and "SUCCEEDED" in again.stderr


def test_a_broken_job_file_is_refused_with_every_violation(server: Server, job_file: Path) -> None:
    text = job_file.read_text().replace("globalBatch: 32", "globlaBatch: 32").replace("epochs: 2", "epochs: 0")
    job_file.write_text(text)
    ended = gradwire("submit", "job.yaml", "--json", server=server.address, folder=job_file.parent)
    assert ended.returncode == 2
    fields = {violation["field"] for violation in document(ended)["error"]["violations"]}
    assert {"training.globalBatch", "training.globlaBatch", "training.epochs"} <= fields
    plain = gradwire("submit", "job.yaml", server=server.address, folder=job_file.parent)
    assert plain.returncode == 2 and plain.stdout == ""
    assert "did you mean globalBatch" in plain.stderr


def test_a_value_that_is_not_finite_is_named_by_row_and_column(server: Server, job_file: Path) -> None:
    rows = dict(np.load(job_file.parent / "rows.npz"))
    rows["image"][17, 3, 2, 0] = np.nan
    np.savez(job_file.parent / "rows.npz", **rows)
    ended = gradwire("submit", "job.yaml", "--watch", "--json", server=server.address, folder=job_file.parent)
    assert ended.returncode == 1
    error = document(ended)["error"]
    assert error["code"] == "data_nonfinite"
    assert "rows.npz" in error["message"] and "17" in error["message"] and "image" in error["message"]


def test_a_job_that_is_cancelled_from_the_command_line(server: Server, job_file: Path) -> None:
    endless = job_file.read_text().replace("epochs: 2", "epochs: 100000").replace("workers: 2", "workers: 1")
    job_file.write_text(endless)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return gradwire(*arguments, server=server.address, folder=job_file.parent)

    submitted = run("submit", "job.yaml", "--request-id", "by hand, once")
    assert (submitted.returncode, submitted.stderr) == (0, "")
    found = re.fullmatch(
        r"by hand: submitted as job (\w{12})\n  follow it: gradwire watch (\w{12})\n", submitted.stdout
    )
    assert found is not None and found[1] == found[2]
    job_id = found[1]
    assert document(run("submit", "job.yaml", "--request-id", "by hand, once", "--json"))["id"] == job_id
    with server.client() as client:
        wait_for(client, job_id, lambda job: job.step > 0)

    shown = document(run("show", job_id[:6], "--json"))
    assert (shown["id"], shown["state"], shown["error"], shown["finishedAt"]) == (job_id, "RUNNING", None, None)
    for name, kind in TYPES.items():
        assert type(shown[name]) is kind, name
    for worker in shown["workers"]:
        assert {name: type(worker[name]) for name in WORKER_TYPES} == WORKER_TYPES
    assert not [key for key in shown if "_" in key], "keys are camelCase"
    panel = run("show", job_id)
    assert (panel.returncode, panel.stderr) == (0, "")
    for text in ("by hand", job_id, "RUNNING", "loss", "examples/s", "time of a step", "shared_memory"):
        assert text in panel.stdout
    early = run("export", job_id, "--to", "out")
    assert early.returncode == 2 and "it is RUNNING" in early.stderr and f"gradwire watch {job_id}" in early.stderr
    assert not (job_file.parent / "out").exists()

    cancelled = run("cancel", job_id, "--json")
    assert (cancelled.returncode, document(cancelled)["id"]) == (0, job_id)
    watched = run("watch", job_id, "--json")
    assert watched.returncode == 1, "a cancelled job is no success"
    assert (document(watched)["state"], document(watched)["exports"]) == ("CANCELLED", [])
    assert f"gradwire: job {job_id} CANCELLED\n" in watched.stderr
    late = run("export", job_id, "--to", "out")
    assert late.returncode == 2 and "ended without it" in late.stderr

    changed = job_file.read_text().replace("shards: 2", "shards: 4")
    job_file.write_text(changed)
    again = run("submit", "job.yaml", "--request-id", "by hand, once", "--json")
    assert (again.returncode, document(again)["error"]["code"]) == (2, "already_exists")


@pytest.mark.parametrize(
    "words", [["show"], ["watch"], ["logs"], ["cancel"], ["export", "--to", "out"], ["plot", "-o", "x"]]
)
def test_a_job_that_is_not_there_is_wrong_input(server: Server, tmp_path: Path, words: list[str]) -> None:
    command, *options = words
    ended = gradwire(command, "0123456789ab", *options, "--json", server=server.address, folder=tmp_path)
    assert ended.returncode == 2
    assert document(ended)["error"]["code"] == "not_found"
    assert "0123456789ab" in ended.stderr and "gradwire jobs" in ended.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is written"


def test_a_server_that_is_not_there_is_named_with_how_to_start_one(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    ended = gradwire("jobs", "--json", server=address, folder=tmp_path)
    assert ended.returncode == 1
    assert document(ended)["error"]["code"] == "unavailable"
    assert address in ended.stderr and "gradwire serve" in ended.stderr


def wait_for(client: Client, job_id: str, is_so: Callable[[pb.Job], bool]) -> None:
    deadline = time.monotonic() + JOB_TIMEOUT_S
    while not is_so(job := client.get(job_id)):
        assert time.monotonic() < deadline and not job.HasField("finished_at"), job.error.message or job.state_reason
        time.sleep(0.05)
