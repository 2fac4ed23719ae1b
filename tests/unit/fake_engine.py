"""An engine without processes: the test says what they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gradwire.assignment import Assignment
from gradwire.progress import Event, EventKind, Outcome, Progress, Snapshot
from service.engine import KILLED, Death, FoundRun, NodeResources, TrainerHandle, WorkerHandle


@dataclass
class FakeTrainer:
    assignment: Assignment
    address: str | None = None
    end: Outcome | Death | None = None
    snapshot: Snapshot = field(default_factory=Snapshot)
    events: list[Event] = field(default_factory=list)
    answers: list[Progress | None] = field(default_factory=list)
    """What the next polls give; then the truth."""
    is_cancelled: bool = False
    is_killed: bool = False
    was_hung: bool = False
    is_out_of_reach: bool = False
    dismissed: list[str] = field(default_factory=list)
    scaled: list[int] = field(default_factory=list)

    def exchange_address(self) -> str | None:
        return self.address

    def is_missed(self) -> bool:
        return self.is_out_of_reach

    def poll(self, since: int) -> Progress | None:
        if isinstance(self.end, Death) or self.is_killed or self.address is None:
            return None
        if self.answers:
            return self.answers.pop(0)
        return Progress(events=tuple(event for event in self.events if event.cursor > since), snapshot=self.snapshot)

    def outcome(self) -> Outcome | Death | None:
        return self.end

    def cancel(self) -> None:
        self.is_cancelled = True

    def scale(self, workers: int) -> None:
        self.scaled.append(workers)

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        self.dismissed += worker_ids

    def kill(self, reason: str = KILLED, *, is_hung: bool = False) -> None:
        self.is_killed = True
        self.was_hung = is_hung
        self.end = self.end or Death(reason)

    def emit(self, kind: EventKind, message: str) -> None:
        cursor = len(self.events) + 1
        self.events.append(Event(cursor=cursor, time_s=5.0, kind=kind, message=message, step=self.snapshot.step))


@dataclass
class FakeWorker:
    id: str
    assignment: Assignment
    node: str | None
    cpus: float
    end: Outcome | Death | None = None
    is_killed: bool = False
    was_hung: bool = False

    def outcome(self) -> Outcome | Death | None:
        return self.end

    def kill(self, reason: str = KILLED, *, is_hung: bool = False) -> None:
        self.is_killed = True
        self.was_hung = is_hung
        self.end = self.end or Death(reason)


@dataclass
class FakeEngine:
    nodes: tuple[NodeResources, ...] = (NodeResources("n", 2.0, 0.0),)
    trainers: list[FakeTrainer] = field(default_factory=list)
    workers: list[FakeWorker] = field(default_factory=list)
    stage: str = ""
    left_behind: tuple[FoundRun, ...] = ()
    before_launch: Callable[[Assignment], None] = lambda assignment: None
    is_stopped: bool = False

    def start(self, *, warm: int, refill: bool) -> None:
        pass

    def found(self) -> tuple[FoundRun, ...]:
        found, self.left_behind = self.left_behind, ()
        return found

    def resources(self) -> tuple[NodeResources, ...]:
        return self.nodes

    def launch_trainer(self, assignment: Assignment) -> TrainerHandle:
        self.before_launch(assignment)
        self.trainers.append(FakeTrainer(assignment))
        return self.trainers[-1]

    def launch_worker(self, assignment: Assignment, node: str | None, cpus: float, gpus: float) -> WorkerHandle:
        self.workers.append(FakeWorker(assignment.worker_id, assignment, node, cpus))
        return self.workers[-1]

    def stop(self) -> None:
        self.is_stopped = True

    def fault(self) -> str:
        return ""

    def stages(self) -> str:
        return self.stage
