"""This process's own connection to a Ray."""

from __future__ import annotations

import logging

import ray

NAMESPACE = "gradwire"


def connect(address: str, *, node_ip: str | None = None) -> None:
    """Connects to the cluster whose GCS server is at `address`; blocks, in the worst case for minutes."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    options = {"_node_ip_address": node_ip} if node_ip else {}
    ray.init(address=address, namespace=NAMESPACE, configure_logging=False, log_to_driver=False, **options)
