"""Job files: a specification as people write it, in YAML, with paths relative to the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradwire.errors import InvalidSpec, Violation
from gradwire.spec.check import validate
from gradwire.spec.file_refs import PLACES, path_fault
from gradwire.spec.job import JobSpec
from gradwire.spec.yaml_text import YAMLTextError, read

MAX_JOB_FILE_BYTES = 4 << 20
MAX_MODEL_FILE_BYTES = 32 << 20


def load(path: str | Path) -> JobSpec:
    """The specification in a job file; paths in it are relative to its folder.

    Raises `InvalidSpec`: where the file is missing or no YAML, with the file's name as the field; else with everything
    that is wrong in it, each with its field path.
    """
    path = Path(path)
    try:
        document = read(_text(path, MAX_JOB_FILE_BYTES))
    except (_UnreadableError, YAMLTextError) as error:
        raise InvalidSpec([Violation(str(path), str(error))]) from error
    if document is None:
        raise InvalidSpec(
            [Violation(str(path), "is empty; a job file has the fields of a job, such as name and model")]
        )
    if not isinstance(document, dict):
        raise InvalidSpec([Violation(str(path), "is no job file: the top must be a mapping of fields, such as name")])
    return parse(document, path.parent)


def parse(document: Mapping[str, Any], base: str | Path = ".") -> JobSpec:
    """The specification that a mapping of the fields of a job file describes; paths in it are relative to `base`.

    Raises `InvalidSpec` with everything that is wrong, each with its field path; files that are not there are among it.
    """
    found: list[Violation] = []
    resolved: dict[str, Any] = dict(document)
    for place in PLACES:
        _resolve(resolved, place, ".".join(place), Path(base), found)
    model = resolved.get("model")
    if isinstance(model, dict) and model.get("keras") is not None:
        resolved["model"] = {**model, "keras": _keras_text(model["keras"], Path(base), found)}
    return validate(resolved, found)


class _UnreadableError(Exception):
    """A text file that cannot be read; the message says why."""


def _text(path: Path, max_bytes: int) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise _UnreadableError("is not there: no such file") from error
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise _UnreadableError(f"is larger than {max_bytes >> 20} MiB")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _UnreadableError(f"is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}") from error


def _resolve(part: dict[str, Any], place: tuple[str, ...], field: str, base: Path, found: list[Violation]) -> None:
    """Gives the file at a place, if there is one, its absolute path; copies the mappings on the way."""
    name, *rest = place
    child = part.get(name)
    if rest and isinstance(child, Mapping):
        part[name] = dict(child)
        _resolve(part[name], tuple(rest), field, base, found)
        return
    written = child.get("path") if isinstance(child, Mapping) else child
    if rest or not isinstance(written, str | Path) or str(written).startswith("server:"):
        return
    label = str(written).encode("utf-8", "replace").decode()
    path = (base / Path(written).expanduser()).absolute()
    if fault := path_fault(field, path):
        found.append(
            Violation(field, f"{label} {fault} (looked at {path})" if str(path) != label else f"{label} {fault}")
        )
    part[name] = {**(child if isinstance(child, Mapping) else {}), "path": str(path)}
    part[name].setdefault("label", label)


def _keras_text(keras: object, base: Path, found: list[Violation]) -> object:
    """JSON text of a Keras config that is given inline, as JSON text or as the path of a .json file."""
    if isinstance(keras, dict):
        return _dumped(keras, found)
    if not isinstance(keras, str | Path):
        found.append(Violation("model.keras", "must be a Keras config, or the path of a .json file"))
        return "{}"
    text = str(keras)
    label = "" if text.lstrip().startswith("{") else f"{text} "
    try:
        if label:
            text = _text(base / Path(text).expanduser(), MAX_MODEL_FILE_BYTES)
        config = json.loads(text)
    except (_UnreadableError, ValueError, RecursionError, OSError) as error:
        found.append(Violation("model.keras", f"{label}{_json_fault(error)}"))
        return "{}"
    if not isinstance(config, dict):
        found.append(Violation("model.keras", f"{label}must be a JSON object, as model.to_json() writes it"))
    return _dumped(config, found)


def _json_fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}"
    return str(error) if isinstance(error, _UnreadableError) else f"cannot be read: {error}"


def _dumped(config: object, found: list[Violation]) -> str:
    try:
        return json.dumps(config, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        found.append(Violation("model.keras", f"is no plain data as in JSON: {error}"))
        return "{}"
