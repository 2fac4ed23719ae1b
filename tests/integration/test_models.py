"""Models, losses, metrics and optimizers from specifications, with the real Keras."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from gradwire.assignment import Assignment
from gradwire.errors import JobFailed
from gradwire.packing import pack
from gradwire.spec.job import GradientClip, JobSpec, KerasObjectSpec, LossSpec
from gradwire.storage import Storage
from workers.data.source import ArrayInfo
from workers.models.build import build_model
from workers.models.fit_check import check_fit
from workers.models.heads import Heads, input_specs, pack_inputs, unpack_outputs
from workers.models.names import unique
from workers.models.objects import make_loss, make_metric, make_optimizer

pytestmark = pytest.mark.integration


def info(*shape: int, dtype: str = "float32") -> ArrayInfo:
    return ArrayInfo(shape, np.dtype(dtype))


def job(model: dict[str, Any], *, seed: int = 0, **more: Any) -> JobSpec:
    value = {
        "name": "job",
        "model": model,
        "data": {"train": {"builtin": "digits"}, "inputs": more.pop("inputs", "x"), "labels": more.pop("labels", "y")},
        "loss": "mse",
        "optimizer": "sgd",
        "training": {"globalBatch": 4, "epochs": 1, "seed": seed},
        **more,
    }
    if "weights" in value:
        value["data"]["sampleWeights"] = value.pop("weights")
    return JobSpec.model_validate(value)


class Place:
    """A storage and a cache in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage(str(folder / "storage"))

    def assignment(self, spec: JobSpec, **more: Any) -> Assignment:
        return Assignment(
            job_id="j",
            generation=1,
            spec_json=spec.model_dump_json(by_alias=True),
            storage_url=self.storage.url,
            service_id="s",
            token="t",
            cache_dir=str(self.folder / "cache"),
            **more,
        )

    def build(self, spec: JobSpec, **more: Any) -> keras.Model:
        return build_model(spec, self.assignment(spec, **more), self.storage)

    def python(self, source: str, *, function: str, arguments: dict[str, Any] | None = None) -> JobSpec:
        name = function.split(":", maxsplit=1)[0].replace(".", "/") + ".py"
        folder = self.folder / "source"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
        pack(folder, self.folder / "source.zip")
        content = (self.folder / "source.zip").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.storage.write(f"artifacts/{digest}", content)
        source_file = {"artifact": digest, "label": "source"}
        return job({"python": {"function": function, "source": source_file, "arguments": arguments or {}}})


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


def conv() -> keras.Model:
    x = keras.Input((8, 8, 1), name="image")
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(x, layers.Dense(10, name="digit")(layers.GlobalAveragePooling2D()(y)))


def masked_lstm() -> keras.Model:
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.LSTM(4, return_sequences=True)(layers.Embedding(20, 3, mask_zero=True)(x))
    return keras.Model(x, layers.Dense(5, name="tag")(y))


def attention() -> keras.Model:
    x = keras.Input((6, 4), name="rows")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 2)(x, x))
    return keras.Model(x, layers.Dense(1, name="score")(layers.GlobalAveragePooling1D()(y)))


def two_by_two() -> keras.Model:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    shared = layers.Dense(4, activation="tanh", name="shared")
    y = layers.concatenate([shared(a), shared(layers.Dense(3)(b))])
    outputs = [layers.Dense(3, activation="softmax", name="kind")(y), layers.Dense(1, name="size")(y)]
    return keras.Model([a, b], outputs)


def dicts() -> keras.Model:
    # Keys in another order than Keras flattens them.
    inputs = {"z": keras.Input((2,), name="z"), "a": keras.Input((3,), name="a")}
    y = layers.Dense(4)(layers.concatenate([inputs["z"], inputs["a"]]))
    return keras.Model(inputs, {"right": layers.Dense(1)(y), "left": layers.Dense(3)(y)})


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu")], name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(2, name="out")(inner(inner(x)) * 0.5))


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4,), name="features"), layers.Dropout(0.5), layers.Dense(1, name="target")])


Info = dict[str, ArrayInfo]
CASES: dict[str, tuple[Callable[[], keras.Model], Any, Any, Any, Info]] = {
    "conv": (
        conv,
        "pixels",
        "y",
        {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}},
        {"pixels": info(8, 8), "y": info(dtype="int64")},
    ),
    "masked lstm": (
        masked_lstm,
        {"tokens": "t"},
        {"tag": "y"},
        {"tag": {"name": "sparse_categorical_crossentropy", "config": {"from_logits": True}}},
        {"t": info(7, dtype="int64"), "y": info(7, dtype="int32")},
    ),
    "attention": (attention, "x", "y", "mse", {"x": info(6, 4), "y": info(dtype="float64")}),
    "several heads": (
        two_by_two,
        {"a": "first", "b": "second"},
        {"kind": "k", "size": "s"},
        {"kind": "categorical_crossentropy", "size": "Huber"},
        {"first": info(3), "second": info(2), "k": info(3), "s": info(1)},
    ),
    "dicts": (
        dicts,
        {"a": "a", "z": "z"},
        {"left": "l", "right": "r"},
        {"left": "mae", "right": "mse"},
        {"a": info(3), "z": info(2), "l": info(3), "r": info()},
    ),
    "nested": (nested, "x", "y", "mse", {"x": info(4), "y": info(2)}),
    "sequential": (sequential, {"features": "x"}, {"target": "y"}, {"target": "mse"}, {"x": info(4), "y": info()}),
}


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


@pytest.mark.parametrize("case", CASES)
def test_packs_and_unpacks_by_name(case: str) -> None:
    make, _, labels, _, arrays = CASES[case]
    model = make()
    heads = Heads.of(model)
    named = {}
    for name, spec in input_specs(model).items():
        shape = [4 if size is None else size for size in spec.shape]
        named[name] = keras.ops.ones([3, *shape[1:]], spec.dtype)
    assert set(named) == set(heads.input_names)
    outputs = unpack_outputs(model, model(pack_inputs(model, named)))
    assert tuple(outputs) == heads.output_names
    if isinstance(labels, dict):
        assert set(labels) == set(heads.output_names)
        for name, array in labels.items():
            if case in ("several heads", "dicts"):
                width = 1 if not arrays[array].shape else arrays[array].shape[0]
                assert outputs[name].shape == (3, width)


def test_masks_stay_on_outputs() -> None:
    model = masked_lstm()
    outputs = unpack_outputs(model, model(pack_inputs(model, {"tokens": keras.ops.array([[1, 0]])})))
    assert outputs["tag"]._keras_mask.numpy().tolist() == [[True, False]]


def test_inputs_reach_their_layers_by_name() -> None:
    model = dicts()
    ones = {"a": keras.ops.ones((1, 3)), "z": keras.ops.zeros((1, 2))}
    expected = model({"z": ones["z"], "a": ones["a"]})
    outputs = unpack_outputs(model, model(pack_inputs(model, ones)))
    for name in ("left", "right"):
        np.testing.assert_array_equal(outputs[name], expected[name])


def test_outputs_of_one_layer_get_names_of_their_own() -> None:
    x = keras.Input((5, 2), name="x")
    model = keras.Model(x, [*layers.LSTM(3, return_state=True, name="lstm")(x), layers.Dense(1, name="lstm_1")(x)])
    assert Heads.of(model).output_names == ("lstm", "lstm_2", "lstm_3", "lstm_1")
    assert unique(["a", "a", "a_1", "a"]) == ("a", "a_2", "a_1", "a_3")


class OneInput(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, images: Any) -> Any:
        return self.dense(images)


class Mapped(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs: Any) -> Any:
        return {"sum": self.dense(inputs["p"] + inputs["q"]), "product": inputs["p"] * inputs["q"]}


def test_subclassed_models() -> None:
    model = OneInput()
    model(np.zeros((1, 4)))
    assert Heads.of(model) == Heads(("images",), ("output",))
    assert unpack_outputs(model, model(pack_inputs(model, {"images": np.ones((3, 4))})))["output"].shape == (3, 2)
    mapped = Mapped()
    mapped({"q": np.ones((2, 4)), "p": np.ones((2, 4))})
    heads = Heads.of(mapped)
    assert (set(heads.input_names), set(heads.output_names)) == ({"p", "q"}, {"sum", "product"})
    outputs = mapped(pack_inputs(mapped, {"p": np.full((1, 4), 2.0), "q": np.full((1, 4), 3.0)}))
    np.testing.assert_array_equal(unpack_outputs(mapped, outputs)["product"], np.full((1, 4), 6.0))


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
    "missing input": (two_by_two, {"inputs": {"a": "x"}}, {"x": info(3), "y": info()}, ["input 'b'"]),
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
    "metric without labels": (
        two_by_two,
        {
            "inputs": {"a": "x", "b": "z"},
            "labels": {"size": "y"},
            "loss": {"size": "mse"},
            "metrics": {"kind": ["accuracy"]},
        },
        {"x": info(3), "z": info(2), "y": info()},
        ["metrics.kind"],
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


def test_archives_are_not_supported(place: Place) -> None:
    with pytest.raises(JobFailed, match=r"model.archive is not supported by this server"):
        place.build(job({"archive": {"artifact": "0" * 64}}))


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


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("mse", {}),
        ("MeanSquaredError", {"reduction": "sum"}),
        ("sparse_categorical_crossentropy", {"from_logits": True}),
        ("Huber", {"delta": 0.5}),
    ],
)
def test_losses_are_what_compile_makes(name: str, config: dict[str, Any]) -> None:
    loss = make_loss(LossSpec(name=name, config=config))
    plain: Any = keras.losses.get(name)
    labels = np.array([0, 2]) if "sparse" in name else np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]])
    outputs = np.array([[0.1, 0.7, 0.2], [1.3, 0.4, 0.3]])
    if isinstance(plain, keras.losses.Loss):
        expected = type(plain)(**config)(labels, outputs)
    else:
        expected = np.mean(plain(labels, outputs, **config))
    np.testing.assert_allclose(loss(labels, outputs), expected, rtol=1e-6)


def test_metrics_are_chosen_and_named_as_compile_does() -> None:
    for output, label, loss, values in [
        ((None, 1), (None, 1), "mse", (np.ones((4, 1)), np.ones((4, 1)))),
        ((None, 3), (None,), "sparse_categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.zeros(4))),
        ((None, 3), (None, 1), "sparse_categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.zeros((4, 1)))),
        ((None, 3), (None, 3), "categorical_crossentropy", (np.eye(3)[[0, 1, 2, 0]], np.eye(3)[[0, 0, 2, 0]])),
    ]:
        x = keras.Input(output[1:])
        model = keras.Model(x, layers.Identity(name="out")(x))
        metrics = ["accuracy", "acc"] if output != label else ["accuracy", "mse", "AUC", "MeanSquaredError"]
        model.compile("sgd", loss, metrics=metrics)
        model.test_on_batch(*values)
        compiled = model._compile_metrics.metrics
        specs = [KerasObjectSpec(name=name) for name in metrics]
        for spec, expected in zip(specs, compiled, strict=True):
            metric = make_metric(spec, output_shape=output, label_shape=label)
            assert (type(metric), metric.name) == (type(expected), expected.name)


def test_a_metric_keeps_the_name_in_its_config() -> None:
    shapes: Any = {"output_shape": (None, 3), "label_shape": (None, 3)}
    assert make_metric(KerasObjectSpec(name="mse", config={"name": "error"}), **shapes).name == "error"
    plain = make_metric(KerasObjectSpec(name="TopKCategoricalAccuracy", config={"k": 2}), **shapes)
    assert plain.name == keras.metrics.TopKCategoricalAccuracy(k=2).name


def test_crossentropy_is_chosen_by_shapes() -> None:
    spec = KerasObjectSpec(name="crossentropy", config={"from_logits": True})
    found = make_metric(spec, output_shape=(None, 7, 5), label_shape=(None, 7))
    assert type(found) is keras.metrics.SparseCategoricalCrossentropy
    assert found.from_logits is True


def test_optimizers() -> None:
    schedule = {"name": "CosineDecay", "config": {"initial_learning_rate": 0.5, "decay_steps": 10}}
    spec = KerasObjectSpec(name="AdamW", config={"learning_rate": schedule, "weight_decay": 0.01})
    optimizer = make_optimizer(spec, GradientClip(kind="global_norm", limit=2.0))
    assert type(optimizer) is keras.optimizers.AdamW
    assert (optimizer.weight_decay, optimizer.global_clipnorm, optimizer.clipnorm) == (0.01, 2.0, None)
    assert isinstance(optimizer._learning_rate, keras.optimizers.schedules.CosineDecay)
    assert float(optimizer.learning_rate) == 0.5
    assert spec.config["learning_rate"] == schedule
    assert make_optimizer(KerasObjectSpec(name="sgd"), GradientClip(kind="value", limit=1.0)).clipvalue == 1.0
    assert make_optimizer(KerasObjectSpec(name="lamb"), GradientClip(kind="norm", limit=1.0)).clipnorm == 1.0
    written = {"class_name": "CosineDecay", "module": "keras.optimizers.schedules", **schedule}
    again = make_optimizer(KerasObjectSpec(name="Adam", config={"learning_rate": written}), None)
    assert isinstance(again._learning_rate, keras.optimizers.schedules.CosineDecay)


@pytest.mark.parametrize(
    ("make", "spec", "code", "parts"),
    [
        (make_loss, {"name": "msee"}, "loss_config", ["no loss 'msee'", "did you mean mse"]),
        (make_loss, {"name": "Huber", "config": {"dleta": 1}}, "loss_config", ["'dleta'", "mean delta", "reduction"]),
        (make_loss, {"name": "mse", "config": {"reduction": "avg"}}, "loss_config", ["mse", "avg"]),
        (make_loss, {"name": "mylib>Absent"}, "loss_config", ["no trusted package"]),
        (make_optimizer, {"name": "Adam", "config": {"lr": 1}}, "optimizer_config", ["'lr'", "learning_rate"]),
        (make_optimizer, {"name": "Adam", "config": {"learning_rate": "fast"}}, "optimizer_config", ["Adam", "fast"]),
        (make_optimizer, {"name": "Adam", "config": {"learning_rate": {"name": "Cos"}}}, "optimizer_config", ["'Cos'"]),
        (
            make_optimizer,
            {"name": "Adam", "config": {"learning_rate": {"name": "CosineDecay", "config": {}}}},
            "optimizer_config",
            ["CosineDecay", "decay_steps"],
        ),
        (make_optimizer, {"name": "LossScaleOptimizer"}, "optimizer_config", ["no optimizer"]),
    ],
)
def test_faults_of_objects(make: Any, spec: dict[str, Any], code: str, parts: list[str]) -> None:
    arguments = [None] if make is make_optimizer else []
    with pytest.raises(JobFailed) as caught:
        make(KerasObjectSpec.model_validate(spec), *arguments)
    assert caught.value.code == code
    for part in parts:
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ({"name": "accurcy"}, ["did you mean accuracy"]),
        ({"name": "AUC", "config": {"curv": "PR"}}, ["'curv'", "mean curve"]),
        ({"name": "AUC", "config": {"curve": "XX"}}, ["AUC", "XX"]),
        ({"name": "accuracy", "config": {"nonsense": 1}}, ["nonsense"]),
        ({"name": "MeanIoU"}, ["num_classes"]),
    ],
)
def test_faults_of_metrics(spec: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(JobFailed) as caught:
        make_metric(KerasObjectSpec.model_validate(spec), output_shape=(None, 3), label_shape=(None,))
    assert caught.value.code == "metric_config"
    for part in parts:
        assert part in caught.value.message
