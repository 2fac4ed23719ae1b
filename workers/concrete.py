"""A traced function, called without the layers of Python that TensorFlow puts before it.

`ConcreteFunction.__call__` sorts arguments by name and looks for gradient tapes: 0.07 of a small model's 0.47 ms, for
each shard. What is under it takes flat lists. It is not public; pyproject.toml holds TensorFlow at one minor
version, and tests/integration/test_program.py calls it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


class Concrete:
    """Calls a `tf.types.experimental.ConcreteFunction` whose arguments are tensors, and whose result is a flat list.

    Args:
        instead: pairs of variables; the function reads the second where it was traced with the first.
    """

    def __init__(self, function: Any, instead: Sequence[tuple[Any, Any]] = ()) -> None:
        self.function = function
        self._call = function._inference_function.call_flat
        others = {id(traced.handle): other.handle for traced, other in instead}
        self._captured = [others.get(id(captured), captured) for captured in function.captured_inputs]

    def __call__(self, *tensors: Any) -> list[np.ndarray]:
        """The results as arrays that share the tensors' memory; do not write to them.

        On a GPU they are copies.
        """
        return [result._numpy() for result in self._call(*tensors, *self._captured)]
