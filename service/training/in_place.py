"""Checkpoints of a state that is too large to be copied: they are written from where it lies, and the steps wait."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from service.training.snapshots import Tensors
from service.training.weights import Copy
from workers.exchange.room import Room

MAX_SHARE = 0.5
"""Of the memory that is free when the state is there; the optimiser's slots are taken of it too, as they are used."""


def is_too_large(size_bytes: int, room: Room) -> bool:
    """Whether a copy of so many bytes would leave too little to train."""
    return size_bytes > MAX_SHARE * room.free_bytes


class _Place:
    """Where a copy would go: notes what it would be of."""

    def __init__(self, name: str, found: dict[str, np.ndarray]) -> None:
        self._name = name
        self._found = found

    def __setitem__(self, _: Any, value: Any) -> None:
        self._found[self._name] = np.array(value)

    def take(self, source: np.ndarray) -> None:
        self._found[self._name] = source


class _Places(dict[str, Any]):
    def __init__(self, found: dict[str, np.ndarray]) -> None:
        super().__init__()
        self._found = found

    def __missing__(self, name: str) -> _Place:
        return _Place(name, self._found)


def _take(place: Any, source: np.ndarray) -> None:
    place.take(source)


def views_of(sources: Iterable[Any]) -> Tensors:
    """The arrays that the sources would copy, by name; scalars are copied."""
    found: dict[str, np.ndarray] = {}
    copy: Copy = _take
    for source in sources:
        source.copy_into(_Places(found), copy)
    return found
