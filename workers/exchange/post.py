"""Words through a Unix socket, with the descriptors of the segments that they name."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workers.exchange.messages import MAX_BYTES, Codec, Malformed, Word, attached
from workers.exchange.segment import NotASegment, Segment

MAX_ATTACHED = 2
"""No word has more; the kernel closes what else is sent along."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A word, and the segments that came with it, by name."""

    word: Word
    segments: Mapping[str, Segment] = field(default_factory=dict)


def send(connection: socket.socket, word: Word, segments: Sequence[Segment]) -> None:
    """Raises OSError where nobody takes it."""
    datagram = Codec.encode(word)
    if segments:
        socket.send_fds(connection, [datagram], [segment.descriptor for segment in segments])
    else:
        connection.send(datagram)


def receive(connection: socket.socket) -> Letter | None:
    """The next word, or None where the other end has hung up.

    Raises:
        OSError: the connection is broken, or has nothing where it does not block.
        Malformed: no word of ours, or not with what it needs.
    """
    datagram, descriptors, _, _ = socket.recv_fds(connection, MAX_BYTES, MAX_ATTACHED, socket.MSG_CMSG_CLOEXEC)
    try:
        if not datagram:
            return None
        word = Codec.decode(datagram)
        names = attached(word)
        if len(names) != len(descriptors):
            raise Malformed(f"{type(word).__name__} with {len(descriptors)} segments")
        return Letter(word, _attach(names, descriptors)) if names else Letter(word)
    finally:
        for descriptor in descriptors:  # what a segment has taken is no longer among them
            os.close(descriptor)


def _attach(names: Sequence[str], descriptors: list[int]) -> dict[str, Segment]:
    try:
        return {name: Segment.attach(descriptors.pop(0)) for name in names}
    except NotASegment as error:
        raise Malformed(str(error)) from error
