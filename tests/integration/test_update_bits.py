"""The fused update has the bits of Keras's own `apply` in a tf.function: optimisers × settings, over several steps."""

from __future__ import annotations

import mmap
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from service.training.blocks import Blocks
from service.training.fused import FusedUpdate, rule_of
from service.training.groups import Groups
from service.training.summation import StepSum
from workers.layout import Layout, Tensor
from workers.tree import Node
from workers.variables import ModelVariables

pytestmark = pytest.mark.integration

STEPS = 25
SHAPES: list[tuple[int, ...]] = [(), (1,), (3,), (17, 5), (300, 500)]
schedules = keras.optimizers.schedules

SETTINGS: dict[str, Any] = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "sgd_momentum": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "sgd_nesterov": lambda: keras.optimizers.SGD(0.05, momentum=0.8, nesterov=True),
    "sgd_decayed_weights": lambda: keras.optimizers.SGD(0.05, momentum=0.9, weight_decay=0.01),
    "sgd_cosine": lambda: keras.optimizers.SGD(schedules.CosineDecay(0.1, 20, warmup_target=0.2, warmup_steps=4), 0.9),
    "sgd_piecewise": lambda: keras.optimizers.SGD(schedules.PiecewiseConstantDecay([5, 9], [0.1, 0.03, 0.01])),
    "adam": keras.optimizers.Adam,
    "adam_betas": lambda: keras.optimizers.Adam(3e-4, beta_1=0.85, beta_2=0.95, epsilon=1e-4),
    "adam_exponential": lambda: keras.optimizers.Adam(schedules.ExponentialDecay(1e-2, 3, 0.7)),
    "adam_staircase": lambda: keras.optimizers.Adam(schedules.ExponentialDecay(1e-2, 3, 0.7, staircase=True)),
    "adam_inverse_time": lambda: keras.optimizers.Adam(schedules.InverseTimeDecay(1e-2, 3, 0.5)),
    "adam_polynomial": lambda: keras.optimizers.Adam(schedules.PolynomialDecay(1e-2, 20, 1e-4, power=2.0)),
    "adagrad": lambda: keras.optimizers.Adagrad(0.05),
    "adagrad_cosine": lambda: keras.optimizers.Adagrad(schedules.CosineDecay(0.1, 20), weight_decay=0.01, epsilon=1e-3),
    "rmsprop": keras.optimizers.RMSprop,
    "rmsprop_momentum": lambda: keras.optimizers.RMSprop(schedules.ExponentialDecay(1e-2, 3, 0.7), 0.8, momentum=0.7),
    "adamw": keras.optimizers.AdamW,
    "adamw_cosine": lambda: keras.optimizers.AdamW(schedules.CosineDecay(1e-3, 20), weight_decay=0.01),
    "adamw_restarts": lambda: keras.optimizers.AdamW(schedules.CosineDecayRestarts(1e-3, 7), weight_decay=0.1),
}


def variables_of(rng: np.random.Generator) -> ModelVariables:
    made = tuple(
        keras.Variable(rng.standard_normal(shape).astype(np.float32), name=f"v{number}")
        for number, shape in enumerate(SHAPES)
    )
    return ModelVariables(made, (), (), tuple(f"weights/v{number}" for number in range(len(made))))


def gradients_of(rng: np.random.Generator) -> list[np.ndarray]:
    """Of all sizes, among them exact zeros, denormals, and numbers whose squares are denormal."""
    scale = 10.0 ** rng.uniform(-6, 2)
    made = []
    for shape in SHAPES:
        values = np.atleast_1d(rng.standard_normal(shape) * scale).astype(np.float32)
        kind = rng.integers(0, 12, values.shape)
        values[kind == 0] = 0.0
        values[kind == 1] *= np.float32(1e-21) / np.float32(scale)
        values[kind == 2] = np.float32(1e-40)
        made.append(values.reshape(shape))
    return made


class Fused:
    """A fused update over a buffer of its own."""

    def __init__(self, optimizer: keras.optimizers.Optimizer, variables: ModelVariables, blocks: Blocks) -> None:
        rule = rule_of(optimizer, variables)
        assert rule is not None, "this setting shall be fused"
        self.layout = variables.layout()
        buffer = mmap.mmap(-1, self.layout.total_bytes)
        self.views = self.layout.views(buffer)
        (self.flat,) = self.layout.flat(buffer)
        for view, value in zip(self.views, variables.values(), strict=True):
            np.copyto(view, value)
        count = len(variables.trainable)
        groups = Groups((1.0,) * count, (True,) * count)
        self.update = FusedUpdate([optimizer], rule, self.flat, variables, blocks, groups)

    def step(self, gradients: list[np.ndarray]) -> None:
        layout = Layout.of(Tensor(f"gradient/{n}", g.shape, "float32") for n, g in enumerate(gradients))
        buffer = mmap.mmap(-1, layout.total_bytes)
        for view, gradient in zip(layout.views(buffer), gradients, strict=True):
            np.copyto(view, gradient)
        self.update.apply(StepSum(Node(0, 1), {Node(0, 1): layout.flat(buffer)}))
        self.update.prepare()


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_bits_are_those_of_keras(setting: str, blocks: Blocks) -> None:
    rng = np.random.default_rng(5)
    variables = variables_of(rng)
    fused = Fused(SETTINGS[setting](), variables, blocks)
    optimizer = SETTINGS[setting]()
    optimizer.build(list(variables.trainable))

    @tf.function(autograph=False)
    def apply(*given: Any) -> Any:
        optimizer.apply(list(given), list(variables.trainable))
        return tf.zeros(
            ()
        )  # without a result, as no training step is, TensorFlow would leave its constants as they are

    for step in range(STEPS):
        gradients = gradients_of(rng)
        apply(*[tf.constant(gradient) for gradient in gradients])
        fused.step(gradients)
        for number, (view, variable) in enumerate(zip(fused.views, variables.trainable, strict=True)):
            same = view.view(np.uint32) == variable.numpy().view(np.uint32)
            assert np.all(same), f"step {step}, variable {number}: {np.sum(~same)} of {same.size} differ"


@pytest.mark.parametrize("setting", ["sgd_momentum", "adamw_cosine", "adagrad", "rmsprop_momentum"])
def test_a_restored_update_goes_on_with_the_same_bits(setting: str, blocks: Blocks) -> None:
    rng = np.random.default_rng(6)
    variables = variables_of(rng)
    first, second = (Fused(SETTINGS[setting](), variables, blocks) for _ in range(2))
    steps = [gradients_of(rng) for _ in range(8)]
    for gradients in steps[:4]:
        first.step(gradients)
    layout = first.update.layout
    snapshot = dict(zip((t.name for t in layout.tensors), layout.views(bytearray(layout.total_bytes)), strict=True))
    first.update.copy_into(snapshot)
    assert snapshot["optimizer/iterations"] == 4
    second.update.restore(snapshot)
    np.copyto(second.flat, first.flat)
    for gradients in steps[4:]:
        first.step(gradients)
        second.step(gradients)
    assert first.flat.tobytes() == second.flat.tobytes()


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.Adam(amsgrad=True),
        lambda: keras.optimizers.Adam(use_ema=True),
        lambda: keras.optimizers.RMSprop(centered=True),
        keras.optimizers.Lion,
    ],
)
def test_what_has_no_rule_is_left_to_keras(optimizer: Any) -> None:
    assert rule_of(optimizer(), variables_of(np.random.default_rng(0))) is None


def test_a_variable_with_a_constraint_is_left_to_keras() -> None:
    variable = keras.Variable(np.ones(3, np.float32), name="v")
    variable.constraint = keras.constraints.NonNeg()
    assert rule_of(keras.optimizers.SGD(0.1), ModelVariables((variable,), (), (), ("weights/v",))) is None
