"""The gradient program: pure, complete, and a whole batch when its shards are added."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwire.errors import JobFailed
from service.training.blocks import Blocks
from service.training.summation import StepSum, Summation
from workers.computer import Accumulator
from workers.data.batch import Batch, aligned_empty
from workers.layout import Layout
from workers.losses import HeadLoss
from workers.metrics import HeadMetric, MetricSet
from workers.models.heads import Heads
from workers.program import GradientProgram, Objective, Prepared, Share
from workers.seeds import seed_states
from workers.tree import Node

pytestmark = pytest.mark.integration

FEATURES, SAMPLES = 6, 24
Wrap = Callable[[Any], Any]


def aligned(values: np.ndarray) -> np.ndarray:
    copy = aligned_empty(values.shape, values.dtype)
    copy[...] = values
    return copy


def batch(start: int = 0, stop: int = SAMPLES) -> Batch:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((SAMPLES, FEATURES)).astype(np.float32)
    y = rng.standard_normal((SAMPLES, 1)).astype(np.float32)
    ids = np.arange(start, stop)
    return Batch(
        inputs={"x": aligned(x[ids])}, labels={"y": aligned(y[ids])}, sample_weights={}, samples=len(ids), ids=ids
    )


def model_with(*layers: Any) -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,), name="x")
    value = inputs
    for layer in layers:
        value = layer(value)
    return keras.Model(inputs, keras.layers.Dense(1, name="y")(value))


def program_of(model: keras.Model, metrics: tuple[keras.metrics.Metric, ...] = ()) -> GradientProgram:
    loss = HeadLoss("y", keras.losses.MeanSquaredError(), 1.0)
    items = MetricSet([HeadMetric("y", metric.name, metric) for metric in metrics])
    items.build({"y": np.zeros((1, 1))}, {"y": np.zeros((1, 1))})
    return GradientProgram(Objective(model=model, heads=Heads.of(model), losses=(loss,), metrics=items))


def add_shards(program: GradientProgram, cuts: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    pieces = list(itertools.pairwise(cuts))
    for size in {stop - start for start, stop in pieces}:
        program.trace(batch(0, size))
    layout = program.contribution()
    values = {}
    for shard, (start, stop) in enumerate(pieces):
        share = Share(stop - start, SAMPLES, (), is_first=shard == 0)
        place = accumulator(layout)
        outputs = program.run(
            Prepared.of(batch(start, stop)), share, seed_states(seed, 0, shard, len(program.variables.seeds))
        )
        for view, output in zip(place.tensors, outputs, strict=True):
            np.copyto(view, output)
        values[Node(shard, shard + 1)] = place.sections
    summation = Summation(layout, Blocks(1))
    total = StepSum(Node(0, len(pieces)), values)
    summation.add_up(total)
    summation.add_gradients(total)
    return summation.tensors


def accumulator(layout: Layout) -> Accumulator:
    return Accumulator(layout, bytearray(layout.total_bytes))


def test_shards_of_different_sizes_give_the_whole_batch_s_gradients() -> None:
    model = model_with(keras.layers.Dense(8, activation="tanh", kernel_regularizer="l2"))
    summed = add_shards(program_of(model), [0, 8, 16, 21, 24])
    with tf.GradientTape() as tape:
        whole = batch()
        prediction = model(whole.inputs["x"], training=True)
        loss = keras.losses.MeanSquaredError()(whole.labels["y"], prediction) + sum(model.losses)
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, [v.value for v in model.trainable_variables]), strict=True
    ):
        np.testing.assert_allclose(summed[f"gradient/{variable.path}"], gradient, atol=1e-6)
    assert summed["loss"][0] == pytest.approx(float(loss), rel=1e-6)


def test_metrics_are_counted_from_zero_and_add_up() -> None:
    model = model_with(keras.layers.Dense(4))
    metric = keras.metrics.MeanAbsoluteError(name="mae")
    summed = add_shards(program_of(model, (metric,)), [0, 8, 16, 24])
    read = MetricSet([HeadMetric("y", "mae", metric)]).read([summed["metric/0/0"], summed["metric/0/1"]])
    expected = np.abs(np.asarray(model(batch().inputs["x"])) - batch().labels["y"]).mean()
    assert read["mae"] == pytest.approx(float(expected), rel=1e-6)


def test_batch_norm_state_is_the_weighted_mean_of_the_shards_changes() -> None:
    layer = keras.layers.BatchNormalization(momentum=0.9, name="norm")
    summed = add_shards(program_of(model_with(layer)), [0, 8, 16, 24])
    means = [batch(start, start + 8).inputs["x"].mean(axis=0) for start in (0, 8, 16)]
    expected = 0.1 * np.mean(means, axis=0)  # the moving mean begins at 0
    np.testing.assert_allclose(summed["state/norm/moving_mean"], expected, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(layer.moving_mean), 0)  # the program leaves the variable alone


def test_equal_seeds_drop_equal_units_and_others_do_not() -> None:
    program = program_of(model_with(keras.layers.Dense(16), keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)))
    assert len(program.variables.seeds) == 2
    first, again, other = (add_shards(program, [0, 12, 24], seed)["loss"].copy() for seed in (3, 3, 4))
    assert first[0] == again[0] != other[0]


class DrawsFromTensorFlow(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs + tf.random.normal(tf.shape(inputs))


class DrawsFromKerasGlobally(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs + keras.random.normal(keras.ops.shape(inputs))


class DrawsInACondition(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        return tf.cond(tf.reduce_sum(inputs) > 0, lambda: tf.random.uniform(tf.shape(inputs)), lambda: inputs)


class CallsPython(keras.layers.Layer):
    def call(self, inputs: Any) -> Any:
        value = tf.py_function(lambda x: x, [inputs], tf.float32)
        value.set_shape(inputs.shape)
        return value


class WritesItsOwnVariable(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.calls = tf.Variable(0.0, trainable=False)

    def call(self, inputs: Any) -> Any:
        self.calls.assign_add(1.0)
        return inputs


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (DrawsFromTensorFlow(name="noise"), "noise' draws random numbers by RandomStandardNormal"),
        (DrawsFromKerasGlobally(name="noise"), "Keras's global random generator"),
        (DrawsInACondition(name="noise"), "layer 'noise' draws random numbers by RandomUniform"),
        (CallsPython(name="python"), "python' calls back into Python"),
        (WritesItsOwnVariable(name="counter"), "counter' writes a variable by AssignAddVariableOp"),
    ],
)
def test_what_is_not_pure_is_refused_with_its_place_and_the_fix(layer: keras.layers.Layer, words: str) -> None:
    with pytest.raises(JobFailed, match=words) as caught:
        program_of(model_with(layer)).trace(batch())
    assert caught.value.code == "impure_model"


class HasAnUnusedWeight(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.unused = self.add_weight(shape=(3,), name="forgotten")

    def call(self, inputs: Any) -> Any:
        return inputs


def test_a_variable_that_no_loss_reaches_is_named() -> None:
    with pytest.raises(JobFailed, match="forgotten") as caught:
        program_of(model_with(HasAnUnusedWeight())).trace(batch())
    assert caught.value.code == "unreached_variable"
