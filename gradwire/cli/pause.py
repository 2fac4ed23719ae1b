"""`gradwire pause`: gives a job's workers back for a while."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@remote_options
def pause(remote: Remote, job: str) -> None:
    """Pause JOB: it writes a checkpoint after its present step, and others can have its workers.

    It stays paused, over a restart of the server too, until it is resumed; its result will be the same. A job that
    waits or starts is held at once.

    \b
    Example:  gradwire pause 3f2a
    """
    from gradwire.view import job_view, state_word

    with remote.client() as client:
        paused = client.pause(job)
    if remote.is_json:
        print_document(job_view(paused))
        return
    done = "is paused" if state_word(paused.state) == "PAUSED" else "is being paused"
    click.echo(f"job {paused.id} ({paused.name}) {done}")
    click.echo(f"  let it go on: gradwire resume {paused.id}")
