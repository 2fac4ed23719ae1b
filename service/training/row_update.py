"""Updates a table by a sparse gradient, without a dense one: only the rows that can change.

A rule updates each element by itself (`rules.py`), so that rows may be left out of which it is known that a gradient of
zero would not change them. Those are, with Keras's own bits:

* all rows that were not gathered, for SGD without momentum and Adagrad;
* rows that were never gathered, for SGD with momentum, Adam and RMSprop: their slots are zero and stay so, and
  w - 0 = w. (A weight of -0 stays -0 where Keras's momentum makes it +0.)
* none with weight decay, nor where a row of Adagrad's or RMSprop's is no multiple of TensorFlow's vectors: it would
  have other bits among others than in its place.

Mode lazy leaves out all that were not gathered, whatever the rule: like TensorFlow's LazyAdam and torch's SparseAdam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from service.training.blocks import ALONE_ELEMENTS, Blocks, Scratch
from service.training.changes import Rows
from service.training.late_copy import TableWatch
from service.training.rules import PACKET, Rule, StepScalars
from workers.slices import Slices

SCAN_ROWS = 16 * 1024
MOVED_SHARE = 0.5
"""From this share of moved rows on, all are updated: one after the other in memory they take less time."""
FIRST_FREE = 2
"""Temporary blocks below this number are the rule's."""

Reach = Literal["gathered", "moved", "all"]
"""Which rows an update reaches; moved: those that were ever gathered."""


def reach_of(rule: Rule, width: int, *, is_lazy: bool, is_decayed: bool) -> Reach:
    """The fewest rows of this width that an update has to reach."""
    if is_lazy:
        return "gathered"
    if is_decayed or (rule.has_tails and width % PACKET):
        return "all"
    return "gathered" if rule.rests_always else "moved"


class MovedRows:
    """The rows that were ever gathered, numbered in the order of their first time."""

    def __init__(self, rows: int) -> None:
        self._numbers = np.full(rows, -1, np.int32)
        self._ids = np.empty(rows, np.int64)
        self._count = 0

    @property
    def ids(self) -> np.ndarray:
        return self._ids[: self._count]

    @property
    def are_many(self) -> bool:
        return self._count > MOVED_SHARE * self._ids.size

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """The rows' numbers; new rows get the next ones."""
        numbers: np.ndarray = self._numbers[ids]
        new = ids[numbers < 0]
        if new.size:
            end = self._count + new.size
            self._numbers[new] = np.arange(self._count, end, dtype=np.int32)
            self._ids[self._count : end] = new
            self._count = end
            numbers = self._numbers[ids]
        return numbers


class RowUpdate:
    """One table's update. Belongs to the trainer's loop.

    Args:
        weights: of the table, float32 of shape (rows, width), in the weights buffer. slots: likewise.
        is_fresh: whether no update was made yet, so that all slots are as they begin.
    """

    def __init__(
        self, rule: Rule, weights: np.ndarray, slots: Sequence[np.ndarray], reach: Reach, blocks: Blocks, *,
        is_fresh: bool,
    ) -> None:  # fmt: skip
        self._rule = rule
        self._arrays = [weights, *slots]
        self.watch = TableWatch(self._arrays)
        self._blocks = blocks
        self._reach = reach
        self._moved = MovedRows(len(weights)) if reach == "moved" else None
        if self._moved is not None and not is_fresh:
            self._moved.numbers(_nonzero_rows(slots))

    def is_short(self, gradient: Slices) -> bool:
        """Whether the update takes one thread alone, so that another may update another table meanwhile."""
        return self._reach == "gathered" and gradient.rows.size <= ALONE_ELEMENTS

    def apply(self, scalars: StepScalars, gradient: Slices) -> Rows:
        """Updates weights and slots in place; returns which rows."""
        if self._reach == "gathered":
            self.watch.before_writing(gradient.ids)
            self._update_rows(scalars, gradient.ids, gradient.rows)
            return gradient.ids.copy()  # they may lie in a slot that a worker gets again
        places, ids = gradient.ids, None
        if self._moved is not None:
            numbers = self._moved.numbers(gradient.ids)
            if not self._moved.are_many:
                places, ids = numbers, self._moved.ids
        self.watch.before_writing(ids)
        self._update_among(scalars, ids, places, gradient.rows)
        return ids

    def _update_rows(self, scalars: StepScalars, ids: np.ndarray, rows: np.ndarray) -> None:
        def update(start: int, end: int, scratch: Scratch) -> None:
            self._update(scalars, rows[start:end], ids[start:end], scratch)

        self._blocks.run(ids.size, update, width=rows.shape[1])

    def _update_among(self, scalars: StepScalars, ids: np.ndarray | None, places: np.ndarray, rows: np.ndarray) -> None:
        """Updates rows `ids`, or all; of them those at `places` have a gradient, the others have zero."""
        order = np.argsort(places)
        ascending = places[order]

        def update(start: int, end: int, scratch: Scratch) -> None:
            gradient = _block(scratch, FIRST_FREE, end - start, rows.shape[1])
            gradient[...] = 0.0
            first, last = np.searchsorted(ascending, (start, end))
            gradient[ascending[first:last] - start] = rows[order[first:last]]
            self._update(scalars, gradient, slice(start, end) if ids is None else ids[start:end], scratch)

        self._blocks.run(len(self._arrays[0]) if ids is None else ids.size, update, width=rows.shape[1])

    def _update(self, scalars: StepScalars, gradient: np.ndarray, part: np.ndarray | slice, scratch: Scratch) -> None:
        """Updates a block of rows: neighbours in their place, others in copies."""
        count, width = gradient.shape
        temporary = [_block(scratch, number, count, width).reshape(-1) for number in range(self._rule.scratch)]
        blocks = [
            array[part] if isinstance(part, slice) else _taken(array, part, _block(scratch, number, count, width))
            for number, array in enumerate(self._arrays, start=FIRST_FREE + 1)
        ]
        weights, *slots = (block.reshape(-1) for block in blocks)
        self._rule.update(scalars, gradient.reshape(-1), weights, slots, temporary)
        if not isinstance(part, slice):
            for array, block in zip(self._arrays, blocks, strict=True):
                array[part] = block


def _block(scratch: Scratch, number: int, count: int, width: int) -> np.ndarray:
    found: np.ndarray = scratch[number].view(np.float32)[: count * width].reshape(count, width)
    return found


def _taken(array: np.ndarray, ids: np.ndarray, out: np.ndarray) -> np.ndarray:
    # With mode="raise" NumPy would fill a copy of `out` first. Writing the rows back raises for an id out of range.
    np.take(array, ids, axis=0, out=out, mode="clip")
    return out


def _nonzero_rows(slots: Sequence[np.ndarray]) -> np.ndarray:
    """The rows of which a slot is not zero; piece by piece, since tables are large."""
    found = []
    for start in range(0, len(slots[0]), SCAN_ROWS):
        pieces = [slot[start : start + SCAN_ROWS] for slot in slots]
        is_moved = np.any([piece.any(axis=1) for piece in pieces], axis=0)
        found.append(np.flatnonzero(is_moved) + start)
    return np.concatenate(found)
