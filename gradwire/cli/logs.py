"""`gradwire logs`: prints a job's log."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import click

from gradwire.cli.remote import Remote, print_document, remote_options


@click.command()
@click.argument("job")
@remote_options
def logs(remote: Remote, job: str) -> None:
    """Print JOB's log so far, one event a line.

    \b
    Example:  gradwire logs 3f2a
    """
    with tempfile.TemporaryDirectory(prefix="gradwire-logs-") as folder, remote.client() as client:
        job_id = client.get(job).id
        path = Path(folder, "log")
        client.download(job_id, "log", path)
        with path.open(encoding="utf-8", errors="replace") as file:
            if remote.is_json:
                print_document({"id": job_id, "lines": file.read().splitlines()})
            else:
                shutil.copyfileobj(file, sys.stdout)
