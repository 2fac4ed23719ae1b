"""A model's inputs and outputs by the names that a job means them by, and the user's values in their order."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from gradwire.errors import InvalidSpec, Violation
from gradwire.keras_vocabulary import near


@dataclass(frozen=True, slots=True)
class Ends:
    """The names of one side of a model, in the order of the user's list; `aliases` are dict keys that mean them."""

    names: tuple[str, ...]
    aliases: Mapping[str, str]

    @classmethod
    def inputs(cls, model: Any) -> Self:
        """An input is called as its Input layer; the key of a dict means it, too."""
        return cls._of(_graph(model)._inputs_struct, is_keyed=False)

    @classmethod
    def outputs(cls, model: Any) -> Self:
        """An output is called by its key if the model returns a dict, else as the layer that makes it."""
        return cls._of(_graph(model)._outputs_struct, is_keyed=True)

    @classmethod
    def _of(cls, structure: Any, *, is_keyed: bool) -> Self:
        tree = caller_keras().tree
        flat = tree.flatten_with_path(structure)
        layers = [str(tensor._keras_history.operation.name) for _, tensor in flat]
        keys = ["/".join(str(part) for part in path) for path, _ in flat]
        is_dict = isinstance(structure, dict) and all(len(path) == 1 for path, _ in flat)
        names = keys if is_dict and is_keyed else _unique(layers) if is_keyed else layers
        return cls(tuple(names), {**dict(zip(layers, names, strict=True)), **dict(zip(keys, names, strict=True))})

    @property
    def is_only(self) -> bool:
        return len(self.names) == 1

    def values(self, given: Any, field: str) -> dict[str, Any]:
        """By name: what the user gave as one value, as a list in order, or as a dict.

        Raises `InvalidSpec` for another number, or a name that the model does not have.
        """
        if isinstance(given, Mapping):
            unknown = [key for key in given if key not in self.aliases and key not in self.names]
            if unknown:
                hint = near(str(unknown[0]), self.names)
                raise InvalidSpec([Violation(field, f"the model has no {unknown[0]!r}{hint}")])
            return {key if key in self.names else self.aliases[key]: value for key, value in given.items()}
        if self.is_only and not (isinstance(given, list | tuple) and len(given) == 1 and hasattr(given[0], "shape")):
            return {self.names[0]: given}
        if not isinstance(given, list | tuple) or len(given) != len(self.names):
            count = len(given) if isinstance(given, list | tuple) else 1
            named = ", ".join(self.names)
            raise InvalidSpec([Violation(field, f"has {count} where the model has {len(self.names)}: {named}")])
        return dict(zip(self.names, given, strict=True))


def caller_keras() -> Any:
    """The Keras that the caller has imported, as whoever holds a model has."""
    return sys.modules["keras"]


def _graph(model: Any) -> Any:
    graph = model if hasattr(model, "_inputs_struct") else getattr(model, "_functional", None)
    if graph is None:
        what = type(model).__name__
        raise InvalidSpec(
            [
                Violation(
                    "model",
                    f"{what} {getattr(model, 'name', '')!r} has no graph of layers: begin it with keras.Input(shape), "
                    "or, if it is a class of its own, submit it as model.python: a function of a source folder",
                )
            ]
        )
    return graph


def _unique(names: list[str]) -> list[str]:
    """As the server numbers outputs of one layer: the second is called _1."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 0
        while candidate in result or (number and candidate in names):
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return result
