"""The gate lets everything through that Keras itself writes, and its names are those of the installed Keras."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from gradwire import keras_names
from gradwire.keras_gate import REFUSED, violations_of_text

sys.path.insert(0, str(Path(__file__).parents[1]))
import generate_keras_names

pytestmark = pytest.mark.integration


ARGUMENTS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "gelu"},
    "AdaptiveAveragePooling1D": {"output_size": 2},
    "AdaptiveAveragePooling2D": {"output_size": 2},
    "AdaptiveAveragePooling3D": {"output_size": 2},
    "AdaptiveMaxPooling1D": {"output_size": 2},
    "AdaptiveMaxPooling2D": {"output_size": 2},
    "AdaptiveMaxPooling3D": {"output_size": 2},
    "AlphaDropout": {"rate": 0.5},
    "CategoryEncoding": {"num_tokens": 4},
    "CenterCrop": {"height": 4, "width": 4},
    "Dense": {"units": 2, "kernel_regularizer": "l2", "bias_constraint": keras.constraints.NonNeg()},
    "Discretization": {"bin_boundaries": [0.0, 1.0]},
    "Dropout": {"rate": 0.5, "seed": 3},
    "EinsumDense": {"equation": "ab,bc->ac", "output_shape": 3},
    "Embedding": {"input_dim": 5, "output_dim": 2, "mask_zero": True},
    "ReversibleEmbedding": {"input_dim": 5, "output_dim": 2},
    "GaussianDropout": {"rate": 0.5},
    "GaussianNoise": {"stddev": 0.5},
    "GroupNormalization": {"groups": 1},
    "Hashing": {"num_bins": 4},
    "IntegerLookup": {"vocabulary": [1, 2, 3]},
    "StringLookup": {"vocabulary": ["a", "b"]},
    "TextVectorization": {"vocabulary": ["a", "b"]},
    "MaxNumBoundingBoxes": {"max_number": 3},
    "Permute": {"dims": (2, 1)},
    "Pipeline": {"layers": [layers.Rescaling(0.5), layers.ReLU()]},
    "RandomBrightness": {"factor": 0.1},
    "RandomContrast": {"factor": 0.1},
    "RandomCrop": {"height": 4, "width": 4},
    "RandomRotation": {"factor": 0.1},
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "RandomColorDegeneration": {"factor": 0.1},
    "RandomHue": {"factor": 0.1},
    "RandomPosterization": {"factor": 4},
    "RandomSaturation": {"factor": 0.1},
    "RandomSharpness": {"factor": 0.1},
    "RepeatVector": {"n": 3},
    "Rescaling": {"scale": 0.5},
    "Reshape": {"target_shape": (-1,)},
    "Resizing": {"height": 4, "width": 4},
    "SpatialDropout1D": {"rate": 0.5},
    "SpatialDropout2D": {"rate": 0.5},
    "SpatialDropout3D": {"rate": 0.5},
    "Bidirectional": {"layer": layers.GRU(2)},
    "TimeDistributed": {"layer": layers.Dense(2)},
    "SpectralNormalization": {"layer": layers.Dense(2)},
    "RNN": {"cell": [layers.LSTMCell(2), layers.GRUCell(2)]},
    "GRU": {"units": 2},
    "LSTM": {"units": 2, "dropout": 0.5},
    "SimpleRNN": {"units": 2},
    "STFTSpectrogram": {"frame_length": 4, "frame_step": 2, "fft_length": 4},
    "MelSpectrogram": {"sampling_rate": 8000, "sequence_length": 8, "fft_length": 8},
}
for _rank in (1, 2, 3):
    ARGUMENTS[f"Conv{_rank}D"] = {"filters": 2, "kernel_size": 2, "kernel_initializer": "he_normal"}
    ARGUMENTS[f"Conv{_rank}DTranspose"] = {"filters": 2, "kernel_size": 2}
    ARGUMENTS[f"ConvLSTM{_rank}D"] = {"filters": 2, "kernel_size": 2}
    ARGUMENTS[f"AveragePooling{_rank}D"] = {"pool_size": 2}
    ARGUMENTS[f"DepthwiseConv{_rank}D"] = {"kernel_size": 2}
    ARGUMENTS[f"SeparableConv{_rank}D"] = {"filters": 2, "kernel_size": 2}

MERGES = {
    "Add",
    "Average",
    "Concatenate",
    "Maximum",
    "Minimum",
    "Multiply",
    "Subtract",
    "Attention",
    "AdditiveAttention",
}
SHAPES = [(8, 8, 3), (8, 3), (4,), (8, 8, 8, 3), (5, 8, 8, 3), (5, 8, 8, 8, 3), (8,)]
NO_GRAPH = {"InputLayer", "GRUCell", "LSTMCell", "SimpleRNNCell", "StackedRNNCells", "MixUp", "CutMix", "Dot"}
"""Built in other ways, below."""
NO_GRAPH |= {"GroupQueryAttention", "HashedCrossing", "MaxNumBoundingBoxes", "Equalization", "MultiHeadAttention"}


def faults(model: keras.Model) -> list[object]:
    return list(violations_of_text(model.to_json(), field="model.keras", trust=()))


def canonical_layers() -> Iterator[str]:
    for name in keras_names.CLASSES["model"]["keras.layers"].split():
        if getattr(layers, name).__name__ == name and name not in NO_GRAPH:
            yield name


def model_with(name: str) -> keras.Model:
    """A Functional model with that layer on the first shape it takes."""
    kind, problems = getattr(layers, name), []
    for shape in SHAPES:
        dtype = "string" if name in ("StringLookup", "TextVectorization") else None
        dtype = "int32" if name in ("Embedding", "ReversibleEmbedding", "IntegerLookup") else dtype
        try:
            x = keras.Input(shape, name="x", dtype=dtype)
            if name in MERGES:
                return keras.Model(x, kind()([x, layers.ReLU()(x)]))
            return keras.Model(x, kind(**ARGUMENTS.get(name, {}))(x))
        except Exception as error:
            problems.append(f"{shape}: {str(error)[:300]}")
    raise AssertionError(f"{name}: no model: {problems}")


@pytest.mark.parametrize("name", sorted(canonical_layers()))
def test_a_layers_own_config_passes(name: str) -> None:
    model = model_with(name)
    assert faults(model) == []
    again = keras.models.model_from_json(model.to_json())
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]


def test_layers_that_are_made_in_other_ways_pass() -> None:
    x, ids = keras.Input((6, 4), name="x"), keras.Input((1,), dtype="int32", name="ids")
    outputs = [
        layers.Dot(axes=-1)([x, x]),
        layers.GroupQueryAttention(2, 2, 1)(x, x),
        layers.MultiHeadAttention(2, 2)(x, x),
        layers.HashedCrossing(4)([ids, ids]),
        layers.RNN(layers.StackedRNNCells([layers.SimpleRNNCell(2), layers.LSTMCell(2)]))(x),
    ]
    model = keras.Model([x, ids], outputs)
    assert faults(model) == []
    assert faults(keras.models.model_from_json(model.to_json())) == []


def test_layers_of_an_unbuilt_sequence_pass() -> None:
    model = keras.Sequential([layers.Equalization(), layers.MixUp(), layers.CutMix(), layers.MaxNumBoundingBoxes(3)])
    assert faults(model) == []


def test_graphs_pass() -> None:
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    shared = layers.Dense(4, activation=keras.activations.softmax, kernel_initializer=keras.initializers.Constant(0.5))
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="inner")
    x = shared(a) + shared(b) * 2.0
    x = keras.ops.concatenate([x[:, 1:], keras.ops.tanh(a), keras.ops.einsum("bi,bi->b", a, b)[:, None]], axis=-1)
    x = keras.ops.reshape(keras.ops.where(x > 0, x, -x), (-1, 2, 4))
    x = keras.ops.mean(keras.ops.transpose(x, (0, 2, 1)), axis=-1)
    x = inner(x)
    outer = keras.Model({"a": a, "b": b}, {"y": x, "z": keras.ops.softmax(x)})
    nested = outer({"a": a, "b": b})
    model = keras.Model([a, b], [nested["y"], inner(nested["z"] @ keras.ops.ones((3, 4)))])
    assert faults(model) == []
    assert faults(keras.models.model_from_json(model.to_json())) == []


def test_policies_and_seeds_pass() -> None:
    x = keras.Input((4,))
    y = layers.Dense(2, dtype="mixed_bfloat16", kernel_initializer=keras.initializers.GlorotUniform(seed=1))(x)
    y = layers.Dropout(0.5, seed=2)(y)
    y = layers.Dense(2, bias_initializer=keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(4)))(y)
    assert faults(keras.Model(x, y)) == []


def test_a_compiled_models_config_is_refused_with_the_fix() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    model.compile("adam", "mse")
    [violation] = violations_of_text(model.to_json(), field="model.keras", trust=())
    assert violation.field == "model.keras.compile_config"
    assert "remove compile_config" in violation.description


def test_the_names_are_those_of_the_installed_keras() -> None:
    for name, value in generate_keras_names.content().items():
        assert getattr(keras_names, name) == value, f"{name} is old: run tests/generate_keras_names.py"


def test_every_name_leads_to_its_class() -> None:
    for groups in keras_names.CLASSES.values():
        for module, names in groups.items():
            for name in names.split():
                assert name not in REFUSED
                path = f"{module}.{name}"
                found: Any = keras.src.api_export.get_symbol_from_name(path) or _imported(module, name)
                assert found is not None, path


def _imported(module: str, name: str) -> object:
    __import__(module)
    return getattr(sys.modules[module], name, None)


def test_what_is_refused_is_in_no_list() -> None:
    listed = json.dumps([keras_names.CLASSES, keras_names.FUNCTIONS])
    words = set(listed.replace('"', " ").split())
    assert not words & {*REFUSED, "load_data", "get_file", "map", "while_loop", "cond", "deserialize"}
