"""The stack of deploy/docker-compose.yml for real: images built, containers up, and all of it gone afterwards."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwire.client import Client

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("ray-head", "coordinator", "workers", "prometheus")
"""All but Grafana, which needs nothing of ours but its files."""

BUILD_TIMEOUT_S = 1200.0
UP_TIMEOUT_S = 300.0
DOWN_TIMEOUT_S = 120.0
CALL_TIMEOUT_S = 60.0
RECONNECT_S = 120.0
"""Longer than a coordinator takes to come back on a busy machine."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True)
class Container:
    """One of the project's containers."""

    id: str

    @property
    def node(self) -> str:
        """What jobs show as the node of its workers: the container's host name."""
        return self.id[:12]


@dataclass(frozen=True)
class Stack:
    """A project of its own, on free ports."""

    environment: dict[str, str]
    secrets: Path

    @property
    def address(self) -> str:
        return self.environment["GRADWIRE_LISTEN"]

    def client(self) -> Client:
        return Client(self.address, token_file=self.secrets / "api_token", reconnect_s=RECONNECT_S)

    def compose(self, *arguments: str, timeout_s: float = CALL_TIMEOUT_S) -> str:
        return self._run(
            "docker", "compose", "-f", str(ROOT / "deploy/docker-compose.yml"), *arguments, timeout_s=timeout_s
        )

    def containers(self, service: str) -> list[Container]:
        return [Container(container_id) for container_id in self.compose("ps", "-q", service).split()]

    def kill(self, container: Container) -> None:
        """Kills what runs in the container, as a crash does: it is Docker's to start it again."""
        pid = int(self._inspect(container.id, "{{.State.Pid}}"))
        started = self._inspect(container.id, "{{.State.StartedAt}}")
        try:
            os.kill(pid, signal.SIGKILL)
        except (PermissionError, ProcessLookupError):  # an engine of another user's, or on another machine
            self._run("docker", "kill", container.id)
            self._run("docker", "start", container.id)
        wait_until(lambda: self._inspect(container.id, "{{.State.StartedAt}}") != started)

    def wait_until_healthy(self, container: Container) -> None:
        wait_until(lambda: self._inspect(container.id, "{{.State.Health.Status}}") == "healthy")

    def query(self, text: str) -> dict[str, float]:
        """What Prometheus answers now: by labels, the values."""
        url = f"http://{self.environment['PROMETHEUS_LISTEN']}/api/v1/query?{urllib.parse.urlencode({'query': text})}"
        with urllib.request.urlopen(url, timeout=CALL_TIMEOUT_S) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return {json.dumps(one["metric"], sort_keys=True): float(one["value"][1]) for one in document["data"]["result"]}

    def left(self) -> list[str]:
        """What Docker still has of the project."""
        label = f"label=com.docker.compose.project={self.environment['COMPOSE_PROJECT_NAME']}"
        kinds = (("ps", "-a"), ("volume", "ls"), ("network", "ls"))
        return [line for kind in kinds for line in self._run("docker", *kind, "-q", "--filter", label).split()]

    def _inspect(self, container: str, template: str) -> str:
        return self._run("docker", "inspect", "-f", template, container).strip()

    def _run(self, *command: str, timeout_s: float = CALL_TIMEOUT_S) -> str:
        done = subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done.stdout


@contextmanager
def stack(folder: Path) -> Iterator[Stack]:
    """Builds and starts it, waits until every container is healthy, and takes it down."""
    keys = folder / "secrets"
    subprocess.run([ROOT / "deploy/make-secrets", keys], check=True, timeout=CALL_TIMEOUT_S)
    # Fixed ports, since a container that is started again would get another free one.
    ports = free_ports(3)
    names = ("GRADWIRE_LISTEN", "GRADWIRE_METRICS", "PROMETHEUS_LISTEN")
    environment = {
        **{name: f"127.0.0.1:{port}" for name, port in zip(names, ports, strict=True)},
        "COMPOSE_PROJECT_NAME": f"gradwire-test-{secrets.token_hex(3)}",
        "GRADWIRE_SECRETS": str(keys),
        "GRADWIRE_VERSION": "test",
    }
    made = Stack(environment, keys)
    try:
        made.compose("build", "coordinator", "workers", timeout_s=BUILD_TIMEOUT_S)
        made.compose("up", "-d", "--wait", "--no-build", *SERVICES, timeout_s=UP_TIMEOUT_S)
        yield made
    except BaseException:
        print(made.compose("logs", "--no-color", "--tail=60"))
        raise
    finally:
        made.compose("down", "-v", "-t", "5", timeout_s=DOWN_TIMEOUT_S)
    assert made.left() == []


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_until(is_so: Callable[[], Any], timeout_s: float = UP_TIMEOUT_S) -> Any:
    """Waits for a truth that comes by itself, and returns it."""
    deadline = time.monotonic() + timeout_s
    while not (found := is_so()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(POLL_S)
    return found
