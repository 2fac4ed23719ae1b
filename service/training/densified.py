"""Dense gradients of tables, for optimisers that take no rows."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from service.training.summation import GRADIENT, StepSum
from workers.slices import Table


class Densified:
    """A buffer for each table, which is zero but for the rows of the step under way."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._rows = [_zeros(table) for table in tables]
        self.gradients = {f"{GRADIENT}{table.name}": rows for table, rows in zip(tables, self._rows, strict=True)}
        """By name, of shape (rows, width)."""

    @contextmanager
    def set(self, total: StepSum) -> Iterator[None]:
        """Within the block the gradients are those of a step."""
        found = [total.slices(number) for number in range(len(self._rows))]
        for rows, slices in zip(self._rows, found, strict=True):
            rows[slices.ids] = slices.rows
        try:
            yield
        finally:
            for rows, slices in zip(self._rows, found, strict=True):
                rows[slices.ids] = 0.0


def _zeros(table: Table) -> np.ndarray:
    buffer = mmap.mmap(-1, table.rows * table.width * 4)  # pages, hence aligned
    return np.frombuffer(buffer, np.float32).reshape(table.rows, table.width)
