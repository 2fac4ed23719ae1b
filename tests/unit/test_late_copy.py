"""A table that is copied while its rows are updated: the copy is of one moment, whatever the order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training import late_copy
from service.training.late_copy import LateCopies, TableWatch

ROWS, WIDTH = 40, 3
WAIT_S = 20.0


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_copy, "LARGE_BYTES", 1)
    monkeypatch.setattr(late_copy, "PIECE_BYTES", 4 * WIDTH * 4)


class Table:
    """Weights and a slot, which the loop updates as it should: it says first what it is about to write."""

    def __init__(self, rows: int = ROWS) -> None:
        rng = np.random.default_rng(3)
        self.arrays = [rng.standard_normal((rows, WIDTH)).astype(np.float32) for _ in range(2)]
        self.watch = TableWatch(self.arrays)

    def update(self, ids: np.ndarray | None) -> None:
        self.watch.before_writing(ids)
        for array in self.arrays:
            array[slice(None) if ids is None else ids] += 1.0

    def values(self) -> list[np.ndarray]:
        return [array.copy() for array in self.arrays]

    def take(self) -> list[np.ndarray]:
        """Has its watch take copies into new arrays, which it returns."""
        targets = [np.full_like(array, np.nan) for array in self.arrays]
        assert all(self.watch.takes(target, array) for target, array in zip(targets, self.arrays, strict=True))
        return targets


IDS = st.lists(st.integers(0, ROWS - 1), min_size=1, max_size=int(ROWS * late_copy.MAX_SHARE), unique=True)
EVENTS = st.lists(st.one_of(st.just("piece"), IDS.map(sorted)), max_size=30)


@given(EVENTS)
def test_a_copy_is_that_of_the_moment_it_was_begun_at(events: list[Any]) -> None:
    table = Table()
    targets, expected = table.take(), table.values()
    copy = table.watch.begin()
    assert copy is not None
    for event in events:
        if event == "piece":
            copy.copy_piece()
        else:
            table.update(np.array(event))
    copy.run()
    table.update(np.arange(5))
    for target, values in zip(targets, expected, strict=True):
        assert np.array_equal(target, values)


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_copies_in_a_thread_hold_one_step_each(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real threads: steps go on as fast as they can, of few rows, of many, and of all."""
    monkeypatch.setattr(late_copy, "PIECE_BYTES", 500 * WIDTH * 4)
    table = Table(rows=20_000)
    rng = np.random.default_rng(4)
    copies = LateCopies([table.watch], np.copyto)
    for _ in range(3):
        targets, expected = [np.empty_like(array) for array in table.arrays], table.values()
        for target, array in zip(targets, table.arrays, strict=True):
            copies.copy(target, array)
        late = copies.start(dict(zip("ab", targets, strict=True)))
        steps = 0
        while copies.is_under_way or not steps:
            ids = np.flatnonzero(rng.random(20_000) < share)
            table.update(None if share == 1.0 else ids)
            steps += 1
        for target, values in zip(late.values(), expected, strict=True):
            assert np.array_equal(target, values), f"after {steps} steps"


def test_what_no_watch_knows_is_copied_at_once_and_an_error_reaches_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    table, other = Table(), np.ones(3)
    copies = LateCopies([table.watch], np.copyto)
    target = np.zeros(3)
    copies.copy(target, other)
    assert target.tolist() == other.tolist()
    assert copies.start({"other": target})["other"] is target
    assert not copies.is_under_way, "there was nothing to copy"

    def fail(self: Any) -> None:
        raise MemoryError("no room")

    table.take()
    monkeypatch.setattr(late_copy._TableCopy, "run", fail)
    late = copies.start({"other": target})
    with pytest.raises(MemoryError, match="no room"):
        late["other"]
    table.update(None)  # does not wait for what nobody does
