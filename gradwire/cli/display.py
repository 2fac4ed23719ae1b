"""The live display of a job: an animation on a terminal, lines anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from gradwire.cli.figures import count_text, duration_text, metrics_text, rate_text
from gradwire.cli.status import NOTABLE_KINDS, Status, after
from protos.gradwire.v1 import service_pb2 as pb

LINE_INTERVAL_S = 1.0
"""At least so long between two lines of progress where there is no animation."""
BAR_WIDTH = 40
MAX_WORKERS_SHOWN = 4
STYLES = {"warning": "yellow", "worker": "cyan"}


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
    return LiveDisplay(console) if console.is_terminal else LineDisplay(console)


class LineDisplay:
    """Plain lines, at most one of progress in `LINE_INTERVAL_S`, each with the seconds since the start."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._started_s = clock()
        self._status = Status()
        self._printed_s = float("-inf")
        self._is_behind = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_behind:
            self._progress()

    def stage(self, text: str) -> None:
        self._line(text)

    def job(self, name: str, heads: list[str]) -> None:
        self._status = replace(self._status, name=name, heads=tuple(heads))

    def event(self, event: pb.JobEvent) -> None:
        self._status = after(self._status, event)
        if event.kind in NOTABLE_KINDS:
            if self._is_behind:
                self._progress()
            self._line(notable_text(event, self._status))
        elif event.kind == "progress":
            self._is_behind = True
            if self._clock() - self._printed_s >= LINE_INTERVAL_S:
                self._progress()

    def _progress(self) -> None:
        self._is_behind = False
        self._printed_s = self._clock()
        self._line("   ".join(part for part in progress_parts(self._status) if part))

    def _line(self, text: str) -> None:
        # Not wrapped: a line is one record for whoever reads the output by program.
        elapsed = f"{self._clock() - self._started_s:6.1f} s"
        self._console.print(f"{elapsed}  {text}", markup=False, soft_wrap=True)
        self._console.file.flush()


class LiveDisplay:
    """Three moving lines at the bottom of the terminal; what is notable scrolls above them."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._started_s = clock()
        self._status = Status()
        # What goes on, in words, until an event says that it is over; apart from the status, for other threads write it.
        self._stage = "starting"
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(console=console, get_renderable=self.picture, refresh_per_second=10, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def stage(self, text: str) -> None:
        self._stage = text

    def job(self, name: str, heads: list[str]) -> None:
        self._status = replace(self._status, name=name, heads=tuple(heads))

    def event(self, event: pb.JobEvent) -> None:
        self._status = after(self._status, event)
        self._stage = event.message if event.kind == "state" else ""
        if event.kind in NOTABLE_KINDS and event.kind != "state":
            text = notable_text(event, self._status)
            self._console.print(Text(text, STYLES.get(event.kind, "dim")))

    def picture(self) -> RenderableType:
        """The moving part, as it is now."""
        status, elapsed = self._status, duration_text(self._clock() - self._started_s)
        title = Text.assemble((status.name or "gradwire", "bold"), "  ", _activity(status, self._stage), "  ", (elapsed, "dim"))
        self._spinner.update(text=title)
        if not status.step or not status.total_steps:
            return self._spinner
        left = status.seconds_left
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            "  ",
            ProgressBar(total=status.total_steps, completed=status.step, width=min(BAR_WIDTH, self._console.width // 3)),
            Text(f"step {status.step:,}/{status.total_steps:,}"),
            Text(f"{status.step / status.total_steps:.0%}", "cyan"),
            Text(f"{duration_text(left)} left" if left is not None else "", "dim"),
        )
        lines = [self._spinner, bar, _numbers(status)]
        return Group(*lines)


def progress_parts(status: Status) -> list[str]:
    """The parts of a line of progress; a part that is not known yet is empty."""
    heads = list(status.heads)
    parts = [f"step {status.step}/{status.total_steps}", f"epoch {status.epoch}", metrics_text(status.metrics, heads)]
    if status.eval_metrics:
        parts.append(f"validation {metrics_text(status.eval_metrics, heads)}")
    parts.append(rate_text(status.examples_per_second) if status.examples_per_second else "")
    parts.append(count_text(len(status.workers), "worker") if status.workers else "")
    return parts


def notable_text(event: pb.JobEvent, status: Status) -> str:
    """An event's line: its message, with the state's word before it where the state changed."""
    if event.kind == "state":
        return f"{status.state}  {event.message}" if event.message else status.state
    return f"{event.kind}: {event.message}" if event.kind == "warning" else event.message


def _activity(status: Status, stage: str) -> Text:
    if status.state == "RUNNING" and status.step and not stage:
        return Text("training", "green")
    return Text(": ".join(part for part in (status.state.lower(), stage) if part), "cyan")


def _numbers(status: Status) -> RenderableType:
    heads = list(status.heads)
    rows = Table.grid(padding=(0, 2))
    rows.add_row("  ", Text("training", "dim"), Text(metrics_text(status.metrics, heads)), Text(_compute(status), "dim"))
    if status.eval_metrics:
        rows.add_row("  ", Text("validation", "dim"), Text(metrics_text(status.eval_metrics, heads)), "")
    return rows


def _compute(status: Status) -> str:
    workers = [f"{worker} {phase}".rstrip() for worker, phase in status.workers[:MAX_WORKERS_SHOWN]]
    if more := len(status.workers) - MAX_WORKERS_SHOWN:
        workers += [f"{more} more"] if more > 0 else []
    known = [rate_text(status.examples_per_second)] if status.examples_per_second else []
    if workers:
        known.append(f"{count_text(len(status.workers), 'worker')}: {', '.join(workers)}")
    return "  ".join(known)
