"""The dashboards in deploy/grafana/, and the queries in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "grafana" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))

RATE_INTERVAL = "20s"
"""What Grafana would put for $__rate_interval: some scrapes."""


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def queries(dashboard: Any) -> Iterator[tuple[str, str]]:
    """(where, PromQL) of every panel and annotation."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']}, {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", annotation["expr"]


def filled(query: str, job_id: str) -> str:
    """The query as Grafana would send it for a job."""
    return query.replace("$__rate_interval", RATE_INTERVAL).replace("$job_id", job_id)
