"""A trainer's server and workers on paper: a test decides what becomes of them, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from service.training.exchange import Event, Left, Said
from workers.exchange.combiner import Action, Add, Combiner
from workers.exchange.messages import Count, Counted, Dismiss, Done, Hello, Key, Ready, Summed, Word, Work
from workers.layout import Layout, Tensor
from workers.tree import Node

LAYOUT = Layout.of([Tensor("gradient/w", (5,), "float32")])
DOCUMENT = {"contribution": LAYOUT.to_json(), "fingerprint": {"threads": "1"}, "traceSeconds": 0.0}


def gradient(step: int, shard: int) -> np.ndarray:
    """Of one shard: numbers of such different sizes that another order of addition has other bits."""
    rng = np.random.default_rng((step, shard))
    return (rng.standard_normal(5) * 10.0 ** rng.integers(-4, 4, 5)).astype(np.float32)


def denominator(step: int, shard: int) -> float:
    return float(np.random.default_rng((step, shard)).random())


def total(step: int, node: Node) -> np.ndarray:
    """The gradients of a node, added up in the order of the tree."""
    if node.is_leaf:
        return gradient(step, node.lo)
    first, second = node.children()
    found: np.ndarray = total(step, first) + total(step, second)
    return found


@dataclass
class PaperWorker:
    """Its slots outlive it. `order` is what it computes, `said` all that it has ever told."""

    name: str
    slots: bytearray = field(repr=False)
    order: Count | Work | None = None
    said: list[Done | Counted] = field(default_factory=list)
    is_dismissed: bool = False
    is_dead: bool = False
    is_given_up: bool = False
    """By the trainer; it does not know it yet, nor does the relay."""

    def values(self, slot: int) -> np.ndarray:
        return LAYOUT.views(self.slots, slot * LAYOUT.total_bytes)[0]

    def finish(self) -> Done | Counted:
        """Computes its order; returns what it says then."""
        assert self.order is not None
        key = self.order.key
        if isinstance(self.order, Work):
            self.values(key.slot)[:] = total(key.step, key.node)
            word: Done | Counted = Done(key, 0.0, 0.0, 0.0)
        else:
            word = Counted(key, tuple(denominator(key.step, shard) for shard in range(key.node.lo, key.node.hi)))
        self.order = None
        self.said.append(word)
        return word


class PaperServer:
    """What `Rounds` and `Crew` ask of the exchange. `act` decides what happens at each poll.

    Args:
        shards: as many slots as a worker has.
        heads: how many heads need their denominators exchanged.
        is_relayed: whether all workers are behind one relay.
    """

    def __init__(
        self, shards: int, heads: int, act: Callable[[PaperServer], Sequence[Event]], *, is_relayed: bool
    ) -> None:
        self._shards = shards
        self._relay = Combiner() if is_relayed else None
        self._document = json.dumps({**DOCUMENT, "exchangedHeads": heads}).encode()
        self._act = act
        self._left: list[Event] = []
        self.workers: dict[str, PaperWorker] = {}
        self.orders: list[tuple[str, Count | Work]] = []
        """All that were given, also to those who had died meanwhile."""

    def poll(self, timeout_s: float) -> list[Event]:
        events: list[Event] = [*self._left]
        self._left.clear()
        return events or list(self._act(self))

    def send(self, worker_id: str, word: Word) -> None:
        worker = self.workers[worker_id]
        if worker.is_given_up:
            return
        if isinstance(word, Count | Work):
            self.orders.append((worker_id, word))
            assert worker.order is None, "nobody has two orders"
            worker.order = None if worker.is_dead else word
            if self._relay is not None and isinstance(worker.order, Work):
                self._relay.ordered(worker_id, word.key, worker.order.shards, may_wait=worker.order.may_wait)
        elif isinstance(word, Dismiss):
            assert worker.order is None, "it finishes its order first"
            worker.is_dismissed = True

    def drop(self, worker_id: str, reason: str) -> None:
        self._left += self.give_up(self.workers[worker_id], reason)

    def transport(self, worker_id: str) -> str:
        return "shared_memory"

    def join(self) -> list[Event]:
        """Another worker comes, and is ready."""
        worker = PaperWorker(f"w{len(self.workers)}", bytearray(self._shards * LAYOUT.total_bytes))
        self.workers[worker.name] = worker
        hello = Hello(token="", job_id="", generation=1, worker_id=worker.name, pid=1, node="")
        segments: Any = {
            "slots": SimpleNamespace(buffer=worker.slots),
            "document": SimpleNamespace(buffer=self._document),
        }
        return [Said(worker.name, hello), Said(worker.name, Ready(segment="slots", document="document"), segments)]

    def finish(self, worker: PaperWorker) -> list[Event]:
        """Has a worker do what it was told to; what the trainer hears of it now."""
        return self.hear(worker, worker.finish())

    def hear(self, worker: PaperWorker, word: Done | Counted) -> list[Event]:
        """A worker says something."""
        if self._relay is None or isinstance(word, Counted):
            return [Said(worker.name, word)]
        return self._act_as_relay(self._relay.done(worker.name, word))

    def give_up(self, worker: PaperWorker, reason: str = "hung") -> list[Event]:
        """The trainer has hung up on it."""
        worker.is_given_up = True
        return [Left(worker.name, reason)]

    def die(self, worker: PaperWorker, reason: str = "hung up") -> list[Event]:
        """It was writing, and what it had begun to write is no number."""
        if isinstance(worker.order, Work):
            worker.values(worker.order.key.slot)[:] = np.nan
        worker.order, worker.is_dead = None, True
        last = self._relay.left(worker.name) if self._relay is not None else []
        events = self._act_as_relay(last)
        return events if worker.is_given_up else [*events, Left(worker.name, reason)]

    def _act_as_relay(self, actions: Sequence[Action]) -> list[Event]:
        events: list[Event] = []
        for action in actions:
            if isinstance(action, Add):
                total = self.workers[action.into.worker_id].values(action.into.slot)
                total += self.workers[action.other.worker_id].values(action.other.slot)
            else:
                is_sum = len(action.parts) > 1
                word = Summed(action.node, action.place.slot, action.parts) if is_sum else action.parts[0].done
                events.append(Said(action.place.worker_id, word))
        return events

    def present(self) -> list[PaperWorker]:
        return [worker for worker in self.workers.values() if not worker.is_dead]

    def trusted(self) -> list[PaperWorker]:
        return [worker for worker in self.present() if not worker.is_given_up]

    def busy(self) -> list[PaperWorker]:
        return [worker for worker in self.workers.values() if worker.order is not None]


def forged(key: Key) -> Done:
    """A word like that of `key`, which nobody was ever ordered."""
    return Done(replace(key, attempt=key.attempt + 1000), 0.0, 0.0, 0.0)
