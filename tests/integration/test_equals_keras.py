"""Two workers through the whole service give what plain Keras gives on whole batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwire.client import Client
from gradwire.spec.job import JobSpec
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.cases import CASES, ROWS, Case, spec_of, write_npz
from workers.data.schedule import Schedule
from workers.models.objects import make_loss, make_optimizer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

STEPS = 50
OPTIMIZERS = {
    "sgd": {"name": "SGD", "config": {"learning_rate": 0.05, "momentum": 0.9}},
    "adam": {"name": "Adam", "config": {"learning_rate": 1e-3}},
}


def trained_by_keras(case: Case, spec: JobSpec) -> keras.Model:
    """`train_on_batch` on the same whole batches in the same order, from the same initial weights."""
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
        jit_compile=False,
    )
    schedule = Schedule.of(spec.training, ROWS)
    for step in range(schedule.total_steps):
        ids = np.concatenate([schedule.ids(step, shard) for shard in range(spec.training.shards)])
        weights: Any = {name: values[ids] for name, values in (case.sample_weights or {}).items()} or None
        if weights is not None:
            weights = {name: weights.get(name, np.ones(len(ids), np.float32)) for name in losses}
        inputs = {name: values[ids] for name, values in case.inputs.items()}
        labels = {name: values[ids] for name, values in case.labels.items()}
        model.train_on_batch(
            inputs if several else inputs[next(iter(inputs))], labels if several else labels[only], weights
        )
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", CASES)
def test_two_workers_equal_plain_keras(
    name: str, optimizer: str, client: Client, data_root: Path, tmp_path: Path
) -> None:
    case = CASES[name]()
    write_npz(case, data_root / f"{name}.npz")
    spec = spec_of(case, f"server:{name}.npz", optimizer=OPTIMIZERS[optimizer], training={"steps": STEPS})
    job = client.submit(spec)
    for _ in client.watch(job):
        pass
    job = client.get(job.id)
    assert job.state == pb.JOB_STATE_SUCCEEDED, (job.error.message, job.error.details)
    assert job.step == STEPS

    client.download(job, "export/keras", tmp_path / "model.keras")
    ours = keras.models.load_model(tmp_path / "model.keras", compile=False)
    theirs = trained_by_keras(case, spec)
    difference = max(
        float(np.abs(np.asarray(mine) - np.asarray(other)).max())
        for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True)
    )
    assert difference <= 1e-5
