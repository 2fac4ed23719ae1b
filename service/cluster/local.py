"""A Ray of our own on this machine: started without what we do not use, behind a token, on loopback, and removed whole.

Ray's public `ray.init()` starts five helpers that are of no use here and take a second from every start, so its `Node`
is used as `ray.cluster_utils` does. That is not public: pyproject.toml holds Ray at one minor version, and
tests/integration/test_cluster.py shows what has to hold at the next.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants, worker
from ray._private.authentication.authentication_utils import is_token_auth_enabled
from ray._private.node import Node
from ray._private.parameter import RayParams
from ray._raylet import AuthenticationTokenLoader, Config

from gradwire.errors import GradwireError
from service import ray_token
from service.cluster import access, driver
from service.process import ENVIRONMENT

LOOPBACK = "127.0.0.1"
OBJECT_STORE_BYTES = 80 * 2**20
"""Nothing large goes through it; Ray takes no less than 75 MB."""

FOLDER_PREFIX = "gw-ray-"
FOLDER_NOTE = "ray_folder"
"""In the state folder: the path of Ray's own folder, for a start after a stop that did not come to its end."""
MAX_BASE_CHARACTERS = 26
"""Of the folder it is in: our name and Ray's add 81 characters, and the path of a socket has 107 at most."""

VITAL = ("gcs_server", "raylet")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 5.0

SYSTEM_CONFIG = {
    # Idle Python workers, one per CPU, would start beside the processes that are being warmed.
    "enable_worker_prestart": False,
    "prestart_worker_first_driver": False,
    # Nobody scrapes Ray here; the service has metrics of its own.
    "enable_metrics_collection": False,
    # A node that is cut off is dead after thirty seconds, not sixty.
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 5000,
    "health_check_failure_threshold": 5,
}

CHILD_ENVIRONMENT = {
    **ENVIRONMENT,
    "PYTHONFAULTHANDLER": "1",
    "PYTHONWARNINGS": "ignore",
    # On Linux too, this makes Ray live on the loopback address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


class _Node(Node):
    """A head node without the dashboard's server, and with a shorter wait for its raylet."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Ray starts it without a dashboard too, for usage statistics, and waits for it."""
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        """Returns when the raylet is there: the question that `Node` asks next costs a second where it is not."""
        super().start_ray_processes()
        limit = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < limit and not self.get_gcs_client().get_all_node_info(timeout=START_TIMEOUT_S):
            time.sleep(0.02)


class Folder:
    """Ray's own folder, whose path is noted in the state folder until it is removed."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._path: Path | None = None

    def make(self) -> Path:
        """A new one; what a service that was killed has left is ended and removed."""
        note = self._state / FOLDER_NOTE
        if note.exists():
            left = Path(note.read_text().strip())
            if left.name.startswith(FOLDER_PREFIX):  # a note that somebody edited ends nobody else
                end(_writers(left))
            self._remove(left)
        base = tempfile.gettempdir()
        if len(base) > MAX_BASE_CHARACTERS:
            base = "/tmp"
        self._path = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
        note.write_text(f"{self._path}\n")
        return self._path

    def remove(self) -> None:
        """Removes it with all that is in it, if it was made."""
        if self._path is not None:
            self._remove(self._path)
            self._path = None

    def _remove(self, path: Path) -> None:
        if path.name.startswith(FOLDER_PREFIX):  # a note that somebody edited removes nothing else
            shutil.rmtree(path, ignore_errors=True)
        (self._state / FOLDER_NOTE).unlink(missing_ok=True)


class LocalRay:
    """Ray's processes, its folder, and what it needs of this process's environment. One thread owns it, and has to
    live as long: the kernel ends Ray's processes with the thread that started them."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._folder = Folder(state)
        self._node: Any = None
        self._undo: dict[str, str | None] = {}
        self._was_cluster = ray_constants.ENABLE_RAY_CLUSTER

    def start(self) -> None:
        """Starts Ray and connects to it. Raises GradwireError where it does not start, or not behind the token."""
        token = ray_token.own_token(self._state)
        self._undo = ray_token.apply(
            {
                **ray_token.own_environment(token),
                "RAY_USAGE_STATS_ENABLED": "0",
                "PYTHONPATH": os.pathsep.join(filter(None, [_project_root(), os.environ.get("PYTHONPATH", "")])),
            },
            os.environ,
        )
        _read_environment_again()
        if not is_token_auth_enabled():
            raise GradwireError("Ray does not ask for a token; it would run anybody's code. Install Ray 2.60")
        folder = self._folder.make()
        try:
            self._node = _start_node(folder)
        except Exception as error:
            raise GradwireError(f"Ray did not start: {error}", details=_last_words(folder)) from error
        access.prove(self._node.gcs_address, token.read_text().strip())
        driver.connect(self._node.gcs_address, node_ip=LOOPBACK)

    def logs(self) -> Path | None:
        """Where Ray's processes write."""
        return Path(self._node.get_logs_dir_path()) if self._node else None

    def fault(self) -> str:
        """Which of Ray's own processes has ended: without it the rest is of no use."""
        node = self._node
        dead = [] if node is None else [kind for kind, process in node.dead_processes() if kind in VITAL]
        return f"Ray's {' and '.join(dead)} ended" if dead else ""

    def clear_away(self) -> None:
        """Kills and removes what is left. This process's own part of Ray stays, and has to end with it."""
        atexit.unregister(worker.shutdown)
        processes = processes_of(self._node)
        self._node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
        end(processes)
        self._folder.remove()

    def stop(self) -> None:
        """Disconnects, ends all of Ray's processes, removes its folder, and restores the environment."""
        processes = processes_of(self._node) if self._node else []
        ray.shutdown()
        if self._node:
            self._node.kill_all_processes(check_alive=False, allow_graceful=False, wait=True)
            end(processes)
            self._node = None
        self._folder.remove()
        ray_token.apply(self._undo, os.environ)
        ray_constants.ENABLE_RAY_CLUSTER = self._was_cluster


def _read_environment_again() -> None:
    # Ray reads these once, at import or at first use.
    ray_constants.ENABLE_RAY_CLUSTER = False
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _start_node(folder: Path) -> Any:
    # What a killed process leaves among the temporary files, such as AutoGraph's code, goes with Ray's folder.
    temporary = folder / "tmp"
    temporary.mkdir()
    parameters = RayParams(
        temp_dir=str(folder),
        node_ip_address=LOOPBACK,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        include_log_monitor=False,
        no_monitor=True,
        env_vars={**CHILD_ENVIRONMENT, "TMPDIR": str(temporary)},
        _system_config=SYSTEM_CONFIG,
    )
    return _Node(parameters, head=True, shutdown_at_exit=False, spawn_reaper=True)


def _project_root() -> str:
    return str(Path(__file__).resolve().parents[2])


def _writers(folder: Path) -> list[psutil.Process]:
    """Who has a file of a Ray's folder open to write: after a killed service, Ray's agents live on for a minute."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # somebody else's, or it has ended meanwhile
            if any(Path(file.path).is_relative_to(folder) and file.mode != "r" for file in process.open_files()):
                found.append(process)
    return found


def _last_words(folder: Path) -> str:
    names = ("gcs_server.err", "gcs_server.out", "raylet.err", "raylet.out")
    found = [path for name in names for path in folder.glob(f"session_*/logs/{name}")]
    return "\n".join(line for path in found for line in path.read_text(errors="replace").splitlines()[-10:])


def processes_of(node: Any) -> list[psutil.Process]:
    """All that Ray runs here: what the node has started, and what that has."""
    found = []
    for info in (info for infos in node.all_processes.values() for info in infos):
        with contextlib.suppress(psutil.NoSuchProcess):
            parent = psutil.Process(info.process.pid)
            found += [parent, *parent.children(recursive=True)]
    return found


def end(processes: list[psutil.Process]) -> None:
    """Kills them, and waits until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    limit = time.monotonic() + STOP_TIMEOUT_S
    while time.monotonic() < limit and any(_is_alive(process) for process in processes):
        time.sleep(0.02)


def _is_alive(process: psutil.Process) -> bool:
    # A zombie waits for the first process of the machine, which may take its time.
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False
