"""Which gradients stay sparse, and their rows added up by id within the graph.

TensorFlow gives IndexedSlices for a variable that only gathers read: a row for each id that was gathered, an id as
often as it occurs. Where anything else reads the variable too (a tied softmax, a regulariser), the tape gives a dense
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from workers.slices import Table
from workers.variables import ModelVariables

Mode = Literal["exact", "lazy"]

DENSE_BELOW = 4
"""In mode exact, a table with fewer rows than so many times the ids of a batch has a dense gradient: it has the same
bits, and takes less time."""
MAX_WIDTH = 32 * 1024
"""Elements of a row; wider ones are dense."""


class SparseGradients:
    """Splits a trace's gradients into dense and sparse ones; the first trace decides which are sparse.

    Args:
        parts: at most so many runs of the program make up a batch.
    """

    def __init__(self, variables: ModelVariables, mode: Mode, parts: int) -> None:
        self._variables = variables
        self._mode = mode
        self._parts = parts
        self._gathered: dict[int, int] | None = None

    @property
    def tables(self) -> list[Table]:
        """The variables with sparse gradients, in model order; after the first trace."""
        return [self._table(index, gathered) for index, gathered in (self._gathered or {}).items()]

    def is_sparse(self, index: int) -> bool:
        """Whether a trained variable's gradient is sparse; after the first trace."""
        return index in (self._gathered or {})

    def split(self, gradients: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The dense gradients, and for each table the count, the ids and the rows of its slices."""
        if self._gathered is None:
            self._gathered = {index: 0 for index, found in enumerate(gradients) if self._stays_sparse(index, found)}
        dense = [tf.convert_to_tensor(found) for index, found in enumerate(gradients) if index not in self._gathered]
        parts: list[Any] = []
        for index, gathered in self._gathered.items():
            slices = self._slices(gradients[index])
            self._gathered[index] = max(gathered, int(slices.indices.shape[0]))
            parts += deduplicated(slices)
        return dense, parts

    def _stays_sparse(self, index: int, gradient: Any) -> bool:
        variable = self._variables.trainable[index]
        if not isinstance(gradient, tf.IndexedSlices) or str(variable.dtype) != "float32":
            return False
        table = self._table(index, gradient.indices.shape.num_elements() or 0)
        is_small = table.rows < DENSE_BELOW * table.capacity
        return bool(table.capacity) and table.width <= MAX_WIDTH and not (is_small and self._mode == "exact")

    def _slices(self, gradient: Any) -> tf.IndexedSlices:
        if isinstance(gradient, tf.IndexedSlices) and gradient.indices.shape.num_elements():
            return gradient
        dense = tf.convert_to_tensor(gradient)  # another trace's shapes made it so
        return tf.IndexedSlices(dense, tf.range(dense.shape[0]), dense.shape)

    def _table(self, index: int, gathered: int) -> Table:
        variable = self._variables.trainable[index]
        rows, *others = (int(size) for size in variable.shape)
        width = 1
        for size in others:
            width *= size
        capacity = min(rows, gathered * self._parts)
        return Table(self._variables.trained_paths[index], rows, width, capacity)


def divided(gradient: Any, divisor: Any) -> Any:
    """A gradient, dense or sparse, divided by a number."""
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(divided(gradient.values, divisor), gradient.indices, gradient.dense_shape)
    return gradient / tf.cast(divisor, gradient.dtype)


def deduplicated(slices: tf.IndexedSlices) -> list[Any]:
    """Rows added up by id in the order in which they occur, which is the order of the dense gradient.

    Returns:
        count: int32 scalar. ids: int64 of shape (n,), the first `count` ascending. rows: float32 of shape (n, width).
    """
    size = int(slices.indices.shape.num_elements())
    ids = tf.cast(tf.reshape(slices.indices, (size,)), tf.int64)
    rows = tf.reshape(slices.values, (size, -1))
    order = tf.argsort(ids, stable=True)
    ascending = tf.gather(ids, order)
    is_new = tf.concat([tf.zeros(1, tf.int32), tf.cast(ascending[1:] != ascending[:-1], tf.int32)], axis=0)
    number = tf.cumsum(is_new)
    unique = tf.math.unsorted_segment_max(ascending, number, size)
    summed = tf.math.unsorted_segment_sum(tf.gather(rows, order), number, size)
    return [number[-1] + 1, unique, summed]
