"""The trainer's end of the exchange with workers on other nodes: a Flight server, one stream and two threads a worker.

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
from service.training.exchange import Event, Left, Said
from workers.exchange import frames
from workers.exchange.frames import Frame, Kind, Received
from workers.exchange.messages import Codec, Count, Hello, Malformed, Ready, Refused, Welcome, Word, Work
from workers.exchange.segment import Segment

MAX_WAITING = 64
"""Words that a worker has not taken yet; with more it hangs, and is dropped."""
MAX_PEERS = 1100
MAX_DOCUMENT_BYTES = 64 << 20

log = structlog.get_logger()


class Peer:
    """A worker at the other end of a stream. Its sending thread owns the writer, its reading thread the rest."""

    def __init__(self, hello: Hello, writer: Any, weights: Callable[[], memoryview], name: str) -> None:
        self.hello = hello
        self._writer = writer
        self._weights = weights
        self._name = name
        self._waiting: queue.Queue[Word | None] = queue.Queue(MAX_WAITING)
        self._version = -1
        self._document: Segment | None = None
        self._slots: Segment | None = None

    def post(self, word: Word) -> bool:
        """Has a word sent; False where the worker does not take any more."""
        try:
            self._waiting.put_nowait(word)
        except queue.Full:
            return False
        return True

    def hang_up(self) -> None:
        """Ends the sending thread, after what was posted before if that is taken."""
        try:
            self._waiting.put_nowait(None)
        except queue.Full:
            self._waiting.queue.clear()
            self._waiting.put_nowait(None)

    def send_all(self) -> None:
        """The sending thread: words in order, and before an order the weights that it reads, once for each version."""
        try:
            while (word := self._waiting.get()) is not None:
                datagram = Codec.encode(word)
                if isinstance(word, Work | Count) and word.key.version != self._version:
                    self._version = word.key.version
                    memory = self._weights()
                    for frame, body in frames.chunks(Kind.WEIGHTS, memory, 0, len(memory), datagram):
                        frames.write(self._writer, frame, body)
                    continue
                size = len(self._weights()) if isinstance(word, Welcome) else 0
                frames.write(self._writer, Frame(Kind.WORD, size=size, datagram=datagram))
        except (pa.ArrowException, OSError):
            return  # the reading thread tells that the worker has left

    def take(self, received: Received) -> Said | None:
        """The reading thread: puts memory where it belongs; returns the word that a frame is.

        Raises:
            Malformed: a frame that does not fit what came before.
        """
        match received.frame.kind:
            case Kind.WORD:
                return self._said(Codec.decode(received.frame.datagram))
            case Kind.DOCUMENT if self._slots is None and 0 < len(received.body) <= MAX_DOCUMENT_BYTES:
                self._document = Segment.create(f"{self._name}-ready", len(received.body))
                self._document.buffer[:] = bytes(received.body)
                # Nothing is taken before it is filled, whatever size it claims to have.
                self._slots = Segment.create(f"{self._name}-slots", received.frame.size, reserve=False)
            case Kind.SLOTS if self._slots is not None:
                frames.place(received, memoryview(self._slots.buffer))
                return self._said(Codec.decode(received.frame.datagram)) if received.frame.datagram else None
            case kind:
                raise Malformed(f"{kind.name} is not expected")
        return None

    def _said(self, word: Word) -> Said:
        if isinstance(word, Hello):
            raise Malformed("a second Hello")
        if not isinstance(word, Ready):
            return Said(self.hello.worker_id, word)
        if self._document is None or self._slots is None:
            raise Malformed("Ready before its document")
        segments = {word.document: self._document, word.segment: self._slots}
        return Said(self.hello.worker_id, word, segments)


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

    def __init__(self, assignment: Assignment, host: str, weights: Callable[[], memoryview]) -> None:
        super().__init__(f"grpc://{host}:0", middleware={"token": _Token(assignment.token)})
        self._assignment = assignment
        self._host = host
        self._weights = weights
        self._peers: dict[str, Peer] = {}
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.bell, self._ring = socket.socketpair()
        self.bell.setblocking(False)
        self._ring.setblocking(False)

    @property
    def address(self) -> str:
        """Where workers find it."""
        return f"grpc://{self._host}:{self.port}"

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
        return worker_id in self._peers

    def send(self, worker_id: str, word: Word) -> None:
        """Has a word sent; a worker that takes none is dropped."""
        peer = self._peers.get(worker_id)
        if peer is not None and not peer.post(word):
            self.drop(worker_id, "does not take words")

    def drop(self, worker_id: str, reason: str) -> None:
        """Hangs up on a worker; a poll tells that it left."""
        with self._lock:
            peer = self._peers.pop(worker_id, None)
        if peer is not None:
            peer.post(Refused(reason=reason))
            peer.hang_up()
            self._tell(Left(worker_id, reason))

    def close(self) -> None:
        """Hangs up on everybody."""
        with self._lock:
            peers, self._peers = list(self._peers.values()), {}
        for peer in peers:
            peer.hang_up()
        # It waits for streams, of which some may hang; they end with the process.
        threading.Thread(target=self.shutdown, name="flight-shutdown", daemon=True).start()
        self.bell.close()
        self._ring.close()

    def do_exchange(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        """One worker's stream, from its Hello to its end; the thread is gRPC's."""
        peer = self._admit(reader, writer)
        worker_id = peer.hello.worker_id
        sender = threading.Thread(target=peer.send_all, name=f"flight-{worker_id}", daemon=True)
        sender.start()
        reason = "hung up"
        try:
            while self._peers.get(worker_id) is peer and (received := frames.read(reader)) is not None:
                said = peer.take(received)
                if said is not None and self._peers.get(worker_id) is peer:
                    self._tell(said)
        except Malformed as error:
            reason = f"sent what is no frame: {error}"
            log.warning("malformed_frame", job=self._assignment.job_id, worker=worker_id, why=str(error))
        except (pa.ArrowException, OSError):
            pass  # a broken stream is a hang-up
        with self._lock:
            has_left = self._peers.get(worker_id) is peer and self._peers.pop(worker_id) is not None
        if has_left:
            self._tell(Left(worker_id, reason))
        peer.hang_up()
        sender.join()

    def _admit(self, reader: Any, writer: Any) -> Peer:
        mine = self._assignment
        try:
            received = frames.read(reader)
            hello = Codec.decode(received.frame.datagram) if received is not None else None
        except Malformed:
            hello = None
        if not isinstance(hello, Hello) or (hello.job_id, hello.generation) != (mine.job_id, mine.generation):
            log.warning("flight_refused", job=mine.job_id, why="garbage, or for another job")
            raise flight.FlightUnauthorizedError("this is not the job's trainer")
        writer.begin(frames.SCHEMA)
        peer = Peer(hello, writer, self._weights, f"gradwire-{hello.worker_id}")
        with self._lock:
            if hello.worker_id in self._peers or len(self._peers) >= MAX_PEERS:
                raise flight.FlightUnauthorizedError("a worker of this name is here already")
            self._peers[hello.worker_id] = peer
        self._tell(Said(hello.worker_id, hello))
        return peer

    def _tell(self, event: Event) -> None:
        self._events.put(event)
        with contextlib.suppress(OSError):  # it rings already, or the job has ended
            self._ring.send(b"x")
