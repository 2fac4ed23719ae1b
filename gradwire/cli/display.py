"""How a job is shown while it runs: an animation on a terminal, lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console

from gradwire.cli.figures import count_text, metrics_text, rate_text, reason_text
from gradwire.cli.status import Status
from protos.gradwire.v1 import service_pb2 as pb

NOTABLE_KINDS = ("state", "worker", "export", "warning")
"""Events that deserve a line of their own; the others change the numbers."""


class Display(Protocol):
    """Shows stages, then a job's events; one thread calls it, but for `stage`, which any may call."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def stage(self, text: str) -> None:
        """Says what goes on before there is a job, or before its first step."""

    def job(self, name: str, heads: list[str]) -> None:
        """Says which job is shown, and the names of its outputs, the main one first."""

    def event(self, event: pb.JobEvent) -> None:
        """Shows what has happened."""


def display_on(console: Console) -> Display:
    """The display that suits where the console writes."""
    from gradwire.cli.line_display import LineDisplay
    from gradwire.cli.live_display import LiveDisplay

    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


def progress_parts(status: Status) -> list[str]:
    """The parts of a line of progress that are known."""
    heads = list(status.heads)
    parts = [f"step {status.step}/{status.total_steps}", f"epoch {status.epoch}", metrics_text(status.metrics, heads)]
    if status.eval_metrics:
        parts.append(f"validation {metrics_text(status.eval_metrics, heads)}")
    if status.examples_per_second:
        parts.append(rate_text(status.examples_per_second))
    if status.workers:
        parts.append(count_text(len(status.workers), "worker"))
    return [part for part in parts if part]


def notable_text(event: pb.JobEvent, status: Status) -> str:
    """An event's line: its message, with the state's word before it where the state changed."""
    if event.kind == "state":
        reason = reason_text(status.state, event.message)
        return f"{status.state}  {reason}" if reason else status.state
    return f"warning: {event.message}" if event.kind == "warning" else event.message
