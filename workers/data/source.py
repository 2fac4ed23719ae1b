"""Rows by index."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from workers.data import faults


@dataclass(frozen=True, slots=True)
class ArrayInfo:
    """An array's shape without the row axis, and its dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Source(Protocol):
    """Equally long named arrays, of which any rows can be read, from several threads at once."""

    @property
    def name(self) -> str:
        """What messages call it: the field of the specification and the file."""

    @property
    def rows(self) -> int: ...

    @property
    def arrays(self) -> Mapping[str, ArrayInfo]: ...

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """The rows `ids` (int64, any order, repeats allowed) of the named arrays, by default of all.

        Returns new C-contiguous arrays of shape `(len(ids), *info.shape)` in the source's dtypes.

        Raises:
            IndexError: an id below 0, or not below `rows`.
        """

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        """The rows of the file that ids mean, for messages."""


class ArraySource:
    """Arrays in memory, or mapped into it.

    Raises:
        JobFailed: `data_shape` if the arrays are not equally long or have no rows.
    """

    def __init__(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        self.name = name
        self.rows = common_rows(name, {key: array.shape for key, array in arrays.items()})
        self.arrays: Mapping[str, ArrayInfo] = {
            key: ArrayInfo(array.shape[1:], array.dtype) for key, array in arrays.items()
        }
        self._arrays = dict(arrays)

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        check_ids(self.name, ids, self.rows)
        wanted = self._arrays if names is None else names
        return {key: np.take(self._arrays[key], ids, axis=0) for key in wanted}

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        return ids


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
