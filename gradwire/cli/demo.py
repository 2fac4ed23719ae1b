"""`gradwire demo`: a server of its own, a real job, and the result, in a minute."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gradwire.cli.failure import Interrupted
from gradwire.cli.remote import FILE, json_option, print_document, reading_console
from gradwire.cli.serve import require_service, service_command

if TYPE_CHECKING:
    from rich.console import Console

    from gradwire.cli.embedded import Ready
    from gradwire.client import Client
    from protos.gradwire.v1 import service_pb2 as pb

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits" / "job.yaml"
"""Beside the package, as the repository has it."""
WARM_PROCESSES = 3
"""A trainer and two workers."""
RECONNECT_S = 10.0
SETTINGS: dict[str, Any] = {
    "listen": "127.0.0.1:0",
    "metrics": "127.0.0.1:0",
    "ray": None,
    "data_root": None,
    "allow_code": False,
    "trust": [],
    "token_file": None,
    "tls_cert": None,
    "tls_key": None,
    "warm": WARM_PROCESSES,
    # One job, once: processes that replace the used ones would only take its CPU time.
    "refill": False,
}


@click.command()
@click.option("--job", "job_file", type=FILE, help="Another job file.  [default: examples/digits/job.yaml]")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("gradwire-demo"),
    show_default=True,
    metavar="DIR",
    help="Where the trained model and the picture go; nothing else stays.",
)
@json_option
def demo(job_file: Path | None, output: Path, is_json: bool) -> None:
    """Train a small model on handwritten digits, on a server started for it, and show how it went.

    Everything is real: the job goes through gRPC to a coordinator, a trainer and two workers on Ray. At the end, and on
    Ctrl-C, all of it is stopped and removed but the trained model and the picture of its training curve.

    \b
    Example:  gradwire demo --output ./first-model
    """
    from gradwire.cli.follow import say_how_it_ended
    from gradwire.errors import Unavailable
    from gradwire.view import job_view

    require_service()
    job_file = job_file or require_example()
    console = reading_console(is_json=is_json)
    try:
        with _signals_interrupt():
            job = run(job_file, output, console)
    except Unavailable as error:
        click.echo(error.details, err=True)
        error.add_note("the server's last messages are above; try again: gradwire demo")
        raise
    except KeyboardInterrupt:
        raise Interrupted("the demo was interrupted; everything it started is stopped and removed") from None
    if is_json:
        print_document(job_view(job))
    click.get_current_context().exit(say_how_it_ended(job, next_commands=()))


def run(job_file: Path, output: Path, console: Console) -> pb.Job:
    """Runs a job on a server of its own, shows it on the console, and returns the job as it ended."""
    from gradwire.cli.display import display_on
    from gradwire.cli.embedded import embedded_service
    from gradwire.cli.follow import follow
    from gradwire.cli.tables import result
    from gradwire.client import Client
    from gradwire.spec.file import load

    with display_on(console) as display:
        display.stage("starting a server")
        spec = load(job_file)
        with embedded_service(service_command, SETTINGS, display.stage) as ready:
            display.stage(_submitting(spec.name, ready))
            with Client(ready.listen, reconnect_s=RECONNECT_S) as client:
                job = follow(client, client.submit(spec), display)
                display.stage("fetching the model")
                files = fetch(client, job, output)
    console.print(result(job, files))
    return job


def fetch(client: Client, job: pb.Job, output: Path) -> list[tuple[str, str]]:
    """Writes the exports and the training curve below a folder, and returns what they are and where."""
    from gradwire.cli.export import export_model
    from gradwire.cli.plot import plot_job
    from gradwire.errors import NotPossible

    files = [(format_, str(export_model(client, job.id, output, format_))) for format_ in sorted(job.exports)]
    with contextlib.suppress(NotPossible):  # it ended before its first step
        plot_job(client, job, output / "curve.png")
        files.append(("curve", str(output / "curve.png")))
    return files


def require_example() -> Path:
    """The example's job file; raises a usage error where the package came without it."""
    if not EXAMPLE.is_file():
        raise click.UsageError(f"{EXAMPLE} is not there; name a job file: gradwire demo --job FILE")
    return EXAMPLE


def _submitting(name: str, ready: Ready) -> str:
    return f"sending the job {name} to {ready.listen}"


@contextlib.contextmanager
def _signals_interrupt() -> Iterator[None]:
    """SIGTERM and a closed terminal end the demo as Ctrl-C does; so does Ctrl-C where it was ignored."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, interrupt) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
