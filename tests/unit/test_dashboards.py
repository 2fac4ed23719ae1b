"""The dashboards of deploy/grafana/: sound, about metrics that there are, and as the provisioning expects them."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from tests.integration.dashboards import FILES, FOLDER, ROOT, load, queries
from tests.unit.test_alert_rules import load as load_yaml
from tests.unit.test_alert_rules import unknown_metrics

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def dashboard(request: pytest.FixtureRequest) -> Any:
    return load(request.param)


def test_there_are_three() -> None:
    assert [path.stem for path in FILES] == ["job", "overview", "service"]
    assert len({load(path)["uid"] for path in FILES}) == 3


def test_queries_are_about_metrics_that_there_are(dashboard: Any) -> None:
    assert unknown_metrics([query for _, query in queries(dashboard)]) == set()
    assert all("radwire" in query or "process_" in query for _, query in queries(dashboard))


def test_panels_have_their_own_number_and_place(dashboard: Any) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = Counter(
        cell
        for place in (panel["gridPos"] for panel in panels)
        for cell in product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))
    )
    assert max(cells.values()) == 1 and max(x for x, _ in cells) < 24


def test_every_panel_asks_the_datasource_that_is_chosen(dashboard: Any) -> None:
    asking = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert asking
    for panel in asking:
        assert panel["datasource"] == DATASOURCE and panel["targets"]
        assert all(target["datasource"] == DATASOURCE for target in panel["targets"])
    names = [variable["name"] for variable in dashboard["templating"]["list"]]
    text = str(dashboard)
    assert [name for name in names if f"${name}" not in text and f"${{{name}}}" not in text] == []


def test_links_lead_to_dashboards_that_there_are() -> None:
    known = {load(path)["uid"] for path in FILES}
    for path in FILES:
        assert {link["url"].removeprefix("/d/") for link in load(path)["links"]} == known - {load(path)["uid"]}


def test_the_provisioning_finds_them() -> None:
    folder = FOLDER.parent / "provisioning"
    (provider,) = load_yaml(folder / "dashboards" / "gradwire.yml")["providers"]
    compose = load_yaml(ROOT / "deploy" / "docker-compose.yml")
    mounted = [volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"] if ":ro" in volume]
    sources = {Path(target): ROOT / "deploy" / source for source, target in mounted}
    assert sources[Path(provider["options"]["path"])] == FOLDER
    (source,) = load_yaml(folder / "datasources" / "prometheus.yml")["datasources"]
    assert source["type"] == "prometheus" and source["url"].startswith("http://prometheus:")
