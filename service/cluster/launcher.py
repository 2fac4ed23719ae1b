"""The life of processes in Ray: from the pool, through one job, to their end. All of it runs on the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import structlog
from ray.exceptions import ActorUnavailableError, ActorUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from gradwire.assignment import Assignment, ExchangeAddress
from gradwire.errors import GradwireError
from gradwire.progress import Outcome
from service.cluster.contact import AGAIN_S, Contact
from service.cluster.ending import ending
from service.cluster.finder import find, release_shares
from service.cluster.launch import Launch
from service.cluster.outliving import RENEW_S, Description, OutlivingProcess, process_name, share_name
from service.cluster.pool import Member, WarmPool
from service.cluster.share import Share
from service.engine import Death, NodeResources
from service.identity import Identity
from service.process import Process

log = structlog.get_logger()

THREADS = 6
"""Of a process, for calls: one waits for its outcome, and perhaps one more of a coordinator that is dead."""
OUTCOME_WAIT_S = 10.0
"""So long one question for the outcome waits; it is asked again and again."""

START_TIMEOUT_S = 180.0
"""A process that is not in its role by then hangs; importing TensorFlow may take a minute where there is little CPU."""
SLAY_TIMEOUT_S = 2.0

SUSPECT_S = 20.0
"""Longer than Ray takes to find that a node is dead."""

WAITING_TICK_S = 0.05
TICK_S = 1.0


class Launcher:
    """Owns pool and launches. `post` brings Ray's answers back to the thread; `logs` tells where processes wrote.

    With a service's id in `outliving`, processes and shares have names, by which its next coordinator finds them.
    """

    def __init__(
        self,
        post: Callable[..., None],
        logs: Callable[[], Path | None],
        *,
        warm: int,
        refill: bool,
        outliving: str = "",
        look: Callable[[], Sequence[NodeResources]] | None = None,
    ) -> None:
        self._post = post
        self._look = look
        self._logs = logs
        self._pool = WarmPool(warm, refill=refill, spawn=self._spawn)
        self._outliving = outliving
        self._kind = ray.remote(OutlivingProcess if outliving else Process)
        self._renewed_s = time.monotonic()
        self._waiting: list[Launch] = []
        self._live: list[Launch] = []
        self._nodes: tuple[NodeResources, ...] = ()
        self._suspects: dict[str, float] = {}
        """Nodes that a process was lost with, and when: Ray tells seconds later whether they are gone."""
        self._lingering: list[Launch] = []
        self._unanswered: list[tuple[float, Launch, Callable[[], object]]] = []
        """Launches that Ray did not reach, when, and how to ask them again."""

    def stage(self) -> str:
        """What getting ready still waits for; from any thread."""
        return self._pool.stage()

    def tick(self, nodes: Sequence[NodeResources]) -> float:
        """Gives processes to launches whose share has come, and fills the pool; returns the seconds until the next."""
        for launch in list(self._waiting):
            self._guarded(launch, self._advance)
        self._ask_again()
        late_s = time.monotonic() - START_TIMEOUT_S
        for launch in [launch for launch in self._live if launch.member and not launch.is_started]:
            if launch.assigned_s < late_s and not launch.kill_reason:
                self.kill(launch, f"it did not start within {START_TIMEOUT_S:.0f} s", is_hung=True)
        self._renew()
        self._nodes = tuple(nodes)
        self._pool.fill([(node.node, node.cpus) for node in nodes if node.cpus], time.monotonic())
        return WAITING_TICK_S if self._waiting else TICK_S

    def take_over(self) -> list[Launch]:
        """The launches of an earlier coordinator that are at work, or have an outcome to tell; what else it left ends.

        Waits for processes that do not answer.
        """
        found = find(self._outliving) if self._outliving else []
        launches = [self._taken_over(one.actor, one.description) for one in found]
        if self._outliving:
            release_shares(self._outliving, {one.description.share for one in found})
        return launches

    def _taken_over(self, actor: Any, found: Description) -> Launch:
        assert found.assignment is not None  # `find` ends processes without one
        share = Share.named(found.share) if found.share else None
        member = Member(actor=actor, node=found.node, is_warm=True, identity=found.identity)
        launch = Launch(
            role=found.role,
            assignment=found.assignment,
            node=found.node,
            cpus=float(share is not None),
            share=share,
            member=member,
            is_started=True,
            address=found.address or None,
        )
        self._live.append(launch)
        if found.outcome is not None:
            self._end(launch, found.outcome)
        else:
            self._await(launch, member)
        return launch

    def _renew(self) -> None:
        if not self._outliving or time.monotonic() - self._renewed_s < RENEW_S:
            return
        self._renewed_s = time.monotonic()
        launched = [launch.member for launch in [*self._live, *self._lingering] if launch.member]
        for member in [*self._pool.members, *launched]:
            member.actor.renew.remote()

    def begin(self, launch: Launch) -> None:
        """Asks for the launch's share, if it takes one, and for its process."""
        self._live.append(launch)
        self._guarded(launch, self._enter)

    def cancel(self, launch: Launch) -> None:
        """Asks the role to stop; as soon as there is one."""
        launch.is_cancelled = True
        if launch.is_started:
            self.ask(launch, Future(), "cancel")

    def ask(self, launch: Launch, answer: Future[Any], method: str, *arguments: object) -> None:
        """Calls a method of a role that has started; `answer` gets its result or what it raised."""
        if launch.member is None or isinstance(launch.ending, Death):
            answer.set_exception(GradwireError(f"the process of job {launch.assignment.job_id} has ended"))
            return
        _then(launch.member.actor.call.remote(method, *arguments), lambda asked: _copy(asked, answer))

    def kill(self, launch: Launch, reason: str, is_hung: bool) -> None:
        """Ends a launch at any point of its life; its ending tells when the process is gone."""
        launch.kill_reason = launch.kill_reason or reason
        if launch.member is None:
            self._end(launch, Death(f"{launch.kill_reason} before it had a process"))
            return
        self._lingering = [other for other in self._lingering if other is not launch]
        if is_hung and launch.member.identity is not None:
            self._slay(launch.member, launch.member.identity)
        else:
            ray.kill(launch.member.actor)

    def _slay(self, member: Member, identity: Identity) -> None:
        """Ends a process that may be stopped: Ray takes it for dead at once, and kills it five seconds later."""
        if member.node == self._home() and identity.is_alive():
            self._slain(member, identity, identity.end(SLAY_TIMEOUT_S))
            return
        place = NodeAffinitySchedulingStrategy(member.node, soft=False)
        end = ray.remote(Identity.end).options(num_cpus=0, max_retries=0, scheduling_strategy=place)
        answered = end.remote(identity, SLAY_TIMEOUT_S)
        _then(answered, lambda answer: self._post(self._slain, member, identity, answer.exception() is None))

    def _slain(self, member: Member, identity: Identity, is_gone: bool) -> None:
        log.info("process_slain", node=member.node, pid=identity.pid, is_gone=is_gone)
        ray.kill(member.actor)

    def stop(self) -> None:
        """Ends everything; every launch has an ending afterwards."""
        for launch in list(self._live):
            launch.kill_reason = "the service stopped"
            self._end(launch, Death(launch.kill_reason))
        members = [*self._pool.members, *(launch.member for launch in self._lingering if launch.member)]
        for member in members:
            ray.kill(member.actor)

    def _guarded(self, launch: Launch, step: Callable[[Launch], None]) -> None:
        try:
            step(launch)
        except Exception as error:
            log.exception("process_refused", job=launch.assignment.job_id, worker=launch.assignment.worker_id)
            self._end(launch, Death(f"Ray refused to start the process: {type(error).__name__}: {error}"))

    def _enter(self, launch: Launch) -> None:
        if launch.cpus:
            name = share_name(launch.assignment) if self._outliving else ""
            launch.share = Share.ask(cpus=launch.cpus, gpus=launch.gpus, node=launch.node, name=name)
            self._waiting.append(launch)
            self._advance(launch)
        else:
            self._assign(launch, launch.node)

    def _advance(self, launch: Launch) -> None:
        node = launch.share.node() if launch.share else None
        if node is not None:
            self._waiting.remove(launch)
            self._assign(launch, node)

    def _assign(self, launch: Launch, node: str | None) -> None:
        if launch.gpus and launch.share and node:
            # Only a process that Ray starts within the share is told which GPUs it has; so this one is not warm.
            launch.member = self._spawn(node, uses_gpu=True, **launch.share.options())
        else:
            avoid = frozenset() if node else self._unsafe_nodes()
            fallback = able_node(self._home(), self._nodes, avoid)
            launch.member = self._pool.take(node, fallback, time.monotonic(), avoid)
        launch.assigned_s = time.monotonic()
        launch.assignment = self._placed(launch.assignment, launch.member.node)
        self._start(launch, launch.member)

    def _start(self, launch: Launch, member: Member) -> None:
        begun = member.actor.start.remote(launch.role, launch.assignment)
        _then(begun, lambda answer: self._post(self._started, launch, member, answer))

    def _unsafe_nodes(self) -> frozenset[str]:
        """Where no process that may run anywhere shall be started just now: nodes that have gone, or perhaps have."""
        if self._look is not None:
            self._nodes = tuple(self._look())
        now_s = time.monotonic()
        self._suspects = {node: since for node, since in self._suspects.items() if now_s - since < SUSPECT_S}
        gone = {member.node for member in self._pool.members} - {node.node for node in self._nodes}
        return frozenset(gone | self._suspects.keys())

    def _placed(self, assignment: Assignment, node: str) -> Assignment:
        """The assignment of a process on this node: where a trainer listens, where a worker finds its trainer."""
        if assignment.exchange_address:
            address = ExchangeAddress.parse(assignment.exchange_address)
            return replace(assignment, node=node, exchange_address=address.seen_from(node, assignment.exchange))
        is_far = bool(self._outliving) or assignment.exchange == "flight"
        host = next((known.address for known in self._nodes if known.node == node), "") if is_far else ""
        return replace(assignment, node=node, exchange_host=host)

    def _started(self, launch: Launch, member: Member, answer: Future[str]) -> None:
        if error := answer.exception():
            self._failed(launch, error, lambda: self._start(launch, member))
        elif launch.ending is None:
            launch.contact = Contact()
            launch.address = answer.result() or None
            launch.is_started = True
            if launch.is_cancelled:
                self.ask(launch, Future(), "cancel")
            self._await(launch, member)

    def _await(self, launch: Launch, member: Member, wait_s: float = OUTCOME_WAIT_S) -> None:
        asked = member.actor.outcome.remote(wait_s)
        _then(asked, lambda answer: self._post(self._answered, launch, member, answer))

    def _answered(self, launch: Launch, member: Member, answer: Future[Outcome | None]) -> None:
        if error := answer.exception():
            self._failed(launch, error, lambda: self._await(launch, member, wait_s=0.0))
            return
        launch.contact = Contact()
        if (outcome := answer.result()) is not None:
            self._end(launch, outcome)
        else:
            self._await(launch, member)

    def _failed(self, launch: Launch, error: BaseException, again: Callable[[], object]) -> None:
        now_s = time.monotonic()
        if launch.member is not None and isinstance(error, ActorUnavailableError | ActorUnschedulableError):
            self._suspects[launch.member.node] = now_s
        if isinstance(error, ActorUnavailableError) and not launch.kill_reason:
            if not launch.contact.is_missed:
                log.warning("process.missed", job=launch.assignment.job_id, worker=launch.assignment.worker_id)
            launch.contact = launch.contact.missed(now_s)
            if not launch.contact.is_lost(now_s):
                self._unanswered.append((now_s, launch, again))
                return
        found = ending(error, self._logs())
        if isinstance(found, Death) and launch.kill_reason:
            found = Death(launch.kill_reason)
        self._end(launch, found)

    def _ask_again(self) -> None:
        late_s = time.monotonic() - AGAIN_S
        due = [entry for entry in self._unanswered if entry[0] <= late_s]
        self._unanswered = [entry for entry in self._unanswered if entry not in due]
        for _, launch, again in due:
            if launch.ending is None:
                again()

    def _end(self, launch: Launch, found: Outcome | Death) -> None:
        if launch not in self._live:
            return
        self._live.remove(launch)
        if launch in self._waiting:
            self._waiting.remove(launch)
        # A process serves one job. A trainer is asked for its last words before it is killed.
        if isinstance(found, Outcome) and not launch.cpus:
            self._lingering.append(launch)
        elif launch.member is not None:
            ray.kill(launch.member.actor)
        if launch.share is not None:
            launch.share.release()
        launch.ending = found
        how = found.reason if isinstance(found, Death) else found.state
        log.info("process_ended", job=launch.assignment.job_id, worker=launch.assignment.worker_id, how=how)

    def _spawn(self, node: str, *, uses_gpu: bool = False, **options: object) -> Member:
        options = options or {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}
        if self._outliving:
            options |= {"lifetime": "detached", "name": process_name(self._outliving)}
        kind = self._kind.options(num_cpus=0, max_restarts=0, max_concurrency=THREADS, **options)
        member = Member(actor=kind.remote(uses_gpu=uses_gpu), node=node)
        _then(member.actor.who.remote(), lambda answer: self._post(self._met, member, answer))
        _then(member.actor.warm.remote(), lambda answer: self._post(self._warmed, member, answer))
        _then(member.actor.idle.remote(), lambda answer: self._post(self._left, member, answer))
        return member

    def _met(self, member: Member, answer: Future[Identity]) -> None:
        if not answer.exception():  # whoever waits for its warming or idling is told of its end
            member.identity = answer.result()

    def _warmed(self, member: Member, answer: Future[dict[str, object]]) -> None:
        if error := answer.exception():
            self._discard(member, error)
        else:
            self._pool.warmed(member)
            log.info("process_warm", node=member.node, **answer.result())

    def _left(self, member: Member, answer: Future[None]) -> None:
        if error := answer.exception():
            self._discard(member, error)

    def _discard(self, member: Member, error: BaseException) -> None:
        found = ending(error, self._logs())
        why = found.reason if isinstance(found, Death) else found.error.message if found.error else ""
        if self._pool.died(member, why, time.monotonic()):
            ray.kill(member.actor)
            log.warning("process_lost", node=member.node, why=why)

    def _home(self) -> str:
        """This machine's node."""
        return str(ray.get_runtime_context().get_node_id())


def able_node(home: str, nodes: Sequence[NodeResources], avoid: Collection[str] = ()) -> str:
    """Where to start a process that may run anywhere: at home, or on the largest node if there is no CPU at home.

    Nodes to avoid are taken only where there are no others.
    """
    able = [node for node in nodes if node.cpus]
    able = [node for node in able if node.node not in avoid] or able
    if not able or home in [node.node for node in able]:
        return home
    return max(able, key=lambda node: node.cpus).node


def _then(reference: Any, answered: Callable[[Future[Any]], object]) -> None:
    """Calls `answered` with the finished future, on a thread of Ray's: it has to be brief."""
    reference.future().add_done_callback(answered)


def _copy(source: Future[Any], target: Future[Any]) -> None:
    if error := source.exception():
        target.set_exception(error)
    else:
        target.set_result(source.result())
