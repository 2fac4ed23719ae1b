"""Sparse gradients: of a table that only gathers read, a contribution holds the rows that were gathered, by id.

They are what TensorFlow calls IndexedSlices, with each id once and the ids ascending. The sum of two of them has for
each id what it has in the dense sum: what only one of them knows stays as it is. So the tree of the dense gradients
(`tree.py`) gives the sparse ones their bits as well, whoever adds up which part of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workers.alignment import ALIGNMENT_BYTES, aligned


@dataclass(frozen=True, slots=True)
class Table:
    """A variable with a sparse gradient; float32.

    name: of the variable. rows: of the variable. width: elements of a row. capacity: ids of a contribution, at most.
    """

    name: str
    rows: int
    width: int
    capacity: int

    @property
    def total_bytes(self) -> int:
        """What its slices take of a contribution: the count, the ids and the rows, each from a boundary on."""
        return ALIGNMENT_BYTES + aligned(self.capacity * 8) + aligned(self.capacity * self.width * 4)


@dataclass(frozen=True, slots=True)
class Slices:
    """Rows of a gradient by id: ids int64 of shape (n,), ascending and each once; rows float32 of shape (n, width)."""

    ids: np.ndarray
    rows: np.ndarray


class SlicesPlace:
    """Where the slices of one table lie in a buffer: views over their memory.

    Before it is set, memory that is all zero holds no slices.
    """

    def __init__(self, table: Table, buffer: Any, start: int) -> None:
        ids_start = start + ALIGNMENT_BYTES
        rows_start = ids_start + aligned(table.capacity * 8)
        self._start, self._rows_start, self._row_bytes = start, rows_start, table.width * 4
        self._count = np.frombuffer(buffer, np.int64, 1, start)
        self._ids = np.frombuffer(buffer, np.int64, table.capacity, ids_start)
        flat = np.frombuffer(buffer, np.float32, table.capacity * table.width, rows_start)
        self._rows = flat.reshape(table.capacity, table.width)

    def get(self) -> Slices:
        """Views of the slices that lie there."""
        count = int(self._count[0])
        return Slices(self._ids[:count], self._rows[:count])

    def set(self, slices: Slices) -> None:
        """Copies slices there; they must not lie there already."""
        count = slices.ids.size
        self._count[0] = count
        np.copyto(self._ids[:count], slices.ids)
        np.copyto(self._rows[:count], slices.rows)

    def used(self) -> list[tuple[int, int]]:
        """Bytes [first, end) of the buffer that hold the slices."""
        count = int(self._count[0])
        ids_end = self._start + ALIGNMENT_BYTES + count * 8
        return [(self._start, ids_end), (self._rows_start, self._rows_start + count * self._row_bytes)]

    def add(self, other: SlicesPlace) -> None:
        """Adds another table's slices to those that lie here."""
        mine, theirs = self.get(), other.get()
        if theirs.ids.size:
            self.set(added(mine, theirs))


def added(left: Slices, right: Slices) -> Slices:
    """The sum of two gradients, in new memory: left + right where both have a row."""
    place = np.searchsorted(left.ids, right.ids)
    inside = np.minimum(place, max(left.ids.size - 1, 0))
    is_known = left.ids[inside] == right.ids if left.ids.size else np.zeros(right.ids.size, bool)
    new_ids = right.ids[~is_known]
    ids = np.empty(left.ids.size + new_ids.size, np.int64)
    rows = np.empty((ids.size, right.rows.shape[1]), np.float32)
    # A row's place in the sum is its own number, plus how many of the other side stand before it.
    of_left = np.arange(left.ids.size) + np.searchsorted(new_ids, left.ids)
    of_new = np.arange(new_ids.size) + place[~is_known]
    ids[of_left], ids[of_new] = left.ids, new_ids
    rows[of_left], rows[of_new] = left.rows, right.rows[~is_known]
    known = of_left[inside[is_known]]
    rows[known] = rows[known] + right.rows[is_known]
    return Slices(ids, rows)
