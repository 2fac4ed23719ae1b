"""What Prometheus sees: every metric is declared in `catalogue.py`; docs/metrics.md is made from it."""

from service.metrics.registry import Metrics

__all__ = ["Metrics"]
