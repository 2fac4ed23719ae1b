"""The display of a job on a terminal: a few moving lines at its bottom."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from gradwire.cli.display import NOTABLE_KINDS, notable_text
from gradwire.cli.figures import count_text, duration_text, metrics_text, rate_text
from gradwire.cli.status import Status, after
from protos.gradwire.v1 import service_pb2 as pb

REFRESHES_PER_SECOND = 10
BAR_WIDTH = 40
MAX_WORKERS_SHOWN = 4
STYLES = {"warning": "yellow", "worker": "cyan"}


class LiveDisplay:
    """What goes on, a bar, and the numbers; what is notable scrolls above them. All that moves goes at the end."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._started_s = clock()
        self._status = Status()
        # What goes on, in words, until an event says otherwise; apart from the status, since other threads write it.
        self._stage = "starting"
        self._spinner = Spinner("dots", style="cyan")
        self._live = Live(
            console=console, get_renderable=self.picture, refresh_per_second=REFRESHES_PER_SECOND, transient=True
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def stage(self, text: str) -> None:
        """Shows the text from the next refresh on; may be called by any thread."""
        self._stage = text

    def job(self, name: str, heads: list[str]) -> None:
        """Takes the names."""
        self._status = replace(self._status, name=name, heads=tuple(heads))

    def event(self, event: pb.JobEvent) -> None:
        """Shows the event's numbers, and prints what should stay."""
        self._status = after(self._status, event)
        self._stage = event.message if event.kind == "state" else ""
        if event.kind in NOTABLE_KINDS and event.kind != "state":
            self._console.print(Text(notable_text(event, self._status), STYLES.get(event.kind, "dim")))

    def picture(self) -> RenderableType:
        """The moving part, as it is now."""
        status = self._status
        name = Text(status.name or "gradwire", "bold")
        elapsed = Text(duration_text(self._clock() - self._started_s), "dim")
        self._spinner.update(text=Text("  ").join([name, _activity(status, self._stage), elapsed]))
        if not status.step or not status.total_steps:
            return self._spinner
        return Group(self._spinner, _bar(status, min(BAR_WIDTH, self._console.width // 3)), _numbers(status))


def _activity(status: Status, stage: str) -> Text:
    if status.state == "RUNNING" and status.step and not stage:
        return Text("training", "green")
    return Text(": ".join(part for part in (status.state.lower(), stage) if part), "cyan")


def _bar(status: Status, width: int) -> RenderableType:
    left = status.seconds_left
    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        " ",
        ProgressBar(total=status.total_steps, completed=status.step, width=width),
        Text(f"step {status.step:,}/{status.total_steps:,}"),
        Text(f"{status.step / status.total_steps:.0%}".replace("%", " %"), "cyan"),
        Text(f"{duration_text(left)} left" if left is not None else "", "dim"),
    )
    return bar


def _numbers(status: Status) -> RenderableType:
    heads = list(status.heads)
    rows = Table.grid(padding=(0, 2))
    rows.add_column()
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column(no_wrap=True, overflow="ellipsis")
    if status.metrics:
        rows.add_row("", "training", Text(metrics_text(status.metrics, heads)))
    if status.eval_metrics:
        rows.add_row("", "validation", Text(metrics_text(status.eval_metrics, heads)))
    if status.examples_per_second:
        rows.add_row("", "speed", Text(rate_text(status.examples_per_second)))
    if status.workers:
        rows.add_row("", count_text(len(status.workers), "worker"), Text(_workers(status)))
    return rows


def _workers(status: Status) -> str:
    shown = [f"{worker} {phase}".rstrip() for worker, phase in status.workers[:MAX_WORKERS_SHOWN]]
    if (more := len(status.workers) - MAX_WORKERS_SHOWN) > 0:
        shown.append(f"{more} more")
    return ", ".join(shown)
