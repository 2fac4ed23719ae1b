"""Every optimiser of Keras, with every option of the update, has the bits of Keras's own `apply` in a tf.function."""

from __future__ import annotations

import mmap
import re
from functools import partial
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from gradwire.errors import JobFailed
from gradwire.keras_vocabulary import accepted_names, canonical
from gradwire.spec.job import KerasObjectSpec, TrainingSpec
from service.training.average import MovingAverage
from service.training.blocks import Blocks
from service.training.fused import FusedUpdate
from service.training.groups import Groups
from service.training.summation import StepSum, Summation
from service.training.update import Update, make_update
from service.training.weights import Weights
from tests.integration.trained import snapshot_of, variables_of
from workers.layout import Layout, Tensor
from workers.models.objects import make_optimizer
from workers.tree import Node

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

STEPS = 6
SHAPES = {
    "embedding/table": (9, 4),
    "dense/kernel": (4, 130),
    "dense/bias": (130,),
    "norm/gamma": (),
    "out/kernel": (130, 3),
}
COSINE = {"name": "CosineDecay", "config": {"initial_learning_rate": 0.02, "decay_steps": 5}}
PIECES = {"name": "PiecewiseConstantDecay", "config": {"boundaries": [2, 4], "values": [0.1, 0.03, 0.01]}}
MULTIPLIERS = {"embedding": 0.1, "out/kernel": 3.0}

PROPERTIES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "schedule": ({"learning_rate": COSINE}, {}),
    "decay": ({"weight_decay": 0.01}, {"weightDecayExclude": ["bias$", "norm"]}),
    "clip_value": ({}, {"gradientClip": {"kind": "value", "limit": 0.01}}),
    "clip_norm": ({}, {"gradientClip": {"kind": "norm", "limit": 0.1}}),
    "clip_global": ({}, {"gradientClip": {"kind": "global_norm", "limit": 0.1}}),
    "groups": (
        {"learning_rate": PIECES},
        {"learningRateMultipliers": MULTIPLIERS, "gradientClip": {"kind": "global_norm", "limit": 0.1}},
    ),
    "fused_groups": (
        {"weight_decay": 0.01},
        {"learningRateMultipliers": MULTIPLIERS, "weightDecayExclude": ["bias$", "norm"]},
    ),
}
"""By name: what the optimiser's config says, and what `training` says."""
EVERYWHERE = ("plain", "decay", "groups")
"""The other properties are tried with those of EXAMPLES; `groups` has a schedule, too."""
EXAMPLES = ("SGD", "Adam", "AdamW", "Adagrad", "Muon")
FUSED = ("SGD", "Adam", "AdamW", "Adagrad", "RMSprop")
"""Those that have a rule of ours."""
OPTIMIZERS = sorted({canonical("optimizer", name) for name in accepted_names("optimizer")})
CASES = [(name, option) for name in OPTIMIZERS for option in PROPERTIES if option in EVERYWHERE or name in EXAMPLES]


class Ours:
    """A weights buffer with the update that the trainer would make."""

    def __init__(self, name: str, option: str, blocks: Blocks) -> None:
        config, options = PROPERTIES[option]
        training = TrainingSpec.model_validate({"globalBatch": 4, "steps": STEPS, **options})
        variables = variables_of(SHAPES)
        server: Any = SimpleNamespace(create=lambda name, size: SimpleNamespace(buffer=mmap.mmap(-1, size)))
        self.weights = Weights(server, variables)
        self.layout = Layout.of(Tensor(f"gradient/{path}", shape, "float32") for path, shape in SHAPES.items())
        make = partial(make_optimizer, KerasObjectSpec(name=name, config=config), training.gradient_clip)
        groups = Groups.of(training, variables.trained_paths)
        self.update: Update = make_update(make, groups, variables, self.weights, blocks)
        self.summation = Summation(self.layout, blocks)
        self.update.attach(self.summation)

    def step(self, gradients: list[np.ndarray]) -> None:
        buffer = mmap.mmap(-1, self.layout.total_bytes)
        for view, gradient in zip(self.layout.views(buffer), gradients, strict=True):
            np.copyto(view, gradient)
        self.update.prepare()
        self.update.apply(StepSum(Node(0, 1), {Node(0, 1): self.layout.flat(buffer)}))

    @property
    def values(self) -> list[np.ndarray]:
        return self.weights.values()[0]

    def snapshot(self) -> dict[str, np.ndarray]:
        return snapshot_of(self.weights, self.update)

    def restore(self, tensors: dict[str, np.ndarray]) -> None:
        self.weights.restore(tensors)
        self.update.restore(tensors)


class Reference:
    """Keras's optimiser on variables of its own; with multipliers one for each group of them."""

    def __init__(self, name: str, option: str) -> None:
        config, options = PROPERTIES[option]
        training = TrainingSpec.model_validate({"globalBatch": 4, "steps": STEPS, **options})
        variables = variables_of(SHAPES).trainable
        multipliers = training.learning_rate_multipliers
        factors = [next((f for p, f in multipliers.items() if re.search(p, path)), 1.0) for path in SHAPES]
        clip = training.gradient_clip
        is_global = bool(multipliers) and clip is not None and clip.kind == "global_norm"
        spec = KerasObjectSpec(name=name, config=config)
        pairs = []
        for factor in dict.fromkeys(factors):
            optimizer = make_optimizer(spec, None if is_global else clip, factor)
            own = [index for index, other in enumerate(factors) if other == factor]
            patterns = training.weight_decay_exclude
            excluded = [
                variable
                for variable, path in zip(variables, SHAPES, strict=True)
                if any(re.search(pattern, path) for pattern in patterns)
            ]
            optimizer.exclude_from_weight_decay(var_list=excluded)
            optimizer.build([variables[index] for index in own])
            pairs.append((optimizer, own))

        @tf.function(autograph=False)
        def apply(*gradients: Any) -> Any:
            given = list(gradients)
            if is_global and clip is not None:
                given = keras.src.optimizers.base_optimizer.clip_by_global_norm(given, clip.limit)
            for optimizer, own in pairs:
                optimizer.apply([given[index] for index in own], [variables[index] for index in own])
            return tf.zeros(())  # without a result TensorFlow would leave its constants as they are

        self.variables = variables
        self.step = lambda gradients: apply(*[tf.constant(gradient) for gradient in gradients])


@pytest.mark.parametrize(("name", "option"), CASES)
def test_the_bits_are_those_of_keras_and_stay_so_after_a_restart(name: str, option: str, blocks: Blocks) -> None:
    rng = np.random.default_rng(6)
    ours, reference = Ours(name, option, blocks), Reference(name, option)
    for step in range(STEPS):
        gradients = [np.asarray(rng.standard_normal(shape), np.float32) for shape in SHAPES.values()]
        reference.step(gradients)
        ours.step(gradients)
        for path, view, variable in zip(SHAPES, ours.values, reference.variables, strict=True):
            assert view.tobytes() == variable.numpy().tobytes(), f"step {step}: {path}"
        if step == STEPS // 2:
            state = ours.snapshot()
            ours = Ours(name, option, blocks)
            ours.restore(state)
    # A single weight, which alone takes a rate that is a product.
    is_alone = name in ("Adagrad", "RMSprop") and option == "groups"
    assert isinstance(ours.update, FusedUpdate) == (name in FUSED and not is_alone)


def test_the_moving_average_has_the_bits_of_keras(blocks: Blocks) -> None:
    rng = np.random.default_rng(7)
    variables = variables_of(SHAPES).trainable
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.97)
    optimizer.build(list(variables))

    @tf.function(autograph=False)
    def apply(*gradients: Any) -> Any:
        optimizer.apply(list(gradients), list(variables))
        return tf.zeros(())

    weights = [np.array(variable.numpy()) for variable in variables]
    average = MovingAverage(0.97, list(SHAPES), weights, blocks)
    for _ in range(STEPS):
        apply(*[tf.constant(rng.standard_normal(shape), tf.float32) for shape in SHAPES.values()])
        for view, variable in zip(weights, variables, strict=True):
            np.copyto(view, variable.numpy())
        average.update()
        for view, theirs in zip(average.views, optimizer._model_variables_moving_average, strict=True):
            assert view.tobytes() == theirs.numpy().tobytes()


def test_patterns_that_find_nothing_or_contradict_each_other_are_refused() -> None:
    paths = list(SHAPES)

    def groups(**options: Any) -> Groups:
        return Groups.of(TrainingSpec.model_validate({"globalBatch": 4, "steps": 1, **options}), paths)

    with pytest.raises(JobFailed, match=r"'dense/biass' finds no trained variable; did you mean dense/bias"):
        groups(weightDecayExclude=["dense/biass"])
    with pytest.raises(JobFailed, match=r"both 'dense' \(2.0\) and 'kernel' \(3.0\) find dense/kernel"):
        groups(learningRateMultipliers={"dense": 2.0, "kernel": 3.0})
    assert groups(learningRateMultipliers={"dense": 2.0, "dense/bias": 2.0}).factors == (1.0, 2.0, 2.0, 1.0, 1.0)
