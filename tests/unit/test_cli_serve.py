"""`gradwire serve`: the settings it hands to the process that it becomes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gradwire.cli.main import main
from gradwire.cli.serve import service_command

DEFAULTS = {
    "listen": "127.0.0.1:50551",
    "metrics": "127.0.0.1:9464",
    "metrics_keep": None,
    "log_format": None,
    "exchange_tls": False,
    "ray": None,
    "data_root": None,
    "allow_code": False,
    "trust": [],
    "token_file": None,
    "tls_cert": None,
    "tls_key": None,
}


@pytest.fixture(autouse=True)
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, list[str]]]:
    calls: list[tuple[str, list[str]]] = []

    def execv(path: str, arguments: list[str]) -> None:
        calls.append((path, arguments))
        raise SystemExit(0)  # exec does not return

    monkeypatch.setattr(os, "execv", execv)
    monkeypatch.setenv("XDG_STATE_HOME", "/xdg")
    monkeypatch.delenv("GRADWIRE_TOKEN_FILE", raising=False)
    return calls


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["serve", *arguments])


def settings(calls: list[tuple[str, list[str]]]) -> dict[str, Any]:
    ((_, arguments),) = calls
    document: dict[str, Any] = json.loads(arguments[-1])
    return document


def test_it_becomes_the_service_with_its_defaults(started: list[tuple[str, list[str]]]) -> None:
    assert serve().exit_code == 0
    assert started[0][0] == sys.executable
    assert started[0][1][-3:-1] == ["-m", "service"]
    assert settings(started) == {**DEFAULTS, "state": "/xdg/gradwire"}


def test_every_option_arrives_with_absolute_paths(started: list[tuple[str, list[str]]], tmp_path: Path) -> None:
    for name in ("token", "cert", "key"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    os.chdir(tmp_path)
    words = "--listen 0.0.0.0:1 --metrics 0.0.0.0:2 --state state --ray 10.0.0.1:6379 --data-root . --allow-code"
    words += " --metrics-keep 60 --log-format json --exchange-tls"
    words += " --trust keras_hub --trust mine --token-file token --tls-cert cert --tls-key key"
    assert serve(*words.split()).exit_code == 0
    assert settings(started) == {
        "listen": "0.0.0.0:1",
        "metrics": "0.0.0.0:2",
        "metrics_keep": 60,
        "log_format": "json",
        "exchange_tls": True,
        "state": str(tmp_path / "state"),
        "ray": "10.0.0.1:6379",
        "data_root": str(tmp_path),
        "allow_code": True,
        "trust": ["keras_hub", "mine"],
        "token_file": str(tmp_path / "token"),
        "tls_cert": str(tmp_path / "cert"),
        "tls_key": str(tmp_path / "key"),
    }


def test_a_state_url_stays_as_it_is(started: list[tuple[str, list[str]]]) -> None:
    serve("--state", "s3://bucket/gradwire")
    assert settings(started)["state"] == "s3://bucket/gradwire"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--listen", "50551"], "--listen '50551' is not HOST:PORT"),
        (["--metrics", "127.0.0.1:99999"], "--metrics '127.0.0.1:99999' is not HOST:PORT"),
        (["--tls-cert", __file__], "--tls-cert and --tls-key belong together"),
        (["--token-file", "/no/such/file"], "'/no/such/file' does not exist"),
    ],
)
def test_wrong_options_are_exit_code_2(words: list[str], message: str, started: list[tuple[str, list[str]]]) -> None:
    result = serve(*words)
    assert result.exit_code == 2
    assert message in result.stderr
    assert started == []


def test_a_folder_named_service_in_the_working_folder_is_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    assert "-P" not in service_command({})
    monkeypatch.chdir(tmp_path)
    assert "-P" in service_command({})


def test_a_client_alone_says_how_to_get_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = serve()
    assert result.exit_code == 2
    assert "pip install 'gradwire[service,compute]'" in result.stderr
