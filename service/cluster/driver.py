"""This process's own connection to a Ray."""

from __future__ import annotations

import logging
from typing import Any

import ray
import structlog
from ray._private import worker as ray_worker

from gradwire.errors import GradwireError

NAMESPACE = "gradwire"
MAX_MESSAGE_CHARACTERS = 300

log = structlog.get_logger()


def require_free() -> None:
    """Raises GradwireError if this process is connected to a Ray: it can be to one at a time."""
    if ray.is_initialized():
        raise GradwireError("this process is connected to a Ray already; stop that engine first")


def connect(address: str, *, node_ip: str | None = None) -> None:
    """Connects to the cluster whose GCS server is at `address`; blocks, in the worst case for minutes."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Ray prints a death of a worker on standard output, whatever `log_to_driver` says; that belongs to `--json`.
    ray_worker.print_to_stdstream = _log
    options = {"_node_ip_address": node_ip} if node_ip else {}
    ray.init(address=address, namespace=NAMESPACE, configure_logging=False, log_to_driver=False, **options)


def _log(data: dict[str, Any], **_: object) -> None:
    for line in data["lines"]:
        log.info("ray_message", source=data["pid"], text=str(line)[:MAX_MESSAGE_CHARACTERS])
