"""Ray Train's TensorflowTrainer with two workers, on a Ray of its own; underneath it is MultiWorkerMirroredStrategy.

python -m benchmarks.peers.ray_train SOCKET FOLDER, with the packages of benchmarks/requirements.lock on the import path

Its own example fails with Keras 3 (ray-project/ray#47464), so that the workers run the loop that `mirrored.py` has.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.train import RunConfig, ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

from benchmarks.order import SHARDS
from benchmarks.peers.loopback import keep_to_loopback

LOOPBACK = "127.0.0.1"


def train_loop(config: dict[str, Any]) -> None:
    """A worker's part; Ray has set TF_CONFIG."""
    from ray.train import get_context  # noqa: PLC0415 - in the worker's process

    from benchmarks.peers.command import serve  # noqa: PLC0415
    from benchmarks.peers.mirrored import MirroredLoop  # noqa: PLC0415

    serve(Path(config["socket"]), get_context().get_world_rank(), MirroredLoop, config["submitted_at"])


def main() -> None:
    socket, folder = sys.argv[1:]
    keep_to_loopback()
    ray.init(
        address="local",
        num_cpus=SHARDS,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address=LOOPBACK,
        _temp_dir=f"{folder}/ray",
    )
    try:
        trainer = TensorflowTrainer(
            train_loop,
            train_loop_config={"socket": socket, "submitted_at": time.time()},
            scaling_config=ScalingConfig(num_workers=SHARDS, resources_per_worker={"CPU": 1}),
            run_config=RunConfig(name="bench", storage_path=f"{folder}/results"),
        )
        trainer.fit()
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
