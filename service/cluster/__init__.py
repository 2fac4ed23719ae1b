"""Ray: the only room that imports it."""

from __future__ import annotations

from service.cluster.engine import RayEngine

__all__ = ["RayEngine"]
