"""Tables updated by rows: with the bits of Keras's dense update, or, in mode lazy, nothing but the rows changed."""

from __future__ import annotations

import mmap
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest import mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.optimizers import base_optimizer

from gradwire.spec.job import GradientClip, KerasObjectSpec, TrainingSpec
from service.training.blocks import Blocks
from service.training.fused import FusedUpdate
from service.training.groups import Groups
from service.training.rules import PACKET
from service.training.summation import StepSum, Summation
from service.training.update import Update, make_update
from service.training.weights import Weights
from tests.integration.trained import snapshot_of, variables_of
from workers.layout import Layout, Tensor
from workers.models.objects import make_optimizer
from workers.slices import Slices, Table
from workers.tree import Node

pytestmark = pytest.mark.integration

STEPS = 12
SHAPES = {
    "first/bias": (5,),
    "user/table": (700, 16),
    "dense/kernel": (17, 3),
    "item/table": (90, 4),
    "last/bias": (1,),
}
TABLES = ("user/table", "item/table")
COSINE = {
    "class_name": "CosineDecay", "config": {"initial_learning_rate": 0.1, "decay_steps": 9},
}  # fmt: skip
GLOBAL = {"kind": "global_norm", "limit": 12.0}
OPTIMIZERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sgd": ("SGD", {"learning_rate": 0.05}, {}),
    "sgd_momentum": ("SGD", {"learning_rate": 0.05, "momentum": 0.9}, {}),
    "sgd_nesterov": ("SGD", {"learning_rate": 0.05, "momentum": 0.9, "nesterov": True}, {}),
    "sgd_decay": ("SGD", {"learning_rate": 0.05, "weight_decay": 0.01}, {}),
    "adam": ("Adam", {}, {}),
    "adam_groups": ("Adam", {}, {"learningRateMultipliers": {"user": 0.5}}),
    "adam_schedule": ("Adam", {"learning_rate": COSINE}, {}),
    "adamw": ("AdamW", {"weight_decay": 0.01}, {}),
    "adamw_excluded": ("AdamW", {"weight_decay": 0.01}, {"weightDecayExclude": ["table"]}),
    "adagrad": ("Adagrad", {"learning_rate": 0.1}, {}),
    "adagrad_decay": ("Adagrad", {"learning_rate": 0.1, "weight_decay": 0.01}, {}),
    "rmsprop": ("RMSprop", {"learning_rate": COSINE}, {}),
    "rmsprop_momentum": ("RMSprop", {"momentum": 0.8}, {"gradientClip": GLOBAL}),
    "rmsprop_centered": ("RMSprop", {"centered": True}, {}),
    "adam_value": ("Adam", {}, {"gradientClip": {"kind": "value", "limit": 0.3}}),
    "adam_norm": ("Adam", {}, {"gradientClip": {"kind": "norm", "limit": 5.0}}),
    "adam_global": ("Adam", {}, {"gradientClip": GLOBAL}),
    "sgd_global": ("SGD", {"learning_rate": COSINE, "momentum": 0.9, "nesterov": True}, {"gradientClip": GLOBAL}),
    "sgd_global_groups": (
        "SGD",
        {"learning_rate": 0.05},
        {"gradientClip": GLOBAL, "learningRateMultipliers": {"user": 0.5}},
    ),
}
DENSE = ("rmsprop_centered",)
"""Those that have no rule for rows."""
ROW_RULES = ("sgd", "sgd_momentum", "adam", "adamw", "adagrad", "rmsprop", "rmsprop_momentum")


class Gradients:
    """Of one step: a few ids of the one table, and often all of the other."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.dense = {path: rng.standard_normal(shape).astype(np.float32) for path, shape in SHAPES.items()}
        self.slices = {}
        for path in TABLES:
            rows, width = SHAPES[path]
            ids = np.unique(rng.integers(0, rows, 30 if path == TABLES[0] else int(rng.integers(1, 200))))
            self.slices[path] = Slices(ids, rng.standard_normal((ids.size, width)).astype(np.float32))
            self.dense[path] = np.zeros((rows, width), np.float32)
            self.dense[path][ids] = self.slices[path].rows


class Ours:
    """A weights buffer with the update that the trainer would make."""

    def __init__(self, setting: str, blocks: Blocks, *, is_lazy: bool = False) -> None:
        name, config, options = OPTIMIZERS[setting]
        training = TrainingSpec.model_validate({"globalBatch": 4, "steps": STEPS, **options})
        variables = variables_of(SHAPES)
        server: Any = SimpleNamespace(create=lambda name, size: SimpleNamespace(buffer=mmap.mmap(-1, size)))
        self.weights = Weights(server, variables)
        dense = [Tensor(f"gradient/{path}", shape, "float32") for path, shape in SHAPES.items() if path not in TABLES]
        self.layout = Layout.of(dense, [Table(path, *SHAPES[path], SHAPES[path][0]) for path in TABLES])
        make = partial(make_optimizer, KerasObjectSpec(name=name, config=config), training.gradient_clip)
        groups = Groups.of(training, variables.trained_paths)
        self.update: Update = make_update(make, groups, variables, self.weights, blocks, is_lazy=is_lazy)
        self.blocks = blocks

    def attach(self) -> None:
        self.update.attach(Summation(self.layout, self.blocks))

    def step(self, gradients: Gradients) -> None:
        buffer = mmap.mmap(-1, self.layout.total_bytes)
        for view, tensor in zip(self.layout.views(buffer), self.layout.tensors, strict=True):
            np.copyto(view, gradients.dense[tensor.name.removeprefix("gradient/")])
        node = Node(0, 1)
        self.update.prepare()
        self.update.apply(StepSum(node, {node: self.layout.flat(buffer)}, {node: list(gradients.slices.values())}))

    @property
    def values(self) -> dict[str, np.ndarray]:
        return dict(zip(SHAPES, self.weights.values()[0], strict=True))

    def snapshot(self) -> dict[str, np.ndarray]:
        return snapshot_of(self.weights, self.update)


def reference(setting: str) -> tuple[tuple[keras.Variable, ...], Any]:
    """Keras's optimiser on variables of its own, by dense gradients; clipped first, of tables by their rows."""
    name, config, options = OPTIMIZERS[setting]
    training = TrainingSpec.model_validate({"globalBatch": 4, "steps": STEPS, **options})
    variables = variables_of(SHAPES)
    groups = Groups.of(training, variables.trained_paths)
    clipping = make_optimizer(KerasObjectSpec(name=name, config=config), training.gradient_clip)
    pairs = []
    for factor in groups.distinct:
        optimizer = make_optimizer(KerasObjectSpec(name=name, config=config), None, factor)
        own = groups.members(factor)
        optimizer.exclude_from_weight_decay(var_list=[variables.trainable[i] for i in groups.excluded])
        optimizer.build([variables.trainable[index] for index in own])
        pairs.append((optimizer, own))

    @tf.function(autograph=False)
    def apply(gradients: dict[str, Any], ids: list[Any]) -> Any:
        given = [gradients[path] for path in SHAPES]
        shapes = [SHAPES[path] if path in TABLES else None for path in SHAPES]
        if training.gradient_clip == GradientClip.model_validate(GLOBAL):
            norm = base_optimizer.global_norm(given)
            given = [_densified(*item) for item in zip(given, ids, shapes, strict=True)]
            with mock.patch.object(base_optimizer, "global_norm", return_value=norm):
                dense = clipping._clip_gradients(given)
        else:
            clipped = clipping._clip_gradients(given)
            dense = [_densified(*item) for item in zip(clipped, ids, shapes, strict=True)]
        for optimizer, own in pairs:
            optimizer.apply([dense[index] for index in own], [variables.trainable[index] for index in own])
        return tf.zeros(())  # without a result TensorFlow would leave its constants as they are

    def step(gradients: Gradients) -> None:
        rows = {path: slices.rows for path, slices in gradients.slices.items()}
        given = {path: tf.constant(values) for path, values in (gradients.dense | rows).items()}
        ids = [tf.constant(gradients.slices[path].ids) if path in TABLES else tf.zeros(0, tf.int64) for path in SHAPES]
        apply(given, ids)

    return variables.trainable, step


def _densified(gradient: Any, ids: Any, shape: tuple[int, ...] | None) -> Any:
    return gradient if shape is None else tf.scatter_nd(ids[:, None], gradient, tf.constant(shape, tf.int64))


@pytest.mark.parametrize("setting", OPTIMIZERS)
def test_exact_has_the_bits_of_keras_s_dense_update_and_keeps_them_after_a_restart(
    setting: str, blocks: Blocks
) -> None:
    rng = np.random.default_rng(6)
    ours, (variables, apply) = Ours(setting, blocks), reference(setting)
    ours.attach()
    assert isinstance(ours.update, FusedUpdate) == (setting not in DENSE)
    for step in range(STEPS):
        gradients = Gradients(rng)
        apply(gradients)
        ours.step(gradients)
        for (path, view), variable in zip(ours.values.items(), variables, strict=True):
            assert view.tobytes() == variable.numpy().tobytes(), f"step {step}: {path}"
        if step == STEPS // 2:
            state = ours.snapshot()
            ours = Ours(setting, blocks)
            ours.weights.restore(state)
            ours.update.restore(state)
            ours.attach()


@pytest.mark.parametrize("setting", ROW_RULES)
def test_lazy_changes_the_gathered_rows_alone_as_an_update_of_them_would(setting: str, blocks: Blocks) -> None:
    """In the first step all state is as it begins, so that a gathered row becomes what it becomes in mode exact."""
    gradients, more = Gradients(np.random.default_rng(7)), Gradients(np.random.default_rng(8))
    lazy, exact = Ours(setting, blocks, is_lazy=True), Ours(setting, blocks)
    for one in (lazy, exact):
        one.attach()
        one.step(gradients)
    first = variables_of(SHAPES)
    for path, variable in zip(SHAPES, first.trainable, strict=True):
        expected = exact.values[path].copy()
        if path in TABLES:
            expected = variable.numpy()
            expected[gradients.slices[path].ids] = exact.values[path][gradients.slices[path].ids]
        if SHAPES[path][-1] % PACKET and not setting.startswith(("sgd", "adam")):
            np.testing.assert_allclose(lazy.values[path], expected, rtol=1e-6, err_msg=path)  # among other rows
        else:
            assert lazy.values[path].tobytes() == expected.tobytes(), path
    before = lazy.snapshot()
    lazy.step(more)
    after = lazy.snapshot()
    for name in (name for name in before if name.endswith(TABLES)):
        changed = np.flatnonzero((before[name] != after[name]).any(axis=1))
        path = next(path for path in TABLES if name.endswith(path))
        assert changed.tolist() == more.slices[path].ids.tolist(), name


def test_lazy_adam_is_what_its_definition_says(blocks: Blocks) -> None:
    """In NumPy with float64: state and weights of the gathered rows, the bias correction by the job's steps."""
    rng = np.random.default_rng(9)
    ours = Ours("adam", blocks, is_lazy=True)
    ours.attach()
    path = TABLES[0]
    weights = ours.values[path].astype(np.float64)
    momentum, velocity = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gradients = Gradients(rng)
        ours.step(gradients)
        ids, rows = gradients.slices[path].ids, gradients.slices[path].rows.astype(np.float64)
        momentum[ids] = 0.9 * momentum[ids] + 0.1 * rows
        velocity[ids] = 0.999 * velocity[ids] + 0.001 * rows**2
        rate = 1e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        weights[ids] -= rate * momentum[ids] / (np.sqrt(velocity[ids]) + 1e-7)
    np.testing.assert_allclose(ours.values[path], weights, atol=1e-6)
