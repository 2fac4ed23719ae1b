"""Finds what an earlier coordinator of the same service has left in a Ray that outlives both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ray
import structlog
from ray.exceptions import RayError

from service.cluster.outliving import Description, process_prefix, share_prefix
from service.cluster.share import Share, shares

ANSWER_S = 5.0
"""A process that does not tell by then what it is, is ended: it hangs."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """A process at work, or with an outcome to tell."""

    actor: Any
    description: Description


def find(service_id: str) -> list[Found]:
    """The service's processes that have a job; the others are ended."""
    names = [name for name in ray.util.list_named_actors() if name.startswith(process_prefix(service_id))]
    actors = [actor for name in names if (actor := _actor(name)) is not None]
    asked = {actor.describe.remote(): actor for actor in actors}
    answered = set(ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_S)[0]) if asked else set()
    found = []
    for question, actor in asked.items():
        description = _answer(question) if question in answered else None
        if description is not None and description.assignment is not None and description.address is not None:
            found.append(Found(actor, description))
        else:
            log.info("process_abandoned", pid=description.identity.pid if description else None)
            ray.kill(actor)
    return found


def release_shares(service_id: str, kept: set[str]) -> None:
    """Gives back all shares of the service but those with these names."""
    for name in set(shares(share_prefix(service_id))) - kept:
        share = Share.named(name)
        if share is not None:
            log.info("share_released", share=name)
            share.release()


def _actor(name: str) -> Any:
    try:
        return ray.get_actor(name)
    except ValueError:
        return None  # it has ended meanwhile


def _answer(question: Any) -> Description | None:
    try:
        description: Description = ray.get(question)
    except RayError:
        return None
    return description
