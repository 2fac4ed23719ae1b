"""Models without initial values: workers read the trainer's weights, and Keras takes three times a table to fill it."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from keras.src.backend import Variable

from workers.binding import share
from workers.layout import numpy_dtype

LARGE_BYTES = 1 << 20
"""Smaller variables are filled as ever."""


@contextmanager
def unfilled() -> Iterator[None]:
    """Within the block, large variables are made of zeros that take no memory until somebody writes them.

    Such a variable shares memory with nobody else; `Binding` gives it the weights buffer's. The number and order of
    random seeds that Keras draws stay the same: initialisers draw theirs when they are made.
    """
    fill = Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        zeros = untouched(variable._shape, str(variable._dtype))
        if zeros is None:
            fill(variable, initializer)
        else:
            variable._initialize(share(zeros))

    Variable._initialize_with_initializer = initialize
    try:
        yield
    finally:
        Variable._initialize_with_initializer = fill


def untouched(shape: tuple[int, ...], dtype: str) -> np.ndarray | None:
    """Zeros that take no memory yet; None for what is small, or has no such memory."""
    try:
        kind = numpy_dtype(dtype)
    except TypeError:
        return None
    size = math.prod(shape) * kind.itemsize
    if size < LARGE_BYTES or kind.kind not in "iuf":
        return None
    return np.frombuffer(mmap.mmap(-1, size), kind).reshape(shape)
