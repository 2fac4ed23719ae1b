"""Adds contributions in the order of the tree."""

from __future__ import annotations

import mmap
from collections.abc import Mapping

import numpy as np

from workers.layout import Layout
from workers.tree import Node, reduce

Sections = list[np.ndarray]


class Summation:
    """The sum over a step's shards, in a buffer of its own that the optimiser reads.

    Contributions are added in place: a slot belongs to the trainer from a worker's word that it is done to the next
    order.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        buffer = mmap.mmap(-1, layout.total_bytes)  # pages, hence aligned
        self._sections = layout.flat(buffer)
        self.tensors = dict(zip((tensor.name for tensor in layout.tensors), layout.views(buffer), strict=True))

    def add_up(self, shards: int, contributions: Mapping[Node, Sections]) -> None:
        """Sets the sum to that of the contributions, which cover the step's shards."""
        root = Node(0, shards)
        if root in contributions:
            for mine, theirs in zip(self._sections, contributions[root], strict=True):
                np.copyto(mine, theirs)
            return
        left, right = (reduce(child, contributions, _add_in_place) for child in root.children())
        for mine, first, second in zip(self._sections, left, right, strict=True):
            np.add(first, second, out=mine)


def _add_in_place(left: Sections, right: Sections) -> Sections:
    for mine, theirs in zip(left, right, strict=True):
        np.add(mine, theirs, out=mine)
    return left
