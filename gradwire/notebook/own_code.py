"""A model with layers, functions, losses or metrics of the caller's own, as a source folder to build it from.

Classes and functions travel by value (cloudpickle), so that those of a notebook's cells do, too; what they import must
be installed where they run. A server takes them with --allow-code alone.
"""

from __future__ import annotations

import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from gradwire.errors import InvalidSpec, Violation
from gradwire.notebook.ends import caller_keras
from gradwire.notebook.own_pickle import dump

MODULE = "own_code"
MAX_MODEL_BYTES = 60 << 20
"""What fits in a source folder beside the code."""
OURS = ("gradwire", "protos", "service", "workers")

BUILD = '''"""Written by Gradwire: the caller's model, with the classes and functions that it is made of."""

import linecache
import pickle
from pathlib import Path

import keras

FOLDER = Path(__file__).parent
with (FOLDER / "objects.pickle").open("rb") as file:
    OBJECTS, NAMED, SOURCES = pickle.load(file)
for name, text in SOURCES.items():  # so that tracebacks have the lines
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
globals().update(NAMED)


def build():
    return keras.saving.load_model(FOLDER / "model.keras", custom_objects=OBJECTS, compile=False, safe_mode=False)
'''


class OwnCode:
    """The caller's own classes and functions that a model, its losses and metrics are made of."""

    def __init__(self, model: Any, config: Any, trust: tuple[str, ...] = ()) -> None:
        """Looks for what the model is made of.

        Args:
            config: what `model.to_json()` says, parsed.
            trust: packages that the server has, whose registered objects go by their names.

        Raises:
            InvalidSpec: the object of a name in the config is not to be found.
        """
        self._trust = trust
        self._named: dict[str, Any] = {}
        wanted = set(_foreign(config))
        self._has_lambda = None in wanted
        known = dict(_reachable(model)) if wanted else {}
        self._objects = {name: _found(name, known) for name in wanted if name is not None}

    def is_needed(self, violations: list[Violation]) -> bool:
        """Whether the model cannot go as data; `violations` is what a server would find in it."""
        return bool(self._named) or (bool(violations) and (self._has_lambda or bool(self._objects)))

    def reference(self, given: Any, name: str) -> str:
        """The name by which a job means a loss or metric that is none of Keras's."""
        registered = str(caller_keras().saving.get_registered_name(given))
        if ">" in registered and given.__module__.partition(".")[0] in self._trust:
            return registered
        name = re.sub(r"\W", "_", name).strip("_") or "function"
        while self._named.get(name, given) is not given:
            name += "_"
        self._named[name] = given
        return f"{MODULE}:{name}"

    def write(self, model: Any, folder: Path) -> Mapping[str, Any]:
        """Writes the source folder; returns `model` of a job file."""
        folder.mkdir()
        model.save(folder / "model.keras")
        size_bytes = (folder / "model.keras").stat().st_size
        if size_bytes > MAX_MODEL_BYTES:
            raise _refused(
                f"has {size_bytes >> 20} MiB; with code of your own at most {MAX_MODEL_BYTES >> 20} travel: submit it "
                "as model.python, a function of a source folder"
            )
        (folder / f"{MODULE}.py").write_text(BUILD)
        with _by_value(), (folder / "objects.pickle").open("wb") as file:
            dump(self._objects, self._named, file)
        return {"python": {"function": f"{MODULE}:build", "source": str(folder)}}


def _foreign(config: Any) -> Iterator[str | None]:
    """Registered names of classes, and names of functions, that are not Keras's own; None for a lambda."""
    if isinstance(config, list):
        for item in config:
            yield from _foreign(item)
    if not isinstance(config, dict):
        return
    kind, module = config.get("class_name"), str(config.get("module") or "")
    if kind == "__lambda__":
        yield None
    elif kind == "function" and module.partition(".")[0] != "keras":
        yield str(config.get("config"))
    elif isinstance(kind, str) and config.get("registered_name") and module.partition(".")[0] != "keras":
        yield str(config["registered_name"])
    for item in config.values():
        yield from _foreign(item)


def _reachable(model: Any) -> Iterator[tuple[str, Any]]:
    """Classes by their registered names and functions by theirs, as far as layers hold them."""
    registered_name = caller_keras().saving.get_registered_name
    for layer in model._flatten_layers(include_self=True):
        for item in (layer, *_values(vars(layer).values())):
            owner = item if isinstance(item, type) or hasattr(item, "__code__") else type(item)
            if not owner.__module__.startswith(("keras.", "builtins")):
                name = owner.__name__ if hasattr(owner, "__code__") else registered_name(owner)
                yield str(name), owner


def _values(items: Any) -> Iterator[Any]:
    for item in items:
        yield item
        if isinstance(item, dict):
            yield from item.values()
        elif isinstance(item, list | tuple):
            yield from item


def _found(name: str, known: Mapping[str, Any]) -> Any:
    for place in (known, caller_keras().saving.get_custom_objects(), vars(sys.modules["__main__"])):
        if name in place:
            return place[name]
    raise _refused(f"uses {name!r}, which is not to be found here; submit it as model.python, from its source folder")


@contextmanager
def _by_value() -> Iterator[None]:
    """While it lasts, what the caller's own modules define is pickled whole, and what is installed by its name."""
    mine = [module for module in list(sys.modules.values()) if _is_own(module)]
    for module in mine:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in mine:
            cloudpickle.unregister_pickle_by_value(module)


def _is_own(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    if module is None or not file or module.__name__ == "__main__" or module.__name__.partition(".")[0] in OURS:
        return False
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(Path(file).is_relative_to(place) for place in installed)


def _refused(message: str) -> InvalidSpec:
    return InvalidSpec([Violation("model", message)])
