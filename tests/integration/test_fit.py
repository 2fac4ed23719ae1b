"""Models of the caller's process trained on the service: what `gradwire.fit` gives is what Keras would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import gradwire
from gradwire.errors import InvalidSpec, JobFailed
from gradwire.notebook.ends import Ends
from gradwire.notebook.from_keras import from_keras
from tests.integration import architectures
from tests.integration.server import Server
from workers.models.heads import Heads

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RNG = np.random.default_rng(5)
X = RNG.standard_normal((160, 6)).astype(np.float32)
CLASS = (X[:, 0] + X[:, 1] > 0).astype(np.int32)
SIZE = X[:, 2:3] * 2.0


def two_heads() -> keras.Model:
    """Two inputs as a dict, two heads, a frozen layer, compiled with everything."""
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    shared = keras.layers.Dense(8, activation="tanh", name="shared")
    fixed = keras.layers.Dense(8, activation="tanh", name="fixed", trainable=False)
    value = keras.layers.Add()([shared(left), fixed(right)])
    heads = [keras.layers.Dense(2, name="kind")(value), keras.layers.Dense(1, name="size")(value)]
    model = keras.Model({"left": left, "right": right}, heads)
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"},
        loss_weights={"kind": 1.0, "size": 0.25},
        metrics={"kind": ["accuracy"], "size": [keras.metrics.MeanAbsoluteError(name="mae")]},
    )
    return model


def test_fit_gives_what_keras_gives(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    ours = two_heads()
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    theirs.compile_from_config(ours.get_compile_config())
    x, y = {"left": X[:, :3], "right": X[:, 3:]}, {"kind": CLASS, "size": SIZE}
    arguments: dict[str, Any] = {"epochs": 3, "batch_size": 8, "shuffle": False, "validation_split": 0.2}
    mine = gradwire.fit(ours, x, y, workers=2, cpus_per_worker=0.25, server=server.address, **arguments)
    expected = theirs.fit(x, [CLASS, SIZE], verbose=0, **arguments)

    assert type(mine) is keras.callbacks.History
    assert mine.epoch == expected.epoch == [0, 1, 2]
    assert set(mine.history) == set(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_allclose(mine.history[name], values, atol=2e-6, err_msg=name)
    for variable, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(np.asarray(variable), np.asarray(other), atol=1e-5, err_msg=variable.path)
    out = capsys.readouterr().out
    assert "Epoch 3/3" in out
    assert "val_kind_accuracy" in out


def test_rows_of_several_lengths_are_padded(server: Server) -> None:
    lengths = RNG.integers(1, 12, 40)
    rows = [RNG.integers(1, 9, length) for length in lengths]
    words = keras.Input((None,), dtype="int32", name="words")
    value = keras.layers.LSTM(4)(keras.layers.Embedding(9, 4, mask_zero=True)(words))
    ours = keras.Model(words, keras.layers.Dense(1)(value))
    ours.compile(keras.optimizers.SGD(0.1), "mse")
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    theirs.compile(keras.optimizers.SGD(0.1), "mse")
    y = lengths[:, None] / 12.0
    options: dict[str, Any] = {"epochs": 2, "batch_size": 8, "shuffle": False, "validation_split": 0.2}
    padding = {"words": {"multiple": 4}}
    ragged = tf.ragged.constant([row.tolist() for row in rows])
    mine = gradwire.fit(ours, ragged, y, padding=padding, server=server.address, cpus_per_worker=0.25, **options)
    expected = theirs.fit(keras.utils.pad_sequences(rows, padding="post"), y, verbose=0, **options)
    for name, values in expected.history.items():
        np.testing.assert_allclose(mine.history[name], values, atol=2e-6, err_msg=name)


def test_fit_goes_on_from_the_weights_and_takes_what_sequential_models_take(server: Server) -> None:
    model = keras.Sequential([keras.layers.Dense(8, activation="relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(1e-2, clipnorm=1.0), "mse")
    more = {"server": server.address, "verbose": 0, "cpus_per_worker": 0.25, "batch_size": 10}
    first = gradwire.fit(model, X, SIZE, epochs=2, **more).history["loss"]
    second = gradwire.fit(model, X, SIZE, epochs=1, validation_data=(X, SIZE), **more).history
    assert second["loss"][0] < first[-1] < first[0]
    assert second["val_loss"][0] == pytest.approx(model.evaluate(X, SIZE, verbose=0), rel=1e-4)


def test_class_weights_are_those_of_keras(server: Server) -> None:
    ours = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")])
    ours.compile("sgd", "binary_crossentropy")
    theirs = keras.models.clone_model(ours)
    theirs.set_weights(ours.get_weights())
    theirs.compile("sgd", "binary_crossentropy")
    arguments: dict[str, Any] = {"batch_size": 32, "shuffle": False, "verbose": 0, "class_weight": {0: 0.5, 1: 3.0}}
    mine = gradwire.fit(ours, X, CLASS, server=server.address, cpus_per_worker=0.25, **arguments)
    expected = theirs.fit(X, CLASS, **arguments)
    np.testing.assert_allclose(mine.history["loss"], expected.history["loss"], atol=2e-6)
    np.testing.assert_allclose(ours.get_weights()[0], theirs.get_weights()[0], atol=1e-5)


def test_a_job_that_fails_raises_its_message(server: Server) -> None:
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    before = model.get_weights()
    with pytest.raises(JobFailed, match="SparseCategoricalCrossentropy"):
        gradwire.fit(
            model, X, SIZE[:, [0, 0]], loss="SparseCategoricalCrossentropy", optimizer="sgd", server=server.address
        )
    np.testing.assert_array_equal(model.get_weights()[0], before[0])


@pytest.mark.parametrize("name", architectures.CASES)
def test_the_client_calls_inputs_and_outputs_as_the_server_does(name: str) -> None:
    model = architectures.CASES[name][0]()
    heads = Heads.of(model)
    assert Ends.inputs(model).names == heads.input_names
    assert Ends.outputs(model).names == heads.output_names


class Subclassed(keras.Model):
    def call(self, x: Any) -> Any:
        return x


class Momentum(keras.optimizers.SGD):
    pass


REFUSED: dict[str, tuple[Any, dict[str, Any], list[str]]] = {
    "a subclassed model": (Subclassed, {}, ["Subclassed", "model.python"]),
    "a custom optimizer": (two_heads, {"optimizer": Momentum()}, ["Momentum", "schedule"]),
    "an unknown output": (two_heads, {"loss": {"king": "mse"}}, ["'king'", "kind"]),
    "an unknown field": (two_heads, {"global_bach": 8}, ["global_bach", "global_batch"]),
    "an unknown input": (two_heads, {"data": ({"lift": X, "right": X}, [CLASS, SIZE])}, ["'lift'", "left"]),
    "a missing input": (two_heads, {"data": ({"left": X}, [CLASS, SIZE])}, ["'right'"]),
    "too few labels": (two_heads, {"data": ([X, X], [CLASS])}, ["kind, size"]),
    "other lengths": (two_heads, {"data": ([X, X[:9]], [CLASS, SIZE])}, ["'right' has 9"]),
    "no numbers": (two_heads, {"data": ([X, X.astype(str)], [CLASS, SIZE])}, ["dtype"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_submitted_says_how_it_can(name: str, tmp_path: Path) -> None:
    build, changes, parts = REFUSED[name]
    data = ([X[:, :3], X[:, 3:]], [CLASS, SIZE])
    given = {"data": data, "loss": "mse", "optimizer": "adam", "global_batch": 8, "epochs": 1, **changes}
    with pytest.raises(InvalidSpec) as caught:
        from_keras(build(), folder=tmp_path, **given)
    for part in parts:
        assert part in caught.value.message


def test_a_specification_says_what_the_model_was_compiled_with(tmp_path: Path) -> None:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 100)
    model = keras.Sequential([keras.Input((6,), name="x"), keras.layers.Dense(2, name="y")])
    model.compile(
        keras.optimizers.AdamW(schedule, global_clipnorm=2.0),
        keras.losses.categorical_crossentropy,
        metrics=["acc", keras.metrics.TopKCategoricalAccuracy(k=2)],
    )
    data = {"train": {"builtin": "digits"}, "inputs": "image", "labels": "label"}
    spec = from_keras(model, data=data, folder=tmp_path, global_batch=32, steps=5, workers=2)
    assert spec.loss[""].name == "categorical_crossentropy"
    assert [metric.name for metric in spec.metrics[""]] == ["acc", "TopKCategoricalAccuracy"]
    assert spec.metrics[""][1].config["k"] == 2
    assert spec.optimizer.name == "AdamW"
    assert spec.optimizer.config["learning_rate"]["class_name"] == "CosineDecay"
    assert spec.training.gradient_clip is not None
    assert (spec.training.gradient_clip.kind, spec.training.gradient_clip.limit) == ("global_norm", 2.0)
    assert (spec.training.global_batch, spec.training.steps, spec.resources.workers) == (32, 5, 2)
