"""Rows by index."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from gradwire.ragged_rows import Ragged
from workers.data import faults

Rows = np.ndarray | Ragged
"""Some rows of an array, or all."""


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array's shape without the row axis, and its dtype; rows of several lengths have None as their first size."""

    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]

    @property
    def is_ragged(self) -> bool:
        return None in self.shape


class Source(Protocol):
    """Equally long named arrays, of which any rows can be read, from several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it: the field of the specification and the file."""

    @property
    def rows(self) -> int: ...

    @property
    def arrays(self) -> Mapping[str, ArrayInfo]: ...

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, Rows]:
        """The rows `ids` (int64, any order, repeats allowed) of the named arrays, by default of all.

        Returns new C-contiguous arrays of shape `(len(ids), *info.shape)` in the source's dtypes, or `Ragged` ones.

        Raises:
            IndexError: an id below 0, or not below `rows`.
        """

    def lengths(self, name: str, ids: np.ndarray) -> np.ndarray:
        """Of these rows of a ragged array: int64."""

    def longest(self, name: str) -> int | None:
        """The length of the longest row of a ragged array; None if that takes reading them all."""

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows of the file that ids mean, for messages."""


class ArraySource:
    """Arrays in memory, or mapped into it.

    Raises:
        JobFailed: `data_shape` if the arrays are not equally long or have no rows.
    """

    def __init__(self, name: str, arrays: Mapping[str, Rows]) -> None:
        self.name = name
        self.rows = common_rows(name, {key: _shape(array) for key, array in arrays.items()})
        self.arrays: Mapping[str, ArrayInfo] = {key: info_of(array) for key, array in arrays.items()}
        self._arrays = dict(arrays)

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, Rows]:
        check_ids(self.name, ids, self.rows)
        wanted = self._arrays if names is None else names
        return {key: _taken(self._arrays[key], ids) for key in wanted}

    def lengths(self, name: str, ids: np.ndarray) -> np.ndarray:
        array = self._arrays[name]
        assert isinstance(array, Ragged)  # nobody asks of others
        return np.asarray(array.offsets[ids + 1] - array.offsets[ids])

    def longest(self, name: str) -> int | None:
        array = self._arrays[name]
        return int(array.lengths.max()) if isinstance(array, Ragged) else None

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        return ids


def info_of(array: Rows) -> ArrayInfo:
    """What is said of an array."""
    if isinstance(array, Ragged):
        return ArrayInfo((None, *array.values.shape[1:]), array.values.dtype)
    return ArrayInfo(array.shape[1:], array.dtype)


def _shape(array: Rows) -> tuple[int, ...]:
    return (len(array),) if isinstance(array, Ragged) else array.shape


def _taken(array: Rows, ids: np.ndarray) -> Rows:
    return array.take(ids) if isinstance(array, Ragged) else np.take(array, ids, axis=0)


def common_rows(name: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The number of rows that arrays of these shapes have in common.

    Raises:
        JobFailed: `data_shape`, naming the source, and the arrays with their lengths.
    """
    for key, shape in shapes.items():
        if not shape:
            raise faults.wrong_shape(f"{name}: array {key!r} is a single number; its first axis must be the rows")
        if 0 in shape:
            raise faults.wrong_shape(f"{name}: array {key!r} is empty, its shape is {shape}")
    lengths = {key: shape[0] for key, shape in shapes.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{key!r} has {length}" for key, length in lengths.items())
        raise faults.wrong_shape(f"{name}: arrays must have equally many rows, but {listed}")
    return next(iter(lengths.values()))


def check_ids(name: str, ids: np.ndarray, rows: int) -> None:
    """Raises IndexError unless all ids are in [0, rows); NumPy would take -1 for the last row."""
    if ids.size and (ids.min() < 0 or ids.max() >= rows):
        raise IndexError(f"{name} has rows 0 to {rows - 1}; asked for {ids.min()} to {ids.max()}")
