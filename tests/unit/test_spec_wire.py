"""A specification survives the wire; a message of another client gets defaults or violations."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.errors import InvalidSpec
from gradwire.spec.check import validate
from gradwire.spec.digest import spec_digest
from gradwire.spec.job import JobSpec
from gradwire.spec.wire import from_proto, to_proto
from protos.gradwire.v1 import spec_pb2 as pb

SHA256 = "0123456789abcdef" * 4
FINITE = st.floats(allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda text: text != "name")
CONFIGS = st.dictionaries(
    TEXT,
    st.recursive(
        st.none() | st.booleans() | st.integers() | FINITE | TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
).map(lambda config: {key: value for key, value in config.items() if key not in ("use_ema", "clipnorm")})
FILES = st.fixed_dictionaries({"artifact": st.just(SHA256), "label": TEXT}) | st.fixed_dictionaries(
    {"serverPath": NAMES, "label": TEXT}
)
SOURCES = st.sampled_from([{"builtin": "digits"}, {"builtin": "diabetes"}]) | st.fixed_dictionaries({"npz": FILES})
OBJECTS = st.fixed_dictionaries({"name": NAMES}, optional={"config": CONFIGS})

RULES = st.fixed_dictionaries(
    {"buckets": st.lists(st.integers(1, 99), min_size=1, max_size=4, unique=True).map(sorted)},
    optional={"value": FINITE, "truncate": st.booleans()},
) | st.fixed_dictionaries({"multiple": st.just(8)}, optional={"value": FINITE, "max": st.sampled_from([8, 64])})


def counts(most: int = 2**31 - 1, least: int = 1) -> st.SearchStrategy[int]:
    return st.integers(min_value=least, max_value=most)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    outputs = draw(st.just([""]) | st.lists(NAMES, min_size=1, max_size=3, unique=True))
    shards = draw(counts(1024))
    training = st.fixed_dictionaries(
        {"globalBatch": st.just(shards * 3), "shards": st.just(shards)}
        | draw(st.sampled_from([{"epochs": counts(1_000_000)}, {"steps": counts()}])),
        optional={
            "seed": counts(least=0),
            "xla": st.sampled_from(["off", "on", "auto"]),
            "gradientClip": st.fixed_dictionaries({"kind": st.just("norm"), "limit": st.floats(1e-9, 1e9)}),
            "weightDecayExclude": st.lists(st.sampled_from(["bias", "norm/", "^a$"]), max_size=2),
            "learningRateMultipliers": st.dictionaries(st.sampled_from(["bias", "head"]), st.floats(1e-9, 9)),
            "accumulation": counts(3),
            "movingAverage": st.fixed_dictionaries({}, optional={"momentum": st.floats(0.1, 0.9)}),
            "evaluateEvery": counts(least=0),
            "earlyStopping": st.fixed_dictionaries(
                {"patience": counts(10_000)},
                optional={"monitor": NAMES, "minDelta": st.floats(0, 9), "restoreBest": st.booleans()},
            ),
            "checkpoint": st.fixed_dictionaries(
                {}, optional={"everySteps": counts(least=0), "keep": counts(1000), "mode": st.just("max")}
            ),
        },
    )
    validation = st.fixed_dictionaries({"split": st.floats(0.01, 0.99)}) | st.fixed_dictionaries({"source": SOURCES})
    data = st.fixed_dictionaries(
        {
            "train": SOURCES,
            "inputs": NAMES | st.dictionaries(NAMES, TEXT, min_size=1, max_size=3),
            "labels": st.fixed_dictionaries(dict.fromkeys(outputs, TEXT)),
        },
        optional={
            "validation": validation,
            "sampleWeights": st.just({}),
            "shuffle": st.booleans(),
        },
    )
    models = (
        st.fixed_dictionaries({"keras": TEXT})
        | st.fixed_dictionaries({"archive": FILES})
        | st.fixed_dictionaries(
            {"python": st.fixed_dictionaries({"function": st.just("a.b:c"), "source": FILES, "arguments": CONFIGS})}
        )
    )
    rows = draw(data)
    if "sampleWeights" in rows:
        rows["sampleWeights"] = dict.fromkeys(outputs, "w")
    arrays = [*([rows["inputs"]] if isinstance(rows["inputs"], str) else rows["inputs"].values()), ""]
    rows["padding"] = draw(st.dictionaries(st.sampled_from(arrays), RULES, max_size=1))
    trained = draw(training)
    if "validation" not in rows:
        trained.pop("earlyStopping", None)
    losses = st.fixed_dictionaries({"name": NAMES}, optional={"config": CONFIGS, "weight": FINITE})
    return draw(
        st.fixed_dictionaries(
            {
                "name": st.just("a job"),
                "model": models,
                "data": st.just(rows),
                "loss": st.fixed_dictionaries(dict.fromkeys(outputs, losses)),
                "optimizer": OBJECTS,
                "training": st.just(trained),
            },
            optional={
                "metrics": st.dictionaries(st.sampled_from(outputs), st.lists(OBJECTS, max_size=3), max_size=3),
                "reporting": st.fixed_dictionaries({}, optional={"histogramsEvery": counts(least=0)}),
                "resources": st.just(
                    {"workers": 3, "minWorkers": min(shards, 2), "cpusPerWorker": 0.5, "gpusPerWorker": 0.25}
                ),
            },
        )
    )


def same_types(one: Any, other: Any) -> bool:
    """Whether two equal documents have equal types too: 1 == 1.0 == True in Python."""
    if isinstance(one, dict):
        return all(same_types(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return all(map(same_types, one, other))
    return type(one) is type(other)


@settings(max_examples=60, deadline=None)
@given(documents())
def test_the_wire_loses_nothing(document: dict[str, Any]) -> None:
    spec = validate(document)
    message = pb.JobSpec.FromString(to_proto(spec).SerializeToString())
    back = from_proto(message)
    assert back == spec
    assert same_types(spec.model_dump(), back.model_dump())
    assert spec_digest(back) == spec_digest(spec)


def minimal() -> JobSpec:
    return validate(
        {
            "name": "small",
            "model": {"keras": "{}"},
            "data": {"train": {"builtin": "digits"}, "inputs": "image", "labels": "digit"},
            "loss": {"name": "mse", "weight": 0.0},
            "optimizer": {"name": "adam", "config": {"learning_rate": 1, "epsilon": 1.0}},
            "training": {"globalBatch": 32, "epochs": 1},
        }
    )


def test_integers_stay_integers_and_a_weight_of_zero_stays_zero() -> None:
    back = from_proto(to_proto(minimal()))
    assert {key: type(value) for key, value in back.optimizer.config.items()} == {
        "learning_rate": int,
        "epsilon": float,
    }
    assert back.loss[""].weight == 0.0


def test_what_is_not_set_stays_unset() -> None:
    message = to_proto(minimal())
    assert not message.training.HasField("gradient_clip")
    assert not message.training.HasField("early_stopping")
    assert message.training.WhichOneof("length") == "epochs"
    assert not message.data.HasField("validation")


def test_another_clients_message_gets_the_defaults() -> None:
    message = to_proto(minimal())
    message.ClearField("resources")
    for field in ("shards", "strategy", "precision", "xla", "accumulation", "checkpoint", "on_nonfinite"):
        message.training.ClearField(field)
    message.optimizer.config_json = ""
    spec = from_proto(message)
    assert (spec.training.shards, spec.training.xla, spec.training.checkpoint.keep) == (4, "off", 3)
    assert spec.resources.workers == 1
    assert spec.optimizer.config == {}


def test_an_empty_message_names_every_field_that_is_required() -> None:
    with pytest.raises(InvalidSpec) as caught:
        from_proto(pb.JobSpec())
    fields = {violation.field for violation in caught.value.violations}
    assert fields == {"name", "model", "data", "loss", "optimizer", "training"}


def test_faults_of_json_texts_and_of_fields_are_told_together() -> None:
    message = to_proto(minimal())
    message.optimizer.config_json = "{"
    message.loss[""].object.config_json = "[1]"
    message.data.train.npz.label = "a.npz"
    message.training.global_batch = 0
    message.training.epochs = 0
    with pytest.raises(InvalidSpec) as caught:
        from_proto(message)
    found = {violation.field: violation.description for violation in caught.value.violations}
    assert set(found) == {
        "optimizer.config",
        "loss.config",
        "data.train.npz",
        "training.globalBatch",
        "training.epochs",
    }
    assert found["loss.config"] == "must be a JSON object"
    assert found["training.epochs"] == "must be at least 1, not 0"


def test_a_file_of_this_machine_does_not_travel() -> None:
    spec = validate(
        {
            **minimal().model_dump(by_alias=True),
            "model": {"archive": {"path": "/somewhere/net.keras", "label": "net.keras"}},
        }
    )
    with pytest.raises(InvalidSpec, match=r"model.archive: net.keras is a file of this machine"):
        to_proto(spec)
