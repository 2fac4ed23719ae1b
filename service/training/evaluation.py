"""Evaluates the trainer's model on the validation data."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from service.training.totals import EpochTotals
from workers.data.batch import BatchMaker
from workers.models.heads import pack_inputs, unpack_outputs
from workers.program import LOSS, Objective, tensors_of


class Evaluator:
    """Losses and metrics as `keras.Model.evaluate` reports them for batches of this size."""

    def __init__(self, objective: Objective, batches: BatchMaker, rows: int, batch_size: int) -> None:
        self._objective = objective
        self._batches = batches
        self._rows = rows
        self._batch_size = batch_size
        self._totals = EpochTotals([head.output for head in objective.losses], objective.metrics)
        self._program = tf.function(self._batch, autograph=False)
        self._specs: tuple[Any, ...] = ()

    def evaluate(self) -> dict[str, float]:
        """One pass over the data, in its order, with the weights that the trainer's model has now."""
        self._totals.clear()
        for start in range(0, self._rows, self._batch_size):
            batch = self._batches.make(np.arange(start, min(start + self._batch_size, self._rows), dtype=np.int64))
            arguments = tuple(map(tensors_of, (batch.inputs, batch.labels, batch.sample_weights)))
            losses, counts = self._program(*arguments)
            self._specs = self._specs or tf.nest.map_structure(tf.type_spec_from_value, arguments)
            named = zip(self._objective.metrics.tensors, counts, strict=True)
            values = {tensor.name: np.asarray(count) for tensor, count in named}
            self._totals.add({LOSS: np.asarray(losses), **values}, batch.samples)
        return self._totals.values()

    def graph(self) -> bytes:
        """The evaluation's graph as a serialised `GraphDef`; empty if there was no evaluation."""
        if not self._specs:
            return b""
        graph: bytes = self._program.get_concrete_function(*self._specs).graph.as_graph_def().SerializeToString()
        return graph

    def _batch(self, inputs: Any, labels: Any, weights: Any) -> tuple[Any, list[Any]]:
        model = self._objective.model
        outputs = unpack_outputs(model, model(pack_inputs(model, inputs), training=False))
        added = model.losses
        losses = []
        for head in self._objective.losses:
            terms = head.terms(labels[head.output], outputs[head.output], weights.get(head.output))
            losses.append(tf.cast(tf.math.divide_no_nan(terms.numerator, terms.denominator), tf.float64))
        total = tf.add_n([loss * head.weight for loss, head in zip(losses, self._objective.losses, strict=True)])
        total += tf.add_n([tf.cast(loss, tf.float64) for loss in added]) if added else 0.0
        return tf.stack([total, *losses]), self._objective.metrics.count(labels, outputs)
