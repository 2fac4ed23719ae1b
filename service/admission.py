"""Which queued job may start, and on which nodes: decided from numbers alone, and never with a reason left out.

Jobs start in the order of their submission; nobody overtakes. One exception keeps the queue moving: a job that would
not fit if the cluster were empty waits aside, and holds up nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from service.engine import NodeResources
from service.jobs.record import JobRecord

UNITS = 10_000
"""Ray counts CPUs and GPUs in ten-thousandths; whole numbers of them add up exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a job asks for; `cpus` and `gpus` are those of one worker, in units. The trainer takes no share."""

    job_id: str
    workers: int
    min_workers: int
    cpus: int
    gpus: int = 0
    spares: int = 0
    """Workers more that it may have where nobody waits for their share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a job has: numbers of workers by node."""

    demand: Demand
    workers: Mapping[str, int]

    @property
    def total(self) -> int:
        """Workers on all nodes."""
        return sum(self.workers.values())

    def changed(self, node: str, by: int) -> Grant:
        """The grant with more or fewer workers on a node."""
        workers = {**self.workers, node: self.workers.get(node, 0) + by}
        return Grant(demand=self.demand, workers={name: count for name, count in workers.items() if count > 0})

    @property
    def without_spares(self) -> Grant:
        """What is left when the spares go, those first that have fewest colleagues on their node."""
        grant, surplus = self, self.total - self.demand.workers
        for node, count in sorted(self.workers.items(), key=lambda entry: entry[1]):
            gone = min(count, max(surplus, 0))
            grant, surplus = grant.changed(node, -gone), surplus - gone
        return grant


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """At most one job to start; if there is none, why each of the queue waits, by job id."""

    grant: Grant | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    is_awaited: bool = False
    """Whether somebody waits for others to end."""
    needs_spares: bool = False
    """Whether the first of them could start if all spares were given back."""


@dataclass(slots=True)
class _Room:
    """What a node has left, in units."""

    node: str
    cpus: int
    gpus: int

    def fits(self, demand: Demand) -> int:
        """How many of the job's workers."""
        counts = [max(have, 0) // need for have, need in ((self.cpus, demand.cpus), (self.gpus, demand.gpus)) if need]
        return min(counts, default=demand.workers)


def demand_of(record: JobRecord) -> Demand:
    """A job's resources in units; amounts too small for a unit count as one."""
    resources = record.resources
    return Demand(
        job_id=record.id,
        workers=record.usable_workers,
        min_workers=resources.min_workers,
        cpus=_units(resources.cpus_per_worker),
        gpus=_units(resources.gpus_per_worker),
        spares=resources.spares,
    )


def decide(queue: Sequence[Demand], grants: Iterable[Grant], nodes: Sequence[NodeResources]) -> Decision:
    """Whether the first of the queue can start beside what runs; it gets as many of its workers as fit now."""
    grants = list(grants)
    rooms, reasons, ahead, needs_spares = _rooms(nodes, grants), dict[str, str](), "", False
    for demand in queue:
        if sum(_place(demand, demand.min_workers, _rooms(nodes, [])).values()) < demand.min_workers:
            reasons[demand.job_id] = _too_large(demand, nodes)
            continue
        workers = _place(demand, demand.workers, rooms)
        fits = sum(workers.values()) >= demand.min_workers
        if fits and not ahead:
            return Decision(grant=Grant(demand=demand, workers=workers))
        reasons[demand.job_id] = _waits(demand, rooms, nodes, ahead, fits=fits)
        if not ahead:
            without = _place(demand, demand.min_workers, _rooms(nodes, [grant.without_spares for grant in grants]))
            needs_spares = sum(without.values()) >= demand.min_workers
        ahead = demand.job_id
    return Decision(reasons=reasons, is_awaited=bool(ahead), needs_spares=needs_spares)


def growth(
    grant: Grant, grants: Iterable[Grant], nodes: Sequence[NodeResources], *, spares: bool = False
) -> Mapping[str, int]:
    """How many workers more the job can have now, by node; `grants` are those of all jobs, this one's among them."""
    wanted = grant.demand.workers + (grant.demand.spares if spares else 0)
    return _place(grant.demand, wanted - grant.total, _rooms(nodes, grants))


def _units(amount: float) -> int:
    return max(round(amount * UNITS), 1) if amount else 0


def _rooms(nodes: Sequence[NodeResources], grants: Iterable[Grant]) -> list[_Room]:
    rooms = {node.node: _Room(node.node, round(node.cpus * UNITS), round(node.gpus * UNITS)) for node in nodes}
    for grant in grants:
        for node, workers in grant.workers.items():
            if node in rooms:  # a node can leave while processes are still taken for alive
                rooms[node].cpus -= workers * grant.demand.cpus
                rooms[node].gpus -= workers * grant.demand.gpus
    return list(rooms.values())


def _place(demand: Demand, wanted: int, rooms: Sequence[_Room]) -> dict[str, int]:
    """Up to `wanted` workers, on as few nodes as may be: workers of one node share memory."""
    workers: dict[str, int] = {}
    for room in sorted(rooms, key=lambda room: (-room.fits(demand), room.node)):
        count = min(room.fits(demand), wanted - sum(workers.values()))
        if count > 0:
            workers[room.node] = count
    return workers


def _too_large(demand: Demand, nodes: Sequence[NodeResources]) -> str:
    if not nodes:
        return "waits for a node: the cluster has none"
    total = _Room("", round(sum(node.cpus for node in nodes) * UNITS), round(sum(node.gpus for node in nodes) * UNITS))
    return (
        f"cannot run here: needs at least {_workers(demand.min_workers)} of {_share(demand, 1)}, the cluster has "
        f"{_amounts(demand, total)} on {len(nodes)} node{'s' * (len(nodes) != 1)}; ask for less, or add nodes"
    )


def _waits(demand: Demand, rooms: Sequence[_Room], nodes: Sequence[NodeResources], ahead: str, *, fits: bool) -> str:
    """Such as: waits for 1 CPU: needs 2 × 1 CPU (at least 1 worker), 0.5 of 2 CPUs are free; behind job ab12."""
    if fits:
        return f"waits its turn behind job {ahead}"
    free = _Room("", sum(max(room.cpus, 0) for room in rooms), sum(max(room.gpus, 0) for room in rooms))
    parts = [f"{_number(free.cpus)} of {_number(round(sum(node.cpus for node in nodes) * UNITS))} CPUs"]
    if demand.gpus:
        parts.append(f"{_number(free.gpus)} of {_number(round(sum(node.gpus for node in nodes) * UNITS))} GPUs")
    scattered = ", scattered over nodes" if free.fits(demand) >= demand.min_workers else ""
    return (
        f"waits for {_share(demand, demand.min_workers)}: needs {demand.workers} × {_share(demand, 1)} "
        f"(at least {_workers(demand.min_workers)}), {' and '.join(parts)} are free{scattered}"
        + (f"; behind job {ahead}" if ahead else "")
    )


def _share(demand: Demand, workers: int) -> str:
    return _amounts(demand, _Room("", workers * demand.cpus, workers * demand.gpus))


def _amounts(demand: Demand, room: _Room) -> str:
    """CPUs, and GPUs if the job uses any."""
    parts = [f"{_number(room.cpus)} CPU{'s' * (room.cpus > UNITS)}"]
    if demand.gpus:
        parts.append(f"{_number(room.gpus)} GPU{'s' * (room.gpus > UNITS)}")
    return " and ".join(parts)


def _workers(count: int) -> str:
    return f"{count} worker{'s' * (count != 1)}"


def _number(units: int) -> str:
    return f"{units / UNITS:.4f}".rstrip("0").rstrip(".")
