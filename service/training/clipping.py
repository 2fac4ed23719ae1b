"""Clips a step's summed gradient as Keras does, without giving up sums block by block, nor rows of tables.

The norms are Keras's own, computed by TensorFlow, whose order of addition no formula of ours would keep; of a table,
over the rows that its slices have: a dense gradient has nothing but zeros besides. What is left is one or two
operations for each element, which NumPy rounds as TensorFlow does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras.src.optimizers.base_optimizer import global_norm

from gradwire.spec.job import GradientClip
from service.training.blocks import Scratch
from service.training.summation import GRADIENT, StepSum, Summation
from workers.binding import share
from workers.concrete import Concrete
from workers.pages import pages
from workers.slices import Slices, Table

BLOCK = 3
"""The temporary block that holds a clipped one: rules have those before it, sums those behind it."""

Block = Callable[[int, int, int, Scratch], np.ndarray]
"""(section, first element, element after the last, temporary memory) -> the elements."""
Kind = Literal["value", "norm", "global_norm"]


class Gradients(Protocol):
    """The gradient of a step as an update takes it: a `StepSum`, or what is left of it."""

    def block(self, section: int, start: int, end: int, scratch: Scratch) -> np.ndarray:
        """Elements [start, end) of a section; to be read before the same thread asks for others."""

    def slices(self, table: int) -> Slices:
        """Those of a table."""


def take_over_clip(optimizers: Sequence[keras.optimizers.Optimizer]) -> GradientClip | None:
    """How these optimisers clip, all in the same way; from now on they do not."""
    leader = optimizers[0]
    found: dict[Kind, float | None] = {
        "norm": leader.clipnorm, "global_norm": leader.global_clipnorm, "value": leader.clipvalue,
    }  # fmt: skip
    for optimizer in optimizers:
        optimizer.clipnorm = optimizer.global_clipnorm = optimizer.clipvalue = None
    return next((GradientClip(kind=kind, limit=limit) for kind, limit in found.items() if limit), None)


@dataclass(frozen=True, slots=True)
class _Clip:
    """What becomes of one gradient: limited to ±limit, or multiplied and then divided by a number."""

    limit: np.float32 | None = None
    factor: np.float32 | None = None
    divisor: np.float32 | None = None

    def put(self, values: np.ndarray, out: np.ndarray) -> None:
        if self.limit is not None:
            np.clip(values, -self.limit, self.limit, out=out)
        if self.factor is not None:
            np.multiply(values, self.factor, out=out)
        if self.divisor is not None:
            np.divide(out, self.divisor, out=out)


class Clipping:
    """Belongs to the trainer's loop.

    Args:
        paths: of the trained variables, which are all float32, in model order.
        is_in_rate: whether the global norm's factor goes into the rate: of (gradient · factor) · rate TensorFlow's
            graph optimiser makes gradient · (factor · rate).
    """

    def __init__(
        self, clip: GradientClip, paths: Sequence[str], summation: Summation, *, is_in_rate: bool = False
    ) -> None:
        self._clip = clip
        self._limit = np.float32(clip.limit)
        self._summation = summation
        self._paths = list(paths)
        self._is_in_rate = is_in_rate
        self._rows = {table.name: _rows(table) for table in summation.layout.tables}
        tensors = {path: summation.tensors[f"{GRADIENT}{path}"] for path in paths if path not in self._rows}
        self._dense = {path: share(tensor) for path, tensor in tensors.items()}
        self._extents = _extents(summation)
        self._norms = None if clip.kind == "value" else self._traced()

    def clipped(self, total: StepSum) -> tuple[Gradients, np.float32 | None]:
        """A step's gradient, clipped, and the factor that goes into the rate; good until the next is asked for."""
        found = {table.name: total.slices(number) for number, table in enumerate(self._summation.layout.tables)}
        sums: Block = total.block
        if self._norms is None:
            clips = dict.fromkeys(self._paths, _Clip(limit=self._limit))
        else:
            self._summation.add_gradients(total)
            clips, sums = self._look(self._norms, found), self._summation.block
        if self._is_in_rate:
            return _Unclipped(sums, list(found.values())), clips[self._paths[0]].factor
        tables = [self._put(clips[name], self._rows[name], slices) for name, slices in found.items()]
        return _Clipped(sums, [(*extent, clips[path]) for path, extent in self._extents.items()], tables), None

    def _look(self, norms: Concrete, tables: Mapping[str, Slices]) -> dict[str, _Clip]:
        """What becomes of each gradient, by its path; those that are dense have been summed."""
        given = dict(self._dense)
        for name, found in tables.items():
            rows, count = self._rows[name], found.ids.size
            np.copyto(rows[:count], found.rows)
            rows[count] = 0.0  # TensorFlow takes no memory of no bytes, and the norm of nothing is zero
            given[name] = share(rows[: max(count, 1)])
        numbers = norms(*[given[path] for path in self._paths])
        if self._clip.kind == "global_norm":
            return dict.fromkeys(self._paths, _Clip(factor=np.float32(numbers[0])))
        clips = [_Clip(factor=self._limit, divisor=np.float32(number)) for number in numbers]
        return dict(zip(self._paths, clips, strict=True))

    @staticmethod
    def _put(clip: _Clip, rows: np.ndarray, found: Slices) -> Slices:
        out = rows[: found.ids.size]
        clip.put(found.rows, out)
        return Slices(found.ids, out)

    def _traced(self) -> Concrete:
        """The numbers that Keras makes of the gradients' norms, from the gradients in model order."""
        rows = {path: (None, found.shape[1]) for path, found in self._rows.items()}
        specs = [tf.TensorSpec(rows[path] if path in rows else self._dense[path].shape) for path in self._paths]
        limit = self._clip.limit

        def factor(*gradients: Any) -> list[Any]:
            """As `clip_by_global_norm` computes it."""
            norm = global_norm(list(gradients))
            return [limit * keras.ops.minimum(1.0 / norm, 1.0 / limit) + (norm - norm)]

        def divisors(*gradients: Any) -> list[Any]:
            return [keras.ops.maximum(_norm(gradient), limit) for gradient in gradients]

        traced = factor if self._clip.kind == "global_norm" else divisors
        return Concrete(tf.function(traced, autograph=False, jit_compile=False).get_concrete_function(*specs))


def _norm(gradient: Any) -> Any:
    """As `Optimizer._clip_by_norm` computes it."""
    squared = keras.ops.sum(keras.ops.square(gradient))
    is_positive = squared > 0
    root = keras.ops.sqrt(keras.ops.where(is_positive, squared, keras.ops.ones_like(squared)))
    return keras.ops.where(is_positive, root, squared)


@dataclass(frozen=True, slots=True)
class _Unclipped:
    """Gradients whose factor goes into the rate."""

    sums: Block
    tables: Sequence[Slices]

    def block(self, section: int, start: int, end: int, scratch: Scratch) -> np.ndarray:
        return self.sums(section, start, end, scratch)

    def slices(self, table: int) -> Slices:
        return self.tables[table]


@dataclass(frozen=True, slots=True)
class _Clipped:
    """Gradients, clipped as they are asked for; a table's are already.

    pieces: elements [start, end) of the dense gradients, with what becomes of them.
    """

    sums: Block
    pieces: Sequence[tuple[int, int, _Clip]]
    tables: Sequence[Slices]

    def block(self, section: int, start: int, end: int, scratch: Scratch) -> np.ndarray:
        found = self.sums(section, start, end, scratch)
        out = scratch.like(BLOCK, found)
        for first, last, clip in self.pieces:
            part = slice(max(first, start) - start, min(last, end) - start)
            if part.start < part.stop:
                clip.put(found[part], out[part])
        return out

    def slices(self, table: int) -> Slices:
        return self.tables[table]


def _extents(summation: Summation) -> dict[str, tuple[int, int]]:
    """Where each dense gradient begins and ends, padding included, in elements."""
    layout = summation.layout
    found = [
        (offset // 4, tensor.name.removeprefix(GRADIENT))
        for tensor, offset in zip(layout.tensors, layout.offsets, strict=True)
        if tensor.name.startswith(GRADIENT)
    ]
    ends = [*(start for start, _ in found[1:]), summation.gradients]
    return {path: (start, end) for (start, path), end in zip(found, ends, strict=True)}


def _rows(table: Table) -> np.ndarray:
    """Room for the rows of any step, and one more, on a boundary for TensorFlow."""
    buffer = pages((table.capacity + 1) * table.width * 4)
    return np.frombuffer(buffer, np.float32).reshape(table.capacity + 1, table.width)
