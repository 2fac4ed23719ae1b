"""Dispatch: any order of workers coming, finishing and leaving computes each shard once."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from service.training.dispatch import MAX_SHARD_FAILURES, Dispatch, Order, ShardLost
from workers.exchange.combiner import Place
from workers.exchange.messages import Key
from workers.tree import Node


def dispatch(shards: int) -> Dispatch:
    return Dispatch(5, shards, itertools.count(1))


def test_two_workers_get_half_each() -> None:
    orders = dispatch(4).start(["a", "b"])
    assert [(order.worker_id, order.key.node) for order in orders] == [("a", Node(0, 2)), ("b", Node(2, 4))]
    assert {order.key.version for order in orders} == {5}


def test_a_late_contribution_is_refused() -> None:
    step = dispatch(2)
    order = step.start(["a"])[0]
    assert step.finish("a", replace(order.key, attempt=order.key.attempt + 1)) is None
    assert step.finish("a", replace(order.key, step=4)) is None
    assert step.finish("b", order.key) is None
    assert step.finish("a", order.key) == []
    assert step.finish("a", order.key) is None, "a retry must not count twice"
    assert step.is_complete


def test_what_a_lost_worker_has_finished_stays() -> None:
    step = dispatch(4)
    first, second = step.start(["a", "b"])
    step.finish("a", first.key)
    assert [order.key.node for order in step.leave("a", "died")] == []
    step.finish("b", second.key)
    assert step.is_complete
    assert step.done[Node(0, 2)].worker_id == "a"


def test_a_retired_worker_finishes_its_order_and_gets_no_other() -> None:
    step = Dispatch(5, 6, itertools.count(1))
    first, second = step.start(["a", "b"])
    assert step.retire("a") == []
    assert "a" in step.running
    assert step.finish("a", first.key) == [], "what it had planned is another's now"
    orders = step.finish("b", second.key)
    while orders:
        assert orders[0].worker_id == "b"
        orders = step.finish("b", orders[0].key)
    assert step.is_complete and step.done[first.key.node].worker_id == "a"
    assert step.retire("b") == [] and step.retire("nobody") == []


def test_a_lost_node_is_retried_shard_by_shard_with_new_attempts() -> None:
    step = dispatch(4)
    first, second = step.start(["a", "b"])
    assert step.leave("b", "died") == []
    orders = step.finish("a", first.key)
    assert orders is not None
    assert orders[0].key.node == Node(2, 3)
    assert orders[0].key.attempt > second.key.attempt
    assert orders[0].key.slot != first.key.slot, "its first contribution still waits in that slot"


def test_a_sum_finishes_all_its_parts() -> None:
    step = dispatch(4)
    first, second = step.start(["a", "b"])
    parts = [("a", first.key), ("b", second.key)]
    assert step.finish_sum(Node(0, 4), Place("a", 0), parts) == (True, [])
    assert step.is_complete and step.done == {Node(0, 4): Place("a", 0)}
    assert step.finish_sum(Node(0, 4), Place("a", 0), parts) == (False, []), "a retry must not count twice"


def test_a_sum_with_a_worker_that_was_given_up_is_refused_and_the_others_compute_again() -> None:
    """Their slots are given back: there are no more than shards."""
    step = dispatch(4)
    first, second = step.start(["a", "b"])
    assert step.leave("a", "hung") == []
    is_taken, orders = step.finish_sum(Node(0, 4), Place("a", 0), [("a", first.key), ("b", second.key)])
    assert not is_taken and not step.done
    nodes = []
    while orders:
        [order] = orders
        assert order.worker_id == "b" and order.key.slot == len(nodes) and order.key.attempt > second.key.attempt
        nodes.append(order.key.node)
        orders = step.finish("b", order.key)
    assert sorted(nodes) == [Node(0, 1), Node(1, 2), Node(2, 4)]
    assert step.is_complete


def test_the_last_orders_say_that_nothing_is_left() -> None:
    step = dispatch(4)
    assert [order.is_last for order in step.start(["a"])] == [True]
    step = dispatch(3)
    first, second = step.start(["a", "b"])
    assert first.is_last and second.is_last
    step = dispatch(6)
    first, second = step.start(["a", "b"])
    said = [first.is_last, second.is_last]
    for _ in range(4):
        [first] = step.finish("a", first.key) or []
        said.append(first.is_last)
    assert said == [False] * 5 + [True], "two of three shards each wait, and one worker does them all"


def test_a_step_without_workers_waits_for_the_first() -> None:
    step = dispatch(4)
    assert step.start([]) == []
    assert [order.key.node for order in step.join("a")] == [Node(0, 4)]


def lose(step: Dispatch, *names: str) -> None:
    """One worker after the other joins, gets an order, and dies."""
    for name in names:
        step.join(name)
        step.leave(name, f"died of {name}")


def test_a_shard_that_ends_three_workers_fails_by_its_name() -> None:
    step = dispatch(1)
    step.start([])
    lose(step, *(f"w{number}" for number in range(1, MAX_SHARD_FAILURES)))
    with pytest.raises(ShardLost) as caught:
        lose(step, "w9")
    assert caught.value.shard == 0
    assert caught.value.losses == ("w1 died of w1", "w2 died of w2", "w9 died of w9")


def test_a_loss_in_a_larger_node_counts_once_the_shard_stands_alone() -> None:
    """Shard 0 is computed and stands acquitted; shard 1 ends the first worker with it, and two more alone."""
    step = dispatch(2)
    step.start(["w1"])
    step.leave("w1", "died of both")
    [alone] = step.join("w2")
    assert alone.key.node == Node(0, 1)
    assert step.finish("w2", alone.key) is not None
    step.leave("w2", "died of 1")
    with pytest.raises(ShardLost) as caught:
        lose(step, "w3")
    assert (caught.value.shard, len(caught.value.losses)) == (1, 3)


class AnyOrder(RuleBasedStateMachine):
    """Workers come, finish and leave as Hypothesis likes."""

    @initialize(shards=st.integers(1, 12), workers=st.integers(0, 5))
    def begin(self, shards: int, workers: int) -> None:
        self.shards = shards
        self.names = itertools.count()
        self.step = dispatch(shards)
        self.present = {f"w{next(self.names)}" for _ in range(workers)}
        self.orders: dict[str, Key] = {}
        self.seen: list[Key] = []
        self.failed = False
        self.take(self.step.start(sorted(self.present)))

    def take(self, orders: list[Order]) -> None:
        for order in orders:
            assert order.worker_id in self.present and order.worker_id not in self.orders
            self.orders[order.worker_id] = order.key
            self.seen.append(order.key)

    @rule()
    def join(self) -> None:
        if not self.failed:
            self.add_worker()

    def add_worker(self) -> None:
        name = f"w{next(self.names)}"
        self.present.add(name)
        self.take(self.step.join(name))

    @precondition(lambda self: self.orders and not self.failed)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.orders)))
        orders = self.step.finish(name, self.orders.pop(name))
        assert orders is not None
        self.take(orders)

    @precondition(lambda self: self.present and not self.failed)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.present)))
        self.present.discard(name)
        self.orders.pop(name, None)
        try:
            self.take(self.step.leave(name, "died"))
        except ShardLost:
            self.failed = True

    @precondition(lambda self: self.present and not self.failed)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.present)))
        self.present.discard(name)  # whoever gets an order from here on must not be it
        self.take(self.step.retire(name))

    @invariant()
    def no_shard_twice(self) -> None:
        running = [key.node for key in self.orders.values()]
        covered = [shard for node in [*self.step.done, *running] for shard in range(node.lo, node.hi)]
        assert len(covered) == len(set(covered))
        assert len({key.attempt for key in self.seen}) == len(self.seen)

    @invariant()
    def no_worker_idles_while_work_waits(self) -> None:
        if self.failed or self.step.is_complete:
            return
        if self.present:
            assert self.orders, "somebody must be computing"

    def teardown(self) -> None:
        if self.failed:
            return
        if not self.present and not self.step.is_complete:
            self.add_worker()
        while self.orders:
            name = min(self.orders)
            orders = self.step.finish(name, self.orders.pop(name))
            assert orders is not None
            self.take(orders)
        assert self.step.is_complete


TestAnyOrder = AnyOrder.TestCase


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_slot_is_never_ordered_twice_from_one_worker(shards: int, workers: int) -> None:
    step = dispatch(shards)
    queue = step.start([f"w{number}" for number in range(workers)])
    used = set()
    while queue:
        order = queue.pop()
        place = (order.worker_id, order.key.slot)
        assert place not in used and order.key.slot < shards
        used.add(place)
        queue += step.finish(order.worker_id, order.key) or []
    assert step.is_complete
