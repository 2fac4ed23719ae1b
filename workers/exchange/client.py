"""A worker's end of the shared-memory exchange: one socket for words, the trainer's weights, a segment of its own."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

from gradwire.errors import JobFailed
from workers.exchange.messages import MAX_BYTES, Codec, Hello, Word
from workers.exchange.segment import Segment

SOCKET = "control"
CONNECT_TIMEOUT_S = 10.0


class SharedMemoryClient:
    """Speaks to the trainer whose exchange lies in a folder of /dev/shm.

    Sending is safe from several threads; receiving belongs to one.
    """

    transport = "shared_memory"

    def __init__(self, folder: Path, hello: Hello) -> None:
        self.folder = folder
        self._sending = threading.Lock()
        self._socket = _connect(folder / SOCKET)
        self.send(hello)

    def send(self, word: Word) -> None:
        """Raises OSError when the trainer has gone."""
        datagram = Codec.encode(word)
        with self._sending:
            self._socket.send(datagram)

    def receive(self) -> Word | None:
        """The next word, or None when the trainer has hung up."""
        try:
            datagram = self._socket.recv(MAX_BYTES)
        except OSError:
            return None
        return Codec.decode(datagram) if datagram else None

    def attach(self, name: str) -> Segment:
        """The trainer's segment of this name."""
        return Segment.attach(self.folder / name)

    def create(self, name: str, size_bytes: int) -> Segment:
        """A segment of this worker's own; its memory is taken as it is first touched."""
        return Segment.create(self.folder / name, size_bytes, reserve=False)

    def publish(self, name: str, document: bytes) -> None:
        """Puts a document where the trainer reads it; it is whole before anyone is told its name."""
        (self.folder / name).write_bytes(document)

    def close(self) -> None:
        self._socket.close()


def _connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.connect(str(path))
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise JobFailed(f"no trainer listens at {path}: {error.strerror}", code="trainer_gone") from error
            time.sleep(0.05)
