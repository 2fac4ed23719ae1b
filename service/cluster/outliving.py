"""Processes that outlive the coordinator that started them, and are found by the next one."""

from __future__ import annotations

import os
import secrets
import sys
import threading
import time
from dataclasses import dataclass

import ray
import structlog

from gradwire.assignment import Assignment
from gradwire.progress import Outcome, Progress
from service.cluster.share import Share
from service.identity import Identity
from service.process import Process
from service.segments import sweep_segments

LEASE_S = 120.0
"""A process that nobody has a use for, and whose coordinator has not renewed its lease for so long, ends itself."""
LAST_WORDS_LEASE_S = 3600.0
"""A trainer whose run has ended waits longer, for a coordinator that wants to know how it ended."""
RENEW_S = 20.0
ABSENT_S = 60.0
"""A coordinator that has not renewed for so long is away: the trainer gives back what its dead workers held."""
WATCH_S = 5.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What a process tells a coordinator that did not start it."""

    identity: Identity
    node: str
    role: str = ""
    """"module:Class", empty while it is idle."""
    assignment: Assignment | None = None
    address: str | None = None
    """Where the role listens, or empty; None until it has started."""
    outcome: Outcome | None = None
    share: str = ""
    """The name of its share, if it has one."""


class OutlivingProcess(Process):
    """As `Process`; it works for its job without the coordinator, and ends when it has no work and nobody renews."""

    def __init__(self, *, uses_gpu: bool = False) -> None:
        super().__init__(uses_gpu=uses_gpu)
        self._renewed_s = time.monotonic()
        threading.Thread(target=self._watch, name="lease", daemon=True).start()

    def renew(self) -> None:
        """The coordinator is there."""
        self._renewed_s = time.monotonic()

    def start(self, role: str, arguments: Assignment) -> str:
        """See `Process.start`; what was killed on this node before has left its sockets, and they go now."""
        sweep_segments(arguments.service_id)
        return super().start(role, arguments)

    def describe(self) -> Description:
        """What it is and does."""
        self.renew()
        role, assignment = self._task or ("", None)
        return Description(
            identity=Identity.own(),
            node=str(ray.get_runtime_context().get_node_id()),
            role=role,
            assignment=assignment,
            address=self.address() if self._body is not None else None,
            outcome=self._outcome,
            share=share_name(assignment) if assignment is not None and assignment.worker_id else "",
        )

    def _watch(self) -> None:
        while not self._is_abandoned():
            time.sleep(WATCH_S)
            try:
                self._give_back()
            except Exception:  # Ray's books are away too, and perhaps for good; the lease still runs
                log.exception("share.not_released")
        self._leave()

    def _give_back(self) -> None:
        """A trainer without a coordinator: releases the shares of its dead workers, which nobody else knows of."""
        is_trainer = self._body is not None and self._task is not None and not self._task[1].worker_id
        if not is_trainer or time.monotonic() - self._renewed_s < ABSENT_S:
            return
        progress = self.call("progress", sys.maxsize)
        assert isinstance(progress, Progress) and self._task is not None
        for worker in progress.snapshot.workers:
            name = f"{share_prefix(self._task[1].service_id)}{worker.id}"
            share = Share.named(name) if worker.state == "DEAD" else None
            if share is not None:
                log.info("share.released", share=name)
                share.release()

    def _is_abandoned(self) -> bool:
        if self._task is not None and not self._ended.is_set():
            return False
        is_trainer = self._task is not None and not self._task[1].worker_id
        return time.monotonic() - self._renewed_s > (LAST_WORDS_LEASE_S if is_trainer else LEASE_S)

    def _leave(self) -> None:
        if self._task is not None and self._task[1].worker_id:
            share = Share.named(share_name(self._task[1]))
            if share is not None:
                share.release()
        os._exit(0)


def process_prefix(service_id: str) -> str:
    """What the names of all processes of a service begin with."""
    return f"gradwire-{service_id}-process-"


def process_name(service_id: str) -> str:
    """A name for a new process; it has no job yet."""
    return f"{process_prefix(service_id)}{secrets.token_hex(6)}"


def share_prefix(service_id: str) -> str:
    """What the names of all shares of a service begin with."""
    return f"gradwire-{service_id}-share-"


def share_name(assignment: Assignment) -> str:
    """The name of a worker's share: its id has those of the job and of the trainer's start."""
    return f"{share_prefix(assignment.service_id)}{assignment.worker_id}"
