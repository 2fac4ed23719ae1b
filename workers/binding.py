"""Binds a model's variables to the weights buffer, so that a step reads new weights without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from gradwire.errors import JobFailed
from workers.alignment import ALIGNMENT_BYTES


def share(view: np.ndarray) -> Any:
    """A tensor over an array's memory: the array must be writable, C-contiguous and 64-byte aligned.

    An unaligned view is accepted by DLPack and makes the first op abort the process, hence the check.
    """
    if view.size and view.ctypes.data % ALIGNMENT_BYTES:
        raise JobFailed(f"array at {view.ctypes.data:#x} is not {ALIGNMENT_BYTES}-byte aligned", code="internal")
    return tf.experimental.dlpack.from_dlpack(view.__dlpack__())


def can_share(array: np.ndarray) -> bool:
    """Whether DLPack takes the array; it has no agreement on booleans, nor NumPy on bfloat16."""
    flags = array.flags
    is_plain = array.dtype.kind in "iuf" and array.size > 0
    return is_plain and flags.writeable and flags.c_contiguous and not array.ctypes.data % ALIGNMENT_BYTES


class Binding:
    """Variables that read from views of the weights buffer.

    On a GPU, and for empty variables, sharing is not possible: `refresh` then copies.
    """

    def __init__(self, variables: Sequence[keras.Variable], views: Sequence[np.ndarray]) -> None:
        self._copied: list[tuple[tf.Variable, np.ndarray]] = []
        for variable, view in zip(variables, views, strict=True):
            target = variable._value
            if target.dtype == tf.bool:  # DLPack has no agreement on booleans
                self._copied.append((target, view))
                continue
            target.assign(share(view))
            if "CPU" not in target.device or not view.size or not self._is_shared(target, view):
                self._copied.append((target, view))

    @staticmethod
    def _is_shared(variable: tf.Variable, view: np.ndarray) -> bool:
        # ReadVariableOp gives the variable's own buffer, without a copy, as long as nobody writes.
        return int(np.asarray(variable.value()).ctypes.data) == int(view.ctypes.data)

    def refresh(self) -> None:
        """Brings variables that could not share up to date; call it before a step reads the weights."""
        for variable, view in self._copied:
            variable.assign(view)
