"""The summation tree: one order of addition whatever is added beforehand."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.blocks import Scratch
from service.training.summation import StepSum
from workers.tree import Node, cut, share_out

SHARDS = st.integers(1, 65)


def leaves(count: int, seed: int) -> dict[Node, np.ndarray]:
    values = (
        np.random.default_rng(seed).standard_normal((count, 3))
        * 10.0 ** np.arange(-3, 3)[np.random.default_rng(seed + 1).integers(0, 6, (count, 1))]
    )
    return {Node(shard, shard + 1): values[shard].astype(np.float32) for shard in range(count)}


def summed(node: Node, values: dict[Node, np.ndarray]) -> np.ndarray:
    total = StepSum(node, {part: [value] for part, value in values.items()})
    return total.block(0, 0, 3, Scratch()).copy()


def total(values: dict[Node, np.ndarray], shards: int) -> bytes:
    return summed(Node(0, shards), values).tobytes()


@given(SHARDS, st.integers(1, 70), st.integers(0, 2**31))
def test_adding_nodes_beforehand_changes_no_bit(shards: int, workers: int, seed: int) -> None:
    values = leaves(shards, seed)
    plan = [node for nodes in share_out(shards, workers) for node in nodes]
    contributions = {node: summed(node, values) for node in plan}
    assert total(contributions, shards) == total(values, shards)


@given(SHARDS, st.integers(1, 64))
def test_every_shard_is_in_one_node(shards: int, workers: int) -> None:
    plan = share_out(shards, workers)
    covered = sorted(shard for nodes in plan for node in nodes for shard in range(node.lo, node.hi))
    assert covered == list(range(shards))
    assert len(plan) == workers


@given(SHARDS, st.integers(1, 64))
def test_no_worker_has_more_than_its_share(shards: int, workers: int) -> None:
    heaviest = max(sum(node.size for node in nodes) for nodes in share_out(shards, workers))
    assert heaviest == -(-shards // workers)


@given(SHARDS, st.integers(1, 64))
def test_a_shorter_batch_keeps_the_order_of_its_shards(shards: int, present: int) -> None:
    """The tree over the first shards is the whole tree without the others."""
    present = min(present, shards)

    def order(node: Node) -> object:
        if node.is_leaf:
            return node.lo if node.lo < present else None
        left, right = (order(child) for child in node.children())
        return left if right is None else (left, right)

    def plain(node: Node) -> object:
        return node.lo if node.is_leaf else tuple(plain(child) for child in node.children())

    assert order(Node(0, shards)) == plain(Node(0, present))


@given(SHARDS, st.integers(1, 64))
def test_a_cut_covers_its_node_in_order(shards: int, limit: int) -> None:
    nodes = cut(Node(0, shards), limit)
    assert [node.lo for node in nodes[1:]] == [node.hi for node in nodes[:-1]]
    assert (nodes[0].lo, nodes[-1].hi) == (0, shards)
    assert all(node.size <= limit for node in nodes)
