"""A traced function, called without the layers of Python that TensorFlow puts before it.

`ConcreteFunction.__call__` sorts arguments by name and looks for gradient tapes: 0.07 of a small model's 0.47 ms, for
each shard. What is under it, `call_flat`, takes 0.02 ms more than the operation that it executes, by contexts that are
of no use where nobody differentiates. That operation is not public; pyproject.toml holds TensorFlow at one minor
version, and tests/integration/test_program.py calls it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from tensorflow.python.eager import context, execute
from tensorflow.python.eager.polymorphic_function.atomic_function import InterpolateRuntimeError


class Concrete:
    """Calls a `tf.types.experimental.ConcreteFunction` whose arguments are tensors, and whose result is a flat list.

    Args:
        instead: pairs of variables; the function reads the second where it was traced with the first.
    """

    def __init__(self, function: Any, instead: Sequence[tuple[Any, Any]] = ()) -> None:
        self.function = function
        inner = function._inference_function
        self._inner = inner
        self._name, self._outputs = inner.name.decode(), len(inner.function_type.flat_outputs)
        self._context = context.context()
        self._context.ensure_initialized()
        self._attributes = tuple(itertools.chain(*self._context.function_call_options.as_attrs().items()))
        others = {id(traced.handle): other.handle for traced, other in instead}
        self._captured = [others.get(id(captured), captured) for captured in function.captured_inputs]

    def __call__(self, *tensors: Any) -> list[np.ndarray]:
        """The results as arrays that share the tensors' memory; do not write to them.

        On a GPU they are copies.
        """
        try:
            results = execute.execute(
                self._name, self._outputs, [*tensors, *self._captured], self._attributes, self._context
            )
        except Exception:
            with InterpolateRuntimeError(self._inner):  # says which of the model's operations it was
                raise
        return [result._numpy() for result in results]
