"""How the numbers of weights and of a step's gradients are spread, by tensor, for TensorBoard.

Between two steps the trainer's loop only copies a *sample* of each tensor, of a size that does not grow with the model;
the board's thread makes histograms of them. Nothing is written that training reads, so no bit of it changes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import numpy as np
from tensorflow.core.framework import summary_pb2

from gradwire.spec.job import ReportingSpec
from service.training.blocks import Scratch
from service.training.board import TRAIN, Board
from service.training.summation import GRADIENT, StepSum, Summation
from service.training.weights import Weights
from workers.data.schedule import Schedule

BINS = 30
MAX_ELEMENTS = 16_384
"""Of a larger tensor, so many elements evenly over it are looked at."""
MAX_TOTAL = 2**21
"""Of all tensors together; but of each at least `MIN_ELEMENTS`."""
MIN_ELEMENTS = 256
LOOKS = 100
"""So many in a job whose specification does not say how often."""
MAX_SHARE = 1 / 200
"""Of the loop's time, at most so much goes into those."""

Samples = Mapping[str, np.ndarray]


class Histograms:
    """Belongs to the trainer's loop."""

    def __init__(
        self, reporting: ReportingSpec, schedule: Schedule, summation: Summation, weights: Weights, board: Board,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        said = reporting.histograms_every
        self._every_steps = -(-schedule.total_steps // LOOKS) if said is None else said
        self._is_free_to_skip = said is None
        self._total_steps = schedule.total_steps
        self._summation = summation
        self._weights = {name: tensor for name, tensor in weights.by_name.items() if tensor.dtype.kind in "fV"}
        self._board = board
        self._clock = clock
        gradients = [tensor for tensor in summation.layout.tensors if tensor.name.startswith(GRADIENT)]
        count = len(self._weights) + len(gradients) + len(summation.layout.tables)
        self._most = min(max(MAX_TOTAL // count, MIN_ELEMENTS), MAX_ELEMENTS)
        self._scratch = Scratch()
        self._gradients: dict[str, np.ndarray] = {}
        self._is_due = False
        self._due_s = -math.inf
        self._spent_s = 0.0

    def look_at_gradients(self, step: int, total: StepSum) -> None:
        """Keeps samples of the sum that makes step `step`, counted from 1, if it is time for them.

        To be called when `add_up` has summed what is not among the leading gradients.
        """
        self._is_due = self._is_time(step)
        if self._is_due:
            started = self._clock()
            self._gradients = dict(self._sampled(total))
            self._spent_s = self._clock() - started

    def look_at_weights(self, step: int, *, is_last: bool) -> None:
        """Hands samples of the weights, and of the gradients that made them, to the board, if it is time for them."""
        if not self._is_due and not (is_last and self._every_steps):
            return
        started = self._clock()
        weights = {name: sample(tensor, self._most) for name, tensor in self._weights.items()}
        samples, self._gradients = self._gradients | weights, {}
        self._board.add(step, TRAIN, lambda: summary_of(samples))
        now = self._clock()
        self._due_s = now + (self._spent_s + now - started + self._board.last_made_s) / MAX_SHARE
        self._is_due, self._spent_s = False, 0.0

    def _is_time(self, step: int) -> bool:
        if not self._every_steps or (step % self._every_steps and step != self._total_steps):
            return False
        return not self._is_free_to_skip or self._clock() >= self._due_s

    def _sampled(self, total: StepSum) -> list[tuple[str, np.ndarray]]:
        layout, leading = self._summation.layout, self._summation.gradients
        found = []
        for tensor, offset in zip(layout.tensors, layout.offsets, strict=True):
            if not tensor.name.startswith(GRADIENT) or not tensor.elements:
                continue
            if leading:
                first, stride = offset // 4, stride_of(tensor.elements, tensor.shape[-1:], self._most)
                block = total.block(0, first, first + tensor.elements, self._scratch, stride)
                found.append((tensor.name, block.copy()))
            else:
                found.append((tensor.name, sample(self._summation.tensors[tensor.name], self._most)))
        for number, table in enumerate(layout.tables):
            found.append((f"{GRADIENT}{table.name}", sample(total.slices(number).rows, self._most)))
        return found


def sample(tensor: np.ndarray, most: int) -> np.ndarray:
    """A copy of at most so many of a tensor's elements, evenly over it."""
    copied: np.ndarray = tensor.reshape(-1)[:: stride_of(tensor.size, tensor.shape[-1:], most)].copy()
    return copied


def stride_of(elements: int, last: tuple[int, ...], most: int) -> int:
    """The distance of the elements that are looked at; prime to the last dimension, so that all columns have a turn."""
    stride = max(-(-elements // most), 1)
    while last and stride > 1 and math.gcd(stride, last[0]) > 1:
        stride += 1
    return stride


def summary_of(samples: Samples) -> summary_pb2.Summary:
    """Their histograms; none of what is empty."""
    values = [
        summary_pb2.Summary.Value(tag=name, histo=histogram(tensor)) for name, tensor in samples.items() if tensor.size
    ]
    return summary_pb2.Summary(value=values)


def histogram(numbers: np.ndarray) -> summary_pb2.HistogramProto:
    """How numbers are spread; those that are not finite are left out."""
    numbers = numbers.astype(np.float64)
    numbers = numbers[np.isfinite(numbers)]
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    first, last = (low, high) if high > low else (low - 0.5, low + 0.5)
    # As numpy.histogram, which takes several times as long.
    places = np.minimum(((numbers - first) * (BINS / (last - first))).astype(np.int64), BINS - 1)
    return summary_pb2.HistogramProto(
        min=low,
        max=high,
        num=float(numbers.size),
        sum=float(numbers.sum()),
        sum_squares=float(np.dot(numbers, numbers)),
        # TensorBoard takes the first limit as the left edge of all.
        bucket_limit=np.linspace(first, last, BINS + 1).tolist(),
        bucket=[0.0, *np.bincount(places, minlength=BINS).astype(float).tolist()],
    )
