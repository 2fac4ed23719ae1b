"""A relay's stream to the trainer: frames with the numbers of workers, and the weights once for all."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

import pyarrow as pa

from workers.exchange import frames
from workers.exchange.dial import dial
from workers.exchange.frames import Frame, Kind, Received
from workers.exchange.messages import Codec, Malformed, Welcome, Word
from workers.exchange.segment import Segment
from workers.layout import Layout

if TYPE_CHECKING:
    from workers.exchange.relay import Relay, RelayPlace

BROKEN = (pa.ArrowException, OSError)
CLOSE_TIMEOUT_S = 5.0
"""For the trainer to take the last words."""


class Uplink:
    """Sending belongs to the relay's thread. Another one hears the trainer, and tells the relay."""

    def __init__(self, place: RelayPlace, relay: Relay) -> None:
        self._relay = relay
        self._name = place.name
        self._weights: Segment | None = None
        self._client, self._writer, self._reader = dial(place.trainer, place.token, place.certificate)
        self._thread = threading.Thread(target=self._listen, name="uplink", daemon=True)
        self._thread.start()

    def say(self, number: int, word: Word) -> None:
        """Passes a worker's word on."""
        self._write(Frame(Kind.WORD, datagram=Codec.encode(word), number=number))

    def publish(self, number: int, document: bytes, slots_bytes: int) -> None:
        """Passes on what a worker publishes, before the word that names it."""
        self._write(Frame(Kind.DOCUMENT, size=slots_bytes, number=number), memoryview(document))

    def contribute(self, number: int, slots: Segment, layout: Layout, slot: int, word: Word) -> None:
        """Sends what is used of one slot of a worker, with the word that it is done."""
        memory = memoryview(slots.buffer)
        used = layout.used(memory, slot * layout.total_bytes)
        for frame, body in frames.chunks(Kind.SLOTS, memory, used, Codec.encode(word), number):
            self._write(frame, body)

    def leave(self, number: int) -> None:
        """Tells that a worker has hung up."""
        self._write(Frame(Kind.LEFT, number=number))

    def close(self) -> None:
        """Hangs up, after what was sent before."""
        with contextlib.suppress(*BROKEN):
            self._writer.done_writing()
        self._thread.join(CLOSE_TIMEOUT_S)

    def _write(self, frame: Frame, body: memoryview | None = None) -> None:
        with contextlib.suppress(*BROKEN):  # the trainer has gone, which the listening thread notices
            frames.write(self._writer, frame, body)

    def _listen(self) -> None:
        with contextlib.suppress(*BROKEN, Malformed):
            while (received := frames.read(self._reader)) is not None:
                self._take(received)
        self._relay.end()

    def _take(self, received: Received) -> None:
        frame = received.frame
        if frame.kind is Kind.LEFT:
            self._relay.hang_up(frame.number)
            return
        if frame.kind is Kind.WEIGHTS:
            frames.place(received, memoryview(self._room(frame.size).buffer))
        elif frame.kind is Kind.ROWS:
            frames.place_rows(received, memoryview(self._room(frame.size).buffer))
        if frame.datagram:
            word = Codec.decode(frame.datagram)
            segments = [self._room(frame.size)] if isinstance(word, Welcome) else []
            self._relay.order(frame.number, word, segments)

    def _room(self, size_bytes: int) -> Segment:
        if self._weights is None:
            self._weights = Segment.create(f"{self._name}-weights", size_bytes)
        return self._weights
