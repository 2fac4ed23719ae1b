"""Variables in the place of a model's own, so that a traced program reads other values than the model has."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import tensorflow as tf

from workers.binding import share
from workers.models.unfilled import untouched
from workers.variables import adopted


def mirrored(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    """Variables of the same shapes and dtypes, to be bound to memory; until then large ones take none."""
    return [adopted(variable.path, _like(variable)) for variable in variables]


def _like(variable: keras.Variable) -> tf.Variable:
    zeros = untouched(tuple(variable.shape), str(variable.dtype))
    value = tf.zeros(variable.shape, variable.dtype) if zeros is None else share(zeros)
    return tf.Variable(value, trainable=False)
