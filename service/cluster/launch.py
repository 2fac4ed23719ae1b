"""A process and its job: starting, at work or ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradwire.assignment import Assignment
from gradwire.progress import Outcome
from service.cluster.contact import Contact
from service.cluster.pool import Member
from service.cluster.share import Share
from service.engine import Death


@dataclass(slots=True, eq=False)
class Launch:
    """What is known of one launch. Only the engine's thread writes; handles read."""

    role: str
    assignment: Assignment
    node: str | None = None
    cpus: float = 0.0
    """With no CPUs it takes no share, as a trainer."""
    gpus: float = 0.0
    share: Share | None = None
    member: Member | None = None
    assigned_s: float = 0.0
    """When it got its process."""
    contact: Contact = field(default_factory=Contact)
    is_started: bool = False
    is_cancelled: bool = False
    kill_reason: str = ""
    address: str | None = None
    ending: Outcome | Death | None = None
