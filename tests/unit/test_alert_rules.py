"""The rules in deploy/prometheus/: sound, tested by promtool, documented, and about metrics that there are."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from service.metrics import catalogue
from tests.conftest import Require

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
CASES = Path(__file__).parent / "prometheus" / "alerts.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"
WHY = "Debian's package prometheus has it"

DECLARED = (*catalogue.SERVICE, *catalogue.JOB, *catalogue.LIVE_JOB, *catalogue.RUNNING_JOB, *catalogue.PROCESS)
METRIC = re.compile(r"\b(?:gradwire|process)_[a-z_]+")


def load(path: Path) -> Any:
    return YAML(typ="safe").load(path)


def rules(kind: str) -> list[dict[str, Any]]:
    found = [rule for path in RULES for group in load(path)["groups"] for rule in group["rules"] if kind in rule]
    assert found
    return found


def unknown_metrics(expressions: list[str]) -> set[str]:
    """The metrics in PromQL expressions that the catalogue does not have."""
    known = {one.name for one in DECLARED}
    known |= {
        f"{one.name}_{suffix}" for one in DECLARED if one.kind == "histogram" for suffix in ("bucket", "sum", "count")
    }
    known |= {rule["record"] for rule in rules("record")}
    return {name for text in expressions for name in METRIC.findall(text)} - known


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_configuration(require: Require) -> None:
    require("promtool", WHY)
    promtool("check", "config", "--syntax-only", str(PROMETHEUS / "prometheus.yml"))
    assert "SUCCESS" in promtool("check", "rules", *map(str, RULES))


def test_the_alerts_fire_when_they_should_and_only_then(require: Require) -> None:
    require("promtool", WHY)
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_every_alert_has_a_case_that_fires_and_one_that_is_silent() -> None:
    cases = [case for test in load(CASES)["tests"] for case in test.get("alert_rule_test", ())]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    assert {rule["alert"] for rule in rules("alert")} == fires == silent


def test_every_record_has_a_case() -> None:
    text = CASES.read_text()
    assert [rule["record"] for rule in rules("record") if rule["record"] not in text] == []


@pytest.mark.parametrize("rule", rules("alert"), ids=lambda rule: rule["alert"])
def test_every_alert_has_its_section_in_the_runbook(rule: dict[str, Any]) -> None:
    page, _, section = rule["annotations"]["runbook_url"].partition("#")
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE)
    assert ROOT / page == RUNBOOK and section in [heading.lower().replace(" ", "-") for heading in headings]
    assert f"`{rule['alert']}`" in RUNBOOK.read_text()
    assert rule["labels"]["severity"] in ("warning", "critical")


def test_rules_are_about_metrics_that_there_are() -> None:
    assert unknown_metrics([rule["expr"] for rule in rules("expr")]) == set()
    assert unknown_metrics(["rate(gradwire_job_setps_total[1m])"]) == {"gradwire_job_setps_total"}
