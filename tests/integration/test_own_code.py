"""Data, losses and metrics from a user's source folder, and what becomes of their faults."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.packing import pack
from gradwire.spec.check import violations
from gradwire.spec.job import JobSpec
from tests.integration.lab import Result, run
from tests.integration.model_job import Place, job
from workers.data.opening import DataPlace, open_data

pytestmark = pytest.mark.integration

SOURCE = """
import keras
import numpy as np

class Rows:
    def __len__(self):
        return 50

    def arrays(self, rows):
        assert rows.dtype == np.int64
        x = np.sin(np.arange(200, dtype=np.float32).reshape(50, 4))
        return {"x": x[rows], "y": x[rows].sum(axis=1, keepdims=True), "unused": ["text"] * len(rows)}

def rows():
    return Rows()

def table(scale=1.0):
    found = Rows().arrays(np.arange(50))
    return {"x": found["x"] * scale, "y": found["y"]}

def make():
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.Dense(1, name="y")(x))

def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_pred - y_true), axis=-1)

class Scaled(keras.losses.Loss):
    def __init__(self, factor, name="scaled"):
        super().__init__(name=name)
        self.factor = factor

    def call(self, y_true, y_pred):
        return self.factor * squared(y_true, y_pred)

class Largest(keras.metrics.MeanMetricWrapper):
    def __init__(self, name="largest"):
        super().__init__(lambda y_true, y_pred: keras.ops.max(keras.ops.abs(y_true - y_pred), axis=-1), name=name)

class Broken(keras.layers.Layer):
    def call(self, x):
        if keras.backend.backend() and not isinstance(x, keras.KerasTensor):
            return self.middle(x)
        return x

    def middle(self, x):
        raise KeyError("no such thing")

def broken():
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.Dense(1, name="y")(Broken()(x)))

def broken_loss(y_true, y_pred):
    return y_pred.shape.nowhere

class Uneven(Rows):
    def arrays(self, rows):
        found = super().arrays(rows)
        if rows.size == 1:
            return found
        return {**found, "y": np.zeros((len(rows), 2))}

class Failing(Rows):
    def arrays(self, rows):
        return {}[rows[0]]

class Nan(Rows):
    def arrays(self, rows):
        found = super().arrays(rows)
        found["x"][rows == 7] = np.nan
        return found

class Short(Rows):
    def arrays(self, rows):
        return {name: values[:-1] for name, values in super().arrays(np.append(rows, 0)[:-1]).items()}

def number():
    return 5
"""


@pytest.fixture
def source(tmp_path: Path) -> dict[str, str]:
    """The folder above as an artifact."""
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "user_own.py").write_text(SOURCE)
    pack(folder, tmp_path / "source.zip")
    content = (tmp_path / "source.zip").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    Place(tmp_path).storage.write(f"artifacts/{digest}", content)
    return {"artifact": digest, "label": "source"}


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("user_own", None)


def python(source: dict[str, str], function: str, **arguments: Any) -> dict[str, Any]:
    return {"python": {"function": f"user_own:{function}", "source": source, "arguments": arguments}}


def a_job(source: dict[str, str], *, model: str = "make", rows: str | None = "rows", **more: Any) -> JobSpec:
    train = python(source, rows) if rows else {"npz": "server:rows.npz"}
    return job(
        python(source, model),
        data={"train": train, "inputs": "x", "labels": "y", "validation": {"split": 0.2}},
        training={"globalBatch": 8, "epochs": 2},
        **more,
    )


def failed(result: Result) -> Any:
    assert result.outcome.error is not None
    return result.outcome.error


def test_rows_loss_and_metrics_of_a_source_folder(source: dict[str, str], tmp_path: Path) -> None:
    """They give the bits that a file and Keras's own loss give."""
    x = np.sin(np.arange(200, dtype=np.float32).reshape(50, 4))
    np.savez(tmp_path / "rows.npz", x=x, y=x.sum(axis=1, keepdims=True))
    metrics = ["user_own:squared", "user_own:Largest"]
    mine = run(a_job(source, loss="user_own:squared", metrics=metrics), tmp_path, 2)
    theirs = run(a_job(source, rows=None, loss="mse"), tmp_path, 1)
    table = run(a_job(source, rows="table", loss={"name": "user_own:Scaled", "config": {"factor": 1.0}}), tmp_path, 1)
    assert mine.outcome.state == theirs.outcome.state == "SUCCEEDED", mine.outcome.error
    assert mine.digest == theirs.digest == table.digest
    values = mine.progress.snapshot.metrics
    assert set(values) == {"loss", "squared", "largest"}
    assert values["squared"] == pytest.approx(values["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "code", "parts"),
    [
        ({"model": "broken"}, "model_code", ["KeyError", "no such thing", "user_own.py, line 47"]),
        ({"loss": "user_own:broken_loss"}, "model_code", ["AttributeError", "nowhere", "user_own.py, line 54"]),
        ({"loss": "user_own:nothing"}, "model_code", ["user_own has no function nothing"]),
        ({"loss": "json:dumps"}, "model_code", ["not in the source folder"]),
        ({"rows": "Failing"}, "model_code", ["KeyError", "user_own.py, line 65"]),
    ],
)
def test_faults_of_own_code_are_told_in_its_own_lines(
    source: dict[str, str], tmp_path: Path, changes: dict[str, Any], code: str, parts: list[str]
) -> None:
    error = failed(run(a_job(source, **changes), tmp_path, 1))
    assert error.code == code
    for part in parts:
        assert part in error.message
    if "line" in parts[-1]:
        assert 'File "user_own.py"' in error.details
        assert "site-packages/gradwire" not in error.details


@pytest.mark.parametrize(
    ("function", "code", "says"),
    [
        ("number", "data_unreadable", "returned a int; return a dict of arrays"),
        ("Nan", "data_nonfinite", "array 'x' is not finite in row 7"),
        ("Short", "data_shape", "for 1 rows"),
        ("Uneven", "data_shape", "give every row one shape"),
    ],
)
def test_rows_that_are_none(source: dict[str, str], tmp_path: Path, function: str, code: str, says: str) -> None:
    place = Place(tmp_path)
    data = DataPlace(storage=place.storage, cache_dir=tmp_path / "cache", is_code_allowed=True)
    spec = a_job(source, rows=function)
    with pytest.raises(JobFailed) as caught:
        open_data(spec.data, 0, data)[0].take(np.arange(40))
    assert caught.value.code == code
    assert says in caught.value.message


def test_a_server_that_runs_no_code_says_so(source: dict[str, str], tmp_path: Path) -> None:
    spec = a_job(source, loss="user_own:squared")
    assert [one.field for one in violations(spec)] == ["model.python", "data.train.python"]
    with pytest.raises(JobFailed, match="--allow-code"):
        open_data(spec.data, 0, DataPlace(storage=Place(tmp_path).storage, cache_dir=tmp_path / "cache"))
    without = spec.model_copy(update={"model": job({"keras": "{}"}).model})
    found = violations(without, allow_code=True)
    assert "only model.python has" in next(one.description for one in found if one.field.startswith("loss"))
