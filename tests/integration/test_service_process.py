"""`python -m service` as a process of its own, as `gradwire serve` starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from gradwire.client import Client

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0


def start(state: Path, **settings: Any) -> tuple[subprocess.Popen[str], int]:
    """The process, and the end of the pipe where it says how its start goes."""
    read_fd, write_fd = os.pipe()
    document = {
        "listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "state": str(state), "warm": 0, "ready_fd": write_fd,
        **settings,
    }  # fmt: skip
    command = [sys.executable, "-m", "service", json.dumps(document)]
    process = subprocess.Popen(
        command, cwd=ROOT, pass_fds=(write_fd,), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    os.close(write_fd)
    return process, read_fd


def ready(read_fd: int) -> list[dict[str, str]]:
    with open(read_fd, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def refused(state: Path, **settings: Any) -> tuple[int, str]:
    process, read_fd = start(state, **settings)
    os.close(read_fd)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_service_answers_at_once_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    process, read_fd = start(tmp_path)
    *stages, places = ready(read_fd)
    assert stages and all(set(stage) == {"stage"} for stage in stages)
    with Client(places["listen"]) as client:
        assert client.list() == []
    with urllib.request.urlopen(f"http://{places['metrics']}/metrics", timeout=10) as answer:
        assert b"gradwire_jobs" in answer.read()
    known = json.loads((tmp_path / "server.json").read_text())
    assert (known["pid"], known["listen"]) == (process.pid, places["listen"])
    assert psutil.Process(process.pid).memory_info().rss < 250e6
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, errors
    assert not (tmp_path / "server.json").exists() and "event=stopped" in errors
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)


def test_wrong_settings_end_the_process_with_a_line_that_names_them(tmp_path: Path) -> None:
    code, errors = refused(tmp_path, listen="0.0.0.0:0")
    assert code == 2 and errors.startswith("gradwire: --listen: 0.0.0.0:0 can be reached") and errors.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for name in ("listen", "metrics"):
            code, errors = refused(tmp_path, **{name: address})
            assert code == 1 and f"--{name}: {address} is taken" in errors


def test_a_ray_that_cannot_be_used_ends_the_process_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    for token, what in (("", "no Ray token: set RAY_AUTH_TOKEN"), ("secret", "no Ray answers at 127.0.0.1:1 ")):
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        code, errors = refused(tmp_path, ray="127.0.0.1:1")
        assert code == 1 and f"--ray 127.0.0.1:1: {what}" in errors and "Traceback" not in errors


def test_two_services_never_share_a_state_folder(tmp_path: Path) -> None:
    process, read_fd = start(tmp_path)
    ready(read_fd)
    try:
        code, errors = refused(tmp_path)
        assert code == 2 and f"in use by another service (process {process.pid}" in errors
    finally:
        process.terminate()
        process.communicate(timeout=TIMEOUT_S)
