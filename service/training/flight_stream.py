"""One stream from another node: a worker's, or a relay's with all workers of its node."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from service.training.changes import Changes
from service.training.exchange import Said
from workers.exchange import frames
from workers.exchange.frames import Frame, Kind, Received
from workers.exchange.messages import Codec, Count, Hello, Malformed, Ready, Welcome, Word, Work
from workers.exchange.segment import Segment

MAX_WAITING = 64
"""Words that a worker has not taken yet; with more it hangs, and is dropped."""
MAX_DOCUMENT_BYTES = 64 << 20


class Member:
    """A worker at the other end; the stream's reading thread owns it."""

    def __init__(self, worker_id: str) -> None:
        self.worker_id = worker_id
        self._document: Segment | None = None
        self._slots: Segment | None = None

    def take(self, received: Received) -> Said | None:
        """Puts memory where it belongs; returns the word that a frame is.

        Raises:
            Malformed: a frame that does not fit what came before.
        """
        match received.frame.kind:
            case Kind.WORD:
                return self._said(Codec.decode(received.frame.datagram))
            case Kind.DOCUMENT if self._slots is None and 0 < len(received.body) <= MAX_DOCUMENT_BYTES:
                name = f"gradwire-{self.worker_id}"
                self._document = Segment.create(f"{name}-ready", len(received.body))
                self._document.buffer[:] = bytes(received.body)
                # Nothing is taken before it is filled, whatever size it claims to have.
                self._slots = Segment.create(f"{name}-slots", received.frame.size, reserve=False)
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
            return Said(self.worker_id, word)
        if self._document is None or self._slots is None:
            raise Malformed("Ready before its document")
        segments = {word.document: self._document, word.segment: self._slots}
        return Said(self.worker_id, word, segments)


class Stream:
    """Its sending thread owns the writer; `members`, by their numbers, are the server's, under its lock."""

    def __init__(self, writer: Any, weights: Callable[[], memoryview], changes: Changes) -> None:
        self.members: dict[int, Member] = {}
        self._writer = writer
        self._weights = weights
        self._changes = changes
        self._waiting: queue.SimpleQueue[tuple[int, Word | None] | None] = queue.SimpleQueue()
        self._version = -1

    def post(self, number: int, word: Word | None) -> bool:
        """Has a word sent to a member, None for a hang-up; False where nobody takes any more."""
        if self._waiting.qsize() >= MAX_WAITING * max(len(self.members), 1):
            return False
        self._waiting.put((number, word))
        return True

    def hang_up(self) -> None:
        """Ends the sending thread, after what was posted before if that is taken."""
        self._waiting.put(None)

    def send_all(self) -> None:
        """The sending thread: words in order, and before an order the weights that it reads, once for each version."""
        try:
            while (item := self._waiting.get()) is not None:
                self._send(*item)
        except (pa.ArrowException, OSError):
            return  # the reading thread tells that the workers have left

    def _send(self, number: int, word: Word | None) -> None:
        if word is None:
            frames.write(self._writer, Frame(Kind.LEFT, number=number))
            return
        datagram = Codec.encode(word)
        if isinstance(word, Work | Count) and word.key.version != self._version:
            self._send_weights(word.key.version, datagram, number)
            return
        size = len(self._weights()) if isinstance(word, Welcome) else 0
        frames.write(self._writer, Frame(Kind.WORD, size=size, datagram=datagram, number=number))

    def _send_weights(self, version: int, datagram: bytes, number: int) -> None:
        """What has changed since the version that is there, and then a word."""
        news, memory = self._changes.since(self._version, version), self._weights()
        self._version = version
        for extent, ids in news.rows if news is not None else ():
            for frame, body in frames.row_chunks(memory, extent.offset, extent.row_bytes, ids):
                frames.write(self._writer, frame, body)
        ranges = news.ranges if news is not None else [(0, len(memory))]
        for frame, body in frames.chunks(Kind.WEIGHTS, memory, ranges, datagram, number):
            frames.write(self._writer, frame, body)
        if not ranges:
            frames.write(self._writer, Frame(Kind.WORD, datagram=datagram, number=number))
