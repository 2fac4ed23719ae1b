"""The door for models made by Python code: `module:function` of a source folder, on servers that allow code."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import keras

from gradwire.assignment import Assignment
from gradwire.errors import GradwireError, InvalidSpec, JobFailed
from gradwire.packing import unpack
from gradwire.spec.job import FileRef, PythonModel
from gradwire.storage import Storage


def call_function(spec: PythonModel, assignment: Assignment, storage: Storage) -> keras.Model:
    """The model that the user's function returns.

    Raises:
        JobFailed: `code_not_allowed` without --allow-code; `code_missing` if the source is not to be had; `model_code`
            for what the user's code raises, with its traceback as details, and for anything but a `keras.Model`.
    """
    if not assignment.allow_code:
        raise JobFailed(
            "model.python runs code of yours, which this server does not; ask its operator for --allow-code, "
            "or give the model as model.keras",
            code="code_not_allowed",
        )
    folder = source_folder(spec.source, assignment, storage)
    module_name, _, name = spec.function.partition(":")
    module = _guarded(folder, spec.function, lambda: _imported(module_name, folder))
    function = getattr(module, name, None)
    if not callable(function):
        raise JobFailed(f"model.python: {module_name} has no function {name}", code="model_code")
    model = _guarded(folder, spec.function, lambda: function(**spec.arguments))
    if not isinstance(model, keras.Model):
        raise JobFailed(
            f"model.python: {spec.function} returned a {type(model).__name__}; return a keras.Model", code="model_code"
        )
    return model


def source_folder(source: FileRef, assignment: Assignment, storage: Storage) -> Path:
    """The source's files in a folder of this node, by content hash, unpacked by whichever process comes first."""
    cache = Path(assignment.cache_dir) / "sources"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as temporary:
        archive = Path(temporary) / "source.zip"
        try:
            digest = _fetch(source, assignment, storage, archive)
            target = cache / digest
            _unpack_once(archive, target)
        except (OSError, InvalidSpec) as error:
            raise JobFailed(
                f"model.python.source: {_label(source)} cannot be read: {error}", code="code_missing"
            ) from error
    return target


def _fetch(source: FileRef, assignment: Assignment, storage: Storage, archive: Path) -> str:
    """Copies the source's zip file to `archive`; returns its SHA-256."""
    digest = hashlib.sha256()
    with archive.open("wb") as file:
        if source.artifact is not None:
            for chunk in storage.chunks(f"artifacts/{source.artifact}"):
                file.write(chunk)
                digest.update(chunk)
        else:
            content = _server_path(source, assignment.data_root).read_bytes()
            file.write(content)
            digest.update(content)
    if source.artifact is not None and digest.hexdigest() != source.artifact:
        raise JobFailed(
            f"model.python.source: {_label(source)} is damaged in the storage; submit the job again",
            code="code_missing",
        )
    return digest.hexdigest()


def _server_path(source: FileRef, data_root: str | None) -> Path:
    if source.server_path is None:
        raise JobFailed(f"model.python.source: {_label(source)} was never uploaded", code="code_missing")
    if data_root is None:
        raise JobFailed(
            f"model.python.source: {_label(source)} is refused: the server has no --data-root; upload the folder",
            code="code_missing",
        )
    root = Path(data_root).resolve()
    path = (root / source.server_path).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise JobFailed(
            f"model.python.source: {_label(source)} is no zip file below the server's data root", code="code_missing"
        )
    return path


def _unpack_once(archive: Path, target: Path) -> None:
    if target.is_dir():
        return
    try:
        unpack(archive, target)
    except OSError:
        if not target.is_dir():  # otherwise another process was first
            raise


def _label(source: FileRef) -> str:
    return source.label or source.server_path or source.artifact or source.path or "the source"


def _imported(name: str, folder: Path) -> ModuleType:
    """Imports a module of the folder, which comes first in sys.path for the rest of the process."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    places = [module.__file__] if module.__file__ else list(module.__path__)
    if not any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise JobFailed(
            f"model.python: the module {name} was found in {places[0]}, not in the source folder; rename yours",
            code="model_code",
        )
    return module


def _guarded(folder: Path, function: str, call: Callable[[], Any]) -> Any:
    """What `call` returns; what the user's code raises becomes a failure with the user's part of the traceback."""
    try:
        return call()
    except GradwireError:
        raise
    except (Exception, SystemExit) as error:
        frame, text = _users_traceback(error, folder)
        place = f" ({frame})" if frame else ""
        reason = (str(error).strip().splitlines() or [""])[0][:500]
        raise JobFailed(
            f"model.python: {function} raised {type(error).__name__}: {reason}{place}", code="model_code", details=text
        ) from error


def _users_traceback(error: BaseException, folder: Path) -> tuple[str, str]:
    """The innermost place in the user's files as "file, line n", and the traceback from the user's first frame on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [index for index, frame in enumerate(frames) if Path(frame.filename).is_relative_to(folder)]
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{_relative(error.filename, folder)}, line {error.lineno}"
    elif own:
        place = f"{_relative(frames[own[-1]].filename, folder)}, line {frames[own[-1]].lineno}"
    else:
        place = ""
    if own:
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames[own[0] :]), *lines]
    return place, "".join(lines).replace(f"{folder}{os.sep}", "")


def _relative(filename: str, folder: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else filename
