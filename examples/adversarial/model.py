"""Digits on white and on grey paper, with a head whose gradient is reversed before it reaches the features."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

GREY = 0.3
"""How dark grey paper is; ink is 1."""


def rows() -> dict[str, np.ndarray]:
    """scikit-learn's digits, every second one on grey paper."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    digits = load_digits()
    ground = np.arange(len(digits.target)) % 2
    ink = (digits.images / 16.0).astype(np.float32)
    images = np.where(ground[:, None, None] == 1, GREY + (1.0 - GREY) * ink, ink).astype(np.float32)
    return {
        "image": images.reshape(-1, 64),
        "digit": digits.target.astype(np.int32),
        "ground": ground.astype(np.float32)[:, None],
    }


class Spread(keras.initializers.Initializer):
    """An initialiser of one's own: waves of rising frequency."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        rows_, columns = (np.arange(size) for size in shape)
        return ops.convert_to_tensor(np.cos(np.outer(rows_ + 0.5, columns + 1) * 2.4) * 0.1, dtype=dtype or "float32")


@tf.custom_gradient
def reversed_gradient(x: Any, strength: Any) -> Any:
    return tf.identity(x), lambda upstream: (-strength * upstream, None)


class Reverse(layers.Layer):
    """Hands its input on, and a part of its gradient back with the sign turned."""

    def __init__(self, strength: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.strength = strength

    def call(self, x: Any) -> Any:
        return reversed_gradient(x, tf.constant(self.strength))


class Raw(layers.Layer):
    """A dense layer with its weights in raw variables, and activations that are computed again in the backward pass."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape: Any) -> None:
        with tf.init_scope():  # Keras builds the layers of a subclassed model while it traces
            self.kernel = tf.Variable(Spread()((shape[-1], self.units)), name="kernel")
            self.bias = tf.Variable(tf.zeros(self.units), name="bias")

    def call(self, x: Any) -> Any:
        return tf.recompute_grad(lambda value: tf.nn.relu(tf.matmul(value, self.kernel) + self.bias))(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return (*shape[:-1], self.units)


class Focal(keras.losses.Loss):
    """Cross-entropy that cares less for what is already right."""

    def __init__(self, gamma: float = 1.0, name: str = "focal") -> None:
        super().__init__(name=name)
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        entropy = ops.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)
        return entropy * (1.0 - ops.exp(-entropy)) ** self.gamma


def accuracy(y_true: Any, y_pred: Any) -> Any:
    """The share of right digits, as a metric of one's own."""
    return ops.cast(ops.equal(ops.argmax(y_pred, axis=-1), ops.cast(ops.reshape(y_true, (-1,)), "int64")), "float32")


class Reader(keras.Model):
    """Subclassed: three heads on one set of features."""

    def __init__(self, units: int, strength: float) -> None:
        super().__init__(name="reader")
        self.options = {"units": units, "strength": strength}
        self.first = Raw(96, name="first")
        self.second = layers.Dense(units, activation="relu", name="second")
        self.reverse = Reverse(strength, name="reverse")
        self.heads = {
            name: layers.Dense(size, name=name) for name, size in {"digit": 10, "ground": 1, "probe": 10}.items()
        }

    def call(self, image: Any) -> Any:
        features = keras.remat(self.second)(self.first(image))
        return {
            "digit": self.heads["digit"](features),
            "ground": self.heads["ground"](self.reverse(features)),
            "probe": self.heads["probe"](ops.stop_gradient(features)),
        }

    def get_config(self) -> dict[str, Any]:
        return dict(self.options)


def build(units: int = 64, strength: float = 0.05) -> keras.Model:
    model = Reader(units, strength)
    model(ops.zeros((1, 64)))
    return model
