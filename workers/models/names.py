"""The names by which a specification means a model's inputs and outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from gradwire.errors import JobFailed
from gradwire.keras_vocabulary import near
from gradwire.spec.part import ONLY

T = TypeVar("T")

MISMATCH = "model_data_mismatch"


def resolve(given: Mapping[str, T], known: tuple[str, ...], *, field: str, what: str) -> dict[str, T]:
    """`given` by the model's own names: the key "" becomes the only one.

    Args:
        known: the model's names.
        field: the field of the specification, for messages.
        what: "input" or "output".

    Raises:
        JobFailed: `model_data_mismatch` for a name that the model does not have, or "" where it has several.
    """
    resolved: dict[str, T] = {}
    for name, value in given.items():
        if name == ONLY and len(known) != 1:
            raise JobFailed(
                f"{field} names no {what}, but the model has {len(known)}: {', '.join(known)}; name them", code=MISMATCH
            )
        if name != ONLY and name not in known:
            raise JobFailed(f"{field}: the model has no {what} {name!r}{near(name, known)}", code=MISMATCH)
        resolved[known[0] if name == ONLY else name] = value
    return resolved


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """The names, of which repeated ones get _1, _2, ... in order."""
    names = list(names)
    taken, result = set(names), []
    seen: set[str] = set()
    for name in names:
        candidate, number = name, 0
        while candidate in seen or (number and candidate in taken):
            number += 1
            candidate = f"{name}_{number}"
        seen.add(candidate)
        result.append(candidate)
    return tuple(result)
