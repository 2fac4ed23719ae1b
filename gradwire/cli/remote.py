"""The server that a command speaks to, and the options that name it."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from gradwire.client import Client

DEFAULT_SERVER = "127.0.0.1:50551"

json_option = click.option(
    "--json", "is_json", is_flag=True, help="Print one JSON document on stdout; all else goes to stderr."
)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where the server is, how to be let in, and what the terminal prints."""

    server: str
    token_file: Path | None
    tls_cert: Path | None
    is_json: bool

    def client(self) -> Client:
        """A client of the server; gRPC is imported here."""
        from gradwire.client import Client

        return Client(self.server, token_file=self.token_file, tls_cert=self.tls_cert)

    def console(self) -> Console:
        """Where people read."""
        return reading_console(is_json=self.is_json)


def remote_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that every command has; the command gets them as its first argument, a `Remote`."""

    @click.option(
        "--server",
        envvar="GRADWIRE_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server's address.",
    )
    @click.option("--token-file", envvar="GRADWIRE_TOKEN_FILE", show_envvar=True, type=FILE, help="The server's token.")
    @click.option("--tls-cert", type=FILE, help="Speak TLS, and trust this certificate.")
    @json_option
    @functools.wraps(command)
    def with_remote(
        server: str, token_file: Path | None, tls_cert: Path | None, is_json: bool, **arguments: Any
    ) -> None:
        remote = Remote(server=server, token_file=token_file, tls_cert=tls_cert, is_json=is_json)
        command(remote, **arguments)

    return with_remote


def reading_console(*, is_json: bool) -> Console:
    """Where people read: stdout, or stderr when stdout is for a document; prints names as they are, brackets too."""
    from rich.console import Console

    return Console(stderr=is_json, highlight=False, markup=False, emoji=False)


def print_document(document: object) -> None:
    """Writes one JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False), flush=True)
