"""The fixed binary tree in which shard gradients are added.

The tree depends on the number of shards alone. A node covers shards [lo, hi) and is split at the largest power of two
below its size, so that the tree over the first n shards is the tree over all with the others left out: a partial last
batch changes no order. Whoever holds all of a node may add it up beforehand; the bits do not change.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """Shards lo to hi - 1, a subtree of the summation tree."""

    lo: int
    hi: int

    @property
    def size(self) -> int:
        return self.hi - self.lo

    @property
    def is_leaf(self) -> bool:
        return self.size == 1

    def children(self) -> tuple[Node, Node]:
        """The two nodes whose sum this one is; a leaf has none."""
        middle = self.lo + (1 << ((self.size - 1).bit_length() - 1))
        return Node(self.lo, middle), Node(middle, self.hi)

    def shards(self) -> range:
        return range(self.lo, self.hi)

    def leaves(self) -> Iterator[Node]:
        return (Node(shard, shard + 1) for shard in self.shards())


def parent(node: Node, root: Node) -> Node | None:
    """The node of a tree whose child a node is; None for the root.

    Raises:
        ValueError: the tree has no such node.
    """
    found, place = None, root
    while place != node:
        if place.is_leaf or not root.lo <= node.lo < node.hi <= root.hi:
            raise ValueError(f"{node} is no node of the tree over {root}")
        found = place
        left, right = place.children()
        place = left if node.hi <= left.hi else right
    return found


def cut(node: Node, limit: int) -> list[Node]:
    """The largest nodes of at most `limit` shards that make up a node, in order."""
    if node.size <= limit:
        return [node]
    left, right = node.children()
    return cut(left, limit) + cut(right, limit)


@lru_cache(maxsize=64)  # most steps are as the one before
def share_out(shards: int, workers: int) -> tuple[tuple[Node, ...], ...]:
    """Nodes for each of `workers`, such that the most loaded one computes as few shards as it can.

    Of the ways to reach that it takes the one with the largest nodes, since a node costs one contribution.
    """
    root = Node(0, shards)
    limits = [1 << exponent for exponent in range(shards.bit_length(), -1, -1)]
    plans = [_balance(cut(root, limit), workers) for limit in limits]
    best = min(plans, key=_heaviest)  # the first of equals: the largest nodes
    return tuple(tuple(nodes) for nodes in best)


def _heaviest(plan: Iterable[list[Node]]) -> int:
    return max(sum(node.size for node in nodes) for nodes in plan)


def _balance(nodes: list[Node], workers: int) -> list[list[Node]]:
    """Longest processing time first (Graham 1969)."""
    loads = [(0, worker) for worker in range(workers)]
    plan: list[list[Node]] = [[] for _ in range(workers)]
    for node in sorted(nodes, key=lambda node: (-node.size, node.lo)):
        load, worker = heapq.heappop(loads)
        plan[worker].append(node)
        heapq.heappush(loads, (load + node.size, worker))
    return plan
