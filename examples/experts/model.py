"""Digits read column by column in a loop that ends with the last ink, then judged by two of eight experts."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers


def rows() -> dict[str, np.ndarray]:
    """scikit-learn's digits as columns of eight numbers, and how many of them there are from first to last ink."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    columns = (digits.images / 16.0).astype(np.float32).transpose(0, 2, 1)
    has_ink = columns.any(axis=2)
    first, last = has_ink.argmax(axis=1), 7 - has_ink[:, ::-1].argmax(axis=1)
    moved = (np.arange(8)[None, :] + first[:, None]) % 8  # blank columns go to the end, where they are not read
    return {
        "columns": np.take_along_axis(columns, moved[:, :, None], axis=1),
        "length": (last - first + 1).astype(np.int32),
        "digit": digits.target.astype(np.int32),
    }


class ReadColumns(layers.Layer):
    """A gated recurrent cell in `tf.while_loop`: as many steps as the longest of the shard's digits needs."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape: Any) -> None:
        size = (shape[0][-1] + self.units, self.units)
        self.gate = self.add_weight(shape=size, name="gate")
        self.candidate = self.add_weight(shape=size, name="candidate")

    def call(self, inputs: Any) -> Any:
        columns, length = inputs

        def step(time: Any, state: Any) -> Any:
            seen = tf.concat([columns[:, time], state], axis=1)
            gate = tf.sigmoid(tf.matmul(seen, self.gate))
            new = gate * state + (1.0 - gate) * tf.tanh(tf.matmul(seen, self.candidate))
            return time + 1, tf.where((time < length)[:, None], new, state)

        start = (tf.constant(0), tf.zeros((tf.shape(columns)[0], self.units)))
        longest = tf.reduce_max(length)
        return tf.while_loop(lambda time, _: time < longest, step, start)[1]


class Experts(layers.Layer):
    """Each row goes to the experts that its router likes best; a loss of its own keeps them all busy."""

    def __init__(self, experts: int, units: int, top: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.experts, self.units, self.top = experts, units, top

    def build(self, shape: Any) -> None:
        self.router = self.add_weight(shape=(shape[-1], self.experts), name="router")
        self.kernels = self.add_weight(shape=(self.experts, shape[-1], self.units), name="kernels")

    def call(self, x: Any) -> Any:
        likes = tf.nn.softmax(tf.matmul(x, self.router))
        gates, chosen = tf.math.top_k(likes, k=self.top)
        self.add_loss(0.01 * self.experts * tf.reduce_sum(tf.square(tf.reduce_mean(likes, axis=0))))
        value = tf.einsum("bi,bkio->bko", x, tf.gather(self.kernels, chosen))
        return tf.reduce_sum(
            (gates / tf.reduce_sum(gates, axis=1, keepdims=True))[..., None] * tf.nn.relu(value), axis=1
        )


class Brighten(layers.Layer):
    """A branch that only dark shards take: `tf.cond` on what the data say."""

    def build(self, shape: Any) -> None:
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")

    def call(self, x: Any) -> Any:
        return tf.cond(tf.reduce_mean(x) < 0.305, lambda: x * self.factor, lambda: tf.identity(x))


def build(units: int = 48) -> keras.Model:
    columns, length = keras.Input((8, 8), name="columns"), keras.Input((), dtype="int32", name="length")
    value = ReadColumns(units, name="read")([Brighten(name="brighten")(columns), length])
    value = layers.LayerNormalization(name="norm")(value)
    value = layers.Add(name="add")([value, Experts(8, units, name="experts")(value)])
    return keras.Model({"columns": columns, "length": length}, layers.Dense(10, name="digit")(value), name="experts")
