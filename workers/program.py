"""The gradient program: one shard's gradients, state changes, metric counts and losses, traced by tf.function.

The program reads the model's own variables, which are bound to the weights buffer; seeds come in and changed state goes
out through `keras.StatelessScope`. What it returns has one meaning: added over the shards, it is the whole batch's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwire.errors import JobFailed
from workers.binding import can_share, share
from workers.concrete import Concrete
from workers.data.batch import Batch
from workers.ids import IdInput, id_inputs
from workers.layout import Layout, Tensor
from workers.losses import HeadLoss, Terms
from workers.metrics import MetricSet
from workers.models.heads import Heads, pack_inputs, unpack_outputs
from workers.purity import check_pure
from workers.retracing import Shapes, TraceBound, shapes_of
from workers.sparse import Mode, SparseGradients, divided
from workers.variables import ModelVariables

NONFINITE = "nonfinite"
"""Only in contributions of jobs that skip steps: float64 of shape (1,), how many shards were not finite."""

MAX_KEPT = 64
"""Kinds of shards (first or not, full or not) whose scalars are kept as tensors."""

LOSS = "loss"
"""The last tensor of a contribution: float64 of shape (1 + heads,), the total and each head's loss."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What is differentiated: the model with the losses and metrics of its heads."""

    model: keras.Model
    heads: Heads
    losses: tuple[HeadLoss, ...]
    metrics: MetricSet


@dataclass(frozen=True, slots=True)
class Share:
    """One shard's part in its batch.

    samples: of the shard. batch_samples: of the batch. denominators: of the whole batch, one for each head whose kind
    is exchanged, in head order. is_first: whether it is shard 0, which alone contributes changes of whole-number state.
    """

    samples: int
    batch_samples: int
    denominators: tuple[float, ...]
    is_first: bool
    loss_scale: float = 1.0
    """What the loss is multiplied by for the backward pass, and the gradients are divided by after it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One shard's samples as tensors, in the order of the program's arguments; they share the batch's memory."""

    batch: Batch
    tensors: tuple[Any, ...]
    shapes: Shapes

    @classmethod
    def of(cls, batch: Batch) -> Prepared:
        return cls(batch, tuple(_tensor(array) for array in _arrays(batch)), shapes_of(batch))


@dataclass(frozen=True, slots=True)
class _Traced:
    """The program for batches of one shape. `terms` are the heads', of which only numbers and words are read."""

    step: Concrete
    count: Concrete | None
    terms: tuple[Terms, ...]


class GradientProgram:
    """Traces once for each number of samples, and each length that they are padded to, and runs shards.

    Args:
        objective: the model, built.
        xla: whether to compile by XLA; part of the numerics.
        is_scaling: whether shards have a loss scale.
        is_flagged: whether contributions have a place for `NONFINITE`.
        sparse: how tables are updated.
        parts: at most so many runs make up a batch.
        bound: on traces; none where it is not given.
    """

    def __init__(
        self, objective: Objective, *, xla: bool = False, is_scaling: bool = False, is_flagged: bool = False,
        sparse: Mode = "exact", parts: int = 1, bound: TraceBound | None = None,
    ) -> None:  # fmt: skip
        self._objective = objective
        self._variables = ModelVariables.of(objective.model)
        self._sparse = SparseGradients(self._variables, sparse, parts)
        self._xla = xla
        self._is_scaling = is_scaling
        self._is_flagged = is_flagged
        self._bound = bound
        self._traced: dict[Shapes, _Traced] = {}
        self._kinds: tuple[Terms, ...] = ()
        self._changed: tuple[int, ...] = ()
        self._kept: dict[tuple[Share, Shapes], tuple[Any, ...]] = {}
        self.traces = 0
        """How often TensorFlow has traced; more than `trace` was called for holds steps up."""
        self.id_inputs: dict[IdInput, None] = {}
        """The inputs that are looked up in tables, in order."""
        self._no_seeds = tf.zeros((0, 2), tf.int64)

    @property
    def variables(self) -> ModelVariables:
        return self._variables

    @property
    def exchanged_heads(self) -> int:
        """How many heads have a denominator that only the model or the data know."""
        return sum(terms.kind == "exchanged" for terms in self._kinds)

    def trace(self, batch: Batch) -> None:
        """Traces the program for a batch of these shapes, and checks that it is pure.

        Raises:
            JobFailed: a variable that no loss reaches, an impure model, or more traces than are allowed.
        """
        if self._bound is not None:
            self._bound.require(self._traced, batch)
        groups = [tuple(group) for group in (batch.inputs, batch.labels, batch.sample_weights)]
        specs = [tf.TensorSpec(array.shape, array.dtype) for array in _arrays(batch)]
        seeds = tf.TensorSpec((len(self._variables.seeds), 2), tf.int64)
        scales = tf.TensorSpec((len(self._objective.losses),), tf.float32)

        def step(*flat: Any) -> list[Any]:
            self.traces += 1
            inputs, labels, weights = _named(groups, flat[: -len(scalars)])
            return self._step(inputs, labels, weights, *flat[-len(scalars) :])

        def count(*flat: Any) -> list[Any]:
            self.traces += 1
            inputs, labels, weights = _named(groups, flat[:-1])
            return [self._count(inputs, labels, weights, flat[-1])]

        function = tf.function(step, jit_compile=self._xla, autograph=False)
        number = tf.TensorSpec((), tf.float32)
        scalars = [seeds, scales, number, tf.TensorSpec((), tf.bool), *[number] * self._is_scaling]
        concrete = function.get_concrete_function(*specs, *scalars)
        known = [variable._value for variable in self._variables.bound + self._variables.seeds]
        check_pure(concrete, known, {layer.name for layer in self._objective.model._flatten_layers()})
        tables = {v.path: v._value for v in self._variables.bound if len(v.shape)}
        self.id_inputs |= dict.fromkeys(id_inputs(concrete.graph, list(batch.inputs), tables))
        terms, counter = self._kinds, None
        if self.exchanged_heads:
            counter = Concrete(tf.function(count, autograph=False).get_concrete_function(*specs, seeds))
        self._traced[shapes_of(batch)] = _Traced(Concrete(concrete), counter, terms)

    def contribution(self) -> Layout:
        """The layout of what `run` returns; after the first trace."""
        variables = self._variables
        tensors = [
            Tensor(f"gradient/{name.removeprefix('weights/')}", tuple(int(n) for n in v.shape), str(v.dtype))
            for index, (name, v) in enumerate(zip(variables.names, variables.trainable, strict=False))
            if not self._sparse.is_sparse(index)
        ]
        for index in self._changed:
            state = variables.state[index]
            name = variables.names[len(variables.trainable) + index]
            tensors.append(Tensor(name, tuple(int(n) for n in state.shape), str(state.dtype)))
        flags = [Tensor(NONFINITE, (1,), "float64")] * self._is_flagged
        losses = Tensor(LOSS, (1 + len(self._kinds),), "float64")
        return Layout.of([*tensors, *self._objective.metrics.tensors, losses, *flags], self._sparse.tables)

    def run(self, prepared: Prepared, share: Share, seeds: np.ndarray) -> list[np.ndarray]:
        """One shard's contribution, tensor by tensor of the layout, then count, ids and rows of each table; not to be
        written to.

        Args:
            prepared: the shard's samples; shapes that come for the first time are traced now.
            seeds: int64 of shape (seed generators, 2).
        """
        traced = self._traced_for(prepared)
        return traced.step(*prepared.tensors, self._seeds(seeds), *self._scalars(share, prepared.shapes, traced.terms))

    def denominators(self, prepared: Prepared, seeds: np.ndarray) -> tuple[float, ...]:
        """This shard's denominators of the heads that need them exchanged."""
        count = self._traced_for(prepared).count
        assert count is not None  # the trainer asks only where heads are exchanged
        (counted,) = count(*prepared.tensors, self._seeds(seeds))
        return tuple(float(value) for value in counted)

    def is_traced(self, prepared: Prepared) -> bool:
        """Whether a batch of these shapes runs without a trace."""
        return prepared.shapes in self._traced

    def _traced_for(self, prepared: Prepared) -> _Traced:
        found = self._traced.get(prepared.shapes)
        if found is None:
            self.trace(prepared.batch)
            found = self._traced[prepared.shapes]
        return found

    def _scales(self, share: Share, heads: Sequence[Terms]) -> np.ndarray:
        """1 / denominator of the whole batch for each head; 0 where nothing is valid."""
        remaining = iter(share.denominators)
        scales = []
        for terms in heads:
            if terms.kind == "one":
                denominator = 1.0
            elif terms.kind == "samples":
                denominator = terms.elements_per_sample * share.batch_samples
            else:
                denominator = next(remaining)
            scales.append(1.0 / denominator if denominator else 0.0)
        return np.array(scales, np.float32)

    def _scalars(self, share: Share, shapes: Shapes, heads: Sequence[Terms]) -> tuple[Any, ...]:
        """Scales, share and whether it is first, as tensors; kept where they come again, as in every full batch."""
        found = self._kept.get((share, shapes))
        if found is None:
            part = tf.constant(share.samples / share.batch_samples, tf.float32)
            scale = [tf.constant(share.loss_scale, tf.float32)] * self._is_scaling
            found = (tf.constant(self._scales(share, heads)), part, tf.constant(share.is_first), *scale)
            if not share.denominators and len(self._kept) < MAX_KEPT:
                self._kept[share, shapes] = found
        return found

    def _seeds(self, seeds: np.ndarray) -> Any:
        return tf.constant(seeds) if seeds.size else self._no_seeds

    def _forward(self, inputs: Mapping[str, Any], seeds: Any) -> tuple[dict[str, Any], Any, keras.StatelessScope]:
        """Model outputs by name, the sum of added and regularisation losses (or None), and the scope with new state."""
        model = self._objective.model
        mapping = [(variable, seeds[i]) for i, variable in enumerate(self._variables.seeds)]
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            outputs = model(pack_inputs(model, inputs), training=True)
        # Outside the scope, where regularisers see the variables themselves; in it they would see only mapped ones.
        # Under a mixed policy those of layers may be of a smaller dtype.
        floatx = keras.backend.floatx()
        added = [tf.cast(loss, floatx) for loss in (*scope.losses, *model._get_regularization_losses())]
        return unpack_outputs(model, outputs), tf.add_n(added) if added else None, scope

    def _terms(self, outputs: Mapping[str, Any], labels: Mapping[str, Any], weights: Mapping[str, Any]) -> list[Terms]:
        terms = [
            head.terms(labels[head.output], outputs[head.output], weights.get(head.output))
            for head in self._objective.losses
        ]
        self._kinds = tuple(terms)
        return terms

    def _count(self, inputs: Any, labels: Any, weights: Any, seeds: Any) -> Any:
        """Grappler prunes the forward pass down to what the masks need."""
        outputs, _, _ = self._forward(inputs, seeds)
        terms = self._terms(outputs, labels, weights)
        return tf.stack([tf.cast(term.denominator, tf.float64) for term in terms if term.kind == "exchanged"])

    def _step(
        self, inputs: Any, labels: Any, weights: Any, seeds: Any, scales: Any, share: Any, first: Any, *loss_scale: Any
    ) -> list[Any]:
        with tf.GradientTape() as tape:
            outputs, added, scope = self._forward(inputs, seeds)
            terms = self._terms(outputs, labels, weights)
            losses = [term.numerator * tf.cast(scales[i], term.numerator.dtype) for i, term in enumerate(terms)]
            parts = [loss * head.weight for loss, head in zip(losses, self._objective.losses, strict=True)]
            if added is not None:
                parts.append(added * tf.cast(share, added.dtype))
            total = tf.add_n(parts)
            target = total * loss_scale[0] if loss_scale else total
        found = self._gradients(tape, target)
        if loss_scale:
            found = [divided(gradient, loss_scale[0]) for gradient in found]
        gradients, slices = self._sparse.split(found)
        changes = self._changes(scope, share, first)
        counts = self._objective.metrics.count(labels, outputs)
        flags = [tf.zeros((1,), tf.float64)] * self._is_flagged  # whoever sees the results sets it
        return [
            *[*gradients, *changes, *counts],
            tf.stack([tf.cast(value, tf.float64) for value in (total, *losses)]),
            *[*flags, *slices],
        ]

    def _gradients(self, tape: tf.GradientTape, total: Any) -> list[Any]:
        targets = [variable._value for variable in self._variables.trainable]
        gradients = tape.gradient(total, targets)
        unreached = [
            v.path for v, gradient in zip(self._variables.trainable, gradients, strict=True) if gradient is None
        ]
        if unreached:
            raise JobFailed(
                f"no loss reaches the trainable variables {', '.join(unreached[:5])}"
                f"{' and others' if len(unreached) > 5 else ''}: connect their layers to an output that has a loss, or "
                "set trainable=False",
                code="unreached_variable",
            )
        return list(gradients)

    def _changes(self, scope: keras.StatelessScope, share: Any, first: Any) -> list[Any]:
        """This shard's part of the change of each state that a step changes: added up, a mean weighted by samples."""
        new = [scope.get_current_value(variable) for variable in self._variables.state]
        self._changed = tuple(index for index, value in enumerate(new) if value is not None)
        return [_change(self._variables.state[index], new[index], share, first) for index in self._changed]


def _change(variable: keras.Variable, new: Any, share: Any, first: Any) -> Any:
    old = variable._value
    if old.dtype.is_floating:
        return (tf.cast(new, old.dtype) - old) * tf.cast(share, old.dtype)
    if old.dtype.is_integer:
        # A mean of whole numbers is none; shard 0 decides.
        return tf.where(first, tf.cast(new, old.dtype) - old, tf.zeros_like(old))
    raise JobFailed(
        f"state '{variable.path}' is {old.dtype.name}, which cannot be merged over shards", code="impure_model"
    )


def _arrays(batch: Batch) -> list[np.ndarray]:
    return [*batch.inputs.values(), *batch.labels.values(), *batch.sample_weights.values()]


def _named(groups: Sequence[tuple[str, ...]], flat: Sequence[Any]) -> list[dict[str, Any]]:
    """Inputs, labels and sample weights by name."""
    remaining = iter(flat)
    return [{name: next(remaining) for name in group} for group in groups]


def _tensor(array: np.ndarray) -> Any:
    return share(array) if can_share(array) else tf.convert_to_tensor(array)
