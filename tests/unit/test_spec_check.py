"""What is wrong with a specification, in plain words and with its field path."""

from __future__ import annotations

from typing import Any

import pytest

from gradwire.errors import InvalidSpec
from gradwire.spec.check import MAX_VIOLATIONS, validate, violations

SHA256 = "0123456789abcdef" * 4
KERAS = """{"module": "keras", "class_name": "Sequential", "registered_name": null,
 "config": {"name": "net", "layers": [
  {"module": "keras.layers", "class_name": "InputLayer", "registered_name": null,
   "config": {"batch_shape": [null, 4], "dtype": "float32", "name": "input"}},
  {"module": "keras.layers", "class_name": "Dense", "registered_name": null,
   "config": {"name": "dense", "units": 2, "activation": "linear"}}]}}"""


def document(**parts: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "model": {"keras": KERAS},
        "data": {"train": {"builtin": "digits"}, "inputs": "image", "labels": "digit"},
        "loss": "mse",
        "optimizer": "sgd",
        "training": {"globalBatch": 32, "epochs": 1},
        **parts,
    }


def faults(**parts: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidSpec) as caught:
        validate(document(**parts))
    return [(violation.field, violation.description) for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("parts", "field", "says"),
    [
        ({"training": {"globalBatch": 0, "epochs": 1}}, "training.globalBatch", "must be at least 1, not 0"),
        ({"training": {"global_batch": 0, "epochs": 1}}, "training.globalBatch", "must be at least 1, not 0"),
        ({"training": {"globalBatch": 4, "steps": "ten"}}, "training.steps", "must be a whole number, not 'ten'"),
        ({"training": {"globalBatch": 4, "steps": 1.5}}, "training.steps", "must be a whole number, not 1.5"),
        ({"training": {"globalBatch": 4}}, "training", "give exactly one of epochs, steps"),
        ({"training": None}, "training", "must be a mapping of fields"),
        (
            {"training": {"globalBatch": 4, "epochs": 1, "xla": True}},
            "training.xla",
            "must be 'off', 'on' or 'auto', not True",
        ),
        (
            {"training": {"globalBatch": 4, "epochs": 1, "weightDecayExclude": ["bias("]}},
            "training.weightDecayExclude[0]",
            "'bias(' is no regular expression: missing ), unterminated subpattern at position 4",
        ),
        (
            {"training": {"globalBatch": 4, "epochs": 1, "learningRateMultipliers": {"encoder": 0}}},
            "training.learningRateMultipliers.encoder",
            "must not be 0; to freeze a layer, set its trainable=False",
        ),
        (
            {"training": {"globalBatch": 8, "epochs": 1, "accumulation": 3}},
            "training",
            "accumulation 3 is more than the 2 samples of a shard",
        ),
        (
            {"training": {"globalBatch": 4, "epochs": 1, "earlyStopping": {"patience": 2}}},
            "training.earlyStopping",
            "counts evaluations, of which there are none without data.validation",
        ),
        ({"name": ""}, "name", "must not be empty"),
        ({"name": "a" * 101}, "name", "must have at most 100 characters, not '" + "a" * 59 + "…"),
        ({"name": "-a"}, "name", "must begin with a letter, a digit or _"),
        ({"loss": {"a b": {"name": 1}}}, 'loss["a b"].name', "must be text, not 1"),
        ({"metrics": {"out": ["mae", {"name": 2}]}}, "metrics.out[1].name", "must be text, not 2"),
        ({"metrics": {"name": "mae", "conf": {}}}, "metrics[0].conf", "is not a field; did you mean config?"),
        ({"data": {"train": {"npz": {}}, "inputs": "x", "labels": "y"}}, "data.train.npz", "a file is a path"),
        ({"data": {"train": {"builtin": "mnist"}, "inputs": "x", "labels": "y"}}, "data.train.builtin", "'digits'"),
        ({"data": {"train": {"builtin": "digits"}, "inputs": {}, "labels": "y"}}, "data.inputs", "at least one"),
        ({"data": {"train": {"builtin": "digits"}, "inputs": {1: "x"}, "labels": "y"}}, "data.inputs.1", "be text"),
        ({"batchSize": 3}, "batchSize", "is not a field; the fields here are name, model, data, loss"),
        ({"epochs": 3}, "epochs", "is not a field here; did you mean training.epochs?"),
        ({"resources": {"min_worker": 3}}, "resources.min_worker", "did you mean minWorkers"),
        ({"resources": {"cpusPerWorker": float("inf")}}, "resources.cpusPerWorker", "must be a finite number, not inf"),
        ({"optimizer": {"name": "sgd", "config": {"a": [float("nan")]}}}, "optimizer.config.a[0]", "finite number"),
        ({"optimizer": {"name": "sgd", "config": {"a": b""}}}, "optimizer.config.a", "as in JSON, not bytes"),
        ({"optimizer": {"name": "sgd", "config": {"a": "\ud800"}}}, "optimizer.config.a", "is not Unicode text"),
        (
            {"optimizer": {"name": "sgd", "config": {"clipnorm": 1}}},
            "optimizer.config.clipnorm",
            "is not taken; say it",
        ),
        ({"resources": {"workers": 8, "minWorkers": 5}}, "resources.minWorkers", "5 is more than training.shards 4"),
        ({"loss": {"other": "mse"}}, "loss", "names the output 'other', which has no labels in data.labels"),
    ],
)
def test_a_fault_is_told_once_and_in_plain_words(parts: dict[str, Any], field: str, says: str) -> None:
    found = faults(**parts)
    assert [name for name, _ in found] == [field]
    assert says in found[0][1]


DIGIT = {"train": {"builtin": "digits"}, "inputs": {"image": "image"}, "labels": {"digit": "label"}}


@pytest.mark.parametrize(
    ("data", "parts", "field", "says"),
    [
        ({}, {"loss": {"digitt": "mse"}}, "loss", "the output 'digitt', which has no labels in data.labels"),
        ({}, {"loss": {"digitt": "mse"}}, "loss", "; did you mean digit?"),
        ({}, {"loss": "mse"}, "loss", "names no output, which has no labels in data.labels; known: digit"),
        (
            {"labels": {"digit": "label", "digt": "label"}},
            {"loss": {"digit": "mse"}},
            "data.labels",
            "the output 'digt', which has no loss; did you mean digit?",
        ),
        (
            {},
            {"metrics": {"dgit": ["mae"]}},
            "metrics",
            "'dgit', which has no labels in data.labels; did you mean digit?",
        ),
        ({"sampleWeights": {"dig": "w"}}, {}, "data.sampleWeights", "'dig', which has no labels in data.labels; did"),
        ({"padding": {"imag": {"multiple": 8}}}, {}, "data.padding", "names 'imag', which is no array of"),
        ({"padding": {"imag": {"multiple": 8}}}, {}, "data.padding", "; did you mean image?"),
        ({"padding": {"digit": {"multiple": 8}}}, {}, "data.padding", "; by the name of its array it is 'label'"),
        ({"padding": {"multipel": 8}}, {}, "data.padding.multipel", "did you mean multiple?"),
        ({"padding": {"buckets": [8, 4]}}, {}, "data.padding", "buckets must ascend, as [4, 8]"),
        ({"padding": {"value": 1}}, {}, "data.padding", "give exactly one of buckets, multiple"),
        ({"padding": {"multiple": 8, "max": 20}}, {}, "data.padding", "max 20 is no multiple of 8; take 24"),
        ({"padding": {"multiple": 8, "max": 8000}}, {}, "data.padding", "allows 1000 lengths"),
        ({"padding": {"buckets": [8], "max": 8}}, {}, "data.padding", "max goes with multiple"),
        ({"padding": {"multiple": 8, "truncate": True}}, {}, "data.padding", "truncate needs max, or buckets"),
        (
            {"padding": {name: {"multiple": 1, "max": 17} for name in ("image", "label")}},
            {},
            "data.padding",
            "allows 289 combinations of lengths",
        ),
    ],
)
def test_names_and_lengths_are_refused_with_what_was_meant(
    data: dict[str, Any], parts: dict[str, Any], field: str, says: str
) -> None:
    found = faults(data={**DIGIT, **data}, **{"loss": {"digit": "mse"}, **parts})
    assert [name for name, _ in found] == [field]
    assert says in found[0][1]


def test_rules_over_several_fields_are_told_beside_other_faults() -> None:
    found = faults(
        unknown=1,
        training={"globalBatch": 30, "seed": -1},
        resources={"workers": 1, "minWorkers": 3, "gpusPerWorker": -1},
        optimizer={"name": "sgd", "config": {"clipnorm": 1, "clipvalue": 2, "use_ema": True}},
        loss={"a": "mse"},
    )
    assert sorted(field for field, _ in found) == [
        "loss",
        "optimizer.config.clipnorm",
        "optimizer.config.clipvalue",
        "optimizer.config.use_ema",
        "resources",
        "resources.gpusPerWorker",
        "training",
        "training",
        "training.seed",
        "unknown",
    ]
    assert ("training", "globalBatch 30 is no multiple of shards 4; take 28 or 32") in found
    found = faults(unknown=1, resources={"workers": 8, "minWorkers": 5})
    assert [field for field, _ in found] == ["unknown", "resources.minWorkers"]


def test_a_document_of_another_kind_is_refused() -> None:
    values: tuple[object, ...] = (None, [], "text", 3)
    for value in values:
        with pytest.raises(InvalidSpec):
            validate(value)


def test_faults_are_bounded() -> None:
    found = faults(**{f"field{number}": 1 for number in range(300)})
    assert len(found) == MAX_VIOLATIONS + 1
    assert found[-1] == ("", "and 200 more")


def test_depth_is_bounded() -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert "nested more than 100 deep" in faults(optimizer={"name": "sgd", "config": {"a": deep}})[0][1]


def refused(**options: Any) -> dict[str, str]:
    parts = options.pop("parts", {})
    return {one.field: one.description for one in violations(validate(document(**parts)), **options)}


def test_a_sound_specification_is_taken() -> None:
    assert refused() == {}


def test_a_python_model_needs_a_server_that_runs_code() -> None:
    parts = {"model": {"python": {"function": "net:build", "source": {"artifact": SHA256}}}}
    assert "--allow-code" in refused(parts=parts)["model.python"]
    assert refused(parts=parts, allow_code=True) == {}


@pytest.mark.parametrize(
    ("file", "says"),
    [
        ({"artifact": SHA256}, None),
        ("net.keras", "was not uploaded"),
        ("server:../net.keras", "without .."),
        ("server:net.keras", None),
    ],
)
def test_a_model_archive_is_a_file_like_others(file: Any, says: str | None) -> None:
    found = violations(validate(document(model={"archive": file})), has_data_root=True)
    assert [one.field for one in found] == (["model.archive"] if says else [])
    assert not says or says in found[0].description


def test_a_model_comes_through_one_door() -> None:
    assert faults(model={}) == [("model", "give exactly one of keras, archive, python")]


@pytest.mark.parametrize("path", ["../up.npz", "a/../../b", "/etc/passwd", "a\\b", "a\0b"])
def test_server_paths_stay_below_the_data_root(path: str) -> None:
    parts = {"data": {"train": {"npz": {"serverPath": path}}, "inputs": "x", "labels": "y"}}
    assert "below the data root" in refused(parts=parts, has_data_root=True)["data.train.npz"]


def test_server_paths_need_a_data_root() -> None:
    parts = {"data": {"train": {"npz": "server:a/b.npz"}, "inputs": "x", "labels": "y"}}
    assert "--data-root" in refused(parts=parts)["data.train.npz"]
    assert refused(parts=parts, has_data_root=True) == {}


def test_files_of_the_client_must_be_uploaded() -> None:
    parts = {"data": {"train": {"npz": "a/b.npz"}, "inputs": "x", "labels": "y"}}
    assert "was not uploaded" in refused(parts=parts)["data.train.npz"]


def test_keras_configs_pass_the_gate() -> None:
    parts = {
        "model": {"keras": KERAS.replace('"Dense"', '"Lambda"')},
        "loss": {"name": "no_such_loss"},
        "optimizer": {"name": "no_such_optimizer"},
        "metrics": {"": ["mae", "no_such_metric"]},
    }
    found = refused(parts=parts)
    assert any(field.startswith("model.keras") and "Lambda" in words for field, words in found.items())
    assert any(field.startswith("loss") and "no_such_loss" in words for field, words in found.items())
    assert any(field.startswith("optimizer") and "no_such_optimizer" in words for field, words in found.items())
    assert any(field.startswith("metrics[1]") and "no_such_metric" in words for field, words in found.items())


def test_a_model_must_be_json() -> None:
    assert "line 1" in refused(parts={"model": {"keras": "{"}})["model.keras"]
