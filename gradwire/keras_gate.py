"""The gate in front of Keras: whether a Keras config is data and nothing else.

Keras turns a config into objects by the names of modules, classes and functions in it, and its own safe mode has been
passed more than once (CVE-2025-1550, -8747, -9906, -12058, -49655, CVE-2026-1462). So nothing reaches Keras but what
`gradwire.keras_names` lists: layers, operations and functions of tensors, found in the installed Keras, none of which
runs code, reads a file or opens a connection because of its config. This module imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from gradwire.errors import Violation
from gradwire.keras_vocabulary import Kind, accepted_names, accepted_parameters, bare, classes, functions, near

MAX_DEPTH = 100
MAX_NODES = 1_000_000
MAX_TEXT_CHARS = 32 << 20
MAX_KEY_CHARS = 1000
MAX_VIOLATIONS = 20

MODELS = ("Functional", "Sequential", "Model")
DATA = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
DTYPES = re.compile(r"(bool|string|(bfloat16)|float(16|32|64|8_e4m3fn|8_e5m2)|u?int(4|8|16|32|64)|complex(64|128))\Z")
REGISTERED = re.compile(r"([A-Za-z_][\w.]*)>[A-Za-z_]\w*\Z")
BUILD_KEYS = {"input_shape", "shapes_dict"}

RUNS_CODE = "write it as a layer of its own and use model.python, or ask the operator for --trust PACKAGE"
REFUSED: Mapping[str, tuple[str, str]] = {
    "Lambda": ("runs Python code", RUNS_CODE),
    "__lambda__": ("is Python bytecode", RUNS_CODE),
    "__typespec__": ("loads a class by the name of its module", "leave it out"),
    "TFSMLayer": ("loads a SavedModel, which can run any code", "build the model from layers, or use model.python"),
    "TorchModuleWrapper": ("unpickles a PyTorch module", "build the model from layers, or use model.python"),
    "JaxLayer": ("calls JAX functions", RUNS_CODE),
    "FlaxLayer": ("calls JAX functions", RUNS_CODE),
    "FeatureSpace": ("is no layer of a model", "preprocess the data before"),
    "Layer": ("has no computation of its own", "name the layer that is meant"),
    "Wrapper": ("has no computation of its own", "name the layer that is meant"),
    "LossScaleOptimizer": ("holds another optimizer", "name that one; scaling belongs to training.precision"),
    "MultiOptimizer": ("holds other optimizers", "name one optimizer"),
    "OptimizerMap": ("holds other optimizers", "name one optimizer"),
    **dict.fromkeys(
        ("Map", "VectorizedMap", "Scan", "AssociativeScan", "WhileLoop", "ForiLoop", "Cond", "Switch", "JVP"),
        ("calls functions that its config names", RUNS_CODE),
    ),
}


def violations(config: object, *, field: str, trust: tuple[str, ...], kind: Kind) -> list[Violation]:
    """What in a config is no data, or is unknown to Keras; empty if Keras may see it.

    A model's config is what `keras.Model.to_json` writes, parsed; a loss, metric or optimiser is `{"class_name": name,
    "config": {...}}`, where the name may be an alias such as "mse". `field` is the config's place in the specification;
    `trust` names the packages besides Keras whose registered objects may appear.
    """
    walk = _Walk(kind, trust)
    try:
        if kind == "model":
            _model(walk, config, field)
        else:
            _single(walk, config, kind, field)
    except _Stop as stop:
        walk.found.append(Violation(field, str(stop)))
    return walk.found


def violations_of_text(text: str, *, field: str, trust: tuple[str, ...]) -> list[Violation]:
    """`violations` of a model's config as JSON text."""
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        return [Violation(field, f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}")]
    except (RecursionError, ValueError) as error:
        return [Violation(field, f"not JSON that can be read: {error}")]
    return violations(config, field=field, trust=trust, kind="model")


class _Stop(Exception):
    """The config is too large, or has too many faults, to look further."""


class _Walk:
    """One pass over a config; gathers violations."""

    def __init__(self, kind: Kind, trust: tuple[str, ...]) -> None:
        self.found: list[Violation] = []
        self._kind = kind
        self._trust = trust
        self._nodes = 0
        self._chars = 0

    def add(self, path: str, owner: str, fault: str) -> None:
        self.found.append(Violation(path, f"{owner}{fault}"))
        if len(self.found) >= MAX_VIOLATIONS:
            raise _Stop(f"more than {MAX_VIOLATIONS} faults; the rest is not shown")

    def value(self, value: object, path: str, owner: str = "", depth: int = 0) -> None:
        """Looks at a value and all below it."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _Stop(f"the config has more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            raise _Stop(f"the config is nested deeper than {MAX_DEPTH}")
        if isinstance(value, dict):
            self._dict(value, path, owner, depth)
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                self.value(item, f"{path}[{index}]", owner, depth + 1)
        elif isinstance(value, str):
            self._text(value, path, owner)
        elif value is not None and not isinstance(value, bool | int | float):
            self.add(path, owner, f"a {type(value).__name__} is no JSON value")

    def _text(self, text: str, path: str, owner: str) -> None:
        self._chars += len(text)
        if self._chars > MAX_TEXT_CHARS:
            raise _Stop(f"the config has more than {MAX_TEXT_CHARS} characters")
        # Keras takes a text that is the name of a registered object for the object.
        match = REGISTERED.match(text)
        if match and match[1] not in self._trust:
            self.add(path, owner, _untrusted(f"{text!r} names a registered object", match[1]))

    def _dict(self, value: Mapping[object, object], path: str, owner: str, depth: int) -> None:
        if "class_name" in value:
            owner = _owner(value) or owner
            if not self._object(value, path, owner):
                return
        for key, item in value.items():
            if not isinstance(key, str) or len(key) > MAX_KEY_CHARS:
                self.add(path, owner, f"a key is no text of at most {MAX_KEY_CHARS} characters")
                continue
            place = f"{path}.{key}"
            self._entry(key, item, place, owner)
            if key not in ("class_name", "module", "registered_name"):
                self.value(item, place, owner, depth + 1)

    def _entry(self, key: str, item: object, path: str, owner: str) -> None:
        """Faults that depend on the key."""
        if key == "vocabulary" and item is not None and not isinstance(item, list | tuple):
            self.add(path, owner, "a vocabulary given by a path reads a file; give its words as a list")
        elif key == "layers" and isinstance(item, list | tuple):
            for index, layer in enumerate(item):
                if not isinstance(layer, dict) or not isinstance(layer.get("module"), str):
                    fix = "save the model with Keras 3 (model.to_json())"
                    self.add(f"{path}[{index}]", owner, f"a layer without a module is of an older format; {fix}")
                    raise _Stop("the layers are not in the format of Keras 3")

    def _object(self, value: Mapping[object, object], path: str, owner: str) -> bool:
        """Whether an object's class may be; otherwise its violation is noted."""
        fault = self._fault(value)
        if fault is not None:
            self.add(path, owner, fault)
        elif value.get("compile_config"):
            self.add(f"{path}.compile_config", owner, "the job says loss and optimizer; remove compile_config")
        elif not _is_build_config(value.get("build_config")):
            self.add(f"{path}.build_config", owner, f"may have {' and '.join(sorted(BUILD_KEYS))} only; remove it")
        else:
            return True
        return False

    def _fault(self, value: Mapping[object, object]) -> str | None:
        name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
        if not isinstance(name, str):
            return f"class_name is {name!r}, not a text"
        if not isinstance(module, str | None) or not isinstance(registered, str | None):
            return f"{name}: module and registered_name must be texts or null"
        if name in DATA:
            return _data_fault(name, value.get("config"))
        if name == "function":
            return self._function_fault(value.get("config"), module, registered)
        return self._class_fault(name, module, registered)

    def _class_fault(self, name: str, module: str | None, registered: str | None) -> str | None:
        is_foreign, package = _package(name, module, registered)
        if is_foreign:
            what = f"{module or registered}.{name}" if module else str(registered or name)
            return None if package in self._trust else _untrusted(f"{what} is not part of Keras", package)
        if registered not in (None, name):
            return f"{name} is a class of Keras, which has no registered_name {registered!r}; remove it"
        if name in REFUSED:
            return f"{name} {REFUSED[name][0]}; {REFUSED[name][1]}"
        if (module, name) in classes(self._kind) or (not module and name in bare()):
            return None
        return self._unknown(name, module)

    def _function_fault(self, name: object, module: str | None, registered: str | None) -> str | None:
        if not isinstance(name, str):
            return "a function's config is its name"
        is_foreign, package = _package(name, "keras" if module == "builtins" else module, None)
        if is_foreign:
            return None if package in self._trust else _untrusted(f"{module}.{name} is not part of Keras", package)
        if (module, name) in functions() and registered in (None, name, "function"):
            return None
        hint = near(name, {known for _, known in functions()})
        return f"{module}.{name} is no function of tensors that a config may name{hint}"

    def _unknown(self, name: str, module: str | None) -> str:
        places = sorted(place for place, known in classes(self._kind) if known == name)
        if places:
            return f"{name} is in {' or '.join(places)}, not in {module or 'no module'}"
        hint = near(name, {known for _, known in classes(self._kind)})
        return f"{module or 'Keras'}.{name} is no class that a {self._kind}'s config may name{hint}"


def _untrusted(what: str, package: str) -> str:
    return f"{what}; use model.python, or ask the operator to start the server with --trust {package}"


def _package(name: str, module: str | None, registered: str | None) -> tuple[bool, str]:
    """Whether an object is not Keras's own, and the package that must be trusted then."""
    top = (module or "").split(".")[0]
    if top == "keras":
        return False, top
    if top:
        return True, top
    for text in (registered or "", name):
        if ">" in text:
            return True, text.split(">")[0]
    return False, ""


def _owner(value: Mapping[object, object]) -> str:
    """How a message calls an object: by the name of the layer or model."""
    config = value.get("config")
    name = value.get("name") or (config.get("name") if isinstance(config, dict) else None)
    return f"{name[:100]!r}: " if isinstance(name, str) and name else ""


def _is_build_config(build: object) -> bool:
    return build is None or (isinstance(build, dict) and set(build) <= BUILD_KEYS)


def _data_fault(name: str, config: object) -> str | None:
    if not isinstance(config, dict):
        return f"the config of {name} is no object"
    if name in ("__tensor__", "__numpy__"):
        dtype = config.get("dtype")
        if not isinstance(dtype, str) or not DTYPES.match(dtype):
            return f"{name} has the dtype {dtype!r}, which is none of Keras's"
    return None


def _model(walk: _Walk, config: object, field: str) -> None:
    if not isinstance(config, dict) or "class_name" not in config:
        walk.add(field, "", "no Keras model; give what model.to_json() returns")
        return
    name = config["class_name"]
    is_kerass = str(config.get("module")).split(".")[0] == "keras" and ">" not in str(config.get("registered_name"))
    if isinstance(name, str) and name not in MODELS and name not in REFUSED and is_kerass:
        walk.add(field, "", f"{name} is no model; give a config of {', '.join(MODELS)}")
        return
    walk.value(config, field)


def _single(walk: _Walk, config: object, kind: Kind, field: str) -> None:
    """A loss, a metric, an optimiser: a name and its parameters."""
    if not isinstance(config, dict) or not isinstance(config.get("class_name"), str):
        walk.add(field, "", f"no {kind}; give a name, or a name and a config")
        return
    name, inner = config["class_name"], config.get("config") or {}
    if not isinstance(inner, dict):
        walk.add(f"{field}.config", "", f"{name}: the config is no object of parameters")
        return
    fault = _name_fault(walk, kind, name)
    if fault is not None:
        walk.add(f"{field}.name", "", fault)
        return
    _parameters(walk, kind, name, inner, field)


def _name_fault(walk: _Walk, kind: Kind, name: str) -> str | None:
    if name in accepted_names(kind):
        return None
    if name in REFUSED:
        return f"{name} {REFUSED[name][0]}; {REFUSED[name][1]}"
    if ">" in name:
        return walk._class_fault(name, None, None)
    return f"Keras has no {kind} {name!r}{near(name, accepted_names(kind))}"


def _parameters(walk: _Walk, kind: Kind, name: str, config: Mapping[object, object], field: str) -> None:
    accepted = accepted_parameters(kind, name)
    for key, item in config.items():
        place = f"{field}.config.{key}"
        if accepted is not None and key not in accepted:
            walk.add(place, "", f"{name} has no parameter {key!r}{near(str(key), accepted)}")
        elif key == "learning_rate" and isinstance(item, dict):
            _schedule(walk, item, place)
        else:
            walk.value(item, place, depth=1)


def _schedule(walk: _Walk, value: Mapping[str, object], field: str) -> None:
    name = value.get("class_name", value.get("name"))
    if value.get("module") not in (None, "keras.optimizers.schedules"):
        walk.value(value, field, depth=1)
    else:
        _single(walk, {"class_name": name, "config": value.get("config")}, "schedule", field)
