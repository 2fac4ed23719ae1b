"""The arrays of one shard, ready for the gradient program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradwire.errors import JobFailed
from workers.alignment import ALIGNMENT_BYTES
from workers.data import faults
from workers.data.source import Source
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


class BatchMaker:
    """Makes batches of rows; holds no state of its own, so several threads may use it.

    Args:
        inputs: model input name to array name.
        labels: model output name to array name.
        sample_weights: model output name to array name, for the outputs that have weights.
        input_dtypes: model input name to the dtype's name that the model wants.

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
    ) -> None:
        self._source = source
        self._names = sorted({*inputs.values(), *labels.values(), *sample_weights.values()})
        if not set(self._names) <= set(source.arrays):
            raise faults.unknown_array(source.name, self._names, list(source.arrays))
        self._inputs = {key: (name, numpy_dtype(input_dtypes[key])) for key, name in inputs.items()}
        self._labels = {key: (name, _label_dtype(source.arrays[name].dtype)) for key, name in labels.items()}
        self._sample_weights = {key: (name, np.dtype(np.float32)) for key, name in sample_weights.items()}

    def make(self, ids: np.ndarray) -> Batch:
        """The rows `ids` (int64, of the source; may be empty).

        Raises:
            JobFailed: `data_dtype` if a value changes by the cast to an integer, or overflows.
        """
        rows = self._source.take(ids, self._names)

        def cast(arrays: Mapping[str, tuple[str, np.dtype[Any]]]) -> dict[str, np.ndarray]:
            return {key: self._cast(name, rows[name], dtype, ids) for key, (name, dtype) in arrays.items()}

        return Batch(
            inputs=cast(self._inputs),
            labels=cast(self._labels),
            sample_weights=cast(self._sample_weights),
            samples=len(ids),
            ids=ids,
        )

    def _cast(self, name: str, values: np.ndarray, dtype: np.dtype[Any], ids: np.ndarray) -> np.ndarray:
        result = aligned_empty(values.shape, dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            np.copyto(result, values, casting="unsafe")
        if np.can_cast(values.dtype, dtype, "safe"):
            return result
        is_kept = values == result if dtype.kind in "biu" else np.isfinite(result)
        if not is_kept.all():
            raise self._cast_fault(name, values, dtype, ids, int(is_kept.argmin()))
        return result

    def _cast_fault(self, name: str, values: np.ndarray, dtype: np.dtype[Any], ids: np.ndarray, at: int) -> JobFailed:
        row = self._source.file_rows(ids[at * len(ids) // values.size :][:1])[0]
        return faults.wrong_dtype(
            f"{self._source.name}: array {name!r} has {values.flat[at]} in row {row} (counted from 0), which {dtype} "
            f"cannot hold; the array's dtype is {values.dtype}, {dtype} is wanted: change one of them"
        )


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An array of unset values on a 64-byte boundary; TensorFlow aborts the process on others."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT_BYTES
    return np.ndarray(shape, dtype, memory, start)  # a slice of `memory` would lose the boundary where it is empty


def _label_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.kind == "f" else dtype
