"""`gradwire submit`: sends a job file to the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from gradwire.cli.remote import Remote, print_document, remote_options
from gradwire.errors import InvalidSpec


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--watch", "is_watched", is_flag=True, help="Follow the job until it ends.")
@click.option("--request-id", metavar="ID", help="Makes a repeated submission safe: the same ID gives the same job.")
@remote_options
def submit(remote: Remote, file: Path, is_watched: bool, request_id: str | None) -> None:
    """Send the job FILE, and the files that it names, to the server.

    \b
    Example:  gradwire submit examples/digits/job.yaml --watch
    """
    from gradwire.cli.follow import follow_to_end
    from gradwire.spec.file import load
    from gradwire.view import job_view

    with _advice(file):
        spec = load(file)
    with remote.client() as client:
        with _advice(file):
            job = client.submit(spec, request_id=request_id)
        if is_watched:
            follow_to_end(remote, client, job)
            return
    if remote.is_json:
        print_document(job_view(job))
        return
    click.echo(f"{job.name}: submitted as job {job.id}")
    click.echo(f"  follow it: gradwire watch {job.id}")


@contextmanager
def _advice(file: Path) -> Iterator[None]:
    """Adds to what is wrong with a job what to do about it."""
    try:
        yield
    except InvalidSpec as error:
        error.add_note(f"correct {file}, then: gradwire submit {file}")
        raise
