"""Jobs as tables: the list, and the result of one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradwire.cli.figures import (
    age_text,
    count_text,
    duration_text,
    head_order,
    metric_order,
    metric_text,
    milliseconds_text,
    rate_text,
    reason_text,
)
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb

PHASES = ("data", "compute", "exchange", "sum", "apply")
SHARE_WIDTH = 24
STATE_STYLES = {
    "SUCCEEDED": "green",
    "RUNNING": "cyan",
    "STARTING": "cyan",
    "RECOVERING": "yellow",
    "PAUSED": "yellow",
    "FAILED": "red",
    "CANCELLED": "magenta",
}


def state_text(job: pb.Job) -> Text:
    """The state's word in its colour."""
    word = state_word(job.state)
    return Text(word, STATE_STYLES.get(word, ""))


def job_list(jobs: Sequence[pb.Job], now: datetime) -> RenderableType:
    """One line for each job; where the terminal is narrow, names and reasons are cut."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("job", no_wrap=True)
    table.add_column("name", overflow="ellipsis")
    table.add_column("state", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("loss", justify="right", no_wrap=True)
    table.add_column("created", no_wrap=True)
    table.add_column("why", overflow="ellipsis")
    for job in jobs:
        table.add_row(
            job.id,
            Text(job.name, no_wrap=True),
            state_text(job),
            f"{job.step}/{job.total_steps}" if job.total_steps else "",
            metric_text("loss", job.metrics["loss"]) if "loss" in job.metrics else "",
            _age(job, now),
            Text(job.error.message or reason_text(state_word(job.state), job.state_reason), no_wrap=True),
        )
    return table


def _age(job: pb.Job, now: datetime) -> str:
    if not job.HasField("created_at"):
        return ""
    return age_text((now - job.created_at.ToDatetime(UTC)).total_seconds())


def time_text(moment: datetime) -> str:
    """Date and time on this machine's clock."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def result(job: pb.Job, files: Sequence[tuple[str, str]] = ()) -> RenderableType:
    """How a job went: metrics, figures, where a step's time went, and named files."""
    title = Text.assemble((job.name, "bold"), "  ", state_text(job), "  ", (job.id, "dim"))
    parts = [metric_table(job), figure_table(job, files), phase_table(job)]
    return Group(Text(), title, *[Padding(part, (1, 0, 0, 0)) for part in parts if part is not None], Text())


def metric_table(job: pb.Job) -> Table | None:
    """Training and validation side by side, the main head first; None before there are any."""
    if not job.metrics and not job.eval_metrics:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("")
    table.add_column("training", justify="right")
    if job.eval_metrics:
        table.add_column("validation", justify="right")
    for name in metric_order([*job.metrics, *job.eval_metrics], head_order(job)):
        columns = (job.metrics, job.eval_metrics) if job.eval_metrics else (job.metrics,)
        table.add_row(Text(name), *[metric_text(name, values[name]) if name in values else "" for values in columns])
    return table


def figure_table(job: pb.Job, files: Sequence[tuple[str, str]] = ()) -> Table:
    """Names and values in two columns."""
    rows = [("steps", _steps(job))]
    if job.examples_per_second:
        rows.append(("speed", rate_text(job.examples_per_second)))
    if job.workers:
        alive = [worker for worker in job.workers if worker.state != "DEAD"]
        rows.append(("workers", str(len(alive or job.workers))))
    if job.HasField("started_at") and job.HasField("finished_at"):
        passed = job.finished_at.ToDatetime(UTC) - job.started_at.ToDatetime(UTC)
        rows.append(("duration", duration_text(passed.total_seconds())))
    table = Table.grid(padding=(0, 2))
    for name, value in [*rows, *files]:
        table.add_row(Text(name, "dim"), Text(value, overflow="fold"))
    return table


def _steps(job: pb.Job) -> str:
    epochs = f" in {count_text(job.epoch, 'epoch')}" if job.epoch else ""
    if job.step == job.total_steps or not job.total_steps:
        return f"{job.step:,}{epochs}"
    return f"{job.step:,} of {job.total_steps:,}{epochs}"


def phase_table(job: pb.Job) -> Table | None:
    """Where the time of a step went: mean milliseconds and share of each phase; None before the first step."""
    total = sum(job.phase_ms.values())
    if not total > 0:
        return None
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("time of a step")
    table.add_column(milliseconds_text(total), justify="right")
    table.add_column("100 %", justify="right")
    table.add_column("", width=SHARE_WIDTH)
    for name in [*PHASES, *sorted(set(job.phase_ms) - set(PHASES))]:
        if name in job.phase_ms:
            share = job.phase_ms[name] / total
            bar = Text("━" * round(share * SHARE_WIDTH), "cyan")
            table.add_row(name, milliseconds_text(job.phase_ms[name]), f"{share:.0%}".replace("%", " %"), bar)
    return table
