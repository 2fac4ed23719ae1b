"""Which checkpoints stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["min", "max"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A checkpoint's step, and its value of the monitored metric; None where it has none."""

    step: int
    value: float | None = None


def best_step(existing: Sequence[Entry], mode: Mode) -> int | None:
    """The step with the best finite value, the earliest of equals; None where no value is finite."""
    sign = 1 if mode == "min" else -1
    ranked = [
        (sign * entry.value, entry.step) for entry in existing if entry.value is not None and math.isfinite(entry.value)
    ]
    return min(ranked)[1] if ranked else None


def to_delete(existing: Sequence[Entry], keep: int, mode: Mode, best: int | None = None) -> list[int]:
    """The steps, ascending, that are neither among the last `keep` nor the best, nor `best`, which somebody else found.

    Raises `ValueError` for a `keep` below 1: a job without any checkpoint could not go on.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; at least 1 checkpoint stays")
    steps = sorted(entry.step for entry in existing)
    stay = {best, best_step(existing, mode)}
    return [step for step in steps[:-keep] if step not in stay]
