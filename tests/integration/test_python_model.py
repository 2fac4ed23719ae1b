"""Models from a user's function, and from the packages that the operator trusts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from gradwire.errors import JobFailed
from tests.integration.model_job import Place, job

pytestmark = pytest.mark.integration


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(autouse=True)
def _imports(monkeypatch: pytest.MonkeyPatch) -> Any:
    """User modules are imported into this process; forget them."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        if name.startswith("user_"):
            del sys.modules[name]


GOOD = """
import keras
def make(units, name="made"):
    x = keras.Input((4,), name="x")
    return keras.Model(x, keras.layers.Dense(units, name="y")(x), name=name)
"""


def test_the_python_door(place: Place) -> None:
    spec = place.python(GOOD, function="user_good:make", arguments={"units": 3})
    model, again = place.build(spec, allow_code=True), place.build(spec, allow_code=True)
    assert (model.name, model.output_shape) == ("made", (None, 3))
    np.testing.assert_array_equal(model.get_weights()[0], again.get_weights()[0])
    assert len(list((place.folder / "cache" / "sources").iterdir())) == 1


def test_layers_of_a_function_compute_in_the_job_s_precision(place: Place) -> None:
    spec = place.python(GOOD, function="user_mixed:make", arguments={"units": 3})
    training = spec.training.model_copy(update={"precision": "mixed_bfloat16"})
    try:
        model = place.build(spec.model_copy(update={"training": training}), allow_code=True)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("y").compute_dtype == "bfloat16"
    assert {str(variable.dtype) for variable in model.variables} == {"float32"}


def test_the_python_door_is_shut_unless_the_operator_opens_it(place: Place) -> None:
    spec = place.python("raise SystemExit(3)", function="user_shut:make")
    with pytest.raises(JobFailed, match="--allow-code") as caught:
        place.build(spec)
    assert caught.value.code == "code_not_allowed"
    assert "user_shut" not in sys.modules


BAD = "import keras\ndef deep():\n    return 1 / 0\ndef make():\n    return deep()\n"
WITHOUT_BUILD = "import keras\ndef make():\n    return keras.Sequential([keras.layers.Dense(1)])\n"
HALF_BUILT = """
import keras, warnings
class Half(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = keras.layers.Dense(2, name="inner")
    def call(self, x):
        return self.inner(x)
def make():
    model = Half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.build((None, 4))
    return model
"""
OWN_STEP = """
import keras
class Mine(keras.Model):
    def {method}(self, *args, **kwargs):
        return {{}}
def make():
    x = keras.Input((4,))
    return Mine(x, keras.layers.Dense(1)(x))
"""


@pytest.mark.parametrize(
    ("name", "source", "code", "parts"),
    [
        ("bad", BAD, "model_code", ["ZeroDivisionError", "user_bad.py, line 3"]),
        ("syntax", "def make(:\n", "model_code", ["SyntaxError", "user_syntax.py, line 1"]),
        ("exits", "import sys\nsys.exit(3)\n", "model_code", ["SystemExit", "line 2"]),
        ("imports", "import nowhere_to_be_found\n", "model_code", ["nowhere_to_be_found", "line 1"]),
        ("none", "def make():\n    pass\n", "model_code", ["NoneType", "return a keras.Model"]),
        ("empty", "", "model_code", ["has no function make"]),
        ("args", "def make(units):\n    pass\n", "model_code", ["units"]),
        ("open", WITHOUT_BUILD, "model_not_built", ["has no input shape"]),
        ("half", HALF_BUILT, "model_not_built", ["'inner' of Half is not built", "batch of zeros"]),
        ("step", OWN_STEP.format(method="train_step"), "model_own_step", ["Mine", "train_step"]),
        ("loss", OWN_STEP.format(method="compute_loss"), "model_own_step", ["Mine", "compute_loss"]),
    ],
)
def test_faults_of_the_users_code(place: Place, name: str, source: str, code: str, parts: list[str]) -> None:
    spec = place.python(source, function=f"user_{name}:make")
    with pytest.raises(JobFailed) as caught:
        place.build(spec, allow_code=True)
    assert caught.value.code == code
    for part in parts:
        assert part in caught.value.message


def test_the_traceback_is_the_users_own(place: Place) -> None:
    spec = place.python(BAD, function="user_bad:make")
    with pytest.raises(JobFailed) as caught:
        place.build(spec, allow_code=True)
    lines = caught.value.details.splitlines()
    assert lines[1] == '  File "user_bad.py", line 5, in make'
    assert lines[-1] == "ZeroDivisionError: division by zero"
    assert "python_door" not in caught.value.details


def test_a_module_name_that_is_taken(place: Place) -> None:
    spec = place.python("def make():\n    pass\n", function="json:make")
    with pytest.raises(JobFailed, match=r"module json was found in .*; rename yours"):
        place.build(spec, allow_code=True)


def test_a_missing_or_damaged_source(place: Place) -> None:
    spec = place.python(GOOD, function="user_good:make", arguments={"units": 3})
    assert spec.model.python is not None
    name = f"artifacts/{spec.model.python.source.artifact}"
    place.storage.write(name, b"not what it was")
    with pytest.raises(JobFailed, match="damaged"):
        place.build(spec, allow_code=True)
    place.storage.delete(name)
    with pytest.raises(JobFailed, match="cannot be read") as caught:
        place.build(spec, allow_code=True)
    assert caught.value.code == "code_missing"


TRUSTED = """
import keras
@keras.saving.register_keras_serializable(package="{package}")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


def test_trusted_packages(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    package = place.folder / "lib" / "user_trusted"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "twice.py").write_text(TRUSTED.format(package="user_trusted"))
    monkeypatch.syspath_prepend(str(package.parent))
    twice = {
        "module": "user_trusted.twice",
        "class_name": "Twice",
        "registered_name": "user_trusted>Twice",
        "config": {"name": "twice"},
    }
    inputs = json.loads(keras.Sequential([keras.Input((4,))]).to_json())
    inputs["config"]["layers"].append(twice)
    spec = job({"keras": json.dumps(inputs)})
    with pytest.raises(JobFailed, match="--trust user_trusted"):
        place.build(spec)
    model = place.build(spec, trust=("user_trusted",))
    np.testing.assert_array_equal(model(np.ones((1, 4))), np.full((1, 4), 2.0))
    with pytest.raises(JobFailed, match="user_absent"):
        place.build(spec, trust=("user_absent",))
