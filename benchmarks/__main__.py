"""`python -m benchmarks`: see README.md."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from benchmarks import display, report
from benchmarks.machine import facts
from benchmarks.models import MODELS
from benchmarks.peer import KINDS
from benchmarks.plan import ROUNDS, Plan
from benchmarks.results import Row
from benchmarks.rounds import Failures
from benchmarks.run import measure
from benchmarks.service import EXCHANGES
from benchmarks.system import FEEDS, Feed, SystemFailed

HERE = Path(__file__).parent
SYSTEMS = ("gradwire", *KINDS)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Names(click.ParamType[list[str]]):
    """Some of the known names, separated by commas."""

    name = "NAMES"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        names = [name.strip() for name in str(value).split(",")] if isinstance(value, str) else list(self._known)
        for name in names:
            if name not in self._known:
                self.fail(f"{name!r} is none of {', '.join(self._known)}", param, ctx)
        return [name for name in self._known if name in names]


def names_option(option: str, known: Sequence[str], text: str) -> Callable[[Decorated], Decorated]:
    return click.option(option, type=Names(known), default=",".join(known), show_default=True, help=text)


@click.command()
@names_option("--models", list(MODELS), "What is trained.")
@names_option("--systems", SYSTEMS, "Who trains it.")
@names_option("--transports", list(EXCHANGES), "How Gradwire's workers exchange.")
@names_option("--inputs", FEEDS, "Which batches they get.")
@click.option("--rounds", type=click.IntRange(1), help=f"Times that each window is measured.  [default: {ROUNDS}]")
@click.option("--quick", is_flag=True, help="One round of short windows: a few minutes, and noise.")
@click.option(
    "--extras/--no-extras",
    default=None,
    help="Also starts, recovery, checkpoints, and tables of 10k to 10M rows.  [default: when all models are measured]",
)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=HERE,
    metavar="DIR",
    help="Where results.md and results.json are written.  [default: benchmarks]",
)
def main(
    models: list[str],
    systems: list[str],
    transports: list[str],
    inputs: list[Feed],
    rounds: int | None,
    quick: bool,
    extras: bool | None,
    output: Path,
) -> None:
    """Measure Gradwire side by side with its peers; print the tables, and save them.

    One round takes about 25 minutes with everything on two cores; the default are three.
    """
    plan = Plan(
        models=[MODELS[name] for name in models],
        systems=systems,
        transports=transports,
        feeds=inputs,
        rounds=rounds or (1 if quick else ROUNDS),
        with_extras=len(models) == len(MODELS) and "gradwire" in systems if extras is None else extras,
        is_quick=quick,
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt_once)
    console = Console(stderr=True)
    started = time.monotonic()
    try:
        with display.progress_bar(console, plan.measurements) as tell:
            rows, failures = measure(plan, tell)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped, and no results are written")
        sys.exit(130)
    except SystemFailed as failure:
        console.print(f"error: {failure}", highlight=False)
        sys.exit(1)
    write(output, plan, rows, failures, (time.monotonic() - started) / 60)
    for title, cells in report.sections(rows):
        if title != report.OTHERS:  # which is long, and on the page
            display.show(title, cells)
    for line in report.failure_lines(failures):
        console.print(f"not reached: {line}", highlight=False, soft_wrap=True)
    console.print(f"written: {output / 'results.md'} and {output / 'results.json'}", highlight=False)


def interrupt_once(*_: object) -> None:
    """Ends the run; a second signal must not stop the cleaning up, which takes some seconds."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def write(output: Path, plan: Plan, rows: Sequence[Row], failures: Failures, minutes: float) -> None:
    how = (
        f"Medians of {plan.rounds} round{'s' * (plan.rounds != 1)} of at least {plan.pace.window_s:g} s, measured in "
        f"{minutes:.0f} minutes. [README.md](README.md) says what the numbers mean."
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / "results.json").write_text(json.dumps([row.document() for row in rows], indent=1) + "\n")
    (output / "results.md").write_text(report.page(rows, failures, facts(), how))


if __name__ == "__main__":
    main()
