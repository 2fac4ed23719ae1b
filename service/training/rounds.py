"""One round of a step: every shard computed once, whoever comes or goes meanwhile."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from gradwire.errors import JobFailed
from service.training.crew import Crew, Slots
from service.training.dispatch import Dispatch, Order, ShardLost
from service.training.exchange import FLIGHT, Event, Left, Said, SharedMemoryServer
from service.training.meter import Meter
from service.training.pace import Paces, stragglers
from service.training.weights import SEGMENT
from workers.exchange.combiner import Place
from workers.exchange.messages import Count, Counted, Done, Key, Refused, Summed, Work
from workers.tree import Node

POLL_S = 0.25
"""How often a round looks after silent and slow workers, and at the interrupt."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """A node's contribution: it lies in a slot of this worker's segment, which outlives the worker."""

    worker_id: str
    slots: Slots
    done: Done


@dataclass(frozen=True, slots=True)
class Round:
    """A round under way, and the word that its orders are given by."""

    dispatch: Dispatch
    word: Callable[[Order], Count | Work]


@dataclass(slots=True)
class Rounds:
    """Runs rounds over the crew; belongs to the trainer's loop.

    Args:
        interrupt: called now and then; raises what shall end the job.
        samples: names the rows of a step's shard.
    """

    server: SharedMemoryServer
    crew: Crew
    interrupt: Callable[[], None]
    samples: Callable[[int, int], str]
    meter: Meter = field(default_factory=Meter)
    _paces: Paces = field(default_factory=Paces)
    _looked_s: float = 0.0
    _attempts: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _round: Round | None = None
    _sent: set[tuple[int, int]] = field(default_factory=set)
    """Streams, and the version of the weights that went to each."""
    _loss_scale: float = 1.0

    def begin(self, step: int, shards: int, loss_scale: float = 1.0) -> None:
        """Gives out the first orders of a step. Until `collect` returns nobody may write the weights."""
        self._loss_scale = loss_scale
        is_counting = self.crew.terms is not None and self.crew.terms.exchanged_heads > 0
        self._round = self._start(step, shards, _ask_count if is_counting else self._asking_work(shards))

    def collect(self) -> dict[Node, Contribution]:
        """The contributions that make up the batch of the step that was begun."""
        under_way = self._under_way()
        dispatch = under_way.dispatch
        if under_way.word is _ask_count:
            ask = self._asking_work(dispatch.shards, self._count())
            self._round = self._start(dispatch.step, dispatch.shards, ask)
        contributions: dict[Node, Contribution] = {}

        def take(said: Said) -> None:
            if isinstance(said.word, Done | Summed):
                done = _slowest(said.word) if isinstance(said.word, Summed) else said.word
                slots = self.crew.slots(said.worker_id)
                self._measure(said.worker_id, "gradients", slots.layout.total_bytes)
                contributions[done.key.node] = Contribution(said.worker_id, slots, done)

        dispatch = self._finish(take)
        return {node: contributions[node] for node in dispatch.done}

    def _asking_work(self, shards: int, denominators: tuple[float, ...] = ()) -> Callable[[Order], Work]:
        scale = self._loss_scale
        return lambda order: Work(order.key, denominators, scale, shards, order.is_last)

    def _count(self) -> tuple[float, ...]:
        """The denominators of the whole batch, for each head that needs them exchanged."""
        counted: dict[Node, tuple[float, ...]] = {}

        def take(said: Said) -> None:
            if isinstance(said.word, Counted):
                counted[said.word.key.node] = said.word.denominators

        dispatch = self._finish(take)
        heads = self.crew.terms.exchanged_heads if self.crew.terms else 0
        values = [value for node in sorted(dispatch.done) for value in counted[node]]
        return tuple(sum(values[head::heads]) for head in range(heads))

    def dismiss(self, worker_id: str) -> None:
        """A worker finishes its present order, if it has one, and ends."""
        self.crew.let_go(worker_id)
        if self._round is None:
            self.crew.farewell(worker_id)
            return
        dispatch = self._round.dispatch
        self._give([*dispatch.retire(worker_id), *self._call_up(dispatch)], self._round.word)
        if worker_id not in dispatch.running:
            self.crew.farewell(worker_id)

    def resize(self, workers: int) -> None:
        """So many workers get orders from now on; who has one beyond that finishes it."""
        before = self.crew.ready
        self.crew.resize(workers)
        if self._round is not None:
            for worker_id in set(before) - set(self.crew.ready):
                self._give(self._round.dispatch.retire(worker_id), self._round.word)
            self._give(self._call_up(self._round.dispatch), self._round.word)

    def gather(self, at_least: int) -> None:
        """Waits until so many workers are ready; later ones join in the middle of a step."""
        while len(self.crew.ready) < at_least:
            for event in self.server.poll(POLL_S):
                self._live(event)
            self._look_around()

    def _start(self, step: int, shards: int, word: Callable[[Order], Count | Work]) -> Round:
        dispatch = Dispatch(step, shards, self._attempts)
        self._give(dispatch.start(self.crew.ready), word)
        return Round(dispatch, word)

    def _finish(self, take: Callable[[Said], None]) -> Dispatch:
        """Waits until every shard of the round is done."""
        under_way = self._under_way()
        dispatch = under_way.dispatch
        while not dispatch.is_complete:
            for event in self.server.poll(POLL_S):
                self._give(self._handle(dispatch, event, take), under_way.word)
            self._look_around()
        self._round = None
        return dispatch

    def _under_way(self) -> Round:
        assert self._round is not None  # begin comes before collect
        return self._round

    def _handle(self, dispatch: Dispatch, event: Event, take: Callable[[Said], None]) -> list[Order]:
        if isinstance(event, Left) or not isinstance(event.word, Done | Counted | Summed):
            return self._live(event, dispatch)
        parts = _parts(event.worker_id, event.word)
        if isinstance(event.word, Summed):
            place = Place(event.worker_id, event.word.slot)
            is_taken, orders = dispatch.finish_sum(event.word.node, place, parts)
        else:
            finished = dispatch.finish(event.worker_id, event.word.key)
            is_taken, orders = finished is not None, finished or []
        if is_taken:
            take(event)
        for worker_id, key in parts:
            if is_taken:
                self._paces.finished(worker_id, time.monotonic())
            else:
                self._refuse(worker_id, key)
            if self.crew.is_leaving(worker_id) and worker_id not in dispatch.running:
                self.crew.farewell(worker_id)
        return orders

    def _live(self, event: Event, dispatch: Dispatch | None = None) -> list[Order]:
        """An event of a worker's life, in a round or between rounds."""
        orders = []
        if isinstance(event, Left):
            self.crew.lose(event)
            self._paces.left(event.worker_id)
            orders = self._leave(dispatch, event) if dispatch else []
        elif isinstance(event.word, Done | Counted | Summed):
            for worker_id, key in _parts(event.worker_id, event.word):
                self._refuse(worker_id, key)
        else:
            self.crew.hear(event)
        return [*orders, *self._call_up(dispatch)] if dispatch else []

    def _call_up(self, dispatch: Dispatch) -> list[Order]:
        """Orders for those who get some only now: they have just become ready, or were spares."""
        newcomers = [worker_id for worker_id in self.crew.ready if not dispatch.has(worker_id)]
        return [order for worker_id in newcomers for order in dispatch.join(worker_id)]

    def _leave(self, dispatch: Dispatch, left: Left) -> list[Order]:
        try:
            return dispatch.leave(left.worker_id, left.reason)
        except ShardLost as lost:
            raise JobFailed(
                f"shard {lost.shard} of step {dispatch.step + 1}, {self.samples(dispatch.step, lost.shard)}, ended "
                f"{len(lost.losses)} workers one after the other: look at these rows and at the workers' memory",
                code="shard_failed",
                details="\n".join(lost.losses),
            ) from lost

    def _refuse(self, worker_id: str, key: Key) -> None:
        self.meter.refused += 1
        self.server.send(worker_id, Refused(reason=f"step {key.step}, attempt {key.attempt} is not awaited"))

    def _give(self, orders: list[Order], word: Callable[[Order], Count | Work]) -> None:
        for order in orders:
            given = word(order)
            if isinstance(given, Work):
                self._paces.given(order.worker_id, order.key.node.size, time.monotonic())
            self.server.send(order.worker_id, given)
            self._measure_weights(order)

    def _measure(self, worker_id: str, direction: str, size_bytes: int) -> None:
        self.meter.exchanged(self.crew.transport(worker_id), direction, size_bytes)

    def _measure_weights(self, order: Order) -> None:
        """Shared memory shows them without moving them; by Flight each version crosses once for each stream."""
        if self.crew.transport(order.worker_id) == FLIGHT:
            sent = (self.server.stream(order.worker_id), order.key.version)
            if sent not in self._sent:
                self._sent = {other for other in self._sent if other[1] == order.key.version} | {sent}
                self._measure(order.worker_id, "weights", len(self.server.memory(SEGMENT)))

    def _look_around(self) -> None:
        """To be called after a poll, which has heard everybody who had something to say."""
        now_s = time.monotonic()
        if now_s - self._looked_s < POLL_S:
            return
        self._looked_s = now_s
        self.crew.drop_silent(now_s)
        self.crew.watch(stragglers(self._paces.at(now_s)), now_s)
        self.interrupt()


def _ask_count(order: Order) -> Count:
    return Count(order.key)


def _parts(worker_id: str, word: Done | Counted | Summed) -> list[tuple[str, Key]]:
    """Who has done what, as a word says."""
    if isinstance(word, Summed):
        return [(part.worker_id, part.done.key) for part in word.parts]
    return [(worker_id, word.key)]


def _slowest(summed: Summed) -> Done:
    """A sum as a contribution, with the times of the slowest worker."""
    slowest = max((part.done for part in summed.parts), key=lambda done: done.data_s + done.compute_s)
    return replace(slowest, key=replace(slowest.key, node=summed.node, slot=summed.slot))
