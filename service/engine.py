"""What the coordinator asks of the machines: processes for trainers and workers, and how much room there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gradwire.assignment import Assignment
from gradwire.progress import Outcome, Progress

KILLED = "the service killed it"


@dataclass(frozen=True, slots=True)
class NodeResources:
    """All that a node has, whether in use or not."""

    node: str
    cpus: float
    gpus: float
    address: str = ""
    """Of the node in the cluster's network."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process ended without saying how its run went."""

    reason: str


class TrainerHandle(Protocol):
    """A trainer's process. Every call returns within milliseconds.

    A trainer whose run has an `Outcome` lives on and answers polls until it is killed: what it reported last (its
    exports, its final digest) is asked for after its run.
    """

    def exchange_address(self) -> str | None:
        """Where the trainer listens for its workers; None until it does."""

    def is_missed(self) -> bool:
        """Whether its machine is out of reach for now: the engine waits a while before it gives it up."""

    def poll(self, since: int) -> Progress | None:
        """Starts asking for the events after a cursor, or collects the answer; None while there is none."""

    def outcome(self) -> Outcome | Death | None:
        """How the run ended; None while it goes on."""

    def cancel(self) -> None:
        """Asks the trainer to stop after its present step."""

    def scale(self, workers: int) -> None:
        """Tells the trainer to how many of its workers it shall give orders; the others are spares."""

    def dismiss(self, worker_ids: Sequence[str]) -> None:
        """Asks the trainer to do without these workers: each finishes its present order, and ends."""

    def kill(self, reason: str = KILLED, *, is_hung: bool = False) -> None:
        """Ends the process; `outcome` gives the reason when it has ended, if it has not ended before.

        One that hangs, and may be stopped, is gone for sure by then.
        """


class WorkerHandle(Protocol):
    """A worker's process. Every call returns within milliseconds."""

    @property
    def id(self) -> str:
        """The worker's id."""

    def outcome(self) -> Outcome | Death | None:
        """How the run ended; None while it goes on."""

    def kill(self, reason: str = KILLED, *, is_hung: bool = False) -> None:
        """Ends the process, as a trainer's is ended, and gives its share of the node back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundRun:
    """A start of a job's trainer that has outlived its coordinator, with its workers and their nodes."""

    assignment: Assignment
    trainer: TrainerHandle
    workers: tuple[tuple[WorkerHandle, str], ...]


class Engine(Protocol):
    """Where processes run."""

    def start(self, *, warm: int, refill: bool) -> None:
        """Brings the engine up, and returns then; `warm` processes get ready in the background.

        `refill` says whether a used process is replaced by a new warm one.
        """

    def found(self) -> tuple[FoundRun, ...]:
        """What an earlier coordinator of the service has left at work; whoever asks answers for it from then on."""

    def resources(self) -> tuple[NodeResources, ...]:
        """The nodes of the cluster."""

    def launch_trainer(self, assignment: Assignment) -> TrainerHandle:
        """Begins to start a trainer; returns at once."""

    def launch_worker(self, assignment: Assignment, node: str | None, cpus: float, gpus: float) -> WorkerHandle:
        """Begins to start a worker with its share of a node, or of any; returns at once."""

    def stop(self) -> None:
        """Ends all processes."""

    def stages(self) -> str:
        """What the engine is doing to get ready, for people; empty when it is."""

    def fault(self) -> str:
        """Why the engine is gone for good, for people; empty while it is not. It only remains to stop it."""
