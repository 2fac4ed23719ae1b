"""The trainer's end of the exchange with workers on other nodes: a Flight server, one stream and two threads for each
worker, or for all workers of a node that share a relay.

The streams' threads put what they hear into a queue and wake the loop, which alone decides; `SharedMemoryServer.poll`
hands it out with everything else.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import structlog
from pyarrow import flight

from gradwire.assignment import Assignment
from service.training.changes import Changes
from service.training.exchange import Event, Left, Said
from service.training.flight_stream import Member, Stream
from workers.exchange import frames
from workers.exchange.dial import ENCRYPTED, PLAIN
from workers.exchange.frames import Frame, Kind, Received
from workers.exchange.messages import Codec, Hello, Malformed, Refused, Summed, Word

MAX_PEERS = 1100
"""Workers of other nodes."""

log = structlog.get_logger()


class _Token(flight.ServerMiddlewareFactory):
    """Refuses calls without the job's token before anything of them is read."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: Any) -> None:
        given = (headers.get("authorization") or [""])[0]
        if not hmac.compare_digest(given.encode(), self._expected):
            log.warning("flight_refused", why="no token, or another job's")
            raise flight.FlightUnauthenticatedError("this is not the job's token")


class FlightServer(flight.FlightServerBase):
    """Listens on a free port of `host`. `poll`, `send` and `drop` belong to the trainer's loop.

    `bell` becomes readable when there are events.
    """

    def __init__(self, assignment: Assignment, host: str, weights: Callable[[], memoryview], changes: Changes) -> None:
        certificate, key = assignment.exchange_certificate, assignment.exchange_key
        self._scheme = ENCRYPTED if certificate else PLAIN
        super().__init__(
            f"{self._scheme}{host}:0",
            middleware={"token": _Token(assignment.token)},
            tls_certificates=[(certificate, key)] if certificate else None,
        )
        self._assignment = assignment
        self._host = host
        self._weights = weights
        self._changes = changes
        self._places: dict[str, tuple[Stream, int]] = {}
        """Each worker's stream, and its number there."""
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.bell, self._ring = socket.socketpair()
        self.bell.setblocking(False)
        self._ring.setblocking(False)

    @property
    def address(self) -> str:
        """Where workers find it."""
        return f"{self._scheme}{self._host}:{self.port}"

    def poll(self) -> list[Event]:
        """What has happened since."""
        try:
            self.bell.recv(4096)
        except BlockingIOError:
            return []
        events = []
        while not self._events.empty():
            events.append(self._events.get())
        return events

    def has(self, worker_id: str) -> bool:
        """Whether the worker is connected here."""
        return worker_id in self._places

    def stream(self, worker_id: str) -> int:
        """Which stream a worker is at, 0 if at none."""
        place = self._places.get(worker_id)
        return id(place[0]) if place is not None else 0

    def send(self, worker_id: str, word: Word) -> None:
        """Has a word sent; a worker that takes none is dropped."""
        place = self._places.get(worker_id)
        if place is not None and not place[0].post(place[1], word):
            self.drop(worker_id, "does not take words")

    def drop(self, worker_id: str, reason: str) -> None:
        """Hangs up on a worker; a poll tells that it left."""
        place = self._places.get(worker_id)
        if place is None or not self._forget(*place):
            return
        stream, number = place
        stream.post(number, Refused(reason=reason))
        stream.post(number, None)
        if not stream.members:
            stream.hang_up()
        self._tell(Left(worker_id, reason))

    def close(self) -> None:
        """Hangs up on everybody."""
        with self._lock:
            streams = {id(stream): stream for stream, _ in self._places.values()}
            self._places.clear()
            for stream in streams.values():
                stream.members.clear()
        for stream in streams.values():
            stream.hang_up()
        # It waits for streams, of which some may hang; they end with the process.
        threading.Thread(target=self.shutdown, name="flight-shutdown", daemon=True).start()
        self.bell.close()
        self._ring.close()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One stream, from its first Hello to its end; the thread is gRPC's."""
        stream = Stream(writer, self._weights, self._changes)
        try:
            self._take(stream, frames.read(reader))
        except Malformed as error:
            log.warning("flight_refused", job=self._assignment.job_id, why=str(error))
            raise flight.FlightUnauthorizedError("this is not the job's trainer") from error
        writer.begin(frames.SCHEMA)
        sender = threading.Thread(target=stream.send_all, name="flight-sender", daemon=True)
        sender.start()
        reason = "hung up"
        try:
            while stream.members and (received := frames.read(reader)) is not None:
                self._take(stream, received)
        except Malformed as error:
            reason = f"sent what is no frame: {error}"
            log.warning("malformed_frame", job=self._assignment.job_id, why=str(error))
        except (pa.ArrowException, OSError):
            pass  # a broken stream is a hang-up
        for number, member in list(stream.members.items()):
            if self._forget(stream, number):
                self._tell(Left(member.worker_id, reason))
        stream.hang_up()
        sender.join()

    def _take(self, stream: Stream, received: Received | None) -> None:
        """A frame of a stream; who is no member says Hello first, or was dropped and does not know it yet."""
        frame = received.frame if received is not None else Frame(Kind.WORD)
        member = stream.members.get(frame.number)
        if member is None:
            word = Codec.decode(frame.datagram) if frame.datagram or not stream.members else None
            if isinstance(word, Hello):
                self._admit(stream, frame.number, word)
            elif not stream.members:
                raise Malformed("garbage")
            elif isinstance(word, Summed):
                self._tell(Said(word.parts[0].worker_id, word))  # the others have to hear that it is refused
        elif frame.kind is Kind.LEFT:
            if self._forget(stream, frame.number):
                self._tell(Left(member.worker_id, "hung up"))
        elif (
            received is not None
            and (said := member.take(received)) is not None
            and (self._is_there(stream, member) or isinstance(said.word, Summed))
        ):
            self._tell(said)

    def _admit(self, stream: Stream, number: int, hello: Hello) -> None:
        mine = self._assignment
        if (hello.job_id, hello.generation) != (mine.job_id, mine.generation):
            raise Malformed("a Hello for another job")
        with self._lock:
            if hello.worker_id in self._places or len(self._places) >= MAX_PEERS:
                raise Malformed("a worker of this name is here already")
            self._places[hello.worker_id] = stream, number
            stream.members[number] = Member(hello.worker_id)
        self._tell(Said(hello.worker_id, hello))

    def _is_there(self, stream: Stream, member: Member) -> bool:
        place = self._places.get(member.worker_id)
        return place is not None and place[0] is stream

    def _forget(self, stream: Stream, number: int) -> bool:
        """Whether it was there."""
        with self._lock:
            member = stream.members.pop(number, None)
            if member is not None:
                del self._places[member.worker_id]
            return member is not None

    def _tell(self, event: Event) -> None:
        self._events.put(event)
        with contextlib.suppress(OSError):  # it rings already, or the job has ended
            self._ring.send(b"x")
