"""Models of five kinds with data that they can be trained on, as specifications and as plain Keras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gradwire.spec.job import JobSpec

ROWS = 200
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """`build` gives the model; `loss` holds for each output the Keras name and its config."""

    name: str
    build: Callable[[], Any]
    inputs: Arrays
    labels: Arrays
    loss: dict[str, dict[str, Any]]
    sample_weights: Arrays | None = None


def convolutional(*, has_state: bool = False) -> Case:
    """A branch around a convolution; with state also BatchNorm and Dropout."""

    def build() -> Any:
        from keras import Input, Model, layers

        image = Input((8, 8, 1), name="image")
        value = layers.Conv2D(8, 3, padding="same", activation="relu", name="first")(image)
        branch = layers.Conv2D(8, 3, padding="same", activation="relu", name="second")(value)
        if has_state:
            branch = layers.BatchNormalization(name="norm")(branch)
        value = layers.Add(name="add")([value, branch])
        if has_state:
            value = layers.Dropout(0.3, name="drop")(value)
        value = layers.Flatten(name="flat")(value)
        return Model(image, layers.Dense(10, name="digit")(value))

    rng = np.random.default_rng(1)
    return Case(
        "convolutional",
        build,
        {"image": rng.random((ROWS, 8, 8, 1), np.float32)},
        {"digit": rng.integers(0, 10, ROWS).astype(np.int32)},
        {"digit": {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}},
    )


def recurrent() -> Case:
    """Tags for every word of sentences of different lengths; the padding is masked."""

    def build() -> Any:
        from keras import Input, Model, layers

        words = Input((12,), dtype="int32", name="words")
        value = layers.Embedding(30, 8, mask_zero=True, name="embedding")(words)
        value = layers.LSTM(8, return_sequences=True, name="lstm")(value)
        return Model(words, layers.Dense(5, name="tag")(value))

    rng = np.random.default_rng(2)
    words = rng.integers(1, 30, (ROWS, 12)).astype(np.int32)
    words[np.arange(12) >= rng.integers(1, 13, ROWS)[:, None]] = 0
    return Case(
        "recurrent",
        build,
        {"words": words},
        {"tag": rng.integers(0, 5, (ROWS, 12)).astype(np.int32)},
        {"tag": {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}},
    )


def attention() -> Case:
    """One self-attention block over rows of numbers."""

    def build() -> Any:
        from keras import Input, Model, layers

        rows = Input((6, 8), name="rows")
        seen = layers.MultiHeadAttention(2, 4, name="attention")(rows, rows)
        value = layers.LayerNormalization(name="norm")(layers.Add(name="add")([rows, seen]))
        value = layers.GlobalAveragePooling1D(name="pool")(value)
        return Model(rows, layers.Dense(1, name="score", kernel_regularizer="l2")(value))

    rng = np.random.default_rng(3)
    return Case(
        "attention",
        build,
        {"rows": rng.standard_normal((ROWS, 6, 8)).astype(np.float32)},
        {"score": rng.standard_normal((ROWS, 1)).astype(np.float32)},
        {"score": {"name": "MeanSquaredError"}},
    )


def several_heads() -> Case:
    """Two inputs through one shared layer, two heads of which one is masked: their denominators differ."""

    def build() -> Any:
        from keras import Input, Model, layers

        words = Input((7,), dtype="int32", name="words")
        context = Input((4,), name="context")
        shared = layers.Dense(8, activation="tanh", name="shared")
        known = layers.Dense(8, name="widen")(context)
        value = layers.Embedding(20, 8, mask_zero=True, name="embedding")(words)
        value = layers.GRU(8, return_sequences=True, name="gru")(shared(value))
        tag = layers.Dense(3, name="tag")(value)
        score = layers.Dense(1, name="score")(shared(known))
        return Model({"words": words, "context": context}, {"tag": tag, "score": score})

    rng = np.random.default_rng(4)
    words = rng.integers(1, 20, (ROWS, 7)).astype(np.int32)
    words[np.arange(7) >= rng.integers(1, 8, ROWS)[:, None]] = 0
    return Case(
        "several_heads",
        build,
        {"words": words, "context": rng.standard_normal((ROWS, 4)).astype(np.float32)},
        {"tag": rng.integers(0, 3, (ROWS, 7)).astype(np.int32), "score": rng.random((ROWS, 1), np.float32)},
        {
            "tag": {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}, "weight": 0.5},
            "score": {"name": "MeanSquaredError"},
        },
        {"score": rng.random(ROWS, np.float32)},
    )


def recommender(rows: int = 2000, dropout: float = 0.2) -> Case:
    """Pairs and items look into one large table, items into another, words into a small one."""

    def build() -> Any:
        from keras import Input, Model, layers

        pair = Input((2,), dtype="int32", name="pair")
        item = Input((1,), dtype="int32", name="item")
        words = Input((3,), dtype="int32", name="words")
        users = layers.Embedding(rows, 8, name="users")
        value = layers.Flatten(name="flat")(users(pair))
        first = layers.Flatten(name="own")(users(item))
        other = layers.Flatten(name="other")(layers.Embedding(rows, 4, name="items")(item))
        small = layers.Flatten(name="small")(layers.Embedding(9, 4, name="words_table")(words))
        value = layers.Concatenate(name="both")([value, first, other, small])
        value = layers.Dropout(dropout, name="drop")(layers.Dense(16, activation="relu", name="mix")(value))
        return Model({"pair": pair, "item": item, "words": words}, layers.Dense(1, name="score")(value))

    rng = np.random.default_rng(5)
    # A few rows are in most batches, and many in none.
    ids = (rows * rng.random((ROWS, 3)) ** 4).astype(np.int32)
    return Case(
        "recommender",
        build,
        {
            "pair": ids[:, :2],
            "item": ids[:, 2:],
            "words": rng.integers(0, 9, (ROWS, 3)).astype(np.int32),
        },
        {"score": rng.standard_normal((ROWS, 1)).astype(np.float32)},
        {"score": {"name": "MeanSquaredError"}},
    )


CASES: dict[str, Callable[[], Case]] = {
    **{case.__name__: case for case in (convolutional, recurrent, attention, several_heads)},
    "recommender": lambda: recommender(dropout=0.0),
}
"""Those that Keras computes alike on whole batches: without randomness."""


def write_npz(case: Case, path: Path) -> Path:
    """All arrays of a case in one archive; labels and weights under label_ and weight_."""
    weights = {f"weight_{name}": values for name, values in (case.sample_weights or {}).items()}
    labels = {f"label_{name}": values for name, values in case.labels.items()}
    np.savez(path, **case.inputs, **labels, **weights)
    return path


def spec_of(
    case: Case,
    npz: str,
    *,
    optimizer: dict[str, Any] | str = "adam",
    training: dict[str, Any] | None = None,
    resources: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    validation: float | None = None,
) -> JobSpec:
    """A specification that trains the case; `npz` as in a job file, such as server:FILE; `validation` is the split."""
    return JobSpec.model_validate(
        {
            "name": case.name,
            "model": model or {"keras": case.build().to_json()},
            "data": {
                "train": {"npz": npz},
                "inputs": {name: name for name in case.inputs},
                "labels": {name: f"label_{name}" for name in case.labels},
                "sampleWeights": {name: f"weight_{name}" for name in case.sample_weights or {}},
                "validation": {"split": validation} if validation else None,
            },
            "loss": case.loss,
            "optimizer": optimizer,
            "training": {"globalBatch": 32, "steps": 20, "seed": 3, **(training or {})},
            "resources": {"workers": 2, "cpusPerWorker": 0.25, **(resources or {})},
        }
    )
