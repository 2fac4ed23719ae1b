"""Builds the digits model and writes its Keras config to model.json; run it again after a change.

The model takes images of 8 by 8 pixels, float32 of shape (8, 8, 1) in [0, 1], under the name `image`. A residual
convolutional branch sees strokes, a self-attention branch compares the rows of the image. The head `digit` reads both;
the head `aux` reads the convolutional branch alone, so that its early layers get a gradient of their own. Both give
logits of shape (10,).
"""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers

ROWS, COLUMNS = 8, 8
CLASSES = 10
FILTERS = 24
EMBEDDING = 32
HEADS = 4


def convolutional_branch(image: keras.KerasTensor) -> keras.KerasTensor:
    """Two residual blocks with pooling between them; shape (48,)."""
    x = layers.Conv2D(FILTERS, 3, padding="same", activation="relu", name="stem")(image)
    x = residual_block(x, "block1")
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(2 * FILTERS, 1, name="widen")(x)
    x = residual_block(x, "block2")
    x = layers.Flatten(name="conv_flatten")(x)
    return layers.Dense(48, activation="relu", name="conv_features")(x)


def residual_block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """x + conv(relu(conv(x))), then relu; the shape stays."""
    filters = x.shape[-1]
    y = layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"{name}_conv1")(x)
    y = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv2")(y)
    return layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, y]))


def attention_branch(image: keras.KerasTensor) -> keras.KerasTensor:
    """One transformer block over the rows of the image; shape (48,)."""
    rows = layers.Reshape((ROWS, COLUMNS), name="rows")(image)
    x = layers.Dense(EMBEDDING, name="row_embedding")(rows)
    y = layers.MultiHeadAttention(HEADS, EMBEDDING // HEADS, name="row_attention")(x, x)
    x = layers.LayerNormalization(name="attention_norm")(layers.Add(name="attention_add")([x, y]))
    y = layers.Dense(2 * EMBEDDING, activation="gelu", name="mlp_widen")(x)
    y = layers.Dense(EMBEDDING, name="mlp_narrow")(y)
    x = layers.LayerNormalization(name="mlp_norm")(layers.Add(name="mlp_add")([x, y]))
    x = layers.Flatten(name="attention_flatten")(x)
    return layers.Dense(48, activation="relu", name="attention_features")(x)


def make_model() -> keras.Model:
    """The model, with new weights."""
    image = keras.Input((ROWS, COLUMNS, 1), name="image")
    strokes = convolutional_branch(image)
    merged = layers.Concatenate(name="merge")([strokes, attention_branch(image)])
    merged = layers.Dropout(0.5, name="dropout")(merged)
    digit = layers.Dense(CLASSES, name="digit")(merged)
    aux = layers.Dense(CLASSES, name="aux")(strokes)
    return keras.Model(inputs={"image": image}, outputs={"digit": digit, "aux": aux}, name="digits")


if __name__ == "__main__":
    target = Path(__file__).with_name("model.json")
    model = make_model()
    target.write_text(model.to_json(indent=2) + "\n", encoding="utf-8")
    print(f"{target}: {model.count_params():,} parameters")
