"""The dashboards fit the types that Grafana publishes, strictly: no field that it does not know, none missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from tests.integration.dashboards import FILES, load

SCHEMA = json.loads((Path(__file__).parent / "grafana" / "schema.json").read_text())
"""Made by `grafana/generate`."""

PROMETHEUS_ANNOTATION = {"expr", "step", "titleFormat"}
"""What the Prometheus datasource reads of an annotation, and Grafana's own types do not have."""


def faults(kind: str, value: Any) -> Iterator[str]:
    types = SCHEMA["definitions"]["Checked"]["properties"]
    validator = Draft7Validator({**types[kind], "definitions": SCHEMA["definitions"]})
    for error in validator.iter_errors(value):
        yield f"{kind}: {'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"


def all_faults(dashboard: Any) -> list[str]:
    """Of the dashboard as a whole, of each panel, and of what its kind of panel has for itself."""
    bare = deepcopy(dashboard)
    for annotation in bare["annotations"]["list"]:
        for name in PROMETHEUS_ANNOTATION & annotation.keys():
            del annotation[name]
    found = list(faults("dashboard", bare))
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            found += faults("row", panel)
            continue
        found += [*faults("panel", panel), *faults(f"{panel['type']}Options", panel["options"])]
        custom = panel["fieldConfig"]["defaults"].get("custom")
        if custom is not None:
            found += faults(f"{panel['type']}Field", custom)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafana_knows_every_field(path: Path) -> None:
    assert all_faults(load(path)) == []


def test_what_grafana_does_not_know_is_found() -> None:
    dashboard = load(FILES[0])
    panel = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    panel["gridPosition"] = panel.pop("gridPos")
    panel["options"]["legend"]["displayMode"] = "lists"
    panel["fieldConfig"]["defaults"]["custom"]["lineStile"] = {}
    words = "\n".join(all_faults(dashboard))
    assert "gridPosition" in words and "lists" in words and "lineStile" in words
