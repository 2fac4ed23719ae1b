"""Builds the models with Keras; their weights start equal everywhere, since every initialiser has a seed of its own.

python -m benchmarks.peers.architectures FOLDER NAME...: writes FOLDER/NAME.json, what `keras.Model.to_json` returns.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
from keras import initializers, layers

from benchmarks.models import CLASSES, SEED, SEQUENCE, TABLE_COLUMNS, TABLE_ROWS, VOCABULARY

WIDTH = 128
HEADS = 4
BLOCKS = 4

Seeds = Iterator[int]


def _glorot(seeds: Seeds) -> keras.initializers.Initializer:
    return initializers.GlorotUniform(seed=next(seeds))


def _dense(seeds: Seeds, units: int, activation: str | None = None) -> keras.layers.Layer:
    return layers.Dense(units, activation=activation, kernel_initializer=_glorot(seeds))


def perceptron(width: int, *hidden: int) -> Callable[[Seeds], keras.Model]:
    """A multilayer perceptron from vectors of `width` to ten logits."""

    def build(seeds: Seeds) -> keras.Model:
        x = value = keras.Input((width,), name="x")
        for units in hidden:
            value = _dense(seeds, units, "relu")(value)
        return keras.Model(x, _dense(seeds, CLASSES)(value))

    return build


def convolutional(seeds: Seeds) -> keras.Model:
    """Two convolutions with pooling, as Keras's first example of images has them."""
    image = value = keras.Input((28, 28, 1), name="image")
    for filters in (32, 64):
        value = layers.Conv2D(filters, 3, activation="relu", kernel_initializer=_glorot(seeds))(value)
        value = layers.MaxPooling2D()(value)
    return keras.Model(image, _dense(seeds, CLASSES)(layers.Flatten()(value)))


def transformer(seeds: Seeds) -> keras.Model:
    """An encoder over sequences of words, with a learned position for each, and ten logits from the mean."""
    words = keras.Input((SEQUENCE,), dtype="int32", name="words")
    table = initializers.RandomNormal(stddev=0.05, seed=next(seeds))
    value = layers.Embedding(VOCABULARY, WIDTH, embeddings_initializer=table)(words)
    # A bias over places and features is a position embedding.
    positions = initializers.RandomNormal(stddev=0.05, seed=next(seeds))
    value = layers.EinsumDense(
        "abc,cd->abd",
        (SEQUENCE, WIDTH),
        bias_axes="bd",
        kernel_initializer=_glorot(seeds),
        bias_initializer=positions,
    )(value)
    for _ in range(BLOCKS):
        value = _encoder_block(seeds, value)
    return keras.Model(words, _dense(seeds, CLASSES)(layers.GlobalAveragePooling1D()(value)))


def _encoder_block(seeds: Seeds, value: keras.KerasTensor) -> keras.KerasTensor:
    normed = layers.LayerNormalization()(value)
    attention = layers.MultiHeadAttention(HEADS, WIDTH // HEADS, kernel_initializer=_glorot(seeds))
    value = layers.Add()([value, attention(normed, normed)])
    widened = _dense(seeds, 2 * WIDTH, "gelu")(layers.LayerNormalization()(value))
    return layers.Add()([value, _dense(seeds, WIDTH)(widened)])


def recommender(seeds: Seeds) -> keras.Model:
    """Two tables of a million rows, and a small perceptron over what stands there for a user and an item."""
    inputs = [keras.Input((1,), dtype="int32", name=name) for name in ("user", "item")]
    rows = []
    for ids in inputs:
        table = initializers.RandomUniform(-0.05, 0.05, seed=next(seeds))
        rows.append(layers.Flatten()(layers.Embedding(TABLE_ROWS, TABLE_COLUMNS, embeddings_initializer=table)(ids)))
    value = _dense(seeds, 64, "relu")(layers.Concatenate()(rows))
    return keras.Model({tensor.name: tensor for tensor in inputs}, _dense(seeds, 1)(value))


BUILDERS: dict[str, Callable[[Seeds], keras.Model]] = {
    "mlp_small": perceptron(64, 128, 128, 64),
    "mlp_medium": perceptron(512, 1024, 1024, 640),
    "mlp_large": perceptron(1024, 4096, 4096, 1152),
    "cnn": convolutional,
    "transformer": transformer,
    "recommender": recommender,
}


def build(name: str) -> keras.Model:
    """The model of that name, with the weights that all systems start from."""
    return BUILDERS[name](itertools.count(SEED))


def main() -> None:
    folder = Path(sys.argv[1])
    for name in sys.argv[2:]:
        model = build(name)
        (folder / f"{name}.json").write_text(model.to_json())
        size = sum(variable.value.dtype.size * int(keras.ops.size(variable)) for variable in model.trainable_variables)
        (folder / f"{name}.size").write_text(json.dumps(size))


if __name__ == "__main__":
    main()
