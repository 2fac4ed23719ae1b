"""Where a server listens: a host and a port."""

from __future__ import annotations

import errno
import ipaddress
import socket
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """`port` 0 stands for any that is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect; a name counts if all its addresses do."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
            return all(ipaddress.ip_address(entry[4][0]).is_loopback for entry in found)


def parse_address(text: str) -> Address:
    """Reads `host:port` or `[host]:port`. Raises `ValueError` if it is neither."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f"{text!r} is no address; write host:port, such as 127.0.0.1:50551")
    return Address(host, int(port))


def fault(address: Address) -> OSError | None:
    """Why one cannot listen there; None if one can."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do it: connections that have just ended do not count, a server that listens does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
        except OSError as error:
            return error
    return None


def is_taken(error: OSError) -> bool:
    """Whether the error says that somebody else listens there."""
    return error.errno == errno.EADDRINUSE
