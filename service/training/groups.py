"""Which trained variables an optimiser treats alike: by their factor of the learning rate, and by weight decay."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from gradwire.errors import JobFailed
from gradwire.keras_vocabulary import near
from gradwire.spec.job import TrainingSpec

MAX_SHOWN = 5
"""Paths in a message."""


@dataclass(frozen=True, slots=True)
class Groups:
    """For each trained variable, in model order: its factor of the learning rate, and whether it decays."""

    factors: tuple[float, ...]
    decayed: tuple[bool, ...]

    @classmethod
    def of(cls, training: TrainingSpec, paths: Sequence[str]) -> Self:
        """The groups of variables with these paths.

        Raises:
            JobFailed: a pattern finds no variable, or two patterns with other factors find the same one (code
                `optimizer_config`).
        """
        field = "training.weightDecayExclude"
        excluded = {path for pattern in training.weight_decay_exclude for path in _found(pattern, paths, field)}
        factors = _factors(training.learning_rate_multipliers, paths)
        return cls(tuple(factors.get(path, 1.0) for path in paths), tuple(path not in excluded for path in paths))

    @property
    def distinct(self) -> tuple[float, ...]:
        """The factors that occur; an optimiser is made for each."""
        return tuple(dict.fromkeys(self.factors)) or (1.0,)

    @property
    def excluded(self) -> tuple[int, ...]:
        """The variables that do not decay."""
        return tuple(index for index, is_decayed in enumerate(self.decayed) if not is_decayed)

    def members(self, factor: float) -> tuple[int, ...]:
        """The variables with a factor."""
        return tuple(index for index, own in enumerate(self.factors) if own == factor)

    def segments(self, starts: Sequence[int], end: int) -> list[Segment]:
        """Neighbours of one kind, where variables begin at these elements of a buffer that ends at `end`; with their
        padding."""
        order = sorted(range(len(starts)), key=lambda index: starts[index])
        made: list[Segment] = []
        for index, following in zip(order, [*order[1:], None], strict=True):
            stop = end if following is None else starts[following]
            group = self.distinct.index(self.factors[index])
            if made and (made[-1].group, made[-1].is_decayed) == (group, self.decayed[index]):
                made[-1] = Segment(made[-1].start, stop, group, self.decayed[index])
            else:
                made.append(Segment(starts[index], stop, group, self.decayed[index]))
        return made

    def apart(self, starts: Sequence[int], sizes: Sequence[int]) -> list[Segment]:
        """One for each variable, where they begin at these elements of a buffer; without padding."""
        kinds = zip(starts, sizes, self.factors, self.decayed, strict=True)
        made = [
            Segment(start, start + size, self.distinct.index(factor), is_decayed)
            for start, size, factor, is_decayed in kinds
        ]
        return sorted(made, key=lambda segment: segment.start)


@dataclass(frozen=True, slots=True)
class Segment:
    """Elements [start, end) of the trained weights; `group` is an index of `Groups.distinct`."""

    start: int
    end: int
    group: int
    is_decayed: bool


def _factors(multipliers: Mapping[str, float], paths: Sequence[str]) -> dict[str, float]:
    field = "training.learningRateMultipliers"
    by_path: dict[str, tuple[float, str]] = {}
    for pattern, factor in multipliers.items():
        for path in _found(pattern, paths, field):
            before, other = by_path.setdefault(path, (factor, pattern))
            if before != factor:
                raise JobFailed(
                    f"{field}: both {other!r} ({before}) and {pattern!r} ({factor}) find {path}; make one of them "
                    "more narrow",
                    code="optimizer_config",
                )
    return {path: factor for path, (factor, _) in by_path.items()}


def _found(pattern: str, paths: Iterable[str], field: str) -> list[str]:
    paths = list(paths)
    found = [path for path in paths if re.search(pattern, path)]
    if not found:
        hint = near(pattern, paths) or f"; there are {', '.join(paths[:MAX_SHOWN])}, …"
        raise JobFailed(f"{field}: {pattern!r} finds no trained variable{hint}", code="optimizer_config")
    return found
