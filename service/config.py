"""The service's settings: read once, from the JSON document that it is started with."""

from __future__ import annotations

import importlib.util
import json
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwire.errors import InvalidSpec
from service.address import Address, parse_address
from service.logs import FORMATS

DEFAULT_LISTEN = "127.0.0.1:50551"
DEFAULT_METRICS = "127.0.0.1:9464"
DEFAULT_WARM = 2
DEFAULT_MAX_UPLOAD_BYTES = 64 << 30
DEFAULT_METRICS_KEEP_S = 3600


class WrongSetting(Exception):
    """A setting that cannot be taken; names the option and says what to do. `exit_code` is the process's."""

    def __init__(self, option: str, what: str, *, exit_code: int = 2) -> None:
        super().__init__(f"{option}: {what}")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What the operator has decided."""

    listen: Address
    metrics: Address
    state: Path
    """Everything that the service keeps: store, storage, caches, lock."""
    ray: str | None = None
    """A Ray cluster's address; without it the service starts a Ray of its own."""
    data_root: Path | None = None
    """The folder that `server:PATH` is relative to."""
    allow_code: bool = False
    """Whether jobs may bring Python code, which runs with the service's rights."""
    trust: tuple[str, ...] = ()
    """Packages besides Keras whose classes a Keras config may name."""
    token: str | None = None
    """What every client must show."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    encrypts_exchange: bool = False
    """Whether trainers and workers of other nodes speak under TLS."""
    warm: int = DEFAULT_WARM
    """Processes kept ready for jobs to come."""
    refill: bool = True
    """Whether a used process is replaced."""
    ready_fd: int | None = None
    """An open file descriptor on which the service says how its start goes, as lines of JSON."""
    is_json: bool = False
    """Whether the service says on standard output, as one JSON document, where it listens."""
    max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES
    log_format: str = FORMATS[0]
    """Of the service's own log, and of its trainers' and workers'."""
    metrics_keep_s: int = DEFAULT_METRICS_KEEP_S
    """A job's series go so long after its end."""


KEYS = {
    "listen": str, "metrics": str, "state": str, "ray": str, "data_root": str, "allow_code": bool, "trust": list,
    "token_file": str, "tls_cert": str, "tls_key": str, "warm": int, "refill": bool, "ready_fd": int,
    "max_upload_bytes": int, "json": bool, "metrics_keep": int, "log_format": str,
    "exchange_tls": bool,
}  # fmt: skip


def read_config(text: str) -> ServiceConfig:
    """The settings in a JSON document. Raises `WrongSetting`; makes the state folder if it is not there."""
    given = _document(text)
    token = _token(given.get("token_file"))
    listen, metrics = (
        _address(f"--{name}", given.get(name, default), has_token=token is not None)
        for name, default in (("listen", DEFAULT_LISTEN), ("metrics", DEFAULT_METRICS))
    )
    tls_cert, tls_key = _certificate(given)
    return ServiceConfig(
        listen=listen,
        metrics=metrics,
        state=_state(given.get("state")),
        ray=_ray(given.get("ray")),
        data_root=_data_root(given.get("data_root")),
        allow_code=given.get("allow_code", False),
        trust=_trust(given.get("trust", [])),
        token=token,
        tls_cert=tls_cert,
        tls_key=tls_key,
        encrypts_exchange=_encrypts_exchange(given),
        warm=_count(given, "warm", DEFAULT_WARM),
        refill=given.get("refill", True),
        ready_fd=given.get("ready_fd"),
        is_json=given.get("json", False),
        max_upload_bytes=_count(given, "max_upload_bytes", DEFAULT_MAX_UPLOAD_BYTES),
        log_format=_log_format(given.get("log_format", FORMATS[0])),
        metrics_keep_s=_count(given, "metrics_keep", DEFAULT_METRICS_KEEP_S),
    )


def option(key: str) -> str:
    """The option of `gradwire serve` that a key comes from."""
    return "--" + key.replace("_", "-")


def _document(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise WrongSetting("settings", f"the argument is no JSON document: {error}") from error
    if not isinstance(document, dict):
        raise WrongSetting("settings", "the argument must be a JSON object")
    given = {key: value for key, value in document.items() if value is not None}
    for key, value in given.items():
        kind = KEYS.get(key)
        if kind is None:
            raise WrongSetting(option(key), f"there is no such setting; there are {', '.join(sorted(KEYS))}")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WrongSetting(option(key), f"must be {kind.__name__}, not {value!r}")
    return given


def _address(name: str, text: str, *, has_token: bool) -> Address:
    try:
        address = parse_address(text)
        is_open = not address.is_loopback
    except (ValueError, OSError) as error:
        raise WrongSetting(name, f"{text}: {error}") from error
    if is_open and not has_token:
        raise WrongSetting(
            name, f"{text} can be reached from other machines, which needs --token-file; or listen on 127.0.0.1"
        )
    return address


def _token(path: str | None) -> str | None:
    if path is None:
        return None
    # It loads gRPC, which reads the environment that `service.__main__` sets.
    from gradwire.channel import read_token  # noqa: PLC0415

    try:
        return read_token(None, path)
    except InvalidSpec as error:
        raise WrongSetting("--token-file", error.violations[0].description) from error


def _certificate(given: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    cert, key = given.get("tls_cert"), given.get("tls_key")
    if (cert is None) != (key is None):
        missing, present = ("--tls-key", "--tls-cert") if key is None else ("--tls-cert", "--tls-key")
        raise WrongSetting(missing, f"is needed with {present}; give both or neither")
    if cert is None or key is None:
        return None, None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise WrongSetting("--tls-cert", f"{cert} with --tls-key {key}: {error}; both must be PEM files") from error
    return Path(cert), Path(key)


def _encrypts_exchange(given: Mapping[str, Any]) -> bool:
    is_wanted: bool = given.get("exchange_tls", False)
    if is_wanted and given.get("ray") is None:
        raise WrongSetting(
            "--exchange-tls", "is for the nodes of a cluster, named by --ray; on one machine nothing is sent"
        )
    return is_wanted


def _state(text: str | None) -> Path:
    if text is None:
        raise WrongSetting("--state", "is needed: the folder where jobs, checkpoints and exports are kept")
    if "://" in text:
        raise WrongSetting("--state", f"{text} is no folder of this machine, and the service has none of it elsewhere")
    path = Path(text).expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = path / f".write-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise WrongSetting("--state", f"{path} cannot be written: {error.strerror}; name another folder") from error
    return path


def _ray(address: str | None) -> str | None:
    if address is None and importlib.util.find_spec("tensorflow") is None:  # which this process never imports
        raise WrongSetting(
            "--ray",
            "is needed, since TensorFlow is not installed here: give HOST:PORT of a Ray cluster whose nodes have it, "
            "or install gradwire[service,compute]",
        )
    return address


def _data_root(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text).expanduser()
    if not path.is_dir():
        raise WrongSetting("--data-root", f"{path} is no folder; make it, or name another")
    return path.resolve()


def _log_format(text: str) -> str:
    if text not in FORMATS:
        raise WrongSetting("--log-format", f"must be {' or '.join(FORMATS)}, not {text!r}")
    return text


def _trust(names: list[Any]) -> tuple[str, ...]:
    for name in names:
        if not (isinstance(name, str) and all(part.isidentifier() for part in name.split("."))):
            raise WrongSetting("--trust", f"{name!r} is no name of a Python package")
    return tuple(names)


def _count(given: Mapping[str, Any], key: str, default: int) -> int:
    value: int = given.get(key, default)
    if value < 0:
        raise WrongSetting(option(key), f"must be at least 0, not {value}")
    return value
