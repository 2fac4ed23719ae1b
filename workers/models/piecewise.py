"""Fills large variables piece by piece with the bits of Keras's initialisers, which take three times a table at once.

TensorFlow keeps that memory for later, which a trainer has no use for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import Variable
from keras.src.backend.tensorflow.random import _cast_seed
from keras.src.initializers import random_initializers
from keras.src.random.seed_generator import draw_seed

from workers.binding import share
from workers.pages import pages

LARGE_BYTES = 1 << 24
"""Smaller variables are filled as ever."""
PIECE_ELEMENTS = 1 << 20
PHILOX = 1
"""As TensorFlow numbers its generators; what it takes on a CPU."""
GROUP = 4
"""Elements that are drawn together; what Philox (Salmon et al. 2011) gives for one number of its counter."""
RESERVED = 256
"""Numbers of the counter that TensorFlow keeps for a group where it draws until it has what it wants."""
KNOWN = (
    keras.initializers.RandomUniform,
    keras.initializers.RandomNormal,
    keras.initializers.TruncatedNormal,
    keras.initializers.VarianceScaling,
)


@contextmanager
def piecewise() -> Iterator[None]:
    """Within the block, Keras's own random initialisers fill large variables piece by piece."""
    fill = Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        shape, dtype = variable._shape, str(variable._dtype)
        is_large = math.prod(shape) * 4 >= LARGE_BYTES and dtype == "float32"
        if is_large and _is_known(initializer):
            variable._initialize(share(filled(initializer, shape)))
        else:
            fill(variable, initializer)

    Variable._initialize_with_initializer = initialize
    try:
        yield
    finally:
        Variable._initialize_with_initializer = fill


def _is_known(initializer: Any) -> bool:
    is_own = type(initializer).__module__ == random_initializers.__name__
    return is_own and isinstance(initializer, KNOWN) and isinstance(initializer.seed, int)


def filled(initializer: Any, shape: Sequence[int]) -> np.ndarray:
    """What one of `KNOWN`, whose seed is a number, gives for this shape in float32."""
    kept, random_initializers.random = random_initializers.random, _Pieces
    try:
        values: np.ndarray = initializer(tuple(shape), dtype="float32")
    finally:
        random_initializers.random = kept
    return values


class _Pieces:
    """Stands in for `keras.random`, as far as initialisers call it, each in float32."""

    @staticmethod
    def uniform(shape: tuple[int, ...], minval: float, maxval: float, dtype: str, seed: int) -> np.ndarray:
        low = tf.constant(minval, tf.float32)
        span = tf.constant(maxval, tf.float32) - low
        return _drawn(tf.raw_ops.StatelessRandomUniformV2, shape, span, low, seed)

    @staticmethod
    def normal(shape: tuple[int, ...], mean: float, stddev: float, dtype: str, seed: int) -> np.ndarray:
        scale, shift = tf.constant(stddev, tf.float32), tf.constant(mean, tf.float32)
        return _drawn(tf.raw_ops.StatelessRandomNormalV2, shape, scale, shift, seed)

    @staticmethod
    def truncated_normal(shape: tuple[int, ...], mean: float, stddev: float, dtype: str, seed: int) -> np.ndarray:
        scale, shift = tf.constant(stddev, tf.float32), tf.constant(mean, tf.float32)
        return _drawn(tf.raw_ops.StatelessTruncatedNormalV2, shape, scale, shift, seed, numbers=RESERVED)


def _drawn(
    draw: Callable[..., Any], shape: tuple[int, ...], scale: Any, shift: Any, seed: int, numbers: int = 1
) -> np.ndarray:
    """drawn · scale + shift, where each group takes so many numbers of the counter."""
    size = math.prod(shape)
    values = np.frombuffer(pages(size * 4), np.float32)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=_cast_seed(draw_seed(seed)))
    for start in range(0, size, PIECE_ELEMENTS):
        end = min(start + PIECE_ELEMENTS, size)
        at = counter + tf.constant([start // GROUP * numbers, 0], tf.uint64)
        drawn = draw(shape=[end - start], key=key, counter=at, alg=PHILOX, dtype=tf.float32)
        values[start:end] = (drawn * scale + shift).numpy()
    return values.reshape(shape)
