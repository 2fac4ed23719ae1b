"""What is expected is made beforehand; what is not is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from threading import Condition, Event, Thread, current_thread

import numpy as np
import pytest

from workers.data.batch import Batch
from workers.data.prefetch import Key, Prefetcher

TIMEOUT_S = 20


class Maker:
    """Makes batches whose ids are (step, shard), and lets a test wait for what was made by which thread."""

    def __init__(self) -> None:
        self.made: list[tuple[Key, bool]] = []
        self.before: Callable[[Key], None] = lambda key: None
        self._changed = Condition()

    def __call__(self, step: int, shard: int) -> Batch:
        self.before((step, shard))
        with self._changed:
            self.made.append(((step, shard), current_thread().name == "prefetch"))
            self._changed.notify_all()
        return Batch(inputs={}, labels={}, sample_weights={}, samples=0, ids=np.array([step, shard]))

    def wait_for(self, keys: list[Key]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.in_background() == keys, TIMEOUT_S), self.made

    def in_background(self) -> list[Key]:
        return [key for key, is_background in self.made if is_background]

    def by_caller(self) -> list[Key]:
        return [key for key, is_background in self.made if not is_background]


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def start(maker: Maker) -> Iterator[Callable[..., Prefetcher]]:
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Prefetcher(maker, **options))


Start = Callable[..., Prefetcher]


def test_expected_batches_are_made_once_in_the_background_and_in_order(maker: Maker, start: Start) -> None:
    prefetcher = start()
    prefetcher.expect([(0, 1), (0, 0), (1, 0)])
    maker.wait_for([(0, 1), (0, 0), (1, 0)])
    for key in [(0, 0), (1, 0), (0, 1)]:
        assert prefetcher.get(*key).ids.tolist() == list(key)
    assert maker.by_caller() == []


def test_what_nobody_expected_is_made_now(maker: Maker, start: Start) -> None:
    assert start().get(3, 2).ids.tolist() == [3, 2]
    assert maker.made == [((3, 2), False)]


def test_a_batch_that_was_taken_is_made_again_for_a_second_asker(maker: Maker, start: Start) -> None:
    prefetcher = start()
    prefetcher.expect([(0, 0)])
    maker.wait_for([(0, 0)])
    for _ in range(2):
        assert prefetcher.get(0, 0).ids.tolist() == [0, 0]
    assert maker.made == [((0, 0), True), ((0, 0), False)]


def test_a_batch_in_making_is_waited_for(maker: Maker, start: Start) -> None:
    entered, go_on = Event(), Event()

    def block(key: Key) -> None:
        entered.set()
        assert go_on.wait(TIMEOUT_S)

    maker.before = block
    prefetcher = start()
    prefetcher.expect([(0, 0)])
    assert entered.wait(TIMEOUT_S)
    got: list[Batch] = []
    asker = Thread(target=lambda: got.append(prefetcher.get(0, 0)))
    asker.start()
    go_on.set()
    asker.join(TIMEOUT_S)
    assert [batch.ids.tolist() for batch in got] == [[0, 0]]
    assert maker.made == [((0, 0), True)]


def test_no_more_than_the_bound_is_prepared(maker: Maker, start: Start) -> None:
    prefetcher = start(max_prepared=2)
    prefetcher.expect([(step, 0) for step in range(5)])
    maker.wait_for([(0, 0), (1, 0)])
    assert prefetcher.get(4, 0).ids.tolist() == [4, 0]  # made by the caller: the thread is at its bound
    assert maker.by_caller() == [(4, 0)]
    prefetcher.get(0, 0)
    maker.wait_for([(0, 0), (1, 0), (2, 0)])


def test_what_is_no_longer_expected_is_dropped_and_frees_its_place(maker: Maker, start: Start) -> None:
    prefetcher = start(max_prepared=1)
    prefetcher.expect([(0, 0)])
    maker.wait_for([(0, 0)])
    prefetcher.expect([(1, 0)])
    maker.wait_for([(0, 0), (1, 0)])
    prefetcher.get(0, 0)
    assert maker.by_caller() == [(0, 0)]


def test_what_is_no_longer_expected_when_it_is_made_is_dropped(maker: Maker, start: Start) -> None:
    entered, go_on = Event(), Event()

    def block(key: Key) -> None:
        entered.set()
        assert go_on.wait(TIMEOUT_S)

    maker.before = block
    prefetcher = start()
    prefetcher.expect([(0, 0)])
    assert entered.wait(TIMEOUT_S)
    prefetcher.expect([(1, 0)])
    go_on.set()
    maker.wait_for([(0, 0), (1, 0)])
    prefetcher.get(0, 0)
    assert maker.by_caller() == [(0, 0)]


def test_an_error_in_the_background_surfaces_in_get_and_stops_nothing(maker: Maker, start: Start) -> None:
    def fail(key: Key) -> None:
        if key == (0, 0):
            raise ValueError("row 7 is wrong")

    maker.before = fail
    prefetcher = start()
    prefetcher.expect([(0, 0), (0, 1)])
    maker.wait_for([(0, 1)])
    with pytest.raises(ValueError, match="row 7 is wrong"):
        prefetcher.get(0, 0)
    assert prefetcher.get(0, 1).ids.tolist() == [0, 1]
    assert maker.by_caller() == []


def test_close_ends_the_thread_and_every_wait(maker: Maker) -> None:
    prefetcher = Prefetcher(maker)
    prefetcher.close()
    prefetcher.close()
    with pytest.raises(RuntimeError, match="closed"):
        prefetcher.get(0, 0)
    prefetcher.expect([(0, 0)])
    assert maker.made == []
