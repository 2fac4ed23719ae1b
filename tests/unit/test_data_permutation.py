"""The shuffle is a bijection, seeded, even over all orders, and quick."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.data.permutation import MAX_ROWS, Permutation

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3).map(tuple)


@given(rows=st.integers(1, 3000), key=KEYS)
@settings(max_examples=150, deadline=None)
def test_every_row_comes_exactly_once(rows: int, key: tuple[int, ...]) -> None:
    order = Permutation(rows, key).at(np.arange(rows, dtype=np.int64))
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(rows))


@given(rows=st.integers(1, MAX_ROWS), key=KEYS, data=st.data())
@settings(max_examples=150, deadline=None)
def test_the_inverse_finds_the_position(rows: int, key: tuple[int, ...], data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, rows - 1), max_size=20)), np.int64)
    permutation = Permutation(rows, key)
    values = permutation.at(positions)
    assert np.all((values >= 0) & (values < rows))
    assert np.array_equal(permutation.inverse(values), positions)


def test_the_key_alone_decides() -> None:
    positions = np.arange(1000, dtype=np.int64)
    first = Permutation(1000, (7, 3)).at(positions)
    assert np.array_equal(first, Permutation(1000, (7, 3)).at(positions))
    others = [Permutation(1000, key).at(positions) for key in [(7, 4), (8, 3), (3, 7), (7,), (7, 3, 0)]]
    # Two random orders agree in one place on average.
    assert all(np.count_nonzero(first == other) < 12 for other in others)


def test_results_never_change() -> None:
    """Checkpoints of earlier versions rely on it: a resumed job must go on with the same samples."""
    assert Permutation(10, (0, 0)).at(np.arange(10)).tolist() == [6, 7, 3, 0, 2, 1, 8, 5, 9, 4]
    assert Permutation(10**9, (1, 2)).at(np.arange(4)).tolist() == [453616078, 425112243, 51463591, 651609991]


@pytest.mark.parametrize("rows", [2, 3, 4, 5])
def test_all_orders_of_few_rows_come_equally_often(rows: int) -> None:
    keys = 6_000
    counts = Counter(tuple(Permutation(rows, (key, 0)).at(np.arange(rows)).tolist()) for key in range(keys))
    expected = keys / math.factorial(rows)
    chi_square = sum((counts[order] - expected) ** 2 / expected for order in itertools.permutations(range(rows)))
    freedom = math.factorial(rows) - 1
    assert chi_square < freedom + 5 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("rows", [9, 10, 100])
def test_every_row_is_equally_often_in_every_place(rows: int) -> None:
    keys = 4000
    orders = np.array([Permutation(rows, (5, key)).at(np.arange(rows)) for key in range(keys)])
    expected = keys / rows
    freedom = (rows - 1) ** 2
    counts = np.stack([np.bincount(orders[:, place], minlength=rows) for place in range(rows)])
    assert np.sum((counts - expected) ** 2 / expected) < freedom + 5 * math.sqrt(2 * freedom)


def test_neighbours_do_not_stay_neighbours() -> None:
    order = Permutation(10_000, (1, 1)).at(np.arange(10_000))
    steps = np.diff(order) % 10_000
    assert np.bincount(steps, minlength=10_000).max() < 12


@pytest.mark.parametrize("positions", [[-1], [10], [0, 11]])
def test_positions_outside_are_refused(positions: list[int]) -> None:
    with pytest.raises(IndexError, match="10 rows"):
        Permutation(10, (0,)).at(np.array(positions, np.int64))


@pytest.mark.parametrize("rows", [0, -1, MAX_ROWS + 1])
def test_numbers_of_rows_outside_are_refused(rows: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        Permutation(rows, ())


def test_a_shard_of_ten_million_rows_is_quick() -> None:
    positions = np.arange(1024, dtype=np.int64)
    permutation = Permutation(10_000_000, (1, 2))
    durations = []
    for _ in range(50):
        start = time.perf_counter()
        permutation.at(positions)
        durations.append(time.perf_counter() - start)
    assert min(durations) < 0.5e-3
