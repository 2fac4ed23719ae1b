"""Batches out of arrays in memory, as Keras's own adapter for arrays feeds them: rows gathered by a shuffled index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from benchmarks.models import Arrays, Model
from benchmarks.order import constant_rows, shuffled_rows

Batch = dict[str, Any]


def dataset(model: Model, arrays: Arrays, part: int, parts: int) -> Any:
    """Endless batches of one worker's part of every step, in Gradwire's order; gathered and prefetched by tf.data."""
    memory = {name: tf.constant(array) for name, array in arrays.items()}

    def gather(rows: Any) -> Batch:
        return {name: tf.gather(array, rows) for name, array in memory.items()}

    indices = tf.data.Dataset.from_tensor_slices(shuffled_rows(model, part, parts)).repeat()
    return indices.map(gather, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def constant(model: Model, arrays: Arrays, part: int, parts: int) -> Iterator[Batch]:
    """The same tensors again and again: one worker's part of the first batch."""
    rows = constant_rows(model, part, parts)
    batch = {name: tf.constant(array[rows]) for name, array in arrays.items()}
    while True:
        yield batch
