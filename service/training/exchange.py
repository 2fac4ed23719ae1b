"""The trainer's end of the shared-memory exchange: it listens, and turns datagrams and hang-ups into events."""

from __future__ import annotations

import contextlib
import hmac
import os
import selectors
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from gradwire.assignment import Assignment
from service.segments import hold_segments
from workers.exchange.client import SOCKET
from workers.exchange.messages import Hello, Malformed, Refused, Word, attached
from workers.exchange.post import Letter, receive, send
from workers.exchange.segment import Segment, job_folder

HELLO_TIMEOUT_S = 10.0
FLIGHT = "flight"
MAX_STRANGERS = 64
"""Connections that have not said who they are; more are closed at once."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Said:
    """A word of a worker that has said hello, and the segments that came with it, by name."""

    worker_id: str
    word: Word
    segments: Mapping[str, Segment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """A worker hung up: it ended, was killed, or was dropped."""

    worker_id: str
    reason: str


Event = Said | Left


class Remote(Protocol):
    """The exchange with workers on other nodes."""

    bell: socket.socket
    """Readable when there is something to poll."""

    @property
    def address(self) -> str: ...

    def poll(self) -> list[Event]: ...

    def has(self, worker_id: str) -> bool: ...

    def stream(self, worker_id: str) -> int: ...

    def send(self, worker_id: str, word: Word) -> None: ...

    def drop(self, worker_id: str, reason: str) -> None: ...

    def close(self) -> None: ...


class SharedMemoryServer:
    """Listens in a folder of /dev/shm that only this user can enter. One thread owns it.

    A connection is heard only after a Hello with the job's token, id and generation; what else it sends closes it.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self.folder = job_folder(assignment.service_id, assignment.job_id, assignment.generation)
        _sweep_older(assignment)
        self.folder.mkdir(mode=0o700)
        self._hold = contextlib.ExitStack()
        self._hold.callback(os.close, hold_segments(self.folder))
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(self.folder / SOCKET))
        self._listener.listen(MAX_STRANGERS)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._strangers: dict[socket.socket, float] = {}
        self._workers: dict[str, socket.socket] = {}
        self._names: dict[socket.socket, str] = {}
        self._dropped: list[Left] = []
        self._own: dict[str, Segment] = {}
        self._remote: Remote | None = None

    def join(self, remote: Remote) -> None:
        """From now on the workers of another exchange are heard and told here as well."""
        self._remote = remote
        self._selector.register(remote.bell, selectors.EVENT_READ)

    def transport(self, worker_id: str) -> str:
        """How a worker exchanges memory with us."""
        return FLIGHT if self._remote is not None and self._remote.has(worker_id) else "shared_memory"

    def stream(self, worker_id: str) -> int:
        """Which of the streams from other nodes a worker is at; workers behind one relay are at the same."""
        return self._remote.stream(worker_id) if self._remote is not None else 0

    def memory(self, name: str) -> memoryview:
        """A segment of ours, empty before it is made."""
        return memoryview(self._own[name].buffer) if name in self._own else memoryview(b"")

    def poll(self, timeout_s: float) -> list[Event]:
        """What has happened, waiting at most so long for something to happen."""
        events: list[Event] = [*self._dropped]
        self._dropped.clear()
        for key, _ in self._selector.select(0 if events else timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif self._remote is not None and key.fileobj is self._remote.bell:
                events += self._remote.poll()
            else:
                events += self._hear(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
        self._forget_silent_strangers()
        return events

    def send(self, worker_id: str, word: Word) -> None:
        """Sends a word; a worker that cannot take it is dropped, which the next poll tells."""
        connection = self._workers.get(worker_id)
        if connection is None:
            if self._remote is not None:
                self._remote.send(worker_id, word)
            return
        try:
            send(connection, word, [self._own[name] for name in attached(word)])
        except OSError as error:  # gone, or its queue is full because it reads nothing
            self.drop(worker_id, f"does not take words: {error.strerror}")

    def drop(self, worker_id: str, reason: str) -> None:
        """Hangs up on a worker; the next poll tells that it left."""
        connection = self._workers.pop(worker_id, None)
        if self._remote is not None:
            self._remote.drop(worker_id, reason)
        if connection is not None:
            with contextlib.suppress(OSError):
                send(connection, Refused(reason=reason), ())
            self._close(connection)
            self._dropped.append(Left(worker_id, reason))

    def close(self) -> None:
        """Hangs up on everybody and removes the folder."""
        for connection in [*self._workers.values(), *self._strangers]:
            connection.close()
        self._listener.close()
        self._selector.close()
        if self._remote is not None:
            self._remote.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._hold.close()

    def create(self, name: str, size_bytes: int) -> Segment:
        """A segment that goes to the workers with the word that names it."""
        made = self._own[name] = Segment.create(f"{self.folder.name}-{name}", size_bytes)
        return made

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if len(self._strangers) >= MAX_STRANGERS:
            connection.close()
            return
        connection.setblocking(False)
        self._strangers[connection] = time.monotonic() + HELLO_TIMEOUT_S
        self._selector.register(connection, selectors.EVENT_READ)

    def _forget_silent_strangers(self) -> None:
        now = time.monotonic()
        for connection in [stranger for stranger, deadline in self._strangers.items() if deadline < now]:
            log.warning("stranger_silent", job=self._assignment.job_id)
            self._close(connection)

    def _hear(self, connection: socket.socket) -> Iterator[Event]:
        worker_id = self._names.get(connection)
        letter: Letter | None = None
        try:
            letter = receive(connection)
        except BlockingIOError:
            return
        except Malformed as error:
            log.warning("malformed_word", job=self._assignment.job_id, worker=worker_id, why=str(error))
        except OSError:
            pass  # a broken connection is a hang-up
        if worker_id is None:
            if letter is not None and isinstance(letter.word, Hello) and self._admits(letter.word):
                self._admit(connection, letter.word)
                yield Said(letter.word.worker_id, letter.word)
            else:
                log.warning("stranger_refused", job=self._assignment.job_id)
                self._close(connection)
        elif letter is None:
            self._workers.pop(worker_id, None)
            self._close(connection)
            yield Left(worker_id, "hung up")
        else:
            yield Said(worker_id, letter.word, letter.segments)

    def _admits(self, hello: Hello) -> bool:
        mine = self._assignment
        return (
            hmac.compare_digest(hello.token.encode(), mine.token.encode())
            and (hello.job_id, hello.generation) == (mine.job_id, mine.generation)
            and hello.worker_id not in self._workers
            and (self._remote is None or not self._remote.has(hello.worker_id))
        )

    def _admit(self, connection: socket.socket, hello: Hello) -> None:
        del self._strangers[connection]
        self._workers[hello.worker_id] = connection
        self._names[connection] = hello.worker_id

    def _close(self, connection: socket.socket) -> None:
        self._strangers.pop(connection, None)
        self._names.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()


def _sweep_older(assignment: Assignment) -> None:
    """Removes what earlier starts of the job's trainer left, if they were killed on this node."""
    for generation in range(1, assignment.generation):
        shutil.rmtree(job_folder(assignment.service_id, assignment.job_id, generation), ignore_errors=True)
