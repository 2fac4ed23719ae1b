"""The file system /dev/shm has 64 MB in most containers; a model of 200 MB trains all the same."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradwire.spec.job import JobSpec
from tests.integration.lab import lab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

ROOT = Path(__file__).parents[2]
IN_A_CONTAINER = "mount -t tmpfs -o size=64m tmpfs /dev/shm && exec {python} -m {module} {folder}"
NAMESPACE = ["unshare", "--mount", "--map-root-user"]


def may_mount() -> bool:
    tried = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    return tried.returncode == 0


def spec() -> JobSpec:
    """50 million weights."""
    from keras import Input, Sequential, layers

    model = Sequential([Input((1000,), name="x"), layers.Dense(50_000), layers.Dense(1, name="y")])
    return JobSpec.model_validate(
        {
            "name": "large",
            "model": {"keras": model.to_json()},
            "data": {"train": {"npz": "server:large.npz"}, "inputs": "x", "labels": "y"},
            "loss": "MeanSquaredError",
            "optimizer": {"name": "SGD", "config": {"learning_rate": 1e-6}},
            "training": {"globalBatch": 4, "steps": 3, "shards": 2},
            "resources": {"workers": 2, "minWorkers": 2},
        }
    )


def main(folder: Path) -> None:
    """The job's life, with the size of its segments while it runs; for a process of its own."""
    np.savez(folder / "large.npz", x=np.ones((8, 1000), np.float32), y=np.ones((8, 1), np.float32))
    with lab(spec(), folder, workers=2) as job:
        job.wait_for(lambda progress: progress.snapshot.is_running)
        pids = [child.process.pid for child in [job.trainer, *job.workers] if child]
        segments = {name: size for pid in pids for name, size in segments_of(pid).items()}
        result = job.result()
    print(json.dumps({"state": result.outcome.state, "error": str(result.outcome.error), "segments": segments}))


def segments_of(pid: int | None) -> dict[str, int]:
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if (name := str(path.readlink())).startswith("/memfd:gradwire-"):
                found[name] = path.stat().st_size
    return found


@pytest.mark.skipif(not may_mount(), reason="this user may not mount anything, even in a namespace of its own")
def test_a_large_model_trains_over_shared_memory_in_a_small_dev_shm(tmp_path: Path) -> None:
    command = IN_A_CONTAINER.format(python=sys.executable, module=__name__, folder=tmp_path)
    done = subprocess.run([*NAMESPACE, "sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["state"] == "SUCCEEDED", found["error"]
    sizes = [size for name, size in found["segments"].items() if "weights" in name or "slots" in name]
    assert len(sizes) == 3 and min(sizes) > 200_000_000


if __name__ == "__main__":
    main(Path(sys.argv[1]))
