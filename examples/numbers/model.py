"""A transformer that reads numbers in digits and writes them in words; one table for digits, words and predictions."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

ONES = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
WORDS = ["<pad>", "<start>", "<end>", *"0123456789", *ONES, *TENS, "hundred", "thousand"]
NUMBER = {word: number for number, word in enumerate(WORDS)}
DIGITS, LENGTH = 4, 8


def spelled(number: int) -> list[str]:
    """The English words of a number below ten thousand."""
    if number < 20:
        return [ONES[number]]
    if number < 100:
        return [TENS[number // 10 - 2], *(spelled(number % 10) if number % 10 else [])]
    size, name = (1000, "thousand") if number >= 1000 else (100, "hundred")
    return [*spelled(number // size), name, *(spelled(number % size) if number % size else [])]


def rows() -> dict[str, np.ndarray]:
    """All numbers below ten thousand; the words are given up to each one that is asked for."""
    source = np.array([[NUMBER[digit] for digit in f"{number:04d}"] for number in range(10_000)], np.int32)
    target = np.zeros((10_000, LENGTH + 1), np.int32)
    for number in range(10_000):
        words = ["<start>", *spelled(number), "<end>"]
        target[number, : len(words)] = [NUMBER[word] for word in words]
    return {"digits": source, "words": target[:, :-1], "next": target[:, 1:]}


class Table(layers.Layer):
    """Tokens and places to vectors, and vectors back to tokens, by one table."""

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.size = size

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(len(WORDS), self.size), initializer="glorot_uniform", name="tokens")
        self.places = self.add_weight(shape=(LENGTH, self.size), initializer="glorot_uniform", name="places")

    def call(self, x: Any, *, is_output: bool = False) -> Any:
        if is_output:
            return 3.0 * ops.matmul(x, ops.transpose(self.table))
        return 3.0 * (ops.take(self.table, x, axis=0) + self.places[: x.shape[1]])

    def compute_output_spec(self, x: Any, *, is_output: bool = False) -> Any:
        return keras.KerasTensor(
            (*x.shape[:-1], len(WORDS)) if is_output else (*x.shape, self.size), self.compute_dtype
        )


def block(value: Any, memory: Any, name: str, *, is_causal: bool = False) -> Any:
    """Attention with a skip connection."""
    size = value.shape[-1]
    seen = layers.MultiHeadAttention(4, size // 4, name=name)(value, memory, use_causal_mask=is_causal)
    return layers.LayerNormalization(name=f"{name}_norm")(layers.Add(name=f"{name}_add")([value, seen]))


def build(size: int = 48) -> keras.Model:
    digits = keras.Input((DIGITS,), dtype="int32", name="digits")
    words = keras.Input((LENGTH,), dtype="int32", name="words")
    table = Table(size, name="table")
    memory = table(digits)
    memory = block(memory, memory, "encode")
    value = table(words)
    value = block(value, value, "decode", is_causal=True)
    value = block(value, memory, "cross")
    wide = layers.Dense(2 * size, activation="relu", name="wide")(value)
    value = layers.LayerNormalization(name="norm")(
        layers.Add(name="add")([value, layers.Dense(size, name="narrow")(wide)])
    )
    return keras.Model([digits, words], {"next": table(value, is_output=True)}, name="numbers")


def whole_numbers(y_true: Any, y_pred: Any) -> Any:
    """Whether every word of a number is right."""
    is_right = ops.equal(ops.cast(ops.argmax(y_pred, axis=-1), "int32"), ops.cast(y_true, "int32"))
    return ops.cast(ops.all(ops.logical_or(is_right, ops.equal(y_true, 0)), axis=-1), "float32")
