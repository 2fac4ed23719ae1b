"""Rows that a user's function gives: `module:function` of a source folder, on servers that allow code."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradwire.spec.job import PythonFunction
from workers.data import faults
from workers.data.source import ArrayInfo, ArraySource, Source, check_ids
from workers.source_code import CodePlace, call, guarded, source_folder

HOW = "return a dict of arrays, or an object with __len__() and arrays(rows), which gives such a dict for row numbers"
MAX_ROWS = 2**40


def open_python(spec: PythonFunction, place: CodePlace, needed: Collection[str], *, field: str) -> Source:
    """The rows of what the user's function returns: arrays, or an object that gives rows by number.

    Each process of the job calls the function, so it must give the same rows every time.

    Raises:
        JobFailed: as `workers.source_code.call`; `data_…` for what is no such source.
    """
    name = f"{field}: {spec.function}"
    found = call(spec, place, field)
    if isinstance(found, Mapping):
        arrays = {str(key): np.asarray(value) for key, value in found.items()}
        if not set(needed) <= set(arrays):
            raise faults.unknown_array(name, needed, arrays)
        for key in needed:
            _check_array(name, key, arrays[key])
        return ArraySource(name, {key: arrays[key] for key in sorted(needed)})
    if not callable(getattr(found, "arrays", None)) or not hasattr(found, "__len__"):
        raise faults.unreadable(f"{name} returned a {type(found).__name__}; {HOW}")
    return PythonSource(name, found, source_folder(spec.source, place, field), needed)


class PythonSource:
    """A user's object as a source; its `arrays` is called by one thread at a time.

    Raises:
        JobFailed: `model_code` for what the object raises; `data_…` for arrays that are no numbers or of other shapes.
    """

    def __init__(self, name: str, rows: Any, folder: Path, needed: Collection[str]) -> None:
        self.name = name
        self._object = rows
        self._folder = folder
        self._needed = sorted(needed)
        self._lock = threading.Lock()
        self.rows = int(guarded(lambda: len(rows), folder, f"{name}: __len__"))
        if not 1 <= self.rows <= MAX_ROWS:
            raise faults.wrong_shape(f"{name} has {self.rows} rows; at least 1 is needed")
        first = self._called(np.zeros(1, np.int64))
        self.arrays: Mapping[str, ArrayInfo] = {
            key: ArrayInfo(array.shape[1:], array.dtype) for key, array in first.items()
        }

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
        check_ids(self.name, ids, self.rows)
        wanted = self._needed if names is None else names
        if not ids.size:
            return {key: np.empty((0, *self.arrays[key].shape), self.arrays[key].dtype) for key in wanted}
        found = self._called(ids)
        for key in wanted:
            self._check_alike(key, found[key])
        return {key: np.ascontiguousarray(found[key]) for key in wanted}

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        return ids

    def _called(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        with self._lock:
            given = guarded(lambda: self._object.arrays(ids.copy()), self._folder, f"{self.name}: arrays")
        if not isinstance(given, Mapping):
            raise faults.unreadable(f"{self.name}: arrays(rows) returned a {type(given).__name__}; return a dict")
        if not set(self._needed) <= set(given):
            raise faults.unknown_array(self.name, self._needed, [str(key) for key in given])
        found = {key: np.asarray(given[key]) for key in self._needed}
        for key, array in found.items():
            if array.ndim == 0 or len(array) != len(ids):
                raise faults.wrong_shape(
                    f"{self.name}: arrays(rows) gave {key!r} of shape {array.shape} for {len(ids)} rows"
                )
            _check_array(self.name, key, array, ids)
        return found

    def _check_alike(self, key: str, array: np.ndarray) -> None:
        known = self.arrays[key]
        if array.shape[1:] != known.shape or array.dtype != known.dtype:
            raise faults.wrong_shape(
                f"{self.name}: array {key!r} has rows of {array.shape[1:]} {array.dtype}, and had {known.shape} "
                f"{known.dtype} in row 0; give every row one shape and dtype"
            )


def _check_array(name: str, key: str, array: np.ndarray, ids: np.ndarray | None = None) -> None:
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise faults.wrong_dtype(f"{name}: array {key!r} has dtype {array.dtype}; give integers, booleans or floats")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        at = int(np.argwhere(~np.isfinite(array))[0][0])
        row = at if ids is None else int(ids[at])
        raise faults.nonfinite(f"{name}: array {key!r} is not finite in row {row} (counted from 0)")
