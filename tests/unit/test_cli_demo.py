"""The demo's own server: it starts, tells, ends, and leaves nothing; a small script stands for the service."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gradwire.cli import demo, embedded
from gradwire.cli.embedded import Ready, embedded_service
from gradwire.cli.main import main
from gradwire.errors import Unavailable
from tests.unit.cli_double import ClientDouble, make_job

SERVICE_ID = f"test{os.getpid()}"

READY = """
import json, os, signal, subprocess, sys, time
settings = json.loads(sys.argv[1])
out = os.fdopen(settings["ready_fd"], "w")
def say(**message):
    print(json.dumps(message), file=out, flush=True)
say(stage="starting Ray")
print("a line of the log", flush=True)
"""
SERVING = f"say(listen='127.0.0.1:7', metrics='127.0.0.1:8', service_id='{SERVICE_ID}')\n"
UNTIL_SIGTERM = "signal.sigwait([signal.SIGTERM])\n"
BLOCK_SIGTERM = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
GRANDCHILD = """
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session={new_session})
open(os.path.join(os.path.dirname(settings['state']), 'grandchild'), 'w').write(str(child.pid))
"""


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the demo's temporary folder comes to be; empty but for what a script writes beside it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def segment() -> Iterator[Path]:
    path = embedded.SEGMENTS / f"gradwire-{SERVICE_ID}-job-1"
    path.mkdir()
    (path / "weights").write_bytes(b"x")
    yield path
    shutil.rmtree(path, ignore_errors=True)


def command(script: str) -> embedded.Command:
    return lambda settings: [sys.executable, "-c", READY + script, json.dumps(settings)]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_a_server_runs_for_a_block_and_leaves_nothing(temporary: Path, segment: Path) -> None:
    stages: list[str] = []
    with embedded_service(command(BLOCK_SIGTERM + SERVING + UNTIL_SIGTERM), {"listen": "any"}, stages.append) as ready:
        assert ready == Ready(listen="127.0.0.1:7", metrics="127.0.0.1:8", service_id=SERVICE_ID)
        assert stages == ["starting Ray"]
        assert [path.name[:14] for path in temporary.iterdir()] == ["gradwire-demo-"]
        assert segment.exists()
    assert list(temporary.iterdir()) == []
    assert not segment.exists()


@pytest.mark.parametrize("new_session", [False, True])
def test_what_the_server_leaves_behind_is_killed(
    new_session: bool, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.5)
    script = GRANDCHILD.format(new_session=new_session) + BLOCK_SIGTERM + SERVING + UNTIL_SIGTERM
    with embedded_service(command(script), {}, print):
        pid = int((temporary / "grandchild").read_text(encoding="utf-8"))
        assert is_alive(pid)
    assert not is_alive(pid)


def test_a_server_that_ignores_sigterm_is_killed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.3)
    script = BLOCK_SIGTERM + "open(os.path.dirname(settings['state']) + '/pid', 'w').write(str(os.getpid()))\n"
    with embedded_service(command(script + SERVING + "time.sleep(600)"), {}, print):
        pid = int((temporary / "pid").read_text(encoding="utf-8"))
    assert not is_alive(pid)


def test_a_server_that_dies_at_start_shows_the_end_of_its_log(temporary: Path) -> None:
    script = "print('port 50551 is taken', file=sys.stderr); sys.exit(3)"
    with (
        pytest.raises(Unavailable, match="did not start \\(exit code 3\\)") as caught,
        embedded_service(command(script), {}, print),
    ):
        pytest.fail("it never served")
    assert caught.value.code == "start_failed"
    assert caught.value.details == "a line of the log\nport 50551 is taken"
    assert list(temporary.iterdir()) == []


def test_a_server_that_is_killed_at_start_is_told_by_signal() -> None:
    with (
        pytest.raises(Unavailable, match="killed by SIGKILL"),
        embedded_service(command("os.kill(os.getpid(), signal.SIGKILL)"), {}, print),
    ):
        pytest.fail("it never served")


def test_a_server_that_is_never_ready_is_given_up(monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(embedded, "START_TIMEOUT_S", 0.3)
    with (
        pytest.raises(Unavailable, match="not ready within"),
        embedded_service(command(BLOCK_SIGTERM + UNTIL_SIGTERM), {}, print),
    ):
        pytest.fail("it never served")
    assert list(temporary.iterdir()) == []


def test_stages_go_on_after_the_server_is_ready() -> None:
    told = threading.Event()
    seen: list[str] = []

    def on_stage(text: str) -> None:
        seen.append(text)
        if len(seen) == 2:
            told.set()

    script = BLOCK_SIGTERM + SERVING + "say(stage='importing TensorFlow (1 of 3)')\n" + UNTIL_SIGTERM
    with embedded_service(command(script), {}, on_stage):
        assert told.wait(timeout=20)
    assert seen == ["starting Ray", "importing TensorFlow (1 of 3)", "stopping the server"]


def test_a_display_that_breaks_does_not_stop_the_cleaning_up(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 0.3)

    def on_stage(text: str) -> None:
        if text.startswith("stopping"):
            raise SystemExit(1)  # as rich does when the pipe is closed

    script = GRANDCHILD.format(new_session=False) + SERVING + "time.sleep(600)"
    with pytest.raises(SystemExit), embedded_service(command(script), {}, on_stage):
        pid = int((temporary / "grandchild").read_text(encoding="utf-8"))
    assert not is_alive(pid)
    assert [path.name for path in temporary.iterdir()] == ["grandchild"]


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[ClientDouble]:
    """The command itself, with the script for the service and the double for its client."""
    monkeypatch.setattr(demo, "service_command", command(BLOCK_SIGTERM + SERVING + UNTIL_SIGTERM))
    monkeypatch.setattr("gradwire.client.Client", ClientDouble)
    monkeypatch.setattr(ClientDouble, "script", {})
    monkeypatch.setattr(ClientDouble, "calls", [])
    monkeypatch.chdir(tmp_path)
    return ClientDouble


def run(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["demo", *arguments])


def test_the_demo_shows_its_way_and_its_result(double: type[ClientDouble], temporary: Path, tmp_path: Path) -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].endswith("starting a server")
    assert lines[1].endswith("starting Ray")
    for text in ("step 24/24", "98.05 %", "4,210 examples/s", "exchange", "gradwire-demo/curve.png"):
        assert text in result.stdout
    kept = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "gradwire-demo").iterdir())
    assert kept == ["gradwire-demo/curve.png", "gradwire-demo/model.keras", "gradwire-demo/saved_model"]
    assert list(temporary.iterdir()) == []


def test_demo_json_is_the_job_s_document(double: type[ClientDouble]) -> None:
    result = run("--json", "--output", "elsewhere")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["evalMetrics"]["digit_accuracy"] == 0.9805
    assert "starting Ray" in result.stderr


def test_a_failed_job_fails_the_demo(double: type[ClientDouble], temporary: Path) -> None:
    double.script["job"] = make_job("FAILED")
    result = run()
    assert result.exit_code == 1
    assert "lower the learning rate" in result.stderr
    assert list(temporary.iterdir()) == []


def test_a_server_that_does_not_start_fails_the_demo(
    double: type[ClientDouble], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "service_command", command("sys.exit('no room in /dev/shm')"))
    result = run("--json")
    assert result.exit_code == 1
    assert "no room in /dev/shm" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "start_failed"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_demo_with_130_and_leaves_nothing(number: signal.Signals, temporary: Path) -> None:
    script = GRANDCHILD.format(new_session=False) + BLOCK_SIGTERM + "say(stage='up')\n" + UNTIL_SIGTERM
    script += "os.kill(child.pid, signal.SIGKILL)\n"
    program = (
        "from gradwire.cli import demo\n"
        f"from tests.unit.test_cli_demo import command\n"
        f"demo.service_command = command({script!r})\n"
        "from gradwire.cli.main import main\n"
        "main(['demo', '--json'])\n"
    )
    environment = {**os.environ, "TMPDIR": str(temporary)}
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.endswith("up\n"):
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(timeout=30) == 130
        assert process.stdout is not None
        assert json.loads(process.stdout.read())["error"]["code"] == "interrupted"
    assert "stopped and removed" in rest
    assert not is_alive(int((temporary / "grandchild").read_text(encoding="utf-8")))
    assert [path.name for path in temporary.iterdir()] == ["grandchild"]
