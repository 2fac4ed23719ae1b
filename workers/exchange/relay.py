"""A relay: the workers of one node behind one stream to their trainer, which is on another.

The weights arrive once, in memory that the node's workers share; contributions that are siblings in the summation tree
cross the network as their sum. To workers it is what the trainer is on its own node: a socket for words, and segments
whose descriptors travel with them. It runs in a process of its own, so that a worker's death is that worker's alone,
and ends when the last worker, or the trainer, has gone.
"""

from __future__ import annotations

import hmac
import itertools
import json
import mmap
import os
import selectors
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from workers.denormals import flush_denormals
from workers.exchange.combiner import Action, Add, Combiner, Send
from workers.exchange.messages import Done, Hello, Malformed, Ready, Summed, Word, Work
from workers.exchange.post import Letter, receive, send
from workers.exchange.segment import Segment
from workers.layout import Layout
from workers.slices import SlicesPlace

if TYPE_CHECKING:
    from workers.exchange.uplink import Uplink

FIRST_WORKER_TIMEOUT_S = 20.0
POLL_S = 1.0
MAX_WORKERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayPlace:
    """Which relay: of a node's workers for one start of a job's trainer."""

    name: str
    """Of its socket, which is in no folder and goes with its process."""
    trainer: str
    """Where the trainer listens, grpc://HOST:PORT or grpc+tls://HOST:PORT."""
    token: str
    certificate: str
    """The trainer's, as PEM."""
    job_id: str
    generation: int

    @property
    def socket(self) -> str:
        return f"\0{self.name}"


@dataclass(slots=True)
class Local:
    """A worker of this node; `slots` are its contributions once it is ready."""

    connection: socket.socket
    number: int
    worker_id: str
    slots: Segment | None = None
    layout: Layout | None = None

    def add(self, slot: int, other: Local, other_slot: int) -> None:
        """Adds another's contribution to one of this worker's. Raises ValueError where there is no such slot."""
        for total, more in zip(self._sections(slot), other._sections(other_slot), strict=True):
            np.add(total, more, out=total)
        for place, added in zip(self._places(slot), other._places(other_slot), strict=True):
            place.add(added)

    def _sections(self, slot: int) -> list[np.ndarray]:
        layout, buffer = self._memory()
        return layout.flat(buffer, slot * layout.total_bytes)

    def _places(self, slot: int) -> list[SlicesPlace]:
        layout, buffer = self._memory()
        return layout.places(buffer, slot * layout.total_bytes)

    def _memory(self) -> tuple[Layout, mmap.mmap]:
        if self.slots is None or self.layout is None:
            raise ValueError(f"worker {self.worker_id} is not ready")
        return self.layout, self.slots.buffer


class Relay:
    """Listens to workers on one thread, which alone sends to the trainer; the uplink's thread hears the trainer."""

    def __init__(self, listener: socket.socket, place: RelayPlace) -> None:
        self._place = place
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._strangers: set[socket.socket] = set()
        self._numbers = itertools.count()
        self._lock = Lock()
        self._locals: dict[int, Local] = {}
        self._combiner = Combiner()
        self._uplink: Uplink | None = None
        self._is_over = False

    def serve(self) -> None:
        """Returns when the last worker, or the trainer, has gone."""
        flush_denormals()
        deadline = time.monotonic() + FIRST_WORKER_TIMEOUT_S
        while not self._is_over and (self._locals or (self._uplink is None and time.monotonic() < deadline)):
            for key, _ in self._selector.select(POLL_S):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._hear(key.fileobj)  # type: ignore[arg-type]  # only sockets are registered
        self._listener.close()
        for local in list(self._locals.values()):
            local.connection.close()
        if self._uplink is not None:
            self._uplink.close()

    def order(self, number: int, word: Word, segments: Sequence[Segment]) -> None:
        """The trainer has a word for a worker; called by the uplink's thread."""
        with self._lock:
            local = self._locals.get(number)
            if local is None:
                return
            if isinstance(word, Work):
                self._combiner.ordered(local.worker_id, word.key, word.shards, may_wait=word.may_wait)
        try:
            send(local.connection, word, segments)
        except OSError:  # gone, or its queue is full because it reads nothing
            self.hang_up(number)

    def hang_up(self, number: int) -> None:
        """The trainer has let a worker go; what it was told before it still hears."""
        with self._lock:
            local = self._locals.get(number)
        if local is not None:
            _shut(local.connection)

    def end(self) -> None:
        """The trainer has gone; called by the uplink's thread."""
        self._is_over = True
        with self._lock:
            connections = [local.connection for local in self._locals.values()]
        for connection in connections:
            _shut(connection)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        if len(self._strangers) + len(self._locals) >= MAX_WORKERS:
            connection.close()
            return
        connection.setblocking(False)
        self._strangers.add(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _hear(self, connection: socket.socket) -> None:
        local = next((local for local in self._locals.values() if local.connection is connection), None)
        letter: Letter | None = None
        try:
            letter = receive(connection)
        except BlockingIOError:
            return
        except (OSError, Malformed):
            pass  # a broken connection is a hang-up
        if local is not None and letter is not None:
            self._relay(local, letter)
        elif local is not None:
            self._lose(local)
        elif letter is not None and isinstance(letter.word, Hello) and self._admits(letter.word):
            self._strangers.discard(connection)
            self._welcome(Local(connection, next(self._numbers), letter.word.worker_id), letter.word)
        else:
            self._strangers.discard(connection)
            self._close(connection)

    def _admits(self, hello: Hello) -> bool:
        mine = self._place
        return hmac.compare_digest(hello.token.encode(), mine.token.encode()) and (
            (hello.job_id, hello.generation) == (mine.job_id, mine.generation)
        )

    def _welcome(self, local: Local, hello: Hello) -> None:
        with self._lock:
            self._locals[local.number] = local
        if self._uplink is None:
            # pyarrow, after the fork.
            from workers.exchange.uplink import Uplink  # noqa: PLC0415

            self._uplink = Uplink(self._place, self)
        self._uplink.say(local.number, hello)

    def _relay(self, local: Local, letter: Letter) -> None:
        assert self._uplink is not None  # who is local has been welcomed
        word = letter.word
        if isinstance(word, Ready):
            document = bytes(letter.segments[word.document].buffer)
            local.slots = letter.segments[word.segment]
            local.layout = Layout.from_json(json.loads(document)["contribution"])
            self._uplink.publish(local.number, document, len(local.slots.buffer))
        if isinstance(word, Done):
            with self._lock:
                actions = self._combiner.done(local.worker_id, word)
            self._act(actions)
        else:
            self._uplink.say(local.number, word)

    def _lose(self, local: Local) -> None:
        """What it has finished counts: it lies in memory that this process has mapped as well."""
        assert self._uplink is not None  # likewise
        self._close(local.connection)
        with self._lock:
            actions = self._combiner.left(local.worker_id)
        self._act(actions)
        with self._lock:
            del self._locals[local.number]
        self._uplink.leave(local.number)

    def _act(self, actions: Sequence[Action]) -> None:
        assert self._uplink is not None  # likewise
        for action in actions:
            match action:
                case Add(into=into, other=other):
                    self._named(into.worker_id).add(into.slot, self._named(other.worker_id), other.slot)
                case Send(node=node, place=place, parts=parts):
                    word = parts[0].done if len(parts) == 1 else Summed(node, place.slot, parts)
                    local = self._named(place.worker_id)
                    assert local.slots is not None and local.layout is not None  # it has had orders
                    self._uplink.contribute(local.number, local.slots, local.layout, place.slot, word)

    def _named(self, worker_id: str) -> Local:
        return next(local for local in self._locals.values() if local.worker_id == worker_id)

    def _close(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)
        connection.close()


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is closed already


def main() -> None:
    """Listens, and returns in the process that was started; what goes on is nobody's child."""
    place = RelayPlace(**json.load(sys.stdin))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(place.socket)
    except OSError:
        return  # another worker's was faster
    listener.listen(MAX_WORKERS)
    if os.fork() == 0:
        try:
            Relay(listener, place).serve()
        finally:
            os._exit(0)


if __name__ == "__main__":
    main()
