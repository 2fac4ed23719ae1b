"""Jobs around a model, and a place to build it in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import keras

from gradwire.assignment import Assignment
from gradwire.packing import pack
from gradwire.spec.job import JobSpec
from gradwire.storage import Storage
from workers.models.build import build_model


def job(model: dict[str, Any], *, seed: int = 0, **more: Any) -> JobSpec:
    value = {
        "name": "job",
        "model": model,
        "data": {"train": {"builtin": "digits"}, "inputs": more.pop("inputs", "x"), "labels": more.pop("labels", "y")},
        "loss": "mse",
        "optimizer": "sgd",
        "training": {"globalBatch": 4, "epochs": 1, "seed": seed},
        **more,
    }
    if "weights" in value:
        value["data"]["sampleWeights"] = value.pop("weights")
    return JobSpec.model_validate(value)


class Place:
    """A storage and a cache in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage(str(folder / "storage"))

    def assignment(self, spec: JobSpec, **more: Any) -> Assignment:
        return Assignment(
            job_id="j",
            generation=1,
            spec_json=spec.model_dump_json(by_alias=True),
            storage_url=self.storage.url,
            service_id="s",
            token="t",
            cache_dir=str(self.folder / "cache"),
            **more,
        )

    def build(self, spec: JobSpec, **more: Any) -> keras.Model:
        return build_model(spec, self.assignment(spec, **more), self.storage)

    def python(self, source: str, *, function: str, arguments: dict[str, Any] | None = None) -> JobSpec:
        name = function.split(":", maxsplit=1)[0].replace(".", "/") + ".py"
        folder = self.folder / "source"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(source)
        pack(folder, self.folder / "source.zip")
        content = (self.folder / "source.zip").read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        self.storage.write(f"artifacts/{digest}", content)
        source_file = {"artifact": digest, "label": "source"}
        return job({"python": {"function": function, "source": source_file, "arguments": arguments or {}}})
