"""`gradwire resume`: lets a paused job go on."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@remote_options
def resume(remote: Remote, job: str) -> None:
    """Queue the paused JOB again; it goes on from its last checkpoint, and its result is as if it had never stopped.

    It takes the place in the queue that it was submitted to. A job that is not paused stays as it is.

    \b
    Example:  gradwire resume 3f2a
    """
    from gradwire.view import job_view, state_word

    with remote.client() as client:
        resumed = client.resume(job)
    if remote.is_json:
        print_document(job_view(resumed))
        return
    click.echo(f"job {resumed.id} ({resumed.name}) goes on: it is {state_word(resumed.state)}")
    click.echo(f"  follow it: gradwire watch {resumed.id}")
