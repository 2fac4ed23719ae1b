"""Computes nodes of the summation tree: shard by shard, added up in the tree's order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradwire.errors import JobFailed
from gradwire.spec.job import TrainingSpec
from workers.data.prefetch import Prefetcher
from workers.ids import require_known
from workers.layout import Layout
from workers.program import LOSS, GradientProgram, Prepared, Share
from workers.rows import Rows
from workers.seeds import seed_states
from workers.slices import Slices
from workers.tree import Node

Parts = tuple[Prepared, ...]
"""A shard's samples, in micro-batches."""

PIECE_ELEMENTS = 64 * 1024

MICRO_BATCH = 0
"""The scratch buffer of this size, which no node has, is for micro-batches."""


@dataclass(slots=True)
class Times:
    """Seconds that a node took: waiting for data, computing, copying and adding."""

    data_s: float = 0.0
    compute_s: float = 0.0
    copy_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchTerms:
    """What a shard has to know of its batch besides its own samples: the same in every order of a step."""

    denominators: tuple[float, ...] = ()
    loss_scale: float = 1.0


class Accumulator:
    """A buffer for one contribution: views by tensor and by section over the same memory, and the tables' slices."""

    def __init__(self, layout: Layout, buffer: object, start: int = 0) -> None:
        self.tensors = layout.views(buffer, start)
        self.sections = layout.flat(buffer, start)
        self.places = layout.places(buffer, start)
        self._flat = [tensor.reshape(-1) for tensor in self.tensors]

    def fill(self, outputs: Sequence[np.ndarray]) -> bool:
        """Sets all tensors; returns whether they are finite beyond doubt.

        Piece by piece, so that the look at a piece finds it in the cache. A square overflows before its number does: a
        doubt may be unfounded.
        """
        squares = self._fill_slices(outputs[len(self._flat) :])
        for place, output in zip(self._flat, outputs[: len(self._flat)], strict=True):
            values, is_float = output.reshape(-1), place.dtype.kind == "f"
            for start in range(0, place.size, PIECE_ELEMENTS):
                piece = place[start : start + PIECE_ELEMENTS]
                np.copyto(piece, values[start : start + PIECE_ELEMENTS])
                if is_float:
                    squares += float(np.dot(piece, piece))
        return math.isfinite(squares)

    def _fill_slices(self, outputs: Sequence[np.ndarray]) -> float:
        """Sets the tables' slices, which are count, ids and rows for each; returns the sum of their squares."""
        squares = 0.0
        for place, count, ids, rows in zip(self.places, *(outputs[part::3] for part in range(3)), strict=True):
            found = Slices(ids[: int(count)], rows[: int(count)])
            place.set(found)
            flat = found.rows.reshape(-1)
            squares += float(np.dot(flat, flat))
        return squares

    def add(self, other: Accumulator) -> None:
        """Adds another contribution to this one."""
        for mine, theirs in zip(self.sections, other.sections, strict=True):
            np.add(mine, theirs, out=mine)
        for place, added in zip(self.places, other.places, strict=True):
            place.add(added)


class NodeComputer:
    """Runs the gradient program for nodes. Belongs to the computing thread."""

    def __init__(
        self, program: GradientProgram, rows: Rows, prefetcher: Prefetcher[Parts], training: TrainingSpec
    ) -> None:
        self._program = program
        self._rows = rows
        self._source = rows.train
        self._schedule = rows.schedule
        self._prefetcher = prefetcher
        self._seed = training.seed
        self._skips = training.on_nonfinite == "skip"
        self._is_scaling = training.precision == "mixed_float16"
        self._layout = program.contribution()
        self._scratch: dict[int, Accumulator] = {}
        self._counted: dict[tuple[int, int], Parts] = {}
        self._constant: dict[int, Parts] = {}
        self._times = Times()
        self.phase = "idle"

    @property
    def traces(self) -> int:
        """How often the programs have been traced so far."""
        return self._program.traces

    def compute(self, step: int, node: Node, batch: BatchTerms, into: Accumulator) -> Times:
        """Writes a node's contribution.

        Raises:
            JobFailed: a loss or gradient is not finite, and the job does not skip such steps (code `nonfinite`).
        """
        self._times = Times()
        self._prepare_next(step, node)
        self._sum(step, node, batch, into)
        return self._times

    def denominators(self, step: int, node: Node) -> tuple[float, ...]:
        """For each shard of a node, the denominators that have to be exchanged."""
        counted: list[float] = []
        self._counted.clear()
        for shard in range(node.lo, node.hi):
            parts = self._counted[step, shard] = self._samples(step, shard)
            pairs = enumerate(parts)
            by_part = [self._program.denominators(part, self._seeds(step, shard, number)) for number, part in pairs]
            counted += [sum(of_head) for of_head in zip(*by_part, strict=True)]
        return tuple(counted)

    def _sum(self, step: int, node: Node, batch: BatchTerms, into: Accumulator) -> None:
        if node.is_leaf:
            self._leaf(step, node.lo, batch, into)
            return
        left, right = node.children()
        self._sum(step, left, batch, into)
        scratch = self._scratch_of(node.size)
        self._sum(step, right, batch, scratch)
        self._add(into, scratch)

    def _leaf(self, step: int, shard: int, batch: BatchTerms, into: Accumulator) -> None:
        begun = time.perf_counter()
        self.phase = "data"
        parts = self._counted.pop((step, shard), None) or self._samples(step, shard)
        self.phase = "compute"
        self._times.data_s += time.perf_counter() - begun
        batch_samples, is_finite = self._schedule.batch_samples(step), True
        for number, part in enumerate(parts):
            is_first = shard == number == 0
            share = Share(part.batch.samples, batch_samples, batch.denominators, is_first, batch.loss_scale)
            place = self._scratch_of(MICRO_BATCH) if number else into
            is_finite &= self._run(part, share, self._seeds(step, shard, number), place)
            if number:
                self._add(into, place)
        for table, found in zip(self._layout.tables, into.places, strict=True):
            require_known(table, found.get(), lambda: self._rows.samples(step, shard))
        if not is_finite:
            self._look(step, shard, into)

    def _run(self, part: Prepared, share: Share, seeds: np.ndarray, into: Accumulator) -> bool:
        """Computes a micro-batch; returns whether it is finite beyond doubt."""
        begun = time.perf_counter()
        if not self._program.is_traced(part):
            self.phase = "trace"
        outputs = self._program.run(part, share, seeds)
        self.phase = "compute"
        computed = time.perf_counter()
        is_finite = into.fill(outputs)
        self._times.compute_s += computed - begun
        self._times.copy_s += time.perf_counter() - computed
        return is_finite

    def _add(self, into: Accumulator, other: Accumulator) -> None:
        begun = time.perf_counter()
        into.add(other)
        self._times.copy_s += time.perf_counter() - begun

    def _samples(self, step: int, shard: int) -> Parts:
        if not self._schedule.is_constant:
            return self._prefetcher.get(step, shard)
        if shard not in self._constant:
            self._constant[shard] = self._prefetcher.get(step, shard)
        return self._constant[shard]

    def _scratch_of(self, size: int) -> Accumulator:
        """A buffer for each depth of the tree, since a right child is summed while its left siblings wait."""
        if size not in self._scratch:
            self._scratch[size] = Accumulator(self._layout, bytearray(self._layout.total_bytes))
        return self._scratch[size]

    def _prepare_next(self, step: int, node: Node) -> None:
        """While this node is computed: its own shards not yet asked for, and those of the next step, in order."""
        if self._schedule.is_constant:
            return
        wanted = [(step, shard) for shard in range(node.lo, node.hi)]
        if step + 1 < self._schedule.total_steps:
            present = [shard for shard in range(node.lo, node.hi) if self._schedule.shard_samples(step + 1, shard)]
            wanted += [(step + 1, shard) for shard in present]
        self._prefetcher.expect(wanted)

    def _seeds(self, step: int, shard: int, part: int) -> np.ndarray:
        return seed_states(self._seed, step, shard, len(self._program.variables.seeds), part)

    def _look(self, step: int, shard: int, into: Accumulator) -> None:
        """Fails the job, or flags the contribution, if a number is not finite."""
        pairs = zip(self._layout.tensors, into.tensors, strict=True)
        names = [tensor.name for tensor, values in pairs if not np.isfinite(values).all()]
        tables = zip(self._layout.tables, into.places, strict=True)
        names += [f"gradient/{table.name}" for table, place in tables if not np.isfinite(place.get().rows).all()]
        if names and self._may_skip(names):
            into.tensors[-1][...] = 1.0
        elif names:
            ids = self._source.file_rows(self._schedule.ids(step, shard))
            raise JobFailed(
                f"{_reading(names)} not finite in step {step + 1}, shard {shard}, rows {_few(ids)} of "
                f"{self._source.name}: look at these rows, lower the learning rate, or clip gradients "
                "(training.gradientClip)",
                code="nonfinite",
                details="\n".join(names),
            )

    def _may_skip(self, names: list[str]) -> bool:
        """A smaller loss scale can only mend gradients."""
        return self._skips or (self._is_scaling and all(map(_is_gradient, names)))


def _is_gradient(name: str) -> bool:
    return name.startswith("gradient/")


def _reading(names: list[str]) -> str:
    if LOSS in names:
        return "the loss is"
    return f"the {names[0]} is" if len(names) == 1 else f"the {names[0]} and {len(names) - 1} others are"


def _few(ids: np.ndarray) -> str:
    shown = ", ".join(str(value) for value in ids[:5])
    return f"{shown}, …" if len(ids) > 5 else shown
