"""A worker's end of the shared-memory exchange: one socket for words, the trainer's weights, a segment of its own."""

from __future__ import annotations

import os
import socket
import struct
import threading
from pathlib import Path
from typing import Protocol

from gradwire.errors import JobFailed
from workers.exchange.messages import Hello, Refused, Word, attached
from workers.exchange.post import receive, send
from workers.exchange.segment import Segment

SOCKET = "control"
MAX_UNHEARD = 10
"""Words that the trainer may have said before it hung up: a few orders and a refusal."""


class ExchangeClient(Protocol):
    """What a worker asks of an exchange. Sending is safe from several threads; receiving belongs to one."""

    def send(self, word: Word) -> None:
        """Raises OSError when the trainer has gone."""

    def receive(self) -> Word | None:
        """The next word, or None when the trainer has hung up."""

    def farewell(self) -> str:
        """Why the trainer has hung up, if it said so; to be asked when it has."""

    def attach(self, name: str) -> Segment:
        """The segment that came with the word that named it."""

    def create(self, name: str, size_bytes: int) -> Segment:
        """A segment of this worker's own; nothing is reserved yet."""

    def publish(self, name: str, document: bytes) -> None:
        """A document of any length, as a segment."""

    def close(self) -> None:
        """Hangs up."""


class SharedMemoryClient:
    """Speaks to the trainer, or to its relay on this node, that listens in a folder of /dev/shm.

    Sending is safe from several threads; receiving belongs to one.
    """

    transport = "shared_memory"

    def __init__(self, folder: Path, hello: Hello, address: str = "") -> None:
        self.folder = folder
        self._sending = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._last: Word | None = None
        self._socket = _connect(address or str(folder / SOCKET), hello)

    def send(self, word: Word) -> None:
        """Raises OSError when the trainer has gone."""
        segments = [self._segments[name] for name in attached(word)]
        with self._sending:
            send(self._socket, word, segments)

    def receive(self) -> Word | None:
        """The next word, or None when the trainer has hung up."""
        try:
            letter = receive(self._socket)
        except OSError:
            return None
        if letter is None:
            return None
        self._segments |= letter.segments
        self._last = letter.word
        return letter.word

    def farewell(self) -> str:
        """Why the trainer has hung up, if it said so; to be asked when it has."""
        for _ in range(MAX_UNHEARD):
            self.receive()  # the first may tell of the broken connection alone
        return self._last.reason if isinstance(self._last, Refused) else ""

    def attach(self, name: str) -> Segment:
        """The segment that came with the word that named it."""
        return self._segments[name]

    def create(self, name: str, size_bytes: int) -> Segment:
        """A segment of this worker's own, which travels with the word that names it; nothing is reserved yet."""
        made = self._segments[name] = Segment.create(f"{self.folder.name}-{name}", size_bytes, reserve=False)
        return made

    def publish(self, name: str, document: bytes) -> None:
        """A document of any length, as a segment."""
        self.create(name, len(document)).buffer[:] = document

    def close(self) -> None:
        self._socket.close()


def _connect(address: str, hello: Hello) -> socket.socket:
    """The trainer listens before anybody is told where: who finds nobody comes after its end, and need not wait."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(address)
        if (uid := _owner(connection)) != os.getuid():
            raise PermissionError(0, f"user {uid} listens there")
        send(connection, hello, ())
    except OSError as error:
        connection.close()
        raise JobFailed(f"nobody listens at {address.lstrip(chr(0))}: {error.strerror}", code="trainer_gone") from error
    return connection


def _owner(connection: socket.socket) -> int:
    """Whose process listens: a relay's socket is in no folder, so anybody may have taken its name."""
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(uid)
