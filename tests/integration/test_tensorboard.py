"""What a job writes for TensorBoard, as a real TensorBoard shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.api.transfer import pack
from tests.integration import lab
from tests.integration.cases import convolutional, spec_of, write_npz

pytestmark = pytest.mark.timeout(180)
PATIENCE_S = 60.0


def a_spec(folder: Path) -> JobSpec:
    case = convolutional(has_state=True)
    write_npz(case, folder / "data.npz")
    spec = spec_of(case, "server:data.npz", optimizer={"name": "adam", "config": {"learning_rate": 0.25}})
    document = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    document["data"]["validation"] = {"split": 0.25}
    document["training"] |= {"steps": 12, "evaluateEvery": 4, "checkpoint": {"everySteps": 4}}
    return JobSpec.model_validate(document)


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    command = [
        sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", "0",
        "--load_fast", "false",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stderr)
        yield next(found.group(0) for found in said if found)
    finally:
        process.terminate()
        process.communicate(timeout=20)


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def test_a_real_tensorboard_shows_curves_histograms_hyper_parameters_and_the_graph(tmp_path: Path) -> None:
    with lab.lab(a_spec(tmp_path), tmp_path, 1) as job:
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome
    archive = tmp_path / "tensorboard.tar"
    with archive.open("wb") as file:
        pack(Storage(str(tmp_path / "storage")), f"jobs/{job.job_id}/tensorboard", file)
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path], check=True)
    with tensorboard(tmp_path / "tensorboard") as url:
        plugin = f"{url}/data/plugin"
        deadline = time.monotonic() + PATIENCE_S
        while set(ask(f"{plugin}/scalars/tags")) != {"train", "validation"}:  # it loads in the background
            assert time.monotonic() < deadline
        scalars = ask(f"{plugin}/scalars/tags")
        assert {"loss", "learning_rate", "gradient_norm", "examples_per_second", "phase_ms/compute"} <= set(
            scalars["train"]
        )
        points = ask(f"{plugin}/scalars/scalars?run=validation&tag=loss")
        assert [step for _, step, _ in points] == [4, 8, 12]
        assert points[-1][2] == pytest.approx(result.progress.snapshot.eval_metrics["loss"], rel=1e-6)
        assert ask(f"{plugin}/scalars/scalars?run=train&tag=learning_rate")[-1][2] == 0.25

        tags = ask(f"{plugin}/histograms/tags")["train"]
        kernel = next(tag for tag in tags if tag.endswith("kernel"))
        last = ask(f"{plugin}/histograms/histograms?run=train&tag={kernel}")[-1]
        assert last[1] == 12 and sum(count for _, _, count in last[2]) > 0

        (group,) = hyper_parameters(plugin)
        assert group["training.globalBatch"] == 32 and group["optimizer.config.learning_rate"] == 0.25

        assert ask(f"{plugin}/graphs/info")["train"]["run_graph"]
        with urllib.request.urlopen(f"{plugin}/graphs/graph?run=train&conceptual=false", timeout=20) as answer:
            assert b"Conv2D" in answer.read()


def hyper_parameters(plugin: str) -> list[dict[str, Any]]:
    wanted = {
        "experimentName": "",
        "colParams": [],
        "startIndex": 0,
        "sliceSize": 10,
        "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_RUNNING", "STATUS_FAILURE"],
    }
    request = urllib.request.Request(
        f"{plugin}/hparams/session_groups", json.dumps(wanted).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return [group["hparams"] for group in json.load(answer)["sessionGroups"]]
