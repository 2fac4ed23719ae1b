"""The words between a trainer and its workers: one datagram each, a type byte and a body.

Words of every step are packed structures, little-endian; words of a worker's life are JSON.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from workers.tree import Node

MAX_BYTES = 64 * 1024
"""No datagram is longer; longer documents lie in a segment."""

MEASURE = "measure"

_KEY = struct.Struct("<IHHIIH")
_TREE = struct.Struct("<H?")
_TIMES = struct.Struct("<ddd")
_SUM = struct.Struct("<HHHB")


class Malformed(Exception):
    """A datagram that is none of ours."""


@dataclass(frozen=True, slots=True)
class Key:
    """What a contribution belongs to. A late one differs in `step` or `attempt` and is refused."""

    step: int
    node: Node
    attempt: int
    """Counts assignments within a generation, so that none is ever used twice."""
    version: int
    """The step whose weights were read."""
    slot: int
    """The part of the worker's own segment that holds the contribution."""

    def pack(self) -> bytes:
        return _KEY.pack(self.step, self.node.lo, self.node.hi, self.attempt, self.version, self.slot)

    @classmethod
    def unpack(cls, body: bytes) -> Key:
        step, lo, hi, attempt, version, slot = _KEY.unpack_from(body)
        if lo >= hi:
            raise Malformed(f"a node of shards [{lo}, {hi})")
        return cls(step, Node(lo, hi), attempt, version, slot)


@dataclass(frozen=True, slots=True)
class Work:
    """Trainer to worker: compute a node. `denominators`: of the whole batch, for the heads that need them exchanged."""

    key: Key
    denominators: tuple[float, ...] = ()
    loss_scale: float = 1.0
    """What the loss is multiplied by for the backward pass; the same for all nodes of a step."""
    shards: int = 1
    """How many the step has, for a relay: they make the summation tree."""
    may_wait: bool = False
    """Likewise: whether the trainer has no further order to give, so that nothing is lost if the contribution waits."""

    def body(self) -> bytes:
        numbers = struct.pack(f"<{1 + len(self.denominators)}d", self.loss_scale, *self.denominators)
        return self.key.pack() + _TREE.pack(self.shards, self.may_wait) + numbers

    @classmethod
    def parse(cls, body: bytes) -> Work:
        start = _KEY.size + _TREE.size
        shards, may_wait = _TREE.unpack_from(body, _KEY.size)
        count = (len(body) - start) // 8
        scale, *denominators = struct.unpack_from(f"<{count}d", body, start)
        return cls(Key.unpack(body), tuple(denominators), scale, shards, may_wait)


@dataclass(frozen=True, slots=True)
class Done:
    """Worker to trainer: the node's sum lies in its slot. Seconds waited for data, computing, and copying."""

    key: Key
    data_s: float
    compute_s: float
    copy_s: float

    def body(self) -> bytes:
        return self.key.pack() + _TIMES.pack(self.data_s, self.compute_s, self.copy_s)

    @classmethod
    def parse(cls, body: bytes) -> Done:
        return cls(Key.unpack(body), *_TIMES.unpack_from(body, _KEY.size))


@dataclass(frozen=True, slots=True)
class Part:
    """What one worker has to do with a sum: its word that its node is done."""

    worker_id: str
    done: Done


@dataclass(frozen=True, slots=True)
class Summed:
    """Relay to trainer: the nodes of several workers are done, and their sum lies in a slot of the one who says so."""

    node: Node
    slot: int
    parts: tuple[Part, ...]

    def body(self) -> bytes:
        names = [part.worker_id.encode() for part in self.parts]
        parts = [bytes([len(name)]) + name + part.done.body() for name, part in zip(names, self.parts, strict=True)]
        return _SUM.pack(self.node.lo, self.node.hi, self.slot, len(parts)) + b"".join(parts)

    @classmethod
    def parse(cls, body: bytes) -> Summed:
        lo, hi, slot, count = _SUM.unpack_from(body)
        at, parts = _SUM.size, []
        for _ in range(count):
            start = at + 1 + body[at]
            name, at = body[at + 1 : start].decode(), start + _KEY.size + _TIMES.size
            parts.append(Part(name, Done.parse(body[start:at])))
        if sorted(shard for part in parts for shard in part.done.key.node.shards()) != list(range(lo, hi)):
            raise Malformed(f"a sum over [{lo}, {hi}) of other nodes")
        return cls(Node(lo, hi), slot, tuple(parts))


@dataclass(frozen=True, slots=True)
class Count:
    """Trainer to worker: what are the denominators of these shards?"""

    key: Key

    def body(self) -> bytes:
        return self.key.pack()

    @classmethod
    def parse(cls, body: bytes) -> Count:
        return cls(Key.unpack(body))


@dataclass(frozen=True, slots=True)
class Counted:
    """Worker to trainer: shard by shard of the node, the denominators of the heads that need them exchanged."""

    key: Key
    denominators: tuple[float, ...]

    def body(self) -> bytes:
        return self.key.pack() + struct.pack(f"<{len(self.denominators)}d", *self.denominators)

    @classmethod
    def parse(cls, body: bytes) -> Counted:
        count = (len(body) - _KEY.size) // 8
        return cls(Key.unpack(body), struct.unpack_from(f"<{count}d", body, _KEY.size))


class _Document:
    """A word as JSON."""

    __slots__ = ()

    def body(self) -> bytes:
        return json.dumps(asdict(self)).encode()  # type: ignore[call-overload]  # all subclasses are dataclasses

    @classmethod
    def parse(cls, body: bytes) -> Any:
        document = json.loads(body)
        known = {field.name for field in fields(cls)}  # type: ignore[arg-type]  # likewise
        return cls(**{name: value for name, value in document.items() if name in known})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(_Document):
    """Worker to trainer: who I am. Nothing else is heard before it."""

    token: str
    job_id: str
    generation: int
    worker_id: str
    pid: int
    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome(_Document):
    """Trainer to worker: the weights lie in the segment that comes along, in the layout with this digest."""

    segment: str
    layout_digest: str
    xla: str = "off"
    """For jobs that leave it open, whether to compile by XLA: on, off, or `MEASURE`, which one worker does for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready(_Document):
    """Worker to trainer: programs are traced and variables bound. The descriptors of both segments come along."""

    segment: str
    """The worker's slots: as many as the job has shards, each of the contribution's size."""
    document: str
    """What the trainer has to know of the program, as JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed(_Document):
    """Worker to trainer: a shard, or the worker itself (shard -1), could not be computed."""

    code: str
    message: str
    details: str = ""
    step: int = 0
    shard: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat(_Document):
    """Worker to trainer, from a thread that does not compute: alive, and in this phase."""

    phase: str
    traces: int = 0
    """How often its programs have been traced so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(_Document):
    """Trainer to worker: your contribution came too late, or you do not belong here."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismiss(_Document):
    """Trainer to worker: the job needs you no more."""

    reason: str = ""


Word = Work | Done | Count | Counted | Hello | Welcome | Ready | Failed | Heartbeat | Refused | Dismiss | Summed


def attached(word: Word) -> tuple[str, ...]:
    """The names of the segments whose descriptors travel with a word, in this order."""
    match word:
        case Welcome(segment=segment):
            return (segment,)
        case Ready(segment=segment, document=document):
            return (segment, document)
        case _:
            return ()


class Codec:
    """Words to datagrams and back."""

    kinds: ClassVar[tuple[type[Any], ...]] = (
        Work, Done, Count, Counted, Hello, Welcome, Ready, Failed, Heartbeat, Refused, Dismiss, Summed,
    )  # fmt: skip
    numbers: ClassVar[dict[type[Any], int]] = {kind: number for number, kind in enumerate(kinds, start=1)}

    @classmethod
    def encode(cls, word: Word) -> bytes:
        return bytes([cls.numbers[type(word)]]) + word.body()

    @classmethod
    def decode(cls, datagram: bytes) -> Word:
        """Raises `Malformed` for anything that is no word."""
        if not datagram or not 1 <= datagram[0] <= len(cls.kinds):
            raise Malformed("no such word")
        try:
            word: Word = cls.kinds[datagram[0] - 1].parse(datagram[1:])
        except (struct.error, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise Malformed(str(error)) from error
        return word
