"""The caller's arrays as a file that a job reads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradwire.errors import InvalidSpec, Violation
from gradwire.keras_vocabulary import near
from gradwire.notebook.ends import Ends
from gradwire.ragged_rows import LENGTHS, Ragged, has_several_lengths, is_ragged
from gradwire.spec.part import ONLY

Arrays = dict[str, np.ndarray | Ragged]


@dataclass(frozen=True, slots=True)
class Table:
    """Equally long arrays by input, output and weighted output; `padding` is what the caller said of ragged ones."""

    inputs: Arrays
    labels: Arrays
    weights: Arrays
    padding: Mapping[str, Any]

    @classmethod
    def of(cls, given: Any, inputs: Ends, outputs: Ends, field: str, padding: Mapping[str, Any] | None = None) -> Table:
        """From (x, y) or (x, y, sample_weight), each one array, a list in the model's order, or a dict by name.

        With padding an array may also be a list with an array, or a list of numbers, for each row.

        Raises `InvalidSpec` where the names or the lengths do not fit.
        """
        if not isinstance(given, list | tuple) or len(given) not in (2, 3):
            raise InvalidSpec([Violation(field, "must be (x, y) or (x, y, sample_weight)")])
        x, y, *rest = given
        table = cls(
            _arrays(inputs.values(x, "x"), "x", padding),
            _arrays(outputs.values(y, "y"), "y", padding),
            _arrays(_weights(rest[0] if rest else None, outputs), "sample_weight", padding),
            _by_name(padding or {}, inputs, outputs),
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
        plain: dict[str, Any] = {}
        for name, array in content.items():
            plain |= {name: array.values, name + LENGTHS: array.lengths} if isinstance(array, Ragged) else {name: array}
        np.savez(path, **plain)
        return names | {"padding": self._padding_of(names)}

    def _padding_of(self, names: Mapping[str, Mapping[str, str]]) -> Mapping[str, Any]:
        """What was said of inputs and outputs, for their arrays."""
        if not any(isinstance(rule, Mapping) for rule in self.padding.values()):
            return self.padding
        meant: dict[str, str] = {}
        for field, part in (("labels", self.labels), ("inputs", self.inputs)):
            arrays = names[field]
            meant |= dict(zip(part, arrays.values(), strict=True))
        return {meant.get(name, name): rule for name, rule in self.padding.items()}

    def _slice(self, start: int, stop: int) -> Table:
        parts = (self.inputs, self.labels, self.weights)
        inputs, labels, weights = ({name: _cut(array, start, stop) for name, array in part.items()} for part in parts)
        return Table(inputs, labels, weights, self.padding)


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


def _arrays(given: Mapping[str, Any], field: str, padding: Mapping[str, Any] | None) -> Arrays:
    return {name: _array(value, f"{field}.{name}", is_padded=bool(padding)) for name, value in given.items()}


def _array(value: Any, field: str, *, is_padded: bool) -> np.ndarray | Ragged:
    value = value.numpy() if hasattr(value, "row_splits") else value  # TensorFlow's ragged ones: an array of arrays
    is_unequal = is_ragged(value) and has_several_lengths(value)
    if is_unequal and not is_padded:
        raise InvalidSpec(
            [Violation(field, "has rows of several lengths: say what they are padded to, as padding={'multiple': 32}")]
        )
    try:
        # Lists of equal arrays, too: those of a part of the data may be equal by chance.
        rows = Ragged.of(value) if is_unequal or (is_padded and is_ragged(value) and _are_arrays(value)) else None
        array = np.asarray(value) if rows is None else rows.values
    except ValueError as error:
        raise InvalidSpec([Violation(field, f"is no array: {error}")]) from error
    if array.dtype.kind not in "biuf":
        raise InvalidSpec([Violation(field, f"has dtype {array.dtype}; give integers, booleans or floats")])
    if array.ndim == 0 or not array.size:
        raise InvalidSpec([Violation(field, f"has shape {array.shape}, and no rows")])
    plain = array.astype(np.float32) if array.dtype.kind == "f" and array.dtype != np.float32 else array
    return plain if rows is None else Ragged(plain, rows.offsets)


def _are_arrays(rows: Sequence[Any]) -> bool:
    return all(isinstance(row, np.ndarray) for row in rows)


def _cut(array: np.ndarray | Ragged, start: int, stop: int) -> np.ndarray | Ragged:
    return array.cut(start, stop) if isinstance(array, Ragged) else array[start:stop]


def _by_name(padding: Mapping[str, Any], inputs: Ends, outputs: Ends) -> Mapping[str, Any]:
    """One rule for everything as it is; rules by input or output under the names that a job has for these."""
    if not any(isinstance(rule, Mapping) for rule in padding.values()):
        return padding
    names = {name: name for name in (*outputs.names, *inputs.names)}
    meant = {**outputs.aliases, **inputs.aliases, **names}
    for name in padding:
        if name not in meant:
            raise InvalidSpec([Violation("padding", f"the model has no {name!r}{near(name, meant)}")])
    return {meant[name]: rule for name, rule in padding.items()}
