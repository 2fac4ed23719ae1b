"""Whether a model fits its data: a misfit is told with both shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import pytest

from gradwire.errors import JobFailed
from tests.integration.architectures import Info, conv, info, masked_lstm, nested, two_by_two
from tests.integration.model_job import job
from workers.models.fit_check import check_fit
from workers.models.heads import Heads

pytestmark = pytest.mark.integration


LSTM_LOSS = {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}
MISFITS: dict[str, tuple[Callable[[], keras.Model], dict[str, Any], Info, list[str]]] = {
    "unknown input": (conv, {"inputs": {"imag": "x"}}, {"x": info(8, 8), "y": info()}, ["no input 'imag'", "image"]),
    "unknown output": (
        conv,
        {"labels": {"digt": "y"}, "loss": {"digt": "mse"}},
        {"x": info(8, 8), "y": info()},
        ["data.labels", "no output 'digt'", "did you mean digit"],
    ),
    "unknown array": (conv, {"inputs": "pixel"}, {"pixels": info(8, 8), "y": info()}, ["'pixel'", "mean pixels"]),
    "unnamed input of two": (two_by_two, {}, {"x": info(3), "y": info()}, ["the model has 2: a, b"]),
    "missing input": (
        two_by_two,
        {"inputs": {"a": "x"}},
        {"x": info(3), "bb": info(2), "y": info()},
        ["input 'b'; did you mean bb?"],
    ),
    "input shape": (conv, {}, {"x": info(10, 8), "y": info()}, ["(8, 8, 1)", "(10, 8)", "'x'", "'image'"]),
    "input of texts": (conv, {}, {"x": info(8, 8, dtype="U3"), "y": info()}, ["<U3", "no numbers"]),
    "label shape": (nested, {}, {"x": info(4), "y": info(3)}, ["(3)", "(2)", "mse"]),
    "broadcast label": (nested, {}, {"x": info(4), "y": info(1)}, ["(1)", "(2)"]),
    "class numbers for one-hot": (
        nested,
        {"loss": "categorical_crossentropy"},
        {"x": info(4), "y": info(dtype="int64")},
        ["sparse_categorical_crossentropy"],
    ),
    "one-hot for class numbers": (
        nested,
        {"loss": "SparseCategoricalCrossentropy"},
        {"x": info(4), "y": info(2)},
        ["use categorical_crossentropy"],
    ),
    "one-hot width": (nested, {"loss": "CategoricalCrossentropy"}, {"x": info(4), "y": info(9)}, ["(9)", "(2)"]),
    "one label for a sequence": (
        masked_lstm,
        {"loss": LSTM_LOSS},
        {"x": info(7, dtype="int64"), "y": info(dtype="int64")},
        ["(7, 5)", "shape ()"],
    ),
    "unknown weights": (
        nested,
        {"weights": "w"},
        {"x": info(4), "y": info(2)},
        ["data.sampleWeights", "'w'"],
    ),
    "weights' shape": (
        nested,
        {"weights": "w"},
        {"x": info(4), "y": info(2), "w": info(5, 3)},
        ["sample weights", "(5, 3)"],
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_is_named_with_both_shapes(case: str) -> None:
    make, more, arrays, parts = MISFITS[case]
    model = make()
    spec = job({"keras": "{}"}, **more)
    with pytest.raises(JobFailed) as caught:
        check_fit(model, Heads.of(model), spec, arrays)
    assert caught.value.code == "model_data_mismatch"
    for part in parts:
        assert part in caught.value.message


@pytest.mark.parametrize("weights", [(), (1,), (7,), (7, 1)])
def test_sample_weights_fit(weights: tuple[int, ...]) -> None:
    model = masked_lstm()
    spec = job({"keras": "{}"}, weights="w", loss=LSTM_LOSS)
    arrays = {"x": info(7, dtype="int64"), "y": info(7, dtype="int64"), "w": info(*weights)}
    check_fit(model, Heads.of(model), spec, arrays)
