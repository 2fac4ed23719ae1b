"""The gate refuses every config that is more than data, and says where, why and what to do."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradwire.keras_gate import MAX_DEPTH, MAX_VIOLATIONS, violations, violations_of_text
from gradwire.keras_vocabulary import accepted_names, accepted_parameters

Config = dict[str, Any]


def layer(class_name: object = "Dense", module: object = "keras.layers", **config: object) -> Config:
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": "dense_1", **config},
        "registered_name": None,
    }


def model(*layers: object) -> Config:
    inputs = layer("InputLayer", batch_shape=[None, 4], name="x")
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "model", "layers": [inputs, *layers]},
        "registered_name": None,
    }


def function(name: object, module: object = "builtins", **more: object) -> Config:
    return {"class_name": "function", "module": module, "config": name, "registered_name": name, **more}


def faults(config: object, *, trust: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    found = violations(config, field="model.keras", trust=trust, kind="model")
    return [(violation.field, violation.description) for violation in found]


DENSE = layer(
    units=3, activation="relu", dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": "f"}}
)

BYTECODE = {"class_name": "__lambda__", "config": {"code": "4wAAAA==", "defaults": None, "closure": None}}
SYSTEM = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}

HOSTILE: dict[str, Any] = {
    "lambda with bytecode (CVE-2024-3660)": layer("Lambda", function=BYTECODE),
    "lambda with a function of Keras": layer("Lambda", function=function("relu", "keras.activations")),
    "bytecode as an activation": layer(activation=BYTECODE),
    "bytecode as an initialiser": layer(kernel_initializer=BYTECODE),
    "a module's function as an activation (CVE-2025-1550)": layer(activation=SYSTEM),
    "a module's class as a layer": layer("Popen", "subprocess", args=["true"]),
    "builtins' eval": layer(activation=function("eval")),
    "builtins' exec as a class": layer("exec", "builtins"),
    "get_file (CVE-2025-8747)": layer(activation=function("get_file", "keras.utils")),
    "switching safe mode off (CVE-2025-9906)": layer(
        activation=function("enable_unsafe_deserialization", "keras.config")
    ),
    "switching safe mode off as a layer": layer("enable_unsafe_deserialization", "keras.config"),
    "load_model as a function": layer(activation=function("load_model", "keras.models")),
    "deserialize as a function": layer(activation=function("deserialize", "keras.layers")),
    "a data set's loader": layer(activation=function("load_data", "keras.datasets.mnist")),
    "a pretrained application": layer(activation=function("VGG16", "keras.applications.vgg16")),
    "save_img": layer(activation=function("save_img", "keras.utils")),
    "PyTorch module (CVE-2025-49655)": layer("TorchModuleWrapper", module="gASVKA=="),
    "PyTorch module by its private path": layer("TorchModuleWrapper", "keras.src.utils.torch_utils"),
    "SavedModel layer (CVE-2026-1462)": layer("TFSMLayer", filepath="/tmp/evil"),
    "SavedModel layer by its private path": layer("TFSMLayer", "keras.src.export.tfsm_layer", filepath="/tmp/evil"),
    "Lambda by its private path": layer("Lambda", "keras.src.layers.core.lambda_layer", function=BYTECODE),
    "Lambda by a package's path": layer("Lambda", "keras.src.layers", function=BYTECODE),
    "JAX layer": layer("JaxLayer", call_fn=SYSTEM),
    "Flax layer": layer("FlaxLayer", module=SYSTEM),
    "vocabulary file (CVE-2025-12058)": layer("StringLookup", vocabulary="/etc/passwd"),
    "vocabulary from the network": layer("IntegerLookup", vocabulary="http://169.254.169.254/"),
    "vocabulary file of a text layer": layer("TextVectorization", vocabulary="/etc/passwd"),
    "vocabulary as bytes": layer("StringLookup", vocabulary={"class_name": "__bytes__", "config": {"value": "/etc"}}),
    "text layer with a function": layer("TextVectorization", standardize=SYSTEM),
    "feature space": layer("FeatureSpace", "keras.utils"),
    "type specification": layer(
        dtype={"class_name": "__typespec__", "spec_name": "X", "module": "os", "config": [], "registered_name": None}
    ),
    "operation Map": layer("Map", "keras.src.ops.core", function=SYSTEM),
    "operation VectorizedMap": layer("VectorizedMap", "keras.src.ops.core", function=function("relu")),
    "operation WhileLoop": layer("WhileLoop", "keras.src.ops.core"),
    "operation Scan": layer("Scan", "keras.src.ops.core"),
    "operation Cond": layer("Cond", "keras.src.ops.core"),
    "operation JVP": layer("JVP", "keras.src.ops.linalg"),
    "custom object by registered name": {**layer("MyLayer", None), "registered_name": "evil>MyLayer"},
    "custom object behind a class of Keras": {**layer("Dense"), "registered_name": "evil>Dense"},
    "custom object as a class name": layer("evil>Layer"),
    "custom object as a text": layer(activation="evil>activation"),
    "custom object in a list": layer(kernel_regularizer=["evil>activation"]),
    "custom function of Keras's module": layer(activation=function("evil>relu", "keras.activations")),
    "function under another registered name": layer(activation=function("relu", registered_name="evil>relu")),
    "keras_hub without trust": layer("Backbone", "keras_hub.models"),
    "module that only starts like keras": layer("Dense", "keras_evil.layers"),
    "no module in a layer (legacy format)": {"class_name": "Dense", "config": {"name": "dense_1", "units": 3}},
    "legacy Lambda": {"class_name": "Lambda", "config": {"name": "a", "function": ["4wAAAA==", None, None]}},
    "empty module": layer("Dense", ""),
    "module that is a list": layer("Dense", ["keras.layers"]),
    "class name that is a list": layer(["Dense"]),
    "unknown private class": layer("Trainer", "keras.src.trainers.trainer"),
    "a callback": layer("LambdaCallback", "keras.callbacks"),
    "an HDF5 editor": layer("KerasFileEditor", "keras.saving", filepath="/etc/passwd"),
    "an export archive": layer("ExportArchive", "keras.export"),
    "a scikit-learn wrapper": layer("SKLearnClassifier", "keras.wrappers", model=SYSTEM),
    "an optimizer in a model": layer("Adam", "keras.optimizers"),
    "compile_config": {**DENSE, "compile_config": {"optimizer": "adam", "loss": SYSTEM}},
    "build_config with other keys": {**DENSE, "build_config": {"input_shape": [None, 4], "call": SYSTEM}},
    "build_config that is a list": {**DENSE, "build_config": [1]},
    "object in a build_config": {**DENSE, "build_config": {"input_shape": BYTECODE}},
    "object in a node": {**DENSE, "inbound_nodes": [{"args": [SYSTEM], "kwargs": {}}]},
    "object in a node's arguments": {**DENSE, "inbound_nodes": [{"args": [], "kwargs": {"a": {"b": [BYTECODE]}}}]},
    "object in a constraint": layer(kernel_constraint={"class_name": "MaxNorm", "config": {"max_value": BYTECODE}}),
    "object in a dtype policy": layer(
        dtype={"module": "keras", "class_name": "DTypePolicy", "config": {"name": SYSTEM}}
    ),
    "object in a policy map": layer(dtype=layer("DTypePolicyMap", "keras.dtype_policies", policy_map={"a": SYSTEM})),
    "object in a wrapped layer": layer("TimeDistributed", layer=layer("Lambda", function=BYTECODE)),
    "object in a cell": layer("RNN", cell=[layer("TFSMLayer", filepath="x")]),
    "object in a nested model": model(layer("Lambda", function=BYTECODE)),
    "object in a pipeline": layer("Pipeline", layers=[layer("Lambda", function=BYTECODE)]),
    "a quantised policy": layer(dtype=layer("GPTQDTypePolicy", "keras.dtype_policies")),
    "array of Python objects": layer(a={"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}),
    "array of long texts": layer(a={"class_name": "__numpy__", "config": {"value": [1], "dtype": "S99999999"}}),
    "bytes, which JSON has not": layer(a=b"x"),
    "a key that is no text": layer(a={1: 2}),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses_what_is_more_than_data(hostile: Any) -> None:
    assert faults(model(DENSE)) == []
    found = faults(model(DENSE, hostile))
    assert found
    assert all(field.startswith("model.keras.config.layers[2]") for field, _ in found[:1]), found


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses_it_at_the_top_too(hostile: Any) -> None:
    assert faults(hostile)


@given(st.lists(st.sampled_from(["list", "dict", "kwargs"]), max_size=12), st.sampled_from(sorted(HOSTILE)))
def test_depth_hides_nothing(path: list[str], name: str) -> None:
    hostile: Any = copy.deepcopy(HOSTILE[name])
    if isinstance(hostile.get("module"), str) is False or not hostile["module"]:
        hostile = [hostile]  # Only a list of layers takes no legacy format.
        path = ["layers", *path]
    for step in path:
        hostile = [1, hostile] if step == "list" else {step: hostile, "other": None}
    assert faults(model(layer("Identity", anything=hostile)))


def test_a_message_says_what_where_why_and_what_to_do() -> None:
    assert faults(model(DENSE, layer("Lambda", function=BYTECODE))) == [
        (
            "model.keras.config.layers[2]",
            (
                "'dense_1': Lambda runs Python code; write it as a layer of its own and use model.python, or ask "
                "the operator for --trust PACKAGE"
            ),
        )
    ]


@pytest.mark.parametrize(
    ("config", "part"),
    [
        (layer("Dens"), "did you mean Dense"),
        (layer("Conv2d"), "did you mean Conv2D"),
        (layer("Dense", "keras.models"), "Dense is in keras.layers, not in keras.models"),
        (layer("Block", "mylib.layers"), "--trust mylib"),
        (layer("StringLookup", vocabulary="words.txt"), "give its words as a list"),
        ({**DENSE, "compile_config": {"loss": "mse"}}, "the job says loss and optimizer"),
        ({"class_name": "Dense", "config": {}}, "save the model with Keras 3"),
        (layer(activation=function("rellu", "keras.activations")), "did you mean relu"),
    ],
)
def test_a_message_has_the_fix(config: Config, part: str) -> None:
    assert part in faults(model(config))[0][1]


def test_trust_admits_a_package_and_no_other() -> None:
    custom = {**layer("Block", "mylib.layers", units=2), "registered_name": "mylib>Block"}
    assert faults(model(custom)) != []
    assert faults(model(custom), trust=("mylib",)) == []
    assert faults(model(custom), trust=("my", "mylib2")) != []
    assert faults(model({**layer("Block", None), "registered_name": "mylib>Block"}), trust=("mylib",)) != []
    assert faults(model(layer(activation="mylib>gate")), trust=("mylib",)) == []
    assert faults(model({**custom, "config": {"inner": BYTECODE}}), trust=("mylib",)) != []


def test_trusting_keras_opens_nothing() -> None:
    trust = ("keras", "builtins", "tensorflow")
    assert faults(model(layer("Lambda", function=BYTECODE)), trust=trust)
    assert faults(model(layer("TFSMLayer", "keras.src.export.tfsm_layer")), trust=trust)
    assert faults(model(layer(activation=function("get_file", "keras.utils"))), trust=trust)


def test_bounds() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert "nested deeper" in faults(model(layer(a=deep)))[0][1]
    many = model(*[layer("Lambda") for _ in range(100)])
    assert len(faults(many)) == MAX_VIOLATIONS + 1
    assert "characters" in faults(model(layer(a=["x" * (1 << 20)] * 33)))[0][1]
    assert "values" in faults(model(layer(a=[[0] * 1000] * 1000)))[0][1]


@pytest.mark.parametrize("config", [None, 1, "Dense", [], {}, {"config": {}}, DENSE])
def test_what_is_no_model(config: object) -> None:
    assert faults(config)


def test_text_that_is_no_json() -> None:
    [violation] = violations_of_text('{"a": 1,\n]', field="model.keras", trust=())
    assert violation.field == "model.keras"
    assert "line 2, column 1" in violation.description
    assert violations_of_text("[" * 100_000, field="model.keras", trust=())


def single(kind: Any, name: object, config: object = None, **more: object) -> list[tuple[str, str]]:
    value = {"class_name": name, "config": config or {}, **more}
    found = violations(value, field="it", trust=("mylib",), kind=kind)
    return [(violation.field, violation.description) for violation in found]


@pytest.mark.parametrize("kind", ["loss", "metric", "optimizer"])
def test_every_known_name_passes(kind: Any) -> None:
    assert len(accepted_names(kind)) > 25
    for name in accepted_names(kind):
        assert single(kind, name) == []


@pytest.mark.parametrize(
    ("kind", "name", "config"),
    [
        ("loss", "mse", {}),
        ("loss", "sparse_categorical_crossentropy", {"from_logits": True}),
        ("loss", "SparseCategoricalCrossentropy", {"from_logits": True, "ignore_class": 0}),
        ("loss", "mylib>Focal", {"anything": 1}),
        ("metric", "accuracy", {}),
        ("metric", "TopKCategoricalAccuracy", {"k": 3}),
        ("optimizer", "adam", {"learning_rate": 1e-3}),
        ("optimizer", "AdamW", {"learning_rate": {"name": "CosineDecay", "config": {"decay_steps": 10}}}),
        ("optimizer", "SGD", {"learning_rate": {"class_name": "CosineDecay", "config": {"decay_steps": 10}}}),
        (
            "optimizer",
            "SGD",
            {"learning_rate": {"module": "keras.optimizers.schedules", "class_name": "CosineDecay", "config": {}}},
        ),
    ],
)
def test_losses_metrics_and_optimizers(kind: Any, name: str, config: Config) -> None:
    assert single(kind, name, config) == []


@pytest.mark.parametrize(
    ("kind", "name", "config", "field", "part"),
    [
        ("loss", "msee", {}, "it.name", "did you mean mse"),
        ("loss", "Adam", {}, "it.name", "no loss 'Adam'"),
        ("loss", "LossFunctionWrapper", {"fn": SYSTEM}, "it.name", "no loss"),
        ("loss", "evil>Loss", {}, "it.name", "--trust evil"),
        ("loss", "mse", {"reducton": "sum"}, "it.config.reducton", "did you mean reduction"),
        ("loss", "Huber", {"delta": SYSTEM}, "it.config.delta", "os.system is not part of Keras"),
        ("loss", "Huber", {"delta": BYTECODE}, "it.config.delta", "bytecode"),
        ("metric", "MeanMetricWrapper", {"fn": SYSTEM}, "it.name", "no metric"),
        ("metric", "AUC", {"curv": "PR"}, "it.config.curv", "did you mean curve"),
        ("optimizer", "adamm", {}, "it.name", "did you mean"),
        ("optimizer", "Adam", {"lr": 1}, "it.config.lr", "no parameter 'lr'"),
        ("optimizer", "LossScaleOptimizer", {"inner_optimizer": SYSTEM}, "it.name", "holds another optimizer"),
        ("optimizer", "Adam", {"learning_rate": SYSTEM}, "it.config.learning_rate", "os.system"),
        ("optimizer", "Adam", {"learning_rate": {"name": "Cosine"}}, "it.config.learning_rate.name", "CosineDecay"),
        (
            "optimizer",
            "Adam",
            {"learning_rate": {"name": "CosineDecay", "config": {"steps": 1}}},
            "it.config.learning_rate.config.steps",
            "no parameter 'steps'",
        ),
        (
            "optimizer",
            "Adam",
            {"learning_rate": {"name": "CosineDecay", "config": {"alpha": BYTECODE}}},
            "it.config.learning_rate.config.alpha",
            "bytecode",
        ),
        ("optimizer", 3, {}, "it", "no optimizer"),
        ("optimizer", "adam", [1], "it.config", "no object of parameters"),
    ],
)
def test_their_faults(kind: Any, name: object, config: Any, field: str, part: str) -> None:
    found = single(kind, name, config)
    assert [place for place, _ in found] == [field]
    assert part in found[0][1]


def test_aliases_have_their_parameters() -> None:
    assert accepted_parameters("optimizer", "adam") == accepted_parameters("optimizer", "Adam")
    assert "from_logits" in (accepted_parameters("loss", "bce") or ())
    assert accepted_parameters("metric", "accuracy") is None


def test_the_gate_imports_no_keras() -> None:
    code = "import sys, gradwire.keras_gate; sys.exit(any(m in sys.modules for m in ('keras', 'tensorflow')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
