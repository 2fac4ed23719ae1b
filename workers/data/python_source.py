"""Rows that a user's function gives: `module:function` of a source folder, on servers that allow code."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gradwire.ragged_rows import Ragged, is_ragged
from gradwire.spec.job import PythonFunction
from gradwire.spec.part import ONLY
from workers.data import faults
from workers.data.source import ArrayInfo, ArraySource, Rows, Source, check_ids, info_of
from workers.source_code import CodePlace, call, guarded, source_folder

HOW = "return a dict of arrays, or an object with __len__() and arrays(rows), which gives such a dict for row numbers"
MAX_ROWS = 2**40
MAX_REMEMBERED = 2**24
"""Rows whose lengths are remembered; 8 bytes each."""
UNKNOWN = -1


def open_python(
    spec: PythonFunction, place: CodePlace, needed: Collection[str], *, padded: Collection[str] = (), field: str
) -> Source:
    """The rows of what the user's function returns: arrays, or an object that gives rows by number.

    Each process of the job calls the function, so it must give the same rows every time. Arrays that are padded (ONLY
    for all others) may be lists with an array for each row.

    Raises:
        JobFailed: as `workers.source_code.call`; `data_…` for what is no such source.
    """
    name = f"{field}: {spec.function}"
    found = call(spec, place, field)
    if isinstance(found, Mapping):
        given = {str(key): value for key, value in found.items()}
        if not set(needed) <= set(given):
            raise faults.unknown_array(name, needed, given)
        arrays = {key: _array(name, key, given[key], padded) for key in sorted(needed)}
        for key, array in arrays.items():
            _check_array(name, key, array)
        return ArraySource(name, arrays)
    if not callable(getattr(found, "arrays", None)) or not hasattr(found, "__len__"):
        raise faults.unreadable(f"{name} returned a {type(found).__name__}; {HOW}")
    return PythonSource(name, found, source_folder(spec.source, place, field), needed, padded)


class PythonSource:
    """A user's object as a source; its `arrays` is called by one thread at a time.

    Raises:
        JobFailed: `model_code` for what the object raises; `data_…` for arrays that are no numbers or of other shapes.
    """

    def __init__(
        self, name: str, rows: Any, folder: Path, needed: Collection[str], padded: Collection[str] = ()
    ) -> None:
        self.name = name
        self._object = rows
        self._folder = folder
        self._needed = sorted(needed)
        self._padded = frozenset(padded)
        self._known_lengths: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()
        self.rows = int(guarded(lambda: len(rows), folder, f"{name}: __len__"))
        if not 1 <= self.rows <= MAX_ROWS:
            raise faults.wrong_shape(f"{name} has {self.rows} rows; at least 1 is needed")
        first = self._called(np.zeros(1, np.int64))
        self.arrays: Mapping[str, ArrayInfo] = {key: info_of(array) for key, array in first.items()}

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, Rows]:
        check_ids(self.name, ids, self.rows)
        wanted = self._needed if names is None else names
        if not ids.size:
            return {key: _none(self.arrays[key]) for key in wanted}
        found = self._called(ids)
        for key in wanted:
            self._check_alike(key, found[key])
            if self.arrays[key].is_ragged:
                self._check_lengths(key, _ragged(found[key]), ids)
        return {key: found[key] for key in wanted}

    def lengths(self, name: str, ids: np.ndarray) -> np.ndarray:
        """As the object's own `lengths(rows)` says; without one by reading the rows, once each."""
        if callable(getattr(self._object, "lengths", None)):
            return self._told_lengths(name, ids)
        if self.rows > MAX_REMEMBERED:
            return _ragged(self._called(ids)[name]).lengths
        known = self._remembered(name)
        unread = np.unique(ids[known[ids] == UNKNOWN])
        if unread.size:
            known[unread] = _ragged(self._called(unread)[name]).lengths
        return np.asarray(known[ids])

    def longest(self, name: str) -> int | None:
        return None

    def _remembered(self, name: str) -> np.ndarray:
        if name not in self._known_lengths:
            self._known_lengths[name] = np.full(self.rows, UNKNOWN, np.int64)
        return self._known_lengths[name]

    def _check_lengths(self, name: str, given: Ragged, ids: np.ndarray) -> None:
        """What batches are padded to would depend on who has read which rows before, if a row changed its length."""
        is_told = callable(getattr(self._object, "lengths", None))
        if not is_told and self.rows > MAX_REMEMBERED:
            return
        known = self._told_lengths(name, ids) if is_told else self._remembered(name)[ids]
        is_other = (known != given.lengths) & (known != UNKNOWN)
        if is_other.any():
            at = int(is_other.argmax())
            before = "lengths(rows) says" if is_told else "it was before"
            raise faults.wrong_shape(
                f"{self.name}: row {ids[at]} of {name!r} has length {given.lengths[at]}, and {before} {known[at]}: "
                "give every row as it is, without padding of your own"
            )

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        return ids

    def _told_lengths(self, name: str, ids: np.ndarray) -> np.ndarray:
        with self._lock:
            given = guarded(lambda: self._object.lengths(ids.copy()), self._folder, f"{self.name}: lengths")
        found = np.asarray(given[name]) if isinstance(given, Mapping) and name in given else None
        if found is None or found.shape != ids.shape or found.dtype.kind not in "iu":
            raise faults.wrong_shape(
                f"{self.name}: lengths(rows) must give a dict with a whole number for each of the {len(ids)} rows of "
                f"{name!r}"
            )
        return found.astype(np.int64)

    def _called(self, ids: np.ndarray) -> dict[str, Rows]:
        with self._lock:
            given = guarded(lambda: self._object.arrays(ids.copy()), self._folder, f"{self.name}: arrays")
        if not isinstance(given, Mapping):
            raise faults.unreadable(f"{self.name}: arrays(rows) returned a {type(given).__name__}; return a dict")
        if not set(self._needed) <= set(given):
            raise faults.unknown_array(self.name, self._needed, [str(key) for key in given])
        found = {key: _array(self.name, key, given[key], self._padded) for key in self._needed}
        for key, array in found.items():
            if not isinstance(array, Ragged) and (array.ndim == 0 or len(array) != len(ids)):
                raise faults.wrong_shape(
                    f"{self.name}: arrays(rows) gave {key!r} of shape {array.shape} for {len(ids)} rows"
                )
            if len(array) != len(ids):
                raise faults.wrong_shape(f"{self.name}: arrays(rows) gave {len(array)} rows of {key!r} for {len(ids)}")
            _check_array(self.name, key, array, ids)
        return found

    def _check_alike(self, key: str, array: Rows) -> None:
        known, given = self.arrays[key], info_of(array)
        if given == known or (isinstance(array, Ragged) and not array.values.size):
            return
        hint = "give every row one shape and dtype"
        if len(given.shape) == len(known.shape) and given.shape[1:] == known.shape[1:] and given.dtype == known.dtype:
            hint = f"say to which lengths rows are padded, as data.padding.{key}: {{multiple: 32}}, or {hint}"
        raise faults.wrong_shape(
            f"{self.name}: array {key!r} has rows of {given.shape} {given.dtype}, and had {known.shape} {known.dtype} "
            f"in row 0; {hint}"
        )


def _array(name: str, key: str, value: Any, padded: Collection[str]) -> Rows:
    """What a user gave under a key; ragged where it is padded, and one array for each row."""
    try:
        if key in padded or (ONLY in padded and is_ragged(value)):
            return Ragged.of(value)
        return np.ascontiguousarray(value)
    except ValueError as error:
        if is_ragged(value) and key not in padded:
            raise faults.wrong_shape(
                f"{name}: array {key!r} has rows of several lengths: say to which lengths they are padded, as "
                f"data.padding.{key}: {{multiple: 32}} or {{buckets: [32, 64]}}"
            ) from error
        raise faults.wrong_shape(f"{name}: array {key!r} is no array: {error}") from error


def _none(info: ArrayInfo) -> Rows:
    values = np.empty((0, *(size for size in info.shape if size is not None)), info.dtype)
    return Ragged(values, np.zeros(1, np.int64)) if info.is_ragged else values


def _ragged(array: Rows) -> Ragged:
    assert isinstance(array, Ragged)  # nobody asks for the lengths of others
    return array


def _check_array(name: str, key: str, array: Rows, ids: np.ndarray | None = None) -> None:
    values = array.values if isinstance(array, Ragged) else array
    if values.dtype.kind not in "biuf" or values.dtype.itemsize > 8:
        raise faults.wrong_dtype(f"{name}: array {key!r} has dtype {values.dtype}; give integers, booleans or floats")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        at = int(np.argwhere(~np.isfinite(values))[0][0])
        at = array.row_of(at) if isinstance(array, Ragged) else at
        row = at if ids is None else int(ids[at])
        raise faults.nonfinite(f"{name}: array {key!r} is not finite in row {row} (counted from 0)")
