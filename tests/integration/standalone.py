"""A Ray that is nobody's: it is there before a service connects and after it has gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
STOP_TIMEOUT_S = 30.0
PROGRAM = """
import sys
from pathlib import Path
import ray
from ray._private.node import Node
from ray._private.parameter import RayParams
from service.cluster.local import LOOPBACK, OBJECT_STORE_BYTES, LocalRay

cluster = LocalRay(Path(sys.argv[1]))
cluster.start()
address = ray.get_runtime_context().gcs_address
more = [
    Node(
        RayParams(
            gcs_address=address, node_ip_address=LOOPBACK, num_cpus=2, object_store_memory=OBJECT_STORE_BYTES,
            include_log_monitor=False, temp_dir=str(cluster._folder._path),
        ),
        head=False, shutdown_at_exit=False, spawn_reaper=True,
    )
    for _ in range(int(sys.argv[2]) - 1)
]
print(address, flush=True)
sys.stdin.read()
for node in more:
    node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
cluster.stop()
"""


@dataclass(frozen=True)
class StandaloneRay:
    """Its address, the file with its token, and the process that holds it."""

    address: str
    token: Path
    process: subprocess.Popen[str]

    @property
    def environment(self) -> dict[str, str]:
        """With these a service may connect."""
        # On Linux too, the second keeps Ray on the loopback address.
        return {"RAY_AUTH_TOKEN_PATH": str(self.token), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

    def processes(self) -> list[psutil.Process]:
        """Those of services, warm or at work."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if _title(child).startswith("ray::OutlivingProcess")]


@contextmanager
def standalone_ray(state: Path, nodes: int = 1) -> Iterator[StandaloneRay]:
    """Starts it on loopback, behind a token of its own, and removes it whole; nodes after the first have two CPUs."""
    state.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(state), str(nodes)],
        env={**environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        assert address, "the Ray did not start"
        yield StandaloneRay(address, state / "ray_token", process)
    finally:
        process.communicate("", timeout=STOP_TIMEOUT_S)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()) if process.status() != psutil.STATUS_ZOMBIE else ""
    except psutil.Error:
        return ""
