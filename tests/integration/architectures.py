"""Small models of many shapes, each with data that fits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from workers.data.source import ArrayInfo


def info(*shape: int, dtype: str = "float32") -> ArrayInfo:
    return ArrayInfo(shape, np.dtype(dtype))


def conv() -> keras.Model:
    x = keras.Input((8, 8, 1), name="image")
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, activation="relu")(x))
    return keras.Model(x, layers.Dense(10, name="digit")(layers.GlobalAveragePooling2D()(y)))


def masked_lstm() -> keras.Model:
    x = keras.Input((None,), dtype="int32", name="tokens")
    y = layers.LSTM(4, return_sequences=True)(layers.Embedding(20, 3, mask_zero=True)(x))
    return keras.Model(x, layers.Dense(5, name="tag")(y))


def attention() -> keras.Model:
    x = keras.Input((6, 4), name="rows")
    y = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 2)(x, x))
    return keras.Model(x, layers.Dense(1, name="score")(layers.GlobalAveragePooling1D()(y)))


def two_by_two() -> keras.Model:
    a, b = keras.Input((3,), name="a"), keras.Input((2,), name="b")
    shared = layers.Dense(4, activation="tanh", name="shared")
    y = layers.concatenate([shared(a), shared(layers.Dense(3)(b))])
    outputs = [layers.Dense(3, activation="softmax", name="kind")(y), layers.Dense(1, name="size")(y)]
    return keras.Model([a, b], outputs)


def dicts() -> keras.Model:
    # Keys in another order than Keras flattens them.
    inputs = {"z": keras.Input((2,), name="z"), "a": keras.Input((3,), name="a")}
    y = layers.Dense(4)(layers.concatenate([inputs["z"], inputs["a"]]))
    return keras.Model(inputs, {"right": layers.Dense(1)(y), "left": layers.Dense(3)(y)})


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="relu")], name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(2, name="out")(inner(inner(x)) * 0.5))


def sequential() -> keras.Model:
    return keras.Sequential([keras.Input((4,), name="features"), layers.Dropout(0.5), layers.Dense(1, name="target")])


Info = dict[str, ArrayInfo]
CASES: dict[str, tuple[Callable[[], keras.Model], Any, Any, Any, Info]] = {
    "conv": (
        conv,
        "pixels",
        "y",
        {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}},
        {"pixels": info(8, 8), "y": info(dtype="int64")},
    ),
    "masked lstm": (
        masked_lstm,
        {"tokens": "t"},
        {"tag": "y"},
        {"tag": {"name": "sparse_categorical_crossentropy", "config": {"from_logits": True}}},
        {"t": info(7, dtype="int64"), "y": info(7, dtype="int32")},
    ),
    "attention": (attention, "x", "y", "mse", {"x": info(6, 4), "y": info(dtype="float64")}),
    "several heads": (
        two_by_two,
        {"a": "first", "b": "second"},
        {"kind": "k", "size": "s"},
        {"kind": "categorical_crossentropy", "size": "Huber"},
        {"first": info(3), "second": info(2), "k": info(3), "s": info(1)},
    ),
    "dicts": (
        dicts,
        {"a": "a", "z": "z"},
        {"left": "l", "right": "r"},
        {"left": "mae", "right": "mse"},
        {"a": info(3), "z": info(2), "l": info(3), "r": info()},
    ),
    "nested": (nested, "x", "y", "mse", {"x": info(4), "y": info(2)}),
    "sequential": (sequential, {"features": "x"}, {"target": "y"}, {"target": "mse"}, {"x": info(4), "y": info()}),
}
