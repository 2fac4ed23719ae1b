"""Rounds: whatever workers do, a step's sum has the same bits, each shard is in it once, and nobody waits for ever."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.errors import JobFailed
from service.training.blocks import Scratch
from service.training.crew import Crew
from service.training.dispatch import MAX_SHARD_FAILURES
from service.training.exchange import Event, Said
from service.training.rounds import Contribution, Rounds
from service.training.summation import StepSum
from tests.unit.crew_on_paper import PaperServer, denominator, forged, total
from workers.exchange.messages import Done, Work
from workers.tree import Node

Item = TypeVar("Item")

MOVES = ("finish", "finish", "die", "join", "give_up", "repeat", "forge", "ghost", "dismiss", "resize")
"""Two finishes, so that jobs come on."""


class Fate:
    """Draws what happens next, for a while; then whoever has an order finishes it, and where nobody is, one comes."""

    def __init__(self, data: st.DataObject, mischief: int) -> None:
        self._data = data
        self._mischief = mischief
        self.rounds: Rounds
        self.lost = 0

    def __call__(self, server: PaperServer) -> Sequence[Event]:
        while self._mischief:
            self._mischief -= 1
            if events := getattr(self, self._data.draw(st.sampled_from(MOVES)))(server):
                return list(events)
        if server.busy():
            return server.finish(server.busy()[0])
        assert not self.rounds.crew.ready, "workers are there, the step is not done, and nobody has an order"
        return server.join()

    def finish(self, server: PaperServer) -> Sequence[Event]:
        return server.finish(self._one(server.busy())) if server.busy() else []

    def die(self, server: PaperServer) -> Sequence[Event]:
        if not server.present():
            return []
        worker = self._one(server.present())
        self.lost += worker.order is not None
        return server.die(worker)

    def give_up(self, server: PaperServer) -> Sequence[Event]:
        """The trainer hangs up on one that seems to hang; it may still finish, and be added up with others."""
        if not server.trusted():
            return []
        worker = self._one(server.trusted())
        self.lost += worker.order is not None
        return server.give_up(worker)

    def join(self, server: PaperServer) -> Sequence[Event]:
        return server.join()

    def repeat(self, server: PaperServer) -> Sequence[Event]:
        """A worker says again what it has said before, perhaps steps ago, perhaps as another."""
        told = [word for worker in server.workers.values() for word in worker.said]
        return server.hear(self._one(server.present()), self._one(told)) if told and server.present() else []

    def forge(self, server: PaperServer) -> Sequence[Event]:
        """A worker is done with what it was never told to do."""
        if not server.present() or not server.orders:
            return []
        return server.hear(self._one(server.present()), forged(self._one(server.orders)[1].key))

    def ghost(self, server: PaperServer) -> Sequence[Event]:
        """What a worker said arrives after its end did."""
        orders = [(worker, order.key) for worker, order in server.orders if server.workers[worker].is_dead]
        return [Said(worker, Done(key, 0.0, 0.0, 0.0)) for worker, key in orders[-1:]]

    def dismiss(self, server: PaperServer) -> Sequence[Event]:
        """One is let go, as a user or the coordinator wants it; when it has finished it hangs up."""
        gone = [worker for worker in server.present() if worker.is_dismissed]
        if gone:
            return server.die(gone[0])
        if server.trusted():
            self.rounds.dismiss(self._one(server.trusted()).name)
        return []

    def resize(self, server: PaperServer) -> Sequence[Event]:
        self.rounds.resize(self._data.draw(st.integers(1, 4)))
        return []

    def _one(self, items: Sequence[Item]) -> Item:
        return self._data.draw(st.sampled_from(items))


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    workers=st.integers(0, 4),
    shards=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    heads=st.integers(0, 1),
    mischief=st.integers(0, 40),
    is_relayed=st.booleans(),
)
def test_any_order_gives_the_same_sums(
    data: st.DataObject, workers: int, shards: list[int], heads: int, mischief: int, is_relayed: bool
) -> None:
    """A job of a few steps, with so many shards each."""
    fate = Fate(data, mischief)
    server = PaperServer(max(shards), heads, fate, is_relayed=is_relayed)
    crew = Crew(server, lambda message, is_warning: None)  # type: ignore[arg-type]  # what is asked of it is there
    fate.rounds = rounds = Rounds(server, crew, lambda: None, lambda step, shard: "rows")  # type: ignore[arg-type]
    rounds._looked_s = math.inf  # silence is a matter of seconds, which on a busy machine pass by themselves
    for _ in range(workers):
        for event in server.join():
            rounds._live(event)
    rounds.gather(1)
    for step, count in enumerate(shards):
        rounds.begin(step, count)
        try:
            contributions = rounds.collect()
        except JobFailed:
            assert fate.lost >= MAX_SHARD_FAILURES, "workers that had an order"
            return
        assert_each_shard_is_there_once(contributions, count)
        assert_bits(contributions, step, count)
        assert_denominators(server, step, count, heads)


def assert_each_shard_is_there_once(contributions: dict[Node, Contribution], shards: int) -> None:
    assert sorted(shard for node in contributions for shard in range(node.lo, node.hi)) == list(range(shards))


def assert_bits(contributions: dict[Node, Contribution], step: int, shards: int) -> None:
    root = Node(0, shards)
    sections = {node: item.slots.sections(item.done.key.slot) for node, item in contributions.items()}
    found = StepSum(root, sections).block(0, 0, 5, Scratch())
    assert found.tobytes() == total(step, root).tobytes()


def assert_denominators(server: PaperServer, step: int, shards: int, heads: int) -> None:
    """Who computed was told those of the whole batch, which were counted before."""
    expected = (sum(denominator(step, shard) for shard in range(shards)),) * heads
    told = [order.denominators for _, order in server.orders if isinstance(order, Work) and order.key.step == step]
    assert told and set(told) == {expected}
