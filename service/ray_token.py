"""The token without which nobody connects to the service's Ray.

Whoever reaches a Ray without one runs any code on its machines.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from gradwire.errors import GradwireError

FILE_NAME = "ray_token"
TOKEN_BYTES = 32

MODE_VARIABLE = "RAY_AUTH_MODE"
TOKEN_VARIABLE = "RAY_AUTH_TOKEN"
PATH_VARIABLE = "RAY_AUTH_TOKEN_PATH"


def own_token(state: Path) -> Path:
    """The file in the state folder that holds the service's own token, made at the first call.

    Raises GradwireError for a file that others may read, or that holds no token.
    """
    path = state / FILE_NAME
    state.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        _create(path)
    if path.stat().st_mode & 0o077:
        raise GradwireError(f"{path} can be read by others; delete it for a new token, or run: chmod 600 {path}")
    if not _read(path):
        raise GradwireError(f"{path} is empty; delete it for a new token")
    return path


def _create(path: Path) -> None:
    # Written aside and linked, so that of two services that start at once one makes the token and both read it.
    temporary = path.with_name(f"{FILE_NAME}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(TOKEN_BYTES))
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise GradwireError(f"{path} holds no readable Ray token: {error.strerror}") from error


def own_environment(path: Path) -> dict[str, str | None]:
    """What makes Ray, in this process and its children, ask for the token in `path`; None stands for unset."""
    return {MODE_VARIABLE: "token", PATH_VARIABLE: str(path), TOKEN_VARIABLE: None}


def given_token(environment: Mapping[str, str]) -> str:
    """The token of somebody else's Ray, from the environment.

    Raises GradwireError where none is set.
    """
    token = environment.get(TOKEN_VARIABLE, "").strip()
    if not token and (path := environment.get(PATH_VARIABLE)):
        try:
            token = _read(Path(path))
        except GradwireError as error:
            raise GradwireError(f"{PATH_VARIABLE}: {error.message}; name the file with the cluster's token") from error
    if not token:
        raise GradwireError(
            f"no Ray token: set {TOKEN_VARIABLE}, or {PATH_VARIABLE} to its file, to the token that the cluster "
            f"was started with ({MODE_VARIABLE}=token)"
        )
    return token


def apply(changes: Mapping[str, str | None], environment: MutableMapping[str, str]) -> dict[str, str | None]:
    """Sets and unsets variables; returns the changes that undo it."""
    before = {name: environment.get(name) for name in changes}
    for name, value in changes.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return before
