"""The display of a job where nothing can move: a pipe, a file, a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from rich.console import Console

from gradwire.cli.display import NOTABLE_KINDS, notable_text, progress_parts
from gradwire.cli.status import Status, after
from protos.gradwire.v1 import service_pb2 as pb

LINE_INTERVAL_S = 1.0
"""At least so long between two lines of progress."""


class LineDisplay:
    """Plain lines, each with the seconds since the start, or since the job's first event if that was earlier.

    What has happened counts at its own time, not when it is read: the history of a job that is watched late has its
    times too. There is at most one line of progress in `LINE_INTERVAL_S` of them.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since the epoch, as the times of events do."""
        self._console = console
        self._clock = clock
        self._started_s = clock()
        self._status = Status()
        self._printed_s = float("-inf")
        self._is_behind = False
        self._progress = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._catch_up()

    def stage(self, text: str) -> None:
        """Prints the text; may be called by any thread."""
        self._line(text, self._clock())

    def job(self, name: str, heads: list[str]) -> None:
        """Takes the names."""
        self._status = replace(self._status, name=name, heads=tuple(heads))

    def event(self, event: pb.JobEvent) -> None:
        """Prints a notable event at once, progress if it is time."""
        status = after(self._status, event)
        self._started_s = min(self._started_s, status.time_s)
        if event.kind in NOTABLE_KINDS:
            self._catch_up()
            self._line(notable_text(event, status), status.time_s)
        self._status = status
        if event.kind == "progress":
            self._is_behind = True
            if status.time_s - self._printed_s >= LINE_INTERVAL_S:
                self._catch_up()

    def _catch_up(self) -> None:
        if self._is_behind:
            self._is_behind = False
            self._printed_s = self._status.time_s
            text = "   ".join(progress_parts(self._status))
            if text != self._progress:
                self._line(text, self._status.time_s)
            self._progress = text

    def _line(self, text: str, time_s: float) -> None:
        # Not wrapped: a line is one record for whoever reads the output by program.
        elapsed = f"{max(time_s - self._started_s, 0.0):6.1f} s"
        self._console.print(f"{elapsed}  {text}", markup=False, soft_wrap=True)
        self._console.file.flush()
