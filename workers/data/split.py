"""A seeded split of rows into training and validation."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from workers.data import faults
from workers.data.permutation import Permutation
from workers.data.source import ArrayInfo, Rows, Source, check_ids


@dataclass(frozen=True, slots=True)
class Subset:
    """The rows that stand at [start, stop) of a permutation, numbered from 0."""

    permutation: Permutation
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def ids(self, positions: np.ndarray) -> np.ndarray:
        """The row ids (int64) of the whole at positions in [0, rows) of the subset."""
        return self.permutation.at(positions + self.start)


def split(rows: int, share: float, seed: int) -> tuple[Subset, Subset]:
    """Training and validation, disjoint and together everything, equal on every node.

    Validation has `round(rows * share)` rows, at least 1 and at most `rows - 1`.

    Raises:
        JobFailed: `data_shape` if there are fewer than two rows.
    """
    if rows <= 1:
        raise faults.wrong_shape(
            f"data.validation.split needs at least 2 rows and there is {rows}; give data.validation.source instead"
        )
    validation = min(max(round(rows * share), 1), rows - 1)
    permutation = Permutation(rows, key=(seed,))  # a shorter key than any epoch's order has
    return Subset(permutation, validation, rows), Subset(permutation, 0, validation)


MAX_TABLE_ROWS = 1 << 20
"""8 MiB as a table; a larger subset is permuted batch by batch."""


class SubsetSource:
    """The rows of a subset of a source, as a source."""

    def __init__(self, source: Source, subset: Subset) -> None:
        self._source = source
        self._subset = subset
        # Permuting the rows of every batch a second time costs more than a table of a small subset.
        everything = np.arange(subset.rows if subset.rows <= MAX_TABLE_ROWS else 0, dtype=np.int64)
        self._table = subset.ids(everything)

    @property
    def name(self) -> str:
        return self._source.name

    @property
    def rows(self) -> int:
        return self._subset.rows

    @property
    def arrays(self) -> Mapping[str, ArrayInfo]:
        return self._source.arrays

    def take(self, ids: np.ndarray, names: Collection[str] | None = None) -> dict[str, Rows]:
        check_ids(self.name, ids, self.rows)
        return self._source.take(self._whole(ids), names)

    def lengths(self, name: str, ids: np.ndarray) -> np.ndarray:
        return self._source.lengths(name, self._whole(ids))

    def longest(self, name: str) -> int | None:
        """Of the whole, so that both sides of a split have one."""
        return self._source.longest(name)

    def file_rows(self, ids: np.ndarray) -> np.ndarray:
        return self._source.file_rows(self._whole(ids))

    def _whole(self, ids: np.ndarray) -> np.ndarray:
        return self._table[ids] if self._table.size else self._subset.ids(ids)
