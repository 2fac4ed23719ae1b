"""Following a job from its events to its result."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from gradwire.cli.display import Display, display_on
from gradwire.cli.failure import DONE, FAILED, Interrupted
from gradwire.cli.figures import head_order
from gradwire.cli.remote import Remote, print_document
from gradwire.cli.tables import result
from gradwire.errors import Unavailable
from gradwire.view import job_view, state_word
from protos.gradwire.v1 import service_pb2 as pb

if TYPE_CHECKING:
    from gradwire.client import Client

ENDED = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)
RECONNECT_S = 30.0
"""How long a server may be away, once it was there, before the watching ends."""
RECONNECT_PAUSE_S = 0.5


def follow(client: Client, job: pb.Job, display: Display) -> pb.Job:
    """Shows a job's events until it has ended, and returns its last state.

    A server that goes away is waited for: the cursor makes the events go on where they stopped.

    Raises:
        Unavailable: the server was away for `RECONNECT_S`.
    """
    display.job(job.name, head_order(job))
    cursor = 0
    lost_s: float | None = None
    while True:
        try:
            for event in client.watch(job.id, cursor):
                cursor, lost_s = event.cursor, None
                display.event(event)
            now = client.get(job.id)
            lost_s = None
            if now.state in ENDED:
                return now
        except Unavailable:
            if lost_s is None:
                lost_s = time.monotonic()
                display.stage("the server went away; waiting for it")
            elif time.monotonic() - lost_s > RECONNECT_S:
                raise
        # The stream ends before its job only when the server does: a moment for it to come back.
        time.sleep(RECONNECT_PAUSE_S)


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


def say_how_it_ended(job: pb.Job) -> int:
    """The exit code of a job that has ended; one without success is explained on stderr, with what to type next."""
    if job.state == pb.JOB_STATE_SUCCEEDED:
        return DONE
    why = job.error.message or job.state_reason
    click.echo(f"gradwire: job {job.id} {state_word(job.state)}{': ' + why if why else ''}", err=True)
    click.echo(f"  gradwire show {job.id}; gradwire logs {job.id}", err=True)
    return FAILED
