"""What a relay adds up before it sends: decisions only, no memory and no sockets.

Of workers behind one relay, contributions that are siblings in the summation tree cross the network as their sum. A
contribution waits for its sibling only where that is still being computed behind this relay, and where its worker has
nothing else to do meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from workers.exchange.messages import Done, Key, Part
from workers.tree import Node, parent


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contribution lies: a slot of a worker."""

    worker_id: str
    slot: int


@dataclass(frozen=True, slots=True)
class Add:
    """Add the contribution at `other` to the one at `into`."""

    into: Place
    other: Place


@dataclass(frozen=True, slots=True)
class Send:
    """Send the contribution at `place`; it is that of `node`, and finishes all the parts' keys."""

    node: Node
    place: Place
    parts: tuple[Part, ...]


Action = Add | Send


@dataclass(frozen=True, slots=True)
class _Held:
    place: Place
    parts: tuple[Part, ...]
    may_wait: bool


@dataclass(frozen=True, slots=True)
class _Order:
    key: Key
    may_wait: bool


class Combiner:
    """One step's contributions behind one relay. Its methods are events; they return what to do, in order."""

    def __init__(self) -> None:
        self._step = -1
        self._root = Node(0, 1)
        self._orders: dict[str, _Order] = {}
        self._held: dict[Node, _Held] = {}

    def ordered(self, worker_id: str, key: Key, shards: int, *, may_wait: bool) -> None:
        """A worker shall compute a node of a step over so many shards."""
        if (key.step, shards) != (self._step, self._root.hi):
            # What is left of an earlier step was given up by the trainer, which would refuse it.
            self._step, self._root = key.step, Node(0, shards)
            self._orders.clear()
            self._held.clear()
        self._orders[worker_id] = _Order(key, may_wait)

    def done(self, worker_id: str, done: Done) -> list[Action]:
        """A worker has computed its node; a word that fits no order goes on as it is, for the trainer to refuse."""
        place, part = Place(worker_id, done.key.slot), Part(worker_id, done)
        said = [(other.worker_id, other.done.key) for held in self._held.values() for other in held.parts]
        if (worker_id, done.key) in said:
            return []  # said again: the trainer would take it, and then see it change
        order = self._orders.get(worker_id)
        if order is None or order.key != done.key:
            return [Send(done.key.node, place, (part,))]
        del self._orders[worker_id]
        return self._settle(done.key.node, _Held(place, (part,), order.may_wait))

    def left(self, worker_id: str) -> list[Action]:
        """A worker is gone. What it has finished is sent now: the trainer takes it as long as it has not heard."""
        self._orders.pop(worker_id, None)
        its = [node for node, held in self._held.items() if any(part.worker_id == worker_id for part in held.parts)]
        return [*(self._send(node) for node in sorted(its)), *self._release()]

    def _settle(self, node: Node, held: _Held) -> list[Action]:
        """Adds it to its sibling, if that is there, and the sum to its own sibling, and so on."""
        actions: list[Action] = []
        while (sibling := self._sibling(node)) in self._held:
            other = self._held.pop(sibling)
            left, right = (held, other) if node < sibling else (other, held)
            actions.append(Add(left.place, right.place))
            node = Node(min(node.lo, sibling.lo), max(node.hi, sibling.hi))
            held = _Held(left.place, left.parts + right.parts, left.may_wait and right.may_wait)
        self._held[node] = held
        if held.may_wait:
            return [*actions, *self._release()]
        return [*actions, self._send(node), *self._release()]

    def _release(self) -> list[Action]:
        """Sends what waits in vain. That may be what others wait for in turn."""
        actions: list[Action] = []
        while (vain := min((node for node in self._held if not self._is_expected(node)), default=None)) is not None:
            actions.append(self._send(vain))
        return actions

    def _send(self, node: Node) -> Send:
        held = self._held.pop(node)
        return Send(node, held.place, held.parts)

    def _is_expected(self, node: Node) -> bool:
        """Whether every shard of the node's sibling is held or being computed here."""
        sibling = self._sibling(node)
        if sibling is None:
            return False
        here = [*self._held, *(order.key.node for order in self._orders.values())]
        return sibling.size == sum(other.size for other in here if sibling.lo <= other.lo and other.hi <= sibling.hi)

    def _sibling(self, node: Node) -> Node | None:
        above = parent(node, self._root)
        if above is None:
            return None
        left, right = above.children()
        return right if node == left else left
