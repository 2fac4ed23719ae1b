"""The warm pool: what it starts and when, and whom it gives away."""

from __future__ import annotations

from dataclasses import replace

from service.cluster.launcher import able_node
from service.cluster.pool import MAX_WARM, QUIET_S, Member, WarmPool
from service.engine import NodeResources

ROOM = [("a", 2.0)]


class Spawned(list[Member]):
    """Every process that the pool has started, in order."""

    def spawn(self, node: str) -> Member:
        self.append(Member(actor=len(self), node=node))
        return self[-1]


def make(target: int, *, refill: bool = True) -> tuple[WarmPool, Spawned]:
    spawned = Spawned()
    return WarmPool(target, refill=refill, spawn=spawned.spawn), spawned


def warm(pool: WarmPool, spawned: Spawned) -> None:
    for member in spawned:
        if not member.is_warm:
            pool.warmed(member)


def test_first_processes_start_at_once_one_per_cpu() -> None:
    pool, spawned = make(3)
    pool.fill(ROOM, 0.0)
    assert len(spawned) == 2
    assert pool.stage() == "importing TensorFlow (0 of 3 ready)"
    pool.warmed(spawned[0])
    pool.fill(ROOM, 0.0)
    assert len(spawned) == 3
    warm(pool, spawned)
    assert pool.stage() == ""
    pool.fill(ROOM, 1e9)
    assert len(spawned) == 3


def test_a_warm_process_goes_first_then_one_on_its_way_then_a_new_one() -> None:
    pool, spawned = make(2)
    pool.fill(ROOM, 0.0)
    pool.warmed(spawned[1])
    assert [pool.take(None, "a", 1.0).actor for _ in range(3)] == [1, 0, 2]


def test_a_process_on_another_node_is_not_taken() -> None:
    pool, spawned = make(1)
    pool.fill(ROOM, 0.0)
    warm(pool, spawned)
    assert pool.take("b", "a", 1.0).node == "b"
    assert [member.actor for member in pool.members] == [0]


def test_a_launch_before_its_turn_counts_as_one_of_the_first() -> None:
    pool, spawned = make(3, refill=False)
    pool.fill(ROOM, 0.0)
    for _ in range(3):
        pool.take(None, "a", 0.5)
    pool.fill(ROOM, 1e9)
    assert len(spawned) == 3


def test_refill_waits_for_quiet_and_starts_one_at_a_time() -> None:
    pool, spawned = make(2)
    pool.fill(ROOM, 0.0)
    warm(pool, spawned)
    for _ in range(2):
        pool.take(None, "a", 5.0)
    pool.fill(ROOM, 5.0 + QUIET_S - 0.1)
    assert len(spawned) == 2
    pool.fill(ROOM, 5.0 + QUIET_S)
    pool.fill(ROOM, 5.0 + QUIET_S + 1)
    assert len(spawned) == 3
    warm(pool, spawned)
    pool.fill(ROOM, 5.0 + QUIET_S + 2)
    assert len(spawned) == 4


def test_without_refill_a_taken_process_is_not_replaced_and_a_dead_one_is() -> None:
    pool, spawned = make(2, refill=False)
    pool.fill(ROOM, 0.0)
    warm(pool, spawned)
    pool.take(None, "a", 1.0)
    pool.fill(ROOM, 1e3)
    assert len(spawned) == 2
    assert pool.died(pool.members[0], "killed", 2e3)
    assert pool.stage() == "importing TensorFlow (1 of 2 ready); one was lost: killed"
    pool.fill(ROOM, 2e3 + QUIET_S - 0.1)
    assert len(spawned) == 2
    pool.fill(ROOM, 2e3 + QUIET_S)
    assert len(spawned) == 3


def test_the_end_of_a_taken_process_is_no_business_of_the_pool() -> None:
    pool, spawned = make(1)
    pool.fill(ROOM, 0.0)
    taken = pool.take(None, "a", 0.0)
    assert not pool.died(taken, "killed", 1.0)
    assert len(spawned) == 1


def test_processes_spread_over_nodes_and_are_bounded() -> None:
    pool, spawned = make(1000)
    pool.fill([("a", 100.0), ("b", 100.0)], 0.0)
    assert [sum(member.node == node for member in spawned) for node in "ab"] == [MAX_WARM // 2] * 2


def test_no_node_no_process() -> None:
    pool, spawned = make(1)
    pool.fill([], 0.0)
    assert not spawned


def test_what_may_run_anywhere_runs_where_there_are_cpus() -> None:
    home, small, large = (
        NodeResources(node=name, cpus=cpus, gpus=0.0) for name, cpus in (("home", 0.0), ("small", 1.0), ("large", 4.0))
    )
    assert able_node("home", [home, small, large]) == "large"
    assert able_node("home", [replace(home, cpus=1.0), large]) == "home"
    assert able_node("home", [home]) == "home"
    assert able_node("home", []) == "home"
    assert able_node("home", [home, small, large], avoid=["large"]) == "small"
    assert able_node("home", [home, small, large], avoid=["large", "small"]) == "large", "better than nowhere"


def test_nobody_is_taken_from_a_node_that_may_be_gone() -> None:
    pool, spawned = make(2)
    pool.fill([("a", 1.0), ("b", 1.0)], 0.0)
    pool.fill([("a", 1.0), ("b", 1.0)], 0.0)
    warm(pool, spawned)
    assert [pool.take(None, "c", 0.0, avoid=["a"]).node for _ in range(2)] == ["b", "c"]
    assert pool.take("a", "c", 0.0, avoid=["a"]).node == "a", "asked for by name"
