"""Following a job from its events to its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from gradwire.cli.display import Display, display_on
from gradwire.cli.failure import DONE, FAILED, Interrupted
from gradwire.cli.figures import head_order, reason_text
from gradwire.cli.remote import Remote, print_document
from gradwire.cli.tables import result
from gradwire.view import job_view, state_word
from protos.gradwire.v1 import service_pb2 as pb

if TYPE_CHECKING:
    from gradwire.client import Client


def follow(client: Client, job: pb.Job, display: Display) -> pb.Job:
    """Shows a job's events until it has ended, and returns its last state.

    Raises:
        Unavailable: the server went away and did not come back.
    """
    display.job(job.name, head_order(job))
    for event in client.watch(job.id):
        display.event(event)
    return client.get(job.id)


def follow_to_end(remote: Remote, client: Client, job: pb.Job) -> None:
    """Follows a job on the terminal, prints its result, and ends the command with the job's exit code.

    Raises:
        Interrupted: Ctrl-C; the job goes on.
    """
    console = remote.console()
    try:
        with display_on(console) as display:
            ended = follow(client, job, display)
    except KeyboardInterrupt:
        interrupted = Interrupted(f"stopped watching; job {job.id} goes on")
        interrupted.add_note(f"gradwire watch {job.id}")
        interrupted.add_note(f"gradwire cancel {job.id}")
        raise interrupted from None
    if remote.is_json:
        print_document(job_view(ended))
    else:
        console.print(result(ended))
    click.get_current_context().exit(say_how_it_ended(ended))


def say_how_it_ended(job: pb.Job, next_commands: Sequence[str] = ("show", "logs")) -> int:
    """The exit code of a job that has ended; one without success is explained on stderr, with what to type next."""
    if job.state == pb.JOB_STATE_SUCCEEDED:
        return DONE
    why = job.error.message or reason_text(state_word(job.state), job.state_reason)
    click.echo(f"gradwire: job {job.id} {state_word(job.state)}{': ' + why if why else ''}", err=True)
    if next_commands:
        click.echo("  " + "; ".join(f"gradwire {command} {job.id}" for command in next_commands), err=True)
    return FAILED
