"""The files that a specification names: finding them all, and putting others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from gradwire.spec.job import FileRef, JobSpec
from gradwire.spec.part import Part

PLACES = (
    ("model", "archive"),
    ("model", "python", "source"),
    ("data", "train", "npz"),
    ("data", "train", "python", "source"),
    ("data", "validation", "source", "npz"),
    ("data", "validation", "source", "python", "source"),
)
"""Where a specification can name a file; as attributes and in camelCase these names are the same."""

SOURCE = ".python.source"
"""What ends the places that name a folder."""

P = TypeVar("P", bound=Part)


def file_refs(spec: JobSpec) -> Iterator[tuple[str, FileRef]]:
    """Every file of the specification, with its field path."""
    for place in PLACES:
        part: object = spec
        for name in place:
            part = getattr(part, name, None)
        if isinstance(part, FileRef):
            yield ".".join(place), part


def with_file_refs(spec: JobSpec, change: Callable[[str, FileRef], FileRef]) -> JobSpec:
    """The specification with `change(field path, file)` instead of each of its files."""
    for place in PLACES:
        spec = _changed(spec, place, 0, change)
    return spec


def path_fault(field: str, path: Path) -> str | None:
    """Why what is at a path of this machine cannot be the file (of a Python model: the folder) of a field, if so."""
    try:
        is_folder, size_bytes = path.is_dir(), path.stat().st_size
    except (OSError, ValueError):
        return "is not there"
    if field.endswith(SOURCE):
        return None if is_folder else "is no folder; name the folder that the module is in"
    if is_folder:
        return "is a folder, not a file"
    return None if size_bytes else "is empty"


def _changed(part: P, place: tuple[str, ...], depth: int, change: Callable[[str, FileRef], FileRef]) -> P:
    name = place[depth]
    child = getattr(part, name)
    if depth == len(place) - 1:
        new = change(".".join(place), child) if isinstance(child, FileRef) else child
    else:
        new = _changed(child, place, depth + 1, change) if isinstance(child, Part) else child
    return part if new is child else part.model_copy(update={name: new})
