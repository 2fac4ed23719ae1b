"""Sum, update and new weights in one pass over memory, on all cores, for the optimisers that `rules.py` knows."""

from __future__ import annotations

import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import keras
import numpy as np

from service.training.blocks import Blocks, Scratch
from service.training.changes import Rows
from service.training.clipping import Clipping, Gradients, take_over_clip
from service.training.groups import Groups, Segment
from service.training.late_copy import TableWatch
from service.training.row_update import RowUpdate, reach_of
from service.training.rules import AdagradRule, AdamRule, RmspropRule, Rule, SgdRule, StepScalars
from service.training.runs import Run, runs_of
from service.training.scalars import Scalars
from service.training.summation import StepSum, Summation
from service.training.weights import Copy
from workers.exchange.room import Room
from workers.layout import Layout, Tensor
from workers.pages import HUGE_BYTES, pages, taken
from workers.slices import Table
from workers.variables import ModelVariables

MAX_SHARE = 0.5
"""Of free memory: slots that may take more are taken page by page, as rows are gathered."""
ITERATIONS = "optimizer/iterations"


def rule_of(optimizer: keras.optimizers.Optimizer, variables: ModelVariables) -> Rule | None:
    """The rule with the same bits as a Keras optimiser, or None; then Keras's own update it is."""
    is_plain = (
        optimizer.gradient_accumulation_steps is None and optimizer.loss_scale_factor is None and not optimizer.use_ema
    )
    are_plain = all(
        str(variable.dtype) == "float32" and variable.constraint is None and not variable.overwrite_with_gradient
        for variable in variables.trainable
    )
    if not (is_plain and are_plain and variables.trainable):
        return None
    kind = type(optimizer)
    if kind is keras.optimizers.SGD:
        return SgdRule(optimizer.momentum, is_nesterov=optimizer.nesterov)
    if kind in (keras.optimizers.Adam, keras.optimizers.AdamW) and not optimizer.amsgrad:
        return AdamRule(optimizer.beta_1, optimizer.beta_2, optimizer.epsilon)
    if kind is keras.optimizers.Adagrad:
        return AdagradRule(optimizer.initial_accumulator_value, optimizer.epsilon)
    if kind is keras.optimizers.RMSprop and not optimizer.centered:
        return RmspropRule(optimizer.rho, optimizer.momentum, optimizer.epsilon)
    return None


def is_reordered(rule: Rule, optimizers: Sequence[keras.optimizers.Optimizer], groups: Groups) -> bool:
    """Whether TensorFlow's graph optimiser multiplies in another order than the rule: where nobody but a single weight
    takes a learning rate that is a product, it is one with that of gradient and root."""
    if not rule.has_tails:
        return False
    rates = zip(optimizers, groups.distinct, strict=True)
    return any(len(groups.members(f)) == 1 and not isinstance(o._learning_rate, keras.Variable) for o, f in rates)


class FusedUpdate:
    """Owns the optimiser's slots; writes the trained part of the weights buffer in place.

    Args:
        optimizers: fresh and not built, one for each factor of `groups.distinct`; it clips in their place.
        weights: the trained part of the weights buffer, float32, padding included. Until `attach` says other, the
            gradients lie likewise.
        variables: to name the slots in checkpoints.
        is_lazy: whether tables are updated where they were gathered only.
    """

    def __init__(
        self, optimizers: Sequence[keras.optimizers.Optimizer], rule: Rule, weights: np.ndarray,
        variables: ModelVariables, blocks: Blocks, groups: Groups, *, is_lazy: bool = False,
    ) -> None:  # fmt: skip
        self._rule = rule
        self._clip = take_over_clip(optimizers)
        self._clips_rate = isinstance(rule, SgdRule) and self._clip is not None and self._clip.kind == "global_norm"
        self._clipping: Clipping | None = None
        self._weights = weights
        self._blocks = blocks
        self._is_lazy = is_lazy
        self._scalars = [
            Scalars(optimizer, weights=len(groups.members(factor)), is_clipped=self._clips_rate)
            for optimizer, factor in zip(optimizers, groups.distinct, strict=True)
        ]
        self._ready: list[StepScalars] | None = None
        self._segments = _segments(rule, groups, variables, weights.size)
        self._first = [segment.start for segment in self._segments]
        are_huge = weights.nbytes * len(rule.slots) <= MAX_SHARE * Room.now().free_bytes
        self._buffers = [pages(weights.nbytes, are_huge=are_huge) for _ in rule.slots]
        self._slots = [np.frombuffer(buffer, np.float32, weights.size) for buffer in self._buffers]
        if rule.initial:
            for slot in self._slots:
                slot.fill(rule.initial)
        elif are_huge and weights.nbytes >= HUGE_BYTES:
            taken(self._buffers)  # while the workers trace their programs
        self._views = _views(rule, self._buffers, variables)
        tensors = [Tensor(name, view.shape, "float32") for name, view in self._views.items()]
        self.layout = Layout.of([Tensor(ITERATIONS, (), "int64"), *tensors])
        self._variables = variables
        self._runs = [Run(0, 0, weights.size)]
        self._tables: list[tuple[RowUpdate, Segment]] = []
        self.changed: Sequence[Rows] = ()
        self.watches: Sequence[TableWatch] = ()

    def attach(self, summation: Summation) -> None:
        """Learns where the gradients lie, and which are sparse."""
        self._runs = runs_of(summation.layout, self._variables)
        assert summation.gradients == sum(run.size for run in self._runs), "there are gradients of no weights"
        places = dict(zip(self._variables.trained_paths, _starts(self._variables), strict=True))
        self._tables = [self._row_update(table, places[table.name]) for table in summation.layout.tables]
        self.watches = [table.watch for table, _ in self._tables]
        if self._clip is not None:
            paths = self._variables.trained_paths
            self._clipping = Clipping(self._clip, paths, summation, is_in_rate=self._clips_rate)

    def _row_update(self, table: Table, start: int) -> tuple[RowUpdate, Segment]:
        def rows(array: np.ndarray) -> np.ndarray:
            return array[start : start + table.rows * table.width].reshape(table.rows, table.width)

        (segment,) = self._within(start, start + 1)
        is_decayed = segment.is_decayed and self._scalars[segment.group].decays
        reach = reach_of(self._rule, table.width, is_lazy=self._is_lazy, is_decayed=is_decayed)
        slots = [rows(slot) for slot in self._slots]
        is_fresh = self._iterations == 0
        return RowUpdate(self._rule, rows(self._weights), slots, reach, self._blocks, is_fresh=is_fresh), segment

    def prepare(self) -> None:
        """Has Keras compute the next step's scalars, while the workers compute."""
        if self._ready is None and not self._clips_rate:
            self._ready = [scalars.next() for scalars in self._scalars]

    def apply(self, total: StepSum) -> None:
        """Updates the weights by the sum of a step's gradients."""
        gradients: Gradients = total
        factor = None
        if self._clipping is not None:
            gradients, factor = self._clipping.clipped(total)
        ready = self._ready or [scalars.next(factor) for scalars in self._scalars]
        self._ready = None
        for run in self._runs:
            self._apply_run(run, gradients, ready)
        slices = [gradients.slices(number) for number in range(len(self._tables))]
        calls = [
            partial(table.apply, _scalars(ready, segment), found)
            for (table, segment), found in zip(self._tables, slices, strict=True)
        ]
        are_short = all(table.is_short(found) for (table, _), found in zip(self._tables, slices, strict=True))
        self.changed = self._blocks.each(calls) if are_short else [call() for call in calls]

    def _apply_run(self, run: Run, gradients: Gradients, ready: Sequence[StepScalars]) -> None:
        def update(start: int, end: int, scratch: Scratch) -> None:
            gradient = gradients.block(0, run.gradients + start, run.gradients + end, scratch)
            first = run.weights + start
            for segment in self._within(first, run.weights + end):
                part = slice(segment.start, segment.end)
                self._update(_scalars(ready, segment), gradient[part.start - first : part.stop - first], part, scratch)

        self._blocks.run(run.size, update)

    def learning_rate(self) -> float:
        """Of the next step, as the optimiser has it now; with several factors, of the first."""
        return self._scalars[0].learning_rate()

    def _update(self, scalars: StepScalars, gradient: np.ndarray, part: slice, scratch: Scratch) -> None:
        temporary = [scratch.like(number, gradient) for number in range(self._rule.scratch)]
        slots = [slot[part] for slot in self._slots]
        self._rule.update(scalars, gradient, self._weights[part], slots, temporary)

    def _within(self, start: int, end: int) -> Iterator[Segment]:
        """The segments of elements [start, end), cut to them."""
        number = bisect_right(self._first, start) - 1
        while number < len(self._segments) and self._segments[number].start < end:
            segment = self._segments[number]
            if segment.end > start:  # a block may begin in the padding behind a variable
                yield replace(segment, start=max(segment.start, start), end=min(segment.end, end))
            number += 1

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies the optimiser's state to arrays as `layout` tells."""
        target[ITERATIONS][...] = self._iterations
        for name, view in self._views.items():
            copy(target[name], view)

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets the optimiser's state to a snapshot's."""
        self._ready = None
        for scalars in self._scalars:
            scalars.restore(int(tensors[ITERATIONS]))
        for name, view in self._views.items():
            np.copyto(view, tensors[name])

    @property
    def _iterations(self) -> int:
        """Updates so far; the scalars that lie ready belong to the next."""
        return self._scalars[0].iterations - (self._ready is not None)


def _scalars(ready: Sequence[StepScalars], segment: Segment) -> StepScalars:
    scalars = ready[segment.group]
    return scalars if segment.is_decayed else replace(scalars, decay=None)


def _starts(variables: ModelVariables) -> list[int]:
    """Where each trained variable begins, in elements."""
    count = len(variables.trainable)
    return [offset // 4 for offset in variables.layout().offsets[:count]]


def _segments(rule: Rule, groups: Groups, variables: ModelVariables, end: int) -> list[Segment]:
    starts = _starts(variables)
    if not rule.has_tails:
        return groups.segments(starts, end)
    return groups.apart(starts, [tensor.elements for tensor in variables.layout().tensors[: len(starts)]])


def _views(rule: Rule, buffers: list[mmap.mmap], variables: ModelVariables) -> dict[str, np.ndarray]:
    """Each slot of each variable by name; they lie in their buffers as the weights do in theirs."""
    layout, count = variables.layout(), len(variables.trainable)
    return {
        f"optimizer/{slot}/{tensor.name.removeprefix('weights/')}": np.frombuffer(
            buffer, np.float32, tensor.elements, offset
        ).reshape(tensor.shape)
        for slot, buffer in zip(rule.slots, buffers, strict=True)
        for tensor, offset in zip(layout.tensors[:count], layout.offsets[:count], strict=True)
    }
