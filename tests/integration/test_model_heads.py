"""A model's inputs and outputs by name."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.integration.architectures import CASES, dicts, masked_lstm
from workers.models.heads import Heads, input_specs, pack_inputs, unpack_outputs
from workers.models.names import unique

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("case", CASES)
def test_packs_and_unpacks_by_name(case: str) -> None:
    make, _, labels, _, arrays = CASES[case]
    model = make()
    heads = Heads.of(model)
    named = {}
    for name, spec in input_specs(model).items():
        shape = [4 if size is None else size for size in spec.shape]
        named[name] = keras.ops.ones([3, *shape[1:]], spec.dtype)
    assert set(named) == set(heads.input_names)
    outputs = unpack_outputs(model, model(pack_inputs(model, named)))
    assert tuple(outputs) == heads.output_names
    if isinstance(labels, dict):
        assert set(labels) == set(heads.output_names)
        for name, array in labels.items():
            if case in ("several heads", "dicts"):
                width = 1 if not arrays[array].shape else arrays[array].shape[0]
                assert outputs[name].shape == (3, width)


def test_masks_stay_on_outputs() -> None:
    model = masked_lstm()
    outputs = unpack_outputs(model, model(pack_inputs(model, {"tokens": keras.ops.array([[1, 0]])})))
    assert outputs["tag"]._keras_mask.numpy().tolist() == [[True, False]]


def test_inputs_reach_their_layers_by_name() -> None:
    model = dicts()
    ones = {"a": keras.ops.ones((1, 3)), "z": keras.ops.zeros((1, 2))}
    expected = model({"z": ones["z"], "a": ones["a"]})
    outputs = unpack_outputs(model, model(pack_inputs(model, ones)))
    for name in ("left", "right"):
        np.testing.assert_array_equal(outputs[name], expected[name])


def test_outputs_of_one_layer_get_names_of_their_own() -> None:
    x = keras.Input((5, 2), name="x")
    model = keras.Model(x, [*layers.LSTM(3, return_state=True, name="lstm")(x), layers.Dense(1, name="lstm_1")(x)])
    assert Heads.of(model).output_names == ("lstm", "lstm_2", "lstm_3", "lstm_1")
    assert unique(["a", "a", "a_1", "a"]) == ("a", "a_2", "a_1", "a_3")


class OneInput(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, images: Any) -> Any:
        return self.dense(images)


class Mapped(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return {"sum": self.dense(inputs["p"] + inputs["q"]), "product": inputs["p"] * inputs["q"]}


def test_subclassed_models() -> None:
    model = OneInput()
    model(np.zeros((1, 4)))
    assert Heads.of(model) == Heads(("images",), ("output",))
    assert unpack_outputs(model, model(pack_inputs(model, {"images": np.ones((3, 4))})))["output"].shape == (3, 2)
    mapped = Mapped()
    mapped({"q": np.ones((2, 4)), "p": np.ones((2, 4))})
    heads = Heads.of(mapped)
    assert (set(heads.input_names), set(heads.output_names)) == ({"p", "q"}, {"sum", "product"})
    outputs = mapped(pack_inputs(mapped, {"p": np.full((1, 4), 2.0), "q": np.full((1, 4), 3.0)}))
    np.testing.assert_array_equal(unpack_outputs(mapped, outputs)["product"], np.full((1, 4), 6.0))
