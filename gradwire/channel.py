"""The connection to a server: its options, its security, and who may be shown a token."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import grpc

from gradwire.errors import InvalidSpec, Violation

CONNECT_TIMEOUT_MS = 4000
"""A server that is not there is reported within this time."""
MAX_REPLY_BYTES = 64 << 20
"""A page of jobs with large models in them; files come in chunks of 1 MiB."""
MAX_METADATA_BYTES = 256 << 10
"""The violations of a specification come in the metadata."""

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", MAX_REPLY_BYTES),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    # A watched job may say nothing for minutes: pings, seldom enough for any server, tell a quiet one from a lost one.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC waits at least "min_reconnect_backoff" for a connection, 20 s by default.
    ("grpc.min_reconnect_backoff_ms", CONNECT_TIMEOUT_MS),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A new client does not wait out the pause of another one in its process that has lost the same server.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(address: str, *, has_token: bool, tls_cert: str | Path | None = None) -> grpc.Channel:
    """A channel to `host:port`; encrypted if `tls_cert` names a PEM file of the certificates to trust.

    Raises `InvalidSpec` for an address without a port, for an unreadable certificate, and where a token would travel in
    plain text to another machine.
    """
    host = _host(address)
    if tls_cert is not None:
        credentials = grpc.ssl_channel_credentials(_certificates(Path(tls_cert)))
        return grpc.secure_channel(address, credentials, options=OPTIONS)
    if has_token and not is_loopback(host):
        raise InvalidSpec(
            [
                Violation(
                    "token", f"is not sent to {address} without encryption; give the server's certificate as --tls-cert"
                )
            ]
        )
    # A proxy of this machine's environment cannot reach this machine's loopback.
    local = (("grpc.enable_http_proxy", 0),) if is_loopback(host) else ()
    return grpc.insecure_channel(address, options=(*OPTIONS, *local))


def read_token(token: str | None, token_file: str | Path | None) -> str | None:
    """The token itself, or a file's first line. Raises `InvalidSpec` for a file without one, and for an odd token."""
    if token is None and token_file is not None:
        try:
            lines = Path(token_file).read_text("ascii").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSpec([Violation("token_file", f"{token_file} cannot be read: {error}")]) from error
        token = lines[0].strip() if lines else ""
        if not token:
            raise InvalidSpec([Violation("token_file", f"{token_file} has no token in its first line")])
    if token is not None and not (token and token.isascii() and token.isprintable()):
        raise InvalidSpec([Violation("token", "must be printable ASCII characters, and not empty")])
    return token


def is_loopback(host: str) -> bool:
    """Whether what is sent to the host stays on this machine."""
    if host in ("localhost", "unix"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(address: str) -> str:
    if address.startswith(("unix:", "unix-abstract:")):
        return "unix"
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or "/" in address:
        raise InvalidSpec([Violation("server", f"{address!r} is no address; write host:port, such as 127.0.0.1:50551")])
    return host.removeprefix("[").removesuffix("]")


def _certificates(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidSpec([Violation("tls_cert", f"{path} cannot be read: {error.strerror}")]) from error
