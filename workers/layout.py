"""Where tensors lie in a flat buffer.

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

ALIGNMENT_BYTES = 64


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The NumPy dtype of a TensorFlow dtype's name."""
    return np.dtype(getattr(ml_dtypes, name)) if name == "bfloat16" else np.dtype(name)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


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

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> Layout:
        tensors = tuple(tensors)
        names = {tensor.name for tensor in tensors}
        if len(names) != len(tensors):
            raise ValueError("two tensors have the same name")
        offsets: dict[str, int] = {}
        sections = []
        end = 0
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            start, size = end, numpy_dtype(dtype).itemsize
            for tensor in (tensor for tensor in tensors if tensor.dtype == dtype):
                offsets[tensor.name] = end
                end += _aligned(tensor.elements * size)
            sections.append(Section(dtype, start, (end - start) // size))
        return cls(tensors, tuple(offsets[tensor.name] for tensor in tensors), tuple(sections), max(end, 64))

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

    def digest(self) -> str:
        """Equal for equal tensors in equal order."""
        document = json.dumps([asdict(tensor) for tensor in self.tensors])
        return hashlib.sha256(document.encode()).hexdigest()

    def to_json(self) -> list[list[Any]]:
        return [[tensor.name, list(tensor.shape), tensor.dtype] for tensor in self.tensors]

    @classmethod
    def from_json(cls, document: Sequence[Sequence[Any]]) -> Layout:
        return cls.of(Tensor(str(name), tuple(int(n) for n in shape), str(dtype)) for name, shape, dtype in document)
