"""A node without CPUs in somebody else's cluster: Ray wants one on the machine of every driver."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ray._private import services
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._raylet import GcsClient

from service.cluster.local import CHILD_ENVIRONMENT, OBJECT_STORE_BYTES, Folder, end, processes_of

ASK_TIMEOUT_S = 10.0
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


class OwnNode:
    """The node, its processes and its folder. One thread owns it, and has to live as long."""

    def __init__(self, address: str, state: Path) -> None:
        self._address = address
        self._folder = Folder(state)
        self._node: Any = None

    def start(self) -> None:
        """Starts the node, unless one of the cluster runs on this machine."""
        if _is_here(self._address):
            return
        folder = self._folder.make()
        environment = {name: value for name, value in CHILD_ENVIRONMENT.items() if name != LOOPBACK_VARIABLE}
        parameters = RayParams(
            gcs_address=self._address,
            node_ip_address=services.get_node_ip_address(self._address),
            num_cpus=0,
            num_gpus=0,
            object_store_memory=OBJECT_STORE_BYTES,
            include_log_monitor=False,
            temp_dir=str(folder),
            env_vars=environment,
        )
        self._node = Node(parameters, head=False, shutdown_at_exit=False, spawn_reaper=True)

    def fault(self) -> str:
        """Why it is of no use any more; from any thread."""
        node = self._node
        is_dead = node is not None and "raylet" in [kind for kind, _ in node.dead_processes()]
        return (
            f"this machine's Ray node ended, as it does when the cluster at {self._address} is gone" if is_dead else ""
        )

    def stop(self) -> None:
        """Ends the node, if it was started."""
        if self._node is not None:
            processes = processes_of(self._node)
            # Gracefully: the cluster then knows at once that the node has left.
            self._node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)
            end(processes)
            self._node = None
        self._folder.remove()


def _is_here(address: str) -> bool:
    """Whether a node of the cluster runs on this machine: its raylet is among the processes that one sees."""
    seen = services.find_node_ids()
    nodes = GcsClient(address=address).get_all_node_info(timeout=ASK_TIMEOUT_S) if seen else {}
    return any(node.hex() in seen for node in nodes)
