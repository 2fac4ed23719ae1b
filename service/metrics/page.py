"""Writes docs/metrics.md from the catalogue; with --check, only says whether the committed page is current.

python -m service.metrics.page [--check]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.metrics import catalogue as c
from service.metrics.catalogue import Declared
from service.metrics.collector import KEPT_S, MAX_JOBS
from service.metrics.series import MAX_METRICS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

HEAD = f"""# Metrics

The coordinator answers `GET /metrics` on `127.0.0.1:9464` (`serve --metrics`) for itself and for all jobs, trainers and
workers: these report to it, and nobody scrapes them. `deploy/prometheus/` has recording rules and alerts,
`deploy/grafana/` dashboards.

This page is made from `service/metrics/catalogue.py` by `make metrics-page`; `make test` fails if it is out of date.

Bounds: {MAX_JOBS} jobs have series of their own, those at work first; a job has at most {MAX_METRICS} named metrics
for each set. A job's series go {KEPT_S / 60:.0f} minutes after its end (`serve --metrics-keep`). Counters of a job go
on when its trainer is started again; they begin at 0 when the coordinator is, which `rate` and `increase` know how to
take.
"""
SECTIONS = (
    ("The service", c.SERVICE),
    ("A job, and for a while after its end", c.JOB),
    ("A job that has not ended", c.LIVE_JOB),
    ("A job that has a trainer", c.RUNNING_JOB),
    ("The coordinator's process, as prometheus-client tells it", c.PROCESS),
)


def text() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(line for title, declared in SECTIONS for line in _section(title, declared))])


def _section(title: str, metrics: Sequence[Declared]) -> Iterator[str]:
    yield from (f"## {title}", "", "| metric | type | unit | labels | meaning |", "| --- | --- | --- | --- | --- |")
    for one in metrics:
        labels = " ".join(f"`{label}`" for label in one.labels)
        bounds = f". Buckets: {', '.join(f'{bound:g}' for bound in one.buckets)}" if one.buckets else ""
        yield f"| `{one.name}` | {one.kind} | {one.unit or '–'} | {labels or '–'} | {one.help}{bounds} |"
    yield ""


def main() -> int:
    """Writes, or compares; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the committed page, write nothing")
    if not parser.parse_args().check:
        PAGE.write_text(text())
        return 0
    is_current = PAGE.is_file() and PAGE.read_text() == text()
    if not is_current:
        print("docs/metrics.md is stale; run make metrics-page", file=sys.stderr)
    return 0 if is_current else 1


if __name__ == "__main__":
    sys.exit(main())
