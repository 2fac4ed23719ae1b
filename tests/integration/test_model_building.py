"""Models from Keras configs, with the real Keras."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from gradwire.errors import JobFailed
from tests.integration.architectures import CASES, nested
from tests.integration.model_job import Place, job
from workers.models.fit_check import check_fit
from workers.models.heads import Heads

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("case", CASES)
def test_builds_fits_and_depends_on_the_seed_alone(case: str, place: Place) -> None:
    make, inputs, labels, loss, arrays = CASES[case]
    model_json = {"keras": make().to_json()}
    spec = job(model_json, inputs=inputs, labels=labels, loss=loss)
    keras.utils.set_random_seed(99)
    model, again = place.build(spec), place.build(spec)
    other = place.build(job(model_json, inputs=inputs, labels=labels, loss=loss, seed=1))
    for one, two in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    assert any(not np.array_equal(one, two) for one, two in pairs)
    check_fit(model, Heads.of(model), spec, arrays)


def test_the_gate_stands_before_keras(place: Place) -> None:
    config = json.loads(nested().to_json())
    config["config"]["layers"][1] = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "evil"}}
    with pytest.raises(JobFailed, match=r"model.keras.config.layers\[1\]: 'evil': Lambda runs Python code") as caught:
        place.build(job({"keras": json.dumps(config)}))
    assert caught.value.code == "model_config"


def test_what_keras_refuses_says_why_in_one_line(place: Place) -> None:
    config = json.loads(nested().to_json())
    config["config"]["layers"][-1]["config"]["units"] = -2
    with pytest.raises(JobFailed) as caught:
        place.build(job({"keras": json.dumps(config)}))
    assert caught.value.code == "model_config"
    assert "-2" in caught.value.message
    assert "\n" not in caught.value.message


def test_a_sequential_model_needs_its_input_shape(place: Place) -> None:
    text = keras.Sequential([layers.Dense(2)], name="open").to_json()
    with pytest.raises(JobFailed, match=r"'open' has no input shape; make keras.Input") as caught:
        place.build(job({"keras": text}))
    assert caught.value.code == "model_not_built"
