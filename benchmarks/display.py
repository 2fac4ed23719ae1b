"""What people see while it runs, and the table at its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.report import WORDS, Cells
from benchmarks.rounds import Tell

REMEMBERED_S = 3600.0
"""Measurements differ much, so that the estimate has to stand on all of them."""
WIDTH = 180
"""Of the table where no terminal says how wide it is."""


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Tell]:
    """A bar of so many measurements, moved on by what it is told; lines with an estimate where nothing can move."""
    if not console.is_terminal:
        yield lines_with_estimate(console, total)
        return
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("about"),
        TimeRemainingColumn(),
        TextColumn("left: {task.description}"),
    )
    with Progress(*columns, console=console, speed_estimate_period=REMEMBERED_S) as progress:
        task = progress.add_task("", total=total, completed=-1)

        def tell(text: str) -> None:
            progress.update(task, advance=1, description=text)

        yield tell
        progress.update(task, completed=total, description="done")


def lines_with_estimate(console: Console, total: int) -> Tell:
    """Prints what is told, how many of the measurements are done, and how long the others may take."""
    begun_s, told = time.monotonic(), 0

    def tell(text: str) -> None:
        nonlocal told
        console.print(
            f"[{stand(told, total, time.monotonic() - begun_s)}] {text}", highlight=False, markup=False, soft_wrap=True
        )
        told += 1

    return tell


def stand(done: int, total: int, elapsed_s: float) -> str:
    """Such as: 12/64, 4 min, about 17 min left. The estimate takes all measurements for equally long."""
    parts = [f"{done}/{total}", f"{elapsed_s / 60:.0f} min"]
    if done:
        parts.append(f"about {elapsed_s / done * max(total - done, 1) / 60:.0f} min left")
    return ", ".join(parts)


def show(title: str, cells: Cells) -> None:
    """Prints a table; its first columns are words, the others numbers."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    header, *lines = cells
    table = Table(title=title, title_justify="left", show_edge=False)
    for name in header:
        table.add_column(name, justify="left" if name in WORDS else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
