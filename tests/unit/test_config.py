"""Settings: what is taken, and what is refused by name."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from service.address import Address, parse_address
from service.api.server import require_free
from service.config import ServiceConfig, WrongSetting, read_config


def read(folder: Path, **settings: Any) -> ServiceConfig:
    return read_config(json.dumps({"state": str(folder / "state"), **settings}))


def test_defaults(tmp_path: Path) -> None:
    config = read(tmp_path, ray=None, data_root=None, trust=[], token_file=None)
    assert (str(config.listen), str(config.metrics)) == ("127.0.0.1:50551", "127.0.0.1:9464")
    assert config.state.is_dir() and config.refill and not config.allow_code and config.token is None


def test_everything_that_can_be_set(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    config = read(
        tmp_path, listen="0.0.0.0:1", metrics="[::1]:0", token_file=str(token), data_root=str(tmp_path), warm=0,
        allow_code=True, trust=["keras_hub", "mine.layers"], ray="10.0.0.5:6379", ready_fd=9, refill=False,
    )  # fmt: skip
    assert config.listen == Address("0.0.0.0", 1) and str(config.metrics) == "[::1]:0"
    assert (config.token, config.trust, config.warm) == ("s3cret", ("keras_hub", "mine.layers"), 0)
    assert config.data_root == tmp_path.resolve() and config.ray == "10.0.0.5:6379"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"listen": "0.0.0.0:50551"}, "--listen: 0.0.0.0:50551 can be reached from other machines, which needs"),
        ({"metrics": "[::]:9464"}, "--metrics: .* which needs --token-file; or listen on 127.0.0.1"),
        ({"listen": "50551"}, "--listen: .* is no address; write host:port"),
        ({"listen": "::1:50551"}, "--listen: .* is no address"),
        ({"listen": "127.0.0.1:70000"}, "--listen: .* is no address"),
        ({"tls_cert": "cert.pem"}, "--tls-key: is needed with --tls-cert"),
        ({"tls_key": "key.pem"}, "--tls-cert: is needed with --tls-key"),
        ({"tls_cert": "/none/cert.pem", "tls_key": "/none/key.pem"}, "--tls-cert: /none/cert.pem .* PEM files"),
        ({"exchange_tls": True}, "--exchange-tls: is for the nodes of a cluster, named by --ray"),
        ({"token_file": "/none/token"}, "--token-file: /none/token cannot be read"),
        ({"data_root": "/none/data"}, "--data-root: /none/data is no folder"),
        ({"state": "/proc/none"}, "--state: /proc/none cannot be written: .*; name another folder"),
        ({"state": "s3://bucket/x"}, "--state: s3://bucket/x is no folder of this machine"),
        ({"trust": ["no-package"]}, "--trust: 'no-package' is no name"),
        ({"warm": -1}, "--warm: must be at least 0"),
        ({"warm": True}, "--warm: must be int"),
        ({"allow_code": 1}, "--allow-code: must be bool"),
        ({"max_uploads": 1}, "--max-uploads: there is no such setting"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongSetting, match=f"^{message}") as raised:
        read(tmp_path, **settings)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(WrongSetting, match=r"^settings: "):
        read_config(text)


def test_an_empty_token_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    with pytest.raises(WrongSetting, match=r"--token-file: .* has no token"):
        read(tmp_path, token_file=str(tmp_path / "token"))


def test_state_needs_to_be_named() -> None:
    with pytest.raises(WrongSetting, match="--state: is needed"):
        read_config("{}")


@pytest.mark.parametrize(
    ("text", "is_loopback"),
    [("127.0.0.1:1", True), ("127.8.0.1:1", True), ("[::1]:1", True), ("localhost:1", True), ("10.0.0.1:1", False)],
)
def test_loopback(text: str, is_loopback: bool) -> None:
    address = parse_address(text)
    assert address.is_loopback is is_loopback and str(address) == text


def test_a_port_that_is_taken_and_one_that_nobody_can_have() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(WrongSetting, match=rf"--listen: 127.0.0.1:{port} is taken .* another port") as raised:
            require_free("--listen", Address("127.0.0.1", port))
        assert raised.value.exit_code == 1
    require_free("--listen", Address("127.0.0.1", port))
    with pytest.raises(WrongSetting, match=r"--metrics: cannot listen on 192\.0\.2\.1:0") as raised:
        require_free("--metrics", Address("192.0.2.1", 0))
    assert raised.value.exit_code == 2


def test_the_probe_leaves_nothing_in_the_state_folder(tmp_path: Path) -> None:
    assert os.listdir(read(tmp_path).state) == []


def test_without_tensorflow_a_cluster_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WrongSetting, match="--ray: is needed, since TensorFlow is not installed here"):
        read(tmp_path)
    assert read(tmp_path, ray="10.0.0.5:6379").ray == "10.0.0.5:6379"
