"""The models that are measured: batches, optimisers and data. NumPy only; `peers.architectures` builds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

SEED = 7
"""Of the data, the weights and the order of rows."""
LABEL = "label"
CLASSES = 10

SGD = {"name": "SGD", "config": {"learning_rate": 0.01, "momentum": 0.9}}
ADAM = {"name": "Adam", "config": {"learning_rate": 0.001}}
CROSS_ENTROPY = {"name": "SparseCategoricalCrossentropy", "config": {"from_logits": True}}
SQUARED_ERROR = {"name": "MeanSquaredError", "config": {}}

TABLE_ROWS = 1_000_000
TABLE_COLUMNS = 64
SIZED_WARMUP_STEPS = 30
"""Of a recommender that no peer slows down; the first steps touch memory that nobody has touched before."""
VOCABULARY = 2_000
SEQUENCE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model of the table; all systems train it alike."""

    name: str
    title: str
    batch: int
    """Samples of a step, over all workers together."""
    epoch_steps: int
    """Steps of an epoch of the shuffled input; every system does at least so many."""
    warmup_steps: int = 10
    min_steps: int = 8
    """Of the steps that are measured."""
    fits_beside: bool = True
    """Whether all systems may hold it in memory at once."""
    input_names: tuple[str, ...]
    make_inputs: Callable[[np.random.Generator, int], Arrays]
    """(generator, rows) -> arrays by the model's input names."""
    has_tables: bool = False
    """Whether tables are what it is about: then Keras's fit and Gradwire's lazy updates are measured as well."""
    optimizer: Mapping[str, Any]
    loss: Mapping[str, Any]

    def arrays(self) -> Arrays:
        """The whole data set in memory: inputs and labels, by name; every row has what a model can learn."""
        generator = np.random.default_rng(SEED)
        rows = self.batch * self.epoch_steps
        inputs = self.make_inputs(generator, rows)
        return {**inputs, LABEL: self._labels(generator, inputs)}

    def _labels(self, generator: np.random.Generator, inputs: Arrays) -> np.ndarray:
        """A random linear function of the inputs: its largest of ten outputs, or its value for a squared error."""
        columns = np.concatenate([array.reshape(len(array), -1).astype(np.float32) for array in inputs.values()], 1)
        columns = (columns - columns.mean(0)) / (columns.std(0) + 1e-6)
        is_class = self.loss is CROSS_ENTROPY
        directions = generator.standard_normal((columns.shape[1], CLASSES if is_class else 1), np.float32)
        outputs = columns @ directions
        if is_class:
            return np.asarray(outputs.argmax(1), np.int32)
        return np.asarray(outputs / np.sqrt(columns.shape[1]), np.float32)


def _vectors(width: int) -> Callable[[np.random.Generator, int], Arrays]:
    return lambda generator, rows: {"x": generator.standard_normal((rows, width), np.float32)}


def _images(generator: np.random.Generator, rows: int) -> Arrays:
    coarse = generator.random((rows, 7, 7, 1), np.float32)
    return {"image": coarse.repeat(4, axis=1).repeat(4, axis=2)}


def _words(generator: np.random.Generator, rows: int) -> Arrays:
    return {"words": generator.integers(0, VOCABULARY, (rows, SEQUENCE), np.int32)}


def _pairs(table_rows: int) -> Callable[[np.random.Generator, int], Arrays]:
    return lambda generator, rows: {
        name: generator.integers(0, table_rows, (rows, 1), np.int32) for name in ("user", "item")
    }


MODELS = {
    model.name: model
    for model in (
        Model(
            name="mlp_small",
            title="MLP 0.14 MB",
            batch=256,
            epoch_steps=256,
            input_names=("x",),
            make_inputs=_vectors(64),
            optimizer=SGD,
            loss=CROSS_ENTROPY,
        ),
        Model(
            name="mlp_medium",
            title="MLP 9 MB",
            batch=256,
            epoch_steps=32,
            input_names=("x",),
            make_inputs=_vectors(512),
            optimizer=SGD,
            loss=CROSS_ENTROPY,
        ),
        Model(
            name="mlp_large",
            title="MLP 103 MB",
            batch=64,
            epoch_steps=8,
            input_names=("x",),
            make_inputs=_vectors(1024),
            optimizer=SGD,
            loss=CROSS_ENTROPY,
        ),
        Model(
            name="cnn",
            title="CNN 28×28",
            batch=128,
            epoch_steps=32,
            input_names=("image",),
            make_inputs=_images,
            optimizer=SGD,
            loss=CROSS_ENTROPY,
        ),
        Model(
            name="transformer",
            title="transformer, 4 layers",
            batch=64,
            epoch_steps=16,
            input_names=("words",),
            make_inputs=_words,
            optimizer=SGD,
            loss=CROSS_ENTROPY,
        ),
        Model(
            name="recommender",
            title="recommender, 2 × 1M×64",
            batch=1024,
            epoch_steps=16,
            warmup_steps=1,
            min_steps=3,
            fits_beside=False,
            has_tables=True,
            input_names=("user", "item"),
            make_inputs=_pairs(TABLE_ROWS),
            optimizer=ADAM,
            loss=SQUARED_ERROR,
        ),
    )
}


def with_tables_of(rows: int) -> Model:
    """The recommender with two tables of so many rows."""
    recommender = MODELS["recommender"]
    title = f"recommender, 2 × {rows:,}×{TABLE_COLUMNS}"
    return replace(
        recommender,
        name=f"{recommender.name}_{rows}",
        title=title,
        make_inputs=_pairs(rows),
        warmup_steps=SIZED_WARMUP_STEPS,
        min_steps=SIZED_WARMUP_STEPS,
    )


SIZED = {rows: with_tables_of(rows) for rows in (10_000, 100_000, 1_000_000, 10_000_000)}
"""Rows of each table -> the recommender of that size."""


def weights_gb(table_rows: int) -> float:
    """Of two tables with so many rows."""
    return 2 * table_rows * TABLE_COLUMNS * 4 / 1e9
