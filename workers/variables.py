"""A model's variables, sorted by what a step does with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import keras
import numpy as np

from workers.layout import Layout, Tensor

SEED_GENERATOR_STATE = "seed_generator_state"


def unique_names(paths: Iterable[str]) -> list[str]:
    """Variable paths, made unique: subclassed models may give one path twice."""
    seen: dict[str, int] = {}
    names = []
    for path in paths:
        seen[path] = seen.get(path, 0) + 1
        names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


@dataclass(frozen=True, slots=True)
class ModelVariables:
    """Trained variables, other state that a step may change, and the states of seed generators, in model order."""

    trainable: tuple[keras.Variable, ...]
    state: tuple[keras.Variable, ...]
    seeds: tuple[keras.Variable, ...]
    names: tuple[str, ...]
    """Names of `trainable` and `state`, unique."""

    @classmethod
    def of(cls, model: keras.Model) -> ModelVariables:
        trainable = tuple(model.trainable_variables)
        others = tuple(model.non_trainable_variables)
        seeds = tuple(variable for variable in others if variable.path.endswith(SEED_GENERATOR_STATE))
        state = tuple(variable for variable in others if not variable.path.endswith(SEED_GENERATOR_STATE))
        names = unique_names([f"weights/{v.path}" for v in trainable] + [f"state/{v.path}" for v in state])
        return cls(trainable, state, seeds, tuple(names))

    @property
    def bound(self) -> tuple[keras.Variable, ...]:
        """What lives in the weights buffer: `trainable`, then `state`."""
        return self.trainable + self.state

    @property
    def trained_paths(self) -> list[str]:
        """The paths of `trainable`, unique."""
        return [name.removeprefix("weights/") for name in self.names[: len(self.trainable)]]

    def layout(self) -> Layout:
        """The layout of the weights buffer."""
        return Layout.of(
            Tensor(name, tuple(int(n) for n in variable.shape), str(variable.dtype))
            for name, variable in zip(self.names, self.bound, strict=True)
        )

    def values(self) -> list[np.ndarray]:
        """The values of `bound`; the arrays may share the variables' memory, so use them before the next update."""
        return [np.asarray(variable._value.value()) for variable in self.bound]
