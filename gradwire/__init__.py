"""Gradwire: distributed training of Keras models, with results that do not depend on who computed them.

    import gradwire

    with gradwire.Client("127.0.0.1:50551") as client:
        job = client.submit("job.yaml")
        for event in client.watch(job.id):
            print(event.message)

    history = gradwire.fit(model, x, y, epochs=3, workers=2)  # a Keras model of your own process

Names are imported when they are first used: `import gradwire` alone loads neither gRPC nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradwire import errors

if TYPE_CHECKING:
    from gradwire.client import Client
    from gradwire.notebook.fit import fit
    from gradwire.notebook.local_server import local_server
    from gradwire.ragged_rows import ragged
    from gradwire.spec.file import load, parse
    from gradwire.spec.job import JobSpec

__all__ = ["Client", "JobSpec", "errors", "fit", "load", "local_server", "parse", "ragged"]

_HOMES = {
    "Client": "gradwire.client",
    "JobSpec": "gradwire.spec.job",
    "fit": "gradwire.notebook.fit",
    "load": "gradwire.spec.file",
    "local_server": "gradwire.notebook.local_server",
    "parse": "gradwire.spec.file",
    "ragged": "gradwire.ragged_rows",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradwire' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
