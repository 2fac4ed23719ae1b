"""The caller's arrays as a file that a job reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradwire.errors import InvalidSpec, Violation
from gradwire.notebook.ends import Ends
from gradwire.spec.job import ONLY

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Table:
    """Equally long arrays by input, output and weighted output."""

    inputs: Arrays
    labels: Arrays
    weights: Arrays

    @classmethod
    def of(cls, given: Any, inputs: Ends, outputs: Ends, field: str) -> Table:
        """From (x, y) or (x, y, sample_weight), each one array, a list in the model's order, or a dict by name.

        Raises `InvalidSpec` where the names or the lengths do not fit.
        """
        if not isinstance(given, list | tuple) or len(given) not in (2, 3):
            raise InvalidSpec([Violation(field, "must be (x, y) or (x, y, sample_weight)")])
        x, y, *rest = given
        table = cls(
            _arrays(inputs.values(x, "x"), "x"),
            _arrays(outputs.values(y, "y"), "y"),
            _arrays(_weights(rest[0] if rest else None, outputs), "sample_weight"),
        )
        missing = [name for name in inputs.names if name not in table.inputs]
        if missing:
            raise InvalidSpec([Violation("x", f"has nothing for the model's input {missing[0]!r}")])
        lengths = {
            name: len(array) for part in (table.inputs, table.labels, table.weights) for name, array in part.items()
        }
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise InvalidSpec([Violation(field, f"arrays must have equally many rows, but {listed}")])
        return table

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    def cut(self, share: float) -> tuple[Table, Table]:
        """All but the last share of the rows, and those: as `keras.Model.fit` splits."""
        at = int(self.rows * (1.0 - share))
        if not 0 < at < self.rows:
            raise InvalidSpec([Violation("validation_split", f"of {share} leaves nothing of {self.rows} rows")])
        return self._slice(0, at), self._slice(at, self.rows)

    def write(self, path: Path, outputs: Ends) -> dict[str, Any]:
        """Writes the arrays; returns `data` of a job file, but for the source."""
        names: dict[str, Any] = {}
        for field, prefix, part in (("inputs", "x", self.inputs), ("labels", "y", self.labels)):
            names[field] = _named(part, prefix, is_only=len(part) == 1 and (field == "inputs" or outputs.is_only))
        names["sampleWeights"] = _named(self.weights, "weight", is_only=outputs.is_only)
        content: dict[str, Any] = {}
        for field, part in (("inputs", self.inputs), ("labels", self.labels), ("sampleWeights", self.weights)):
            content |= dict(zip(names[field].values(), part.values(), strict=True))
        np.savez(path, **content)
        return names

    def _slice(self, start: int, stop: int) -> Table:
        parts = (self.inputs, self.labels, self.weights)
        return Table(*({name: array[start:stop] for name, array in part.items()} for part in parts))


def _weights(given: Any, outputs: Ends) -> dict[str, Any]:
    if given is None:
        return {}
    # One array weights every output.
    each = given if isinstance(given, Mapping | list | tuple) else dict.fromkeys(outputs.names, given)
    return {name: value for name, value in outputs.values(each, "sample_weight").items() if value is not None}


def _named(part: Mapping[str, Any], prefix: str, *, is_only: bool) -> dict[str, str]:
    if is_only:
        return dict.fromkeys([ONLY][: len(part)], prefix)
    plain = {name: re.sub(r"[^\w.-]", "_", name) for name in part}
    is_clear = len(set(plain.values())) == len(plain)
    return {name: f"{prefix}_{plain[name] if is_clear else number}" for number, name in enumerate(part)}


def _arrays(given: Mapping[str, Any], field: str) -> Arrays:
    return {name: _array(value, f"{field}.{name}") for name, value in given.items()}


def _array(value: Any, field: str) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InvalidSpec([Violation(field, f"is no array: {error}; rows of several lengths need padding")]) from error
    if array.dtype.kind not in "biuf":
        raise InvalidSpec([Violation(field, f"has dtype {array.dtype}; give integers, booleans or floats")])
    if array.ndim == 0 or not array.size:
        raise InvalidSpec([Violation(field, f"has shape {array.shape}, and no rows")])
    return array.astype(np.float32) if array.dtype.kind == "f" and array.dtype != np.float32 else array
