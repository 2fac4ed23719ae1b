"""Adds contributions in the order of the tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from service.training.blocks import Blocks, Scratch
from workers.layout import Layout
from workers.pages import pages
from workers.slices import Slices, added
from workers.tree import Node

Sections = list[np.ndarray]

GRADIENT = "gradient/"
FIRST_FREE = 4
"""Temporary blocks below this number belong to whoever asks for a sum."""


@dataclass(frozen=True, slots=True)
class StepSum:
    """The sum over a step's shards, computed block by block as it is asked for; it writes into no contribution.

    A slot belongs to the trainer from a worker's word that it is done to the next order.
    """

    root: Node
    contributions: Mapping[Node, Sections]
    tables: Mapping[Node, Sequence[Slices]] = field(default_factory=dict)
    """For each contribution the slices of the tables, in their order."""

    def block(self, section: int, start: int, end: int, scratch: Scratch, stride: int = 1) -> np.ndarray:
        """The sum of elements [start, end) of a section, or of every `stride`-th of them.

        To be read before the same thread asks for another.
        """
        return self._sum(self.root, section, slice(start, end, stride), scratch, FIRST_FREE)

    def slices(self, table: int) -> Slices:
        """The sum of a table's slices; it may share a contribution's memory."""
        return self._slices(self.root, table)

    def _slices(self, node: Node, table: int) -> Slices:
        found = self.tables.get(node)
        if found is not None:
            return found[table]
        left, right = node.children()
        return added(self._slices(left, table), self._slices(right, table))

    def _sum(self, node: Node, section: int, part: slice, scratch: Scratch, number: int) -> np.ndarray:
        found = self.contributions.get(node)
        if found is not None:
            return found[section][part]
        if node.is_leaf:
            raise KeyError(f"no contribution for shard {node.lo}")
        left, right = node.children()
        first = self._sum(left, section, part, scratch, number)
        second = self._sum(right, section, part, scratch, number + 1)
        result: np.ndarray = np.add(first, second, out=scratch.like(number, first))
        return result


class Summation:
    """A buffer for sums. Gradients are summed into it only for an update that cannot take them block by block.

    `gradients` is how many elements the first section begins with that are float32 gradients; 0 where others are among
    the gradients.
    """

    def __init__(self, layout: Layout, blocks: Blocks) -> None:
        self.layout = layout
        self._blocks = blocks
        buffer = pages(layout.total_bytes)
        self._sections = layout.flat(buffer)
        self.tensors = dict(zip((tensor.name for tensor in layout.tensors), layout.views(buffer), strict=True))
        self.gradients = _leading_gradients(layout)

    def add_up(self, total: StepSum) -> None:
        """Sets all but the leading gradients to their sums."""
        for number, section in enumerate(self._sections):
            self._set(total, number, self.gradients if number == 0 else 0, section.size)

    def add_gradients(self, total: StepSum) -> None:
        """Sets the leading gradients to their sums."""
        if self.gradients:
            self._set(total, 0, 0, self.gradients)

    def block(self, section: int, start: int, end: int, scratch: Scratch) -> np.ndarray:
        """Elements [start, end) of a section's sums, in place."""
        return self._sections[section][start:end]

    def _set(self, total: StepSum, section: int, first: int, end: int) -> None:
        def set_block(start: int, stop: int, scratch: Scratch) -> None:
            part = slice(first + start, first + stop)
            np.copyto(self._sections[section][part], total.block(section, part.start, part.stop, scratch))

        self._blocks.run(end - first, set_block)


def _leading_gradients(layout: Layout) -> int:
    """In elements; tensors of one dtype are neighbours in the order given, and gradients come first."""
    first = layout.sections[0]
    gradients = [tensor for tensor in layout.tensors if tensor.name.startswith(GRADIENT)]
    if first.dtype != "float32" or any(tensor.dtype != "float32" for tensor in gradients):
        return 0
    others = [
        offset
        for tensor, offset in zip(layout.tensors, layout.offsets, strict=True)
        if tensor.dtype == "float32" and not tensor.name.startswith(GRADIENT)
    ]
    end_bytes = min(others, default=first.offset + first.elements * 4)
    return (end_bytes - first.offset) // 4
