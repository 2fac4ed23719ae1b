"""`gradwire plot`: draws a job's training curve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from gradwire.cli.remote import Remote, print_document, remote_options
from gradwire.errors import NotPossible

if TYPE_CHECKING:
    from gradwire.client import Client
    from gradwire.curve import Curve
    from protos.gradwire.v1 import service_pb2 as pb


@click.command()
@click.argument("job")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE.png",
    help="Where to write the picture.",
)
@remote_options
def plot(remote: Remote, job: str, output: Path) -> None:
    """Draw JOB's loss and metrics over its steps so far.

    \b
    Example:  gradwire plot 3f2a -o curve.png
    """
    with remote.client() as client:
        found = client.get(job)
        curve = plot_job(client, found, output)
    if remote.is_json:
        print_document({"id": found.id, "path": str(output.resolve()), **curve.view()})
    else:
        click.echo(f"wrote {output}")


def plot_job(client: Client, job: pb.Job, path: Path) -> Curve:
    """Draws a job's curve from its events so far, and returns it.

    Raises:
        NotPossible: the job has committed no step yet.
        OSError: the file cannot be written.
    """
    from gradwire.curve import curve_of, draw

    curve = curve_of(events_so_far(client, job))
    if curve.is_empty:
        error = NotPossible(f"job {job.id} has no finished step to draw")
        error.add_note(f"gradwire show {job.id}")
        raise error
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(curve, f"{job.name}  {job.id}", path)
    return curve


def events_so_far(client: Client, job: pb.Job) -> list[pb.JobEvent]:
    """The events up to the job's cursor; the stream of a job that still runs would go on."""
    events: list[pb.JobEvent] = []
    if not job.cursor:
        return events
    for event in client.watch(job.id, 0):
        events.append(event)
        if event.cursor >= job.cursor:
            break
    return events
