"""The norm of a step's gradients, looked at now and then."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from service.training.blocks import Blocks, Scratch
from service.training.summation import GRADIENT, StepSum, Summation

EVERY_S = 0.5
"""At least so long between two looks."""
MAX_SHARE = 1 / 200
"""Of the loop's time, at most so much goes into looks: those at large models come less often."""


class GradientNorm:
    """Belongs to the trainer's loop."""

    def __init__(self, summation: Summation, blocks: Blocks, clock: Callable[[], float] = time.perf_counter) -> None:
        self._summation = summation
        self._blocks = blocks
        self._clock = clock
        self._due_s = -math.inf

    def look(self, total: StepSum) -> float | None:
        """The Euclidean norm of a step's summed gradients, before clipping; None if it is not time to look.

        To be called when `add_up` has summed what is not among the leading gradients.
        """
        started = self._clock()
        if started < self._due_s:
            return None
        norm = self._norm(total)
        now = self._clock()
        self._due_s = now + max(EVERY_S, (now - started) / MAX_SHARE)
        return norm

    def _norm(self, total: StepSum) -> float:
        squares: list[float] = []

        def add(start: int, end: int, scratch: Scratch) -> None:
            block = total.block(0, start, end, scratch)
            squares.append(float(np.dot(block, block)))

        if self._summation.gradients:
            self._blocks.run(self._summation.gradients, add)
        else:
            for name, tensor in self._summation.tensors.items():
                if name.startswith(GRADIENT):
                    squares.append(float(np.square(tensor, dtype=np.float64).sum()))
        for number in range(len(self._summation.layout.tables)):
            rows = total.slices(number).rows.reshape(-1)
            squares.append(float(np.dot(rows, rows)))
        return math.sqrt(math.fsum(squares))  # the threads' order does not matter to an exact sum
