"""The workers of one job, as the trainer knows them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import structlog

from gradwire.errors import JobFailed
from gradwire.progress import WorkerView
from gradwire.spec.job import MAX_WORKERS
from service.training.exchange import Left, Said, SharedMemoryServer
from service.training.meter import Meter
from service.training.pace import Straggler
from service.training.pulse import Listening, Pulse, hung
from service.training.reception import Reception
from workers.exchange.messages import Dismiss, Failed, Heartbeat, Hello, Ready, Welcome
from workers.exchange.segment import Segment
from workers.layout import Layout
from workers.slices import Slices

SLOW_EVERY_S = 30.0
"""People are told of a slow worker at most this often."""

MAX_CRASHES = 3
"""So many workers may report an unexpected error before the job fails with it."""

log = structlog.get_logger()


@dataclass(slots=True)
class Member:
    """One worker; `slots` are views of its contributions once it is ready, as the `rank`-th of all."""

    view: WorkerView
    heard_at: float
    """By the clock of `Listening`."""
    slots: Slots | None = None
    rank: int = 0
    told_slow_at: float = -math.inf
    traces: int = 0


@dataclass(frozen=True, slots=True)
class Slots:
    """A worker's own segment, cut into contributions of one layout."""

    layout: Layout
    buffer: Any

    def sections(self, slot: int) -> list[np.ndarray]:
        return self.layout.flat(self.buffer, slot * self.layout.total_bytes)

    def tables(self, slot: int) -> list[Slices]:
        places = self.layout.places(self.buffer, slot * self.layout.total_bytes)
        return [place.get() for place in places]


@dataclass(frozen=True, slots=True)
class Terms:
    """What all workers of a job must agree on, from the first that was ready."""

    contribution: Layout
    exchanged_heads: int
    fingerprint: dict[str, str]
    trace_s: float
    xla_ms: dict[str, float] = field(default_factory=dict)
    """What a shard took without and with XLA, if it was measured."""


@dataclass(slots=True)
class Crew:
    """Keeps the members. Its one writer is the trainer's loop; `views` may be read by anyone.

    Args:
        welcome: sent to whoever says hello, once the weights are there.
        report: told of every change, as (message, whether it is a warning).
        limit: so many of the ready workers get orders, those that were ready first; the others are spares.
    """

    server: SharedMemoryServer
    report: Callable[[str, bool], None]
    limit: int = MAX_WORKERS
    members: dict[str, Member] = field(default_factory=dict)
    terms: Terms | None = None
    views: tuple[WorkerView, ...] = ()
    meter: Meter = field(default_factory=Meter)
    _reception: Reception = field(init=False)
    _leaving: set[str] = field(default_factory=set)
    _departed: list[WorkerView] = field(default_factory=list)
    _crashes: int = 0
    _enlisted: int = 0
    _listening: Listening = field(default_factory=lambda: Listening(time.monotonic()))

    def __post_init__(self) -> None:
        self._reception = Reception(self.server.send)

    def open(self, welcome: Welcome) -> None:
        """From now on workers are let in; those who have already said hello are told at once."""
        self._reception.open(welcome)

    @property
    def ready(self) -> list[str]:
        """The workers that get orders, in a stable order."""
        able = [
            (member.rank, worker_id)
            for worker_id, member in self.members.items()
            if member.slots is not None and worker_id not in self._leaving
        ]
        active = [worker_id for _, worker_id in sorted(able)[: self.limit]]
        # Neighbours get neighbouring nodes of the tree, which a relay can add up.
        return sorted(active, key=lambda worker_id: (self.members[worker_id].view.node, worker_id))

    def resize(self, limit: int) -> None:
        """From now on so many workers get orders."""
        self.limit = limit
        self._publish()

    def slots(self, worker_id: str) -> Slots:
        """The segment of a worker that is ready."""
        slots = self.members[worker_id].slots
        assert slots is not None  # only ready workers get orders
        return slots

    def transport(self, worker_id: str) -> str:
        """How a worker exchanges memory with the trainer."""
        return self.members[worker_id].view.transport

    def hear(self, said: Said) -> None:
        """Takes a word of a worker's life.

        Raises:
            JobFailed: the model or the data is at fault, or too many workers crashed.
        """
        member = self.members.get(said.worker_id)
        if member is not None:
            member.heard_at = self._listening.seconds
        match said.word:
            case Hello() as hello:
                self._greet(hello)
            case Ready() as ready:
                self._enlist(said.worker_id, said.segments[ready.document], said.segments[ready.segment])
            case Heartbeat(phase=phase, traces=traces):
                if member is not None and member.slots is not None and traces > member.traces:
                    self._trace(said.worker_id, member, traces)
                if member is not None and member.view.phase != phase:
                    member.view = replace(member.view, phase=phase)
                    self._publish()
            case Failed() as failed:
                self._fail(said.worker_id, failed)

    def lose(self, left: Left) -> None:
        """A worker is gone."""
        member = self.members.pop(left.worker_id, None)
        self._reception.leave(left.worker_id)
        if member is None:
            return
        if left.worker_id in self._leaving:
            self._publish()
            self.report(f"worker {left.worker_id} was let go", False)
            return
        self.meter.worker_deaths += 1
        self._departed = [*self._departed[-7:], replace(member.view, state="DEAD")]
        self._publish()
        self.report(f"worker {left.worker_id} left: {left.reason}", True)

    def let_go(self, worker_id: str) -> None:
        """A worker, here or yet to come, shall get no order more."""
        self._leaving.add(worker_id)
        self._publish()

    def is_leaving(self, worker_id: str) -> bool:
        """Whether it was let go."""
        return worker_id in self._leaving

    def farewell(self, worker_id: str) -> None:
        """Tells a worker to end, after what it has been told before."""
        self.server.send(worker_id, Dismiss(reason="the job shall have fewer workers"))

    def drop_silent(self, now_s: float) -> None:
        """Hangs up on workers that hang. To be called when all has been heard that was said until `now_s`."""
        self._listening.look(now_s)
        pulses = [
            Pulse(
                worker_id=worker_id,
                silent_s=self._listening.seconds - member.heard_at,
                is_ready=member.slots is not None,
            )
            for worker_id, member in self.members.items()
        ]
        for pulse in hung(pulses):
            view = self.members[pulse.worker_id].view
            where = f"process {view.pid} on {view.node}"
            self.server.drop(
                pulse.worker_id, f"hung in phase {view.phase}: no heartbeat for {pulse.silent_s:.1f} s ({where})"
            )

    def watch(self, slow: Sequence[Straggler], now_s: float) -> None:
        """Shows who is slow, and reports it; nobody is dropped for that."""
        by_name = {straggler.worker_id: straggler for straggler in slow}
        for worker_id, member in self.members.items():
            if member.slots is None:
                continue
            straggler = by_name.get(worker_id)
            state: Literal["SLOW", "READY"] = "SLOW" if straggler else "READY"
            if member.view.state != state:
                self.meter.stragglers += state == "SLOW"
                member.view = replace(member.view, state=state)
                self._publish()
            if straggler and now_s - member.told_slow_at >= SLOW_EVERY_S:
                member.told_slow_at = now_s
                self.report(_reading(member.view, straggler), True)

    def dismiss(self, reason: str) -> None:
        for worker_id in list(self.members):
            self.server.send(worker_id, Dismiss(reason=reason))

    def _greet(self, hello: Hello) -> None:
        view = WorkerView(
            id=hello.worker_id, pid=hello.pid, node=hello.node, state="STARTING", phase="trace",
            transport=self.server.transport(hello.worker_id),
        )  # fmt: skip
        self.members[hello.worker_id] = Member(view, self._listening.seconds)
        self._publish()
        if hello.worker_id in self._leaving:
            self.farewell(hello.worker_id)
        else:
            self._reception.arrive(hello.worker_id)

    def _enlist(self, worker_id: str, published: Segment, slots: Segment) -> None:
        document = json.loads(bytes(published.buffer))
        terms = Terms(
            Layout.from_json(document["contribution"]),
            int(document["exchangedHeads"]),
            dict(document["fingerprint"]),
            float(document["traceSeconds"]),
            dict(document.get("xlaMs", {})),
        )
        if self.terms is None:
            self.terms = terms
            self._reception.settle(terms.fingerprint.get("xla", "off"))
        elif (why := _disagreement(self.terms, terms)) is not None:
            self.server.drop(worker_id, why)
            return
        member = self.members[worker_id]
        member.slots = Slots(terms.contribution, slots.buffer)
        self._enlisted += 1
        member.rank = self._enlisted
        member.traces = int(document.get("traces", 0))
        self.meter.start_traces += member.traces
        member.view = replace(member.view, state="READY", phase="idle")
        self._publish()
        self.report(
            f"worker {worker_id} is ready (built and traced in {terms.trace_s:.1f} s): {member.traces} traces", False
        )

    def _trace(self, worker_id: str, member: Member, traces: int) -> None:
        """A worker has met shapes for the first time; how often that may be is bounded where it traces."""
        self.meter.step_traces += traces - member.traces
        member.traces = traces
        self.report(f"worker {worker_id} has traced anew, which held a step up ({traces} traces in all)", False)

    def _fail(self, worker_id: str, failed: Failed) -> None:
        where = f" (worker {worker_id}, step {failed.step}, shard {failed.shard})" if failed.shard >= 0 else ""
        self._crashes += failed.code == "internal"
        self.meter.nonfinite += failed.code == "nonfinite"
        if failed.code != "internal" or self._crashes >= MAX_CRASHES:
            raise JobFailed(failed.message + where, code=failed.code, details=failed.details)
        log.warning("worker_crashed", worker=worker_id, why=failed.message, details=failed.details)
        self.server.drop(worker_id, failed.message)

    def _publish(self) -> None:
        active = self.ready
        present = [self._seen(worker_id, active) for worker_id in sorted(self.members)]
        self.views = (*self._departed, *present)

    def _seen(self, worker_id: str, active: list[str]) -> WorkerView:
        view = self.members[worker_id].view
        return replace(view, phase="spare") if view.state == "READY" and worker_id not in active else view


def _reading(view: WorkerView, straggler: Straggler) -> str:
    return (
        f"worker {view.id} is slow, in phase {view.phase}: {straggler.shard_s:.1f} s for a shard that takes the others "
        f"{straggler.others_s:.2f} s (process {view.pid} on {view.node})"
    )


def _disagreement(terms: Terms, other: Terms) -> str | None:
    """Why a worker cannot join, or None."""
    if terms.contribution != other.contribution or terms.exchanged_heads != other.exchanged_heads:
        return "its model has other variables or metrics than the first worker's"
    for name, value in terms.fingerprint.items():
        if other.fingerprint.get(name) != value:
            return (
                f"its {name} is {other.fingerprint.get(name)}, the job's {value}: its gradients would have other bits"
            )
    return None
