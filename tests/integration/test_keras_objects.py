"""Losses, metrics and optimizers from specifications, with the real Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from gradwire.errors import JobFailed
from gradwire.spec.job import GradientClip, KerasObjectSpec, LossSpec
from workers.models.objects import make_loss, make_metric, make_optimizer

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mse", {}),
        ("MeanSquaredError", {"reduction": "sum"}),
        ("sparse_categorical_crossentropy", {"from_logits": True}),
        ("Huber", {"delta": 0.5}),
    ],
)
def test_losses_are_what_compile_makes(name: str, config: dict[str, Any]) -> None:
    loss = make_loss(LossSpec(name=name, config=config))
    plain: Any = keras.losses.get(name)
    labels = np.array([0, 2]) if "sparse" in name else np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
    outputs = np.array([[0.1, 0.7, 0.2], [1.3, 0.4, 0.3]])
    if isinstance(plain, keras.losses.Loss):
        expected = type(plain)(**config)(labels, outputs)
    else:
        expected = np.mean(plain(labels, outputs, **config))
    np.testing.assert_allclose(loss(labels, outputs), expected, rtol=1e-6)


def test_metrics_are_chosen_and_named_as_compile_does() -> None:
    for output, label, loss, values in [
        ((None, 1), (None, 1), "mse", (np.ones((4, 1)), np.ones((4, 1)))),
        ((None, 3), (None,), "sparse_categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.zeros(4))),
        ((None, 3), (None, 1), "sparse_categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.zeros((4, 1)))),
        ((None, 3), (None, 3), "categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 0, 2, 0]])),
    ]:
        x = keras.Input(output[1:])
        model = keras.Model(x, layers.Identity(name="out")(x))
        metrics = ["accuracy", "acc"] if output != label else ["accuracy", "mse", "AUC", "MeanSquaredError"]
        model.compile("sgd", loss, metrics=metrics)
        model.test_on_batch(*values)
        compiled = model._compile_metrics.metrics
        specs = [KerasObjectSpec(name=name) for name in metrics]
        for spec, expected in zip(specs, compiled, strict=True):
            metric = make_metric(spec, output_shape=output, label_shape=label)
            assert (type(metric), metric.name) == (type(expected), expected.name)


def test_a_metric_keeps_the_name_in_its_config() -> None:
    shapes: Any = {"output_shape": (None, 3), "label_shape": (None, 3)}
    assert make_metric(KerasObjectSpec(name="mse", config={"name": "error"}), **shapes).name == "error"
    plain = make_metric(KerasObjectSpec(name="TopKCategoricalAccuracy", config={"k": 2}), **shapes)
    assert plain.name == keras.metrics.TopKCategoricalAccuracy(k=2).name


def test_crossentropy_is_chosen_by_shapes() -> None:
    spec = KerasObjectSpec(name="crossentropy", config={"from_logits": True})
    found = make_metric(spec, output_shape=(None, 7, 5), label_shape=(None, 7))
    assert type(found) is keras.metrics.SparseCategoricalCrossentropy
    assert found.from_logits is True


def test_optimizers() -> None:
    schedule = {"name": "CosineDecay", "config": {"initial_learning_rate": 0.5, "decay_steps": 10}}
    spec = KerasObjectSpec(name="AdamW", config={"learning_rate": schedule, "weight_decay": 0.01})
    optimizer = make_optimizer(spec, GradientClip(kind="global_norm", limit=2.0))
    assert type(optimizer) is keras.optimizers.AdamW
    assert (optimizer.weight_decay, optimizer.global_clipnorm, optimizer.clipnorm) == (0.01, 2.0, None)
    assert isinstance(optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)
    assert float(optimizer.learning_rate) == 0.5
    assert spec.config["learning_rate"] == schedule
    assert make_optimizer(KerasObjectSpec(name="sgd"), GradientClip(kind="value", limit=1.0)).clipvalue == 1.0
    assert make_optimizer(KerasObjectSpec(name="lamb"), GradientClip(kind="norm", limit=1.0)).clipnorm == 1.0
    written = {"class_name": "CosineDecay", "module": "keras.optimizers.schedules", **schedule}
    again = make_optimizer(KerasObjectSpec(name="Adam", config={"learning_rate": written}), None)
    assert isinstance(again._learning_rate, keras.optimizers.schedules.CosineDecay)


@pytest.mark.parametrize(
    ("make", "spec", "code", "parts"),
    [
        (make_loss, {"name": "msee"}, "loss_config", ["no loss 'msee'", "did you mean mse"]),
        (make_loss, {"name": "Huber", "config": {"dleta": 1}}, "loss_config", ["'dleta'", "mean delta", "reduction"]),
        (make_loss, {"name": "mse", "config": {"reduction": "avg"}}, "loss_config", ["mse", "avg"]),
        (make_loss, {"name": "mylib>Absent"}, "loss_config", ["no trusted package"]),
        (make_optimizer, {"name": "Adam", "config": {"lr": 1}}, "optimizer_config", ["'lr'", "learning_rate"]),
        (make_optimizer, {"name": "Adam", "config": {"learning_rate": "fast"}}, "optimizer_config", ["Adam", "fast"]),
        (make_optimizer, {"name": "Adam", "config": {"learning_rate": {"name": "Cos"}}}, "optimizer_config", ["'Cos'"]),
        (
            make_optimizer,
            {"name": "Adam", "config": {"learning_rate": {"name": "CosineDecay", "config": {}}}},
            "optimizer_config",
            ["CosineDecay", "decay_steps"],
        ),
        (make_optimizer, {"name": "LossScaleOptimizer"}, "optimizer_config", ["no optimizer"]),
    ],
)
def test_faults_of_objects(make: Any, spec: dict[str, Any], code: str, parts: list[str]) -> None:
    arguments = [None] if make is make_optimizer else []
    with pytest.raises(JobFailed) as caught:
        make(KerasObjectSpec.model_validate(spec), *arguments)
    assert caught.value.code == code
    for part in parts:
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"name": "accurcy"}, ["did you mean accuracy"]),
        ({"name": "AUC", "config": {"curv": "PR"}}, ["'curv'", "mean curve"]),
        ({"name": "AUC", "config": {"curve": "XX"}}, ["AUC", "XX"]),
        ({"name": "accuracy", "config": {"nonsense": 1}}, ["nonsense"]),
        ({"name": "MeanIoU"}, ["num_classes"]),
    ],
)
def test_faults_of_metrics(spec: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(JobFailed) as caught:
        make_metric(KerasObjectSpec.model_validate(spec), output_shape=(None, 3), label_shape=(None,))
    assert caught.value.code == "metric_config"
    for part in parts:
        assert part in caught.value.message
