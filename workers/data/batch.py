"""The arrays of one shard, ready for the gradient program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.errors import JobFailed
from gradwire.ragged_rows import Ragged
from workers.alignment import ALIGNMENT_BYTES
from workers.data import faults
from workers.data.padding import Lengths, Padding
from workers.data.source import Rows, Source
from workers.layout import numpy_dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One shard's samples by model input and output name; every array has `samples` rows.

    The arrays are C-contiguous, writable and on 64-byte boundaries, as a DLPack view for TensorFlow must be.
    """

    inputs: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    sample_weights: Mapping[str, np.ndarray]
    samples: int
    ids: np.ndarray
    """int64, the rows of the source, in order."""


@dataclass(frozen=True, slots=True)
class _Column:
    """An array as batches have it: its name, their dtype, and what fills rows up."""

    name: str
    dtype: np.dtype[Any]
    fill: Any


class BatchMaker:
    """Makes batches of rows; holds no state of its own, so several threads may use it.

    Args:
        inputs: model input name to array name.
        labels: model output name to array name.
        sample_weights: model output name to array name, for the outputs that have weights.
        input_dtypes: model input name to the dtype's name that the model wants.
        padding: of the source's ragged arrays.

    Inputs are cast to the model's dtypes, floating labels and all sample weights to float32; other labels keep theirs.
    """

    def __init__(
        self,
        source: Source,
        *,
        inputs: Mapping[str, str],
        labels: Mapping[str, str],
        sample_weights: Mapping[str, str],
        input_dtypes: Mapping[str, str],
        padding: Padding | None = None,
    ) -> None:
        self._source = source
        self.padding = padding or Padding()
        self._names = sorted({*inputs.values(), *labels.values(), *sample_weights.values()})
        if not set(self._names) <= set(source.arrays):
            raise faults.unknown_array(source.name, self._names, list(source.arrays))
        self._inputs = {key: self._column(name, numpy_dtype(input_dtypes[key])) for key, name in inputs.items()}
        self._labels = {
            key: self._column(name, _label_dtype(source.arrays[name].dtype)) for key, name in labels.items()
        }
        self._sample_weights = {
            key: self._column(name, np.dtype(np.float32), is_weight=True) for key, name in sample_weights.items()
        }

    def _column(self, name: str, dtype: np.dtype[Any], *, is_weight: bool = False) -> _Column:
        # What is added to rows must not weigh, whatever the rule of all arrays says.
        is_free = not self._source.arrays[name].is_ragged or (is_weight and not self.padding.is_named(name))
        fill = np.float64(0.0 if is_free else self.padding.fill(name))
        with np.errstate(over="ignore", invalid="ignore"):
            held = fill.astype(dtype)
        if held != fill if dtype.kind in "biu" else not np.isfinite(held):
            raise faults.wrong_dtype(
                f"data.padding: array {name!r} is filled up with {fill:g}, which {dtype} cannot hold; give another"
            )
        return _Column(name, dtype, held)

    @property
    def knows_lengths(self) -> bool:
        """Whether `lengths` takes no reading of rows."""
        return all(self._source.longest(name) is not None for name in self.padding.arrays)

    def lengths(self, ids: np.ndarray) -> Lengths:
        """What a batch of these rows is padded to; raises as `Padding.lengths`."""
        return self.padding.lengths(self._source, ids)

    def make(self, ids: np.ndarray, lengths: Lengths | None = None) -> Batch:
        """The rows `ids` (int64, of the source; may be empty), which are a part of a batch of these lengths.

        Raises:
            JobFailed: `data_dtype` if a value changes by the cast to an integer, or overflows.
        """
        by_array = self.padding.by_array(self.lengths(ids) if lengths is None else lengths)
        rows = self._source.take(ids, self._names)

        def cast(columns: Mapping[str, _Column]) -> dict[str, np.ndarray]:
            return {
                key: self._cast(column, rows[column.name], ids, by_array.get(column.name, 0))
                for key, column in columns.items()
            }

        return Batch(
            inputs=cast(self._inputs),
            labels=cast(self._labels),
            sample_weights=cast(self._sample_weights),
            samples=len(ids),
            ids=ids,
        )

    def _cast(self, column: _Column, rows: Rows, ids: np.ndarray, length: int) -> np.ndarray:
        name = column.name
        if not isinstance(rows, Ragged):
            result = aligned_empty(rows.shape, column.dtype)
            self._fill(result, rows, name, lambda at: ids[at * len(ids) // rows.size])
            return result
        values = np.empty(rows.values.shape, column.dtype)
        self._fill(values, rows.values, name, lambda at: ids[rows.row_of(at * len(values) // values.size)])
        result = aligned_empty((len(ids), length, *values.shape[1:]), column.dtype)
        Ragged(values, rows.offsets).padded(result, column.fill)
        return result

    def _fill(self, result: np.ndarray, values: np.ndarray, name: str, row_at: Callable[[int], np.int64]) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(result, values, casting="unsafe")
        if np.can_cast(values.dtype, result.dtype, "safe"):
            return
        is_kept = values == result if result.dtype.kind in "biu" else np.isfinite(result)
        if not is_kept.all():
            at = int(is_kept.argmin())
            raise self._cast_fault(name, values.flat[at], values.dtype, result.dtype, row_at(at))

    def _cast_fault(self, name: str, value: Any, has: np.dtype[Any], wanted: np.dtype[Any], row: np.int64) -> JobFailed:
        row = self._source.file_rows(np.array([row]))[0]
        return faults.wrong_dtype(
            f"{self._source.name}: array {name!r} has {value} in row {row} (counted from 0), which {wanted} "
            f"cannot hold; the array's dtype is {has}, {wanted} is wanted: change one of them"
        )


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of unset values on a 64-byte boundary; TensorFlow aborts the process on others."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return np.ndarray(shape, dtype, memory, start)  # a slice of `memory` would lose the boundary where it is empty


def _label_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.kind == "f" else dtype
