"""`gradwire serve`: becomes the server process."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from gradwire.cli.remote import DEFAULT_SERVER, FILE, json_option

DEFAULT_METRICS = "127.0.0.1:9464"
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.option(
    "--listen",
    default=DEFAULT_SERVER,
    show_default=True,
    metavar="HOST:PORT",
    help="Where to answer gRPC.",
)
@click.option(
    "--metrics",
    default=DEFAULT_METRICS,
    show_default=True,
    metavar="HOST:PORT",
    help="Where /metrics is.",
)
@click.option(
    "--metrics-keep",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="How long after its end a job is seen there.  [default: 3600]",
)
@click.option(
    "--state",
    metavar="FOLDER",
    help="Where jobs, checkpoints and exports are kept.  [default: ~/.local/state/gradwire]",
)
@click.option("--ray", metavar="ADDRESS", help="Use this Ray cluster instead of starting one on this machine.")
@click.option("--data-root", type=FOLDER, help="Jobs may name files below this folder, as server:PATH.")
@click.option("--allow-code", is_flag=True, help="Run models that are Python code. Only for clients that you trust.")
@click.option("--trust", multiple=True, metavar="PACKAGE", help="A package whose Keras classes configs may name.")
@click.option(
    "--token-file",
    envvar="GRADWIRE_TOKEN_FILE",
    show_envvar=True,
    type=FILE,
    help="Ask every client for this token; without it the server listens on loopback only.",
)
@click.option(
    "--tls-cert",
    envvar="GRADWIRE_TLS_CERT",
    show_envvar=True,
    type=FILE,
    help="The server's certificate; with --tls-key.",
)
@click.option("--tls-key", envvar="GRADWIRE_TLS_KEY", show_envvar=True, type=FILE, help="The certificate's key.")
@click.option(
    "--exchange-tls",
    is_flag=True,
    help="Encrypt weights and gradients between nodes of a --ray cluster, with certificates of its own making.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="One event a line on standard error: key=value, or a JSON document.  [default: text]",
)
@json_option
def serve(is_json: bool, **options: Any) -> None:
    """Start a server on this machine; it needs nothing else. Ctrl-C stops it, and its jobs go on at the next start.

    With --json the document says where it listens; it is printed as soon as the server does.

    \b
    Example:  gradwire serve --state ./state
    """
    if bool(options["tls_cert"]) != bool(options["tls_key"]):
        raise click.UsageError("--tls-cert and --tls-key belong together; give both or neither")
    for name in ("listen", "metrics"):
        require_address(options[name], f"--{name}")
    require_service()
    options["state"] = state_url(options["state"])
    if is_json:
        options["json"] = True
    os.execv(sys.executable, service_command(document_of(options)))


def service_command(document: dict[str, Any]) -> list[str]:
    """The command line of a server process with these settings."""
    # `-m` looks in the working folder first; -P forbids that, lest a folder `service` of the user's is run.
    found = importlib.util.find_spec("service")
    is_here = found is not None and found.origin is not None and Path(found.origin).parents[1] == Path.cwd()
    return [sys.executable, *([] if is_here else ["-P"]), "-m", "service", json.dumps(document)]


def document_of(options: dict[str, Any]) -> dict[str, Any]:
    """The options as the server process reads them; paths are absolute."""
    return {
        name: str(value.resolve()) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        for name, value in options.items()
    }


def state_url(state: str | None) -> str:
    """A folder's absolute path, or a URL; the default is $XDG_STATE_HOME/gradwire, or ~/.local/state/gradwire."""
    if not state:
        home = os.environ.get("XDG_STATE_HOME")
        return str((Path(home) if home else Path.home() / ".local" / "state") / "gradwire")
    return state if "://" in state else str(Path(state).expanduser().resolve())


def require_address(text: str, option: str) -> None:
    """Raises a usage error unless the text is HOST:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise click.UsageError(f"{option} {text!r} is not HOST:PORT, such as {DEFAULT_SERVER}")


def require_service() -> None:
    """Raises a usage error where only the client is installed."""
    if importlib.util.find_spec("service") is None:
        raise click.UsageError("the server is not installed here; install it: pip install 'gradwire[service,compute]'")
