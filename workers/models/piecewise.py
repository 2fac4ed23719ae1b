"""Fills large variables piece by piece with the bits of Keras's initialiser, which takes three times a table at once.

TensorFlow keeps that memory for later, which a trainer has no use for.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend import Variable
from keras.src.backend.tensorflow.random import _cast_seed
from keras.src.random.seed_generator import draw_seed

from workers.binding import share

LARGE_BYTES = 1 << 24
"""Smaller variables are filled as ever."""
PIECE_ELEMENTS = 1 << 20
PHILOX = 1
"""As TensorFlow numbers its generators; what it takes on a CPU."""
BLOCK_ELEMENTS = 4
"""What Philox (Salmon et al. 2011) gives for one number of its counter."""


@contextmanager
def piecewise() -> Iterator[None]:
    """Within the block, Keras fills large variables of `RandomUniform`, as embeddings have it, piece by piece."""
    fill = Variable._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> None:
        shape, dtype = variable._shape, str(variable._dtype)
        is_large = math.prod(shape) * 4 >= LARGE_BYTES and dtype == "float32"
        is_known = type(initializer) is keras.initializers.RandomUniform and isinstance(initializer.seed, int)
        if is_large and is_known:
            variable._initialize(share(uniform(initializer, shape)))
        else:
            fill(variable, initializer)

    Variable._initialize_with_initializer = initialize
    try:
        yield
    finally:
        Variable._initialize_with_initializer = fill


def uniform(initializer: keras.initializers.RandomUniform, shape: tuple[int, ...]) -> np.ndarray:
    """What the initialiser gives for this shape in float32; its seed is a number."""
    size = math.prod(shape)
    values = np.frombuffer(mmap.mmap(-1, size * 4), np.float32)
    key, counter = tf.raw_ops.StatelessRandomGetKeyCounter(seed=_cast_seed(draw_seed(initializer.seed)))
    low = tf.constant(initializer.minval, tf.float32)
    span = tf.constant(initializer.maxval, tf.float32) - low
    for start in range(0, size, PIECE_ELEMENTS):
        end = min(start + PIECE_ELEMENTS, size)
        at = counter + tf.constant([start // BLOCK_ELEMENTS, 0], tf.uint64)
        drawn = tf.raw_ops.StatelessRandomUniformV2(
            shape=[end - start], key=key, counter=at, alg=PHILOX, dtype=tf.float32
        )
        values[start:end] = (drawn * span + low).numpy()
    return values.reshape(shape)
