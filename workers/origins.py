"""Where the values of a tensor come from, through operations that pass values on and compute none.

Which of its elements an origin passes on is found by passing their numbers on in NumPy, as the graph does the values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

SAME_VALUES = ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "StopGradient", "Snapshot", "ReadVariableOp")
"""Operations that give what their first input holds, in order."""
JOINED = ("ConcatV2", "Pack")
"""Operations that give what all their inputs hold, the axis of ConcatV2 apart."""
ELSEWHERE = -1
"""Stands for elements that come from another origin."""

Numbers = np.ndarray
Step = Callable[[Numbers], Numbers]


class _Lost(Exception):
    """Nobody knows which element is where."""


@dataclass(frozen=True, slots=True)
class Origin:
    """A tensor whose values another one holds, and the way from here to there: each step takes numbers of elements."""

    tensor: Any
    way: tuple[Step, ...] = ()

    def columns(self) -> tuple[int, ...] | None:
        """Which elements of a sample get there, in its flat order; empty for all.

        None where samples, which the first axis counts, differ, or where nobody knows.
        """
        shape = self.tensor.shape
        if not shape.is_fully_defined() or not shape.rank or not shape.num_elements():
            return None
        samples, size = int(shape[0]), int(shape.num_elements())
        numbers = np.arange(size).reshape(tuple(shape))
        try:
            for step in self.way:
                numbers = step(numbers)
        except _Lost:
            return None
        passed = np.unique(numbers[numbers != ELSEWHERE])
        columns = np.unique(passed % (size // samples))
        if not passed.size or passed.size != samples * columns.size:
            return None
        return () if passed.size == size else tuple(columns.tolist())


def origins(tensor: Any, way: tuple[Step, ...] = ()) -> Iterator[Origin]:
    """The tensors whose values a tensor of a graph holds.

    Args:
        way: from the tensor on, to where its values are wanted.
    """
    op = tensor.op
    if op.type == "SelectV2" and op.inputs[0].op.type == "Less" and op.inputs[1].op.type == "AddV2":
        yield from origins(op.inputs[2], way)  # how Keras counts negative ids from the end
    elif op.type in JOINED:
        for number, joined in enumerate(op.inputs[: -1 if op.type == "ConcatV2" else None]):
            yield from origins(joined, (_joining(op, number), *way))
    elif (step := _step(tensor)) is not None:
        yield from origins(op.inputs[_passed(op)], (step, *way))
    else:
        yield Origin(tensor, way)


def _step(tensor: Any) -> Step | None:
    """What an operation with one input makes of numbers; None if it computes, or what it takes is not constant."""
    op = tensor.op
    if op.type in SAME_VALUES:
        return _as_they_are(tuple(tensor.shape)) if tensor.shape.is_fully_defined() else _lost
    if op.type not in SELECTIONS:
        return None
    constants = [tf.get_static_value(found) for number, found in enumerate(op.inputs) if number != _passed(op)]
    return None if any(constant is None for constant in constants) else SELECTIONS[op.type](tensor, *constants)


def _passed(op: Any) -> int:
    """The number of the input whose values are passed on."""
    return 1 if op.type == "Split" else 0


def _as_they_are(shape: tuple[int, ...]) -> Step:
    return lambda numbers: numbers.reshape(shape)


def _lost(numbers: Numbers) -> Numbers:
    raise _Lost


def _split(tensor: Any, axis: np.ndarray) -> Step:
    parts, number = tensor.op.get_attr("num_split"), tensor.value_index
    return lambda numbers: np.split(numbers, parts, int(axis))[number]


def _split_by_sizes(tensor: Any, sizes: np.ndarray, axis: np.ndarray) -> Step:
    number = tensor.value_index
    if (sizes < 0).any():
        return _lost
    return lambda numbers: np.split(numbers, np.cumsum(sizes)[:-1], int(axis))[number]


def _unpack(tensor: Any) -> Step:
    axis, number = tensor.op.get_attr("axis"), tensor.value_index
    return lambda numbers: numbers.take(number, axis)


def _slice(tensor: Any, begin: np.ndarray, size: np.ndarray) -> Step:
    index = tuple(slice(b, None if n < 0 else b + n) for b, n in zip(begin.tolist(), size.tolist(), strict=True))
    return lambda numbers: numbers[index]


def _strided_slice(tensor: Any, begin: np.ndarray, end: np.ndarray, strides: np.ndarray) -> Step:
    index = _index(tensor.op, begin, end, strides)
    return lambda numbers: numbers[index]


def _transpose(tensor: Any, axes: np.ndarray) -> Step:
    return lambda numbers: numbers.transpose(axes)


def _gather(tensor: Any, ids: np.ndarray, axis: np.ndarray) -> Step:
    return _lost if tensor.op.get_attr("batch_dims") else lambda numbers: numbers.take(ids, int(axis))


SELECTIONS: dict[str, Callable[..., Step]] = {
    "Split": _split,
    "SplitV": _split_by_sizes,
    "Unpack": _unpack,
    "Slice": _slice,
    "StridedSlice": _strided_slice,
    "Transpose": _transpose,
    "GatherV2": _gather,
}
"""Operations that pass some of one input's values on; the other inputs are constants."""


def _joining(op: Any, number: int) -> Step:
    """What a concatenation makes of the numbers of one of its inputs."""
    is_stack = op.type == "Pack"
    axis = op.get_attr("axis") if is_stack else tf.get_static_value(op.inputs[-1])
    others = list(op.inputs if is_stack else op.inputs[:-1])

    def join(numbers: Numbers) -> Numbers:
        if axis is None or not all(other.shape.is_fully_defined() for other in others):
            raise _Lost
        parts = [np.full(tuple(other.shape), ELSEWHERE) for other in others]
        parts[number] = numbers
        return np.stack(parts, axis) if is_stack else np.concatenate(parts, int(axis))

    return join


def _index(op: Any, begin: np.ndarray, end: np.ndarray, strides: np.ndarray) -> tuple[Any, ...]:
    """A strided slice as NumPy's index; its masks have a bit for each part (tf.strided_slice)."""
    begins, ends, ellipsis, new, shrunk = (
        op.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    )
    index: list[Any] = []
    for number, (first, last, stride) in enumerate(zip(begin.tolist(), end.tolist(), strides.tolist(), strict=True)):
        bit = 1 << number
        if ellipsis & bit:
            index.append(...)
        elif new & bit:
            index.append(None)
        elif shrunk & bit:
            index.append(first)
        else:
            index.append(slice(None if begins & bit else first, None if ends & bit else last, stride))
    return tuple(index)
