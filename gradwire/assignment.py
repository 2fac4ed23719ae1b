"""What a process is told when it joins a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

Exchange = Literal["auto", "flight"]
EXCHANGE_NAME = "gradwire-exchange"
"""What a trainer's certificate calls it, wherever it runs."""
NOWHERE = "-"
"""Stands for a node without a name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Identity, specification and places of one start of a job's trainer or of one of its workers."""

    job_id: str
    generation: int
    """The how-manieth start of the job's trainer, from 1; in every key and every manifest."""
    spec_json: str
    """`JobSpec.model_dump_json(by_alias=True)`; all defaults filled in, all files uploaded."""
    storage_url: str
    service_id: str
    """Names the service's shared memory, and the sockets in /dev/shm."""
    token: str
    """Every exchange stream of the job presents it; made anew for each generation."""
    cache_dir: str
    """A folder of this node for caches by content hash."""
    data_root: str | None = None
    """What server paths are relative to; without it they are refused."""
    allow_code: bool = False
    trust: tuple[str, ...] = ()
    """Packages besides Keras whose classes a Keras config may name."""
    threads: int = 1
    workers: int = 0
    """Of a trainer: to how many of its workers it gives orders at first; the others are spares. 0 for all."""
    worker_id: str = ""
    """Of a worker: its name, unique in the job over all generations."""
    exchange: Exchange = "auto"
    """flight: workers of the trainer's node connect as from another one."""
    exchange_address: str = ""
    """Of a worker: where its trainer listens; a folder of this node, or grpc://HOST:PORT, with TLS grpc+tls://."""
    shares_stream: bool = False
    """Of a worker on another node than its trainer: whether all workers of its node use one stream, through a relay."""
    exchange_host: str = ""
    """Of a trainer: where it listens for workers of other nodes; empty where there are none."""
    exchange_certificate: str = ""
    """The trainer's for the exchange with other nodes, as PEM; empty where that is not encrypted."""
    exchange_key: str = ""
    """Of a trainer: the certificate's key, as PEM."""
    node: str = ""
    """Where the process runs."""
    log_format: str = "text"
    """Of the process's own log: text or json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeAddress:
    """Where a trainer listens: in a folder, for workers of its node, and by Flight, if at all, for the others."""

    node: str
    folder: str
    flight: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, [self.node or NOWHERE, self.folder, self.flight]))

    @classmethod
    def parse(cls, text: str) -> Self:
        """What `str` of one gave."""
        node, folder, *rest = text.split(" ")
        return cls(node="" if node == NOWHERE else node, folder=folder, flight=rest[0] if rest else "")

    def seen_from(self, node: str, exchange: Exchange) -> str:
        """What a worker on a node connects to."""
        is_near = node == self.node and exchange == "auto"
        return self.folder if is_near or not self.flight else self.flight
