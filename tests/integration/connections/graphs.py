"""Models whose graphs are no chains, each a function that a job calls: the source folder of `test_connections.py`."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops


def nested() -> keras.Model:
    """Two list inputs through one nested model, dense connections, two heads as a list."""
    inner_x = keras.Input((4,))
    turned = layers.Dense(4, activation="tanh", name="turned")(inner_x)
    inner = keras.Model(inner_x, layers.Add()([turned, inner_x]), name="inner")
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    first, second = inner(a), inner(inner(b))
    joined = layers.Concatenate()([a, first, second])
    third = layers.Dense(4, activation="relu", name="third")(joined)
    every = layers.Concatenate()([joined, third])
    return keras.Model([a, b], [layers.Dense(1, name="size")(every), layers.Dense(3, name="kind")(third)])


class Penalty(layers.Layer):
    """Adds a loss of its own, which counts once for the whole batch."""

    def call(self, x: Any) -> Any:
        self.add_loss(0.05 * ops.mean(ops.square(x)))
        return x


def penalised() -> keras.Model:
    """Losses that layers add, activity and weight regularisers, and a frozen layer."""
    x = keras.Input((6,), name="x")
    value = layers.Dense(8, activation="tanh", kernel_regularizer="l2", name="regular")(x)
    value = layers.Dense(8, activation="tanh", trainable=False, name="frozen")(value)
    value = Penalty(name="penalty")(value)
    value = layers.Dense(4, activation="relu", activity_regularizer=keras.regularizers.L1(0.01), name="active")(value)
    return keras.Model(x, layers.Dense(1, name="y", bias_regularizer="l1")(value))


class Diagonal(keras.initializers.Initializer):
    """An initialiser of one's own."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        return 0.5 * ops.eye(*shape, dtype=dtype or "float32")


class Gate(layers.Layer):
    """A layer of one's own, with weights of both kinds."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), initializer=Diagonal(), name="kernel")
        self.temperature = self.add_weight(shape=(), initializer="ones", name="temperature")

    def call(self, x: Any) -> Any:
        return x * ops.sigmoid(ops.matmul(x, self.kernel) / self.temperature)


class Subclassed(keras.Model):
    """Dicts in and out, a layer used twice, a list of layers."""

    def __init__(self) -> None:
        super().__init__(name="subclassed")
        self.gate = Gate(name="gate")
        self.towers = [layers.Dense(5, activation="tanh", name=f"tower_{index}") for index in range(2)]
        self.heads = {"near": layers.Dense(1, name="near"), "far": layers.Dense(5, name="far")}

    def call(self, inputs: Any) -> Any:
        left, right = self.gate(inputs["left"]), self.gate(inputs["right"])
        for tower in self.towers:
            left = tower(left)
        return {"near": self.heads["near"](left), "far": self.heads["far"](ops.concatenate([left, right], axis=-1))}


def subclassed() -> keras.Model:
    model = Subclassed()
    model({"left": ops.zeros((1, 5)), "right": ops.zeros((1, 5))})
    return model


class Smooth(keras.losses.Loss):
    """A loss of one's own with a parameter."""

    def __init__(self, width: float, name: str = "smooth") -> None:
        super().__init__(name=name)
        self.width = width

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.sqrt(ops.square(y_pred - y_true) + self.width**2), axis=-1)


def error(y_true: Any, y_pred: Any) -> Any:
    """A metric of one's own."""
    return ops.mean(ops.abs(y_pred - y_true), axis=-1)


class Raw(layers.Layer):
    """Keeps its weights in raw variables of TensorFlow, in an attribute, a list and a dict."""

    def build(self, shape: Any) -> None:
        rng = tf.random.Generator.from_seed(3)
        self.kernel = tf.Variable(0.3 * rng.normal((shape[-1], 4)), name="kernel")
        self.biases = [tf.Variable(tf.zeros(4), name="biases.0"), tf.Variable(tf.ones(4), name="biases.1")]
        self.scale = {"constant": tf.Variable(tf.fill((4,), 0.5), trainable=False, name="scale")}

    def call(self, x: Any) -> Any:
        value = tf.tanh(tf.matmul(x, self.kernel) + self.biases[0])
        return value * self.scale["constant"] + self.biases[1]


def raw_variables() -> keras.Model:
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(1, name="y")(Raw(name="raw")(x)))


@tf.custom_gradient
def reversed_gradient(x: Any) -> Any:
    return tf.identity(x), lambda upstream: -0.5 * upstream


class Reverse(layers.Layer):
    def call(self, x: Any) -> Any:
        return reversed_gradient(x)


def adversarial() -> keras.Model:
    """Gradient reversal before one head, a stopped gradient before another."""
    x = keras.Input((6,), name="x")
    features = layers.Dense(8, activation="tanh", name="features")(x)
    stopped = layers.Lambda(ops.stop_gradient, name="stopped")(features)
    outputs = {
        "domain": layers.Dense(1, name="domain")(Reverse(name="reverse")(features)),
        "probe": layers.Dense(1, name="probe")(stopped),
        "label": layers.Dense(1, name="label")(features),
    }
    return keras.Model(x, outputs)


class Recomputed(layers.Layer):
    """Forgets its activations and computes them again in the backward pass, by TensorFlow and by Keras."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(8, activation="tanh", name="first")
        self.second = layers.Dense(8, activation="tanh", name="second")

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build((None, 8))

    def call(self, x: Any) -> Any:
        value = tf.recompute_grad(self.first)(x)
        return keras.remat(self.second)(value)


def recomputed() -> keras.Model:
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(1, name="y")(Recomputed(name="recomputed")(x)))


class Branches(layers.Layer):
    """What a shard's data say decides which weights take part at all."""

    def build(self, shape: Any) -> None:
        size = (shape[-1], 4)
        self.paths = [self.add_weight(shape=size, name=f"path_{index}") for index in range(5)]

    def call(self, x: Any) -> Any:
        low, high, *cases = self.paths
        chosen = tf.cond(tf.reduce_sum(x) > 0.0, lambda: tf.matmul(x, high), lambda: tf.tanh(tf.matmul(x, low)))
        index = tf.cast(tf.math.floormod(tf.math.floor(10.0 * tf.reduce_sum(tf.abs(x))), 3.0), tf.int32)
        return chosen + tf.switch_case(index, [lambda case=case: tf.matmul(x, case) for case in cases])


def branches() -> keras.Model:
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(1, name="y")(Branches(name="branches")(x)))


class Experts(layers.Layer):
    """A mixture of experts: each row goes to the two that its router likes best."""

    def build(self, shape: Any) -> None:
        self.router = self.add_weight(shape=(shape[-1], 4), name="router")
        self.kernels = self.add_weight(shape=(4, shape[-1], 5), name="kernels")

    def call(self, x: Any) -> Any:
        gates, chosen = tf.math.top_k(tf.nn.softmax(tf.matmul(x, self.router)), k=2)
        kernels = tf.gather(self.kernels, chosen)
        return tf.reduce_sum(gates[..., None] * tf.tanh(tf.einsum("bi,bkio->bko", x, kernels)), axis=1)


def experts() -> keras.Model:
    x = keras.Input((6,), name="x")
    return keras.Model(x, layers.Dense(1, name="y")(Experts(name="experts")(x)))


class Ragged(layers.Layer):
    """A recurrent cell over as many words as each row has, in a loop as long as the shard's longest row."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(8, 4), name="kernel")

    def call(self, rows: Any) -> Any:
        values, lengths = rows
        state = tf.zeros((tf.shape(values)[0], 4))

        def step(time: Any, state: Any) -> Any:
            new = tf.tanh(tf.matmul(tf.concat([values[:, time], state], axis=1), self.kernel))
            return time + 1, tf.where((time < lengths)[:, None], new, state)

        longest = tf.reduce_max(lengths)
        return tf.while_loop(lambda time, _: time < longest, step, (tf.constant(0), state))[1]


def ragged() -> keras.Model:
    words, lengths = keras.Input((7,), dtype="int32", name="words"), keras.Input((), dtype="int32", name="lengths")
    vectors = layers.Embedding(20, 4, name="vectors")(words)
    return keras.Model([words, lengths], layers.Dense(1, name="y")(Ragged(name="ragged")([vectors, lengths])))


class Tied(layers.Layer):
    """One table read by rows at the input and as a matrix at the output: a sparse and a dense gradient in one step."""

    def build(self, shape: Any) -> None:
        self.table = self.add_weight(shape=(20, 8), initializer="uniform", name="table")

    def call(self, x: Any, *, is_output: bool = False) -> Any:
        return ops.matmul(x, ops.transpose(self.table)) if is_output else ops.take(self.table, x, axis=0)

    def compute_output_spec(self, x: Any, *, is_output: bool = False) -> Any:
        return keras.KerasTensor((*x.shape[:-1], 20) if is_output else (*x.shape, 8), self.compute_dtype)


def encoder_decoder() -> keras.Model:
    """A transformer with cross-attention and tied input and output embedding."""
    source, target = keras.Input((6,), dtype="int32", name="source"), keras.Input((5,), dtype="int32", name="target")
    tied = Tied(name="tied")
    memory = tied(source)
    seen = layers.MultiHeadAttention(2, 4, name="encode")(memory, memory)
    memory = layers.LayerNormalization(name="norm_1")(layers.Add()([memory, seen]))
    value = tied(target)
    seen = layers.MultiHeadAttention(2, 4, name="decode")(value, value, use_causal_mask=True)
    value = layers.LayerNormalization(name="norm_2")(layers.Add()([value, seen]))
    seen = layers.MultiHeadAttention(2, 4, name="cross")(value, memory)
    value = layers.LayerNormalization(name="norm_3")(layers.Add()([value, seen]))
    value = layers.Add()([value, layers.Dense(8, activation="gelu", name="wide")(value)])
    return keras.Model([source, target], tied(value, is_output=True))


class InBatch(layers.Layer):
    """Scores every row against all rows of its shard: samples are coupled."""

    def call(self, pair: Any) -> Any:
        left, right = pair
        return ops.log_softmax(ops.matmul(left, ops.transpose(right)), axis=-1)


def own_pair(y_true: Any, y_pred: Any) -> Any:
    """The loss of in-batch negatives: row i belongs to column i."""
    return -tf.linalg.diag_part(y_pred) * y_true


def coupled() -> keras.Model:
    """BatchNorm, Dropout and negatives from the same shard."""
    a, b = keras.Input((6,), name="a"), keras.Input((6,), name="b")
    value = layers.Dropout(0.3, name="drop")(layers.BatchNormalization(momentum=0.8, name="norm")(a))
    tower = layers.Dense(4, name="tower")
    return keras.Model([a, b], InBatch(name="pairs")([tower(value), tower(b)]))
