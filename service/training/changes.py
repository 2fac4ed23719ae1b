"""Which rows of tables changed of late: workers of other nodes are sent those alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from workers.layout import Layout
from workers.slices import Table

MAX_VERSIONS = 64
"""Who has older weights is sent all of them."""

Rows = np.ndarray | None
"""Ids of rows; None for all."""
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a table lies in the weights buffer, in bytes."""

    offset: int
    row_bytes: int
    rows: int

    @property
    def end(self) -> int:
        return self.offset + self.row_bytes * self.rows


@dataclass(frozen=True, slots=True)
class News:
    """What has to be sent: bytes [start, end) of the weights buffer, and rows of tables by id."""

    ranges: Sequence[tuple[int, int]]
    rows: Sequence[tuple[Extent, np.ndarray]]


class Changes:
    """The trainer's loop writes; the streams' threads read. Its own lock guards all its state."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._size = 0
        self._extents: list[Extent] = []
        self._versions: dict[int, Sequence[Rows]] = {}

    def watch(self, weights: Layout, tables: Sequence[Table]) -> None:
        """From now on the rows of these tables count one by one."""
        offsets = dict(zip((tensor.name for tensor in weights.tensors), weights.offsets, strict=True))
        extents = [Extent(offsets[f"weights/{table.name}"], table.width * 4, table.rows) for table in tables]
        with self._lock:
            self._size, self._extents, self._versions = weights.total_bytes, extents, {}

    def committed(self, version: int, rows: Sequence[Rows]) -> None:
        """The step that made this version changed these rows of each table."""
        with self._lock:
            self._versions[version] = rows
            self._versions.pop(version - MAX_VERSIONS, None)

    def since(self, version: int, until: int) -> News | None:
        """What changed after one version up to another; None where all has to be sent."""
        with self._lock:
            steps = [self._versions.get(number) for number in range(version + 1, until + 1)] if version >= 0 else []
            extents, size = list(self._extents), self._size
        if not extents or not steps or None in steps:
            return None
        rows, whole = [], []
        for number, extent in enumerate(extents):
            ids = _united([step[number] for step in steps if step is not None])
            if ids is None:
                whole.append((extent.offset, extent.end))
            elif ids.size:
                rows.append((extent, ids))
        return News([*_between(extents, size), *whole], rows)


def _united(parts: Sequence[Rows]) -> Rows:
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return known[0] if len(known) == 1 else np.unique(np.concatenate(known))


def _between(extents: Sequence[Extent], size: int) -> Iterator[tuple[int, int]]:
    """What of a buffer is no table."""
    end = 0
    for extent in sorted(extents, key=lambda extent: extent.offset):
        if extent.offset > end:
            yield end, extent.offset
        end = extent.end
    if size > end:
        yield end, size
