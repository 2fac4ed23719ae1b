"""Code of a user: a source folder, unpacked once for each node, its functions, and what they raise.

NumPy and Keras are the user's business: nothing of them is imported here.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self

from gradwire.assignment import Assignment
from gradwire.errors import GradwireError, InvalidSpec, JobFailed
from gradwire.packing import unpack
from gradwire.spec.job import FileRef, PythonFunction
from gradwire.storage import Storage

SOURCES = "sources"
"""The folder of the node's cache that has a folder for each source, by its content's hash."""
UNPACKED = re.compile(rf".*/{SOURCES}/[0-9a-f]{{64}}(?=/)")
UNPACKED_ANYWHERE = re.compile(rf"/[^\s\"]*/{SOURCES}/[0-9a-f]{{64}}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class CodePlace:
    """Where a node finds source folders, and whether it runs them at all."""

    storage: Storage
    cache_dir: Path
    data_root: Path | None = None
    is_allowed: bool = False

    @classmethod
    def of(cls, assignment: Assignment, storage: Storage) -> Self:
        """What a process is told of it."""
        return cls(
            storage=storage,
            cache_dir=Path(assignment.cache_dir),
            data_root=Path(assignment.data_root) if assignment.data_root else None,
            is_allowed=assignment.allow_code,
        )


def call(spec: PythonFunction, place: CodePlace, field: str) -> Any:
    """What the user's function returns.

    Args:
        field: the specification's, for messages.

    Raises:
        JobFailed: `code_not_allowed` without --allow-code; `code_missing` if the source is not to be had; `model_code`
            for what the user's code raises, with its traceback as details.
    """
    folder = source_folder(spec.source, place, field)
    function = attribute(spec.function, folder, field)
    return guarded(lambda: function(**spec.arguments), folder, f"{field}: {spec.function}")


def attribute(reference: str, folder: Path, field: str) -> Callable[..., Any]:
    """What `module:name` means in a source folder, which is a function or a class."""
    module_name, _, name = reference.partition(":")
    module = guarded(lambda: _imported(module_name, folder, field), folder, f"{field}: {reference}")
    found: Any = getattr(module, name, None)
    if not callable(found):
        raise JobFailed(f"{field}: {module_name} has no function {name}", code="model_code")
    return found  # type: ignore[no-any-return]


def source_folder(source: FileRef, place: CodePlace, field: str) -> Path:
    """The source's files in a folder of this node, by content hash, unpacked by whichever process comes first."""
    if not place.is_allowed:
        raise JobFailed(
            f"{field} runs code of yours, which this server does not; ask its operator for --allow-code, "
            "or give the model as model.keras and the data as a file",
            code="code_not_allowed",
        )
    cache = place.cache_dir / SOURCES
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as temporary:
        archive = Path(temporary) / "source.zip"
        try:
            target = cache / _fetch(source, place, archive, field)
            _unpack_once(archive, target)
        except (OSError, InvalidSpec) as error:
            raise JobFailed(f"{field}.source: {_label(source)} cannot be read: {error}", code="code_missing") from error
    return target


def guarded(run: Callable[[], Any], folder: Path, what: str) -> Any:
    """What `run` returns; what the user's code raises becomes a failure with the user's part of the traceback."""
    try:
        return run()
    except GradwireError:
        raise
    except (Exception, SystemExit) as error:
        raise failure(error, folder, what) from error


def failure(error: BaseException, folder: Path, what: str) -> JobFailed:
    """A failure that names the place in the user's files, with the traceback from the user's first frame on."""
    place, text = _users_traceback(error, folder)
    reason = _reason(error)
    return JobFailed(
        f"{what} raised {type(error).__name__}: {reason}{f' ({place})' if place else ''}",
        code="model_code",
        details=text,
    )


def failure_within(error: BaseException) -> JobFailed | None:
    """As `failure`, for an error that came up while Keras ran; None if no file of a user has part in it."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        found = UNPACKED.match(frame.filename)
        if found:
            return failure(error, Path(found[0]), f"your {frame.name}")
    return None


def _reason(error: BaseException) -> str:
    """The first line of a message; of what Keras wraps around the message of a layer's call, the inner one."""
    text = str(error.args[0] if len(error.args) == 1 else error).strip()  # str of a KeyError is a repr
    if text.startswith("Exception encountered when calling"):
        text = text.partition("\n")[2].strip() or text
        text = (text.rpartition("Error encountered:")[2]).strip()
    text = text.removeprefix("\x1b[1m").partition("\x1b[0m")[0]
    return (text.splitlines() or [""])[0][:500]


def _fetch(source: FileRef, place: CodePlace, archive: Path, field: str) -> str:
    """Copies the source's zip file to `archive`; returns its SHA-256."""
    digest = hashlib.sha256()
    with archive.open("wb") as file:
        if source.artifact is not None:
            for chunk in place.storage.chunks(f"artifacts/{source.artifact}"):
                file.write(chunk)
                digest.update(chunk)
        else:
            content = _server_path(source, place.data_root, field).read_bytes()
            file.write(content)
            digest.update(content)
    if source.artifact is not None and digest.hexdigest() != source.artifact:
        raise JobFailed(
            f"{field}.source: {_label(source)} is damaged in the storage; submit the job again", code="code_missing"
        )
    return digest.hexdigest()


def _server_path(source: FileRef, data_root: Path | None, field: str) -> Path:
    if source.server_path is None:
        raise JobFailed(f"{field}.source: {_label(source)} was never uploaded", code="code_missing")
    if data_root is None:
        raise JobFailed(
            f"{field}.source: {_label(source)} is refused: the server has no --data-root; upload the folder",
            code="code_missing",
        )
    root = data_root.resolve()
    path = (root / source.server_path).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        raise JobFailed(
            f"{field}.source: {_label(source)} is no zip file below the server's data root", code="code_missing"
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


def _imported(name: str, folder: Path, field: str) -> ModuleType:
    """Imports a module of the folder, which comes first in sys.path for the rest of the process."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    places = [module.__file__] if module.__file__ else list(module.__path__)
    if not any(place and Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise JobFailed(
            f"{field}: the module {name} was found in {places[0]}, not in the source folder; rename yours",
            code="model_code",
        )
    return module


def _users_traceback(error: BaseException, folder: Path) -> tuple[str, str]:
    """The innermost place in the user's files as "file, line n", and the traceback from the user's first frame on."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [index for index, frame in enumerate(frames) if _is_own(frame.filename, folder)]
    lines = traceback.format_exception_only(error)
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{_relative(error.filename, folder)}, line {error.lineno}"
    elif own:
        place = f"{_relative(frames[own[-1]].filename, folder)}, line {frames[own[-1]].lineno}"
    else:
        place = ""
    if own:
        lines = ["Traceback (most recent call last):\n", *traceback.format_list(frames[own[0] :]), *lines]
    return place, UNPACKED_ANYWHERE.sub("", "".join(lines).replace(f"{folder}{os.sep}", ""))


def _is_own(filename: str, folder: Path) -> bool:
    """Code that came by value has a place below a source folder that is none of this node's."""
    return Path(filename).is_relative_to(folder) or UNPACKED.match(filename) is not None


def _relative(filename: str, folder: Path) -> str:
    path = Path(filename)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else UNPACKED_ANYWHERE.sub("", filename)
