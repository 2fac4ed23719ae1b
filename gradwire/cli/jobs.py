"""`gradwire jobs`: lists the server's jobs."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@remote_options
def jobs(remote: Remote) -> None:
    """List the server's jobs, newest first.

    \b
    Example:  gradwire jobs --server 127.0.0.1:50551
    """
    from gradwire.cli.tables import job_list
    from gradwire.view import job_view

    with remote.client() as client:
        found = client.list()
    if remote.is_json:
        print_document({"jobs": [job_view(job) for job in found]})
    elif found:
        remote.console().print(job_list(found, datetime.now(UTC)))
    else:
        click.echo("no jobs yet")
        click.echo("  send one: gradwire submit examples/digits/job.yaml --watch")
