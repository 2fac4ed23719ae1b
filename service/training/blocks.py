"""Elementwise work over long arrays, block by block, on all cores that this process may use."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from workers.denormals import flush_denormals
from workers.pages import pages

BLOCK_ELEMENTS = 256 * 1024
"""Small blocks would fit into a core's cache together, but after each NumPy call a thread waits for the interpreter's
lock, and wakes late: with 26 million weights and two threads SGD took 38 ms by 32 Ki elements, 14 by 256 Ki."""
EVEN = 16
ALONE_ELEMENTS = 2 * BLOCK_ELEMENTS
"""Below this, waking another thread costs more than it saves."""

T = TypeVar("T")
Work = Callable[[int, int, "Scratch"], None]
"""(first item, item after the last, memory of this thread)."""


class Scratch:
    """Temporary blocks of one thread, by number; float32, or another dtype of at most eight bytes.

    Each begins a page, as far as TensorFlow wants a boundary.
    """

    def __init__(self) -> None:
        self._blocks: list[np.ndarray] = []

    def __getitem__(self, number: int) -> np.ndarray:
        while number >= len(self._blocks):
            self._blocks.append(np.frombuffer(pages(BLOCK_ELEMENTS * 8), np.float64))
        return self._blocks[number]

    def like(self, number: int, array: np.ndarray) -> np.ndarray:
        """A temporary array of the same shape (one-dimensional, at most a block) and dtype."""
        found: np.ndarray = self[number].view(array.dtype)[: array.size]
        return found


class Blocks:
    """Deals out blocks to the calling thread and its helpers; whoever is free takes the next.

    Which thread computes a block changes no bit: blocks do not meet.
    """

    def __init__(self, threads: int | None = None) -> None:
        self._helpers = (threads or len(os.sched_getaffinity(0))) - 1
        self._pool = ThreadPoolExecutor(max(self._helpers, 1), "blocks", initializer=flush_denormals)
        self._local = threading.local()

    def run(self, items: int, work: Work, *, width: int = 1) -> None:
        """Calls `work` for every block of [0, items); raises what it raises, once all threads are done.

        Args:
            width: elements of an item, of which a block has at most `BLOCK_ELEMENTS`. A block has a multiple of `EVEN`
                items, unless they are too wide for that.
        """
        most = BLOCK_ELEMENTS // width
        block = max(most - most % EVEN, min(most, EVEN), 1)
        # A range's iterator is advanced under the interpreter's lock, so that no block is dealt out twice.
        starts = iter(range(0, items, block))
        if items * width <= ALONE_ELEMENTS or not self._helpers:
            self._drain(starts, block, items, work)
            return
        others = [self._pool.submit(self._drain, starts, block, items, work) for _ in range(self._helpers)]
        try:
            self._drain(starts, block, items, work)
        finally:
            for other in others:
                other.result()

    def each(self, calls: Sequence[Callable[[], T]]) -> list[T]:
        """The results of calls that do not use these threads themselves, all under way at once."""
        others = [self._pool.submit(call) for call in calls[1:]] if self._helpers else []
        try:
            mine = [call() for call in (calls[:1] if others else calls)]
        finally:
            theirs = [other.result() for other in others]
        return mine + theirs

    def copy(self, target: np.ndarray, source: np.ndarray) -> None:
        """Copies an array to another of its shape and dtype, both C-contiguous.

        Not block by block: a long copy passes the caches by, which takes two thirds of the time.
        """
        if source.size <= ALONE_ELEMENTS or not self._helpers:
            np.copyto(target, source)
            return
        parts = (np.array_split(array.reshape(-1), self._helpers + 1) for array in (target, source))
        mine, *others = zip(*parts, strict=True)
        under_way = [self._pool.submit(np.copyto, *pair) for pair in others]
        np.copyto(*mine)
        for other in under_way:
            other.result()

    def close(self) -> None:
        self._pool.shutdown()

    def _drain(self, starts: Iterator[int], block: int, items: int, work: Work) -> None:
        scratch = self._scratch()
        for start in starts:
            work(start, min(start + block, items), scratch)

    def _scratch(self) -> Scratch:
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        found: Scratch = self._local.scratch
        return found
