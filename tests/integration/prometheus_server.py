"""A real Prometheus with the rules of deploy/prometheus/, which scrapes one address."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.integration.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
INTERVAL = "1s"
"""Of scrapes and rules, where the deployment takes longer."""
READY_S = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A server under way."""

    url: str

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return json.load(answer)["data"]

    def series(self, query: str, since_s: float) -> list[dict[str, Any]]:
        """What the query gives from then until now."""
        found: list[dict[str, Any]] = self.get(
            "query_range", query=query, start=str(since_s), end=str(time.time()), step=INTERVAL
        )["result"]
        return found


@contextmanager
def prometheus(target: str, folder: Path, *, is_patient: bool = True) -> Iterator[Prometheus]:
    """Runs with its data in `folder`, as long as the block; an impatient one has alerts fire after a second."""
    yaml = YAML(typ="safe")
    config = yaml.load(PROMETHEUS / "prometheus.yml")
    (scrape,) = config["scrape_configs"]
    del scrape["authorization"]
    scrape["static_configs"] = [{"targets": [target]}]
    rules = PROMETHEUS if is_patient else hurried(folder / "hurried")
    config["rule_files"] = [str(rules / name) for name in config["rule_files"]]
    config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
    with (folder / "prometheus.yml").open("w") as file:
        yaml.dump(config, file)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait(process, f"http://{address}/-/ready", folder / "prometheus.log")
        yield Prometheus(f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def hurried(folder: Path) -> Path:
    """The rules as they are shipped, but for how long something has to be so."""
    yaml = YAML(typ="safe")
    (folder / "rules").mkdir(parents=True)
    for path in (PROMETHEUS / "rules").glob("*.yml"):
        document = yaml.load(path)
        for group in document["groups"]:
            group["rules"] = [{**rule, "for": "1s"} if "alert" in rule else rule for rule in group["rules"]]
        with (folder / "rules" / path.name).open("w") as file:
            yaml.dump(document, file)
    return folder


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        else:
            return
