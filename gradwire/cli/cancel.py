"""`gradwire cancel`: cancels a job."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@remote_options
def cancel(remote: Remote, job: str) -> None:
    """Cancel JOB. Its checkpoints and its log stay.

    \b
    Example:  gradwire cancel 3f2a
    """
    from gradwire.view import job_view

    with remote.client() as client:
        cancelled = client.cancel(job)
    if remote.is_json:
        print_document(job_view(cancelled))
    else:
        click.echo(f"job {cancelled.id} ({cancelled.name}) is being cancelled")
        click.echo(f"  see how it ended: gradwire show {cancelled.id}")
