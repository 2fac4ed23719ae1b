"""What a specification's digest depends on."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from gradwire.spec.check import validate
from gradwire.spec.digest import spec_digest
from gradwire.spec.file_refs import file_refs, with_file_refs

SHA256 = "0123456789abcdef" * 4


def digest(**parts: Any) -> str:
    file = {"artifact": SHA256, "label": parts.pop("label", "")}
    return spec_digest(
        validate(
            {
                "name": "small",
                "model": {"keras": "{}"},
                "data": {
                    "train": {"npz": file},
                    "validation": {"source": {"npz": file}},
                    "inputs": "image",
                    "labels": "digit",
                },
                "loss": "mse",
                "optimizer": {"name": "sgd", "config": {"learning_rate": 0.1, "momentum": 0.9}},
                "training": {"globalBatch": 32, "epochs": 1},
                **parts,
            }
        )
    )


def test_the_digest_is_that_of_canonical_json() -> None:
    spec = validate(
        {
            "name": "é",
            "model": {"archive": {"artifact": SHA256, "label": "net.keras"}},
            "data": {"train": {"builtin": "digits"}, "inputs": "image", "labels": "digit"},
            "loss": "mse",
            "optimizer": "sgd",
            "training": {"globalBatch": 32, "epochs": 1},
        }
    )
    document = json.loads(spec.model_dump_json(by_alias=True))
    document["model"]["archive"]["label"] = ""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    assert text.startswith('{"data":{"inputs":{"":"image"},"labels":') and '"name":"\\u00e9"' in text
    assert spec_digest(spec) == hashlib.sha256(text.encode()).hexdigest()


def test_labels_and_the_order_of_keys_and_written_defaults_do_not_count() -> None:
    assert digest(label="data/train.npz") == digest()
    assert digest(optimizer={"config": {"momentum": 0.9, "learning_rate": 0.1}, "name": "sgd"}) == digest()
    assert digest(resources={"workers": 1}, training={"epochs": 1, "global_batch": 32, "shards": 4}) == digest()


@pytest.mark.parametrize(
    "parts",
    [
        {"name": "other"},
        {"model": {"archive": {"artifact": SHA256}}},
        {"optimizer": {"name": "sgd", "config": {"learning_rate": 0.1, "momentum": 0.8}}},
        {"training": {"globalBatch": 32, "epochs": 1, "seed": 1}},
        {"resources": {"workers": 2}},
    ],
)
def test_everything_else_counts(parts: dict[str, Any]) -> None:
    assert digest(**parts) != digest()


def test_every_file_is_found_and_can_be_replaced() -> None:
    file = {"artifact": SHA256}
    spec = validate(
        {
            "name": "files",
            "model": {"python": {"function": "a:b", "source": file}},
            "data": {
                "train": {"npz": file},
                "validation": {"source": {"npz": file}},
                "inputs": "image",
                "labels": "digit",
            },
            "loss": "mse",
            "optimizer": "sgd",
            "training": {"globalBatch": 32, "epochs": 1},
        }
    )
    assert [field for field, _ in file_refs(spec)] == [
        "model.python.source",
        "data.train.npz",
        "data.validation.source.npz",
    ]
    named = with_file_refs(spec, lambda field, one: one.model_copy(update={"label": field}))
    assert all(one.label == field for field, one in file_refs(named))
    assert all(one.label == "" for _, one in file_refs(spec))
