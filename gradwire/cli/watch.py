"""`gradwire watch`: follows a job until it ends."""

from __future__ import annotations

import click

from gradwire.cli.remote import Remote, remote_options


@click.command()
@click.argument("job")
@remote_options
def watch(remote: Remote, job: str) -> None:
    """Follow JOB until it ends, and show its result. Ctrl-C stops the watching alone: the job goes on.

    JOB is an id or an unambiguous beginning of one. With --json the job's document is printed when it has ended.

    \b
    Example:  gradwire watch 3f2a
    """
    from gradwire.cli.follow import follow_to_end

    with remote.client() as client:
        follow_to_end(remote, client, client.get(job))
