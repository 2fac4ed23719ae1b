"""The command line against a real service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.client import Client
from gradwire.errors import Unauthenticated
from tests.integration.cases import convolutional, write_npz
from tests.integration.server import Server, serving

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

FIELDS = {
    *("id", "name", "state", "step", "totalSteps", "epoch", "metrics", "evalMetrics", "workers", "weightsDigest"),
    *("error", "specDigest", "createdAt", "startedAt", "finishedAt"),
}
"""What scripts read in `gradwire show JOB --json`."""


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


def test_with_a_token_every_call_needs_it(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("open sesame\n")
    token.chmod(0o600)
    with serving(tmp_path / "state", token_file=str(token), warm=0, refill=False) as made:
        with Client(made.address) as without, pytest.raises(Unauthenticated):
            without.list()
        with Client(made.address, token="wrong") as wrong, pytest.raises(Unauthenticated):
            wrong.list()
        with Client(made.address, token_file=str(token)) as right:
            assert right.list() == []
        refused = gradwire("jobs", server=made.address, folder=tmp_path)
        assert refused.returncode == 2 and "--token-file" in refused.stderr
        allowed = gradwire("jobs", "--token-file", "token", server=made.address, folder=tmp_path)
        assert allowed.returncode == 0, allowed.stderr
