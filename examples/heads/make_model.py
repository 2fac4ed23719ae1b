"""Writes model.json: python examples/heads/make_model.py"""

from __future__ import annotations

from pathlib import Path

import keras
from keras import layers


def encoder() -> keras.Model:
    """A model of its own that reads half an image; dense connections inside."""
    half = keras.Input((4, 8, 1), name="half")
    parts = [half]
    for number in range(3):
        seen = layers.Concatenate(name=f"join_{number}")(parts) if number else half
        made = layers.Conv2D(12, 3, padding="same", activation="relu", kernel_regularizer="l2", name=f"conv_{number}")(
            seen
        )
        parts.append(layers.BatchNormalization(momentum=0.9, name=f"norm_{number}")(made))
    value = layers.Flatten(name="flat")(layers.Concatenate(name="join")(parts[1:]))
    return keras.Model(half, layers.Dense(32, activation="relu", name="code")(value), name="encoder")


def build() -> keras.Model:
    """Both halves of a digit through one encoder, a frozen projection beside it, three heads."""
    image = keras.Input((8, 8, 1), name="image")
    half = encoder()
    top = half(layers.Cropping2D(((0, 4), (0, 0)), name="top")(image))
    bottom = half(layers.Cropping2D(((4, 0), (0, 0)), name="bottom")(image))
    fixed = layers.Dense(16, activation="tanh", trainable=False, name="fixed")(layers.Flatten(name="pixels")(image))
    value = layers.Concatenate(name="all")([top, bottom, fixed])
    value = layers.ActivityRegularization(l1=1e-5, name="sparse")(layers.Dropout(0.2, name="drop")(value))
    shared = layers.Dense(48, activation="relu", name="shared")(value)
    outputs = {
        "digit": layers.Dense(10, name="digit")(layers.Concatenate(name="skip")([shared, value])),
        "top_only": layers.Dense(10, name="top_only")(top),
        "bottom_only": layers.Dense(10, name="bottom_only")(bottom),
    }
    return keras.Model({"image": image}, outputs, name="heads")


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    Path(__file__).with_name("model.json").write_text(build().to_json(indent=1) + "\n", encoding="utf-8")
