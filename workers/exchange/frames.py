"""The frames of a Flight stream: words as metadata, memory as record batches of one column of bytes.

A record batch is a view of the memory that is sent; what is received is not aligned, and is copied to its place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import pyarrow as pa

from workers.exchange.messages import Malformed

CHUNK_BYTES = 1 << 22
"""Of memory in one frame. With 103 MB of weights and two workers the exchange took 300 ms by chunks of 256 KiB or of
1 MiB, 230 by 4 MiB, and 224 by 16 MiB, which take four times the memory on their way."""

SCHEMA = pa.schema([("bytes", pa.uint8())])
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]

ROWS_HEAD_BYTES = 16
"""Two int64: the bytes of a row, and how many rows there are."""

_HEAD = struct.Struct("<BHQQ")


class Kind(IntEnum):
    """What a frame carries."""

    WORD = 1
    WEIGHTS = 2
    """Memory of the weights segment. `size`: of the whole."""
    SLOTS = 3
    """Memory of the worker's slots. `size`: of the whole."""
    DOCUMENT = 4
    """What a worker publishes before the word that names it. `size`: of the slots to come."""
    LEFT = 5
    """The worker has hung up, or was hung up on."""
    ROWS = 6
    """Rows of a table in the weights segment, which lies there from `offset` on: their size in bytes, ids and values.
    `size`: of the whole segment."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of memory from `offset` on, a word's datagram, or both: the word that the memory was awaited for."""

    kind: Kind
    offset: int = 0
    size: int = 0
    datagram: bytes = b""
    number: int = 0
    """Of the worker, among those of the stream. Weights are for all."""

    def pack(self) -> bytes:
        return _HEAD.pack(self.kind, self.number, self.offset, self.size) + self.datagram


@dataclass(frozen=True, slots=True)
class Received:
    """A frame and its memory, which lives as long as this does."""

    frame: Frame
    body: memoryview


def read(reader: Any) -> Received | None:
    """The next frame, or None at the end of the stream.

    Raises:
        Malformed: no frame of ours.
        pyarrow.ArrowException: the stream is broken.
    """
    try:
        chunk = reader.read_chunk()
    except StopIteration:
        return None
    head = chunk.app_metadata.to_pybytes() if chunk.app_metadata is not None else b""
    if len(head) < _HEAD.size:
        raise Malformed("a frame without a head")
    kind, number, offset, size = _HEAD.unpack_from(head)
    try:
        frame = Frame(Kind(kind), offset, size, head[_HEAD.size :], number)
    except ValueError as error:
        raise Malformed(str(error)) from error
    return Received(frame, _body(chunk.data))


def write(writer: Any, frame: Frame, body: memoryview | None = None) -> None:
    """Sends a frame; raises pyarrow.ArrowException where the stream is broken."""
    if body is None:
        writer.write_metadata(frame.pack())
        return
    column = pa.Array.from_buffers(pa.uint8(), len(body), [None, pa.py_buffer(body)])
    writer.write_with_metadata(pa.record_batch([column], schema=SCHEMA), frame.pack())


def chunks(
    kind: Kind, memory: memoryview, ranges: Sequence[tuple[int, int]], datagram: bytes, number: int = 0
) -> Iterator[tuple[Frame, memoryview]]:
    """Frames that carry bytes [start, end) of memory; the last has the datagram with it, which saves a frame."""
    pieces = [
        (offset, min(offset + CHUNK_BYTES, end)) for start, end in ranges for offset in range(start, end, CHUNK_BYTES)
    ]
    for index, (offset, until) in enumerate(pieces, start=1):
        said = datagram if index == len(pieces) else b""
        yield Frame(kind, offset, len(memory), said, number), memory[offset:until]


def row_chunks(memory: memoryview, offset: int, row_bytes: int, ids: np.ndarray) -> Iterator[tuple[Frame, memoryview]]:
    """Frames that carry rows of a table that begins at a byte of the weights segment; ids are int64."""
    count = max(CHUNK_BYTES // (row_bytes + 8), 1)
    table = np.frombuffer(memory, np.uint8)[offset:]
    rows = table[: table.size // row_bytes * row_bytes].reshape(-1, row_bytes)
    for start in range(0, ids.size, count):
        part = np.ascontiguousarray(ids[start : start + count])
        body = np.concatenate(
            [np.array([row_bytes, part.size]).view(np.uint8), part.view(np.uint8), rows[part].ravel()]
        )
        yield Frame(Kind.ROWS, offset, len(memory)), body.data


def place_rows(received: Received, memory: memoryview) -> None:
    """Copies rows to where they belong. Raises `Malformed` where they do not fit."""
    body, offset = np.frombuffer(received.body, np.uint8), received.frame.offset
    if body.size < ROWS_HEAD_BYTES or offset > len(memory):
        raise Malformed("rows without a head, or of no table")
    row_bytes, count = (int(number) for number in body[:ROWS_HEAD_BYTES].view(np.int64))
    if row_bytes < 1 or count < 0 or body.size != ROWS_HEAD_BYTES + count * (8 + row_bytes):
        raise Malformed(f"{body.size} bytes of {count} rows")
    ids = body[ROWS_HEAD_BYTES : ROWS_HEAD_BYTES + count * 8].view(np.int64)
    table = np.frombuffer(memory, np.uint8)[offset:]
    rows = table[: table.size // row_bytes * row_bytes].reshape(-1, row_bytes)
    if count and not (ids.min() >= 0 and ids.max() < len(rows)):
        raise Malformed("rows that are not in the segment")
    rows[ids] = body[ROWS_HEAD_BYTES + count * 8 :].reshape(count, row_bytes)


def place(received: Received, memory: memoryview) -> None:
    """Copies a frame's memory to where it belongs. Raises `Malformed` where it does not fit."""
    end = received.frame.offset + len(received.body)
    if end > len(memory):
        raise Malformed(f"bytes up to {end} of {len(memory)}")
    # NumPy lets other threads run while it copies; a memoryview does not.
    np.copyto(np.frombuffer(memory, np.uint8)[received.frame.offset : end], np.frombuffer(received.body, np.uint8))


def _body(batch: Any) -> memoryview:
    if batch is None:
        return memoryview(b"")
    column = batch.column(0)
    if batch.num_columns != 1 or column.type != pa.uint8() or column.null_count:
        raise Malformed("a record batch that is not one column of bytes")
    buffer = column.buffers()[1]
    view = memoryview(buffer).cast("B") if buffer is not None else memoryview(b"")
    return view[column.offset : column.offset + len(column)]
