"""The lengths that batches of ragged arrays are padded to: a function of the specification and the batch's rows."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from gradwire.errors import JobFailed
from gradwire.spec.padding import MAX_LENGTHS, MAX_SHAPES, PaddingSpec
from gradwire.spec.part import ONLY
from workers.data import faults
from workers.data.source import ArrayInfo, Source

MAX_SHOWN = 8
"""Lengths in a message."""

Lengths = tuple[int, ...]
"""Of one batch: the length of each group."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Arrays that have one length in each batch."""

    rule: PaddingSpec
    arrays: tuple[str, ...]
    name: str
    """The rule's in the specification; empty for the one of all arrays."""

    @property
    def field(self) -> str:
        return f"data.padding.{self.name}" if self.name else "data.padding"


@dataclass(frozen=True, slots=True)
class Padding:
    """Nothing here depends on shards or workers: a batch's length is that of its longest row, over all its shards."""

    groups: tuple[_Group, ...] = ()
    infos: Mapping[str, ArrayInfo] = field(default_factory=dict)
    """Every array of the source as batches have it; a length that is always the same stands there."""
    _possible: tuple[Lengths | None, ...] = ()

    @classmethod
    def of(cls, rules: Mapping[str, PaddingSpec], sources: Collection[Source]) -> Self:
        """The padding of a job's sources, of which the first is the training's.

        Raises:
            JobFailed: `data_shape` for ragged arrays without a rule, a rule for an array that is not ragged, rows
                beyond the longest length, and too many lengths, where the source knows its rows'.
        """
        train = next(iter(sources))
        ragged = [name for name, info in train.arrays.items() if info.is_ragged]
        _check_rules(train, ragged, rules)
        groups = [_Group(rule, (name,), name) for name, rule in rules.items() if name != ONLY]
        others = tuple(sorted(name for name in ragged if name not in rules))
        if others:
            groups.append(_Group(rules[ONLY], others, ONLY))
        found = tuple(groups)
        possible = []
        for group in found:
            longest = [source.longest(name) for source in sources for name in group.arrays]
            known = None if None in longest else max(row for row in longest if row is not None)
            allowed = group.rule.lengths(known)
            if allowed is not None and len(allowed) > MAX_LENGTHS:
                raise _too_many(group, allowed)
            possible.append(None if allowed is None else tuple(allowed))
            for source in sources:
                _check_longest(group, source)
        infos = dict(train.arrays)
        for group, lengths in zip(found, possible, strict=True):
            only = lengths[0] if lengths is not None and len(lengths) == 1 else None
            infos |= {name: ArrayInfo((only, *infos[name].shape[1:]), infos[name].dtype) for name in group.arrays}
        return cls(found, infos, tuple(possible))

    @property
    def max_shapes(self) -> int:
        """How many combinations of lengths batches may have; where nothing bounds them, as many as are tolerated."""
        return min(math.prod(len(lengths) if lengths else MAX_LENGTHS for lengths in self._possible), MAX_SHAPES)

    def __str__(self) -> str:
        pairs = zip(self.groups, self._possible, strict=True)
        told = [f"{', '.join(group.arrays)} to {_told(group.rule, lengths)}" for group, lengths in pairs]
        return f"each batch pads {', and '.join(told)}: at most {self.max_shapes} traces for each size of a shard"

    def lengths(self, source: Source, rows: np.ndarray) -> Lengths:
        """The length of each group in a batch of these rows.

        Raises:
            JobFailed: `data_shape` for a row beyond the longest length, unless it is to be truncated.
        """
        return tuple(self._length(group, source, rows) for group in self.groups)

    @property
    def arrays(self) -> tuple[str, ...]:
        """The ragged ones."""
        return tuple(name for group in self.groups for name in group.arrays)

    def by_array(self, lengths: Lengths) -> dict[str, int]:
        """Each ragged array's length."""
        pairs = zip(self.groups, lengths, strict=True)
        return {name: length for group, length in pairs for name in group.arrays}

    def fill(self, array: str) -> float:
        """What shorter rows of an array are filled up with."""
        return next(group.rule.value for group in self.groups if array in group.arrays)

    def is_named(self, array: str) -> bool:
        """Whether an array has a rule of its own."""
        return any(group.name == array for group in self.groups)

    def _length(self, group: _Group, source: Source, rows: np.ndarray) -> int:
        longest = 0
        for name in group.arrays if rows.size else ():
            found = source.lengths(name, rows)
            at = int(found.argmax())
            if not group.rule.truncate and group.rule.longest is not None and found[at] > group.rule.longest:
                raise _too_long(group, source, name, int(rows[at]), int(found[at]))
            longest = max(longest, int(found[at]))
        return group.rule.length(longest)

    def __bool__(self) -> bool:
        return bool(self.groups)


def _told(rule: PaddingSpec, lengths: Lengths | None) -> str:
    if lengths is None or len(lengths) > MAX_SHOWN:
        return f"a multiple of {rule.multiple}" if rule.multiple is not None else f"one of {len(lengths or ())} lengths"
    return " or ".join(filter(None, [", ".join(map(str, lengths[:-1])), str(lengths[-1])]))


def _check_rules(source: Source, ragged: Collection[str], rules: Mapping[str, PaddingSpec]) -> None:
    for name in ragged:
        if name not in rules and ONLY not in rules:
            longest = source.longest(name)
            upto = f", of which the longest is {longest}" if longest is not None else ""
            raise faults.wrong_shape(
                f"{source.name}: array {name!r} has rows of several lengths{upto}: say to which lengths they are "
                f"padded, as data.padding.{name}: {{multiple: 32}} or {{buckets: [32, 64]}}"
            )
    for name in rules:
        if (name and name not in ragged) or not ragged:
            which = f"array {name!r} has" if name else "all arrays have"
            raise faults.wrong_shape(
                f"data.padding{name and '.'}{name}: {which} rows of one shape in {source.name}; leave the padding out, "
                "or save the rows of several lengths as numpy.savez(FILE, **gradwire.ragged(NAME=rows))"
            )


def _check_longest(group: _Group, source: Source) -> None:
    """A look at all rows, where that takes no reading."""
    allowed = group.rule.longest
    if allowed is None or group.rule.truncate:
        return
    for name in group.arrays:
        longest = source.longest(name)
        if longest is None or longest <= allowed:
            continue
        lengths = source.lengths(name, np.arange(source.rows, dtype=np.int64))
        row = int(lengths.argmax())
        if lengths[row] > allowed:  # else it is on the other side of a split
            raise _too_long(group, source, name, row, int(lengths[row]))


def _too_many(group: _Group, allowed: Collection[int]) -> JobFailed:
    return faults.wrong_shape(
        f"{group.field}: multiples of {group.rule.multiple} up to the longest row of {', '.join(group.arrays)} are "
        f"{len(allowed)} lengths, of which each is traced, and {MAX_LENGTHS} are the most: take "
        f"{-(-max(allowed) // MAX_LENGTHS)} or more, or buckets"
    )


def _too_long(group: _Group, source: Source, name: str, row: int, length: int) -> JobFailed:
    what = "a longer bucket" if group.rule.buckets is not None else "a larger max"
    at = source.file_rows(np.array([row], np.int64))[0]
    return faults.wrong_shape(
        f"{source.name}: array {name!r} has a row of length {length} in row {at} (counted from 0), and {group.field} "
        f"goes up to {group.rule.longest}: give {what}, or truncate: true to cut such rows off"
    )
