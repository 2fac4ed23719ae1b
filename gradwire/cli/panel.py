"""One job, whole, for reading."""

from __future__ import annotations

from datetime import UTC

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gradwire.cli.figures import count_text, metric_text, reason_text
from gradwire.cli.tables import figure_table, metric_table, phase_table, state_text, time_text
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb

DIGEST_CHARS = 16
"""Enough to compare by eye; --json has all."""


def job_panel(job: pb.Job) -> RenderableType:
    """State and reason, error, metrics, workers, where time went, and what can be downloaded."""
    parts = [
        _error(job) if job.HasField("error") else None,
        metric_table(job),
        figure_table(job, _more(job)),
        phase_table(job),
        # Those of a job that has ended are gone, whatever they were at last.
        _workers(job) if job.workers and not job.HasField("finished_at") else None,
        Text("\n".join(_following(job)), "dim"),
    ]
    body = Group(_state(job), *[Padding(part, (1, 0, 0, 0)) for part in parts if part])
    title = Text.assemble((job.name, "bold"), "  ", (job.id, "dim"))
    return Panel(body, title=title, title_align="left", padding=(1, 2), expand=False)


def _state(job: pb.Job) -> Text:
    reason = "" if job.state_reason == job.error.message else reason_text(state_word(job.state), job.state_reason)
    return Text.assemble(state_text(job), f"  {reason}" if reason else "")


def _error(job: pb.Job) -> RenderableType:
    error = job.error
    where = [f"step {error.step}"] if error.step else []
    where += [f"worker {error.worker}"] if error.worker else []
    text = Text.assemble((error.code, "bold red"), f"  {error.message}")
    if where:
        text.append(f"\nat {', '.join(where)}", "dim")
    if error.details:
        text.append("\n\n" + error.details.rstrip(), "dim")
    return text


def _more(job: pb.Job) -> list[tuple[str, str]]:
    times = (("created", "created_at"), ("started", "started_at"), ("finished", "finished_at"))
    rows = [
        (name, time_text(getattr(job, field).ToDatetime(UTC)))
        for name, field in times
        if job.HasField(field)  # type: ignore[arg-type]
    ]
    if job.checkpoint_step:
        rows.append(("checkpoint", f"after step {job.checkpoint_step:,}"))
    if job.HasField("best"):
        value = metric_text(job.best.metric, job.best.value)
        rows.append(("best", f"{job.best.metric} {value} after step {job.best.step:,}"))
    if job.weights_digest:
        short = job.weights_digest[:DIGEST_CHARS]
        rows.append(("weights", f"SHA-256 {short}… after step {job.weights_digest_step:,}"))
    alive = sum(worker.state not in ("DEAD", "ENDED") for worker in job.workers)
    if job.wanted_workers > alive and not job.HasField("finished_at"):
        rows.append(("wanted", count_text(job.wanted_workers, "worker")))
    if job.generation > 1:
        rows.append(("starts", f"{job.generation}"))
    if job.exports:
        rows.append(("exports", ", ".join(sorted(job.exports))))
    return rows


def _workers(job: pb.Job) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("worker", "state", "phase", "pid", "node", "transport"):
        table.add_column(name, header_style="dim")
    for worker in job.workers:
        style = "red" if worker.state == "DEAD" else ""
        table.add_row(
            worker.id, Text(worker.state, style), worker.phase, str(worker.pid), worker.node, worker.transport
        )
    return table


def _following(job: pb.Job) -> list[str]:
    """What one may type next."""
    if job.exports:
        return [f"gradwire export {job.id} --to FOLDER", f"gradwire plot {job.id} -o curve.png"]
    if job.HasField("error"):
        return [f"gradwire logs {job.id}"]
    return [] if job.HasField("finished_at") else [f"gradwire watch {job.id}"]
