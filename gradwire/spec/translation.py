"""Pydantic's errors in plain words: the field's path as the user writes it, and what is wrong with the value."""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic_core import ErrorDetails

from gradwire.errors import Violation
from gradwire.spec.job import JobSpec
from gradwire.spec.part import Part

MAX_SHOWN_CHARS = 60

WORDS: Mapping[str, str] = {
    "missing": "is required",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must name at least one",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of fields",
    "model_attributes_type": "must be a mapping of fields",
    "list_type": "must be a list",
}

PATTERNS: Mapping[str, str] = {
    "name": "must begin with a letter, a digit or _ and go on with those, blanks, dots and hyphens",
    "function": "must be module:function",
    "artifact": "must be a SHA-256 in hexadecimal",
}
"""By field: what the field's regular expression asks for."""


def violation_of(error: ErrorDetails) -> Violation:
    """What one of pydantic's errors about a `JobSpec` says."""
    location = error["loc"]
    if error["type"] == "value_error":
        return _rule(location, str(error["ctx"]["error"]))
    if error["type"] == "extra_forbidden":
        return Violation(path(location), _unknown(location))
    if error["type"] == "string_pattern_mismatch":
        words = PATTERNS.get(str(location[-1]), f"must match {error['ctx']['pattern']}")
    else:
        words = WORDS.get(error["type"], error["msg"][:1].lower() + error["msg"][1:])
    words = words.format(**error.get("ctx", {}))
    return Violation(path(location), words + _shown(error))


def path(location: tuple[int | str, ...]) -> str:
    """A place in a specification as users write it: camelCase fields, dots, brackets around indices and odd keys."""
    text = ""
    for name, key in _steps(location):
        if isinstance(key, int):
            text += f"[{key}]"
        elif name is not None or key.replace("_", "a").isalnum():
            text += f".{name or key}"
        elif key:  # the only input or output has no name
            text += f'["{key}"]'
    return text.removeprefix(".")


def _rule(location: tuple[int | str, ...], message: str) -> Violation:
    """A rule over several fields. One over the whole specification begins with the field at fault."""
    if location:
        return Violation(path(location), message)
    field, _, rest = message.partition(" ")
    return Violation(field, rest)


def _unknown(location: tuple[int | str, ...]) -> str:
    """What to say of a field that does not exist: the field that was meant, or where such a field is, or all fields."""
    name, part = str(location[-1]), _part_at(location[:-1])
    here = [str(field.alias) for field in part.model_fields.values()]
    folded = {alias.lower(): alias for alias in here}
    near = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=2, cutoff=0.7)
    if near:
        return f"is not a field; did you mean {' or '.join(folded[match] for match in near)}?"
    elsewhere = [place for place in _all_fields(JobSpec, "") if place.rpartition(".")[2] == name]
    if elsewhere:
        return f"is not a field here; did you mean {' or '.join(elsewhere[:3])}?"
    return f"is not a field; the fields here are {', '.join(here)}"


def _shown(error: ErrorDetails) -> str:
    value = error["input"]
    if error["type"] == "missing" or value in ("", None) or not isinstance(value, str | int | float):
        return ""
    shown = repr(value)
    return f", not {shown}" if len(shown) <= MAX_SHOWN_CHARS else f", not {shown[:MAX_SHOWN_CHARS]}…"


def _steps(location: tuple[int | str, ...]) -> Iterator[tuple[str | None, int | str]]:
    """Each key of a location, with the camelCase name of the field that it is, if it is one."""
    for index, key in enumerate(location):
        part = _part_at(location[:index])
        field = part.model_fields.get(str(key))
        aliases = {str(field.alias) for field in part.model_fields.values()}
        yield (str(field.alias) if field else str(key) if key in aliases else None), key


def _part_at(location: tuple[int | str, ...]) -> type[Part]:
    """The class of the part at a location; `Part` itself, which has no fields, where there is another kind of value."""
    kind: Any = JobSpec
    for key in location:
        kind = _inner(kind, str(key))
    return kind if isinstance(kind, type) and issubclass(kind, Part) else Part


def _inner(kind: Any, key: str) -> Any:
    """The type of what is at `key` in a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, Part):
        for name, field in kind.model_fields.items():
            if key in (name, field.alias):
                return _plain(field.annotation)
        return None
    if get_origin(kind) in (dict, list):
        return _plain(get_args(kind)[-1])
    return None


def _plain(kind: Any) -> Any:
    """A type without its annotations, and without None."""
    if get_origin(kind) is Annotated:
        return _plain(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return next(_plain(one) for one in get_args(kind) if one is not type(None))
    return kind


def _all_fields(part: type[Part], prefix: str) -> Iterator[str]:
    for field in part.model_fields.values():
        place = f"{prefix}{field.alias}"
        yield place
        kind = _plain(field.annotation)
        if isinstance(kind, type) and issubclass(kind, Part):
            yield from _all_fields(kind, f"{place}.")
