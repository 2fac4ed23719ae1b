"""The whole service as its users meet it: real gRPC, real Ray, real TensorFlow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tarfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil
import pytest
import tensorflow as tf

from gradwire.client import Client
from gradwire.errors import AlreadyExists, InvalidSpec, NotFound, Unavailable
from gradwire.spec.job import JobSpec
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration import deadly
from tests.integration.cases import convolutional, several_heads, spec_of, write_npz
from tests.integration.jobs import ONE_WORKER, a_spec, finished, trainer_pid, wait_for
from tests.integration.server import Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]


def test_one_digest_for_1_and_4_workers_and_for_2_of_which_one_is_killed(client: Client, data_root: Path) -> None:
    jobs = [client.submit(a_spec(data_root, steps=60, resources={"workers": workers})) for workers in (1, 4)]
    ended = [finished(client, job) for job in jobs]
    assert [job.state for job in ended] == [pb.JOB_STATE_SUCCEEDED] * 2, [job.error.message for job in ended]
    assert len({job.weights_digest for job in ended}) == 1

    # A stopped worker holds the step up, so that its end comes in the middle of one.
    spec = a_spec(data_root, steps=60, resources={"workers": 2, "minWorkers": 2})
    job = client.submit(spec)
    started = wait_for(client, job, lambda found: any(worker.state == "READY" for worker in found.workers))
    victim = next(worker for worker in started.workers if worker.state == "READY")
    os.kill(victim.pid, signal.SIGSTOP)
    held = wait_for(client, job, lambda found: found.state == pb.JOB_STATE_RUNNING)
    assert held.step < 60
    with contextlib.suppress(ProcessLookupError):  # on a busy machine it was dropped by now, as one that hangs
        os.kill(victim.pid, signal.SIGKILL)
    job = finished(client, job)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
    assert job.weights_digest == ended[0].weights_digest
    assert any(f"worker {victim.id} left" in event.message for event in client.watch(job))


def test_a_hung_worker_is_replaced(client: Client, data_root: Path) -> None:
    job = client.submit(a_spec(data_root, steps=1_000_000))
    started = wait_for(client, job, lambda found: found.step > 0)
    victim = started.workers[0]
    os.kill(victim.pid, signal.SIGSTOP)
    others = {worker.id for worker in started.workers}
    wait_for(client, job, lambda found: any(new.id not in others and new.state == "READY" for new in found.workers))
    client.cancel(job.id)
    messages = [event.message for event in client.watch(job)]
    assert any(f"worker {victim.id} left: hung in phase" in message for message in messages)
    assert any(f"{victim.id} died" in message and "another takes its place" in message for message in messages)
    is_gone = not psutil.pid_exists(victim.pid) or psutil.Process(victim.pid).status() == psutil.STATUS_ZOMBIE
    assert is_gone, "the stopped process is still there"


def test_a_sample_that_ends_workers_is_found(client: Client, data_root: Path, tmp_path: Path) -> None:
    spec = JobSpec.model_validate(deadly.write(tmp_path))
    (tmp_path / "deadly.npz").rename(data_root / "deadly.npz")
    job = finished(client, client.submit(spec))
    assert (job.state, job.error.code) == (pb.JOB_STATE_FAILED, "shard_failed"), job.error.message
    assert f" {deadly.DEADLY_ROW}" in job.error.message
    assert "died of SIGSEGV" in job.error.message


@pytest.fixture(scope="module")
def undisturbed(server: Server, data_root: Path) -> pb.Job:
    """A job at its end; it is long enough to strike another like it in between."""
    with server.client() as client:
        job = finished(client, client.submit(a_spec(data_root, steps=1200, checkpoint={"everySteps": 10})))
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
    return job


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_trainer_that_dies_or_hangs_is_followed_by_another_with_the_same_result(
    server: Server, client: Client, data_root: Path, undisturbed: pb.Job, number: signal.Signals
) -> None:
    job = client.submit(a_spec(data_root, steps=1200, checkpoint={"everySteps": 10, "keep": 1000}))
    wait_for(client, job, lambda found: found.checkpoint_step >= 10)
    first = psutil.Process(trainer_pid(job.id))
    first.send_signal(number)
    wait_for(client, job, lambda found: found.generation == 2, timeout_s=30)
    # A zombie waits for Ray; it writes nothing more.
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE, "the second must be alone"
    job = finished(client, job)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.error.message
    assert job.generation == 2
    events = list(client.watch(job))
    assert pb.JOB_STATE_RECOVERING in [event.state for event in events if event.kind == "state"]
    hung = [event for event in events if "it hung: no answer for 5 s, last seen training" in event.message]
    assert bool(hung) == (number == signal.SIGSTOP)
    assert job.weights_digest == undisturbed.weights_digest
    names = [path.name for path in (server.state / "storage" / "jobs" / job.id / "checkpoints").iterdir()]
    by_start = {generation: [name for name in names if name.endswith(f"-g{generation}")] for generation in (1, 2)}
    assert max(by_start[1]) < min(by_start[2]), "each step was written by one trainer"


def test_the_exports_predict_as_the_trained_model(client: Client, data_root: Path, tmp_path: Path) -> None:
    """That they need no Gradwire for it is test_export.py's to show."""
    case = several_heads()
    write_npz(case, data_root / "exported.npz")
    job = finished(client, client.submit(spec_of(case, "server:exported.npz", resources=ONE_WORKER)))
    assert list(job.exports) == ["keras", "saved_model"], job.error.message
    client.download(job, "export/keras", tmp_path / "model.keras")
    client.download(job, "export/saved_model", tmp_path / "saved_model.tar")
    with tarfile.open(tmp_path / "saved_model.tar") as archive:
        archive.extractall(tmp_path, filter="data")
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    expected = model.predict(case.inputs, verbose=0)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    outputs = loaded.serve(case.inputs)
    for name, values in expected.items():
        np.testing.assert_allclose(outputs[name], values, atol=1e-5)


def test_flight_gives_the_digest_of_shared_memory(client: Client, data_root: Path) -> None:
    near, far = (
        finished(client, client.submit(a_spec(data_root, steps=40, resources=resources)))
        for resources in (ONE_WORKER, {"workers": 2, "exchange": "flight"})
    )
    assert [near.state, far.state] == [pb.JOB_STATE_SUCCEEDED] * 2, (near.error.message, far.error.message)
    assert {worker.transport for worker in near.workers} == {"shared_memory"}
    assert {worker.transport for worker in far.workers} == {"flight"}
    assert near.weights_digest == far.weights_digest


def test_a_request_id_stands_for_one_job(client: Client, data_root: Path) -> None:
    spec = a_spec(data_root)
    first = client.submit(spec, request_id="once")
    assert client.submit(spec, request_id="once").id == first.id
    with pytest.raises(AlreadyExists):
        client.submit(a_spec(data_root, steps=7), request_id="once")
    client.cancel(first.id)


def test_watching_again_from_a_cursor_misses_nothing(client: Client, undisturbed: pb.Job) -> None:
    everything = [event.cursor for event in client.watch(undisturbed)]
    assert everything == list(range(1, len(everything) + 1))
    middle = everything[len(everything) // 2]
    assert [event.cursor for event in client.watch(undisturbed, cursor=middle)] == everything[middle:]


def test_jobs_that_do_not_fit_wait_in_order_and_say_why(client: Client, data_root: Path) -> None:
    cpus = os.cpu_count() or 1
    everything = {"workers": 1, "cpusPerWorker": cpus}
    first = client.submit(a_spec(data_root, steps=100_000, resources=everything))
    second = client.submit(a_spec(data_root, resources=everything))
    third = client.submit(a_spec(data_root))
    try:
        wait_for(client, first, lambda found: found.step > 0)
        waiting = wait_for(client, second, lambda found: "CPU" in found.state_reason)
        assert waiting.state == pb.JOB_STATE_QUEUED
        behind = wait_for(client, third, lambda found: found.state_reason != "")
        assert behind.state == pb.JOB_STATE_QUEUED
    finally:
        for job in (third, second, first):
            client.cancel(job.id)
    ended = finished(client, first)
    assert ended.state == pb.JOB_STATE_CANCELLED
    assert ended.checkpoint_step == ended.step > 0, "what is trained is kept"


def test_a_model_that_does_not_fit_the_data_fails_before_the_first_step(client: Client, data_root: Path) -> None:
    case = convolutional()
    small = {"image": case.inputs["image"][:, :5], "label_digit": case.labels["digit"]}
    np.savez(data_root / "small.npz", **small)
    job = finished(client, client.submit(spec_of(case, "server:small.npz", resources=ONE_WORKER)))
    assert (job.state, job.step) == (pb.JOB_STATE_FAILED, 0)
    assert job.error.code == "model_data_mismatch"
    assert "(8, 8, 1)" in job.error.message and "(5, 8, 1)" in job.error.message


def test_a_loss_that_is_not_finite_fails_the_job_and_keeps_the_last_checkpoint(client: Client, data_root: Path) -> None:
    spec = a_spec(data_root, steps=400, checkpoint={"everySteps": 1})
    wild = {"name": "SGD", "config": {"learning_rate": 1e12}}
    spec = JobSpec.model_validate({**spec.model_dump(), "optimizer": wild})
    job = finished(client, client.submit(spec))
    assert (job.state, job.error.code) == (pb.JOB_STATE_FAILED, "nonfinite")
    assert "step" in job.error.message
    assert job.weights_digest
    assert 1 <= job.checkpoint_step <= job.step, "the last finite checkpoint stays"
    log = "\n".join(event.message for event in client.watch(job))
    assert "nonfinite" in log or "not finite" in log


def test_a_truncated_file_is_named(client: Client, data_root: Path, tmp_path: Path) -> None:
    whole = write_npz(convolutional(), tmp_path / "whole.npz").read_bytes()
    (data_root / "half.npz").write_bytes(whole[: len(whole) // 2])
    job = finished(client, client.submit(spec_of(convolutional(), "server:half.npz", resources=ONE_WORKER)))
    assert job.state == pb.JOB_STATE_FAILED
    assert job.error.code == "data_unreadable" and "half.npz" in job.error.message


@pytest.mark.parametrize(
    ("builtin", "features", "labels", "units", "loss"),
    [
        ("diabetes", "features", "target", 1, "mean_squared_error"),
        (
            "breast_cancer",
            "features",
            "label",
            2,
            {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}},
        ),
    ],
)
def test_builtin_data_trains_a_sequential_model(
    client: Client, builtin: str, features: str, labels: str, units: int, loss: Any
) -> None:
    width = {"diabetes": 10, "breast_cancer": 30}[builtin]
    model = keras.Sequential([keras.Input((width,)), keras.layers.Dense(8), keras.layers.Dense(units)])
    spec = {
        "name": builtin,
        "model": {"keras": model.to_json()},
        "data": {"train": {"builtin": builtin}, "inputs": features, "labels": labels, "validation": {"split": 0.2}},
        "loss": loss,
        "optimizer": "adam",
        "training": {"globalBatch": 64, "epochs": 2},
    }
    job = finished(client, client.submit(JobSpec.model_validate(spec)))
    assert job.state == pb.JOB_STATE_SUCCEEDED, (job.error.message, job.error.details)
    assert job.eval_metrics["loss"] > 0


def test_a_python_function_is_uploaded_and_run(client: Client, data_root: Path, tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "net.py").write_text(
        "import keras\n\n\ndef build(width):\n"
        "    image = keras.Input((8, 8, 1), name='image')\n"
        "    value = keras.layers.Dense(width, activation='relu')(keras.layers.Flatten()(image))\n"
        "    return keras.Model(image, keras.layers.Dense(10, name='digit')(value))\n"
    )
    write_npz(convolutional(), data_root / "python.npz")
    python = {"function": "net:build", "source": str(source), "arguments": {"width": 12}}
    spec = spec_of(convolutional(), "server:python.npz", model={"python": python}, resources=ONE_WORKER)
    job = finished(client, client.submit(spec))
    assert job.state == pb.JOB_STATE_SUCCEEDED, (job.error.message, job.error.details)


def test_an_invalid_spec_is_refused_with_every_violation(client: Client, data_root: Path) -> None:
    spec = a_spec(data_root)
    hostile = {"class_name": "Lambda", "module": "keras.layers", "config": {"name": "x"}}
    broken = spec.model_dump()
    broken["model"] = {"keras": json.dumps(hostile)}
    broken["data"]["train"] = {"npz": {"server_path": "../../etc/passwd"}}
    with pytest.raises(InvalidSpec) as caught:
        client.submit(JobSpec.model_validate(broken))
    fields = [violation.field for violation in caught.value.violations]
    assert any(field.startswith("model.keras") for field in fields)
    assert any(field.startswith("data.train") for field in fields)


def test_unknown_jobs_and_missing_servers_are_errors(client: Client) -> None:
    with pytest.raises(NotFound):
        client.get("no such job")
    with Client("127.0.0.1:9") as nobody, pytest.raises(Unavailable, match=r"127\.0\.0\.1:9.*gradwire serve"):
        nobody.get("any")
