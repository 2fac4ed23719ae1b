"""What people see while it runs, and the table at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from benchmarks.report import Cells
from benchmarks.rounds import Tell

WIDTH = 180
"""Of the table where no terminal says how wide it is."""


@contextmanager
def progress_bar(console: Console, total: int) -> Iterator[Tell]:
    """A bar of so many measurements, moved on by what it is told; plain lines where nothing can move."""
    if not console.is_terminal:
        yield lambda text: console.print(text, highlight=False)
        return
    columns = (
        TextColumn("{task.completed}/{task.total}"),
        BarColumn(20),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=total, completed=-1)

        def tell(text: str) -> None:
            progress.update(task, advance=1, description=text)

        yield tell
        progress.update(task, completed=total, description="done")


def show(cells: Cells) -> None:
    """Prints a table; its first columns are words, the others numbers."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    header, *lines = cells
    table = Table(show_edge=False)
    for index, title in enumerate(header):
        table.add_column(title, justify="left" if index < 2 or title == "losses" else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)
