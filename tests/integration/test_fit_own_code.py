"""Models with layers, functions, losses and metrics of the caller's own process, trained on the service by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import gradwire
from gradwire.errors import InvalidSpec, JobFailed
from gradwire.notebook.from_keras import from_keras
from tests.integration.server import Server

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

RNG = np.random.default_rng(5)
X = RNG.standard_normal((64, 4)).astype(np.float32)
Y = X[:, :1] * 2.0
FAULT = "no such shape"


def swish(x: Any) -> Any:
    return x * keras.ops.sigmoid(x)


class Scale(keras.layers.Layer):
    """`is_broken` says that it fails where no caller has built it."""

    def __init__(self, factor: float = 2.0, is_broken: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.factor, self.is_broken = factor, is_broken

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],))

    def call(self, x: Any) -> Any:
        if self.is_broken and getattr(self, "is_loaded", False):
            raise ValueError(FAULT)
        return swish(x) * self.scale * self.factor

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor, "is_broken": self.is_broken}

    @classmethod
    def from_config(cls, config: Any) -> Scale:
        layer = cls(**config)
        layer.is_loaded = True
        return layer


class Ones(keras.initializers.Initializer):
    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return keras.ops.ones(shape, dtype)


class Power(keras.losses.Loss):
    def __init__(self, power: float = 1.0, **options: Any) -> None:
        super().__init__(**options)
        self.power = power

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y_true - y_pred) ** self.power, -1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "power": self.power}


def distance(y_true: Any, y_pred: Any) -> Any:
    return keras.ops.abs(y_true - y_pred)


def own_model(*, is_broken: bool = False) -> keras.Model:
    inputs = keras.Input((4,), name="x")
    value = Scale(3.0, is_broken)(inputs)
    value = keras.layers.Dense(3, activation=swish, kernel_initializer=Ones())(value)
    value = keras.layers.Lambda(lambda tensor: tensor * 0.5)(value)
    model = keras.Model(inputs, keras.layers.Dense(1, name="y")(value))
    model.compile(keras.optimizers.SGD(0.05), Power(1.5), metrics=[distance, "mae"])
    return model


def test_fit_trains_what_is_the_callers_own(server: Server) -> None:
    ours, theirs = own_model(), own_model()
    theirs.set_weights(ours.get_weights())
    arguments: dict[str, Any] = {"epochs": 2, "batch_size": 16, "shuffle": False, "verbose": 0}
    mine = gradwire.fit(ours, X, Y, workers=2, cpus_per_worker=0.25, server=server.address, **arguments)
    expected = theirs.fit(X, Y, **arguments)
    assert set(mine.history) == set(expected.history) == {"loss", "distance", "mae"}
    for name, values in expected.history.items():
        np.testing.assert_allclose(mine.history[name], values, atol=2e-6, err_msg=name)
    for variable, other in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(np.asarray(variable), np.asarray(other), atol=1e-5, err_msg=variable.path)


def test_what_fails_in_it_is_shown_with_its_file_and_line(server: Server) -> None:
    with pytest.raises(JobFailed, match=FAULT) as caught:
        gradwire.fit(own_model(is_broken=True), X, Y, server=server.address, verbose=0)
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "raise ValueError" in text)
    assert f"{Path(__file__).name}, line {line}" in caught.value.message
    assert "raise ValueError(FAULT)" in str(caught.value.details)


def test_a_model_of_keras_alone_stays_data_whatever_its_loss_was_called(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    given: dict[str, Any] = {"data": (X, Y), "optimizer": "sgd", "folder": tmp_path, "global_batch": 8, "epochs": 1}
    assert from_keras(model, loss="mse", **given).model.archive is not None
    own = from_keras(model, loss=distance, metrics=[lambda y_true, y_pred: y_pred], **given)
    assert own.model.python is not None
    assert (own.loss[""].name, own.metrics[""][0].name) == ("own_code:distance", "own_code:lambda")


def test_an_object_that_nobody_holds_is_named(tmp_path: Path) -> None:
    model = own_model()
    config = model.get_layer("y").get_config()
    model.get_layer("y").get_config = lambda: {  # type: ignore[method-assign]
        **config,
        "bias_regularizer": {"module": None, "class_name": "Gone", "config": {}, "registered_name": "Gone"},
    }
    with pytest.raises(InvalidSpec, match="'Gone', which is not to be found"):
        from_keras(model, data=(X, Y), folder=tmp_path, global_batch=8, epochs=1)
