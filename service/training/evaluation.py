"""Evaluates snapshots of the weights on the validation data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from gradwire.spec.job import MAX_SHARDS
from service.training.totals import EpochTotals
from workers.binding import Binding
from workers.concrete import Concrete
from workers.data.batch import Batch, BatchMaker
from workers.data.source import Source
from workers.ids import IdCheck, id_inputs
from workers.mirrors import mirrored
from workers.models.heads import pack_inputs, unpack_outputs
from workers.program import LOSS, Objective, Prepared
from workers.retracing import Shapes, TraceBound, shapes_of
from workers.seeds import seed_states
from workers.variables import ModelVariables

NO_SHARD = MAX_SHARDS
"""What a layer draws in an evaluation belongs to no shard."""


class Evaluator:
    """Losses and metrics as `keras.Model.evaluate` reports them for batches of this size.

    The program is traced with the trainer's model, whose variables training changes meanwhile. It is run on others in
    their place, which read a snapshot.

    Args:
        variables: of the model.
        names: of the snapshot's tensors that these variables are to have, in their order.
        source: of the batches.
        seed: of the job.
        bound: on traces.
    """

    def __init__(
        self, objective: Objective, variables: ModelVariables, names: Sequence[str], batches: BatchMaker,
        source: Source, batch_size: int, seed: int, bound: TraceBound,
    ) -> None:  # fmt: skip
        self._objective = objective
        self._variables = variables
        self._names = names
        self._batches = batches
        self._source = source
        self._batch_size = batch_size
        self._seed = seed
        self._bound = bound
        self._mirrors = mirrored(variables.bound + variables.seeds)
        self._programs: dict[Shapes, tuple[Concrete, IdCheck]] = {}

    def evaluate(self, step: int, tensors: Mapping[str, np.ndarray]) -> EpochTotals:
        """One pass over the data, in its order, with the weights of a snapshot that was taken after `step`.

        What layers draw in it depends on the step alone, not on the evaluations before.

        Raises:
            JobFailed: an id of the data is in no table (code `id_out_of_range`).
        """
        bound, seeds = self._mirrors[: len(self._names)], self._mirrors[len(self._names) :]
        Binding(bound, [tensors[name] for name in self._names]).refresh()
        for mirror, state in zip(seeds, seed_states(self._seed, step, NO_SHARD, len(seeds)), strict=True):
            mirror._value.assign(state)
        totals = EpochTotals([head.output for head in self._objective.losses], self._objective.metrics)
        rows = self._source.rows
        for start in range(0, rows, self._batch_size):
            batch = self._batches.make(np.arange(start, min(start + self._batch_size, rows), dtype=np.int64))
            prepared = Prepared.of(batch)
            program, ids = self._program(batch, prepared.tensors)
            ids.check(batch)
            losses, *counts = program(*prepared.tensors)
            named = zip(self._objective.metrics.tensors, counts, strict=True)
            totals.add({LOSS: losses, **{tensor.name: count for tensor, count in named}}, batch.samples)
        return totals

    def graph(self) -> bytes:
        """The evaluation's graph as a serialised `GraphDef`; empty if there was no evaluation."""
        for program, _ in self._programs.values():
            graph: bytes = program.function.graph.as_graph_def().SerializeToString()
            return graph
        return b""

    def _program(self, batch: Batch, tensors: Sequence[Any]) -> tuple[Concrete, IdCheck]:
        """Traced once for each shape of batches: the last may be shorter, and ragged rows are padded."""
        shapes = shapes_of(batch)
        if shapes not in self._programs:
            self._bound.require(self._programs, batch)
            groups = [tuple(group) for group in (batch.inputs, batch.labels, batch.sample_weights)]

            def run(*flat: Any) -> list[Any]:
                remaining = iter(flat)
                inputs, labels, weights = ({name: next(remaining) for name in group} for group in groups)
                return self._batch(inputs, labels, weights)

            traced = tf.function(run, autograph=False).get_concrete_function(*map(tf.type_spec_from_value, tensors))
            own = self._variables.bound + self._variables.seeds
            pairs = [(mine._value, mirror._value) for mine, mirror in zip(own, self._mirrors, strict=True)]
            tables = {v.path: v._value for v in self._variables.bound if len(v.shape)}
            ids = IdCheck(id_inputs(traced.graph, list(batch.inputs), tables), self._source)
            self._programs[shapes] = Concrete(traced, instead=pairs), ids
        return self._programs[shapes]

    def _batch(self, inputs: Any, labels: Any, weights: Any) -> list[Any]:
        model = self._objective.model
        outputs = unpack_outputs(model, model(pack_inputs(model, inputs), training=False))
        added = model.losses
        losses = []
        for head in self._objective.losses:
            terms = head.terms(labels[head.output], outputs[head.output], weights.get(head.output))
            losses.append(tf.cast(tf.math.divide_no_nan(terms.numerator, terms.denominator), tf.float64))
        total = tf.add_n([loss * head.weight for loss, head in zip(losses, self._objective.losses, strict=True)])
        total += tf.add_n([tf.cast(loss, tf.float64) for loss in added]) if added else 0.0
        return [tf.stack([total, *losses]), *self._objective.metrics.count(labels, outputs)]
