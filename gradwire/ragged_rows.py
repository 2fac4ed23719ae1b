"""Rows of several lengths, as two arrays: the values of all rows one after the other, and where each row begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

LENGTHS = ".lengths"
"""In an archive, NAME holds the values of all rows, and NAME.lengths how many each row has."""


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows whose first axis differs in length.

    values: shape (sum of lengths, *inner). offsets: int64 of shape (rows + 1,), where each row begins, and the end.
    """

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Any]) -> Self:
        """From one array, or list of numbers, for each row.

        Raises:
            ValueError: no rows, or rows that differ in more than their length.
        """
        arrays = [np.asarray(row) for row in rows]
        filled = [array for array in arrays if array.size] or arrays  # an empty list says nothing of its dtype
        if not arrays or any(array.ndim == 0 for array in arrays):
            raise ValueError("rows of several lengths are a list of arrays, one for each row")
        if len(inner := {array.shape[1:] for array in filled}) > 1:
            raise ValueError(f"rows may differ in their first axis only; after it they have the shapes {sorted(inner)}")
        return cls.joined(np.concatenate(filled), [len(array) if array.size else 0 for array in arrays])

    @classmethod
    def joined(cls, values: np.ndarray, lengths: Any) -> Self:
        """From the values of all rows, and how many each row has."""
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(values, offsets)

    def __len__(self) -> int:
        return self.offsets.size - 1

    @property
    def lengths(self) -> np.ndarray:
        """Of every row: int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Ragged:
        """A copy of these rows (int64, any order, repeats allowed)."""
        lengths = self.offsets[rows + 1] - self.offsets[rows]
        taken = Ragged.joined(self.values, lengths)
        return Ragged(
            self.values[np.repeat(self.offsets[rows] - taken.offsets[:-1], lengths) + taken.places], taken.offsets
        )

    @property
    def places(self) -> np.ndarray:
        """0, 1, ... for all values: int64."""
        return np.arange(self.offsets[-1], dtype=np.int64)

    def row_of(self, place: int) -> int:
        """The row that a value belongs to."""
        return int(np.searchsorted(self.offsets, place, side="right")) - 1

    def cut(self, start: int, stop: int) -> Ragged:
        """The rows from start to stop."""
        offsets = self.offsets[start : stop + 1]
        return Ragged(self.values[offsets[0] : offsets[-1]], offsets - offsets[0])

    def padded(self, target: np.ndarray, fill: Any) -> None:
        """Fills `target`, shape (rows, length, *inner): longer rows lose their end, shorter ones are filled up."""
        length = target.shape[1]
        target[...] = fill
        lengths = self.lengths
        values = self.values
        if len(lengths) and lengths.max() > length:
            places = self.places - np.repeat(self.offsets[:-1], lengths)
            values = values[places < length]
        target[np.arange(length) < lengths[:, np.newaxis]] = values


def ragged(**arrays: Sequence[Any]) -> Mapping[str, np.ndarray]:
    """Rows of several lengths as arrays of an archive: `numpy.savez(path, label=label, **gradwire.ragged(text=rows))`.

    Args:
        arrays: by name, one array or list of numbers for each row.

    Raises:
        ValueError: rows that differ in more than their length.
    """
    found = {name: Ragged.of(rows) for name, rows in arrays.items()}
    return {name: rows.values for name, rows in found.items()} | {
        f"{name}{LENGTHS}": rows.lengths for name, rows in found.items()
    }


def is_ragged(value: Any) -> bool:
    """Whether a value is one sequence for each row, as a list or an array of objects, and no plain array."""
    if isinstance(value, np.ndarray):
        return value.dtype.hasobject and value.ndim == 1
    if not isinstance(value, list | tuple) or not len(value):
        return False
    return all(np.ndim(row) > 0 if hasattr(row, "ndim") else isinstance(row, list | tuple) for row in value)


def has_several_lengths(rows: Sequence[Any]) -> bool:
    """Whether two neighbouring rows differ in length."""
    return any(len(one) != len(other) for one, other in pairwise(rows))
