"""What a job writes for TensorBoard, as a real TensorBoard shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gradwire.spec.job import JobSpec, ReportingSpec
from gradwire.storage import Storage
from service.api.transfer import pack
from service.training import histograms
from service.training.blocks import Blocks
from service.training.board import RETRY_S, TRAIN, Board
from service.training.histograms import summary_of
from service.training.summation import StepSum, Summation
from tests.integration import lab
from tests.integration.cases import Case, convolutional, recommender, spec_of, write_npz
from workers.layout import Layout, Tensor
from workers.tree import Node

pytestmark = pytest.mark.timeout(180)
PATIENCE_S = 60.0


def a_spec(folder: Path, case: Case, *, steps: int, histograms_every: int, validation: float | None) -> JobSpec:
    path = folder / f"{case.name}.npz"
    if not path.exists():
        write_npz(case, path)
    spec = spec_of(
        case,
        f"server:{case.name}.npz",
        optimizer={"name": "adam", "config": {"learning_rate": 0.25}},
        training={"steps": steps, "evaluateEvery": 4, "checkpoint": {"everySteps": 4}},
        validation=validation,
    )
    return spec.model_copy(update={"reporting": ReportingSpec(histograms_every=histograms_every)})


def unpacked(job: lab.Lab, folder: Path) -> Path:
    """What the job wrote, as a client gets it."""
    archive = folder / f"{job.spec.name}.tar"
    with archive.open("wb") as file:
        pack(Storage(str(job.folder / "storage")), f"jobs/{job.job_id}/tensorboard", file)
    (folder / job.spec.name).mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", folder / job.spec.name, "--strip-components=1"], check=True)
    return folder / job.spec.name


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


def test_a_real_tensorboard_shows_curves_histograms_hyper_parameters_and_graphs(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    with_state = a_spec(tmp_path, convolutional(has_state=True), steps=12, histograms_every=5, validation=0.25)
    with_tables = a_spec(tmp_path, recommender(), steps=4, histograms_every=2, validation=None)
    results = []
    for spec in (with_state, with_tables):
        with lab.lab(spec, tmp_path, 1) as job:
            results.append(job.result())
        assert results[-1].outcome.state == "SUCCEEDED", results[-1].outcome
        unpacked(job, logs)
    with tensorboard(logs) as url:
        plugin = f"{url}/data/plugin"
        deadline = time.monotonic() + PATIENCE_S
        runs = {"convolutional/train", "convolutional/validation", "recommender/train"}
        while set(ask(f"{plugin}/scalars/tags")) != runs:  # it loads in the background
            assert time.monotonic() < deadline
        scalars = ask(f"{plugin}/scalars/tags")
        assert {"loss", "learning_rate", "gradient_norm", "examples_per_second", "phase_ms/compute"} <= set(
            scalars["convolutional/train"]
        )
        points = ask(f"{plugin}/scalars/scalars?run=convolutional/validation&tag=loss")
        assert [step for _, step, _ in points] == [4, 8, 12]
        assert points[-1][2] == pytest.approx(results[0].progress.snapshot.eval_metrics["loss"], rel=1e-6)
        assert ask(f"{plugin}/scalars/scalars?run=convolutional/train&tag=learning_rate")[-1][2] == 0.25

        tags = set(ask(f"{plugin}/histograms/tags")["convolutional/train"])
        assert {"weights/digit/kernel", "gradient/digit/kernel", "state/norm/moving_mean"} <= tags
        for kind in ("weights", "gradient"):
            shown = ask(f"{plugin}/histograms/histograms?run=convolutional/train&tag={kind}/digit/kernel")
            assert [step for _, step, _ in shown] == [5, 10, 12]
            assert sum(count for _, _, count in shown[-1][2]) == pytest.approx(5120)
        table = ask(f"{plugin}/histograms/histograms?run=recommender/train&tag=gradient/users/embeddings")
        assert [step for _, step, _ in table] == [2, 4] and sum(count for _, _, count in table[-1][2]) % 8 == 0

        groups = {group["optimizer.config.learning_rate"] for group in hyper_parameters(plugin)}
        assert groups == {0.25} and {group["training.globalBatch"] for group in hyper_parameters(plugin)} == {32}

        for run, operation in (("convolutional/train", b"Conv2D"), ("recommender/train", b"users")):
            assert ask(f"{plugin}/graphs/info")[run]["run_graph"]
            with urllib.request.urlopen(f"{plugin}/graphs/graph?run={run}&conceptual=false", timeout=20) as answer:
                assert operation in answer.read()

    without = a_spec(tmp_path, recommender(), steps=4, histograms_every=0, validation=None)
    with lab.lab(without, tmp_path, 1) as job:
        assert job.result().digest == results[1].digest, "what is looked at changes no bit"
    (tmp_path / "none").mkdir()
    (events,) = unpacked(job, tmp_path / "none").glob("train/*")
    assert b"weights/" not in events.read_bytes() and b"gradient/" not in events.read_bytes()


def test_histograms_count_what_numpy_counts_and_leave_out_what_is_not_finite() -> None:
    numbers = np.random.default_rng(3).standard_normal(5000).astype(np.float32)
    counts, edges = np.histogram(numbers.astype(np.float64), bins=histograms.BINS)
    made = histograms.histogram(np.append(numbers, np.float32([np.nan, np.inf])))
    assert list(made.bucket)[1:] == counts.tolist() and np.allclose(made.bucket_limit, edges)
    assert (made.num, made.min, made.max) == (5000, numbers.min(), numbers.max())
    equal = histograms.histogram(np.full(7, 3.0, np.float32))
    assert (equal.min, equal.max, sum(equal.bucket)) == (3.0, 3.0, 7)
    assert sum(histograms.histogram(np.full(2, np.nan, np.float32)).bucket) == 0


def test_samples_are_bounded_and_take_every_column_in_turn() -> None:
    tensor = np.broadcast_to(np.arange(1024, dtype=np.float32), (512, 1024))
    taken = histograms.sample(np.ascontiguousarray(tensor), 4096)
    assert taken.size <= 4096 and np.unique(taken).size == 1024
    assert histograms.sample(np.arange(5.0), 5).tolist() == [0, 1, 2, 3, 4]


class Paper:
    """A board that keeps what it is given; a clock that each look advances."""

    def __init__(self) -> None:
        self.made: dict[int, Any] = {}
        self.now = 0.0
        self.last_made_s = 0.5

    def add(self, step: int, run: str, make: Callable[[], Any]) -> None:
        self.made[step] = make()


def looks(said: int | None, *, steps: int, step_s: float) -> Paper:
    layout = Layout.of([Tensor("gradient/w", (3,), "float32"), Tensor("loss", (1,), "float32")])
    blocks, board = Blocks(1), Paper()
    weights, schedule = (
        SimpleNamespace(by_name={"weights/w": np.ones(3, np.float32)}),
        SimpleNamespace(total_steps=steps),
    )
    subject = histograms.Histograms(
        ReportingSpec(histograms_every=said),
        schedule, Summation(layout, blocks), weights, board, clock=lambda: board.now,  # type: ignore[arg-type]
    )  # fmt: skip
    shards = {Node(0, 1): [np.arange(32, dtype=np.float32)], Node(1, 2): [np.full(32, 10, np.float32)]}
    for step in range(1, steps + 1):
        subject.look_at_gradients(step, StepSum(Node(0, 2), shards))
        subject.look_at_weights(step, is_last=step == steps)
        board.now += step_s
    return board


def test_how_often_a_specification_says_is_how_often_it_is() -> None:
    board = looks(4, steps=10, step_s=1e-6)
    assert list(board.made) == [4, 8, 10]
    gradient, weights = board.made[4].value
    assert (gradient.tag, gradient.histo.min, gradient.histo.max) == ("gradient/w", 10.0, 12.0), "it is the shards' sum"
    assert (weights.tag, weights.histo.num) == ("weights/w", 3)
    assert looks(0, steps=10, step_s=1e-6).made == {}


def test_without_a_word_there_are_a_hundred_looks_or_as_many_as_cost_next_to_nothing() -> None:
    assert list(looks(None, steps=1000, step_s=1e9).made) == list(range(10, 1001, 10))
    board = looks(None, steps=1000, step_s=1.0)
    assert list(board.made) == [step for step in range(10, 1001, 10) if step % 100 == 10 or step == 1000]


def test_a_board_that_could_not_write_goes_on_in_a_new_file(tmp_path: Path) -> None:
    now, folder = [0.0], tmp_path / "jobs" / "ab12" / "tensorboard"
    folder.mkdir(parents=True)
    (folder / "train").write_text("in the way")
    spec = a_spec(tmp_path, recommender(), steps=1, histograms_every=0, validation=None)
    board = Board(Storage(str(tmp_path)), "ab12", 1, spec, clock=lambda: now[0])
    board.begin(0)
    written = threading.Event()
    board.add(1, TRAIN, lambda: written.set() or summary_of({}))
    assert written.wait(PATIENCE_S)
    (folder / "train").unlink()
    now[0] = RETRY_S
    board.curves(2, TRAIN, {"loss": 0.5})
    board.close(b"")
    (events,) = (folder / "train").iterdir()
    assert events.name.endswith(".g1.1") and b"loss" in events.read_bytes()


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
