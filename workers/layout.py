"""Where tensors, and behind them the slices of tables, lie in a flat buffer.

Tensors of one dtype are neighbours (a section), so that a whole section is added by one operation; each starts on a
64-byte boundary, since an unaligned DLPack view makes TensorFlow abort the process.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import ml_dtypes
import numpy as np

from workers.alignment import aligned
from workers.slices import SlicesPlace, Table

TABLE = "table"
"""Stands for a dtype where a layout is written as JSON."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a TensorFlow dtype's name."""
    return np.dtype(getattr(ml_dtypes, name)) if name == "bfloat16" else np.dtype(name)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that wants a place: a unique name, its shape and its dtype's name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Section:
    """Neighbouring tensors of one dtype, padding included; `offset` in bytes, `elements` of that dtype."""

    dtype: str
    offset: int
    elements: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors with their byte offsets, in the order given; padding holds zeros and stays zero under addition."""

    tensors: tuple[Tensor, ...]
    offsets: tuple[int, ...]
    sections: tuple[Section, ...]
    total_bytes: int
    """Of the tables' slices too."""
    tables: tuple[Table, ...] = ()

    @classmethod
    def of(cls, tensors: Iterable[Tensor], tables: Iterable[Table] = ()) -> Layout:
        tensors, tables = tuple(tensors), tuple(tables)
        names = {tensor.name for tensor in tensors} | {table.name for table in tables}
        if len(names) != len(tensors) + len(tables):
            raise ValueError("two tensors have the same name")
        offsets: dict[str, int] = {}
        sections = []
        end = 0
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            start, size = end, numpy_dtype(dtype).itemsize
            for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
                offsets[tensor.name] = end
                end += aligned(tensor.elements * size)
            sections.append(Section(dtype, start, (end - start) // size))
        total_bytes = max(end, 64) + sum(table.total_bytes for table in tables)
        return cls(tensors, tuple(offsets[tensor.name] for tensor in tensors), tuple(sections), total_bytes, tables)

    def views(self, buffer: Any, start: int = 0) -> list[np.ndarray]:
        """Arrays over a buffer that begins at byte `start`, one per tensor, in order."""
        return [
            np.frombuffer(buffer, numpy_dtype(tensor.dtype), tensor.elements, start + offset).reshape(tensor.shape)
            for tensor, offset in zip(self.tensors, self.offsets, strict=True)
        ]

    def flat(self, buffer: Any, start: int = 0) -> list[np.ndarray]:
        """One-dimensional arrays over the sections."""
        return [
            np.frombuffer(buffer, numpy_dtype(section.dtype), section.elements, start + section.offset)
            for section in self.sections
        ]

    @property
    def dense_bytes(self) -> int:
        """Of the tensors alone."""
        return self.total_bytes - sum(table.total_bytes for table in self.tables)

    def places(self, buffer: Any, start: int = 0) -> list[SlicesPlace]:
        """Where the slices of each table lie in a buffer that begins at byte `start`, in order."""
        places, end = [], start + self.dense_bytes
        for table in self.tables:
            places.append(SlicesPlace(table, buffer, end))
            end += table.total_bytes
        return places

    def used(self, buffer: Any, start: int = 0) -> list[tuple[int, int]]:
        """Bytes [first, end) of a buffer that hold something: the tensors, and of the tables as much as is set."""
        ranges = [(start, start + self.dense_bytes)]
        for place in self.places(buffer, start):
            ranges += place.used()
        return ranges

    def digest(self) -> str:
        """Equal for equal tensors in equal order."""
        document = json.dumps([*map(asdict, self.tensors), *map(asdict, self.tables)])
        return hashlib.sha256(document.encode()).hexdigest()

    def to_json(self) -> list[list[Any]]:
        tensors = [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]
        return [*tensors, *([table.name, [table.rows, table.width, table.capacity], TABLE] for table in self.tables)]

    @classmethod
    def from_json(cls, document: Sequence[Sequence[Any]]) -> Layout:
        parts = [(str(name), tuple(int(n) for n in shape), str(dtype)) for name, shape, dtype in document]
        return cls.of(
            [Tensor(name, shape, dtype) for name, shape, dtype in parts if dtype != TABLE],
            [Table(name, *shape) for name, shape, dtype in parts if dtype == TABLE],
        )
