"""A model's inputs and outputs by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import keras
from keras.src.models.functional import Functional

from gradwire.errors import JobFailed
from workers.models.names import MISMATCH, unique
from workers.source_code import failure_within


@dataclass(frozen=True, slots=True)
class Heads:
    """The names of a model's inputs and outputs, in the order in which Keras flattens them.

    An input has its Input layer's name. An output has its key if the model returns a dict, else the name of the layer
    that makes it. A subclassed model's are its dict keys; without dicts the input is called as the argument of `call`,
    the output "output".
    """

    input_names: tuple[str, ...]
    output_names: tuple[str, ...]

    @classmethod
    def of(cls, model: keras.Model) -> Self:
        """The heads of a built model.

        Raises:
            JobFailed: `model_data_mismatch` if a subclassed model cannot be called on what it was built for.
        """
        graph = graph_of(model)
        if graph is not None:
            return cls(_input_names(graph), _output_names(graph))
        structure = _shapes(model)
        return cls(
            _structure_names(structure, _argument(model)), _names_of_outputs(_symbolic_outputs(model, structure))
        )


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a model takes: shape with the batch axis first (None for any length) and dtype."""

    shape: tuple[int | None, ...]
    dtype: str


def graph_of(model: keras.Model) -> Functional | None:
    """The graph of layers behind a Functional or Sequential model; None for a subclassed one."""
    if isinstance(model, Functional):
        return model
    if isinstance(model, keras.Sequential):
        graph: Functional | None = model._functional
        return graph
    return None


def input_specs(model: keras.Model) -> dict[str, InputSpec]:
    """Input name to shape and dtype; a subclassed model takes that of its weights unless it is given another."""
    graph = graph_of(model)
    if graph is not None:
        tensors = keras.tree.flatten(graph._inputs_struct)
        specs = [InputSpec(tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors]
        return dict(zip(_input_names(graph), specs, strict=True))
    structure = _shapes(model)
    names = _structure_names(structure, _argument(model))
    shapes = [(None, *shape[1:]) for shape in _leaves(structure)]
    return {name: InputSpec(shape, model.variable_dtype) for name, shape in zip(names, shapes, strict=True)}


def pack_inputs(model: keras.Model, tensors: Mapping[str, Any]) -> Any:
    """Named tensors in the structure that the model takes: one, a list or a dict."""
    graph = graph_of(model)
    if graph is not None:
        flat = [tensors[name] for name in _input_names(graph)]
        return keras.tree.pack_sequence_as(graph._inputs_struct, flat)
    structure = _shapes(model)
    if isinstance(structure, dict):
        return {name: tensors[name] for name in structure}
    flat = [tensors[name] for name in _structure_names(structure, _argument(model))]
    return flat[0] if _is_shape(structure) else flat


def unpack_outputs(model: keras.Model, outputs: Any) -> dict[str, Any]:
    """What the model returned, by name; the tensors themselves, so that their Keras masks stay."""
    graph = graph_of(model)
    names = _output_names(graph) if graph is not None else _names_of_outputs(outputs)
    return dict(zip(names, keras.tree.flatten(outputs), strict=True))


def _input_names(graph: Functional) -> tuple[str, ...]:
    return tuple(str(tensor._keras_history.operation.name) for tensor in keras.tree.flatten(graph._inputs_struct))


def _output_names(graph: Functional) -> tuple[str, ...]:
    structure = graph._outputs_struct
    if _is_flat_dict(structure):
        return tuple(path[0] for path, _ in keras.tree.flatten_with_path(structure))
    return unique(str(tensor._keras_history.operation.name) for tensor in keras.tree.flatten(structure))


def _names_of_outputs(outputs: Any) -> tuple[str, ...]:
    if _is_flat_dict(outputs):
        return tuple(path[0] for path, _ in keras.tree.flatten_with_path(outputs))
    count = len(keras.tree.flatten(outputs))
    return ("output",) if count == 1 else tuple(f"output_{number}" for number in range(1, count + 1))


def _is_flat_dict(structure: Any) -> bool:
    if not isinstance(structure, dict) or any(keras.tree.is_nested(value) for value in structure.values()):
        return False
    return all(isinstance(key, str) for key in structure)


def _shapes(model: keras.Model) -> Any:
    """The shapes that a subclassed model was built for, in the structure of its inputs."""
    shapes = model._build_shapes_dict
    if not model.built or not shapes:
        raise JobFailed(
            f"the model {model.name!r} is not built; call it on a batch of zeros, and make raw variables of layers "
            "within tf.init_scope()",
            code="model_not_built",
        )
    if len(shapes) > 1:
        raise JobFailed(
            f"the call of {type(model).__name__} takes {len(shapes)} arguments ({', '.join(shapes)}); take one dict",
            code=MISMATCH,
        )
    return next(iter(shapes.values()))


def _is_shape(structure: Any) -> bool:
    return isinstance(structure, list | tuple) and all(size is None or isinstance(size, int) for size in structure)


def _leaves(structure: Any) -> list[tuple[int | None, ...]]:
    if _is_shape(structure):
        return [tuple(structure)]
    items = structure.values() if isinstance(structure, dict) else structure
    return [shape for item in items for shape in _leaves(item)]


def _structure_names(structure: Any, argument: str) -> tuple[str, ...]:
    if isinstance(structure, dict):
        return tuple(structure)
    return (argument,) if _is_shape(structure) else tuple(f"{argument}_{i + 1}" for i in range(len(structure)))


def _argument(model: keras.Model) -> str:
    return next(iter(inspect.signature(model.call).parameters), "inputs")


def _symbolic_outputs(model: keras.Model, structure: Any) -> Any:
    specs = input_specs(model)
    tensors = {name: keras.KerasTensor(spec.shape, spec.dtype) for name, spec in specs.items()}
    try:
        return model.compute_output_spec(pack_inputs(model, tensors))
    except Exception as error:
        if own := failure_within(error):
            raise own from error
        shapes = ", ".join(f"{name} {spec.shape}" for name, spec in specs.items())
        raise JobFailed(
            f"{type(model).__name__} cannot be called on {shapes}: {error}", code=MISMATCH, details=repr(structure)
        ) from error
