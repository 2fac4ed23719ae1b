"""A language model of bytes in two stages: convolutions see words, attention sees lines; both predict the next byte."""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

BYTES = 128
"""Source code is ASCII; anything else counts as byte 0."""
WINDOW = 64


def rows(part: str, kilobytes: int = 600) -> dict[str, np.ndarray]:
    """Windows of the source of Python's standard library; every tenth is for validation."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    text = np.frombuffer(b"".join(file.read_bytes() for file in files)[: kilobytes << 10], np.uint8)
    text = np.where(text < BYTES, text, 0).astype(np.int32)
    windows = text[: text.size // WINDOW * WINDOW].reshape(-1, WINDOW)
    windows = np.concatenate([windows[:-1], windows[1:, :1]], axis=1)
    is_validation = np.arange(len(windows)) % 10 == 9
    chosen = windows[is_validation if part == "validation" else ~is_validation]
    return {"text": chosen[:, :-1], "next": chosen[:, 1:]}


class Bytes(layers.Layer):
    """One table that is read at the input and predicts at the output."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(BYTES, self.size), initializer="glorot_uniform", name="table")
        self.places = self.add_weight(shape=(WINDOW, self.size), initializer="glorot_uniform", name="places")

    def call(self, x: Any, reverse: bool = False) -> Any:
        if reverse:
            return ops.matmul(x, ops.transpose(self.table))
        return 4.0 * (ops.take(self.table, x, axis=0) + self.places)


class Perplexity(keras.metrics.Mean):
    """How many bytes the model wavers between: the exponential of the mean cross-entropy."""

    def __init__(self, name: str = "perplexity") -> None:
        super().__init__(name=name)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True))

    def result(self) -> Any:
        return ops.exp(super().result())


def build(size: int = 64, blocks: int = 2) -> keras.Model:
    text = keras.Input((WINDOW,), dtype="int32", name="text")
    embedding = Bytes(size, name="bytes")
    first = embedding(text)
    for width in (1, 2):
        seen = layers.Conv1D(size, 5, padding="causal", dilation_rate=width, activation="gelu", name=f"words_{width}")(
            first
        )
        first = layers.LayerNormalization(name=f"words_norm_{width}")(
            layers.Add(name=f"words_add_{width}")([first, seen])
        )
    value = first
    for number in range(blocks):
        seen = layers.MultiHeadAttention(4, size // 4, name=f"attention_{number}")(value, value, use_causal_mask=True)
        value = layers.LayerNormalization(name=f"norm_{number}")(layers.Add(name=f"add_{number}")([value, seen]))
        wide = layers.Dense(2 * size, activation="gelu", name=f"wide_{number}")(value)
        value = layers.Add(name=f"sum_{number}")([value, layers.Dense(size, name=f"narrow_{number}")(wide)])
    value = layers.LayerNormalization(name="last_norm")(layers.Add(name="both")([first, value]))
    outputs = {"next": embedding(value, reverse=True), "draft": embedding(first, reverse=True)}
    return keras.Model(text, outputs, name="text")
