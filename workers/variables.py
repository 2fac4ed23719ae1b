"""A model's variables, sorted by what a step does with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from workers.layout import Layout, Tensor

SEED_GENERATOR_STATE = "seed_generator_state"
MAX_DEPTH = 8
"""Of lists, dicts and modules in each other that are searched for variables."""


def unique_names(paths: Iterable[str]) -> list[str]:
    """Variable paths, made unique: subclassed models may give one path twice."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def raw_variables(model: keras.Model) -> list[keras.Variable]:
    """Variables of TensorFlow that layers keep without Keras's knowledge, each as a Keras variable of the same memory.

    Found in a layer's attributes, in lists, dicts and modules in them, too; sorted by path, which says where.
    """
    seen = {id(variable._value) for variable in model.variables}
    found: list[tuple[str, Any]] = []
    for layer in model._flatten_layers(include_self=True, recursive=True):
        place = layer.path or layer.name
        for name, value in sorted(vars(layer).items()):
            if not name.startswith("_self_"):  # TensorFlow's own notes
                found += _raw_in(value, f"{place}/{name}", seen, 0)
    return [adopted(path, variable) for path, variable in sorted(found, key=lambda pair: pair[0])]


def _raw_in(value: Any, path: str, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    """Raw variables in a value that an attribute holds, with their paths; each once."""
    if depth > MAX_DEPTH or isinstance(value, keras.Variable | keras.layers.Layer):
        return
    if isinstance(value, tf.Variable):
        if id(value) not in seen:
            seen.add(id(value))
            yield path, value
        return
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    elif isinstance(value, tf.Module):
        items = vars(value).items()
    for name, item in items:
        yield from _raw_in(item, f"{path}/{name}", seen, depth + 1)


def adopted(path: str, variable: tf.Variable) -> keras.Variable:
    """A Keras variable over one of TensorFlow."""
    made = keras.Variable(np.zeros(()), name=path.replace("/", "."), trainable=variable.trainable, autocast=False)
    made._value = variable
    made._shape, made._ndim, made._dtype = tuple(variable.shape), variable.shape.rank, variable.dtype.name
    return made


@dataclass(frozen=True, slots=True)
class ModelVariables:
    """Trained variables, other state that a step may change, and the states of seed generators, in model order."""

    trainable: tuple[keras.Variable, ...]
    state: tuple[keras.Variable, ...]
    seeds: tuple[keras.Variable, ...]
    names: tuple[str, ...]
    """Names of `trainable` and `state`, unique."""
    raw: tuple[str, ...] = ()
    """Those names that mean variables which Keras does not know; they stand last in their group."""

    @classmethod
    def of(cls, model: keras.Model) -> ModelVariables:
        raw = raw_variables(model)
        trainable = (*model.trainable_variables, *(variable for variable in raw if variable.trainable))
        others = (*model.non_trainable_variables, *(variable for variable in raw if not variable.trainable))
        seeds = tuple(variable for variable in others if variable.path.endswith(SEED_GENERATOR_STATE))
        state = tuple(variable for variable in others if not variable.path.endswith(SEED_GENERATOR_STATE))
        names = unique_names([f"weights/{v.path}" for v in trainable] + [f"state/{v.path}" for v in state])
        paths = {variable.path for variable in raw}
        own = tuple(name for name in names if name.partition("/")[2] in paths)
        return cls(trainable, state, seeds, tuple(names), own)

    @property
    def bound(self) -> tuple[keras.Variable, ...]:
        """What lives in the weights buffer: `trainable`, then `state`."""
        return self.trainable + self.state

    @property
    def trained_paths(self) -> list[str]:
        """The paths of `trainable`, unique."""
        return [name.removeprefix("weights/") for name in self.names[: len(self.trainable)]]

    def layout(self) -> Layout:
        """The layout of the weights buffer."""
        return Layout.of(
            Tensor(name, tuple(int(n) for n in variable.shape), str(variable.dtype))
            for name, variable in zip(self.names, self.bound, strict=True)
        )

    def values(self) -> list[np.ndarray]:
        """The values of `bound`; the arrays may share the variables' memory, so use them before the next update."""
        return [np.asarray(variable._value.value()) for variable in self.bound]
