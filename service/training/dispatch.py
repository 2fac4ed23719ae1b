"""Who computes which shards of one step: decisions only, no clock and no I/O.

Workers may come, finish, fail and leave in any order; each shard ends up in exactly one contribution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from workers.exchange.combiner import Place
from workers.exchange.messages import Key
from workers.tree import Node, share_out

MAX_SHARD_FAILURES = 3
"""On so many workers a shard may be lost before the job fails by its name."""


class ShardLost(Exception):
    """One shard of a step was lost again and again; `losses` tell the workers and what became of them."""

    def __init__(self, shard: int, losses: tuple[str, ...]) -> None:
        super().__init__(f"shard {shard} was lost {len(losses)} times")
        self.shard = shard
        self.losses = losses


@dataclass(frozen=True, slots=True)
class Order:
    """A worker shall compute a node."""

    worker_id: str
    key: Key
    is_last: bool = False
    """Whether nothing was left to be given out after it."""


class Dispatch:
    """One step's shards. Its methods are events; they return the orders to give.

    Args:
        step: the step, and the version of the weights it reads.
        shards: how many of the step's shards have samples.
        attempts: numbers that were never used before in this generation.
    """

    def __init__(self, step: int, shards: int, attempts: Iterator[int]) -> None:
        self.step = step
        self.shards = shards
        self._attempts = attempts
        self._waiting: dict[str, list[Node]] = {}
        self._orphans: list[Node] = []
        self._running: dict[str, Key] = {}
        self._idle: list[str] = []
        self._slots: dict[str, int] = {}
        self._losses: dict[int, tuple[str, ...]] = {}
        self._retired: set[str] = set()
        self._is_planned = False
        self.done: dict[Node, Place] = {}

    @property
    def is_complete(self) -> bool:
        return sum(node.size for node in self.done) == self.shards

    @property
    def running(self) -> dict[str, Key]:
        """What each busy worker computes."""
        return dict(self._running)

    def start(self, workers: Iterable[str]) -> list[Order]:
        """The step begins with these workers; without any it waits for the first to join."""
        orders = []
        for worker_id in workers:
            self._slots[worker_id] = 0
            self._idle.append(worker_id)
        if self._idle:
            self._plan()
            orders = self._hand_out()
        return orders

    def has(self, worker_id: str) -> bool:
        """Whether the worker may get orders: it was there at the start or has joined, and was not retired since."""
        return worker_id in self._slots and worker_id not in self._retired

    def join(self, worker_id: str) -> list[Order]:
        """A worker is ready: it takes what nobody has begun. One that was retired is taken back."""
        self._retired.discard(worker_id)
        self._slots.setdefault(worker_id, 0)
        if worker_id not in self._running:
            self._idle.append(worker_id)
        if not self._is_planned:
            self._plan()
        return self._hand_out()

    def finish(self, worker_id: str, key: Key) -> list[Order] | None:
        """A worker says it is done; None refuses the contribution, because it is late or was never ordered."""
        if self._running.get(worker_id) != key:
            return None
        del self._running[worker_id]
        self.done[key.node] = Place(worker_id, key.slot)
        if worker_id not in self._retired:
            self._idle.append(worker_id)
        return self._hand_out()

    def finish_sum(self, node: Node, place: Place, parts: Sequence[tuple[str, Key]]) -> tuple[bool, list[Order]]:
        """Several workers' nodes, which make up a node, are done, and lie added up in one place.

        If one of them is not awaited, its worker was given up meanwhile and its shards went to others: then the whole
        sum is refused, and the nodes of the others are computed again. Returns whether it was taken, and the orders.
        """
        awaited = [(worker_id, key) for worker_id, key in parts if self._running.get(worker_id) == key]
        is_taken = len(awaited) == len(parts)
        for worker_id, key in awaited:
            del self._running[worker_id]
            if not is_taken:
                self._orphans.append(key.node)
                self._slots[worker_id] -= 1
            if worker_id not in self._retired:
                self._idle.append(worker_id)
        if is_taken:
            self.done[node] = place
        return is_taken, self._hand_out()

    def retire(self, worker_id: str) -> list[Order]:
        """A worker shall get no order more; the one it has it may finish."""
        self._retired.add(worker_id)
        self._idle = [other for other in self._idle if other != worker_id]
        self._orphans += self._waiting.pop(worker_id, [])
        return self._hand_out()

    def leave(self, worker_id: str, reason: str) -> list[Order]:
        """A worker is gone; what it had not finished goes to others, shard by shard, so that a culprit stands alone.

        Raises:
            ShardLost: a shard was lost `MAX_SHARD_FAILURES` times, and for the last time alone.
        """
        self._idle = [other for other in self._idle if other != worker_id]
        self._orphans += self._waiting.pop(worker_id, [])
        key = self._running.pop(worker_id, None)
        if key is not None:
            self._orphans += key.node.leaves()
            self._count_loss(key.node, f"{worker_id} {reason}")
        return self._hand_out()

    def _count_loss(self, node: Node, loss: str) -> None:
        """In a larger node each shard is suspect; only one that was alone is to blame."""
        for shard in range(node.lo, node.hi):
            self._losses[shard] = (*self._losses.get(shard, ()), loss)
        if node.is_leaf and len(self._losses[node.lo]) >= MAX_SHARD_FAILURES:
            raise ShardLost(node.lo, self._losses[node.lo])

    def _plan(self) -> None:
        self._is_planned = True
        plan = share_out(self.shards, len(self._idle))
        self._waiting = {worker_id: list(nodes) for worker_id, nodes in zip(self._idle, plan, strict=True)}

    def _hand_out(self) -> list[Order]:
        given = []
        for worker_id in list(self._idle):
            node = self._next(worker_id)
            if node is None:
                continue
            self._idle.remove(worker_id)
            key = Key(self.step, node, next(self._attempts), self.step, self._slots[worker_id])
            self._slots[worker_id] += 1
            self._running[worker_id] = key
            given.append((worker_id, key))
        is_last = not self._orphans and not any(self._waiting.values())
        return [Order(worker_id, key, is_last) for worker_id, key in given]

    def _next(self, worker_id: str) -> Node | None:
        """Its own plan first, for which it has prepared the data; then what has lost its worker; then another's."""
        own = self._waiting.get(worker_id)
        if own:
            return own.pop(0)
        if self._orphans:
            return self._orphans.pop(0)
        fullest = max(self._waiting.values(), key=len, default=[])
        return fullest.pop() if fullest else None
