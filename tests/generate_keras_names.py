"""Writes gradwire/keras_names.py, the names of Keras that the gate knows, from the installed Keras.

Run it after a change of Keras's version: `python tests/generate_keras_names.py`, then `ruff format`. A test fails while
the file is old.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
from keras.src import api_export, constraints, dtype_policies, initializers, losses, metrics, regularizers
from keras.src.activations import activations
from keras.src.applications import convnext, inception_resnet_v2
from keras.src.models.functional import Functional
from keras.src.ops.operation import Operation
from keras.src.optimizers.schedules.learning_rate_schedule import LearningRateSchedule

TARGET = Path(__file__).parent.parent / "gradwire" / "keras_names.py"

# These run code, load something, or are bases without a meaning of their own.
NO_LAYERS = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "Layer", "Wrapper"}
# These hold other optimisers: scaling belongs to the precision, and maps hold regular expressions.
NO_OPTIMIZERS = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer", "OptimizerMap"}
NO_LOSSES = {"Loss", "LossFunctionWrapper"}
NO_METRICS = {"Metric", "MeanMetricWrapper"}
# Operations with such an argument call it.
CALLABLE_ARGUMENTS = {"f", "fn", "fun", "function", "pred", "cond", "body", "body_fun", "branches", "combine_fn"}
OTHER_OPERATIONS = {"Function", "Operation", "AssociativeScan", "Cond", "ForiLoop", "JVP", "Map", "Scan", "Switch"}
NO_PARTS = {"Initializer", "Regularizer", "Constraint"}
QUANTIZED = ("Quantized", "AWQ", "GPTQ", "Int4")
PRIVATE_LAYERS = (convnext.LayerScale, convnext.StochasticDepth, inception_resnet_v2.CustomScaleLayer)


def content() -> dict[str, object]:
    """The file's values by name, from the installed Keras."""
    return {
        "KERAS_VERSION": keras.__version__,
        "CLASSES": {
            "model": _joined(_model_paths()),
            "part": _joined(_part_paths()),
            "loss": _joined(_paths(_members(keras.losses, keras.losses.Loss, NO_LOSSES))),
            "metric": _joined(_paths(_members(keras.metrics, keras.metrics.Metric, NO_METRICS))),
            "optimizer": _joined(_paths(_members(keras.optimizers, keras.optimizers.Optimizer, NO_OPTIMIZERS))),
            "schedule": _joined(_paths(_schedules())),
        },
        "BARE": " ".join(sorted(_bare_names())),
        "FUNCTIONS": _joined(_function_paths()),
        "PARAMETERS": {
            "loss": _parameters(_losses()),
            "metric": _parameters(_members(keras.metrics, keras.metrics.Metric, NO_METRICS)),
            "optimizer": _parameters(_members(keras.optimizers, keras.optimizers.Optimizer, NO_OPTIMIZERS)),
            "schedule": _parameters(_schedules()),
        },
        "ALIASES": {
            "loss": _aliases(losses.ALL_OBJECTS_DICT, NO_LOSSES | {"deserialize", "serialize", "get"}),
            "metric": _aliases(metrics.ALL_OBJECTS_DICT, NO_METRICS),
            "optimizer": _optimizer_aliases(),
            "schedule": "",
        },
    }


def _members(module: ModuleType, base: type, without: set[str]) -> list[type]:
    found = {item for item in vars(module).values() if inspect.isclass(item) and issubclass(item, base)}
    return sorted((item for item in found if item.__name__ not in without), key=lambda item: item.__name__)


def _schedules() -> list[type]:
    return _members(keras.optimizers.schedules, LearningRateSchedule, {"LearningRateSchedule"})


def _losses() -> list[Any]:
    named = set(losses.ALL_OBJECTS_DICT.values()) | set(_members(keras.losses, keras.losses.Loss, NO_LOSSES))
    return sorted((item for item in named if item.__name__ not in NO_LOSSES), key=lambda item: str(item.__name__))


def _paths(classes: Iterable[type]) -> Iterator[tuple[str, str]]:
    """Every public path of each class; the first is the one that Keras writes."""
    for item in classes:
        paths = vars(item).get("_api_export_path") or f"{item.__module__}.{item.__name__}"
        for path in [paths] if isinstance(paths, str) else paths:
            module, _, name = path.rpartition(".")
            if not module.startswith("keras._"):
                yield module, name


def _model_paths() -> Iterator[tuple[str, str]]:
    layers = _members(keras.layers, keras.layers.Layer, NO_LAYERS)
    yield from _paths([*layers, keras.Model, keras.Sequential, keras.random.SeedGenerator])
    for item in (*PRIVATE_LAYERS, Functional, *_operations()):
        yield item.__module__, item.__name__


def _operations() -> list[type]:
    found = [item for item in _subclasses(Operation) if item.__module__.startswith("keras.src.ops.")]
    found += [item for item in vars(activations).values() if _is_own_operation(item, activations)]
    return [item for item in set(found) if item.__name__ not in OTHER_OPERATIONS and not _takes_callable(item)]


def _subclasses(base: type) -> Iterator[type]:
    for item in base.__subclasses__():
        yield item
        yield from _subclasses(item)


def _is_own_operation(item: object, module: ModuleType) -> bool:
    return inspect.isclass(item) and issubclass(item, Operation) and item.__module__ == module.__name__


def _takes_callable(item: type) -> bool:
    methods = (item.__init__, getattr(item, "call", item.__init__))  # type: ignore[misc]
    return any(CALLABLE_ARGUMENTS & set(inspect.signature(method).parameters) for method in methods)


def _part_paths() -> Iterator[tuple[str, str]]:
    bases = (keras.initializers.Initializer, keras.regularizers.Regularizer, keras.constraints.Constraint)
    for module, base in zip((keras.initializers, keras.regularizers, keras.constraints), bases, strict=True):
        yield from _paths(_members(module, base, {base.__name__}))
    yield from _paths(_policies())
    yield from _paths([keras.random.SeedGenerator])


def _policies() -> list[type]:
    return [item for item in dtype_policies.ALL_OBJECTS if not item.__name__.startswith(QUANTIZED)]


def _bare_names() -> Iterator[str]:
    """What Keras finds without a module, where it expects an initialiser, a regulariser, a constraint or a policy."""
    for module in (initializers, regularizers, constraints, dtype_policies):
        for name, item in module.ALL_OBJECTS_DICT.items():
            if not item.__name__.startswith(QUANTIZED) and item.__name__ not in NO_PARTS:
                yield name


def _function_paths() -> Iterator[tuple[str, str]]:
    for path, item in api_export.REGISTERED_NAMES_TO_OBJS.items():
        module, _, name = path.rpartition(".")
        if not inspect.isfunction(item) or name in ("get", "serialize", "deserialize"):
            continue
        if module in ("keras.activations", "keras.losses", "keras.metrics") or (
            module == "keras.ops" and _is_unary(item)
        ):
            yield module, name


def _is_unary(function: Callable[..., object]) -> bool:
    """Whether a function maps one tensor to another, as an activation does."""
    parameters = list(inspect.signature(function).parameters.values())
    required = [item.name for item in parameters if item.default is inspect.Parameter.empty]
    return required == ["x"] and function.__name__ not in ("convert_to_numpy", "is_tensor", "convert_to_tensor")


def _joined(paths: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for module, name in paths:
        found.setdefault(module, set()).add(name)
    return {module: " ".join(sorted(found[module])) for module in sorted(found)}


def _parameters(objects: Iterable[Any]) -> dict[str, str]:
    return {item.__name__: " ".join(sorted(_names_of(item))) for item in objects}


def _names_of(item: Any) -> set[str]:
    if inspect.isfunction(item):  # Keras wraps it, with these parameters of the wrapper's own.
        return set(inspect.signature(item).parameters) - {"y_true", "y_pred"} | {"name", "reduction", "dtype"}
    names: set[str] = set()
    for base in item.__mro__:
        if "__init__" not in vars(base) or base is object:
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        kinds = {parameter.kind for parameter in parameters}
        named = {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}
        names |= named - {"self"}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            break
    return names


def _aliases(objects: dict[str, Any], without: set[str]) -> str:
    pairs = {name: item.__name__ for name, item in objects.items() if item.__name__ not in without}
    return " ".join(f"{name}={known}" for name, known in sorted(pairs.items()) if name != known)


def _optimizer_aliases() -> str:
    """Keras finds its optimisers by lower-case names, all but Lamb, which it forgot."""
    known = _members(keras.optimizers, keras.optimizers.Optimizer, NO_OPTIMIZERS)
    return _aliases({item.__name__.lower(): item for item in known}, NO_OPTIMIZERS)


def render(values: dict[str, object]) -> str:
    """The file's text."""
    lines = [
        '"""Names of Keras: written by tests/generate_keras_names.py, never by hand."""',
        "",
        "from __future__ import annotations",
        "",
        f"KERAS_VERSION = {_literal(values['KERAS_VERSION'], 0)}",
        "",
        f"CLASSES: dict[str, dict[str, str]] = {_literal(values['CLASSES'], 0)}",
        '"""Kind to module to the names of classes that a config of that kind may hold, parted by spaces."""',
        "",
        f"BARE = {_literal(values['BARE'], 0)}",
        '"""Initialisers, regularisers, constraints and dtype policies that Keras finds without a module."""',
        "",
        f"FUNCTIONS: dict[str, str] = {_literal(values['FUNCTIONS'], 0)}",
        '"""Module to the names of functions of tensors."""',
        "",
        f"PARAMETERS: dict[str, dict[str, str]] = {_literal(values['PARAMETERS'], 0)}",
        '"""Kind to the name of a loss, metric, optimiser or schedule to the names of its parameters."""',
        "",
        f"ALIASES: dict[str, str] = {_literal(values['ALIASES'], 0)}",
        '"""Kind to other names of what PARAMETERS has, as alias=name."""',
        "",
    ]
    return "\n".join(lines)


def _literal(value: object, indent: int) -> str:
    pad = " " * (indent + 4)
    if isinstance(value, dict):
        items = [f'{pad}"{key}": {_literal(item, indent + 4)},\n' for key, item in value.items()]
        return "{\n" + "".join(items) + " " * indent + "}"
    text = str(value)
    if len(text) < 85:
        return f'"{text}"'
    wrapped = textwrap.wrap(text, 112 - indent)
    quoted = [f'{pad}"{line} "\n' for line in wrapped[:-1]] + [f'{pad}"{wrapped[-1]}"\n']
    return "(\n" + "".join(quoted) + " " * indent + ")"


if __name__ == "__main__":
    TARGET.write_text(render(content()), encoding="utf-8")
