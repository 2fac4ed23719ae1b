"""A dtype policy reaches the layers of a config, and those that it does not reach are named."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from workers.models.precision import exceptions, with_policy

pytestmark = pytest.mark.integration


def config() -> object:
    inputs = keras.Input((4,), name="rows")
    value = keras.layers.Dense(3, name="plain")(inputs)
    value = keras.layers.TimeDistributed(keras.layers.Dense(2, name="inner"), name="wrapper")(value[:, None])
    nested = keras.Sequential([keras.Input((1, 2)), keras.layers.LayerNormalization(name="norm")], name="nested")
    value = keras.layers.Dense(2, name="chosen", dtype="float64")(nested(value))
    return json.loads(keras.Model(inputs, value).to_json())


def test_layers_of_a_config_compute_by_the_policy_and_keep_float32_weights() -> None:
    model = keras.saving.deserialize_keras_object(with_policy(config(), "mixed_bfloat16"))
    layers = {layer.name: layer for layer in model._flatten_layers(include_self=False)}
    assert {layers[name].compute_dtype for name in ("plain", "wrapper", "inner", "norm")} == {"bfloat16"}
    assert {str(variable.dtype) for variable in layers["plain"].variables} == {"float32"}
    assert str(model.inputs[0].dtype) == "float32"
    assert exceptions(model, "mixed_bfloat16") == ["chosen (float64)"]
    assert np.isfinite(np.asarray(model(np.ones((2, 4), np.float32)))).all()


def test_a_config_that_was_made_for_another_precision_is_told() -> None:
    model = keras.saving.deserialize_keras_object(with_policy(config(), "mixed_float16"))
    assert "plain (float16)" in exceptions(model, "float32")
