"""Two workers give what plain Keras gives on whole batches, in the lab and through the whole service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwire.client import Client
from gradwire.spec.job import JobSpec
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.cases import CASES, ROWS, Case, spec_of, write_npz
from tests.integration.jobs import finished
from tests.integration.lab import lab
from workers.data.schedule import Schedule
from workers.models.objects import make_loss, make_optimizer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STEPS = 50
OPTIMIZERS = {
    "sgd": {"name": "SGD", "config": {"learning_rate": 0.05, "momentum": 0.9}},
    "adam": {"name": "Adam", "config": {"learning_rate": 1e-3, "epsilon": 1e-4}},
}
"""Adam divides a gradient by its own size: where the true one is zero (the bias of an attention's keys) it would take
rounding for a direction, hence the larger epsilon."""


def trained_by_keras(case: Case, spec: JobSpec) -> keras.Model:
    """Keras's own loss and optimiser on the same whole batches in the same order, from the same initial weights.

    Gradients of embeddings are made dense first: Keras's Adam squares the parts of a row that occurs twice one by one.
    """
    assert spec.model.keras is not None
    keras.utils.set_random_seed(spec.training.seed)
    model = keras.models.model_from_json(spec.model.keras)
    losses = {name: make_loss(loss) for name, loss in spec.loss.items()}
    several = len(losses) > 1
    only = next(iter(losses))
    model.compile(
        optimizer=make_optimizer(spec.optimizer, None),
        loss=losses if several else losses[only],
        loss_weights={name: loss.weight for name, loss in spec.loss.items()} if several else None,
    )

    @tf.function(autograph=False, reduce_retracing=True)
    def train(inputs: Any, labels: Any, weights: Any) -> None:
        with tf.GradientTape() as tape:
            loss = model.compute_loss(inputs, labels, model(inputs, training=True), weights)
        gradients = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        model.optimizer.apply([tf.convert_to_tensor(gradient) for gradient in gradients], model.trainable_variables)

    schedule = Schedule.of(spec.training, ROWS)
    for step in range(schedule.total_steps):
        ids = np.concatenate([schedule.ids(step, shard) for shard in range(spec.training.shards)])
        inputs = {name: values[ids] for name, values in case.inputs.items()}
        labels = {name: values[ids] for name, values in case.labels.items()}
        weights = None
        if case.sample_weights is not None:
            weights = {name: np.ones(values.shape, np.float32) for name, values in labels.items()}
            weights |= {name: values[ids] for name, values in case.sample_weights.items()}
        train(inputs if len(inputs) > 1 else inputs[next(iter(inputs))], labels if several else labels[only], weights)
    return model


def trained_in_the_lab(spec: JobSpec, folder: Path) -> Path:
    """The path of the exported model."""
    with lab(spec, folder, workers=2, exports=True) as job:
        outcome = job.result().outcome
    assert outcome.state == "SUCCEEDED", outcome.error
    return folder / f"storage/jobs/{job.job_id}/export/model.keras"


def trained_by_the_service(spec: JobSpec, folder: Path, client: Client) -> Path:
    job = finished(client, client.submit(spec))
    assert job.state == pb.JOB_STATE_SUCCEEDED, (job.error.message, job.error.details)
    assert job.step == STEPS
    return client.download(job, "export/keras", folder / "model.keras")


def assert_equal_to_keras(path: Path, case: Case, spec: JobSpec) -> None:
    ours, theirs = keras.models.load_model(path, compile=False), trained_by_keras(case, spec)
    differences = {
        variable.path: float(np.abs(np.asarray(variable) - np.asarray(other)).max())
        for variable, other in zip(ours.weights, theirs.weights, strict=True)
    }
    assert max(differences.values()) <= 1e-5, differences


def prepared(name: str, optimizer: str, data_root: Path) -> tuple[Case, JobSpec]:
    case = CASES[name]()
    write_npz(case, data_root / f"{name}.npz")
    return case, spec_of(case, f"server:{name}.npz", optimizer=OPTIMIZERS[optimizer], training={"steps": STEPS})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_two_workers_equal_plain_keras(name: str, optimizer: str, tmp_path: Path) -> None:
    case, spec = prepared(name, optimizer, tmp_path)
    assert_equal_to_keras(trained_in_the_lab(spec, tmp_path), case, spec)


@pytest.mark.parametrize(("name", "optimizer"), [("several_heads", "adam"), ("recommender", "sgd")])
def test_two_workers_of_a_service_equal_plain_keras(
    name: str, optimizer: str, client: Client, data_root: Path, tmp_path: Path
) -> None:
    case, spec = prepared(name, optimizer, data_root)
    assert_equal_to_keras(trained_by_the_service(spec, tmp_path, client), case, spec)
