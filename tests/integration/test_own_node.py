"""A coordinator on a machine without a node of the cluster gets one, without CPUs, for as long as it is connected."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.standalone import ROOT, standalone_ray

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

TIMEOUT_S = 90.0
# Its cluster runs on this very machine, so it has to be told that it does not.
PROGRAM = """
import json, sys, threading, time
from pathlib import Path
import ray
from service.cluster import own_node
from service.cluster.given import GivenRay

own_node._is_here = lambda address: sys.argv[3] == "here"
given = GivenRay(sys.argv[1], Path(sys.argv[2]))
given.start()
alive = [node for node in ray.nodes() if node["Alive"]]
folders = [Path(line) for line in Path(sys.argv[2]).joinpath("ray_folder").read_text().splitlines()] \\
    if sys.argv[3] != "here" else []
made = all(folder.is_dir() for folder in folders)
given.stop()
print(json.dumps({
    "cpus": sorted(node["Resources"].get("CPU", 0.0) for node in alive),
    "made": made, "left": [str(folder) for folder in folders if folder.exists()],
}))
"""


def test_a_node_without_cpus_joins_and_leaves(tmp_path: Path) -> None:
    with standalone_ray(tmp_path / "ray") as cluster:
        found = []
        for where in ("elsewhere", "here"):
            state = tmp_path / where
            state.mkdir()
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, cluster.address, str(state), where],
                cwd=ROOT, env={**os.environ, **cluster.environment, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE, text=True, timeout=TIMEOUT_S, check=True,
            )  # fmt: skip
            found.append(json.loads(done.stdout.splitlines()[-1]))
            assert [path.name for path in state.iterdir()] == []
    cpus = float(os.cpu_count() or 1)
    assert found[0] == {"cpus": [0.0, cpus], "made": True, "left": []}
    assert found[1]["cpus"] == [cpus]
