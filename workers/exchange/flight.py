"""A worker's end of the exchange where the trainer is on another node: one Arrow Flight stream for everything."""

from __future__ import annotations

import json
import threading

import pyarrow as pa

from gradwire.errors import JobFailed
from workers.exchange import frames
from workers.exchange.dial import dial
from workers.exchange.frames import Frame, Kind
from workers.exchange.messages import Codec, Done, Hello, Malformed, Ready, Refused, Welcome, Word
from workers.exchange.segment import Segment
from workers.layout import Layout

BROKEN = (pa.ArrowException, OSError)


class FlightClient:
    """Speaks to the trainer at `address`. Weights arrive before the order that needs them, in a segment of its own.

    Sending is safe from several threads; receiving belongs to one.
    """

    transport = "flight"

    def __init__(self, address: str, hello: Hello, certificate: str = "") -> None:
        self._name = f"gradwire-{hello.worker_id}"
        self._sending = threading.Lock()
        self._segments: dict[str, Segment] = {}
        self._weights: Segment | None = None
        self._slots: Segment | None = None
        self._layout: Layout | None = None
        self._last: Word | None = None
        try:
            self._client, self._writer, self._reader = dial(address, hello.token, certificate)
            self.send(hello)
        except BROKEN as error:
            raise JobFailed(f"no trainer answers at {address}: {error}", code="trainer_gone") from error

    def send(self, word: Word) -> None:
        """Raises OSError when the trainer has gone."""
        try:
            with self._sending:
                datagram = Codec.encode(word)
                if isinstance(word, Done):
                    self._send_slot(word.key.slot, datagram)
                    return
                if isinstance(word, Ready):
                    self._send_document(word)
                frames.write(self._writer, Frame(Kind.WORD, datagram=datagram))
        except pa.ArrowException as error:
            raise ConnectionError(str(error)) from error

    def receive(self) -> Word | None:
        """The next word, or None when the trainer has hung up."""
        try:
            while (received := frames.read(self._reader)) is not None and received.frame.kind is not Kind.LEFT:
                if received.frame.kind is Kind.WEIGHTS:
                    frames.place(received, memoryview(self._room(received.frame.size).buffer))
                elif received.frame.kind is Kind.ROWS:
                    frames.place_rows(received, memoryview(self._room(received.frame.size).buffer))
                if received.frame.datagram:
                    self._last = Codec.decode(received.frame.datagram)
                    if isinstance(self._last, Welcome):
                        self._segments[self._last.segment] = self._room(received.frame.size)
                    return self._last
        except (*BROKEN, Malformed):
            return None
        return None

    def farewell(self) -> str:
        """Why the trainer has hung up, if it said so; to be asked when it has."""
        return self._last.reason if isinstance(self._last, Refused) else ""

    def attach(self, name: str) -> Segment:
        """The segment that the word with this name told of."""
        return self._segments[name]

    def create(self, name: str, size_bytes: int) -> Segment:
        """Memory of this worker's own, which travels as words tell of it; nothing is reserved yet."""
        made = self._segments[name] = Segment.create(f"{self._name}-{name}", size_bytes, reserve=False)
        return made

    def publish(self, name: str, document: bytes) -> None:
        """A document of any length, which travels before the word that names it."""
        self.create(name, len(document)).buffer[:] = document

    def close(self) -> None:
        # The stream may hang in a call of another thread, which the end of the client ends.
        self._client.close()

    def _room(self, size_bytes: int) -> Segment:
        if self._weights is None:
            self._weights = Segment.create(f"{self._name}-weights", size_bytes)
        return self._weights

    def _send_document(self, ready: Ready) -> None:
        self._slots = self._segments[ready.segment]
        document = memoryview(self._segments[ready.document].buffer)
        self._layout = Layout.from_json(json.loads(bytes(document))["contribution"])
        frames.write(self._writer, Frame(Kind.DOCUMENT, size=len(self._slots.buffer)), document)

    def _send_slot(self, slot: int, datagram: bytes) -> None:
        assert self._slots is not None and self._layout is not None  # orders come after Ready
        memory = memoryview(self._slots.buffer)
        used = self._layout.used(memory, slot * self._layout.total_bytes)
        for frame, body in frames.chunks(Kind.SLOTS, memory, used, datagram):
            frames.write(self._writer, frame, body)
