"""Gradwire: distributed training of Keras models, with results that do not depend on who computed them.

    import gradwire

    with gradwire.Client("127.0.0.1:50551") as client:
        job = client.submit("job.yaml")
        for event in client.watch(job.id):
            print(event.message)

Names are imported when they are first used: `import gradwire` alone loads neither gRPC nor pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradwire import errors

if TYPE_CHECKING:
    from gradwire.client import Client
    from gradwire.spec.file import load, parse
    from gradwire.spec.job import JobSpec

__all__ = ["Client", "JobSpec", "errors", "load", "parse"]

_HOMES = {
    "Client": "gradwire.client",
    "JobSpec": "gradwire.spec.job",
    "load": "gradwire.spec.file",
    "parse": "gradwire.spec.file",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradwire' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
