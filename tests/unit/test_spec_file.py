"""Job files: what is read, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gradwire.errors import InvalidSpec
from gradwire.spec.file import MAX_JOB_FILE_BYTES, load, parse
from gradwire.spec.yaml_text import read

KERAS = {"class_name": "Sequential", "config": {"name": "net", "layers": [{"units": 32, "rate": 0.5}]}}

JOB = """
name: digits
model: {keras: net.json}
data:
  train: {npz: data/train.npz}
  inputs: image
  labels: digit
  validation: {source: {npz: "server:held/out.npz"}}
loss: sparse_categorical_crossentropy
optimizer: {name: adamw, config: {learning_rate: 1e-3, nested: {on: on}, when: 2020-01-01}}
metrics: [accuracy, {name: mae}]
training: {globalBatch: 64, epochs: 2, xla: on}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.npz").write_bytes(b"rows")
    (tmp_path / "net.json").write_text(json.dumps(KERAS, indent=2))
    return tmp_path


def job_file(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def faults(call: Any, *arguments: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        call(*arguments)
    return {violation.field: violation.description for violation in caught.value.violations}


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


def test_a_job_file_is_read_with_paths_relative_to_it(folder: Path) -> None:
    spec = load(job_file(folder, JOB))
    assert spec.model.keras is not None and json.loads(spec.model.keras) == KERAS
    assert '"units":32,' in spec.model.keras
    train = spec.data.train.npz
    assert train is not None and (train.path, train.label) == (str(folder / "data" / "train.npz"), "data/train.npz")
    assert spec.data.validation is not None and spec.data.validation.source is not None
    held_out = spec.data.validation.source.npz
    assert held_out is not None and (held_out.server_path, held_out.path) == ("held/out.npz", None)
    assert spec.optimizer.config == {"learning_rate": 0.001, "nested": {"on": "on"}, "when": "2020-01-01"}
    assert [metric.name for metric in spec.metrics[""]] == ["accuracy", "mae"]
    assert spec.training.xla == "on"


def test_a_model_is_the_same_inline_and_in_a_file(folder: Path) -> None:
    inline = parse(document())
    assert parse(document(model={"keras": "net.json"}), folder) == inline
    assert parse(document(model={"keras": json.dumps(KERAS)}), folder) == inline


def test_the_callers_mapping_is_left_alone(folder: Path) -> None:
    given = document(data={"train": {"npz": "data/train.npz"}, "inputs": "x", "labels": "y"})
    parse(given, folder)
    assert given["data"]["train"] == {"npz": "data/train.npz"}
    assert given["model"] == {"keras": KERAS}


def test_yaml_has_the_rules_of_version_1_2() -> None:
    assert read("[1e-3, on, no, 010, 0o10, 2020-01-01, ~, 12:30, .5]") == [
        0.001, "on", "no", 10, 8, "2020-01-01", None, "12:30", 0.5,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", 'line 2, column 1: found duplicate key "name"'),
        ("a: [1,\nb: c: d", "line 2, column 5"),
        ("a: *x", "line 1, column 4: found undefined alias 'x'"),
        ("a: &a [*a]", "has an alias inside of what it stands for"),
        ("a: !!python/object:os.system x", "line 1, column 4: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
        ("[" * 1000, "is nested too deeply"),
        ("a: " + "9" * 5000, "is not YAML"),
        ("", "is empty"),
        ("- a\n", "the top must be a mapping"),
        ("a: \x00", "is not YAML"),
    ],
)
def test_what_is_no_job_file_is_told_with_its_place(tmp_path: Path, text: str, says: str) -> None:
    path = job_file(tmp_path, text)
    assert says in faults(load, path)[str(path)]


@pytest.mark.parametrize("item", ["[*a{0}, *a{0}, *a{0}]", "{{<<: [*a{0}, *a{0}, *a{0}]}}"])
def test_aliases_do_not_grow_without_bound(tmp_path: Path, item: str) -> None:
    bomb = "a0: &a0 {x: 1}\n" + "".join(f"a{i}: &a{i} {item.format(i - 1)}\n" for i in range(1, 60))
    path = job_file(tmp_path, bomb)
    assert "aliases" in faults(load, path)[str(path)]


def test_aliases_of_a_sensible_size_work() -> None:
    assert read("a: &a {x: 1}\nb: {<<: *a, y: *a}") == {"a": {"x": 1}, "b": {"x": 1, "y": {"x": 1}}}


def test_a_missing_and_a_huge_and_a_binary_file_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "job.yaml"
    assert "no such file" in faults(load, missing)[str(missing)]
    missing.write_bytes(b"#" * (MAX_JOB_FILE_BYTES + 1))
    assert "larger than 4 MiB" in faults(load, missing)[str(missing)]
    missing.write_bytes(b"name: \xff")
    assert "not UTF-8 text: byte 6 is 0xff" in faults(load, missing)[str(missing)]


def test_everything_wrong_is_told_at_once(folder: Path) -> None:
    (folder / "empty.npz").touch()
    found = faults(
        parse,
        document(
            model={"python": {"function": "net.build", "source": "net.json"}},
            data={
                "train": {"npz": "gone.npz"},
                "validation": {"source": {"npz": "empty.npz"}},
                "inputs": "x",
                "labels": "y",
            },
            training={"globalBach": 64, "epochs": 0},
        ),
        folder,
    )
    assert "must be module:function" in found["model.python.function"]
    assert "net.json is no folder" in found["model.python.source"]
    assert found["data.train.npz"].startswith("gone.npz is not there")
    assert "empty.npz is empty" in found["data.validation.source.npz"]
    assert found["training.globalBach"] == "is not a field; did you mean globalBatch?"
    assert found["training.globalBatch"] == "is required"
    assert found["training.epochs"] == "must be at least 1, not 0"
    assert len(found) == 7


@pytest.mark.parametrize(
    ("keras", "says"),
    [
        ("gone.json", "gone.json is not there: no such file"),
        ("broken.json", "broken.json is not JSON: line 2, column 1"),
        ("list.json", "list.json must be a JSON object"),
        ("{", "is not JSON: line 1"),
        (3, "must be a Keras config"),
        ({"a": {1, 2}}, "is no plain data"),
    ],
)
def test_a_model_that_cannot_be_read_is_named(tmp_path: Path, keras: object, says: str) -> None:
    (tmp_path / "broken.json").write_text('{"a":\n}')
    (tmp_path / "list.json").write_text("[]")
    assert says in faults(parse, document(model={"keras": keras}), tmp_path)["model.keras"]
