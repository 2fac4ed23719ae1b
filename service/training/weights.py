"""The weights buffer: the one copy that workers read. The trainer's loop is its only writer, between two steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras
import numpy as np

from service.training.exchange import SharedMemoryServer
from workers.binding import Binding
from workers.variables import ModelVariables

SEGMENT = "weights"

Copy = Callable[[np.ndarray, np.ndarray], None]
"""Copies the second array's values to the first."""


class Weights:
    """Trained variables and other state in shared memory, by name and in model order.

    Keras's optimisers update variables, so that the trainer's model holds the trained weights a second time, and
    `publish` copies them out. An update that writes here itself has the model `bind`: it then reads this buffer.
    """

    def __init__(self, server: SharedMemoryServer, variables: ModelVariables) -> None:
        self._variables = variables
        self.layout = variables.layout()
        segment = server.create(SEGMENT, self.layout.total_bytes)
        self._views = self.layout.views(segment.buffer)
        self._by_name = dict(zip(variables.names, self._views, strict=True))
        self._binding: Binding | None = None
        self._average: Sequence[np.ndarray] | None = None
        self._sections = self.layout.flat(segment.buffer)
        for view, value in zip(self._views, variables.values(), strict=True):
            np.copyto(view, value)

    def publish(self, values: Sequence[np.ndarray]) -> None:
        """Copies the values of the trained variables, which the optimiser has updated, to the buffer."""
        for view, value in zip(self._views, values, strict=False):
            np.copyto(view, value)

    def merge(self, changes: Mapping[str, np.ndarray]) -> None:
        """Adds the changes of state, which are summed over the shards of a step."""
        for name, change in changes.items():
            view = self._by_name[name]
            np.add(view, change, out=view)

    def bind(self) -> None:
        """From now on the trainer's model has its variables in this buffer."""
        self._binding = Binding(self._variables.bound, self._views)

    @property
    def trained(self) -> np.ndarray:
        """All trained variables, which are float32, as one array, padding included; they lie as their gradients do."""
        count = len(self._variables.trainable)
        behind = [
            offset
            for tensor, offset in zip(self.layout.tensors[count:], self.layout.offsets[count:], strict=True)
            if tensor.dtype == "float32"
        ]
        end_bytes = min(behind, default=self._sections[0].nbytes)
        return self._sections[0][: end_bytes // 4]

    def show(self, average: Sequence[np.ndarray]) -> None:
        """From now on `loaded` gives the model these instead of the trained variables, in model order."""
        self._average = average
        if self._binding is not None:
            self._binding = Binding(self._variables.bound, [*average, *self.values()[1]])

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """The trainer's model has the buffer's state, and the weights to evaluate or export, until the block ends."""
        if self._binding is not None:
            self._binding.refresh()
            yield
            return
        trained, state = self.values()
        _assign(self._variables.state, state)
        if self._average is not None:
            _assign(self._variables.trainable, self._average)
        try:
            yield
        finally:
            if self._average is not None:  # the optimiser goes on with the trained ones
                _assign(self._variables.trainable, trained)

    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Sets buffer and model to a checkpoint's tensors, by name."""
        pairs = zip(self._variables.names, self._variables.bound, self._views, strict=True)
        for name, variable, view in pairs:
            np.copyto(view, tensors[name])
            if self._binding is None:
                variable.assign(tensors[name])

    def copy_into(self, target: Mapping[str, np.ndarray], copy: Copy = np.copyto) -> None:
        """Copies everything to arrays of the same names, shapes and dtypes, which `layout` tells."""
        for name, view in self._by_name.items():
            copy(target[name], view)

    @property
    def by_name(self) -> Mapping[str, np.ndarray]:
        """Views of everything."""
        return self._by_name

    def values(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Views of the trained variables and of the other state, in model order."""
        count = len(self._variables.trainable)
        return self._views[:count], self._views[count:]

    def by_kind(self) -> tuple[list[np.ndarray], list[np.ndarray], dict[str, np.ndarray]]:
        """As `values`, but what Keras does not know apart, by path: as the digest wants it."""
        raw = self._variables.raw
        trained = [self._by_name[name] for name in self._by_name if name.startswith("weights/") and name not in raw]
        state = [self._by_name[name] for name in self._by_name if name.startswith("state/") and name not in raw]
        return trained, state, {name.partition("/")[2]: self._by_name[name] for name in raw}


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
