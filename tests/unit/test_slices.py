"""Sparse gradients: added by id in the tree's order, they are what the dense ones are."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from service.training.summation import StepSum
from workers.layout import Layout, Tensor
from workers.slices import Slices, Table, added
from workers.tree import Node, share_out

ROWS, WIDTH = 12, 3
SHARDS = st.lists(st.sets(st.integers(0, ROWS - 1)), min_size=1, max_size=9)
"""Which ids each shard gathers; some none."""


def slices(ids: set[int], seed: int) -> Slices:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((len(ids), WIDTH)) * 10.0 ** rng.integers(-4, 4, (len(ids), 1))
    return Slices(np.array(sorted(ids), np.int64), rows.astype(np.float32))


def dense(found: Slices) -> np.ndarray:
    made = np.zeros((ROWS, WIDTH), np.float32)
    made[found.ids] = found.rows
    return made


def tree_sum(node: Node, leaves: list[np.ndarray]) -> np.ndarray:
    if node.is_leaf:
        return leaves[node.lo]
    left, right = node.children()
    return tree_sum(left, leaves) + tree_sum(right, leaves)


def sparse_sum(node: Node, contributions: dict[Node, Slices]) -> Slices:
    return StepSum(node, {}, {part: [found] for part, found in contributions.items()}).slices(0)


@given(SHARDS, st.integers(1, 9), st.integers(0, 2**31))
def test_the_sum_is_the_dense_one_whoever_adds(shards: list[set[int]], workers: int, seed: int) -> None:
    leaves = {Node(n, n + 1): slices(ids, seed + n) for n, ids in enumerate(shards)}
    root = Node(0, len(shards))
    plan = [node for nodes in share_out(len(shards), workers) for node in nodes]
    total = sparse_sum(root, {node: sparse_sum(node, leaves) for node in plan})
    assert total.ids.tolist() == sorted(set().union(*shards))
    assert dense(total).tobytes() == tree_sum(root, [dense(leaf) for leaf in leaves.values()]).tobytes()


@given(st.sets(st.integers(0, ROWS - 1)), st.sets(st.integers(0, ROWS - 1)))
def test_a_place_adds_what_lies_in_another(mine: set[int], others: set[int]) -> None:
    layout = Layout.of([Tensor("loss", (1,), "float64")], [Table("a", 5, 2, 4), Table("b", ROWS, WIDTH, ROWS)])
    first, second = (layout.places(bytearray(layout.total_bytes))[1] for _ in range(2))
    assert first.get().ids.size == 0
    first.set(slices(mine, 1))
    second.set(slices(others, 2))
    first.add(second)
    expected = added(slices(mine, 1), slices(others, 2))
    assert first.get().ids.tolist() == expected.ids.tolist()
    assert first.get().rows.tobytes() == expected.rows.tobytes()


def test_tables_lie_behind_the_tensors_and_survive_json() -> None:
    layout = Layout.of([Tensor("loss", (3,), "float64")], [Table("t", 1000, 7, 5), Table("u", 9, 1, 9)])
    assert Layout.from_json(layout.to_json()) == layout
    buffer = bytearray(layout.total_bytes)
    places = layout.places(buffer)
    for number, (place, table) in enumerate(zip(places, layout.tables, strict=True)):
        ids = np.arange(table.capacity, dtype=np.int64)
        place.set(Slices(ids, np.full((table.capacity, table.width), number + 1, np.float32)))
    (loss,) = layout.views(buffer)
    assert not loss.any()
    assert [float(place.get().rows.sum()) for place in places] == [35.0, 18.0]
