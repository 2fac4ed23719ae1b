"""`gradwire show`: one job, whole."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@remote_options
def show(remote: Remote, job: str) -> None:
    """Show JOB: its state and why, metrics, workers, errors, where time goes, files.

    \b
    Example:  gradwire show 3f2a --json
    """
    from gradwire.cli.panel import job_panel
    from gradwire.view import job_view

    with remote.client() as client:
        found = client.get(job)
    if remote.is_json:
        print_document(job_view(found))
    else:
        remote.console().print(job_panel(found))
