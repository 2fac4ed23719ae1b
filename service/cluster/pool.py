"""The warm pool: processes that have TensorFlow imported before a job asks for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from service.identity import Identity

QUIET_S = 10.0
"""Nothing is replaced so soon after a launch or a death: an import takes the CPUs that a starting job needs, and a
process that cannot live should not die twice a second."""

MAX_WARM = 64


@dataclass(slots=True, eq=False)
class Member:
    """A process of the pool; `actor` is its handle."""

    actor: Any
    node: str
    is_warm: bool = False
    identity: Identity | None = None
    """Known as soon as it lives."""


class WarmPool:
    """Which processes are kept and when one more is started; only the engine's thread calls it.

    The first `target` processes start as soon as there are CPUs for them. With `refill` a process that was taken is
    replaced, without it only one that died; one at a time, when nothing has happened for `QUIET_S`.
    """

    def __init__(self, target: int, *, refill: bool, spawn: Callable[[str], Member]) -> None:
        self._promised = self._target = min(target, MAX_WARM)
        self._refill = refill
        self._spawn = spawn
        self._first = self._target
        """How many of the first processes have not been started yet."""
        self._members: list[Member] = []
        self._warmed = 0
        self._lost = ""
        self._quiet_since_s = float("-inf")

    @property
    def members(self) -> tuple[Member, ...]:
        """The processes that nobody has taken."""
        return tuple(self._members)

    def take(self, node: str | None, fallback: str, now_s: float, avoid: Collection[str] = ()) -> Member:
        """A process on `node`, or on any but those to avoid: warm, else on its way, else new on `fallback`."""
        self._quiet_since_s = now_s
        if not self._refill:
            self._target = max(self._target - 1, 0)
        there = [member for member in self._members if (member.node == node if node else member.node not in avoid)]
        if not there:
            self._first = max(self._first - 1, 0)
            return self._spawn(node or fallback)
        best = max(there, key=lambda member: member.is_warm)
        self._members.remove(best)
        return best

    def warmed(self, member: Member) -> None:
        """The process has imported everything; taken or not, it counts."""
        member.is_warm = True
        self._lost = ""
        self._warmed += 1

    def died(self, member: Member, why: str, now_s: float) -> bool:
        """The process is of no use; returns False for one that was taken, which is no business of the pool."""
        if member not in self._members:
            return False
        self._members.remove(member)
        self._warmed -= member.is_warm
        self._lost = why
        self._quiet_since_s = now_s
        return True

    def fill(self, room: Sequence[tuple[str, float]], now_s: float) -> None:
        """Starts the processes that are due, on the nodes in `room` (name and CPUs) that have fewest."""
        while room and self._is_due(sum(max(1, int(cpus)) for _, cpus in room), now_s):
            self._first = max(self._first - 1, 0)
            self._members.append(self._spawn(min(room, key=lambda entry: self._count(entry[0]))[0]))

    def _is_due(self, at_once: int, now_s: float) -> bool:
        if len(self._members) >= self._target:
            return False
        on_their_way = sum(not member.is_warm for member in self._members)
        if self._first:
            return on_their_way < at_once
        return not on_their_way and now_s - self._quiet_since_s >= QUIET_S

    def _count(self, node: str) -> int:
        return sum(member.node == node for member in self._members)

    def stage(self) -> str:
        """How far the first processes are; empty when they are there."""
        if self._warmed >= self._promised:
            return ""
        lost = f"; one was lost: {self._lost}" if self._lost else ""
        return f"importing TensorFlow ({self._warmed} of {self._promised} ready){lost}"
