"""The example that the demo runs: its job file is valid, and its model's config is what make_model.py writes."""

from __future__ import annotations

import json

from gradwire.cli.demo import EXAMPLE
from gradwire.spec.check import violations
from gradwire.spec.file import load


def test_the_example_is_a_job_that_a_server_takes() -> None:
    spec = load(EXAMPLE)
    assert violations(spec) == []
    assert (spec.resources.workers, spec.training.shards, spec.loss["aux"].weight) == (2, 4, 0.3)


def test_the_example_s_heads_are_the_model_s() -> None:
    spec = load(EXAMPLE)
    assert spec.model.keras is not None
    config = json.loads(spec.model.keras)["config"]
    assert set(config["output_layers"]) == set(spec.data.labels) == set(spec.loss) == set(spec.metrics)
    assert set(config["input_layers"]) == set(spec.data.inputs)
