"""Two workers and Keras agree on every kind of connection, custom code included.

Where samples are independent the reference is Keras on whole batches; where they are coupled or random it is Keras on
the same shards, one after the other.
"""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwire.packing import pack
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from service.training.checkpoint import CheckpointFolder
from tests.integration.lab import lab
from workers.data.schedule import Schedule
from workers.seeds import seed_states

pytestmark = pytest.mark.integration

FOLDER = Path(__file__).parent / "connections"
ROWS, STEPS = 36, 5
RNG = np.random.default_rng(8)
X = RNG.standard_normal((ROWS, 6)).astype(np.float32)
Y = np.tanh(X[:, :1] - X[:, 1:2])
WORDS = RNG.integers(0, 20, (ROWS, 7)).astype(np.int32)
SPARSE = {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A function of `connections/graphs.py`, which names every layer with weights, with data and job-file losses."""

    inputs: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    losses: dict[str, Any] = field(default_factory=lambda: {"y": "mse"})
    weights: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    is_by_shard: bool = False


ONE = {"inputs": {"x": X}, "labels": {"y": Y}}
KINDS = (X[:, 0] > 0).astype(np.int32) + (X[:, 1] > 0)
CASES = {
    "nested": Case(
        inputs={"a": X[:, :4], "b": X[:, 2:]},
        labels={"size": Y, "kind": KINDS},
        losses={"size": "mse", "kind": SPARSE},
        weights={"kind": 0.3},
        metrics={"kind": ["accuracy"]},
    ),
    "penalised": Case(**ONE),
    "subclassed": Case(
        inputs={"left": X[:, :5], "right": X[:, 1:]},
        labels={"near": Y, "far": X[:, :5]},
        losses={"near": {"name": "graphs:Smooth", "config": {"width": 0.1}}, "far": "mae"},
        metrics={"near": ["graphs:error"]},
    ),
    "raw_variables": Case(**ONE),
    "adversarial": Case(
        inputs={"x": X},
        labels={"domain": Y > 0, "probe": Y, "label": X[:, 2:3]},
        losses={
            "domain": {"name": "BinaryCrossentropy", "config": {"from_logits": True}},
            "probe": "mse",
            "label": "mse",
        },
    ),
    "recomputed": Case(**ONE),
    "branches": Case(**ONE, is_by_shard=True),
    "experts": Case(**ONE),
    "ragged": Case(inputs={"words": WORDS, "lengths": 1 + WORDS[:, 0] % 7}, labels={"y": Y}),
    "encoder_decoder": Case(
        inputs={"source": WORDS[:, :6], "target": WORDS[:, 2:]}, labels={"tied": WORDS[:, 1:6]}, losses={"tied": SPARSE}
    ),
    "coupled": Case(
        inputs={"a": X, "b": X + 0.1},
        labels={"pairs": np.ones(ROWS, np.float32)},
        losses={"pairs": "graphs:own_pair"},
        is_by_shard=True,
    ),
}


@pytest.fixture(scope="module")
def graphs() -> Any:
    """The source folder's module, as this process imports it."""
    sys.path.insert(0, str(FOLDER))
    import graphs

    yield graphs
    sys.path.remove(str(FOLDER))
    del sys.modules["graphs"]


def spec_of(name: str, case: Case, folder: Path) -> JobSpec:
    """The job; its files are put where the lab looks."""
    np.savez(folder / "rows.npz", **case.inputs, **case.labels)
    pack(FOLDER, folder / "source.zip")
    content = (folder / "source.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    Storage(str(folder / "storage")).write(f"artifacts/{digest}", content)
    losses = {key: {"name": loss} if isinstance(loss, str) else loss for key, loss in case.losses.items()}
    return JobSpec.model_validate(
        {
            "name": name,
            "model": {"python": {"function": f"graphs:{name}", "source": {"artifact": digest}}},
            "data": {
                "train": {"npz": "server:rows.npz"},
                "inputs": {key: key for key in case.inputs},
                "labels": {key: key for key in case.labels},
            },
            "loss": {key: {**loss, "weight": case.weights.get(key, 1.0)} for key, loss in losses.items()},
            "optimizer": {"name": "SGD", "config": {"learning_rate": 0.05, "momentum": 0.9}},
            "metrics": case.metrics,
            "training": {"globalBatch": 16, "steps": STEPS, "seed": 3},
        }
    )


def trained_by_keras(graphs: Any, spec: JobSpec, case: Case) -> dict[str, np.ndarray]:
    """The weights by path, after Keras's own optimiser on gradients of Keras's own losses."""
    keras.utils.set_random_seed(spec.training.seed)
    model = getattr(graphs, spec.name)()
    losses = {key: keras_loss(graphs, loss) for key, loss in spec.loss.items()}
    optimizer = keras.optimizers.SGD(0.05, momentum=0.9)
    variables = [*model.trainable_variables, *raw_of(model)]
    seeds = [variable for variable in model.non_trainable_variables if "seed_generator_state" in variable.path]
    state = [v for v in model.non_trainable_variables if "seed_generator_state" not in v.path and v.dtype == "float32"]
    schedule = Schedule.of(spec.training, ROWS)

    def gradients_of(ids: np.ndarray, share: float) -> list[Any]:
        with tf.GradientTape() as tape:
            given = {key: tf.convert_to_tensor(values[ids]) for key, values in case.inputs.items()}
            outputs = model(pack_as(model, given), training=True)
            outputs = (
                outputs
                if isinstance(outputs, dict)
                else dict(zip(case.labels, keras.tree.flatten(outputs), strict=True))
            )
            total = share * sum(model.losses)
            for key, loss in losses.items():
                total += share * spec.loss[key].weight * loss(case.labels[key][ids], outputs[key])
        found = tape.gradient(total, [getattr(v, "_value", v) for v in variables], unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    for step in range(STEPS):
        shards = [schedule.ids(step, shard) for shard in range(spec.training.shards)]
        parts = shards if case.is_by_shard else [np.concatenate(shards)]
        before, changes, summed = [value_of(v) for v in state], [np.zeros(v.shape, np.float32) for v in state], None
        for shard, ids in enumerate(part for part in parts if part.size):
            for seed, words in zip(seeds, seed_states(spec.training.seed, step, shard, len(seeds)), strict=True):
                seed.assign(words)
            for variable, value in zip(state, before, strict=True):
                variable.assign(value)
            share = ids.size / schedule.batch_samples(step)
            gradients = gradients_of(ids, share)
            summed = gradients if summed is None else [a + b for a, b in zip(summed, gradients, strict=True)]
            changes = [c + share * (value_of(v) - b) for c, v, b in zip(changes, state, before, strict=True)]
        for variable, value, change in zip(state, before, changes, strict=True):
            variable.assign(value + change)
        apply(optimizer, summed, variables)
    named = {v.path: value_of(v) for v in (*model.trainable_variables, *state)}
    return named | {f"{v.name.removeprefix('raw/').partition(':')[0]}": value_of(v) for v in raw_of(model)}


def apply(optimizer: keras.optimizers.Optimizer, gradients: Any, variables: list[Any]) -> None:
    """SGD with momentum as Keras applies it; raw variables, which its optimiser does not take, are updated alike."""
    own = [(g, v) for g, v in zip(gradients, variables, strict=True) if isinstance(v, keras.Variable)]
    optimizer.apply([g for g, _ in own], [v for _, v in own])
    for gradient, variable in zip(gradients, variables, strict=True):
        if not isinstance(variable, keras.Variable):
            velocity = VELOCITY.setdefault(variable.ref(), tf.Variable(tf.zeros_like(variable)))
            velocity.assign(0.9 * velocity - 0.05 * gradient)
            variable.assign_add(velocity)


VELOCITY: dict[Any, tf.Variable] = {}


def value_of(variable: Any) -> np.ndarray:
    return np.asarray(variable).copy()


def raw_of(model: keras.Model) -> list[tf.Variable]:
    layer = next((layer for layer in model.layers if type(layer).__name__ == "Raw"), None)
    return [layer.kernel, *layer.biases] if layer else []


def pack_as(model: keras.Model, given: dict[str, Any]) -> Any:
    if type(model).__name__ == "Subclassed":
        return given
    return next(iter(given.values())) if len(given) == 1 else list(given.values())


def keras_loss(graphs: Any, loss: Any) -> Any:
    if ":" in loss.name:
        found = getattr(graphs, loss.name.partition(":")[2])
        return found(**loss.config) if isinstance(found, type) else lambda y, p: tf.reduce_mean(found(y, p))
    found = keras.losses.get({"class_name": loss.name, "config": loss.config} if loss.config else loss.name)
    return found if isinstance(found, keras.losses.Loss) else lambda y, p: tf.reduce_mean(found(y, p))


@pytest.mark.parametrize("name", CASES)
def test_two_workers_equal_keras(name: str, graphs: Any, tmp_path: Path) -> None:
    case = CASES[name]
    spec = spec_of(name, case, tmp_path)
    with lab(spec, tmp_path, 2) as job:
        outcome = job.result().outcome
    assert outcome.state == "SUCCEEDED", (outcome.error, outcome.error and outcome.error.details)
    checkpoint = CheckpointFolder(Storage(str(tmp_path / "storage")), job.job_id).restore_latest().checkpoint
    assert checkpoint is not None
    ours = {
        key.partition("/")[2]: values
        for key, values in checkpoint.tensors.items()
        if key.startswith(("weights", "state"))
    }
    theirs = trained_by_keras(graphs, spec, case)
    for path, expected in theirs.items():
        found = ours[path if path in ours else f"raw.{path}"]
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=path)
