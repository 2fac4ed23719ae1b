"""MultiWorkerMirroredStrategy with two workers, each a process of its own.

python -m benchmarks.peers.mwms SOCKET: starts both, and ends with the first that ends
python -m benchmarks.peers.mwms SOCKET RANK: one of them, with TF_CONFIG in the environment
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.order import SHARDS
from benchmarks.peers.loopback import keep_to_loopback

LOOPBACK = "127.0.0.1"
POLL_S = 0.1


def lead(path: str) -> int:
    """Starts the workers; the exit code of the first that ends, after which the others are killed."""
    keep_to_loopback()
    addresses = [f"{LOOPBACK}:{port}" for port in _free_ports(SHARDS)]
    with ExitStack() as stack:
        workers = []
        for rank in range(SHARDS):
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            command = [sys.executable, "-m", "benchmarks.peers.mwms", path, str(rank)]
            worker = subprocess.Popen(command, env={**os.environ, "TF_CONFIG": json.dumps(config)})
            stack.callback(worker.kill)
            workers.append(worker)
        while all(worker.poll() is None for worker in workers):
            time.sleep(POLL_S)
        return next(worker.returncode for worker in workers if worker.returncode is not None)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def work(path: str, rank: int) -> None:
    """One worker's life."""
    from benchmarks.peers.command import serve  # noqa: PLC0415 - TensorFlow, which the leader does not need
    from benchmarks.peers.mirrored import MirroredLoop  # noqa: PLC0415

    serve(Path(path), rank, MirroredLoop)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(lead(sys.argv[1]))
    work(sys.argv[1], int(sys.argv[2]))
